//! What the host must have to build and run Ferroflow, and how to get it on Debian.
//!
//! A need is looked for by its evidence, a command or a file, not by the name of a package: hosts of other
//! distributions that have everything are welcome.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ferroflow_tests::command::{complaint, run};
use ferroflow_tests::daemon::has_command;
use ferroflow_tests::{privilege, say};

use crate::cargo;

/// An installation of all packages takes well below a minute where a mirror is near.
const APT_LIMIT: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
enum Evidence {
    Command(&'static str),
    File(&'static str),
}

/// Something the host must have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    package: &'static str,
    evidence: Evidence,
    why: &'static str,
}

/// What compiling needs.
#[rustfmt::skip]
const BUILD: &[Need] = &[
    Need { package: "gcc", evidence: Evidence::Command("cc"), why: "links programs, compiles the C of libxdp and ring" },
    Need { package: "libc6-dev", evidence: Evidence::File("/usr/include/stdio.h"), why: "headers of the C library" },
    Need { package: "make", evidence: Evidence::Command("make"), why: "builds libbpf, which xsk-rs brings along" },
    Need { package: "pkg-config", evidence: Evidence::Command("pkg-config"), why: "libbpf's build asks it for libelf" },
    Need { package: "clang", evidence: Evidence::Command("clang"), why: "compiles libxdp's BPF programs and reads its headers" },
    Need { package: "m4", evidence: Evidence::Command("m4"), why: "writes the source of libxdp's dispatcher" },
    Need { package: "libelf-dev", evidence: Evidence::File("/usr/include/gelf.h"), why: "libbpf reads ELF files" },
    Need { package: "zlib1g-dev", evidence: Evidence::File("/usr/include/zlib.h"), why: "libelf's compressed sections" },
];

/// What networks in namespaces need.
#[rustfmt::skip]
const NETWORK: &[Need] = &[
    Need { package: "iproute2", evidence: Evidence::Command("ip"), why: "makes namespaces, links and routes" },
    Need { package: "util-linux", evidence: Evidence::Command("setpriv"), why: "lets daemons end with what started them" },
];

/// What tests talk to beside: peers that others wrote.
#[rustfmt::skip]
const PEERS: &[Need] = &[
    Need { package: "nftables", evidence: Evidence::Command("nft"), why: "asks nf_conntrack what it thinks of packets" },
    Need { package: "tcpdump", evidence: Evidence::Command("tcpdump"), why: "reads what was captured" },
    Need { package: "iperf3", evidence: Evidence::Command("iperf3"), why: "sends streams that rates are held against" },
    Need { package: "ethtool", evidence: Evidence::Command("ethtool"), why: "says what pods leave to their devices" },
    Need { package: "faketime", evidence: Evidence::Command("faketime"), why: "sets the clock of a daemon, and of nobody else" },
    Need { package: "curl", evidence: Evidence::Command("curl"), why: "client of HTTP, FTP and TFTP" },
    Need { package: "busybox", evidence: Evidence::Command("busybox"), why: "HTTP server" },
    Need { package: "vsftpd", evidence: Evidence::Command("vsftpd"), why: "FTP server" },
    Need { package: "tftpd-hpa", evidence: Evidence::Command("in.tftpd"), why: "TFTP server" },
    Need { package: "traceroute", evidence: Evidence::Command("traceroute"), why: "asks routers on the way" },
    Need { package: "isc-dhcp-client", evidence: Evidence::Command("dhclient"), why: "DHCP client, of IPv4 and IPv6" },
    Need { package: "dhcpcd-base", evidence: Evidence::Command("dhcpcd"), why: "another DHCP client" },
    Need { package: "bind9-dnsutils", evidence: Evidence::Command("dig"), why: "asks for names" },
    Need { package: "dnsmasq-base", evidence: Evidence::Command("dnsmasq"), why: "resolver" },
    Need { package: "bird2", evidence: Evidence::Command("bird"), why: "next hop that says that it lives (BFD)" },
    Need { package: "iputils-ping", evidence: Evidence::Command("ping"), why: "echo requests by IPv6" },
    Need { package: "lldpd", evidence: Evidence::Command("lldpd"), why: "a neighbour that tells of itself" },
    Need { package: "etcd-server", evidence: Evidence::Command("etcd"), why: "keeps the network of several controllers" },
    Need { package: "etcd-client", evidence: Evidence::Command("etcdctl"), why: "asks etcd who leads, and has it forget" },
    Need { package: "nfdump", evidence: Evidence::Command("nfcapd"), why: "collects flows by NetFlow and IPFIX" },
    Need { package: "nfdump-sflow", evidence: Evidence::Command("sfcapd"), why: "collects samples by sFlow" },
    Need { package: "containernetworking-plugins", evidence: Evidence::File("/usr/lib/cni/host-local"), why: "gives containers addresses" },
    Need { package: "podman", evidence: Evidence::Command("podman"), why: "runs containers on our networks" },
    Need { package: "runc", evidence: Evidence::Command("runc"), why: "podman's hands, and Docker's" },
    Need { package: "docker.io", evidence: Evidence::Command("dockerd"), why: "runs containers on our networks" },
    Need { package: "containerd", evidence: Evidence::Command("containerd"), why: "holds Docker's containers" },
    Need { package: "qemu-system-x86", evidence: Evidence::Command("qemu-system-x86_64"), why: "runs virtual machines" },
    Need { package: "seabios", evidence: Evidence::File("/usr/share/seabios/bios-256k.bin"), why: "starts virtual machines" },
];

/// Guests without a machine.
#[rustfmt::skip]
const GUESTS: &[Need] = &[
    Need { package: "dpdk-dev", evidence: Evidence::Command("dpdk-testpmd"), why: "guest of vhost-user ports without a machine" },
    Need { package: "librte-bus-vdev23", evidence: Evidence::File("/usr/lib/x86_64-linux-gnu/librte_bus_vdev.so.23"), why: "DPDK's devices without hardware" },
    Need { package: "librte-mempool-ring23", evidence: Evidence::File("/usr/lib/x86_64-linux-gnu/librte_mempool_ring.so.23"), why: "DPDK's memory" },
    Need { package: "librte-net-virtio23", evidence: Evidence::File("/usr/lib/x86_64-linux-gnu/librte_net_virtio.so.23"), why: "DPDK's virtio-user" },
];

/// What sends and receives streams.
#[rustfmt::skip]
const STREAMS: &[Need] = &[
    Need { package: "iperf3", evidence: Evidence::Command("iperf3"), why: "sends and receives streams of TCP" },
    Need { package: "iputils-ping", evidence: Evidence::Command("ping"), why: "times echo requests" },
    Need { package: "ethtool", evidence: Evidence::Command("ethtool"), why: "has a veth take frames from XDP" },
];

/// What counts instructions.
#[rustfmt::skip]
const COUNTING: &[Need] = &[
    Need { package: "valgrind", evidence: Evidence::Command("valgrind"), why: "counts the instructions of a packet" },
];

/// Services that packages of ours bring along; nobody has asked for them to run.
const SERVICES: &[(&str, &str)] = &[
    ("vsftpd", "vsftpd.service"),
    ("tftpd-hpa", "tftpd-hpa.service"),
    ("lldpd", "lldpd.service"),
    ("nfdump", "nfdump.service"),
    ("etcd-server", "etcd.service"),
    ("docker.io", "docker.service"),
    ("docker.io", "docker.socket"),
    ("containerd", "containerd.service"),
];
/// Debian asks this before it starts a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Build, and run what needs no namespaces.
    Build,
    /// Show networks in namespaces.
    Demo,
    /// Count instructions.
    Counting,
    /// Measuring streams.
    Streams,
    /// Measuring guests.
    Guests,
    /// Run every test.
    Test,
}

