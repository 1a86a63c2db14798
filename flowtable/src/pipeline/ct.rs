//! The `ct` action: a copy goes to the connection tracker, and perhaps on from there.

use std::sync::Arc;

use super::{
    MAX_EMITS, Tracer,
    frozen::{Frozen, Start},
    walk::{Abort, Walk},
    write::holds,
};
use crate::{
    conntrack::Request,
    drop::DropReason,
    field::{Field, Prerequisites},
    flow::{Action, Ct, CtZone},
    program::{CtPass, Emit},
    types::PortNo,
};

/// What `ct_clear` forgets.
const CT_FIELDS: [Field; 11] = [
    Field::CtState,
    Field::CtZone,
    Field::CtMark,
    Field::CtLabel,
    Field::CtNwProto,
    Field::CtNwSrc,
    Field::CtNwDst,
    Field::CtIpv6Src,
    Field::CtIpv6Dst,
    Field::CtTpSrc,
    Field::CtTpDst,
];

impl<T: Tracer> Walk<'_, T> {
    /// Tracks the packet as it is now.
    ///
    /// With a table, a copy goes on there and this walk goes on; it no longer knows of a
    /// connection (ovs-actions(7), `ct`). A translation without a table changes what the
    /// actions behind see, so they wait for it.
    pub(super) fn ct(&mut self, ct: &Ct) -> Result<(), Abort> {
        self.see_payload()?;
        if !holds(&mut self.key, Prerequisites::Ip) {
            self.note(format_args!("the packet is not IP: not tracked"));
            return Ok(());
        }
        if self.emits.len() >= MAX_EMITS {
            return Err(Abort(DropReason::TooManyOutputs));
        }
        let request = self.request(ct)?;
        let start = match (ct.table, ct.nat) {
            (Some(table), _) => Some(Start::Table(table)),
            (None, Some(_)) => {
                let (rests, within_clone) = self.put_aside();
                Some(Start::Rest { rests, within_clone })
            }
            (None, None) => None,
        };
        let is_rest = matches!(start, Some(Start::Rest { .. }));
        if is_rest {
            self.ct_clear();
        }
        let next = start.map(|start| {
            let kept = (&self.stack[..], &self.action_set, self.queue, self.mirrored);
            Arc::new(Frozen::new(&mut self.key, kept, start))
        });
        if is_rest {
            // It is executed behind the rest, in the next pass.
            self.clear_actions();
        }
        match (&next, ct.table) {
            (Some(_), Some(table)) => {
                self.note(format_args!("tracked in zone {}, goes on in table {table}", request.zone));
            }
            (Some(_), None) => {
                self.note(format_args!("tracked in zone {}, goes on with its actions", request.zone));
            }
            (None, _) => self.note(format_args!("tracked in zone {}", request.zone)),
        }
        let goes_on = next.is_some();
        let pass = CtPass { request, next, recirc_id: 0 };
        let queue = self.queue.take();
        let emit = Emit { ct: Some(Arc::new(pass)), ..self.copy_for(PortNo::ZERO, None) };
        self.queue = queue;
        if goes_on {
            self.emit(emit);
        } else {
            self.emits.push(emit);
        }
        self.ct_clear();
        Ok(())
    }

    /// Forgets what the tracker said.
    pub(super) fn ct_clear(&mut self) {
        for field in CT_FIELDS {
            self.key.write(field, 0);
        }
    }

    fn request(&mut self, ct: &Ct) -> Result<Request, Abort> {
        let zone = match ct.zone {
            CtZone::Literal(zone) => zone,
            CtZone::Field(sub) => self.read(sub)? as u16,
        };
        // What `exec` writes stays with the connection, not with the packet.
        let saved = self.key.clone();
        let mut bits = [0; 2];
        for action in &ct.exec {
            let (field, mask) = match action {
                Action::SetField { field, value, mask } => {
                    self.set(*field, *value, *mask)?;
                    (*field, *mask)
                }
                Action::Move { src, dst } => {
                    self.copy_bits(*src, *dst)?;
                    (dst.field, dst.bits())
                }
                _ => return Err(Abort(DropReason::Unsupported)),
            };
            match field {
                Field::CtMark => bits[0] |= mask,
                _ => bits[1] |= mask,
            }
        }
        // Bits that nothing was written to, since the packet has no such header, are as they
        // were; and they were not read.
        let mark_bits = bits[0] & self.key.written().get(Field::CtMark);
        let label_bits = bits[1] & self.key.written().get(Field::CtLabel);
        let (mark, label) = (self.key.peek().ct_mark.get(), self.key.peek().ct_label.get());
        self.key.restore(&saved);
        let mark_bits = mark_bits as u32;
        Ok(Request {
            zone,
            commit: ct.commit,
            force: ct.force,
            nat: ct.nat,
            mark: (mark & mark_bits, mark_bits),
            label: (label & label_bits, label_bits),
            policy: ct.timeout,
            in_port: 0,
            alg: ct.alg,
        })
    }
}
