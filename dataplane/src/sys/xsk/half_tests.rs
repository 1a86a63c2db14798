//! A process dies at any write to rings and notes, and the next one goes on with them. The kernel is the test's.

use std::{collections::VecDeque, sync::atomic::AtomicU64};

use super::{super::ring::tests::OnHeap, *};
use crate::{
    death::tests::{after, revive},
    keep::Kept,
    pool::{Side, Slot},
};

const N_FRAMES: usize = 40;
const RING: u32 = 16;
const NUMBER: usize = 300;

/// A socket whose kernel is this.
struct Kernel {
    rx: Producer<libc::xdp_desc>,
    fill: Consumer<u64>,
    tx: Consumer<libc::xdp_desc>,
    completed: Producer<u64>,
    /// Taken off the fill ring, and off the tx ring.
    empty: VecDeque<u64>,
    sending: VecDeque<u64>,
    /// What was received and what was sent, in order.
    n_received: u32,
    sent: Vec<u32>,
    /// What it has written to its own rings is nobody's to know.
    unused: AtomicU64,
}

struct Socket {
    rx: OnHeap<libc::xdp_desc>,
    fill: OnHeap<u64>,
    tx: OnHeap<libc::xdp_desc>,
    completed: OnHeap<u64>,
}

impl Socket {
    fn new() -> Self {
        Self {
            rx: OnHeap::new(RING),
            fill: OnHeap::new(RING),
            tx: OnHeap::new(RING),
            completed: OnHeap::new(RING),
        }
    }

    fn kernel(&self) -> Kernel {
        Kernel {
            rx: self.rx.producer(),
            fill: self.fill.consumer(),
            tx: self.tx.consumer(),
            completed: self.completed.producer(),
            empty: VecDeque::new(),
            sending: VecDeque::new(),
            n_received: 0,
            sent: Vec::new(),
            unused: AtomicU64::new(0),
        }
    }
}

impl Kernel {
    /// Receives a packet of so many pieces, if it has frames for it.
    fn receive(&mut self, n_pieces: usize) {
        while let Some(address) = self.fill.take() {
            self.empty.push_back(address);
        }
        self.fill.release();
        if self.empty.len() < n_pieces || !self.rx.has_room(n_pieces as u32) {
            return;
        }
        for n in 0..n_pieces {
            let Some(addr) = self.empty.pop_front() else { return };
            self.n_received += 1;
            let options = if n + 1 < n_pieces { CONTINUED } else { 0 };
            let desc = libc::xdp_desc { addr: addr + 256, len: self.n_received, options };
            self.rx.put(desc, &self.unused);
        }
        self.rx.tell();
    }

    /// Sends some, and is done with some.
    fn send(&mut self, n: usize, n_done: usize) {
        for _ in 0..n {
            let Some(desc) = self.tx.take() else { break };
            self.sent.push(desc.len);
            self.sending.push_back(desc.addr);
        }
        self.tx.release();
        for _ in 0..n_done {
            let Some(address) = self.sending.pop_front() else { break };
            self.completed.put(address, &self.unused);
        }
        self.completed.tell();
    }
}

/// A process that sends what it receives, piece by piece.
struct Process {
    memory: Memory,
    rx: RxRings,
    tx: TxRings,
    done: Vec<Frame>,
    /// Taken, and not sent for want of room.
    n_refused: usize,
    _slot: Slot,
}

impl Process {
    fn first(socket: &Socket) -> Self {
        let memory = Memory::in_file(N_FRAMES, 2048, 1, None).unwrap();
        let slot = memory.claim(1).unwrap().remove(0);
        let rx = RxRings::new(socket.rx.consumer(), socket.fill.producer(), slot.lent(Side::Receive));
        let tx = TxRings::new(socket.tx.producer(), socket.completed.consumer(), slot.lent(Side::Send));
        Self { memory, rx, tx, done: Vec::new(), n_refused: 0, _slot: slot }
    }

