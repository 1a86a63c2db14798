//! Groups: several ways for a packet, and how to choose among them.
//!
//! A group is part of the [`Tables`](crate::table::Tables) and changes with them. Which
//! groups may be there is decided in `table/groups.rs`, what they do to a packet in
//! `pipeline/group.rs`, which bucket a packet gets in `pipeline/select.rs`.

use std::sync::Arc;

use crate::{
    field::Field,
    flow::{Action, RuleStats},
    types::{BucketId, GroupId, PortNo, Timestamp},
};

/// A group.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// How its buckets are used.
    pub kind: GroupKind,
    /// Its buckets, in order.
    pub buckets: Vec<Bucket>,
    /// Packets that came to it.
    pub stats: Arc<RuleStats>,
    /// When it was added. The transaction that adds the group sets it.
    pub born: Timestamp,
}

/// How a group uses its buckets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupKind {
    /// A copy to each bucket.
    All,
    /// One bucket, by a hash of the packet.
    Select(Selection),
    /// The only bucket there is.
    Indirect,
    /// The first bucket that is live.
    FastFailover,
}

/// What decides about the bucket of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// How the hash is made.
    pub method: SelectionMethod,
    /// A seed of the hash; with `dp_hash`, 1 asks for a hash that is the same for both
    /// directions.
    pub param: u64,
    /// Fields to hash, with the bits that matter; none: addresses, protocol and ports.
    pub fields: Vec<(Field, u128)>,
}

/// How the hash of a select group is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelectionMethod {
    /// As the switch likes: addresses, protocol and ports.
    #[default]
    Default,
    /// Of the given fields.
    Hash,
    /// Of addresses, protocol and ports.
    DpHash,
}

/// One way for a packet.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its number, unique in the group.
    pub id: BucketId,
    /// Its share of the packets of a select group, relative to the others; 0: none.
    pub weight: u16,
    /// It is live while this port is up,
    pub watch_port: Option<PortNo>,
    /// or while this group has a live bucket; always, when it watches neither.
    pub watch_group: Option<GroupId>,
    /// An action set: see `flow/action_set.rs` for the order of execution.
    pub actions: Vec<Action>,
    /// Packets that came to it.
    pub stats: Arc<RuleStats>,
}

impl Group {
    /// A group without packets so far.
    pub fn new(id: GroupId, kind: GroupKind, buckets: Vec<Bucket>) -> Self {
        Self { id, kind, buckets, stats: Arc::default(), born: Timestamp::default() }
    }

    /// The bucket with this number.
    pub fn bucket(&self, id: BucketId) -> Option<&Bucket> {
        self.buckets.iter().find(|bucket| bucket.id == id)
    }
}

/// The same group, whatever its statistics.
impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.kind == other.kind && self.buckets == other.buckets
    }
}

impl Eq for Group {}

impl Bucket {
    /// A bucket of weight 1 that watches nothing.
    pub fn new(id: BucketId, actions: Vec<Action>) -> Self {
        Self { id, weight: 1, watch_port: None, watch_group: None, actions, stats: Arc::default() }
    }

    /// Whether it is live depends on something.
    pub fn is_watching(&self) -> bool {
        self.watch_port.is_some() || self.watch_group.is_some()
    }
}

/// The same bucket, whatever its statistics.
impl PartialEq for Bucket {
    fn eq(&self, other: &Self) -> bool {
        let plain = |bucket: &Self| (bucket.id, bucket.weight, bucket.watch_port, bucket.watch_group);
        plain(self) == plain(other) && self.actions == other.actions
    }
}

impl Eq for Bucket {}
