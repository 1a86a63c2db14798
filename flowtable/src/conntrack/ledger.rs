//! Who is in storage: free slots, the order in which connections go, the numbers that
//! limits are about. One writer at a time, behind the tracker's mutex.
//!
//! A connection is in one list. Those that nobody has answered, and those that are
//! over, queue by age: they are the first to go when room is needed, the longest queue
//! first, and nothing of worth is lost with them. All others hang in the timer wheel,
//! by the moment they would expire at; packets only move that moment, and the wheel
//! finds out when it gets there. Each look at the wheel is bounded: there is no sweep
//! over all connections, ever.

use std::collections::{HashMap, VecDeque};

use super::{Event, Watched, slot::Slot, storage::Used, timeout::State};

/// No slot.
pub(super) const NIL: u32 = u32::MAX;
/// Spokes of the wheel.
const N_SPOKES: usize = 8192;
/// Milliseconds between spokes, as a power of two: the wheel turns once in 35 minutes,
/// and what lives longer is looked at once in a turn.
const SPOKE_SHIFT: u32 = 8;
/// Queues behind the spokes.
pub(super) const N_QUEUES: usize = 4;
/// Events that wait to be fetched.
const MAX_EVENTS: usize = 4096;

/// Words of a parked ledger in front of its lists: magic, lengths, and single numbers,
const N_PARKED: usize = 11;
/// and where the slots begin that were never used.
const N_FRESH: usize = 1;
/// Words of a parked ledger at most: each list, and each count with its number.
pub(super) const MAX_PARKED: usize = N_PARKED + N_FRESH + 3 * (N_SPOKES + N_QUEUES) + 2 * 2 * (1 << 16);
/// Tells a ledger parked in this way from others.
const PARKED: u32 = 0x4c44_0002;
/// One of a version whose free slots are all in the list.
const PARKED_ALL_LISTED: u32 = 0x4c44_0001;

/// Ends of a list.
#[derive(Debug, Clone, Copy)]
struct Ends {
    first: u32,
    last: u32,
    len: u32,
}

/// Connections by a number of 16 bits.
#[derive(Debug)]
pub(super) struct Counts(Box<[u32]>);

impl Counts {
    fn new() -> Self {
        Self(vec![0; 1 << 16].into())
    }

    pub(super) fn of(&self, id: u16) -> u32 {
        self.0.get(usize::from(id)).copied().unwrap_or(0)
    }

    /// Counts one in or out.
    pub(super) fn count(&mut self, id: u16, comes: bool) {
        if let Some(n) = self.0.get_mut(usize::from(id)) {
            *n = if comes { *n + 1 } else { n.saturating_sub(1) };
        }
    }

    /// Of identifiers, each followed by its count.
    fn of_pairs(pairs: &[u32]) -> Self {
        let mut counts = Self::new();
        for &[id, n] in pairs.as_chunks::<2>().0 {
            if let Some(count) = counts.0.get_mut(id as usize) {
                *count = n;
            }
        }
        counts
    }

    /// All that are not zero.
    pub(super) fn all(&self) -> Vec<(u16, u32)> {
        let all = self.0.iter().enumerate().filter(|(_, n)| **n != 0);
        all.map(|(id, n)| (id as u16, *n)).collect()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Spokes, then queues.
    lists: Vec<Ends>,
    /// The first of the slots that were given back.
    free: u32,
    /// The first of those that were never used, which nothing has touched.
    fresh: u32,
    used: Used,
    /// Of both kinds.
    n_free: u32,
    pub(super) n_connections: u32,
    pub(super) zones: Counts,
    pub(super) ports: Counts,
    pub(super) zone_limits: HashMap<u16, u32>,
    pub(super) default_zone_limit: u32,
    pub(super) port_limit: u32,
    pub(super) limit: u32,
    /// Spoke that has been looked at up to now.
    hand: u32,
    /// The hand has been set.
    is_running: bool,
    pub(super) random: u64,
    events: VecDeque<Event>,
    pub(super) watched: Watched,
    pub(super) n_lost_events: u64,
}

/// The queue of a connection that may go.
pub(super) fn queue_of(state: State) -> u16 {
    let queue = match state {
        _ if state.is_over() => 0,
        State::TcpSynSent | State::TcpSynRecv | State::TcpEstablished => 1,
        State::UdpFirst | State::UdpSingle => 2,
        _ => 3,
    };
    (N_SPOKES + queue) as u16
}

impl Ledger {
    pub(super) fn new(seed: u64, used: Used) -> Self {
        Self {
            lists: vec![Ends { first: NIL, last: NIL, len: 0 }; N_SPOKES + N_QUEUES],
            free: NIL,
            fresh: 0,
            used,
            n_free: 0,
            n_connections: 0,
            zones: Counts::new(),
            ports: Counts::new(),
            zone_limits: HashMap::new(),
            default_zone_limit: u32::MAX,
            port_limit: u32::MAX,
            limit: u32::MAX,
            hand: 0,
            is_running: false,
            random: seed | 1,
            events: VecDeque::new(),
            watched: Watched::Nothing,
            n_lost_events: 0,
        }
    }

