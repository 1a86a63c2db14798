//! The short way of a packet to its connection: for most packets, which belong to one that
//! is there, change nothing about it but its numbers and its time, and leave as they came.

use std::sync::atomic::Ordering::Relaxed;

use super::{
    Conntrack, L4, Tuple, Verdict, View, kind, millis,
    slot::{Guard, Live, Slot},
    tcp,
    track::without_numbers,
};
use crate::{key::ct_state, types::Timestamp};

/// What such a packet has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Bits of [`ct_state`].
    pub(crate) state: u16,
    pub(crate) mark: u32,
    pub(crate) label: u128,
    slot: u32,
    direction: usize,
}

/// Where the connection of a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) slot: u32,
    /// 0 for its originator's packets.
    pub(crate) direction: u8,
    /// It translates the packet.
    pub(crate) translates: bool,
    /// What the slot is marked as: zone, protocol, kind.
    pub(crate) identity: u32,
}

/// Addresses and ports of a packet over IPv4 as a slot has them, and of the answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Directions {
    pub(crate) own: (u64, u32),
    pub(crate) answer: (u64, u32),
}

/// Why a packet was not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untouched {
    /// It belongs to no connection that is there.
    Unknown,
    /// It takes the long way.
    Other,
}

impl Conntrack {
    /// What [`Conntrack::track`] says of a packet that is looked up in a zone, and translated
    /// if its connection is and this `translates`; or nothing is done. `likely` is what
    /// [`Conntrack::fetch`] said.
    ///
    /// # Errors
    /// The packet is none of those that this is for.
    #[inline]
    pub(crate) fn touch(
        &self,
        now: Timestamp,
        (zone, translates): (u16, bool),
        view: &View,
        (hash, likely): (u32, Option<(u32, usize)>),
    ) -> Result<Touched, Untouched> {
        if matches!(view.l4, L4::Invalid | L4::Error { .. } | L4::Sctp { .. }) {
            return Err(Untouched::Other);
        }
        let tuple = Tuple { zone, ..view.tuple };
        let (idx, direction, slot, guard) = self.grasp(&tuple, hash, likely).ok_or(Untouched::Unknown)?;
        if translates && slot.kind() & (kind::SNAT | kind::DNAT) != 0 {
            return Err(Untouched::Other);
        }
        self.advance((idx, direction, slot, guard), now, &view.l4)
    }

    /// The same for a packet whose connection should be at this place, and translates such packets so that
    /// they become `leaves_as`, or not at all. The zone is in the tuples.
    pub(crate) fn touch_at(
        &self,
        now: Timestamp,
        view: &View,
        place: &Place,
        leaves_as: &Tuple,
    ) -> Option<Touched> {
        let Place { slot: idx, direction, .. } = *place;
        let slot = self.slots().get(idx as usize)?;
        let guard = slot.is_connection().then(|| slot.lock())?;
        let is_it = self.is_at(slot, place, &view.tuple, leaves_as);
        let touched = is_it.then(|| self.advance((idx, usize::from(direction), slot, guard), now, &view.l4));
        touched?.ok()
    }

    /// The same over IPv4, with ports.
    #[inline(always)]
    pub(crate) fn touch_short(
        &self,
        now: Timestamp,
        l4: &L4,
        place: &Place,
        directions: &Directions,
    ) -> Option<Touched> {
        let Place { slot: idx, direction, identity, .. } = *place;
        let slot = self.slots().get(idx as usize)?;
        // What is not of this kind may have other things than a lock in its place.
        let guard = (slot.identity() == identity).then(|| slot.lock())?;
        let direction = usize::from(direction);
        if !slot.is_between(identity, direction, directions) {
            return None;
        }
        self.advance((idx, direction, slot, guard), now, l4).ok()
    }

    /// The place of the connection of packets with this tuple, if it translates them so that they become
    /// `leaves_as`, or not at all.
    pub(crate) fn locate(&self, tuple: &Tuple, leaves_as: &Tuple) -> Option<Place> {
        let (idx, direction, _guard) = self.lookup(tuple, tuple.hash(&self.secrets))?;
        let slot = self.slots().get(idx as usize)?;
        let translates = slot.kind() & (kind::SNAT | kind::DNAT) != 0;
        let (direction, identity) = (direction as u8, slot.identity());
        let place = Place { slot: idx, direction, translates, identity };
        self.is_at(slot, &place, tuple, leaves_as).then_some(place)
    }

