//! The memory of connections, where another process can go on with it.
//!
//! | part | what |
//! |---|---|
//! | first page | what the rest is, with a checksum: layout, sizes, boot, beginning of time, seed of the hashes |
//! | slots, index | the tracker's storage (`flowtable::conntrack`) |
//! | ledger | what a tracker leaves when it ends in good order, so that its successor searches nothing |
//!
//! Of another layout, size or boot, nothing is believed: then the tracker begins empty, and the
//! log says why. What a killed process had half-written, the tracker finds and drops
//! (`flowtable/src/conntrack/slot.rs` says how).

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use flowtable::{
    conntrack::{Bucket, Config, Conntrack, SLOTS_PER_BUCKET, Slot, Storage},
    crc32c,
};

use crate::{
    keep::{Keeper, Kept},
    sys::shared_memory::{PAGE, SharedMemory, monotonic_nanos},
    turn::Turn,
};

/// What the keeper has it as.
pub(crate) const NAME: &str = "memory/connections";
/// Tells this memory from others.
const MAGIC: u64 = u64::from_le_bytes(*b"ffconnec");
/// Counts up with each change of what is in a slot, bucket or ledger, or of what it means.
const LAYOUT: u64 = 1;
/// Where a host tells which boot it is in.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Words of the first page.
mod word {
    pub(super) const MAGIC: usize = 0;
    pub(super) const LAYOUT: usize = 1;
    pub(super) const N_SLOTS: usize = 2;
    pub(super) const BOOT: usize = 3;
    pub(super) const ORIGIN: usize = 4;
    pub(super) const SEED: usize = 5;
    /// Of those before it.
    pub(super) const CHECKSUM: usize = 6;
    /// Words of the ledger; zero: there is none; [`super::IS_COUNTED`]: a process works here, or has died.
    pub(super) const PARKED: usize = 8;
    /// Slots, from the first on, that have been used; only with [`super::IS_COUNTED`].
    pub(super) const USED: usize = 9;
    /// When a process has stopped taking packets ([`crate::turn`]).
    pub(super) const STOPPED_AT: usize = 10;
    pub(super) const N: usize = 11;
}

/// Where the words of a turn are, in bytes.
const TURN_AT: usize = 128;
/// The process that works here counts which slots are used. A version that does not puts zero here, and one
/// that does not know what it means takes it for a ledger that is too long.
const IS_COUNTED: u64 = 1 << 40;

const _: () = assert!(word::N * size_of::<AtomicU64>() <= TURN_AT);

/// Where the parts are.
#[derive(Debug, Clone, Copy)]
struct Plan {
    n_slots: usize,
    n_buckets: usize,
    buckets_at: usize,
    ledger_at: usize,
    len: usize,
}

impl Plan {
    fn new(n_slots: usize) -> Self {
        let n_buckets = n_slots.div_ceil(SLOTS_PER_BUCKET);
        let buckets_at = (PAGE + n_slots * size_of::<Slot>()).next_multiple_of(PAGE);
        let ledger_at = (buckets_at + n_buckets * size_of::<Bucket>()).next_multiple_of(PAGE);
        let len = (ledger_at + Conntrack::MAX_PARKED * size_of::<u32>()).next_multiple_of(PAGE);
        Self { n_slots, n_buckets, buckets_at, ledger_at, len }
    }
}

/// Memory of connections that outlives the process.
#[derive(Debug)]
pub(crate) struct Connections {
    head: &'static [AtomicU64],
    ledger: &'static [AtomicU32],
    turn: Turn,
    memory: SharedMemory,
}

/// Such memory, a tracker in it, and where its time begins on the kernel's monotonic clock.
pub(crate) struct Opened {
    pub(crate) connections: Connections,
    pub(crate) tracker: Arc<Conntrack>,
    pub(crate) origin: u64,
}

/// Connections cannot be had, or not in memory that outlives the process.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The kernel has no such memory, or the keeper is gone.
    Memory(io::Error),
    /// Those of the process that forwards are laid out in another way: with a successor they would be lost.
    Foreign(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Memory(error)
    }
}