    /// Nothing is in storage.
    pub(super) fn forget_all(&mut self) {
        self.lists.fill(Ends { first: NIL, last: NIL, len: 0 });
        (self.free, self.fresh, self.n_free, self.n_connections) = (NIL, 0, 0, 0);
        (self.zones, self.ports) = (Counts::new(), Counts::new());
        self.is_running = false;
    }

    /// What another ledger over the same slots needs. Limits and events are not of it.
    pub(super) fn park(&self) -> Vec<u32> {
        let (zones, ports) = (self.zones.all(), self.ports.all());
        let random = [(self.random >> 32) as u32, self.random as u32];
        let n_counts = [zones.len() as u32, ports.len() as u32];
        let single = [self.free, self.n_free, self.n_connections, self.hand, u32::from(self.is_running)];
        let mut words = vec![PARKED, self.lists.len() as u32];
        words.extend(n_counts.into_iter().chain(random).chain(single).chain([self.fresh]));
        words.extend(self.lists.iter().flat_map(|ends| [ends.first, ends.last, ends.len]));
        words.extend(zones.iter().chain(&ports).flat_map(|(id, n)| [u32::from(*id), *n]));
        words
    }

    /// Becomes what was parked; false: that cannot be, and nothing has changed.
    pub(super) fn unpark(&mut self, words: &[u32], n_slots: u32) -> bool {
        let Some((
            &[magic, n_lists, n_zones, n_ports, random, low, free, n_free, n_connections, hand, runs],
            rest,
        )) = words.split_first_chunk::<N_PARKED>()
        else {
            return false;
        };
        let (fresh, rest) = match (magic, rest.split_first()) {
            (PARKED, Some((fresh, rest))) => (*fresh, rest),
            (PARKED_ALL_LISTED, _) => (n_slots, rest),
            _ => return false,
        };
        let n_lists = n_lists as usize;
        if fresh > n_slots || n_lists != self.lists.len() || n_free.saturating_add(n_connections) > n_slots {
            return false;
        }
        let Some((lists, counts)) = rest.split_at_checked(3 * n_lists) else { return false };
        let Some((zones, ports)) = counts.split_at_checked(2 * n_zones as usize) else { return false };
        let is_end = |idx: u32| idx == NIL || idx < n_slots;
        let lists: Vec<_> =
            lists.as_chunks::<3>().0.iter().map(|&[first, last, len]| Ends { first, last, len }).collect();
        if ports.len() != 2 * n_ports as usize
            || !is_end(free)
            || !lists.iter().all(|ends| is_end(ends.first) && is_end(ends.last))
        {
            return false;
        }
        self.lists = lists;
        (self.free, self.n_free, self.n_connections) = (free, n_free, n_connections);
        self.set_fresh(fresh);
        (self.hand, self.is_running) = (hand, runs != 0);
        self.random = (u64::from(random) << 32 | u64::from(low)) | 1;
        (self.zones, self.ports) = (Counts::of_pairs(zones), Counts::of_pairs(ports));
        true
    }

    pub(super) fn n_free(&self) -> u32 {
        self.n_free
    }

    /// A free slot; one that was never used only where there is no other.
    pub(super) fn take(&mut self, slots: &[Slot]) -> Option<u32> {
        let mut idx = self.free;
        match slots.get(idx as usize) {
            Some(slot) => self.free = slot.links().0,
            None => {
                idx = self.fresh;
                slots.get(idx as usize)?;
                self.set_fresh(idx + 1);
            }
        }
        self.n_free -= 1;
        Some(idx)
    }

    /// Slots from here on were never used, or nothing is left in them.
    fn set_fresh(&mut self, fresh: u32) {
        self.fresh = fresh;
        self.used.set(fresh);
    }

    /// The slots from here to the end were never used, or nothing is left in them.
    pub(super) fn give_fresh(&mut self, slots: &[Slot], fresh: u32) {
        self.n_free += slots.len() as u32 - fresh;
        self.set_fresh(fresh);
    }

