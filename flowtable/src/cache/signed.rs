//! Megaflows by signature: the way to an entry that needs no flow key.
//!
//! A megaflow's mask, as far as received frames can differ in it, mostly lies within what a
//! [`Signature`] says. Such a megaflow is entered here as well, with its mask put in the
//! terms of signatures (a *form*), once a packet with a signature has been found by its key.
//! A packet is then compared with the entry straight from the cache line that its signature
//! is. Of a packet from a tunnel, [`TunnelWords`] are part of that.
//!
//! Few forms are tried one after the other: one of a single entry by comparing, others by a
//! hash of the masked words. Where a port has more of them, [`Sessions`] lead to the entry.
//! Both only guess; what decides is [`Form::suits`].
//!
//! # Invariants
//! - A line's words are a signature under the mask of its form; its form has entries as long
//!   as the line is in use.
//! - Packets that agree in a form's mask agree in the mask of each megaflow of the form.

use std::{mem::offset_of, ops::Range};

use super::{Secrets, bytes_of, fold, index::Index, session::Sessions};
use crate::{
    hints::prefetch,
    key::{FlowKey, FlowMask, N_WORDS},
    parse::{N_SIGNATURE_WORDS, Signature},
    switch::MAX_BATCH,
    types::PortNo,
};

/// Words beside the signature of packets from tunnels, as in [`TUNNEL_WORDS`].
pub(crate) type TunnelWords = [u64; TUNNEL_WORDS.len()];

/// Their places in a key: tunnel key, outer IPv4 addresses, which Geneve option fields
/// there are, and the first two of them.
const TUNNEL_WORDS: [usize; 4] = [
    offset_of!(FlowKey, tun_id) / 8,
    offset_of!(FlowKey, tun_src) / 8,
    offset_of!(FlowKey, tun_metadata_present) / 8,
    offset_of!(FlowKey, tun_metadata) / 8,
];

/// Words of a packet from a tunnel.
pub(crate) const N_LONG: usize = N_SIGNATURE_WORDS + TUNNEL_WORDS.len();

/// Forms of a port that are tried one after the other, before sessions are worth their memory
/// accesses.
pub(crate) const FEW_FORMS: usize = 2;
/// Lookups, of up to a batch each, after which a port's forms are sorted by their hits.
const SORT_AFTER: u32 = 64;
/// No slot.
pub(crate) const NIL: u32 = u32::MAX;
/// The word of a line whose upper half no signature uses: it tells the form.
const FORM_WORD: usize = 3;

/// Words on cache lines of their own.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line<const N: usize>([u64; N]);

const _: () = assert!(size_of::<Line<N_SIGNATURE_WORDS>>() == 64);

/// A mask in terms of signatures.
#[derive(Debug)]
struct Form<const N: usize> {
    mask: Line<N>,
    /// What the lines of its entries have in [`FORM_WORD`] besides.
    tag: u64,
    n_entries: u32,
    /// Slot of its entry, when there is one.
    only: u32,
    n_hits: u32,
}

/// The forms of a port.
#[derive(Debug, Default)]
struct Forms<const N: usize> {
    /// By id; ids stay valid while the form has entries.
    by_id: Vec<Option<Form<N>>>,
    /// Ids in the order to try.
    order: Vec<u8>,
    n_lookups: u32,
}

/// What a lookup has found for the packets of a batch.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Slot of each packet that has a bit in one of the others.
    pub(crate) slots: [u32; MAX_BATCH],
    /// Found by a form.
    pub(crate) by_form: u32,
    /// Found by a session.
    pub(crate) by_session: u32,
}

/// The megaflows that can be found by N words of a packet.
#[derive(Debug)]
pub(crate) struct Signed<const N: usize> {
    secrets: Secrets<N>,
    /// By port number.
    ports: Vec<Forms<N>>,
    index: Index,
    /// By slot of the megaflow; unused ones have no form.
    lines: Vec<Line<N>>,
    sessions: Sessions,
}

impl<const N: usize> Signed<N> {
    /// For so many megaflows, of which some have room from the start, and sessions.
    pub(crate) fn new((n_megaflows, n_reserved): (usize, usize), n_sessions: usize, seed: u64) -> Self {
        Self {
            secrets: Secrets::new(seed),
            ports: Vec::new(),
            index: Index::new(n_megaflows),
            lines: Vec::with_capacity(n_reserved),
            sessions: Sessions::new(n_sessions),
        }
    }

