//! A guest for tests: its memory, the driver's half of its rings, and the messages of the
//! program that runs it.

use std::{
    io::{ErrorKind, Read as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
};

use crate::sys::{
    event_file::EventFile,
    guest_memory::{GuestMemory, RegionSpec, memory_file},
    passed_files,
    vring::{RingAddresses, RingMemory},
};

/// Where the guest has its memory, and the program that runs it.
pub(super) const BASE: u64 = 0x10_0000;
pub(super) const USER: u64 = 0x7f00_0000_0000;
pub(super) const LEN: u64 = 1 << 20;
/// Descriptors of each ring.
pub(super) const SIZE: u16 = 64;
/// From one ring to the next, and where the parts of one are.
const RING_LEN: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// First byte that no ring has.
pub(super) const FREE: u64 = BASE + 8 * RING_LEN;

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Features: checksums left to the switch, version 1, event indices, mergeable buffers, rings enabled by messages.
pub(super) const CSUM: u64 = 1 << 0;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const EVENT_INDEX: u64 = 1 << 29;
pub(super) const MERGEABLE: u64 = 1 << 15;
pub(super) const PROTOCOL: u64 = 1 << 30;

/// A descriptor as it lies in memory.
pub(super) fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
}

pub(super) fn addresses(ring: u64) -> RingAddresses {
    let at = USER + ring * RING_LEN;
    RingAddresses { descriptors: at, available: at + AVAILABLE, used: at + USED }
}

pub(super) fn region() -> RegionSpec {
    RegionSpec { guest_addr: BASE, len: LEN, user_addr: USER, offset: 0 }
}

/// The guest's memory and what its driver knows of its rings.
pub(super) struct Guest {
    pub(super) file: OwnedFd,
    pub(super) memory: GuestMemory,
    /// Chains made available so far, by ring.
    n_available: Vec<u16>,
}

impl Guest {
    pub(super) fn new(n_rings: usize) -> Self {
        let file = memory_file(LEN).unwrap();
        let again = file.try_clone().unwrap();
        let memory = GuestMemory::map(vec![(region(), again)]).unwrap();
        Self { file, memory, n_available: vec![0; n_rings] }
    }

    /// A ring as the switch has it.
    pub(super) fn ring(&self, ring: u64) -> RingMemory {
        let again = self.file.try_clone().unwrap();
        let memory = Arc::new(GuestMemory::map(vec![(region(), again)]).unwrap());
        RingMemory::new(&memory, &addresses(ring), SIZE.into()).unwrap()
    }

    pub(super) fn write(&self, addr: u64, bytes: &[u8]) {
        assert!(self.memory.write(addr, bytes));
    }