    /// Fetches what is in a slot.
    #[inline]
    pub(crate) fn fetch_slot(&self, slot: u32) {
        if let Some(slot) = self.slots().get(slot as usize) {
            slot.prefetch();
        }
    }

    /// Both directions are those of the connection. The slot must be locked.
    fn is_at(&self, slot: &Slot, place: &Place, tuple: &Tuple, leaves_as: &Tuple) -> bool {
        let holds = |direction, tuple: &Tuple| slot.holds(direction, tuple, |slot| self.extension_of(slot));
        let direction = usize::from(place.direction);
        let answered = if place.translates { leaves_as } else { tuple };
        (slot.kind() & (kind::SNAT | kind::DNAT) != 0) == place.translates
            && holds(direction, tuple)
            && holds(1 - direction, &answered.reversed())
    }

    #[inline(always)]
    fn advance(
        &self,
        (idx, direction, slot, mut guard): (u32, usize, &Slot, Guard<'_>),
        now: Timestamp,
        l4: &L4,
    ) -> Result<Touched, Untouched> {
        let (live, now) = (guard.live, millis(now));
        if slot.kind() & (kind::FTP | kind::TFTP | kind::RELATED) != 0 || live.is_over(now) {
            return Err(Untouched::Other);
        }
        let has_replied = live.has_replied || direction == 1;
        // The first answer is something to tell of.
        if has_replied != live.has_replied {
            return Err(Untouched::Other);
        }
        let state = match l4 {
            L4::Tcp(segment) => {
                let mut tcp = tcp::Tcp { state: live.state, peers: slot.peers() };
                let fit = tcp.step(direction, segment, self.check_sequence.load(Relaxed));
                if fit != tcp::Fit::Valid || tcp.state != live.state {
                    return Err(Untouched::Other);
                }
                slot.set_peers(&tcp.peers);
                tcp.state
            }
            l4 => without_numbers(l4, has_replied).ok_or(Untouched::Other)?,
        };
        let expires = now.wrapping_add(self.policies.get(live.policy, state));
        guard.live = Live { state, has_replied, was_touched: true, expires, ..live };
        let established = if has_replied { ct_state::EST } else { ct_state::NEW };
        let reply = if direction == 1 { ct_state::RPL } else { 0 };
        let state = ct_state::TRK | established | reply;
        Ok(Touched { state, mark: slot.mark(), label: slot.label(), slot: idx, direction })
    }

    /// The connection with this tuple, its slot locked: most often the likely one, which is
    /// not looked at before.
    #[inline]
    fn grasp(
        &self,
        tuple: &Tuple,
        hash: u32,
        likely: Option<(u32, usize)>,
    ) -> Option<(u32, usize, &Slot, Guard<'_>)> {
        if let Some((idx, direction)) = likely
            && let Some(slot) = self.slots().get(idx as usize)
            && slot.is_connection()
        {
            let guard = slot.lock();
            if slot.holds(direction, tuple, |slot| self.extension_of(slot)) {
                return Some((idx, direction, slot, guard));
            }
        }
        let (idx, direction, guard) = self.lookup(tuple, hash)?;
        Some((idx, direction, self.slots().get(idx as usize)?, guard))
    }

    /// All that there is to say to a packet that was touched, unless its connection has gone
    /// since.
    pub(crate) fn verdict_of(&self, zone: u16, view: &View, touched: &Touched) -> Option<Verdict> {
        let Touched { state, mark, label, slot, direction } = *touched;
        let own = Tuple { zone, ..view.tuple };
        let original = if direction == 0 {
            own
        } else {
            let slot = self.slots().get(slot as usize)?;
            let _guard = slot.lock();
            self.holds(touched.slot, direction, &own).then(|| self.tuple_of(slot, 0))?
        };
        Some(Verdict { state, mark, label, original: Some(original), rewrite: None, alg: None })
    }
}