/// Makes sure that the host has what a purpose needs; as root, missing packages are installed unless `install`
/// says no.
///
/// # Errors
/// When something is missing and cannot be installed, with what and why.
pub(crate) fn ensure(purpose: Purpose, install: bool) -> Result<()> {
    let lists: &[&[Need]] = match purpose {
        Purpose::Build => &[BUILD],
        Purpose::Demo => &[BUILD, NETWORK],
        Purpose::Counting => &[BUILD, COUNTING],
        Purpose::Streams => &[BUILD, NETWORK, STREAMS],
        Purpose::Guests => &[BUILD, NETWORK, GUESTS],
        Purpose::Test => &[BUILD, NETWORK, PEERS, GUESTS],
    };
    let needs: Vec<Need> = lists.concat();
    let missing = missing(&needs);
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        say(&format!("            needs {:<12} {}", need.package, need.why));
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    let by_hand = format!("apt-get install {}", packages.join(" "));
    if !has_command("apt-get") {
        bail!("the above is missing, and there is no apt-get: install it with this system's means");
    }
    if !install || !privilege::is_root() {
        bail!("the above is missing; as root: {by_hand}");
    }
    without_services(&packages, || apt_install(&packages))?;
    let still: Vec<&str> = self::missing(&needs).iter().map(|need| need.package).collect();
    anyhow::ensure!(still.is_empty(), "installed, but not found: {}", still.join(" "));
    Ok(())
}

