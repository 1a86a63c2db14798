//! Making and removing connections: everything that needs the ledger.

use std::sync::{TryLockError, atomic::Ordering::Relaxed};

use super::{
    Alg, Conntrack, Event, Nat, NatKind, Request, Rewrite, Shift, TICK_BUDGET, Verdict,
    alg::expect::Expectation,
    kind,
    ledger::{self, Ledger, N_QUEUES},
    millis,
    slot::{Live, Slot},
    timeout::State,
    track::{Begin, nat_bits, set_marks},
    tuple::Tuple,
};
use crate::{drop::DropReason, types::Timestamp, wire::ip_proto};

/// Connections in use that are passed over before a new one is refused.
const MAX_PASSES: usize = 64;

impl Live {
    /// Both sides have spoken, and mean to go on.
    pub(super) fn is_established(&self) -> bool {
        let begins = matches!(self.state, State::TcpSynSent | State::TcpSynRecv | State::SctpInit);
        self.has_replied && !begins && !self.state.is_over()
    }

    /// Nothing is lost when it makes room: nobody has answered, the handshake was never
    /// finished, or it is over.
    fn may_go(&self) -> bool {
        !self.has_replied
            || self.state.is_over()
            || matches!(self.state, State::TcpSynSent | State::TcpSynRecv | State::SctpInit)
    }
}

impl Conntrack {
    /// Makes a connection; nothing when another worker has just made it.
    pub(super) fn commit(
        &self,
        (now, in_port): (u32, u16),
        request: &Request,
        (tuple, hash): (&Tuple, u32),
        begin: &Begin,
        (new, expectation): (&Verdict, Option<&Expectation>),
    ) -> Result<Option<Verdict>, DropReason> {
        let mut ledger = self.ledger();
        if self.find(tuple, hash).is_some() {
            return Ok(None);
        }
        if is_beyond_limit(&ledger, request.zone, in_port) {
            self.counters.n_limited.fetch_add(1, Relaxed);
            return Err(DropReason::CtLimit);
        }
        let kind = kind::USED
            | if tuple.ipv6 { kind::IPV6 } else { 0 }
            | match (expectation, request.alg) {
                (Some(_), _) => kind::RELATED,
                (None, Some(alg)) => alg.kind_for(tuple.proto),
                (None, None) => 0,
            };
        // What is not translated yet may be.
        let may_be = if matches!(request.nat, Some(Nat::New(_))) { kind | kind::SNAT } else { kind };
        let n_slots = if kind::has_extension(may_be, tuple.proto) { 2 } else { 1 };
        if !self.make_room(&mut ledger, now, n_slots) {
            self.counters.n_full.fetch_add(1, Relaxed);
            return Err(DropReason::CtFull);
        }
        let Some((answers, nat_kind)) = self.choose_answers((&mut ledger, now), request, tuple, expectation)
        else {
            self.counters.n_nat_exhausted.fetch_add(1, Relaxed);
            return Err(DropReason::CtNatExhausted);
        };
        let (slots, kind) = (self.slots(), kind | nat_kind);
        let is_extended = kind::has_extension(kind, tuple.proto);
        let (Some(idx), Some(second)) =
            (ledger.take(slots), if is_extended { ledger.take(slots).map(Some) } else { Some(None) })
        else {
            // Room was made above; without it there is none.
            self.counters.n_full.fetch_add(1, Relaxed);
            return Err(DropReason::CtFull);
        };
        let Some(slot) = slots.get(idx as usize) else { return Err(DropReason::CtFull) };
        let extension = second.and_then(|second| Some((second, slots.get(second as usize)?)));
        let policy = request.policy.unwrap_or_else(|| self.policies.of_zone(tuple.zone));
        let expires = now.wrapping_add(self.policies.get(policy, begin.state));
        let mut guard = slot.lock();
        let identity = slot.fill(&[*tuple, answers], kind, in_port, extension);
        slot.set_mark(new.mark);
        slot.set_label(new.label);
        if let (Some((_, second)), Some(expectation)) = (extension, expectation) {
            second.set_master(expectation);
            self.counters.n_related.fetch_add(1, Relaxed);
        }
        match tuple.proto {
            ip_proto::SCTP => slot.set_tags(begin.tags),
            ip_proto::TCP => slot.set_peers(&begin.peers),
            _ => {}
        }
        set_marks(slot, request);
        guard.live = Live { state: begin.state, policy, has_replied: false, was_touched: false, expires };
        guard.write();
        slot.publish(identity);
        let (mark, label) = (slot.mark(), slot.label());
        drop(guard);
        for (direction, tuple) in told_apart(&[*tuple, answers]) {
            let hash = if direction == 0 { hash } else { tuple.hash(&self.secrets) };
            self.index().insert(hash, idx, direction);
        }
        ledger.link(slots, idx, ledger::queue_of(begin.state));
        count(&mut ledger, slot, true);
        self.counters.n_created.fetch_add(1, Relaxed);
        ledger.tell(tuple.zone, || Event::Created(self.describe(slot, now)));
        let rewrite = (nat_kind != 0).then(|| Rewrite {
            outer: answers.reversed(),
            inner: None,
            shift: Shift::default(),
        });
        let state = new.state | nat_bits(kind, 0);
        Ok(Some(Verdict { state, mark, label, rewrite, alg: Alg::of(kind), ..*new }))
    }

