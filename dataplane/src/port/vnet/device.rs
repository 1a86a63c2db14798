//! Opening a TAP device, or an interface by a packet socket.

use std::sync::Arc;

use crate::{
    port::{AnyOutlet, AnyQueue, AttachError, Hold, OnInterface, Opened, PortReport, metrics::PortMetrics},
    sys::{bpf::Link, interface::Interface, packet_socket, tap, vnet::VnetFile},
};

/// What keeps an interface's packets from the host's stack, which would answer them, or
/// forward them past the switch.
#[derive(Debug)]
pub(crate) struct VnetHold {
    _link: Link,
}

/// The receiving side.
#[derive(Debug)]
pub(crate) struct VnetQueue {
    pub(super) file: Arc<VnetFile>,
    pub(super) metrics: Arc<PortMetrics>,
    pub(super) n_dropped: std::cell::Cell<u64>,
}

/// The sending side.
#[derive(Debug)]
pub(crate) struct VnetOutlet {
    pub(super) file: Arc<VnetFile>,
    pub(super) interface: String,
    pub(super) metrics: Arc<PortMetrics>,
}

/// Attaches to an interface of the calling thread's network namespace.
pub(crate) fn open_socket(name: &str) -> Result<Opened, AttachError> {
    let facts = Interface::lookup(name)?;
    // First of all: from now on the host has nothing of what comes in.
    let link = Link::shut(name, facts.ifindex)?;
    let file = packet_socket::open(name, facts.ifindex)?;
    Ok(Opened {
        hold: Some(Hold::Vnet { _hold: VnetHold { _link: link } }),
        ..opened(name, &facts, file, false)
    })
}

/// Makes a TAP device in the calling thread's network namespace, or takes it over.
pub(crate) fn open_tap(name: &str) -> Result<Opened, AttachError> {
    let file = tap::open(name)?;
    let facts = Interface::lookup(name)?;
    Ok(opened(name, &facts, file, true))
}

fn opened(name: &str, facts: &Interface, file: VnetFile, is_tap: bool) -> Opened {
    let metrics = Arc::new(PortMetrics::new(facts.mtu, 1, 1));
    let file = Arc::new(file);
    let queue = VnetQueue { file: Arc::clone(&file), metrics: Arc::clone(&metrics), n_dropped: 0.into() };
    let outlet = VnetOutlet { file, interface: name.to_owned(), metrics: Arc::clone(&metrics) };
    let (kind, mode) = if is_tap { ("tap", "tap-vnet") } else { ("packet", "packet-vnet") };
    Opened {
        kind,
        report: PortReport { mode: mode.to_owned(), mac: facts.mac, mtu: facts.mtu },
        metrics,
        queues: vec![AnyQueue::Vnet(queue)],
        outlets: vec![AnyOutlet::Vnet(outlet)],
        hold: None,
        interface: Some(OnInterface { name: name.to_owned(), ifindex: facts.ifindex, wanders: is_tap }),
    }
}