/// Goes on with the connections that the keeper has, or begins with none; a successor does not
/// begin with none where there are some. The tracker does nothing before [`Connections::begin`].
///
/// # Errors
/// There is no memory, or a successor cannot go on with what is there.
pub(crate) fn open(
    (keeper, is_successor): (&dyn Keeper, bool),
    n_slots: usize,
    fresh: Config,
) -> Result<Opened, OpenError> {
    let (plan, boot) = (Plan::new(n_slots.max(1)), boot());
    let found = keeper.take(NAME).map(|kept| adopt(kept, plan, boot));
    let memory = match found {
        Some(Ok(memory)) => Some(memory),
        Some(Err(why)) if is_successor => return Err(OpenError::Foreign(why)),
        Some(Err(why)) => {
            tracing::warn!(%why, "connections of the process before cannot be taken over; beginning with none");
            None
        }
        None => None,
    };
    let memory = match memory {
        Some(memory) => memory,
        None => create(keeper, plan, (boot, fresh.seed))?,
    };
    let wrong = || io::Error::other("the memory of connections is smaller than planned");
    let head: &'static [AtomicU64] = memory.part(0, word::N).ok_or_else(wrong)?;
    let turn = memory.part::<AtomicU32>(TURN_AT, 2).and_then(|words| words.as_chunks::<2>().0.first());
    let turn = Turn::new(turn.ok_or_else(wrong)?, &head[word::STOPPED_AT]);
    let slots = memory.part(PAGE, plan.n_slots).ok_or_else(wrong)?;
    let buckets = memory.part(plan.buckets_at, plan.n_buckets).ok_or_else(wrong)?;
    let ledger = memory.part(plan.ledger_at, Conntrack::MAX_PARKED).ok_or_else(wrong)?;
    let storage = Storage::lent(slots, buckets).map_err(io::Error::other)?.counting(&head[word::USED]);
    let config = Config { seed: head[word::SEED].load(Relaxed), ..fresh };
    let origin = head[word::ORIGIN].load(Relaxed);
    let tracker = Arc::new(Conntrack::waiting(config, storage));
    Ok(Opened { connections: Connections { head, ledger, turn, memory }, tracker, origin })
}

impl Connections {
    /// Has the tracker begin: from what was left in good order, or else from what is there.
    pub(crate) fn begin(&self, tracker: &Conntrack) {
        // Whatever happens from now on, it holds no more.
        let left = self.head[word::PARKED].swap(0, Acquire);
        let n_parked = usize::try_from(left).unwrap_or(usize::MAX);
        let parked = self.ledger.get(..n_parked).filter(|words| !words.is_empty());
        let words: Option<Vec<u32>> =
            parked.map(|words| words.iter().map(|word| word.load(Relaxed)).collect());
        if left != IS_COUNTED {
            // All may be, unless the ledger says better.
            self.head[word::USED].store(u64::MAX, Relaxed);
        }
        tracker.go_on(words.as_deref());
        self.head[word::PARKED].store(IS_COUNTED, Release);
    }

    /// Leaves what the next process needs to go on at once. Nobody works with the tracker any more.
    pub(crate) fn park(&self, tracker: &Conntrack) {
        let words = tracker.park();
        for (to, word) in self.ledger.iter().zip(&words) {
            to.store(*word, Relaxed);
        }
        self.head[word::PARKED].store(words.len() as u64, Release);
    }

    /// Whose turn it is to take packets.
    pub(crate) fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Has the kernel map all of it: a page that is touched for the first time holds packets up.
    pub(crate) fn populate(&self) {
        self.memory.populate();
    }

    /// The same, while packets go on.
    pub(crate) fn populate_soon(&self) {
        self.memory.populate_soon();
    }
}

fn create(keeper: &dyn Keeper, plan: Plan, (boot, seed): (u64, u64)) -> io::Result<SharedMemory> {
    let memory = SharedMemory::create(c"ferroflow-connections", plan.len)?;
    if let Some(head) = memory.part::<AtomicU64>(0, word::N) {
        let values = [MAGIC, layout(), plan.n_slots as u64, boot, monotonic_nanos(), seed];
        for (to, value) in head.iter().zip(values) {
            to.store(value, Relaxed);
        }
        head[word::CHECKSUM].store(checksum(head), Relaxed);
        head[word::PARKED].store(IS_COUNTED, Relaxed);
    }
    memory.populate();
    keeper.keep(NAME, &format!("connections {}", plan.n_slots), &[memory.fd()])?;
    Ok(memory)
}

/// Maps memory of another process if it is what it should be.
fn adopt(kept: Kept, plan: Plan, boot: u64) -> Result<SharedMemory, String> {
    let file = kept.files.into_iter().next().ok_or("there is no file")?;
    let memory = SharedMemory::open(file, plan.len)
        .map_err(|error| format!("{error}; another --conntrack-max has another size"))?;
    let head: &[AtomicU64] = memory.part(0, word::N).ok_or("it is too short")?;
    let get = |word: usize| head[word].load(Relaxed);
    if get(word::MAGIC) != MAGIC || get(word::CHECKSUM) != checksum(head) {
        return Err("its first page is damaged".to_owned());
    }
    if get(word::LAYOUT) != layout() {
        return Err("another version of vswitchd has laid it out".to_owned());
    }
    if get(word::N_SLOTS) != plan.n_slots as u64 {
        return Err("it is for another number of connections".to_owned());
    }
    if get(word::BOOT) != boot {
        return Err("it is of another boot".to_owned());
    }
    Ok(memory)
}

/// What a process must agree in with the one before.
fn layout() -> u64 {
    LAYOUT | (size_of::<Slot>() as u64) << 16 | (size_of::<Bucket>() as u64) << 32
}

fn checksum(head: &[AtomicU64]) -> u64 {
    let bytes: Vec<u8> =
        head.iter().take(word::CHECKSUM).flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    // Zero is what empty memory has.
    u64::from(crc32c::of([&bytes[..]])) | 1 << 32
}

/// The boot that the host is in. Zero where it is not told.
fn boot() -> u64 {
    fs::read(BOOT_ID).map_or(0, |id| u64::from(crc32c::of([&id[..]])) | 1 << 32)
}
