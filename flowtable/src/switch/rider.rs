//! A packet on its way through passes, and what is known of it from those behind it.

use std::rc::Rc;

use super::fragments::Whole;
use crate::{
    conntrack::{self, Conntrack, Tuple, Verdict, View},
    drop::DropReason,
    key::FlowKey,
    packet::{FrameBuf, Packet},
    parse::parse,
    pipeline::{self, Frozen},
    program::CtPass,
    types::Timestamp,
};

/// A packet at the beginning of a pass.
pub(super) struct Rider<B> {
    pub(super) packet: Packet<B>,
    pub(super) depth: usize,
    /// What the tracker sees of it, where that is known.
    pub(super) view: Option<View>,
    /// It is a fragment of this packet.
    pub(super) whole: Option<Rc<Whole>>,
    /// How it was last translated.
    pub(super) translated: Option<Translated>,
}

/// A translation that a packet has behind it. In the same zone it belongs to the same
/// connection still, although that knows it by other addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Translated {
    zone: u16,
    /// How the tracker saw it.
    before: View,
    after: Tuple,
}

impl Translated {
    /// How the tracker knows a packet that looks like this.
    pub(super) fn known(this: Option<Self>, zone: u16, view: &View) -> Option<View> {
        this.filter(|this| this.zone == zone && this.after == view.tuple).map(|this| this.before)
    }
}

impl<B: FrameBuf> Rider<B> {
    /// A packet as it came.
    pub(super) fn fresh(packet: Packet<B>) -> Self {
        Self { packet, depth: 1, view: None, whole: None, translated: None }
    }

    /// Makes of the key of a pass that of the next one.
    pub(super) fn finish_pass(
        &mut self,
        (pass, next): (&CtPass, &Frozen),
        verdict: &Verdict,
        is_changed: bool,
        key: &mut FlowKey,
    ) -> Result<(), DropReason> {
        if is_changed {
            let mut frame = FlowKey::zero();
            parse(&mut self.packet, &mut frame)?;
            frame.set_frame_len(self.packet.wire_len());
            next.take_frame(key, &frame);
        }
        next.restore(key);
        key.recirc_id.set(pass.recirc_id);
        if next.knows_connection() {
            pipeline::set_connection(key, pass.request.zone, verdict);
        }
        Ok(())
    }

    /// Does to the packet what the tracker says; answers whether it did something.
    pub(super) fn translate(
        &mut self,
        tracker: &Conntrack,
        (now, request, view): (Timestamp, &conntrack::Request, &View),
        verdict: &Verdict,
    ) -> Result<bool, DropReason> {
        let mut is_changed = false;
        if verdict.alg.is_some() && self.whole.is_none() {
            let change = tracker.help((now, request), (view, verdict), &self.packet)?;
            if let Some(change) = &change {
                tracker.change(request, view, change, &mut self.packet)?;
                is_changed = true;
            }
        }
        if let Some(new) = &verdict.rewrite {
            let segment_len = self.whole.as_ref().map(|whole| whole.segment_len);
            conntrack::rewrite_part(&mut self.packet, view, new, segment_len)?;
            // Of an error, what it quotes has changed too; of a segment, the numbers.
            let is_plain = new.inner.is_none() && new.shift == conntrack::Shift::default() && !is_changed;
            let tuple = Tuple { zone: 0, ..new.outer };
            self.translated = Some(Translated { zone: request.zone, before: *view, after: tuple });
            self.view = is_plain.then_some(View { tuple, ..*view });
            is_changed = true;
        }
        Ok(is_changed)
    }
}
