//! Sockets, map and program of an interface, where somebody else holds them for the next process.
//!
//! As long as the files are held the program stays attached, and what it steers to the sockets waits on their rings:
//! the next process maps them and goes on. Who has which frame is in the memory of the frames
//! (`pool/lent.rs`).

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use super::{
    device::{AfXdpHold, Rings, SetUp, WAYS, Way},
    memories::Memories,
};
use crate::{
    keep::{Keeper, Kept, MAX_KEPT_FILES},
    pool::Slot,
    sys::{
        bpf::{Link, SocketMap},
        witness::Witness,
        xsk::{RING_LEN, own},
    },
};

/// Counts up with each change of how sockets are set up, or of what a program does: those of another version are not
/// gone on with.
const SET_UP: u32 = 1;
/// Beside the sockets: the link, the map, both ends of the witness.
const N_OTHERS: usize = 4;
/// Most queues of an interface whose sockets are held: their files go with one message.
const MAX_QUEUES: usize = MAX_KEPT_FILES - N_OTHERS;

/// What the keeper has the files of an interface as.
fn kept_name(interface: &str) -> String {
    format!("port/{}/{interface}", super::KIND)
}

/// Somebody holds the sockets of an interface.
pub(crate) fn is_kept(keeper: &dyn Keeper, interface: &str) -> bool {
    keeper.has(&kept_name(interface))
}

/// What has to be the same of sockets that are gone on with.
fn set_up_note(set_up: &SetUp<'_>) -> String {
    let SetUp { facts, steering, chunk, is_scattered, config, .. } = set_up;
    let (ifindex, n_queues, busy_poll) = (facts.ifindex, facts.n_rx_queues, config.busy_poll.unwrap_or(0));
    format!("{SET_UP} {RING_LEN} {ifindex} {n_queues} {chunk} {is_scattered} {busy_poll} {steering:?}|")
}

/// What the rest of the note says.
struct Noted {
    way: Way,
    memory: u64,
    slots: Vec<usize>,
}

impl Noted {
    /// `None`: it says something else.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mode = words.next()?;
        let way = WAYS.into_iter().find(|(_, _, name)| *name == mode)?;
        let memory = u64::from_str_radix(words.next()?, 16).ok()?;
        let slots: Option<Vec<_>> = words.map(|word| word.parse().ok()).collect();
        Some(Self { way, memory, slots: slots? })
    }
}

/// What is held of an interface.
#[derive(Debug)]
pub(super) struct Held {
    note: String,
    link: Link,
    map: SocketMap,
    witness: Arc<Witness>,
    sockets: Vec<OwnedFd>,
}

/// What is left of something held that is not gone on with.
#[derive(Debug)]
pub(super) struct Leftover {
    note: String,
    link: Link,
    witness: Arc<Witness>,
}

impl Held {
    /// Takes what is held of an interface. `None`: nothing of this kind.
    pub(super) fn take(keeper: &dyn Keeper, interface: &str) -> Option<Self> {
        let Kept { note, mut files } = keeper.take(&kept_name(interface))?;
        // Ours of what others have closed last is not to be waited for.
        drop(files.pop());
        let mut files = files.into_iter();
        let (link, map) = (Link::of(files.next()?), SocketMap::of(files.next()?));
        let witness = Arc::new(Witness::of(files.next()?));
        Some(Self { note, link, map, witness, sockets: files.collect() })
    }

    /// Goes on with it.
    ///
    /// # Errors
    /// Why not, and what is left of it.
    pub(super) fn resume(
        mut self,
        set_up: &SetUp<'_>,
        (memories, is_waiting): (&Memories, bool),
    ) -> Result<(Vec<Rings>, AfXdpHold, Way), (String, Leftover)> {
        match self.open(set_up, (memories, is_waiting)) {
            Ok((rings, way)) => {
                let Self { link, map, witness, .. } = self;
                Ok((rings, AfXdpHold::new(link, map, Some(witness)), way))
            }
            Err(why) => Err((why, self.leftover())),
        }
    }

