//! The parts of a chain of descriptors. The guest has written them, and may be writing them
//! still: each is read once, and what is done is bounded whatever they say.

use super::fault::Fault;
use crate::sys::vring::{Descriptor, RingMemory};

/// Most descriptors of what is one frame. A driver may make a chain as long as the ring, but a
/// frame of 64 KiB in pieces of 64 bytes is more than any makes.
pub(super) const MAX_PARTS: usize = 1024;
const DESCRIPTOR_LEN: u32 = size_of::<Descriptor>() as u32;

/// A piece of the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) addr: u64,
    pub(super) len: u32,
}

/// Which way a chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// We read it.
    FromGuest,
    /// We write it.
    ToGuest,
}

/// Adds the parts of a chain; answers how many bytes they have together.
#[inline]
pub(super) fn collect(
    ring: &RingMemory,
    head: u16,
    direction: Direction,
    parts: &mut Vec<Part>,
) -> Result<u64, Fault> {
    let first = ring.descriptor(head);
    if first.is_indirect() {
        collect_table(ring, &first, direction, parts)
    } else if first.has_next() {
        collect_chain(ring, first, direction, parts)
    } else {
        add(&first, direction, parts)
    }
}

/// The same of a chain of several, from its first one on.
fn collect_chain(
    ring: &RingMemory,
    first: Descriptor,
    direction: Direction,
    parts: &mut Vec<Part>,
) -> Result<u64, Fault> {
    // Numbers that are too large start over, so each step is within the ring; a loop meets the
    // bound.
    let mut next = Some(first);
    let follow = |descriptor: &Descriptor| ring.descriptor(descriptor.next);
    let mut total = 0;
    let longest = MAX_PARTS.min(ring.size().into());
    let mut n_steps = 0;
    while let Some(descriptor) = next {
        n_steps += 1;
        if n_steps > longest {
            return Err(Fault::Endless(longest));
        }
        if descriptor.is_indirect() {
            return Err(Fault::Table(descriptor.len));
        }
        total += add(&descriptor, direction, parts)?;
        next = descriptor.has_next().then(|| follow(&descriptor));
    }
    Ok(total)
}

/// The same of a chain that is in a table of its own.
fn collect_table(
    ring: &RingMemory,
    table: &Descriptor,
    direction: Direction,
    parts: &mut Vec<Part>,
) -> Result<u64, Fault> {
    if table.has_next() || table.len == 0 || !table.len.is_multiple_of(DESCRIPTOR_LEN) {
        return Err(Fault::Table(table.len));
    }
    let n_descriptors = table.len / DESCRIPTOR_LEN;
    let (mut idx, mut total) = (0_u32, 0);
    for _ in 0..MAX_PARTS {
        if idx >= n_descriptors {
            return Err(Fault::Table(table.len));
        }
        let addr = table.addr.wrapping_add(u64::from(idx * DESCRIPTOR_LEN));
        let mut bytes = [0; DESCRIPTOR_LEN as usize];
        if !ring.memory().read(addr, &mut bytes) {
            return Err(Fault::Outside(addr));
        }
        let descriptor = Descriptor::of(bytes);
        if descriptor.is_indirect() {
            return Err(Fault::Table(table.len));
        }
        total += add(&descriptor, direction, parts)?;
        if !descriptor.has_next() {
            return Ok(total);
        }
        idx = descriptor.next.into();
    }
    Err(Fault::Endless(MAX_PARTS))
}

#[inline]
fn add(descriptor: &Descriptor, direction: Direction, parts: &mut Vec<Part>) -> Result<u64, Fault> {
    if descriptor.is_writable() != (direction == Direction::ToGuest) {
        return Err(Fault::Direction);
    }
    if parts.len() >= MAX_PARTS {
        return Err(Fault::Endless(MAX_PARTS));
    }
    // Empty ones too: they count, so that looking at them has an end.
    parts.push(Part { addr: descriptor.addr, len: descriptor.len });
    Ok(descriptor.len.into())
}
