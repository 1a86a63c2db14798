//! Virtual machines by QEMU, without the processor's help, so that they run anywhere: a kernel, busybox, one network
//! device by vhost-user.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::initramfs::Initramfs;
use super::kernel::Kernel;
use crate::command::{self, SHORT};
use crate::daemon::Daemon;
use crate::netns::Netns;

const BUSYBOX: &str = "/bin/busybox";

/// What a machine is to be.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// The socket of its network device.
    pub socket: &'a str,
    /// It makes the socket and listens; otherwise it connects, again and again.
    pub listens: bool,
    /// The address of its network device.
    pub mac: &'a str,
    /// What is in its file `/www/file`.
    pub content: &'a [u8],
    /// What it does when its modules are loaded, by busybox's shell.
    pub script: &'a str,
}

/// Starts a machine; what its console says is in `machine.log`.
///
/// # Errors
/// When it does not start.
pub fn start(netns: &Netns, dir: &Path, kernel: &Kernel, machine: &Machine<'_>) -> Result<Daemon> {
    let initrd = dir.join("initramfs");
    fs::write(&initrd, initramfs(kernel, machine)?)?;
    let mode = if machine.listens { "server=on" } else { "reconnect=1" };
    let mut command = netns.command("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-machine",
        "q35,memory-backend=m",
    ]);
    command.args([
        "-m",
        "192",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
    ]);
    command.args(["-object", "memory-backend-memfd,id=m,size=192M,share=on"]);
    command.args(["-chardev", &format!("socket,id=c0,path={},{mode}", machine.socket)]);
    command.args(["-netdev", "vhost-user,id=n0,chardev=c0"]);
    // QEMU 7.2 ends by a fault of its own when such a device has interrupts by message.
    command.args(["-device", &format!("virtio-net-pci,netdev=n0,mac={},romfile=,vectors=0", machine.mac)]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&initrd);
    // A host with much else to do lets a timer's test fail.
    command.args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check"]);
    Daemon::spawn(command, "qemu-system-x86_64".to_owned(), &dir.join("machine.log"))
}

fn initramfs(kernel: &Kernel, machine: &Machine<'_>) -> Result<Vec<u8>> {
    let mut files = Initramfs::default();
    ["proc", "sys", "dev", "tmp"].iter().for_each(|folder| files.folder(folder));
    // One that is linked with nothing says so by failing.
    let libraries = command::run(Command::new("ldd").arg(BUSYBOX), SHORT)?.stdout;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([BUSYBOX]) {
        let content = fs::read(path).with_context(|| format!("cannot read {path}"))?;
        files.file(path.trim_start_matches('/'), &content);
    }
    files.link("bin/sh", BUSYBOX);
    let mut init = format!("#!{BUSYBOX} sh\nb={BUSYBOX}\n");
    init += "$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev\n";
    for path in &kernel.modules {
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        files.file(&format!("modules/{name}"), &fs::read(path)?);
        init += &format!("$b insmod /modules/{name}\n");
    }
    init += machine.script;
    files.file("www/file", machine.content);
    files.file("init", init.as_bytes());
    Ok(files.finish())
}
