//! Both halves of a socket without the socket: rings, and the frames that the kernel has by them. What a process
//! that was killed has left is taken over here; who has which frame then is said in `pool/lent.rs`.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    BURST, RING_LEN,
    ring::{Consumer, Producer},
};
use crate::pool::{Frame, Lent, Memory, word, write};

/// More of the packet is in the next descriptor.
pub(super) const CONTINUED: u32 = libc::XDP_PKT_CONTD;
/// Frames to receive into that a kernel that copies may have and not say where: a packet under way, and by far
/// not as many. With more missing the socket is not gone on with.
pub(super) const MAX_MISSING: usize = RING_LEN as usize / 4;

/// The rings to receive by.
#[derive(Debug)]
pub(super) struct RxRings {
    pub(super) rx: Consumer<libc::xdp_desc>,
    pub(super) fill: Producer<u64>,
    pub(super) lent: Lent,
    /// The last piece that was taken is not the end of its packet.
    is_within: bool,
}

/// The rings to send by.
#[derive(Debug)]
pub(super) struct TxRings {
    pub(super) tx: Producer<libc::xdp_desc>,
    pub(super) completed: Consumer<u64>,
    pub(super) lent: Lent,
}

/// What was found on rings of the process before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Frames that were received, or are to be sent.
    pub(crate) n_waiting: usize,
    /// Frames that are on no ring: the kernel has them, or else they are lost.
    pub(crate) n_missing: usize,
    /// The next piece that is received is not the first of its packet.
    pub(crate) is_within: bool,
}

