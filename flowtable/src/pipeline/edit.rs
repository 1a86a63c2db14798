//! How a copy differs from the packet that was received: tags popped and pushed, header
//! bits that change.

use std::sync::Arc;

use super::{Tracer, walk::Walk};
use crate::{
    field::Field,
    program::{Emit, Extras, FieldEdit, TunnelHeader, VlanTag},
    types::PortNo,
};

/// TPID of customer tags (IEEE 802.1Q §9.6), and of tags made without saying.
pub(super) const VLAN_TPID: u16 = 0x8100;
/// In the key, a TCI with this bit says that there is a tag.
pub(super) const VLAN_PRESENT: u128 = 0x1000;

/// The tag stack, relative to the received one. A tag that is written to counts as
/// popped and pushed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct VlanEdits {
    /// Received tags that are gone.
    n_pops: u8,
    /// Tags on top of what is left of the received ones; at most the two that the key
    /// holds.
    n_fresh: u8,
}

impl VlanEdits {
    pub(super) fn push(&mut self) {
        self.n_fresh += 1;
    }

    pub(super) fn pop(&mut self) {
        if self.n_fresh > 0 {
            self.n_fresh -= 1;
        } else {
            self.n_pops += 1;
        }
    }

    /// Bytes that the tags add to the received ones.
    pub(super) fn n_bytes_more(&self) -> i64 {
        4 * (i64::from(self.n_fresh) - i64::from(self.n_pops))
    }

    pub(super) fn replace(&mut self) {
        if self.n_fresh == 0 {
            self.n_pops += 1;
            self.n_fresh = 1;
        }
    }
}

impl<T: Tracer> Walk<'_, T> {
    /// The packet as it is now, as a copy to `port`.
    pub(super) fn copy_for(&mut self, port: PortNo, tunnel: Option<Arc<TunnelHeader>>) -> Emit {
        Emit {
            n_vlan_pops: self.vlan.n_pops,
            vlan_pushes: self.vlan_pushes(),
            edits: self.edits(),
            tunnel,
            port,
            extras: self.extras(),
            ct: None,
        }
    }

    fn extras(&mut self) -> Option<Box<Extras>> {
        let extras = Extras { labels: self.label_edit(), queue: self.queue, ..Extras::default() };
        (extras != Extras::default()).then(|| Box::new(extras))
    }

    fn vlan_pushes(&mut self) -> Vec<VlanTag> {
        let inner = (self.vlan.n_fresh > 1).then_some((Field::CvlanTpid, Field::CvlanTci));
        let outer = (self.vlan.n_fresh > 0).then_some((Field::VlanTpid, Field::VlanTci));
        let mut tag = |(tpid, tci): (Field, Field)| VlanTag {
            tpid: self.key.read(tpid) as u16,
            tci: (self.key.read(tci) & !VLAN_PRESENT) as u16,
        };
        inner.into_iter().chain(outer).map(&mut tag).collect()
    }

    /// Header bits that were written, without fields that are known to have had the same
    /// value before.
    fn edits(&mut self) -> Vec<FieldEdit> {
        let mut edits = Vec::new();
        self.add_edits(&mut edits, &[Field::EthDst, Field::EthSrc]);
        // Edits are of the received headers; the start of each walk has recorded which.
        let eth_type = self.key.original().get(Field::EthType);
        match eth_type {
            0x0800 => {
                self.add_edits(&mut edits, &[Field::NwSrc, Field::NwDst, Field::NwTos, Field::NwTtl]);
            }
            0x86dd => {
                use Field::{Ipv6Dst, Ipv6Label, Ipv6Src, NwTos, NwTtl};
                self.add_edits(&mut edits, &[Ipv6Src, Ipv6Dst, Ipv6Label, NwTos, NwTtl]);
            }
            0x0806 | 0x8035 => {
                use Field::{ArpOp, ArpSha, ArpSpa, ArpTha, ArpTpa};
                self.add_edits(&mut edits, &[ArpOp, ArpSpa, ArpTpa, ArpSha, ArpTha]);
            }
            _ => {}
        }
        if matches!(eth_type, 0x0800 | 0x86dd) && self.wrote_l4() {
            // That it was written to is due to what was read, its protocol among it.
            let proto = self.key.original().get(Field::NwProto);
            self.add_edits(&mut edits, l4_fields(eth_type, proto));
            if eth_type == 0x86dd && proto == 58 {
                self.add_nd_edits(&mut edits);
            }
        }
        edits
    }

    /// Some field beyond L3 was written; that the packet has it was read then.
    fn wrote_l4(&self) -> bool {
        [Field::TcpSrc, Field::TcpDst, Field::NdTarget, Field::NdSll, Field::NdTll, Field::NdReserved]
            .iter()
            .chain(&[Field::NdOptionsType])
            .any(|field| self.key.written().get(*field) != 0)
    }

    fn add_nd_edits(&mut self, edits: &mut Vec<FieldEdit>) {
        use Field::{NdOptionsType, NdReserved, NdSll, NdTarget, NdTll};
        self.add_edits(edits, &[NdReserved, NdTarget, NdOptionsType, NdSll, NdTll]);
    }

    /// Looks at the key without recording it. That is sound: what a bit was before counts
    /// only where it was read, so the edit depends on the mask alone.
    fn add_edits(&mut self, edits: &mut Vec<FieldEdit>, fields: &[Field]) {
        for &field in fields {
            let written = self.key.written().get(field) & frame_bits(field);
            let (value, before) = (self.key.peek().get(field), self.key.original().get(field));
            let known_same = !(value ^ before) & self.key.mask().get(field);
            if written & !known_same != 0 {
                edits.push(FieldEdit { field, value: value & written, mask: written });
            } else if written != 0 {
                self.key.has_acted_on_headers();
            }
        }
    }
}

fn l4_fields(eth_type: u128, proto: u128) -> &'static [Field] {
    match (eth_type, proto) {
        (_, 6) => &[Field::TcpSrc, Field::TcpDst],
        (_, 17) => &[Field::UdpSrc, Field::UdpDst],
        (_, 132) => &[Field::SctpSrc, Field::SctpDst],
        (0x0800, 1) => &[Field::IcmpType, Field::IcmpCode],
        (0x86dd, 58) => &[Field::Icmpv6Type, Field::Icmpv6Code],
        _ => &[],
    }
}

/// The bits of the key's field that are in the frame: ICMP's are wider in the key.
fn frame_bits(field: Field) -> u128 {
    match field {
        Field::IcmpType | Field::IcmpCode | Field::Icmpv6Type | Field::Icmpv6Code => 0xff,
        field => field.all_bits(),
    }
}
