//! The ways to megaflows that need no flow key: the table's part of what [`super::signed`] and
//! [`super::direct`] do.

use super::{
    direct::Direct,
    megaflow::{Handle, Megaflow, Megaflows, State},
    shape::{Shape, port_idx},
    signed::{self, Found, N_LONG, Signed, bits},
};
use crate::{
    hints::prefetch,
    parse::{N_SIGNATURE_WORDS, Signature},
    pipeline::Translation,
    snapshot::Snapshot,
    switch::MAX_BATCH,
    tunnel::Arrival,
    types::{Epoch, PortNo},
};

/// The masks of a port have multiplied.
const MANY_SHAPES: usize = 4;

/// What tells a packet apart by its signature.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Words<'a> {
    /// From a port.
    Port(&'a Signature),
    /// From a tunnel.
    Tunnel(&'a Signature, &'a Arrival),
}

#[derive(Debug)]
pub(super) struct BySignature {
    /// By port number, where masks have multiplied.
    pub(super) direct: Vec<Direct>,
    pub(super) ports: Signed<N_SIGNATURE_WORDS>,
    pub(super) tunnels: Signed<N_LONG>,
}

impl Megaflows {
    /// Packets are found by their signatures as well.
    pub(crate) fn has_signatures(&self) -> bool {
        self.by_signature.is_some()
    }

    /// Number of sessions.
    pub(crate) fn n_sessions(&self) -> usize {
        self.by_signature.as_ref().map_or(0, |by| by.ports.n_sessions() + by.tunnels.n_sessions())
    }

    /// Finds packets of a port by their signatures.
    #[inline]
    pub(crate) fn find_signed(
        &mut self,
        (port, epoch): (PortNo, Epoch),
        select: u32,
        signatures: &[Signature; MAX_BATCH],
    ) -> Found {
        let fetch = |slot: u32| fetch(&self.entries, slot);
        let Some(by) = &mut self.by_signature else { return Found::default() };
        let direct = by.direct.get_mut(port_idx(port)).filter(|direct| direct.is_on(epoch));
        let Some(direct) = direct else {
            return by.ports.find_all(port, select, |idx| &signatures[idx].0, fetch);
        };
        let mut slots = [0; MAX_BATCH];
        let hits = direct.find_all(select, signatures, &mut slots);
        let rest = select & !hits;
        if rest == 0 {
            return Found { slots, by_form: hits, by_session: 0 };
        }
        let mut found = by.ports.find_all(port, rest, |idx| &signatures[idx].0, fetch);
        found.by_form |= hits;
        bits(hits).for_each(|idx| found.slots[idx] = slots[idx]);
        found
    }

    /// A translation of a packet with this signature is to be kept for all packets of its rule:
    /// masks have multiplied, and it follows from the rule alone.
    pub(crate) fn takes_direct(
        &mut self,
        port: PortNo,
        (snapshot, signature): (&Snapshot, &Signature),
        translation: &Translation,
    ) -> bool {
        let n_shapes = self.ports.get(port_idx(port)).map_or(0, |entries| entries.shapes.len());
        let Some(by) = self.by_signature.as_mut().filter(|_| n_shapes >= MANY_SHAPES) else { return false };
        if by.direct.len() <= port_idx(port) {
            by.direct.resize_with(port_idx(port) + 1, Direct::default);
        }
        let old = by.direct[port_idx(port)].begin(snapshot);
        let takes = by.direct[port_idx(port)].takes(signature, translation);
        for handle in old {
            if self.is_present(handle) {
                self.remove(handle.slot);
            }
        }
        takes
    }

    /// Finds packets of a tunnel port by their signatures and what the tunnel said.
    pub(crate) fn find_tunnelled(&mut self, port: PortNo, select: u32, words: &[[u64; N_LONG]]) -> Found {
        let fetch = |slot: u32| fetch(&self.entries, slot);
        let Some(by) = &mut self.by_signature else { return Found::default() };
        by.tunnels.find_all(port, select, |idx| &words[idx], fetch)
    }

    /// Notes that packets like one with this signature, which the entry is for, can be found by
    /// it; `admits` says whether a session may be made for that.
    pub(crate) fn enter(&mut self, handle: Handle, port: PortNo, (words, admits): (Words<'_>, bool)) {
        let entry = self.entries.get(handle.slot as usize).and_then(Option::as_ref);
        let is_signed = entry.is_some_and(|entry| entry.generation == handle.generation && entry.is_signed);
        let Some(by) = self.by_signature.as_mut().filter(|_| is_signed) else { return };
        let Some(place) = self.keys.get(handle.slot as usize) else { return };
        let shapes = self.ports.get(port_idx(port)).map(|entries| &entries.shapes);
        let Some(mask) = shapes.and_then(|shapes| shapes.get(place.shape)).map(Shape::mask) else { return };
        match words {
            Words::Port(signature) => {
                by.ports.enter(port, (handle.slot, admits), &signature.0, signature.mask_for(&mask))
            }
            Words::Tunnel(signature, arrival) => {
                let mask = signed::join(&signature.mask_for(&mask), &Arrival::mask_words(&mask));
                by.tunnels.enter(
                    port,
                    (handle.slot, admits),
                    &signed::tunnelled(signature, &arrival.words()),
                    mask,
                );
            }
        }
    }

    /// The entry in a slot that a lookup by signature has found, and what has become of it since
    /// an epoch.
    #[inline]
    pub(crate) fn look_at(&self, slot: u32, epoch: Epoch) -> Option<(Handle, State)> {
        let entry = self.entries.get(slot as usize)?.as_ref()?;
        Some((Handle { slot, generation: entry.generation }, entry.state(epoch)))
    }
}

/// Fetches what [`Megaflows::look_at`] looks at.
#[inline]
fn fetch(entries: &[Option<Megaflow>], slot: u32) {
    if let Some(entry) = entries.get(slot as usize) {
        prefetch(entry);
    }
}
