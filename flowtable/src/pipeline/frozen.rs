//! A walk that is put aside while the connection tracker or a controller looks at the packet,
//! and how the next pass goes on with it.
//!
//! Why a second pass may be cached: its megaflows have the frozen walk's id in their
//! mask, so all that the id stands for is as good as compared. It stands for the
//! *scratch* fields as they were (no frame has them, so they follow from the first
//! pass's mask), for what was *written* of those that a received packet can have, and
//! for where to go on. What the tracker says differs from packet to packet, and is in
//! the mask like any header.

use std::{
    hash::{Hash, Hasher},
    mem::offset_of,
    sync::{Arc, LazyLock},
};

use super::action_set::ActionSet;
use crate::{
    conntrack::{Tuple, Verdict},
    field::Field,
    flow::{Action, Match, PuntReason, Rule},
    key::{FlowKey, FlowMask, Tracked},
    types::TableId,
};

/// Passes of one packet through the tables.
pub const MAX_PASSES: usize = 8;

/// A walk that was put aside. Equal ones have the same id, and share their megaflows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frozen {
    /// (index, mask, value) of words of the key.
    words: Box<[(u8, u64, u64)]>,
    pub(super) stack: Box<[u128]>,
    pub(super) action_set: Box<[Written]>,
    /// Queue that outputs use.
    pub(super) queue: Option<u32>,
    /// Mirrors that have a copy: a bit each.
    pub(super) mirrored: u32,
    pub(super) start: Start,
    /// Why it sends to controllers where rules do not say.
    pub(super) reason: PuntReason,
}

/// Where the next pass begins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Start {
    /// In a table, knowing the connection.
    Table(TableId),
    /// With what is left of the rules under way, innermost first; what was known of the
    /// connection before is known again.
    Rest {
        rests: Vec<Rest>,
        /// The action set is not executed behind them.
        within_clone: bool,
    },
}

/// An action of the action set, and the rule that wrote it.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) action: Action,
    pub(super) rule: Arc<Rule>,
}

impl PartialEq for Written {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rule, &other.rule) && self.action == other.action
    }
}

impl Eq for Written {}

impl Hash for Written {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (Arc::as_ptr(&self.rule), &self.action).hash(state);
    }
}

/// What is left of a rule's actions.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    pub(super) rule: Arc<Rule>,
    pub(super) actions: Vec<Action>,
    pub(super) goto: Option<TableId>,
}

impl PartialEq for Rest {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rule, &other.rule) && self.actions == other.actions && self.goto == other.goto
    }
}

impl Eq for Rest {}

impl Hash for Rest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (Arc::as_ptr(&self.rule), &self.actions, self.goto).hash(state);
    }
}

/// Fields by what they are to a frozen walk.
struct Parts {
    /// In no received packet.
    scratch: FlowMask,
    /// Not in a frame, but perhaps received with it.
    metadata: FlowMask,
    /// In a frame.
    frame: FlowMask,
}

static PARTS: LazyLock<Parts> = LazyLock::new(|| {
    let mut parts =
        Parts { scratch: FlowMask::empty(), metadata: FlowMask::empty(), frame: FlowMask::empty() };
    let headers = offset_of!(FlowKey, eth_dst)..offset_of!(FlowKey, ct_mark);
    let received = offset_of!(FlowKey, ct_mark)..offset_of!(FlowKey, metadata);
    for field in Field::ALL {
        let offset = field.info().offset;
        let options = offset >= offset_of!(FlowKey, tun_metadata_present);
        let part = match field {
            Field::RecircId => continue,
            Field::InPort => &mut parts.metadata,
            _ if headers.contains(&offset) => &mut parts.frame,
            _ if received.contains(&offset) || options => &mut parts.metadata,
            _ => &mut parts.scratch,
        };
        part.add(*field, field.all_bits());
    }
    parts
});

