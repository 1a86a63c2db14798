//! What the entries have carried, told to their rules and to commands.

use super::{Megaflow, MegaflowDump, Megaflows, SlotKey};

/// Entries that are told of or asked about at a time, while packets wait.
const SLICE: usize = 128;

impl Megaflows {
    /// Brings the counters of some rules up to date: those of the entries from a slot on. Answers
    /// where to go on.
    pub(crate) fn push_stats_from(&mut self, from: usize) -> Option<usize> {
        let slots = self.entries.iter_mut().skip(from).take(SLICE);
        slots.flatten().for_each(Megaflow::push_stats);
        (from + SLICE < self.entries.len()).then_some(from + SLICE)
    }

    /// The entries from a slot on, as many as are told at a time, and where to go on.
    pub(crate) fn dump_from(&self, from: usize) -> (Vec<MegaflowDump>, Option<usize>) {
        let slots = self.keys.iter().zip(&self.entries).skip(from).take(SLICE);
        let dumped = slots.filter_map(|(place, entry)| self.dump_one(place, entry.as_ref()?)).collect();
        (dumped, (from + SLICE < self.entries.len()).then_some(from + SLICE))
    }

    fn dump_one(&self, place: &SlotKey, entry: &Megaflow) -> Option<MegaflowDump> {
        let shape = self.ports.get(usize::from(place.port))?.shapes.get(place.shape)?;
        let inline = place.words.iter().take(usize::from(place.n_words));
        Some(MegaflowDump {
            key: shape.expand(inline.chain(&entry.more_words)),
            mask: shape.mask(),
            program: (*entry.program).clone(),
            rules: entry.rules.clone(),
            n_packets: entry.n_packets,
            n_bytes: entry.n_bytes,
            epoch: entry.epoch,
            last_used: entry.last_used,
            is_stale: !entry.rests_on.hold(),
        })
    }
}