    /// The one after another that has died.
    fn next(before: &Memory, socket: &Socket) -> (Self, Found, Found) {
        let (note, fd) = before.to_keep().unwrap();
        let memory = Memory::adopt(Kept { note, files: vec![fd.try_clone_to_owned().unwrap()] }).unwrap();
        memory.settle();
        let slot = memory.claim_again(&[0]).unwrap().remove(0);
        let found = slot.found(Side::Receive);
        let (rx, received) = RxRings::take_over(socket.rx.consumer(), socket.fill.producer(), found)
            .unwrap_or_else(|(why, _)| panic!("{why}"));
        let found = slot.found(Side::Send);
        let (tx, sent) = TxRings::take_over(socket.tx.producer(), socket.completed.consumer(), found)
            .unwrap_or_else(|(why, _)| panic!("{why}"));
        (Self { memory, rx, tx, done: Vec::new(), n_refused: 0, _slot: slot }, received, sent)
    }

    /// What a worker does in a round; packets have so many pieces at most.
    fn round(&mut self) {
        let mut taken = Vec::new();
        self.rx.take(5, |desc, frame, start| {
            assert_eq!(start, 256);
            taken.push((desc, frame));
        });
        for (desc, frame) in taken {
            if self.tx.tx.has_room(1) {
                self.tx.put(frame, 256, desc.len as usize, desc.options);
            } else {
                self.n_refused += 1;
            }
        }
        self.rx.refill(|memory| memory.take());
        self.tx.tx.tell();
        self.done.clear();
        self.tx.reclaim(&mut self.done);
        self.done.clear();
    }

    /// A process that is killed says nothing.
    fn die(self) -> Memory {
        self.rx.lent.leave();
        self.tx.lent.leave();
        self.memory
    }

    /// Frames that are free: all that nobody has noted.
    fn n_free(&self) -> usize {
        self.memory.n_free()
    }
}

/// The kernel's and the process's turns, the same each time.
fn turns(kernel: &mut Kernel, process: &mut Process, n: usize, n_pieces: usize) {
    kernel.receive(1 + n % n_pieces);
    kernel.receive(1);
    process.round();
    kernel.send(n % 8, (n + 1) % 5);
}

/// All that was under way ends, and every frame is free but those to receive into.
fn settle(kernel: &mut Kernel, process: &mut Process) {
    for _ in 0..20 {
        process.round();
        kernel.send(RING as usize, RING as usize);
    }
    process.tx.reclaim(&mut process.done);
    process.done.clear();
    let is_at_rest = kernel.sending.is_empty() && process.tx.lent.len() == 0;
    assert!(is_at_rest, "{} frames are not back", process.tx.lent.len());
    assert_eq!(process.n_free() + process.rx.lent.len(), N_FRAMES, "a frame is lost");
}

#[test]
fn a_process_that_dies_at_any_write_leaves_every_frame_where_it_is() {
    for n_pieces in [1, 3] {
        dies_at_any_write(n_pieces);
    }
}

fn dies_at_any_write(n_pieces: usize) {
    let (mut n_cut, mut n_passed_over) = (0, 0);
    for n_writes in 0.. {
        let (socket, n_turns) = (Socket::new(), 12);
        let (mut kernel, mut process) = (socket.kernel(), Process::first(&socket));
        let (mut left, mut died_at) = (n_writes, None);
        for n in 0..n_turns {
            // The kernel lives on.
            kernel.receive(1 + n % n_pieces);
            kernel.receive(1);
            after(left);
            process.round();
            left = revive();
            if left == 0 {
                died_at = Some(n);
                break;
            }
            kernel.send(n % 8, (n + 1) % 5);
        }
        let Some(died_at) = died_at else {
            assert!(n_writes > 200, "{n_writes} writes are too few for all that");
            assert!(n_cut > 0 || n_pieces == 1, "none died within a packet");
            assert!(n_passed_over > 0, "none died between two indices");
            return;
        };
        let before = index(socket.rx.consumer());
        let n_refused = process.n_refused;
        let taken = process.die();
        let n_noted = |side: Side| taken_notes(&taken, side);
        let noted = Side::BOTH.map(n_noted);
        let (mut next, received, sent) = Process::next(&taken, &socket);
        n_passed_over += usize::from(next.rx.rx.next() != before);
        n_cut += usize::from(received.is_within);
        // The kernel knows of all that is missing.
        assert_eq!(received.n_missing, kernel.empty.len(), "{n_writes} writes: {received:?}");
        assert_eq!(sent.n_missing, kernel.sending.len(), "{n_writes} writes: {sent:?}");
        assert!(next.rx.lent.len() <= noted[0] && next.tx.lent.len() <= noted[1]);
        assert_eq!(next.n_free() + next.rx.lent.len() + next.tx.lent.len(), N_FRAMES, "{n_writes} writes");
        // Whoever dies at once leaves the same.
        let again = next.die();
        let (another, received_again, sent_again) = Process::next(&again, &socket);
        assert_eq!((received_again, sent_again), (received, sent), "{n_writes} writes");
        next = another;
        for n in died_at + 1..died_at + 12 {
            turns(&mut kernel, &mut next, n, n_pieces);
        }
        settle(&mut kernel, &mut next);
        // In order, and nothing twice; what is missing was taken and not sent.
        assert!(kernel.sent.is_sorted_by(|a, b| a < b), "{n_writes} writes: {:?}", kernel.sent);
        let n_lost = kernel.n_received as usize - kernel.sent.len() - next.rx.rx.n_waiting() as usize;
        let n_lost = n_lost - n_refused - next.n_refused;
        assert!(n_lost <= 5 + n_pieces, "{n_writes} writes: {n_lost} lost");
        drop(next.die());
    }
}

