//! Opening an interface: sockets, map, program, link.

use std::{io, os::fd::RawFd, sync::Arc, time::Instant};

use super::memories::{Memories, Share, room};
use crate::{
    config::{AfXdpBackend, AfXdpConfig, Steering},
    pool::Frame,
    port::{AnyOutlet, AnyQueue, AttachError, Hold, OnInterface, Opened, PortReport, metrics::PortMetrics},
    sys::{
        SysError,
        bpf::{AttachMode, Link, Program, SocketMap},
        interface::Interface,
        xsk::{
            BIND_PATIENCE, MAX_CHUNK, MAX_FRAME_LEN, Transfer,
            library::{self, XskRx, XskTx},
            own::{self, Manner, OwnRx, OwnTx},
        },
    },
};

/// Ethernet header and one VLAN tag.
const L2_LEN: u32 = 18;
/// Longest frame of several descriptors: as long as cards have them.
const MAX_SCATTERED_LEN: u32 = 16 << 10;

/// What steers an interface's frames to us. Dropped before the sockets are, so that no frame
/// is steered to a closed one.
#[derive(Debug)]
pub(crate) struct AfXdpHold {
    _link: Link,
    _map: SocketMap,
    _share: Option<Share>,
}

/// The receiving half of a socket.
#[derive(Debug)]
pub(super) enum Receiver {
    Own(OwnRx),
    XskRs(XskRx),
}

/// The sending half.
#[derive(Debug)]
pub(super) enum Sender {
    Own(OwnTx),
    XskRs(XskTx),
}

impl Receiver {
    pub(super) fn fd(&self) -> RawFd {
        match self {
            Self::Own(socket) => socket.fd(),
            Self::XskRs(socket) => socket.fd(),
        }
    }

    pub(super) fn kernel_dropped(&self) -> u64 {
        match self {
            Self::Own(socket) => socket.kernel_dropped(),
            Self::XskRs(socket) => socket.kernel_dropped(),
        }
    }
}

/// One receive queue of an interface.
#[derive(Debug)]
pub(crate) struct AfXdpQueue {
    pub(super) socket: Receiver,
    pub(super) metrics: Arc<PortMetrics>,
    pub(super) gathering: Gathering,
}

/// A packet of several pieces, of which some are still to come.
#[derive(Debug)]
pub(super) enum Gathering {
    None,
    /// A frame that holds what has come, up to there.
    Some(Frame, usize),
    /// There was no room for it.
    Lost,
}

/// The way out by one queue of an interface.
#[derive(Debug)]
pub(crate) struct AfXdpOutlet {
    pub(super) interface: String,
    pub(super) socket: Sender,
    pub(super) metrics: Arc<PortMetrics>,
    /// The last flush found the interface down.
    pub(super) down: bool,
}

/// Attaches to an interface of the calling thread's network namespace.
pub(crate) fn open(
    name: &str,
    steering: &Steering,
    config: AfXdpConfig,
    (memories, node): (&Memories, Option<u32>),
) -> Result<Opened, AttachError> {
    let facts = Interface::lookup(name)?;
    check(name, &facts, steering, config.backend)?;
    let map = SocketMap::new(name, facts.n_rx_queues)?;
    let frame_len = facts.mtu + L2_LEN;
    let is_scattered = frame_len > MAX_FRAME_LEN;
    let program = match steering {
        Steering::All => Program::steer_all(name, &map, is_scattered)?,
        Steering::Tunnel(tunnel) => Program::steer_tunnel(name, &map, tunnel, is_scattered)?,
    };
    let share = match config.backend {
        AfXdpBackend::Own => {
            let share = memories.share(frame_len, facts.n_rx_queues as usize, node);
            Some(share.ok_or_else(|| no_memory(name))?)
        }
        AfXdpBackend::XskRs => None,
    };
    let opener = Opener { name, facts: &facts, share: share.as_ref(), is_scattered, config };
    let (sockets, link, mode) = opener.open_best(&map, &program)?;
    let metrics = Arc::new(PortMetrics::new(facts.mtu, sockets.len(), sockets.len()));
    let (mut queues, mut outlets) = (Vec::new(), Vec::new());
    for (socket, sender) in sockets {
        let (metrics, gathering) = (Arc::clone(&metrics), Gathering::None);
        let outlet_metrics = Arc::clone(&metrics);
        queues.push(AnyQueue::AfXdp(Box::new(AfXdpQueue { socket, metrics, gathering })));
        let (interface, metrics) = (name.to_owned(), outlet_metrics);
        let outlet = AfXdpOutlet { interface, socket: sender, metrics, down: false };
        outlets.push(AnyOutlet::AfXdp(Box::new(outlet)));
    }
    tracing::info!(interface = name, mode, backend = %config.backend, is_scattered, "AF_XDP sockets are open");
    Ok(Opened {
        kind: "afxdp",
        report: PortReport { mode: mode.to_owned(), mac: facts.mac, mtu: facts.mtu },
        metrics,
        queues,
        outlets,
        hold: Some(Hold::AfXdp { _hold: AfXdpHold { _link: link, _map: map, _share: share } }),
        interface: Some(OnInterface { name: name.to_owned(), ifindex: facts.ifindex, wanders: false }),
    })
}

