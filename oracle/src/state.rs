//! A packet under interpretation: its bytes, and what travels beside them. Fields are read from the
//! bytes and written into them at once.

use std::collections::BTreeMap;

use crate::{
    checksum,
    field::{self, Field, Needs},
    frame::{self, L4, View},
    syntax::ones,
};

/// A packet and its metadata.
#[derive(Debug, Clone)]
pub struct State {
    /// The frame as it is now.
    pub bytes: Vec<u8>,
    /// The ports of SCTP in a fragment as received: their change cannot be signed for.
    sctp_fragment: Option<[u8; 4]>,
    regs: [u32; 32],
    /// Metadata fields; also fields that the headers call for but the frame is too short or too odd to
    /// have, of which actions and matches speak nevertheless.
    beside: BTreeMap<Field, u128>,
}

impl State {
    /// A packet as received.
    pub fn new(frame: &[u8], in_port: u32) -> Self {
        let mut state = Self {
            bytes: frame.to_vec(),
            sctp_fragment: None,
            regs: [0; 32],
            beside: BTreeMap::from([(Field::InPort, in_port.into())]),
        };
        state.sctp_fragment = state.sctp_ports();
        state
    }

    /// Where things are in the frame.
    pub fn view(&self) -> View {
        // The interpreter starts only with frames that have an Ethernet header.
        frame::view(&self.bytes).expect("the frame has an Ethernet header")
    }

    /// The packet has the headers that a field is in.
    pub fn has(&self, needs: Needs) -> bool {
        needs == Needs::Nothing || needs.met_by(&self.view())
    }

    /// Value of a field.
    pub fn get(&self, field: Field) -> u128 {
        match field {
            Field::Reg(_) | Field::Xreg(_) | Field::Xxreg(_) => self.reg(field),
            _ => self.get_in(&self.view(), field),
        }
    }

    /// Value of a field of a frame that has been looked at already.
    pub fn get_in(&self, view: &View, field: Field) -> u128 {
        match field {
            Field::Reg(_) | Field::Xreg(_) | Field::Xxreg(_) => self.reg(field),
            Field::EthType => view.eth_type.into(),
            Field::NwProto => view.proto.into(),
            Field::Frag => view.frag.into(),
            Field::VlanTci => view.tags.first().map_or(0, |tag| {
                u128::from(u16::from_be_bytes([self.bytes[tag + 2], self.bytes[tag + 3]]) | 0x1000)
            }),
            _ => match field::place(field, view, &self.bytes) {
                Some(place) => {
                    let value = number(&self.bytes[place.at..place.at + place.len]);
                    let value = value >> place.shift & ones(field.n_bits());
                    if field == Field::ArpOp && value > 0xff { 0 } else { value }
                }
                None => self.beside.get(&field).copied().unwrap_or(0),
            },
        }
    }

    /// Sets bits of a field, and what checksums follow from it. A packet without the header stays as
    /// it is.
    pub fn set(&mut self, field: Field, value: u128, mask: u128) {
        let view = self.view();
        if !field.needs().met_by(&view) {
            return;
        }
        let new = self.get_in(&view, field) & !mask | value & mask;
        match field {
            Field::Reg(_) | Field::Xreg(_) | Field::Xxreg(_) => self.set_reg(field, new),
            _ => match field::place(field, &view, &self.bytes) {
                Some(place) => self.write(&view, field, place, new),
                None => {
                    self.beside.insert(field, new);
                }
            },
        }
    }

    fn write(&mut self, view: &View, field: Field, place: field::Place, new: u128) {
        let before = view.l4.map(|(l4, at)| checksum::segment_sum(&self.bytes, view, l4, at));
        let bytes = &mut self.bytes[place.at..place.at + place.len];
        let bits = ones(field.n_bits()) << place.shift;
        let mut merged = number(bytes) & !bits | new << place.shift & bits;
        if matches!(field, Field::VlanVid | Field::VlanPcp) {
            // A rewritten tag is a new one: it is not eligible to be dropped.
            merged &= !0x1000;
        }
        let all = merged.to_be_bytes();
        bytes.copy_from_slice(&all[all.len() - place.len..]);
        if view.frag == 0 {
            checksum::complete(&mut self.bytes, view, false);
        } else {
            checksum::header(&mut self.bytes, view);
            if let Some(before) = before {
                checksum::amend(&mut self.bytes, view, before);
            }
        }
    }

    /// The value of OVN's Geneve option, once it has been set.
    pub fn option(&self) -> Option<u32> {
        self.beside.get(&Field::TunMetadata0).map(|value| *value as u32)
    }

    /// Takes one from the TTL; false when it has run out.
    pub fn dec_ttl(&mut self) -> bool {
        if !self.has(Needs::Ip) {
            return true;
        }
        match self.get(Field::NwTtl) {
            0 | 1 => false,
            ttl => {
                self.set(Field::NwTtl, ttl - 1, 0xff);
                true
            }
        }
    }

    /// Puts a tag in front of the others.
    pub fn push_tag(&mut self, tpid: u16, tci: u16) {
        let [a, b] = tpid.to_be_bytes();
        let [c, d] = tci.to_be_bytes();
        self.bytes.splice(12..12, [a, b, c, d]);
    }

    /// Takes the outermost tag away, if there is one.
    pub fn pop_tag(&mut self) {
        if !self.view().tags.is_empty() {
            self.bytes.drain(12..16);
        }
    }

    /// The frame cannot leave: ports of an SCTP fragment changed, and its CRC covers bytes that are
    /// elsewhere.
    pub fn is_unsendable(&self) -> bool {
        self.sctp_fragment != self.sctp_ports()
    }

    fn sctp_ports(&self) -> Option<[u8; 4]> {
        let view = frame::view(&self.bytes)?;
        let (L4::Sctp, at) = view.l4.filter(|_| view.frag != 0)? else { return None };
        self.bytes.get(at..at + 4)?.try_into().ok()
    }

    /// Registers are parts of one array; `xreg0` is `reg0` and `reg1`.
    fn reg(&self, field: Field) -> u128 {
        let (first, n) = reg_place(field);
        self.regs.iter().skip(first).take(n).fold(0, |value, reg| value << 32 | u128::from(*reg))
    }

    fn set_reg(&mut self, field: Field, value: u128) {
        let (first, n) = reg_place(field);
        for (idx, reg) in self.regs.iter_mut().skip(first).take(n).enumerate() {
            *reg = (value >> (32 * (n - 1 - idx))) as u32;
        }
    }
}

fn reg_place(field: Field) -> (usize, usize) {
    match field {
        Field::Xxreg(idx) => (usize::from(idx) * 4, 4),
        Field::Xreg(idx) => (usize::from(idx) * 2, 2),
        Field::Reg(idx) => (idx.into(), 1),
        _ => (0, 0),
    }
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
}
