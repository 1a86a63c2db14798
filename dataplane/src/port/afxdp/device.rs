//! Opening an interface: sockets, map, program, link.

use std::{io, os::fd::RawFd, sync::Arc, time::Instant};

use super::{
    kept::{self, Held, Leftover},
    memories::{Memories, chunk, room},
};
use crate::{
    config::{AfXdpBackend, AfXdpConfig, Steering},
    keep::Keeper,
    pool::{Frame, Slot},
    port::{AnyOutlet, AnyQueue, AttachError, Hold, OnInterface, Opened, PortReport, metrics::PortMetrics},
    sys::{
        SysError,
        bpf::{AttachMode, Link, Program, SocketMap},
        interface::Interface,
        witness::Witness,
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
    link: Link,
    _map: SocketMap,
    /// Shows whether somebody else has the files as well, if anybody can.
    witness: Option<Arc<Witness>>,
}

impl AfXdpHold {
    pub(super) fn new(link: Link, map: SocketMap, witness: Option<Arc<Witness>>) -> Self {
        Self { link, _map: map, witness }
    }

    /// The interface is the host's from now on, whoever has the files.
    pub(crate) fn end(&self, interface: &str, keeper: Option<&dyn Keeper>) {
        if let (Some(keeper), Some(witness)) = (keeper, &self.witness) {
            self.link.detach();
            kept::forget(keeper, interface);
            witness.end();
        }
    }
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

    /// It was another process's, and was not looked at yet.
    #[inline]
    pub(super) fn is_found(&self) -> bool {
        matches!(self, Self::Own(socket) if socket.is_found())
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
    pub(super) interface: String,
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

/// What the sockets of an interface are opened with, by this process or the one before.
pub(super) struct SetUp<'a> {
    pub(super) name: &'a str,
    pub(super) facts: Interface,
    pub(super) steering: &'a Steering,
    /// Bytes of a frame's memory.
    pub(super) chunk: usize,
    /// Packets may take several descriptors.
    pub(super) is_scattered: bool,
    pub(super) config: AfXdpConfig,
}

impl SetUp<'_> {
    pub(super) fn manner(&self, transfer: Transfer) -> Manner {
        Manner { transfer, is_scattered: self.is_scattered, busy_poll: self.config.busy_poll }
    }

    fn frame_len(&self) -> u32 {
        self.facts.mtu + L2_LEN
    }
}

/// What the ports of a dataplane have in common.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) memories: &'a Memories,
    /// NUMA node of the card.
    pub(crate) node: Option<u32>,
    /// Another process still takes packets.
    pub(crate) is_waiting: bool,
    /// Who else holds the sockets; `None`: nobody may.
    pub(crate) keeper: Option<&'a dyn Keeper>,
}

/// Attaches to an interface of the calling thread's network namespace, by the sockets of the process before if they
/// are there.
pub(crate) fn open(
    name: &str,
    steering: &Steering,
    config: AfXdpConfig,
    around: Around<'_>,
) -> Result<Opened, AttachError> {
    let Around { memories, is_waiting, keeper, .. } = around;
    let held = keeper.and_then(|keeper| Held::take(keeper, name));
    let close = |leftover: Leftover| {
        if is_waiting {
            memories.put_by(name, leftover);
        } else {
            leftover.close(name, memories);
        }
    };
    let set_up = match set_up(name, steering, config) {
        Ok(set_up) => set_up,
        Err(error) => {
            held.map(Held::leftover).into_iter().for_each(close);
            return Err(error);
        }
    };
    if let Some(held) = held {
        let resumed = match config.backend {
            AfXdpBackend::Own => held.resume(&set_up, (memories, is_waiting)),
            AfXdpBackend::XskRs => Err(("other sockets are wanted (--af-xdp)".to_owned(), held.leftover())),
        };
        match resumed {
            Ok((rings, hold, (_, _, mode))) => {
                tracing::info!(
                    interface = name,
                    mode,
                    "AF_XDP sockets of the process before are gone on with"
                );
                return Ok(opened(&set_up, rings, hold, mode));
            }
            Err((why, leftover)) => {
                tracing::warn!(
                    interface = name,
                    why,
                    "the AF_XDP sockets of the process before cannot be gone on with; opening others"
                );
                close(leftover);
            }
        }
    }
    if is_waiting {
        return Err(AttachError::NotYet(name.to_owned()));
    }
    if let Some(leftover) = memories.take_put_by(name) {
        leftover.close(name, memories);
    }
    let Fresh { rings, hold, mode } = open_new(&set_up, around)?;
    tracing::info!(interface = name, mode, backend = %config.backend, set_up.is_scattered, "AF_XDP sockets are open");
    Ok(opened(&set_up, rings, hold, mode))
}

