//! What actions do to the key: fields, TTL, VLAN tags.

use super::{
    Tracer,
    edit::{VLAN_PRESENT, VLAN_TPID},
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    field::{Field, Prerequisites, SubField},
    key::{FlowKey, Tracked, nw_frag},
};

/// TPID of provider tags (IEEE 802.1Q §9.6).
const SERVICE_TPID: u16 = 0x88a8;
/// The DSCP's bits in the TOS byte: writing `nw_tos` leaves ECN alone.
const DSCP_BITS: u128 = 0xfc;

/// By field: in the scratch space of the pipeline, and writing it means nothing more. Most of what logical
/// networks write is.
static IS_SCRATCH: [bool; Field::ALL.len()] = scratch();

const fn scratch() -> [bool; Field::ALL.len()] {
    use std::mem::offset_of;
    let mut is_scratch = [false; Field::ALL.len()];
    let mut idx = 0;
    while idx < is_scratch.len() {
        let info = Field::ALL[idx].info();
        let (start, end) = (offset_of!(FlowKey, metadata), offset_of!(FlowKey, conj_id));
        is_scratch[idx] = info.writable
            && matches!(info.prerequisites, Prerequisites::None)
            && start <= info.offset
            && info.offset < end;
        idx += 1;
    }
    is_scratch
}

impl<T: Tracer> Walk<'_, T> {
    /// Writes some bits of a field. A packet without the header is left as it is.
    pub(super) fn set(&mut self, field: Field, value: u128, bits: u128) -> Result<(), Abort> {
        if IS_SCRATCH[field as usize] {
            self.key.write_bits(field, value, bits & field.all_bits());
            return Ok(());
        }
        if !field.info().writable {
            self.note(format_args!("{field} cannot be written"));
            return Err(Abort(DropReason::Unsupported));
        }
        self.see_header(field.info().prerequisites)?;
        if !holds(&mut self.key, field.info().prerequisites) {
            self.note(format_args!("the packet has no {field}: left as it is"));
            return Ok(());
        }
        let bits = bits & field.all_bits();
        match field {
            Field::VlanTci | Field::VlanVid | Field::VlanPcp | Field::VlanVidOxm => {
                self.set_vlan(field, value, bits);
            }
            Field::MplsLabel | Field::MplsTc | Field::MplsTtl => self.set_mpls(field, value, bits),
            Field::NwTos => self.key.write_bits(field, value, bits & DSCP_BITS),
            _ => self.key.write_bits(field, value, bits),
        }
        if let Some(idx) = tun_metadata_idx(field) {
            self.key.write_bits(Field::TunMetadataPresent, 1 << idx, 1 << idx);
        }
        Ok(())
    }

    /// Copies a sub-field; nothing happens when the packet lacks the source's header.
    pub(super) fn copy_bits(&mut self, src: SubField, dst: SubField) -> Result<(), Abort> {
        self.see_header(src.field.info().prerequisites)?;
        if !holds(&mut self.key, src.field.info().prerequisites) {
            self.note(format_args!("the packet has no {}: not copied", src.field));
            return Ok(());
        }
        let value = self.key.read_sub(src);
        self.set(dst.field, value << dst.start, dst.bits())
    }

    /// Part of a field; 0 where the packet lacks the header. What is in the key of one that labels
    /// were put in front of is not the packet's any more.
    pub(super) fn read(&mut self, sub: SubField) -> Result<u128, Abort> {
        self.see_header(sub.field.info().prerequisites)?;
        let is_there = holds(&mut self.key, sub.field.info().prerequisites);
        Ok(if is_there { self.key.read_sub(sub) } else { 0 })
    }

    /// Takes one from the TTL or hop limit. False: it has run out.
    pub(super) fn dec_ttl(&mut self) -> Result<bool, Abort> {
        self.see_payload()?;
        if !holds(&mut self.key, Prerequisites::Ip) {
            return Ok(true);
        }
        Ok(match self.key.read(Field::NwTtl) {
            0 | 1 => false,
            ttl => {
                self.key.write(Field::NwTtl, ttl - 1);
                true
            }
        })
    }

    /// Removes a Geneve option field.
    pub(super) fn delete_option(&mut self, field: Field) {
        if let Some(idx) = tun_metadata_idx(field) {
            self.key.write(field, 0);
            self.key.write_bits(Field::TunMetadataPresent, 0, 1 << idx);
        }
    }

    /// Puts an empty tag in front of the others.
    pub(super) fn push_vlan(&mut self, tpid: u16) -> Result<(), Abort> {
        if tpid != VLAN_TPID && tpid != SERVICE_TPID {
            return Err(Abort(DropReason::Unsupported));
        }
        if self.key.read_bits(Field::CvlanTci, VLAN_PRESENT) != 0 {
            self.note(format_args!("the packet has two VLAN tags already"));
            return Err(Abort(DropReason::Unsupported));
        }
        let (tci, below) = (self.key.read(Field::VlanTci), self.key.read(Field::VlanTpid));
        self.key.write(Field::CvlanTci, tci);
        self.key.write(Field::CvlanTpid, below);
        self.key.write(Field::VlanTci, VLAN_PRESENT);
        self.key.write(Field::VlanTpid, tpid.into());
        self.vlan.push();
        Ok(())
    }

    /// Takes the outer tag away, if there is one.
    pub(super) fn pop_vlan(&mut self) {
        if self.key.read_bits(Field::VlanTci, VLAN_PRESENT) == 0 {
            return;
        }
        let (tci, tpid) = (self.key.read(Field::CvlanTci), self.key.read(Field::CvlanTpid));
        self.key.write(Field::VlanTci, tci);
        self.key.write(Field::VlanTpid, tpid);
        self.key.write(Field::CvlanTci, 0);
        self.key.write(Field::CvlanTpid, 0);
        self.vlan.pop();
    }

    /// Writes into the outer tag. As in Open vSwitch, the "present" bit makes and
    /// removes it.
    fn set_vlan(&mut self, field: Field, value: u128, bits: u128) {
        let had = self.key.read_bits(Field::VlanTci, VLAN_PRESENT) != 0;
        self.key.write_bits(field, value, bits);
        let has = self.key.read_bits(Field::VlanTci, VLAN_PRESENT) != 0;
        match (had, has) {
            (true, true) => self.vlan.replace(),
            (false, true) => {
                self.key.write(Field::VlanTpid, VLAN_TPID.into());
                self.vlan.push();
            }
            (true, false) => {
                // Popping looks at the bit that has just been cleared.
                self.key.write_bits(Field::VlanTci, VLAN_PRESENT, VLAN_PRESENT);
                self.pop_vlan();
            }
            (false, false) => self.key.write(Field::VlanTci, 0),
        }
    }
}

