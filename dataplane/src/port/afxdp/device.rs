//! Opening an interface: sockets, map, program, link.

use std::{sync::Arc, time::Instant};

use crate::{
    config::Steering,
    port::{AnyOutlet, AnyQueue, AttachError, Hold, OnInterface, Opened, PortReport, metrics::PortMetrics},
    sys::{
        SysError,
        bpf::{AttachMode, Link, Program, SocketMap},
        interface::Interface,
        xsk::{self, BIND_PATIENCE, MAX_FRAME_LEN, Transfer, XskRx, XskTx},
    },
};

/// Ethernet header and one VLAN tag.
const L2_LEN: u32 = 18;

/// What steers an interface's frames to us. Dropped before the sockets are, so that no frame
/// is steered to a closed one.
#[derive(Debug)]
pub(crate) struct AfXdpHold {
    _link: Link,
    _map: SocketMap,
}

/// One receive queue of an interface.
#[derive(Debug)]
pub(crate) struct AfXdpQueue {
    pub(super) socket: XskRx,
    pub(super) metrics: Arc<PortMetrics>,
}

/// The way out by one queue of an interface.
#[derive(Debug)]
pub(crate) struct AfXdpOutlet {
    pub(super) interface: String,
    pub(super) socket: XskTx,
    pub(super) metrics: Arc<PortMetrics>,
    /// The last flush found the interface down.
    pub(super) down: bool,
}

/// Attaches to an interface of the calling thread's network namespace.
pub(crate) fn open(name: &str, steering: &Steering) -> Result<Opened, AttachError> {
    let facts = Interface::lookup(name)?;
    check(name, &facts, steering)?;
    let map = SocketMap::new(name, facts.n_rx_queues)?;
    let program = match steering {
        Steering::All => Program::steer_all(name, &map)?,
        Steering::Tunnel { local, udp_ports } => Program::steer_tunnel(name, &map, *local, udp_ports)?,
    };
    let (sockets, link, mode) = open_best(name, &facts, &map, &program)?;
    let metrics = Arc::new(PortMetrics::new(facts.mtu, sockets.len(), sockets.len()));
    let (mut queues, mut outlets) = (Vec::new(), Vec::new());
    for (rx, tx) in sockets {
        let queue = AfXdpQueue { socket: rx, metrics: Arc::clone(&metrics) };
        queues.push(AnyQueue::AfXdp(Box::new(queue)));
        let (interface, metrics) = (name.to_owned(), Arc::clone(&metrics));
        outlets.push(AnyOutlet::AfXdp(Box::new(AfXdpOutlet { interface, socket: tx, metrics, down: false })));
    }
    Ok(Opened {
        kind: "afxdp",
        report: PortReport { mode: mode.to_owned(), mac: facts.mac, mtu: facts.mtu },
        metrics,
        queues,
        outlets,
        hold: Some(Hold::AfXdp { _hold: AfXdpHold { _link: link, _map: map } }),
        interface: Some(OnInterface { name: name.to_owned(), ifindex: facts.ifindex, wanders: false }),
    })
}

fn check(name: &str, facts: &Interface, steering: &Steering) -> Result<(), AttachError> {
    let max = MAX_FRAME_LEN - L2_LEN;
    if facts.mtu > max {
        return Err(AttachError::MtuTooBig { interface: name.to_owned(), mtu: facts.mtu, max });
    }
    steering.tunnel(name).map(drop)
}

/// Both directions of one queue.
type Rings = (XskRx, XskTx);

/// Tries the ways from the fastest to the one that always works.
fn open_best(
    name: &str,
    facts: &Interface,
    map: &SocketMap,
    program: &Program,
) -> Result<(Vec<Rings>, Link, &'static str), SysError> {
    const WAYS: [(Transfer, AttachMode, &str); 3] = [
        (Transfer::ZeroCopy, AttachMode::Native, "native-zerocopy"),
        (Transfer::Copy, AttachMode::Native, "native-copy"),
        (Transfer::Copy, AttachMode::Generic, "generic-copy"),
    ];
    // Shared by all ways: a queue that stays busy is so for each of them.
    let deadline = Instant::now() + BIND_PATIENCE;
    let mut last = None;
    for (transfer, attach_mode, mode) in WAYS {
        let way = Way { transfer, attach: attach_mode, deadline };
        match way.open(name, facts, map, program) {
            Ok((sockets, link)) => return Ok((sockets, link, mode)),
            Err(error) => {
                tracing::debug!(interface = name, mode, %error, "this way of attaching is not possible");
                let hopeless = matches!(error.errno(), Some(libc::EPERM | libc::ENODEV));
                last = Some(error);
                if hopeless {
                    break;
                }
            }
        }
    }
    Err(last.expect("the list of ways is not empty"))
}

/// One way of taking an interface over.
struct Way {
    transfer: Transfer,
    attach: AttachMode,
    deadline: Instant,
}

impl Way {
    fn open(
        &self,
        name: &str,
        facts: &Interface,
        map: &SocketMap,
        program: &Program,
    ) -> Result<(Vec<(XskRx, XskTx)>, Link), SysError> {
        let frame_len = facts.mtu + L2_LEN;
        let sockets = (0..facts.n_rx_queues)
            .map(|queue| xsk::open(name, queue, frame_len, self.transfer, self.deadline))
            .collect::<Result<Vec<_>, _>>()?;
        for (queue, (rx, _)) in (0..).zip(&sockets) {
            map.insert(name, queue, rx.fd())?;
        }
        let link = Link::attach(name, facts.ifindex, program, self.attach)?;
        Ok((sockets, link))
    }
}
