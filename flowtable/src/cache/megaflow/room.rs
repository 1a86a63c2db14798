//! Who goes when room is needed: idle entries now and then, and the least recently used ones of a
//! port's queue.

use std::time::Duration;

use super::{Megaflows, NIL, entry::Links};
use crate::{
    cache::shape::port_idx,
    types::{PortNo, Timestamp},
};

/// An entry that carried nothing for this long is forgotten, and with it perhaps the
/// last of its shape.
const MAX_IDLE: Duration = Duration::from_secs(10);
/// Entries that are looked at for idleness at a time: a full table takes a second or so.
const SWEEP_LEN: usize = 64;
/// Time between two looks.
const SWEEP_INTERVAL: Duration = Duration::from_millis(1);
/// Entries in use that are put back before one is evicted all the same.
const SECOND_CHANCES: usize = 8;

impl Megaflows {
    /// Forgets some of the idle entries, when it is time to look for them, and tells the
    /// rules of the others what they do not know yet.
    pub(crate) fn sweep(&mut self, now: Timestamp) {
        if self.entries.is_empty() || now.since(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        for _ in 0..SWEEP_LEN.min(self.entries.len()) {
            self.sweep_at = (self.sweep_at + 1) % self.entries.len();
            let Some(entry) = &mut self.entries[self.sweep_at] else { continue };
            entry.push_stats();
            if now.since(entry.last_used) >= MAX_IDLE {
                self.remove(self.sweep_at as u32);
            }
        }
    }

    /// Limits the entries of each port; 0: to none but the table's size.
    pub(crate) fn limit_ports(&mut self, max: usize) {
        self.max_of_port = if max == 0 { usize::MAX } else { max };
    }

    pub(super) fn is_at_limit(&self, port: PortNo) -> bool {
        self.ports.get(port_idx(port)).is_some_and(|entries| entries.n_entries >= self.max_of_port)
    }

    /// Evicts an entry: one of `port`'s own if it has its share or more, else one of
    /// the port that has most.
    pub(super) fn make_room(&mut self, port: PortNo, now: Timestamp) {
        let own = self.ports[port_idx(port)].n_entries;
        let n_ports = self.n_ports_in_use + usize::from(own == 0);
        let victim = if own > 0 && (own >= self.capacity / n_ports.max(1) || self.is_at_limit(port)) {
            port_idx(port)
        } else {
            let most = self.ports.iter().enumerate().max_by_key(|(_, entries)| entries.n_entries);
            most.map_or(0, |(idx, _)| idx)
        };
        for _ in 0..SECOND_CHANCES {
            let first = self.ports[victim].first;
            let Some(Some(entry)) = self.entries.get(first as usize) else { break };
            if entry.last_used <= entry.queue.joined {
                break;
            }
            self.dequeue(first);
            if let Some(links) = self.links(first) {
                links.joined = now;
            }
            self.enqueue(first);
        }
        self.remove(self.ports[victim].first);
        self.n_evicted += 1;
    }

    fn links(&mut self, slot: u32) -> Option<&mut Links> {
        self.entries.get_mut(slot as usize)?.as_mut().map(|entry| &mut entry.queue)
    }

    /// Puts an entry at the end of its port's queue.
    pub(super) fn enqueue(&mut self, slot: u32) {
        let Some(port) = self.port_of(slot) else { return };
        let last = std::mem::replace(&mut self.ports[port].last, slot);
        if let Some(links) = self.links(slot) {
            (links.before, links.after) = (last, NIL);
        }
        match self.links(last) {
            Some(links) => links.after = slot,
            None => self.ports[port].first = slot,
        }
    }

    /// Takes an entry out of its port's queue.
    pub(super) fn dequeue(&mut self, slot: u32) {
        let Some(port) = self.port_of(slot) else { return };
        let Some(Links { before, after, .. }) = self.links(slot).copied() else { return };
        match self.links(before) {
            Some(links) => links.after = after,
            None => self.ports[port].first = after,
        }
        match self.links(after) {
            Some(links) => links.before = before,
            None => self.ports[port].last = before,
        }
    }

    fn port_of(&self, slot: u32) -> Option<usize> {
        self.keys.get(slot as usize).map(|place| usize::from(place.port))
    }
}