/// The packet has the header that a field is in. Reads what decides it.
#[inline]
pub(super) fn holds(key: &mut Tracked, prerequisites: Prerequisites) -> bool {
    prerequisites == Prerequisites::None || key.is_known_to_be(prerequisites) || find_out(key, prerequisites)
}

fn find_out(key: &mut Tracked, prerequisites: Prerequisites) -> bool {
    let mut l4 = |eth_types: &[u128], proto: u128| {
        eth_types.contains(&key.read(Field::EthType))
            && key.read(Field::NwProto) == proto
            && key.read_bits(Field::NwFrag, nw_frag::LATER.into()) == 0
    };
    const IPV4: u128 = 0x0800;
    const IPV6: u128 = 0x86dd;
    let holds = match prerequisites {
        Prerequisites::None => true,
        Prerequisites::Vlan => key.read_bits(Field::VlanTci, VLAN_PRESENT) != 0,
        Prerequisites::Mpls => matches!(key.read(Field::EthType), 0x8847 | 0x8848),
        Prerequisites::Ipv4 => key.read(Field::EthType) == IPV4,
        Prerequisites::Ipv6 => key.read(Field::EthType) == IPV6,
        Prerequisites::Ip => matches!(key.read(Field::EthType), IPV4 | IPV6),
        Prerequisites::Arp => matches!(key.read(Field::EthType), 0x0806 | 0x8035),
        Prerequisites::Tcp => l4(&[IPV4, IPV6], 6),
        Prerequisites::Udp => l4(&[IPV4, IPV6], 17),
        Prerequisites::Sctp => l4(&[IPV4, IPV6], 132),
        Prerequisites::Icmp => l4(&[IPV4], 1),
        Prerequisites::Icmpv6 => l4(&[IPV6], 58),
        Prerequisites::Nd => holds_nd(key, &[135, 136]),
        Prerequisites::NdSolicit => holds_nd(key, &[135]),
        Prerequisites::NdAdvert => holds_nd(key, &[136]),
    };
    use Prerequisites as P;
    let is_kept =
        matches!(prerequisites, P::Ipv4 | P::Ipv6 | P::Ip | P::Tcp | P::Udp | P::Sctp | P::Icmp | P::Icmpv6);
    if holds && is_kept {
        key.know_to_be(prerequisites);
    }
    holds
}

fn holds_nd(key: &mut Tracked, types: &[u128]) -> bool {
    holds(key, Prerequisites::Icmpv6)
        && types.contains(&key.read(Field::Icmpv6Type))
        && key.read(Field::Icmpv6Code) == 0
}

/// Which Geneve option field it is.
fn tun_metadata_idx(field: Field) -> Option<u32> {
    let idx = (field as u32).checked_sub(Field::TunMetadata0 as u32)?;
    (idx < 64).then_some(idx)
}