    pub(super) fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.memory.read(addr, &mut bytes));
        bytes
    }

    fn number(&self, addr: u64) -> u16 {
        let bytes = self.read(addr, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    pub(super) fn set_descriptor(&self, ring: u64, idx: u16, descriptor: &[u8]) {
        self.write(BASE + ring * RING_LEN + u64::from(idx) * 16, descriptor);
    }

    /// Makes the chain with this first descriptor available.
    pub(super) fn post(&mut self, ring: u64, head: u16) {
        let at = BASE + ring * RING_LEN + AVAILABLE;
        let n = self.n_available[ring as usize];
        self.write(at + 4 + u64::from(n % SIZE) * 2, &head.to_le_bytes());
        self.n_available[ring as usize] = n.wrapping_add(1);
        self.write(at + 2, &n.wrapping_add(1).to_le_bytes());
    }

    /// Says that so many chains are available, whatever is true.
    pub(super) fn claim(&self, ring: u64, n_available: u16) {
        self.write(BASE + ring * RING_LEN + AVAILABLE + 2, &n_available.to_le_bytes());
    }

    /// After which chain the driver wants to be told.
    pub(super) fn set_used_event(&self, ring: u64, after: u16) {
        self.write(BASE + ring * RING_LEN + AVAILABLE + 4 + u64::from(SIZE) * 2, &after.to_le_bytes());
    }

    /// How many chains the switch has used, and the last one's head and length.
    pub(super) fn used(&self, ring: u64) -> (u16, u32, u32) {
        let at = BASE + ring * RING_LEN + USED;
        let n = self.number(at + 2);
        let last = self.read(at + 4 + u64::from(n.wrapping_sub(1) % SIZE) * 8, 8);
        let word = |at: usize| u32::from_le_bytes([last[at], last[at + 1], last[at + 2], last[at + 3]]);
        (n, word(0), word(4))
    }

    /// Flags of the used ring, and after which chain the switch wants to be told.
    pub(super) fn wishes(&self, ring: u64) -> (u16, u16) {
        let at = BASE + ring * RING_LEN + USED;
        (self.number(at), self.number(at + 4 + u64::from(SIZE) * 8))
    }

    /// Sends a frame whose header is in front of it, in one part.
    pub(super) fn send(&mut self, ring: u64, idx: u16, frame: &[u8]) {
        let addr = FREE + u64::from(idx) * 0x1000;
        self.write(addr, &[&[0; 12][..], frame].concat());
        self.set_descriptor(ring, idx, &descriptor(addr, 12 + frame.len() as u32, 0, 0));
        self.post(ring, idx);
    }

    /// Gives a buffer to receive into; answers where it is.
    pub(super) fn give(&mut self, ring: u64, idx: u16, len: u32) -> u64 {
        let addr = FREE + 0x4_0000 + u64::from(idx) * 0x1000;
        self.set_descriptor(ring, idx, &descriptor(addr, len, WRITE, 0));
        self.post(ring, idx);
        addr
    }
}

/// The program that runs the guest, at its end of the socket.
pub(super) struct Program {
    pub(super) stream: UnixStream,
    pub(super) kicks: Vec<EventFile>,
    pub(super) calls: Vec<EventFile>,
}

impl Program {
    pub(super) fn new(stream: UnixStream, n_rings: usize) -> Self {
        stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let files = || (0..n_rings).map(|_| EventFile::new().unwrap()).collect();
        Self { stream, kicks: files(), calls: files() }
    }

    pub(super) fn say(&self, kind: u32, payload: &[u8], files: &[OwnedFd]) {
        self.say_with(kind, 1, payload, files);
    }

    fn say_with(&self, kind: u32, flags: u32, payload: &[u8], files: &[OwnedFd]) {
        let header = [kind, flags, payload.len() as u32].map(u32::to_le_bytes).concat();
        let sent = passed_files::send(&self.stream, &[&header[..], payload].concat(), files);
        // That the switch has closed the socket shows in what it answers.
        assert!(sent.is_ok() || sent.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe));
    }

    /// The same, and waits until it was done; `None`: the switch has closed the socket.
    pub(super) fn have_done(&mut self, kind: u32, payload: &[u8], files: &[OwnedFd]) -> Option<u64> {
        self.say_with(kind, 9, payload, files);
        self.answer(kind)
    }

    pub(super) fn ask(&mut self, kind: u32, payload: &[u8]) -> Option<u64> {
        self.say(kind, payload, &[]);
        self.answer(kind)
    }

    fn answer(&mut self, kind: u32) -> Option<u64> {
        let mut bytes = [0; 20];
        self.stream.read_exact(&mut bytes).ok()?;
        assert_eq!(bytes[..12], [kind, 5, 8].map(u32::to_le_bytes).concat());
        Some(u64::from_le_bytes(*bytes[12..].first_chunk().unwrap()))
    }

    pub(super) fn share_memory(&mut self, guest: &Guest) -> Option<u64> {
        let region = region();
        let table = [1, region.guest_addr, region.len, region.user_addr, region.offset];
        let file = guest.file.try_clone().unwrap();
        self.have_done(5, &table.map(u64::to_le_bytes).concat(), &[file])
    }

    /// What is said before rings are: features, and the guest's memory.
    pub(super) fn begin(&mut self, guest: &Guest, features: u64) {
        let offered = self.ask(1, &[]).unwrap();
        assert_eq!(features & !offered, 0);
        self.say(16, &8_u64.to_le_bytes(), &[]);
        self.say(2, &features.to_le_bytes(), &[]);
        assert_eq!(self.share_memory(guest), Some(0));
    }

    pub(super) fn start_ring(&mut self, ring: u32) -> Option<u64> {
        let state = |value: u32| [ring, value].map(u32::to_le_bytes).concat();
        let at = addresses(ring.into());
        self.say(8, &state(SIZE.into()), &[]);
        self.say(10, &state(0), &[]);
        let places = [u64::from(ring), at.descriptors, at.used, at.available, 0];
        self.say(9, &places.map(u64::to_le_bytes).concat(), &[]);
        let number = u64::from(ring).to_le_bytes();
        let (kick, call) = (&self.kicks[ring as usize], &self.calls[ring as usize]);
        self.say(13, &number, &[call.passed().unwrap()]);
        self.say(12, &number, &[kick.passed().unwrap()]);
        self.have_done(18, &state(1), &[])
    }
}