    /// The memory of the large tables.
    pub(crate) fn memory(&self) -> [Range<*const u8>; 3] {
        [bytes_of(&self.lines), self.index.memory(), self.sessions.memory()]
    }

    pub(crate) fn n_sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Finds packets of one port, in steps of one memory access each for all of them. `select`
    /// has a bit for each packet that has `words`. `fetch` is told what will be needed of a
    /// slot beyond what is here.
    pub(crate) fn find_all<'a>(
        &mut self,
        port: PortNo,
        select: u32,
        words: impl Fn(usize) -> &'a [u64; N],
        fetch: impl Fn(u32),
    ) -> Found {
        let mut found = Found { slots: [NIL; MAX_BATCH], ..Found::default() };
        let n_forms = self.ports.get(port.get() as usize).map_or(0, |forms| forms.order.len());
        if n_forms > FEW_FORMS {
            found.by_session = self.find_sessions(port, select, &words, &fetch, &mut found.slots);
        }
        found.by_form = self.find_forms(port, select & !found.by_session, &words, &fetch, &mut found.slots);
        if n_forms > FEW_FORMS {
            for idx in bits(found.by_form) {
                self.sessions.insert(self.secrets.hash(words(idx)), found.slots[idx]);
            }
        }
        found
    }

    fn find_sessions<'a>(
        &mut self,
        port: PortNo,
        select: u32,
        words: &impl Fn(usize) -> &'a [u64; N],
        fetch: &impl Fn(u32),
        slots: &mut [u32; MAX_BATCH],
    ) -> u32 {
        let Some(forms) = self.ports.get(port.get() as usize) else { return 0 };
        let mut hashes = [0; MAX_BATCH];
        for idx in bits(select) {
            hashes[idx] = self.secrets.hash(words(idx));
            self.sessions.prefetch(hashes[idx]);
        }
        for idx in bits(select) {
            if let Some(slot) = self.sessions.find(hashes[idx]) {
                slots[idx] = slot;
                self.prefetch_line(slot);
                fetch(slot);
            }
        }
        let mut hits = 0;
        for idx in bits(select) {
            if slots[idx] == NIL {
                continue;
            }
            let line = self.lines.get(slots[idx] as usize);
            if line.is_some_and(|line| forms.of(line).is_some_and(|form| form.suits(line, words(idx)))) {
                hits |= 1 << idx;
            } else {
                self.sessions.forget(hashes[idx]);
            }
        }
        hits
    }

    fn find_forms<'a>(
        &mut self,
        port: PortNo,
        select: u32,
        words: &impl Fn(usize) -> &'a [u64; N],
        fetch: &impl Fn(u32),
        slots: &mut [u32; MAX_BATCH],
    ) -> u32 {
        let Some(forms) = self.ports.get_mut(port.get() as usize).filter(|_| select != 0) else { return 0 };
        let mut pending = select;
        for id in &forms.order {
            let Some(Some(form)) = forms.by_id.get_mut(usize::from(*id)) else { continue };
            let hits = match self.lines.get(form.only as usize) {
                Some(line) => {
                    let slot = form.only;
                    fetch(slot);
                    let suits = |hits, idx| hits | u32::from(form.suits(line, words(idx))) << idx;
                    let hits = bits(pending).fold(0, suits);
                    bits(hits).for_each(|idx| slots[idx] = slot);
                    hits
                }
                None => {
                    form.find_all((&self.secrets, &self.index, &self.lines), pending, words, fetch, slots)
                }
            };
            form.n_hits = form.n_hits.saturating_add(hits.count_ones());
            pending &= !hits;
            if pending == 0 {
                break;
            }
        }
        forms.count();
        select & !pending
    }

    /// Enters a megaflow of this mask, which a packet with these words was found by; and
    /// makes a session for the packet where that helps and is admitted. `mask` is the megaflow's in terms of
    /// such packets.
    pub(crate) fn enter(
        &mut self,
        port: PortNo,
        (slot, admits): (u32, bool),
        words: &[u64; N],
        mask: [u64; N],
    ) {
        if self.lines.get(slot as usize).is_none_or(|line| line.form().is_none()) {
            if self.ports.len() <= port.get() as usize {
                self.ports.resize_with(port.get() as usize + 1, Forms::default);
            }
            let Some(form) = self.ports[port.get() as usize].take(mask, slot) else { return };
            let line = form.line(words);
            self.index.insert(form.hash(words, &self.secrets), slot);
            if self.lines.len() <= slot as usize {
                self.lines.resize(slot as usize + 1, Line([0; N]));
            }
            self.lines[slot as usize] = line;
        }
        if admits && self.ports.get(port.get() as usize).is_some_and(|forms| forms.order.len() > FEW_FORMS) {
            self.sessions.insert(self.secrets.hash(words), slot);
        }
    }

    /// Forgets a megaflow of a port; its sessions go when they are used next.
    pub(crate) fn forget(&mut self, port: PortNo, slot: u32) {
        let Some(line) = self.lines.get_mut(slot as usize) else { return };
        let Some(forms) = self.ports.get_mut(port.get() as usize) else { return };
        if let Some(form) = forms.of(line) {
            self.index.remove(form.hash(&line.0, &self.secrets), slot);
        }
        if let Some(id) = line.form() {
            forms.release(id, slot);
        }
        *line = Line([0; N]);
    }

    #[inline]
    fn prefetch_line(&self, slot: u32) {
        if let Some(line) = self.lines.get(slot as usize) {
            prefetch(line);
        }
    }
}