    /// The tuple of the answers, such that no other connection has it.
    fn choose_answers(
        &self,
        (ledger, now): (&mut Ledger, u32),
        request: &Request,
        tuple: &Tuple,
        expectation: Option<&Expectation>,
    ) -> Option<(Tuple, u8)> {
        let plain = tuple.reversed();
        let mut stale = Vec::new();
        let mut is_free = |answers: &Tuple| {
            match self.find(answers, answers.hash(&self.secrets)) {
                None => true,
                // One whose time is over does not count, but must go first.
                Some((idx, _))
                    if self.slots().get(idx as usize).is_some_and(|slot| slot.glance().is_over(now)) =>
                {
                    stale.push(idx);
                    true
                }
                Some(_) => false,
            }
        };
        let chosen = match (&request.nat, expectation) {
            (Some(_), Some(expectation)) => expectation.answers(tuple, &mut is_free)?,
            (Some(Nat::New(range)), None) => {
                let found = range.choose(tuple, &self.secrets, || ledger.next_random(), &mut is_free)?;
                let kind = match range.kind {
                    NatKind::Source => kind::SNAT,
                    NatKind::Destination => kind::DNAT,
                };
                // A translation to itself is none.
                (found, if found == plain { 0 } else { kind })
            }
            // A connection between ports of its own may be answered by its own tuple.
            (Some(Nat::Existing) | None, _) => (is_free(&plain) || plain == *tuple).then_some((plain, 0))?,
        };
        for idx in stale {
            self.remove(ledger, idx, now);
            self.counters.n_expired.fetch_add(1, Relaxed);
        }
        Some(chosen)
    }

    /// Sees to it that this many slots are free; false: only established connections are
    /// left.
    fn make_room(&self, ledger: &mut Ledger, now: u32, n_slots: u32) -> bool {
        let slots = self.slots();
        for _ in 0..MAX_PASSES {
            if ledger.n_free() >= n_slots && ledger.n_connections < ledger.limit {
                return true;
            }
            let Some(queue) = ledger.fullest_queue() else { return false };
            let idx = ledger.first_of_queue(queue);
            let Some(slot) = slots.get(idx as usize) else { return false };
            let live = slot.glance();
            if live.is_over(now) {
                self.remove(ledger, idx, now);
                self.counters.n_expired.fetch_add(1, Relaxed);
            } else if !live.may_go() {
                self.settle(ledger, idx, &live);
            } else if live.was_touched && !live.state.is_over() {
                self.spare(ledger, idx);
            } else {
                self.remove(ledger, idx, now);
                self.counters.n_evicted.fetch_add(1, Relaxed);
            }
        }
        ledger.n_free() >= n_slots && ledger.n_connections < ledger.limit
    }

    /// A queued connection that has become one of worth goes to the wheel.
    fn settle(&self, ledger: &mut Ledger, idx: u32, live: &Live) {
        ledger.unlink(self.slots(), idx);
        ledger.link(self.slots(), idx, ledger.later_spoke(live.expires));
    }

