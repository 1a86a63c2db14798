//! Opening a TAP device, or an interface by a packet socket.

use std::{cell::Cell, sync::Arc};

use crate::{
    config::Steering,
    pool::Frame,
    port::{AnyOutlet, AnyQueue, AttachError, Hold, OnInterface, Opened, PortReport, metrics::PortMetrics},
    sys::{
        bpf::Link,
        interface::Interface,
        packet_socket::{self, Reserved},
        tap,
        vnet::VnetFile,
    },
};

/// Most queues of a TAP device: the kernel has 256, each worker needs one.
const MAX_TAP_QUEUES: usize = 64;

/// What keeps an interface's packets from the host's stack, which would answer them, or
/// forward them past the switch.
#[derive(Debug)]
pub(crate) struct VnetHold {
    _link: Option<Link>,
    _reserved: Option<Reserved>,
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct VnetQueue {
    pub(super) file: Arc<VnetFile>,
    pub(super) metrics: Arc<PortMetrics>,
    pub(super) n_dropped: Cell<u64>,
    /// It is an uplink: what comes in are tunnelled packets, many at a time.
    pub(super) is_tunnel: bool,
    /// Such that wait for their turn.
    pub(super) held: Option<Held>,
}

/// Tunnelled packets that came at a time and are not taken apart yet.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) frame: Frame,
    pub(super) start: usize,
    pub(super) len: usize,
    /// Bytes of each but the last.
    pub(super) each: usize,
    /// Where the rest begins.
    pub(super) at: usize,
}

/// The sending side.
#[derive(Debug)]
pub(crate) struct VnetOutlet {
    pub(super) file: Arc<VnetFile>,
    pub(super) interface: String,
    pub(super) metrics: Arc<PortMetrics>,
    /// Where tunnelled packets are put together.
    pub(super) room: Vec<u8>,
}

/// Attaches to an interface of the calling thread's network namespace.
pub(crate) fn open_socket(name: &str, steering: &Steering) -> Result<Opened, AttachError> {
    let facts = Interface::lookup(name)?;
    let tunnel = steering.tunnel(name)?;
    // First of all: from now on the host has nothing of what is ours.
    let reserved = tunnel.map(|tunnel| packet_socket::reserve(name, tunnel)).transpose()?;
    let link = match Link::shut(name, facts.ifindex, tunnel) {
        Err(error) if reserved.is_some() => {
            tracing::info!(interface = name, %error, "the host counts tunnelled packets as errors of UDP");
            None
        }
        link => Some(link?),
    };
    let file = packet_socket::open(name, facts.ifindex, tunnel)?;
    let mut opened = opened(name, &facts, vec![file], false);
    for queue in &mut opened.queues {
        if let AnyQueue::Vnet(queue) = queue {
            queue.is_tunnel = tunnel.is_some();
        }
    }
    opened.hold = Some(Hold::Vnet { _hold: VnetHold { _link: link, _reserved: reserved } });
    Ok(opened)
}

/// Makes a TAP device in the calling thread's network namespace, or takes it over; it has a
/// queue for each of so many workers.
pub(crate) fn open_tap(name: &str, n_workers: usize) -> Result<Opened, AttachError> {
    let files = tap::open(name, n_workers.clamp(1, MAX_TAP_QUEUES))?;
    let facts = Interface::lookup(name)?;
    Ok(opened(name, &facts, files, true))
}

fn opened(name: &str, facts: &Interface, files: Vec<VnetFile>, is_tap: bool) -> Opened {
    let metrics = Arc::new(PortMetrics::new(facts.mtu, files.len(), files.len()));
    let (mut queues, mut outlets) = (Vec::new(), Vec::new());
    for file in files.into_iter().map(Arc::new) {
        queues.push(AnyQueue::Vnet(VnetQueue {
            file: Arc::clone(&file),
            metrics: Arc::clone(&metrics),
            n_dropped: Cell::new(0),
            is_tunnel: false,
            held: None,
        }));
        let (interface, room) = (name.to_owned(), Vec::new());
        let metrics = Arc::clone(&metrics);
        outlets.push(AnyOutlet::Vnet(VnetOutlet { file, interface, metrics, room }));
    }
    let (kind, mode) = if is_tap { ("tap", "tap-vnet") } else { ("packet", "packet-vnet") };
    Opened {
        kind,
        report: PortReport { mode: mode.to_owned(), mac: facts.mac, mtu: facts.mtu },
        metrics,
        queues,
        outlets,
        hold: None,
        interface: Some(OnInterface { name: name.to_owned(), ifindex: facts.ifindex, wanders: is_tap }),
    }
}