impl Frozen {
    /// Reads the scratch fields: what is frozen decides about the next pass. The stack,
    /// the action set, the queue and the mirrors follow from what has been read already.
    pub(super) fn new(
        key: &mut Tracked,
        (stack, action_set, queue, mirrored): (&[u128], &ActionSet<'_>, Option<u32>, u32),
        start: Start,
    ) -> Self {
        let parts = &*PARTS;
        for (idx, mask) in parts.scratch.words().iter().enumerate().filter(|(_, mask)| **mask != 0) {
            key.read_word(idx, *mask);
        }
        let words = key.peek().words().iter().enumerate().filter_map(|(idx, value)| {
            let mask = parts.scratch.words()[idx] | parts.metadata.words()[idx] & key.written().words()[idx];
            (mask != 0).then_some((idx as u8, mask, value & mask))
        });
        let written = |(action, rule): &(&Action, &Arc<Rule>)| Written {
            action: (*action).clone(),
            rule: Arc::clone(rule),
        };
        let (stack, action_set) = (stack.into(), action_set.iter().map(written).collect());
        Self { words: words.collect(), stack, action_set, queue, mirrored, start, reason: PuntReason::Action }
    }

    /// Nothing is known yet, and it begins there.
    pub(super) fn at(start: Start, reason: PuntReason) -> Self {
        let (words, stack, action_set) = (Box::default(), Box::default(), Box::default());
        Self { words, stack, action_set, queue: None, mirrored: 0, start, reason }
    }

    /// Gives a key the frame fields of the packet as it is now. The rest stays as it was in
    /// the pass before; [`Frozen::restore`] puts back what the walk wrote of it.
    pub(crate) fn take_frame(&self, key: &mut FlowKey, frame: &FlowKey) {
        let frame_words = PARTS.frame.words().iter().zip(frame.words());
        for (word, (mask, new)) in key.words_mut().iter_mut().zip(frame_words) {
            *word = *word & !mask | new & mask;
        }
    }

    /// Puts back what was frozen.
    pub(crate) fn restore(&self, key: &mut FlowKey) {
        for (idx, mask, value) in &self.words {
            if let Some(word) = key.words_mut().get_mut(usize::from(*idx)) {
                *word = *word & !mask | value;
            }
        }
    }

    /// The next pass knows what the tracker says.
    pub(crate) fn knows_connection(&self) -> bool {
        matches!(self.start, Start::Table(_))
    }
}

/// A field with bits in a frame that a match names, if it names one.
pub(crate) fn frame_field(matching: &Match) -> Option<Field> {
    let in_frame = |bits: &FlowMask| {
        matching.words().iter().any(|word| bits.words()[usize::from(word.idx)] & word.mask != 0)
    };
    let bits_of = |field: &&Field| {
        let mut bits = FlowMask::empty();
        bits.add(**field, field.all_bits());
        bits
    };
    if !in_frame(&PARTS.frame) {
        return None;
    }
    Field::ALL
        .iter()
        .filter(|field| PARTS.frame.covers(&bits_of(field)))
        .find(|field| in_frame(&bits_of(field)))
        .copied()
}

/// Fills in what the tracker says.
pub(crate) fn set_connection(key: &mut FlowKey, zone: u16, verdict: &Verdict) {
    key.ct_state.set(verdict.state);
    key.ct_zone.set(zone);
    key.ct_mark.set(verdict.mark);
    key.ct_label.set(verdict.label);
    let none = Tuple { zone: 0, ipv6: false, proto: 0, src: 0, dst: 0, src_port: 0, dst_port: 0 };
    let tuple = verdict.original.unwrap_or(none);
    let (v4, v6) =
        if tuple.ipv6 { ((0, 0), (tuple.src, tuple.dst)) } else { ((tuple.src, tuple.dst), (0, 0)) };
    (key.ct_nw_src, key.ct_nw_dst) = ((v4.0 as u32).into(), (v4.1 as u32).into());
    (key.ct_ipv6_src, key.ct_ipv6_dst) = (v6.0.into(), v6.1.into());
    let (src_port, dst_port) = tuple.key_ports();
    (key.ct_tp_src, key.ct_tp_dst) = (src_port.into(), dst_port.into());
    key.ct_nw_proto = tuple.proto;
}