impl<const N: usize> Line<N> {
    /// The id of its form.
    fn form(&self) -> Option<u8> {
        let tag = self.0[FORM_WORD] >> 32;
        (tag != 0).then_some(tag as u8)
    }
}

impl<const N: usize> Form<N> {
    /// The entry that has this line is for packets with these words.
    #[inline]
    fn suits(&self, line: &Line<N>, words: &[u64; N]) -> bool {
        let mut differing = 0;
        for (idx, ((word, mask), line)) in words.iter().zip(&self.mask.0).zip(&line.0).enumerate() {
            let tag = if idx == FORM_WORD { self.tag } else { 0 };
            differing |= (word & mask | tag) ^ line;
        }
        differing == 0
    }

    /// What [`Form::suits`] compares.
    fn line(&self, words: &[u64; N]) -> Line<N> {
        let mut line = Line(std::array::from_fn(|idx| words[idx] & self.mask.0[idx]));
        line.0[FORM_WORD] |= self.tag;
        line
    }

    /// The hash of the masked words.
    #[inline]
    fn hash(&self, words: &[u64; N], secrets: &Secrets<N>) -> u32 {
        let masked: [u64; N] = std::array::from_fn(|idx| words[idx] & self.mask.0[idx]);
        // Equal words of different forms differ in their hash.
        (secrets.hash(&masked) ^ self.tag >> 28) as u32
    }

    fn find_all<'a>(
        &self,
        (secrets, index, lines): (&Secrets<N>, &Index, &[Line<N>]),
        pending: u32,
        words: &impl Fn(usize) -> &'a [u64; N],
        fetch: &impl Fn(u32),
        slots: &mut [u32; MAX_BATCH],
    ) -> u32 {
        let mut hashes = [0; MAX_BATCH];
        for idx in bits(pending) {
            hashes[idx] = self.hash(words(idx), secrets);
            index.prefetch(hashes[idx]);
        }
        for idx in bits(pending) {
            slots[idx] = index.first(hashes[idx]).unwrap_or(NIL);
            if let Some(line) = lines.get(slots[idx] as usize) {
                prefetch(line);
                fetch(slots[idx]);
            }
        }
        let mut hits = 0;
        let suits =
            |slot: u32, idx| lines.get(slot as usize).is_some_and(|line| self.suits(line, words(idx)));
        for idx in bits(pending) {
            if slots[idx] == NIL || !suits(slots[idx], idx) {
                slots[idx] = index.find(hashes[idx], |slot| suits(slot, idx)).unwrap_or(NIL);
            }
            hits |= u32::from(slots[idx] != NIL) << idx;
        }
        hits
    }
}