/// Why rings are not gone on with, and what the kernel has by them.
pub(super) type Broken = (&'static str, Lent);

/// Frames that were seen on a ring.
struct Seen(Vec<bool>);

impl Seen {
    fn new(lent: &Lent) -> Self {
        Self(vec![false; lent.memory().n_frames()])
    }

    /// A frame is lent and was not seen before.
    fn is_new(&mut self, lent: &Lent, address: u64) -> bool {
        lent.lent_at(address).is_some_and(|idx| !std::mem::replace(&mut self.0[idx], true))
    }

    fn n(&self) -> usize {
        self.0.iter().filter(|seen| **seen).count()
    }
}

impl RxRings {
    /// Those of a new socket.
    pub(super) fn new(rx: Consumer<libc::xdp_desc>, fill: Producer<u64>, lent: Lent) -> Self {
        Self { rx, fill, lent, is_within: false }
    }

    /// Goes on with those of another process, which takes and gives no frames any more; the kernel may.
    pub(super) fn take_over(
        mut rx: Consumer<libc::xdp_desc>,
        mut fill: Producer<u64>,
        mut lent: Lent,
    ) -> Result<(Self, Found), Broken> {
        // Frames go from the fill ring to the rx ring: looked at in the other order, none is seen on both.
        let Some(mut is_within) = pass_over(&mut rx, &mut lent) else {
            return Err(("its rx ring is damaged", lent));
        };
        let mut seen = Seen::new(&lent);
        if !rx.waiting().all(|desc| seen.is_new(&lent, desc.addr)) {
            return Err(("frames on its rx ring are none of its own", lent));
        }
        let n_waiting = rx.n_waiting() as usize;
        if fill.catch_up().is_none() {
            return Err(("its fill ring is damaged", lent));
        }
        if !fill.told().all(|address| seen.is_new(&lent, address)) {
            return Err(("frames on its fill ring are none of its own", lent));
        }
        let Some(untold) = fill.untold(lent.word(word::WRITTEN).load(Relaxed)) else {
            return Err(("its fill ring is damaged", lent));
        };
        let n_untold = untold.iter().take_while(|address| seen.is_new(&lent, **address)).count();
        fill.keep(n_untold as u32, lent.word(word::WRITTEN));
        let noted = lent.word(word::WITHIN).load(Relaxed);
        if is_within.is_none() {
            // Where that is not known, a packet too many is passed over.
            is_within = Some(noted >> 1 != u64::from(rx.next()) || noted & 1 != 0);
        }
        let n_missing = lent.len().saturating_sub(seen.n());
        let is_within = is_within.unwrap_or_default();
        let found = Found { n_waiting, n_missing, is_within };
        let mut rings = Self { rx, fill, lent, is_within };
        rings.release();
        Ok((rings, found))
    }

    /// Takes up to so many pieces off the ring, in order, with where they begin; how many there were.
    #[inline]
    pub(super) fn take(
        &mut self,
        budget: usize,
        mut take: impl FnMut(libc::xdp_desc, Frame, usize),
    ) -> usize {
        let mut n_taken = 0;
        while n_taken < budget
            && let Some(desc) = self.rx.take()
        {
            n_taken += 1;
            self.is_within = desc.options & CONTINUED != 0;
            // What we have not lent the kernel does not give.
            let Some((frame, start)) = self.lent.take_back(desc.addr) else { continue };
            take(desc, frame, start);
        }
        if n_taken > 0 {
            self.release();
        }
        n_taken
    }

    fn release(&mut self) {
        let within = u64::from(self.rx.next()) << 1 | u64::from(self.is_within);
        write(self.lent.word(word::WITHIN), within, Relaxed);
        self.rx.release();
    }

    /// Frames that the kernel should have and has not.
    #[inline]
    pub(super) fn n_wanted(&self) -> usize {
        (RING_LEN as usize).saturating_sub(self.lent.len())
    }

    /// Gives the kernel frames to receive into. True: it was told of some.
    pub(super) fn refill(&mut self, mut free: impl FnMut(&Memory) -> Option<Frame>) -> bool {
        for _ in 0..self.n_wanted() {
            if !self.fill.has_room(1) {
                break;
            }
            let Some(frame) = free(self.lent.memory()) else { break };
            // It is of this memory, and there is room; otherwise it goes home.
            let _ = self.lent.lend(frame, |address, written| self.fill.put(address, written));
        }
        self.fill.tell()
    }
}

/// Passes over what was taken off and not given back. Answers, if there was something, whether it ends within a packet.
fn pass_over(rx: &mut Consumer<libc::xdp_desc>, lent: &mut Lent) -> Option<Option<bool>> {
    rx.catch_up()?;
    let taken = rx.waiting().take_while(|desc| lent.lent_at(desc.addr).is_none());
    let taken: Vec<_> = taken.map(|desc| desc.options & CONTINUED != 0).collect();
    for _ in &taken {
        rx.take();
    }
    (taken.len() <= BURST).then(|| taken.last().copied())
}

impl TxRings {
    /// Those of a new socket.
    pub(super) fn new(tx: Producer<libc::xdp_desc>, completed: Consumer<u64>, lent: Lent) -> Self {
        Self { tx, completed, lent }
    }

    /// Goes on with those of another process, which sends nothing any more; what it has written is sent.
    pub(super) fn take_over(
        mut tx: Producer<libc::xdp_desc>,
        mut completed: Consumer<u64>,
        mut lent: Lent,
    ) -> Result<(Self, Found), Broken> {
        if completed.catch_up().is_none() {
            return Err(("its completion ring is damaged", lent));
        }
        let n_taken = completed.waiting().take_while(|address| lent.lent_at(*address).is_none()).count();
        for _ in 0..n_taken {
            completed.take();
        }
        let mut seen = Seen::new(&lent);
        if !completed.waiting().all(|address| seen.is_new(&lent, address)) {
            return Err(("frames on its completion ring are none of its own", lent));
        }
        if tx.catch_up().is_none() {
            return Err(("its tx ring is damaged", lent));
        }
        if !tx.told().all(|desc| seen.is_new(&lent, desc.addr)) {
            return Err(("frames on its tx ring are none of its own", lent));
        }
        let Some(untold) = tx.untold(lent.word(word::WRITTEN).load(Relaxed)) else {
            return Err(("its tx ring is damaged", lent));
        };
        let n_noted = untold.iter().take_while(|desc| seen.is_new(&lent, desc.addr)).count();
        // Of a packet that is not whole nothing is sent.
        let is_end = |desc: &libc::xdp_desc| desc.options & CONTINUED == 0;
        let n_whole = untold[..n_noted].iter().rposition(is_end).map_or(0, |last| last + 1);
        // The last one first: whoever dies here leaves what is noted in one piece.
        for desc in untold[n_whole..n_noted].iter().rev() {
            drop(lent.take_back(desc.addr));
        }
        tx.keep(n_whole as u32, lent.word(word::WRITTEN));
        completed.release();
        let n_waiting = tx.n_told() as usize + n_whole;
        let n_missing = (lent.len() + n_noted - n_whole).saturating_sub(seen.n());
        Ok((Self { tx, completed, lent }, Found { n_waiting, n_missing, is_within: false }))
    }

    /// Puts a frame of the memory on the ring, where there is room.
    #[inline]
    pub(super) fn put(&mut self, frame: Frame, start: usize, len: usize, options: u32) {
        // It is of this memory; otherwise it goes home.
        let _ = self.lent.lend(frame, |address, written| {
            self.tx.put(libc::xdp_desc { addr: address + start as u64, len: len as u32, options }, written)
        });
    }

    /// Hands out what has been sent.
    #[inline]
    pub(super) fn reclaim(&mut self, done: &mut Vec<Frame>) {
        let mut found = false;
        while let Some(address) = self.completed.take() {
            found = true;
            done.extend(self.lent.take_back(address).map(|(frame, _)| frame));
        }
        if found {
            self.completed.release();
        }
    }
}

#[cfg(test)]
#[path = "half_tests.rs"]
mod tests;