/// There is none for frames.
fn no_memory(name: &str) -> SysError {
    SysError::new(name, "allocating the memory of frames", io::Error::from_raw_os_error(libc::ENOMEM))
}

fn check(
    name: &str,
    facts: &Interface,
    steering: &Steering,
    backend: AfXdpBackend,
) -> Result<(), AttachError> {
    let longest = match backend {
        AfXdpBackend::Own => MAX_SCATTERED_LEN,
        AfXdpBackend::XskRs => MAX_FRAME_LEN,
    };
    let max = longest - L2_LEN;
    if facts.mtu > max {
        return Err(AttachError::MtuTooBig { interface: name.to_owned(), mtu: facts.mtu, max });
    }
    steering.tunnel(name).map(drop)
}

/// Both directions of one queue.
type Rings = (Receiver, Sender);

/// What the sockets of an interface are opened with.
struct Opener<'a> {
    name: &'a str,
    facts: &'a Interface,
    share: Option<&'a Share>,
    is_scattered: bool,
    config: AfXdpConfig,
}

impl Opener<'_> {
    /// Tries the ways from the fastest to the one that always works.
    fn open_best(
        &self,
        map: &SocketMap,
        program: &Program,
    ) -> Result<(Vec<Rings>, Link, &'static str), AttachError> {
        const WAYS: [(Transfer, AttachMode, &str); 3] = [
            (Transfer::ZeroCopy, AttachMode::Native, "native-zerocopy"),
            (Transfer::Copy, AttachMode::Native, "native-copy"),
            (Transfer::Copy, AttachMode::Generic, "generic-copy"),
        ];
        // Shared by all ways: a queue that stays busy is so for each of them.
        let deadline = Instant::now() + BIND_PATIENCE;
        let mut last = None;
        for (transfer, attach_mode, mode) in WAYS {
            match self.open(map, program, (transfer, attach_mode), deadline) {
                Ok((sockets, link)) => return Ok((sockets, link, mode)),
                Err(error) => {
                    tracing::debug!(interface = self.name, mode, %error, "this way of attaching is not possible");
                    let hopeless = matches!(error.errno(), Some(libc::EPERM | libc::ENODEV));
                    last = Some(error);
                    if hopeless {
                        break;
                    }
                }
            }
        }
        let error = last.expect("the list of ways is not empty");
        // A kernel that knows nothing of several descriptors (before Linux 6.6) says only this.
        if self.is_scattered && error.errno() == Some(libc::EINVAL) {
            let (interface, mtu) = (self.name.to_owned(), self.facts.mtu);
            return Err(AttachError::MtuTooBig { interface, mtu, max: MAX_FRAME_LEN - L2_LEN });
        }
        Err(error.into())
    }

    fn open(
        &self,
        map: &SocketMap,
        program: &Program,
        (transfer, attach): (Transfer, AttachMode),
        deadline: Instant,
    ) -> Result<(Vec<Rings>, Link), SysError> {
        let (name, ifindex) = (self.name, self.facts.ifindex);
        let sockets = (0..self.facts.n_rx_queues)
            .map(|queue| self.socket(queue, transfer, deadline))
            .collect::<Result<Vec<_>, _>>()?;
        for (queue, (rx, _)) in (0..).zip(&sockets) {
            map.insert(name, queue, rx.fd())?;
        }
        let link = Link::attach(name, ifindex, program, attach)?;
        Ok((sockets, link))
    }

    fn socket(&self, queue: u32, transfer: Transfer, deadline: Instant) -> Result<Rings, SysError> {
        let busy_poll = self.config.busy_poll;
        if let Some(share) = self.share {
            let manner = Manner { transfer, is_scattered: self.is_scattered, busy_poll };
            let interface = (self.name, self.facts.ifindex);
            let (rx, tx) = own::open(interface, queue, share.memory(), manner, deadline)?;
            return Ok((Receiver::Own(rx), Sender::Own(tx)));
        }
        let frame_len = self.facts.mtu + L2_LEN;
        let (rx, tx) = library::open(self.name, queue, frame_len, (transfer, busy_poll), deadline)?;
        Ok((Receiver::XskRs(rx), Sender::XskRs(tx)))
    }
}

const _: () = assert!(room(MAX_CHUNK) == MAX_FRAME_LEN);