impl<const N: usize> Forms<N> {
    /// The form of a line.
    #[inline]
    fn of(&self, line: &Line<N>) -> Option<&Form<N>> {
        self.by_id.get(usize::from((line.0[FORM_WORD] >> 32) as u8))?.as_ref()
    }

    /// The form with this mask, made if there is none; it counts one more entry.
    fn take(&mut self, mask: [u64; N], slot: u32) -> Option<&Form<N>> {
        let same = |form: &Option<Form<N>>| form.as_ref().is_some_and(|form| form.mask.0 == mask);
        let id = self.by_id.iter().position(same).or_else(|| {
            let free = self.by_id.iter().position(Option::is_none).unwrap_or(self.by_id.len());
            let id = u8::try_from(free).ok()?;
            let tag = (1 << 8 | u64::from(id)) << 32;
            let form = Form { mask: Line(mask), tag, n_entries: 0, only: NIL, n_hits: 0 };
            match self.by_id.get_mut(free) {
                Some(place) => *place = Some(form),
                None => self.by_id.push(Some(form)),
            }
            self.order.push(id);
            Some(free)
        })?;
        let form = self.by_id[id].as_mut()?;
        form.n_entries += 1;
        form.only = if form.n_entries == 1 { slot } else { NIL };
        Some(form)
    }

    /// One entry of the form is gone; the last one takes the form with it.
    fn release(&mut self, id: u8, slot: u32) {
        let Some(place) = self.by_id.get_mut(usize::from(id)) else { return };
        let Some(form) = place else { return };
        form.n_entries -= 1;
        if form.only == slot {
            form.only = NIL;
        }
        if form.n_entries == 0 {
            *place = None;
            self.order.retain(|other| *other != id);
        }
    }

    /// Now and then sorts the busy forms to the front.
    fn count(&mut self) {
        self.n_lookups += 1;
        if self.n_lookups < SORT_AFTER {
            return;
        }
        self.n_lookups = 0;
        let by_id = &mut self.by_id;
        let hits = |id: &u8| by_id[usize::from(*id)].as_ref().map_or(0, |form| form.n_hits);
        self.order.sort_by_key(|id| std::cmp::Reverse(hits(id)));
        by_id.iter_mut().flatten().for_each(|form| form.n_hits /= 2);
    }
}

/// The places of the bits that are set.
#[inline]
pub(crate) fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let idx = set.trailing_zeros() as usize;
        let some = set != 0;
        set &= set.wrapping_sub(1);
        some.then_some(idx % MAX_BATCH)
    })
}

/// Packets with a signature, and with [`TunnelWords`] when they are from a tunnel, say all
/// bits of this mask that a received packet can have.
pub(super) fn covers(mask: &FlowMask) -> bool {
    let outer = offset_of!(FlowKey, tun_tos) / 8..offset_of!(FlowKey, metadata) / 8;
    let options = offset_of!(FlowKey, tun_metadata_present) / 8..N_WORDS;
    let left_out = |idx: &usize| mask.words()[*idx] != 0 && !TUNNEL_WORDS.contains(idx);
    Signature::covers(mask) && !outer.chain(options).any(|idx| left_out(&idx))
}

/// All that is compared of a packet from a tunnel.
pub(crate) fn tunnelled(signature: &Signature, tunnel: &TunnelWords) -> [u64; N_LONG] {
    join(&signature.0, tunnel)
}

/// Words of a signature, or a mask of them, and those of a tunnel.
pub(crate) fn join(signature: &[u64; N_SIGNATURE_WORDS], tunnel: &TunnelWords) -> [u64; N_LONG] {
    std::array::from_fn(|idx| match signature.get(idx) {
        Some(word) => *word,
        None => tunnel[idx - N_SIGNATURE_WORDS],
    })
}

impl<const N: usize> Secrets<N> {
    /// The hash of words.
    #[inline]
    fn hash(&self, words: &[u64; N]) -> u64 {
        let mut sum = 0_u64;
        for (pair, secrets) in words.chunks_exact(2).zip(self.0.chunks_exact(2)) {
            sum = sum.wrapping_add(fold(pair[0] ^ secrets[0], pair[1] ^ secrets[1]));
        }
        fold(sum, self.0[0] | 1)
    }
}