fn set_up<'a>(name: &'a str, steering: &'a Steering, config: AfXdpConfig) -> Result<SetUp<'a>, AttachError> {
    let facts = Interface::lookup(name)?;
    check(name, &facts, steering, config.backend)?;
    let frame_len = facts.mtu + L2_LEN;
    let is_scattered = frame_len > MAX_FRAME_LEN;
    Ok(SetUp { name, facts, steering, chunk: chunk(frame_len), is_scattered, config })
}

/// Sockets of this process.
struct Fresh {
    rings: Vec<Rings>,
    hold: AfXdpHold,
    mode: &'static str,
}

fn open_new(set_up: &SetUp<'_>, around: Around<'_>) -> Result<Fresh, AttachError> {
    let SetUp { name, facts, steering, is_scattered, config, .. } = set_up;
    let map = SocketMap::new(name, facts.n_rx_queues)?;
    let program = match steering {
        Steering::All => Program::steer_all(name, &map, *is_scattered)?,
        Steering::Tunnel(tunnel) => Program::steer_tunnel(name, &map, tunnel, *is_scattered)?,
    };
    let keeper = around.keeper.filter(|_| config.backend == AfXdpBackend::Own);
    let witness = keeper.and_then(|keeper| Some((keeper, Witness::new().ok()?)));
    let (keeping, witness) = match witness {
        Some((keeper, (witness, writer))) => (Some((keeper, writer)), Some(Arc::new(witness))),
        None => (None, None),
    };
    let opener = Opener { set_up, around, witness: witness.as_ref() };
    let (rings, link, mode) = opener.open_best(&map, &program)?;
    if let (Some((keeper, writer)), Some(witness)) = (keeping, &witness) {
        kept::keep(set_up, (keeper, &rings), (&link, &map), (witness, writer, mode));
    }
    Ok(Fresh { rings, hold: AfXdpHold::new(link, map, witness), mode })
}