    /// Gives a slot back.
    pub(super) fn give(&mut self, slots: &[Slot], idx: u32) {
        if let Some(slot) = slots.get(idx as usize) {
            slot.set_links(self.free, NIL);
            self.free = idx;
            self.n_free += 1;
        }
    }

    /// The wheel's list for a moment of expiry.
    pub(super) fn spoke_of(&self, expires: u32) -> u16 {
        ((expires >> SPOKE_SHIFT) as usize % N_SPOKES) as u16
    }

    /// Puts a connection at the end of a list.
    pub(super) fn link(&mut self, slots: &[Slot], idx: u32, list: u16) {
        let (Some(ends), Some(slot)) = (self.lists.get_mut(usize::from(list)), slots.get(idx as usize))
        else {
            return;
        };
        let last = std::mem::replace(&mut ends.last, idx);
        ends.len += 1;
        slot.set_links(NIL, last);
        slot.set_list(list);
        match slots.get(last as usize) {
            Some(before) => before.set_links(idx, before.links().1),
            None => ends.first = idx,
        }
    }

    /// Takes a connection out of its list.
    pub(super) fn unlink(&mut self, slots: &[Slot], idx: u32) {
        let Some(slot) = slots.get(idx as usize) else { return };
        let Some(ends) = self.lists.get_mut(usize::from(slot.list())) else { return };
        let (next, previous) = slot.links();
        match slots.get(previous as usize) {
            Some(before) => before.set_links(next, before.links().1),
            None => ends.first = next,
        }
        match slots.get(next as usize) {
            Some(after) => after.set_links(after.links().0, previous),
            None => ends.last = previous,
        }
        ends.len -= 1;
    }

    /// The first of a queue.
    pub(super) fn first_of_queue(&self, queue: usize) -> u32 {
        self.lists.get(N_SPOKES + queue).map_or(NIL, |ends| ends.first)
    }

    /// The queue to take from: of those that are over, else the longest.
    pub(super) fn fullest_queue(&self) -> Option<usize> {
        let len = |queue: usize| self.lists.get(N_SPOKES + queue).map_or(0, |ends| ends.len);
        if len(0) > 0 {
            return Some(0);
        }
        (1..N_QUEUES).max_by_key(|queue| len(*queue)).filter(|queue| len(*queue) > 0)
    }

    /// The next connection whose spoke has come, if one has: the hand moves on over
    /// empty spokes, `budget` at most.
    pub(super) fn due(&mut self, now: u32, budget: &mut usize) -> Option<u32> {
        let target = now >> SPOKE_SHIFT;
        if !self.is_running {
            (self.hand, self.is_running) = (target, true);
        }
        // Numbers of spokes have 24 bits.
        let behind = |hand: u32| target.wrapping_sub(hand) & (u32::MAX >> SPOKE_SHIFT);
        if behind(self.hand) as usize > N_SPOKES && behind(self.hand) < u32::MAX >> (SPOKE_SHIFT + 1) {
            // A long pause: each spoke is due once.
            self.hand = target.wrapping_sub(N_SPOKES as u32);
        }
        while *budget > 0 {
            let gap = behind(self.hand);
            if gap == 0 || gap > u32::MAX >> (SPOKE_SHIFT + 1) {
                return None;
            }
            *budget -= 1;
            let first = self.lists.get(self.hand as usize % N_SPOKES)?.first;
            if first != NIL {
                return Some(first);
            }
            self.hand = self.hand.wrapping_add(1) & (u32::MAX >> SPOKE_SHIFT);
        }
        None
    }

    /// The list for a connection that the wheel has come to and that goes on: never the
    /// spoke of the hand itself, where it would be found again at once.
    pub(super) fn later_spoke(&self, expires: u32) -> u16 {
        let spoke = self.spoke_of(expires);
        if usize::from(spoke) == self.hand as usize % N_SPOKES {
            ((usize::from(spoke) + N_SPOKES - 1) % N_SPOKES) as u16
        } else {
            spoke
        }
    }

    /// A number that nobody can foresee (xorshift64*).
    pub(super) fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn tell(&mut self, zone: u16, event: impl FnOnce() -> Event) {
        if !self.watched.has(zone) {
            return;
        }
        if self.events.len() >= MAX_EVENTS {
            self.n_lost_events += 1;
            return;
        }
        self.events.push_back(event());
    }

    pub(super) fn fetch_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }
}