    /// A queued connection in use goes to the end of its queue.
    fn spare(&self, ledger: &mut Ledger, idx: u32) {
        let Some(slot) = self.slots().get(idx as usize) else { return };
        let mut guard = slot.lock();
        guard.live.was_touched = false;
        let queue = ledger::queue_of(guard.live.state);
        drop(guard);
        ledger.unlink(self.slots(), idx);
        ledger.link(self.slots(), idx, queue);
    }

    /// Tells that both sides of a connection have spoken.
    pub(super) fn tell_established(&self, now: u32, (idx, direction): (u32, usize), tuple: &Tuple) {
        let mut ledger = self.ledger();
        // It may be gone by now.
        if let Some(slot) = self.slots().get(idx as usize).filter(|_| self.holds(idx, direction, tuple)) {
            ledger.tell(tuple.zone, || Event::Established(self.describe(slot, now)));
        }
    }

    /// Takes a connection out of everything.
    pub(super) fn remove(&self, ledger: &mut Ledger, idx: u32, now: u32) {
        let slots = self.slots();
        let Some(slot) = slots.get(idx as usize).filter(|slot| slot.is_connection()) else { return };
        let guard = slot.lock();
        ledger.tell(slot.zone(), || Event::Removed(self.describe_locked(slot, &guard.live, now)));
        let tuples = [self.tuple_of(slot, 0), self.tuple_of(slot, 1)];
        let kind = slot.kind();
        let extension = slot.has_extension().then(|| slot.extension());
        count(ledger, slot, false);
        ledger.unlink(slots, idx);
        slot.clear();
        drop(guard);
        for (direction, tuple) in told_apart(&tuples) {
            self.index().remove(tuple.hash(&self.secrets), idx, direction);
        }
        ledger.give(slots, idx);
        if let Some(second) = extension
            && let Some(slot) = slots.get(second as usize)
        {
            slot.clear();
            ledger.give(slots, second);
        }
        if Alg::of(kind).is_some() {
            self.forget_expectations_of(&tuples[0]);
        }
    }

    /// Removes the connection with this tuple, which the caller has found stale.
    pub(super) fn forget(&self, now: u32, tuple: &Tuple, hash: u32) {
        let mut ledger = self.ledger();
        let Some((idx, _)) = self.find(tuple, hash) else { return };
        let expired = self.slots().get(idx as usize).is_some_and(|slot| slot.glance().is_over(now));
        self.remove(&mut ledger, idx, now);
        let counter = if expired { &self.counters.n_expired } else { &self.counters.n_removed };
        counter.fetch_add(1, Relaxed);
    }

    /// A connection now has a shorter life: gives it its new place.
    pub(super) fn move_on(&self, idx: u32, tuple: &Tuple) {
        let mut ledger = self.ledger();
        let Some(slot) = self.slots().get(idx as usize) else { return };
        if !self.holds(idx, 0, tuple) && !self.holds(idx, 1, tuple) {
            return;
        }
        let live = slot.glance();
        ledger.unlink(self.slots(), idx);
        let list =
            if live.may_go() { ledger::queue_of(live.state) } else { ledger.later_spoke(live.expires) };
        ledger.link(self.slots(), idx, list);
    }