fn index(mut ring: Consumer<libc::xdp_desc>) -> u32 {
    ring.catch_up().unwrap();
    ring.next()
}

fn taken_notes(memory: &Memory, side: Side) -> usize {
    let lent = memory.claim_again(&[0]).unwrap()[0].found(side);
    let n = lent.len();
    lent.leave();
    n
}

#[test]
fn whoever_takes_over_and_dies_on_the_way_leaves_it_as_it_was() {
    for n_writes in 0..NUMBER {
        let socket = Socket::new();
        let (mut kernel, mut process) = (socket.kernel(), Process::first(&socket));
        for n in 0..7 {
            turns(&mut kernel, &mut process, n, 3);
        }
        kernel.receive(3);
        // Dies with pieces of a packet on the tx ring that the kernel was not told of.
        after(9);
        process.round();
        revive();
        let memory = process.die();
        after(n_writes);
        let (second, ..) = Process::next(&memory, &socket);
        let has_died = revive() == 0;
        let memory = second.die();
        let (mut third, received, sent) = Process::next(&memory, &socket);
        assert_eq!((received.n_missing, sent.n_missing), (kernel.empty.len(), kernel.sending.len()));
        for n in 0..9 {
            turns(&mut kernel, &mut third, n, 3);
        }
        settle(&mut kernel, &mut third);
        assert!(kernel.sent.is_sorted_by(|a, b| a < b), "{:?}", kernel.sent);
        drop(third.die());
        if !has_died {
            assert!(n_writes > 3, "there is something to be written");
            return;
        }
    }
}

#[test]
fn rings_that_cannot_be_are_not_gone_on_with() {
    type Damage = fn(&Socket, &Memory);
    let damages: [(Damage, &str); 4] = [
        // An index that is nowhere near.
        (|socket, _| drop_all(socket.fill.producer(), 1 << 20), "fill ring is damaged"),
        (|socket, _| drop_all(socket.tx.producer(), 1 << 20), "tx ring is damaged"),
        // Frames that the kernel was not given.
        (|_, memory| strike(memory, Side::Receive), "none of its own"),
        (|_, memory| strike(memory, Side::Send), "none of its own"),
    ];
    for (damage, expected) in damages {
        let socket = Socket::new();
        let mut process = Process::first(&socket);
        // Some are to be received into, and one is to be sent.
        process.round();
        let frame = process.memory.take().unwrap();
        process.tx.put(frame, 256, 60, 0);
        process.tx.tx.tell();
        let memory = process.die();
        damage(&socket, &memory);
        let slot = memory.claim_again(&[0]).unwrap().remove(0);
        let receiving = slot.found(Side::Receive);
        let rx = RxRings::take_over(socket.rx.consumer(), socket.fill.producer(), receiving).map(drop);
        let sending = slot.found(Side::Send);
        let tx = TxRings::take_over(socket.tx.producer(), socket.completed.consumer(), sending).map(drop);
        let why = [rx.err(), tx.err()].into_iter().flatten().map(|(why, _)| why).collect::<String>();
        assert!(why.contains(expected), "{why:?} is not {expected}");
    }
}

/// Has the index of a ring be elsewhere.
fn drop_all<T: Copy>(mut ring: Producer<T>, n: u32) {
    ring.keep(n, &AtomicU64::new(0));
    ring.tell();
}

/// Strikes out what a half has noted.
fn strike(memory: &Memory, side: Side) {
    drop(memory.claim_again(&[0]).unwrap()[0].found(side));
}
