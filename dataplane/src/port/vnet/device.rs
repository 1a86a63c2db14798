//! Opening a TAP device, or an interface by a packet socket.

use std::{
    cell::Cell,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use flowtable::types::MacAddr;

use crate::{
    config::{Steering, TunnelSteering},
    keep::{Keeper, Kept},
    pool::Frame,
    port::{AnyOutlet, AnyQueue, AttachError, Hold, OnInterface, Opened, PortReport, metrics::PortMetrics},
    sys::{
        SysError,
        bpf::Link,
        gate::{self, Gate},
        interface::Interface,
        packet_socket::{self, Reserved},
        segmenter::Segmenter,
        tap,
        vnet::VnetFile,
    },
};

/// Kinds of such ports.
pub(crate) const TAP: &str = "tap";
pub(crate) const PACKET: &str = "packet";
/// Counts up with each change of how devices and sockets are set up: of another version, they are
/// not taken over.
const SET_UP: &str = "1";
/// Most queues of a TAP device: the kernel has 256, each worker needs one.
const MAX_TAP_QUEUES: usize = 64;

/// What keeps an interface's packets from the host's stack, which would answer them, or
/// forward them past the switch.
#[derive(Debug)]
pub(crate) struct VnetHold {
    barrier: Option<Barrier>,
    reserved: Option<Reserved>,
}

impl VnetHold {
    /// The interface is no port any more: nothing of ours stays at it.
    pub(crate) fn clear(self, on: &OnInterface) {
        let may_be_gate = self.barrier.is_some() && self.reserved.is_none();
        drop(self);
        if may_be_gate {
            gate::clear(&on.name, on.ifindex);
        }
    }
}

/// As long as a file of it is held, the host's stack gets nothing.
#[derive(Debug)]
enum Barrier {
    Gate(Gate),
    Link(Link),
    /// One of those, which another process has made.
    Kept(OwnedFd),
}

impl Barrier {
    /// Before all that an interface receives, or before what is tunnelled.
    fn shut(name: &str, ifindex: u32, tunnel: Option<&TunnelSteering>) -> Result<Self, SysError> {
        if tunnel.is_some() {
            return Link::shut(name, ifindex, tunnel).map(Self::Link);
        }
        Gate::shut(name, ifindex).map(Self::Gate).or_else(|error| {
            tracing::info!(interface = name, %error, "a link keeps the interface from the host");
            Link::shut(name, ifindex, None).map(Self::Link)
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Gate(gate) => gate.fd(),
            Self::Link(link) => link.fd(),
            Self::Kept(file) => file.as_fd(),
        }
    }
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
    /// Who takes such that are to be cut, where there is one.
    pub(super) segmenter: Option<Segmenter>,
}

/// What the keeper has the files of a port as.
pub(crate) fn kept_name(kind: &str, interface: &str) -> String {
    format!("port/{kind}/{interface}")
}

/// Attaches to an interface of the calling thread's network namespace, by the socket of the process
/// before if it is there.
pub(crate) fn open_socket(
    name: &str,
    steering: &Steering,
    keeper: Option<&dyn Keeper>,
) -> Result<Opened, AttachError> {
    let facts = Interface::lookup(name)?;
    let tunnel = steering.tunnel(name)?;
    let kept_name = kept_name(PACKET, name);
    if let Some(kept) = keeper.and_then(|keeper| keeper.take(&kept_name)) {
        match resume_socket(name, &facts, (steering, tunnel.map_or(0, TunnelSteering::n_reserved)), kept) {
            Ok(socket) => return Ok(opened_socket(name, &facts, socket, tunnel.is_some())),
            Err(why) => {
                tracing::warn!(
                    interface = name,
                    why,
                    "the socket of the process before cannot be used; opening another"
                );
                keeper.inspect(|keeper| keeper.forget(&kept_name));
            }
        }
    }
    // First of all: from now on the host has nothing of what is ours.
    let reserved = tunnel.map(|tunnel| packet_socket::reserve(name, tunnel)).transpose()?;
    let barrier = match Barrier::shut(name, facts.ifindex, tunnel) {
        Err(error) if reserved.is_some() => {
            tracing::info!(interface = name, %error, "the host counts tunnelled packets as errors of UDP");
            None
        }
        barrier => Some(barrier?),
    };
    let file = packet_socket::open(name, facts.ifindex, tunnel)?;
    let segmenter = tunnel.and_then(|_| {
        let opened = Segmenter::open(facts.ifindex);
        opened
            .inspect_err(|error| tracing::info!(interface = name, %error, "large packets are cut here"))
            .ok()
    });
    let socket = Socket { file, segmenter, hold: VnetHold { barrier, reserved } };
    if let Some(keeper) = keeper {
        let note = format!("{} {}", socket_note(facts.ifindex, steering), socket.parts_note());
        keep(keeper, (&kept_name, name), &note, &socket.files());
    }
    Ok(opened_socket(name, &facts, socket, tunnel.is_some()))
}

/// A packet socket, and what belongs to it.
struct Socket {
    file: VnetFile,
    segmenter: Option<Segmenter>,
    hold: VnetHold,
}

impl Socket {
    /// All files, in the order that [`resume_socket`] takes them in.
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        [self.file.file()]
            .into_iter()
            .chain(self.hold.barrier.iter().map(Barrier::fd))
            .chain(self.segmenter.iter().flat_map(Segmenter::fds))
            .chain(self.hold.reserved.iter().flat_map(Reserved::fds))
            .collect()
    }

    /// Which of them there are.
    fn parts_note(&self) -> String {
        format!("{} {}", u8::from(self.hold.barrier.is_some()), u8::from(self.segmenter.is_some()))
    }
}

/// What has to be the same of a socket that is taken over: how it was set up, and for what.
fn socket_note(ifindex: u32, steering: &Steering) -> String {
    format!("{SET_UP} {ifindex} {steering:?}")
}

fn resume_socket(
    name: &str,
    facts: &Interface,
    (steering, n_reserved): (&Steering, usize),
    kept: Kept,
) -> Result<Socket, String> {
    let (has_barrier, has_segmenter) = match kept.note.strip_prefix(&socket_note(facts.ifindex, steering)) {
        Some(" 0 0") => (false, false),
        Some(" 0 1") => (false, true),
        Some(" 1 0") => (true, false),
        Some(" 1 1") => (true, true),
        _ => return Err("it is for another interface, or was set up in another way".to_owned()),
    };
    if kept.files.len() != 1 + usize::from(has_barrier) + 2 * usize::from(has_segmenter) + n_reserved {
        return Err("files of it are missing".to_owned());
    }
    let mut files = kept.files.into_iter();
    let socket = files.next().ok_or("it has no file")?;
    let file = packet_socket::resume(name, facts.ifindex, socket).map_err(|error| error.to_string())?;
    let barrier = if has_barrier { files.next().map(Barrier::Kept) } else { None };
    let segmenter = if has_segmenter { files.next().zip(files.next()) } else { None };
    let segmenter = segmenter.map(|(device, link)| Segmenter::of(device, link));
    let reserved = (n_reserved > 0).then(|| Reserved::of(files.collect()));
    Ok(Socket { file, segmenter, hold: VnetHold { barrier, reserved } })
}

fn opened_socket(name: &str, facts: &Interface, socket: Socket, is_tunnel: bool) -> Opened {
    let mut opened = opened(name, facts, vec![socket.file], false);
    for queue in &mut opened.queues {
        if let AnyQueue::Vnet(queue) = queue {
            queue.is_tunnel = is_tunnel;
        }
    }
    if let Some(AnyOutlet::Vnet(outlet)) = opened.outlets.first_mut() {
        outlet.segmenter = socket.segmenter;
    }
    opened.hold = Some(Hold::Vnet(socket.hold));
    opened
}

/// Has files held for the next process. Without that, the port works, but no longer than this
/// process.
fn keep(keeper: &dyn Keeper, (kept_name, interface): (&str, &str), note: &str, files: &[BorrowedFd<'_>]) {
    if let Err(error) = keeper.keep(kept_name, note, files) {
        tracing::warn!(interface, %error, "the port will not outlive this process");
    }
}

/// Makes a TAP device in the calling thread's network namespace, or takes it over; it has a
/// queue for each of so many workers.
/// One that the process before has made stays where it has gone.
pub(crate) fn open_tap(
    name: &str,
    n_workers: usize,
    keeper: Option<&dyn Keeper>,
) -> Result<Opened, AttachError> {
    let kept_name = kept_name(TAP, name);
    if let Some(kept) = keeper.and_then(|keeper| keeper.take(&kept_name)) {
        match resume_tap(name, kept) {
            Ok((facts, files)) => return Ok(opened(name, &facts, files, true)),
            Err(why) => {
                tracing::warn!(
                    interface = name,
                    why,
                    "the TAP device of the process before cannot be used; opening it anew"
                );
                keeper.inspect(|keeper| keeper.forget(&kept_name));
            }
        }
    }
    let files = tap::open(name, n_workers.clamp(1, MAX_TAP_QUEUES))?;
    let facts = Interface::lookup(name)?;
    if let Some(keeper) = keeper {
        let note = format!("{SET_UP} {} {} {}", facts.ifindex, facts.mtu, facts.mac);
        let files: Vec<_> = files.iter().map(VnetFile::file).collect();
        keep(keeper, (&kept_name, name), &note, &files);
    }
    Ok(opened(name, &facts, files, true))
}

/// Facts are those of the device now, or, where it is not here any more, those that were noted.
fn resume_tap(name: &str, kept: Kept) -> Result<(Interface, Vec<VnetFile>), String> {
    let wrong = || format!("it was set up in another way: {}", kept.note);
    let mut noted = kept.note.split(' ');
    if noted.next() != Some(SET_UP) {
        return Err(wrong());
    }
    let mut number = || noted.next()?.parse::<u32>().ok();
    let (Some(ifindex), Some(mtu)) = (number(), number()) else { return Err(wrong()) };
    let mac: MacAddr = noted.next().and_then(|mac| mac.parse().ok()).ok_or_else(wrong)?;
    if kept.files.is_empty() {
        return Err("it has no file".to_owned());
    }
    let facts = match Interface::lookup(name) {
        Ok(facts) if facts.ifindex == ifindex => facts,
        // It has gone elsewhere, and perhaps another one has its name.
        Ok(_) | Err(_) => {
            Interface { ifindex, mac, mtu, running: true, n_rx_queues: kept.files.len() as u32 }
        }
    };
    let files = tap::resume(name, kept.files).map_err(|error| error.to_string())?;
    Ok((facts, files))
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
        let (interface, room, segmenter) = (name.to_owned(), Vec::new(), None);
        let metrics = Arc::clone(&metrics);
        outlets.push(AnyOutlet::Vnet(VnetOutlet { file, interface, metrics, room, segmenter }));
    }
    let (kind, mode) = if is_tap { (TAP, "tap-vnet") } else { (PACKET, "packet-vnet") };
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