fn opened(set_up: &SetUp<'_>, rings: Vec<Rings>, hold: AfXdpHold, mode: &'static str) -> Opened {
    let SetUp { name, facts, .. } = set_up;
    let metrics = Arc::new(PortMetrics::new(facts.mtu, rings.len(), rings.len()));
    let (mut queues, mut outlets) = (Vec::new(), Vec::new());
    for Rings(socket, sender) in rings {
        let (metrics, gathering) = (Arc::clone(&metrics), Gathering::None);
        let outlet_metrics = Arc::clone(&metrics);
        let interface = (*name).to_owned();
        queues.push(AnyQueue::AfXdp(Box::new(AfXdpQueue { interface, socket, metrics, gathering })));
        let (interface, metrics) = ((*name).to_owned(), outlet_metrics);
        let outlet = AfXdpOutlet { interface, socket: sender, metrics, down: false };
        outlets.push(AnyOutlet::AfXdp(Box::new(outlet)));
    }
    Opened {
        kind: super::KIND,
        report: PortReport { mode: mode.to_owned(), mac: facts.mac, mtu: facts.mtu },
        metrics,
        queues,
        outlets,
        hold: Some(Hold::AfXdp(hold)),
        interface: Some(OnInterface { name: (*name).to_owned(), ifindex: facts.ifindex, wanders: false }),
    }
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
#[derive(Debug)]
pub(super) struct Rings(Receiver, Sender);

impl Rings {
    pub(super) fn own(rx: OwnRx, tx: OwnTx) -> Self {
        Self(Receiver::Own(rx), Sender::Own(tx))
    }

    /// Of a socket of ours.
    pub(super) fn receiver(&self) -> Option<&OwnRx> {
        match &self.0 {
            Receiver::Own(socket) => Some(socket),
            Receiver::XskRs(_) => None,
        }
    }
}

/// A way of attaching, and its name.
pub(super) type Way = (Transfer, AttachMode, &'static str);

/// All of them, from the fastest to the one that always works.
pub(super) const WAYS: [Way; 3] = [
    (Transfer::ZeroCopy, AttachMode::Native, "native-zerocopy"),
    (Transfer::Copy, AttachMode::Native, "native-copy"),
    (Transfer::Copy, AttachMode::Generic, "generic-copy"),
];

struct Opener<'a> {
    set_up: &'a SetUp<'a>,
    around: Around<'a>,
    witness: Option<&'a Arc<Witness>>,
}

impl Opener<'_> {
    /// Tries all ways.
    fn open_best(
        &self,
        map: &SocketMap,
        program: &Program,
    ) -> Result<(Vec<Rings>, Link, &'static str), AttachError> {
        let SetUp { name, facts, is_scattered, .. } = self.set_up;
        // Shared by all ways: a queue that stays busy is so for each of them.
        let deadline = Instant::now() + BIND_PATIENCE;
        let mut last = None;
        for (transfer, attach_mode, mode) in WAYS {
            match self.open(map, program, (transfer, attach_mode), deadline) {
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
        let error = last.expect("the list of ways is not empty");
        // A kernel that knows nothing of several descriptors (before Linux 6.6) says only this.
        if *is_scattered && error.errno() == Some(libc::EINVAL) {
            let (interface, mtu) = ((*name).to_owned(), facts.mtu);
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
        let SetUp { name, facts, config, .. } = self.set_up;
        let n_queues = facts.n_rx_queues;
        let sockets = match config.backend {
            AfXdpBackend::Own => {
                let Around { memories, node, keeper, .. } = self.around;
                let which = (node, keeper.is_some());
                let slots = memories.share(self.set_up.frame_len(), n_queues as usize, which);
                let slots = slots.ok_or_else(|| no_memory(name))?;
                let open = |(queue, slot)| self.own(queue, slot, transfer, deadline);
                (0..n_queues).zip(slots).map(open).collect::<Result<Vec<_>, _>>()?
            }
            AfXdpBackend::XskRs => {
                let open = |queue| self.library(queue, transfer, deadline);
                (0..n_queues).map(open).collect::<Result<Vec<_>, _>>()?
            }
        };
        for (queue, Rings(rx, _)) in (0..).zip(&sockets) {
            map.insert(name, queue, rx.fd())?;
        }
        let link = Link::attach(name, facts.ifindex, program, attach)?;
        Ok((sockets, link))
    }

    fn own(&self, queue: u32, slot: Slot, transfer: Transfer, deadline: Instant) -> Result<Rings, SysError> {
        let interface = (self.set_up.name, self.set_up.facts.ifindex);
        let place = (slot, self.witness.cloned());
        let (rx, tx) = own::open(interface, queue, place, self.set_up.manner(transfer), deadline)?;
        Ok(Rings::own(rx, tx))
    }

    fn library(&self, queue: u32, transfer: Transfer, deadline: Instant) -> Result<Rings, SysError> {
        let how = (transfer, self.set_up.config.busy_poll);
        let (rx, tx) = library::open(self.set_up.name, queue, self.set_up.frame_len(), how, deadline)?;
        Ok(Rings(Receiver::XskRs(rx), Sender::XskRs(tx)))
    }
}

const _: () = assert!(room(MAX_CHUNK) == MAX_FRAME_LEN);