fn missing(needs: &[Need]) -> Vec<Need> {
    let is_missing = |need: &&Need| match need.evidence {
        Evidence::Command(name) => !has_command(name),
        Evidence::File(path) => !Path::new(path).exists(),
    };
    needs.iter().filter(is_missing).copied().collect()
}

/// Installs, but lets no service start, now or when the host starts.
fn without_services(packages: &[&str], install: impl FnOnce() -> Result<()>) -> Result<()> {
    let services = SERVICES.iter().filter(|(package, _)| packages.contains(package));
    let services: Vec<&str> = services.map(|(_, service)| *service).collect();
    if services.is_empty() {
        return install();
    }
    let _policy = Policy::forbid()?;
    install()?;
    if Path::new("/run/systemd/system").exists() {
        let mut command = Command::new("systemctl");
        run(command.arg("disable").args(&services), APT_LIMIT)?;
    }
    Ok(())
}

/// No service may start while this lives. A policy that the host has is its own.
struct Policy {
    is_ours: bool,
}

impl Policy {
    fn forbid() -> Result<Self> {
        let is_ours = !Path::new(POLICY).exists();
        if is_ours {
            fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
            fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { is_ours })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            say(&format!("remove {POLICY}, which lets no service start: {error}"));
        }
    }
}

/// A fresh image has no lists of packages, an old one has lists that name versions that are gone: both are
/// cured by an update, which is not made when it is not needed.
fn apt_install(packages: &[&str]) -> Result<()> {
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(packages);
    say(&format!("            apt-get {}", words.join(" ")));
    if run(&mut apt(&words), APT_LIMIT)?.status.success() {
        return Ok(());
    }
    say("            apt-get update");
    let update = run(&mut apt(&["update"]), APT_LIMIT)?;
    let finished = run(&mut apt(&words), APT_LIMIT)?;
    if !finished.status.success() {
        // An update that failed is the likelier cause.
        let cause = if update.status.success() { &finished } else { &update };
        bail!("cannot install packages: {}", complaint(cause));
    }
    Ok(())
}

fn apt(words: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").current_dir(cargo::root());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_found_and_what_is_not_is_named() {
        let here = Need { package: "dash", evidence: Evidence::Command("sh"), why: "" };
        let file = Need { package: "base-files", evidence: Evidence::File("/etc"), why: "" };
        let gone = Need { package: "gone", evidence: Evidence::Command("no-such-command"), why: "" };
        let lost = Need { package: "lost", evidence: Evidence::File("/no/such/file"), why: "" };
        let names: Vec<_> = missing(&[here, gone, file, lost]).iter().map(|need| need.package).collect();
        assert_eq!(names, ["gone", "lost"]);
    }
}