    /// It is not gone on with.
    pub(super) fn leftover(self) -> Leftover {
        let Self { note, link, witness, .. } = self;
        Leftover { note, link, witness }
    }

    fn open(
        &mut self,
        set_up: &SetUp<'_>,
        (memories, is_waiting): (&Memories, bool),
    ) -> Result<(Vec<Rings>, Way), String> {
        let noted = self.note.strip_prefix(&set_up_note(set_up)).and_then(Noted::parse);
        let noted = noted.ok_or("it is for another interface, or was set up in another way")?;
        if self.link.xdp_interface() != Some(set_up.facts.ifindex) {
            return Err("its program is attached no more: the interface was gone".to_owned());
        }
        if self.sockets.len() != noted.slots.len() || noted.slots.len() != set_up.facts.n_rx_queues as usize {
            return Err("files of it are missing".to_owned());
        }
        let memory = memories.find(noted.memory, is_waiting)?;
        let slots = memory.claim_again(&noted.slots);
        let slots = slots.ok_or("its frames are another one's, or what is noted of them is damaged")?;
        let (transfer, ..) = noted.way;
        let sockets = std::mem::take(&mut self.sockets);
        let rings = sockets.into_iter().zip(slots).map(|(fd, slot)| {
            let place = (slot, Some(Arc::clone(&self.witness)));
            let (rx, tx) = own::resume(set_up.name, fd, place, set_up.manner(transfer))?;
            Ok(Rings::own(rx, tx))
        });
        let rings: Result<Vec<_>, crate::sys::SysError> = rings.collect();
        Ok((rings.map_err(|error| error.to_string())?, noted.way))
    }
}

impl Leftover {
    /// Has it closed everywhere; then its frames are free. Nobody else takes packets by it.
    pub(super) fn close(self, interface: &str, memories: &Memories) {
        self.link.detach();
        if let Some(keeper) = memories.keeper() {
            keeper.forget(&kept_name(interface));
        }
        drop(self.link);
        self.witness.end();
        let noted = self.note.split_once('|').and_then(|(_, rest)| Noted::parse(rest));
        let Some(Noted { memory, slots, .. }) = noted.filter(|_| self.witness.is_alone()) else { return };
        // One that is not here is not used.
        if let Ok(memory) = memories.find(memory, false) {
            memory.claim_again(&slots).unwrap_or_default().iter().for_each(Slot::reclaim);
        }
    }
}

/// Has sockets held for the next process, if anybody holds anything. Without that, the port works, but no longer than
/// this process.
pub(super) fn keep(
    set_up: &SetUp<'_>,
    (keeper, opened): (&dyn Keeper, &[Rings]),
    (link, map): (&Link, &SocketMap),
    (witness, writer, mode): (&Witness, OwnedFd, &str),
) {
    let sockets: Vec<_> = opened.iter().filter_map(Rings::receiver).collect();
    if sockets.len() > MAX_QUEUES {
        let (interface, n_queues) = (set_up.name, sockets.len());
        tracing::warn!(interface, n_queues, "the port will not outlive this process: it has too many queues");
        return;
    }
    let Some(memory) = sockets.first().map(|socket| socket.slot().memory()) else { return };
    let slots: String = sockets.iter().map(|socket| format!(" {}", socket.slot().number())).collect();
    let note = format!("{}{mode} {:016x}{slots}", set_up_note(set_up), memory.id());
    let mut files: Vec<BorrowedFd<'_>> = vec![link.fd(), map.fd(), witness.fd()];
    files.extend(sockets.iter().map(|socket| socket.file()));
    // Closed last.
    files.push(writer.as_fd());
    witness.share();
    if let Err(error) = keeper.keep(&kept_name(set_up.name), &note, &files) {
        tracing::warn!(interface = set_up.name, %error, "the port will not outlive this process");
    }
}

/// Has what is held of an interface closed; it is the host's again.
pub(super) fn forget(keeper: &dyn Keeper, interface: &str) {
    keeper.forget(&kept_name(interface));
}
