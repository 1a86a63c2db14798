//! DPDK's testpmd with a virtio-user device: the driver's side of vhost-user in a process. It answers ARP and echo
//! requests for any address.

use std::path::Path;

use anyhow::Result;

use crate::daemon::Daemon;
use crate::netns::Netns;

/// What it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Device<'a> {
    /// The socket.
    pub socket: &'a str,
    /// It makes the socket and listens.
    pub listens: bool,
    /// Its pairs of queues.
    pub n_queues: usize,
    /// Its address.
    pub mac: &'a str,
}

/// Starts it; its log, with what it counts each second, is beside its socket.
///
/// # Errors
/// When it does not start.
pub fn start(netns: &Netns, dir: &Path, device: &Device<'_>) -> Result<Daemon> {
    let Device { socket, listens, n_queues, mac } = device;
    let mode = if *listens { ",server=1" } else { "" };
    let device = format!("net_virtio_user0,path={socket},queues={n_queues},queue_size=256,mac={mac}{mode}");
    let (rxq, txq) = (format!("--rxq={n_queues}"), format!("--txq={n_queues}"));
    let mut command = netns.command("setpriv");
    // Memory without large pages, which hosts of tests need not have; threads wherever there is room.
    command.args([
        "--pdeathsig",
        "KILL",
        "--",
        "dpdk-testpmd",
        "--lcores=(0,1)@(0-1)",
        "--no-pci",
        "--no-huge",
    ]);
    command.args(["-m", "192", "--no-shconf", "--no-telemetry", "--vdev", &device, "--"]);
    command.args([
        "--nb-cores=1",
        "--forward-mode=icmpecho",
        "--no-mlockall",
        "--total-num-mbufs=8192",
        &rxq,
        &txq,
    ]);
    // Frames of 9000 bytes, in buffers of 2 KiB, in several of them where they do not fit.
    command.args(["--max-pkt-len=9018", "--enable-scatter", "--tx-offloads=0x8000", "--stats-period=1"]);
    Daemon::spawn(command, "dpdk-testpmd".to_owned(), &dir.join("testpmd.log"))
}