    /// Removes connections whose time is over: some of them, in bounded time. For each
    /// batch; when another worker is at it, it does nothing.
    pub fn tick(&self, now: Timestamp) {
        let mut ledger = match self.ledger.try_lock() {
            Ok(ledger) => ledger,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let now = millis(now);
        let mut budget = TICK_BUDGET;
        for queue in 0..N_QUEUES {
            self.tick_queue(&mut ledger, queue, now, &mut budget);
        }
        budget += TICK_BUDGET;
        while let Some(idx) = ledger.due(now, &mut budget) {
            let Some(slot) = self.slots().get(idx as usize) else { return };
            let live = slot.glance();
            if live.is_over(now) {
                self.remove(&mut ledger, idx, now);
                self.counters.n_expired.fetch_add(1, Relaxed);
            } else {
                self.settle(&mut ledger, idx, &live);
            }
        }
    }

    fn tick_queue(&self, ledger: &mut Ledger, queue: usize, now: u32, budget: &mut usize) {
        while *budget > 0 {
            let idx = ledger.first_of_queue(queue);
            let Some(slot) = self.slots().get(idx as usize) else { return };
            *budget -= 1;
            let live = slot.glance();
            if live.is_over(now) {
                self.remove(ledger, idx, now);
                self.counters.n_expired.fetch_add(1, Relaxed);
            } else if !live.may_go() {
                self.settle(ledger, idx, &live);
            } else if live.was_touched {
                self.spare(ledger, idx);
            } else {
                return;
            }
        }
    }

    /// Makes index, lists and numbers from what is in the slots.
    pub(super) fn take_over(&self) {
        let mut ledger = self.ledger();
        let slots = self.slots();
        ledger.forget_all();
        self.index().clear();
        let n_used = self.storage.used().get().and_then(|n_used| usize::try_from(n_used).ok());
        let used = &slots[..n_used.map_or(slots.len(), |n_used| n_used.min(slots.len()))];
        let mut taken = vec![false; used.len()];
        let mut n_dropped = 0;
        for (idx, slot) in used.iter().enumerate() {
            slot.break_lock();
            if !slot.is_connection() {
                continue;
            }
            if slot.is_changing() {
                slot.clear();
                n_dropped += 1;
                continue;
            }
            let second = slot.has_extension().then(|| slot.extension() as usize);
            let is_extension = |at: usize| {
                used.get(at).is_some_and(|slot| slot.kind() == kind::USED | kind::EXTENSION) && !taken[at]
            };
            let tuples = match second.is_none_or(is_extension) {
                true => [self.tuple_of(slot, 0), self.tuple_of(slot, 1)],
                false => {
                    slot.clear();
                    n_dropped += 1;
                    continue;
                }
            };
            let hashes = tuples.map(|tuple| tuple.hash(&self.secrets));
            // Two of the same cannot be; one of them is damaged.
            if self.find(&tuples[0], hashes[0]).is_some() || self.find(&tuples[1], hashes[1]).is_some() {
                slot.clear();
                n_dropped += 1;
                continue;
            }
            taken[idx] = true;
            if let Some(second) = second {
                taken[second] = true;
            }
            for (direction, _) in told_apart(&tuples) {
                self.index().insert(hashes[direction], idx as u32, direction);
            }
            let live = slot.glance();
            let list =
                if live.may_go() { ledger::queue_of(live.state) } else { ledger.spoke_of(live.expires) };
            ledger.link(slots, idx as u32, list);
            count(&mut ledger, slot, true);
        }
        let n_used = taken.iter().rposition(|is_taken| *is_taken).map_or(0, |last| last + 1);
        for (idx, slot) in used.iter().enumerate().rev().filter(|(idx, _)| !taken[*idx]) {
            slot.clear();
            if idx < n_used {
                ledger.give(slots, idx as u32);
            }
        }
        ledger.give_fresh(slots, n_used as u32);
        self.counters.n_damaged.fetch_add(n_dropped, Relaxed);
    }
}

/// The directions that packets can be told apart by. Where somebody speaks to itself by the same port, what it
/// says and what it answers look the same, and all of it is the first.
fn told_apart(tuples: &[Tuple; 2]) -> impl Iterator<Item = (usize, &Tuple)> {
    let n = if tuples[0] == tuples[1] { 1 } else { 2 };
    tuples.iter().enumerate().take(n)
}

fn is_beyond_limit(ledger: &Ledger, zone: u16, in_port: u16) -> bool {
    let own = (!ledger.zone_limits.is_empty()).then(|| ledger.zone_limits.get(&zone)).flatten();
    let zone_limit = own.copied().unwrap_or(ledger.default_zone_limit);
    ledger.zones.of(zone) >= zone_limit || ledger.ports.of(in_port) >= ledger.port_limit
}

/// Counts a connection in or out.
fn count(ledger: &mut Ledger, slot: &Slot, comes: bool) {
    let n = &mut ledger.n_connections;
    *n = if comes { *n + 1 } else { n.saturating_sub(1) };
    ledger.zones.count(slot.zone(), comes);
    ledger.ports.count(slot.in_port(), comes);
}
