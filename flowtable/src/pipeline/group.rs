//! What groups do to a packet: copies by the buckets that it gets.

use std::{slice, sync::Arc};

use super::{
    MAX_DEPTH, Tracer,
    action_set::List,
    select,
    walk::{Abort, Frame, Walk},
};
use crate::{
    drop::DropReason,
    flow::action_set,
    group::{Bucket, Group, GroupKind},
    table::MAX_GROUP_CHAIN,
    types::GroupId,
};

impl<'a, T: Tracer> Walk<'a, T> {
    /// Begins with the buckets of a group.
    pub(super) fn begin_group(&mut self, id: GroupId) -> Result<(), Abort> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (rule, depth, nesting) = (frame.rule, frame.depth + 1, frame.nesting);
        if depth > MAX_DEPTH {
            return Err(Abort(DropReason::DepthExceeded));
        }
        let snapshot = self.snapshot;
        let Some(group) = snapshot.tables.group(id) else {
            self.end(DropReason::NoSuchGroup);
            return Ok(());
        };
        self.tally.groups.push(Arc::clone(&group.stats));
        let buckets = match &group.kind {
            GroupKind::All | GroupKind::Indirect => &group.buckets[..],
            GroupKind::FastFailover => {
                let first = group.buckets.iter().find(|bucket| self.is_live(bucket, 0));
                first.map_or(&[][..], slice::from_ref)
            }
            GroupKind::Select(selection) => {
                self.see_payload()?;
                let live: Vec<_> = group.buckets.iter().filter(|bucket| self.is_live(bucket, 0)).collect();
                let seed = u64::from(id.get()) << 32 ^ selection.param;
                let chosen = select::choose(&live, || select::hash(selection, seed, &mut self.key));
                chosen.map_or(&[][..], slice::from_ref)
            }
        };
        self.note(format_args!("group {id}"));
        if buckets.is_empty() && group.kind != GroupKind::All {
            self.end(DropReason::NoLiveBucket);
            return Ok(());
        }
        self.frames.push(Frame { buckets: buckets.iter(), depth, nesting, ..Frame::of(rule, self.n_ends) });
        Ok(())
    }

    /// Begins with a bucket: an action set for a copy of the packet.
    pub(super) fn begin_bucket(&mut self, bucket: &'a Bucket) {
        let Some(frame) = self.frames.last() else { return };
        let (rule, depth, nesting) = (frame.rule, frame.depth, frame.nesting);
        self.tally.groups.push(Arc::clone(&bucket.stats));
        self.note(format_args!("bucket {}", bucket.id));
        let actions = List::Set(action_set::order(bucket.actions.iter()).into_iter());
        let undo = Some(self.save());
        self.frames.push(Frame { actions, depth, nesting, undo, ..Frame::of(rule, self.n_ends) });
    }

    /// A bucket can take packets: what it watches is up. Ports are part of the snapshot, so
    /// a port that changes makes a new epoch, and this needs no bits of the mask.
    fn is_live(&self, bucket: &Bucket, depth: usize) -> bool {
        if !bucket.is_watching() {
            return true;
        }
        let ports = &self.snapshot.ports;
        let is_up = bucket.watch_port.and_then(|port| ports.get(port)).is_some_and(|info| info.up);
        is_up || bucket.watch_group.is_some_and(|id| self.has_live_bucket(id, depth + 1))
    }

    fn has_live_bucket(&self, id: GroupId, depth: usize) -> bool {
        let group: Option<&Arc<Group>> = self.snapshot.tables.group(id).filter(|_| depth <= MAX_GROUP_CHAIN);
        group.is_some_and(|group| group.buckets.iter().any(|bucket| self.is_live(bucket, depth)))
    }
}
