//! A packet under interpretation: its bytes, and what travels beside them. Fields are read from the
//! bytes and written into them at once.

use std::collections::BTreeMap;

use crate::{
    checksum,
    field::{self, Field, Needs},
    frame::{self, L4, Net, View},
    syntax::{Part, Step, ones},
    tracker::{self, About, Tuple},
};

/// No port: what `actset_output` says as long as the action set sends nowhere.
const UNSET: u128 = 0xfff7;

/// A packet and its metadata.
#[derive(Debug, Clone)]
pub struct State {
    /// The frame as it is now.
    pub bytes: Vec<u8>,
    /// What `push` has put away.
    pub stack: Vec<u128>,
    /// What has been written to the action set, in that order, and by whom.
    pub action_set: Vec<(Step, Author)>,
    /// A meter has dropped the packet: nothing more becomes of it.
    pub metered: bool,
    /// Levels by which meters raise the drop precedence of what leaves.
    pub levels: u8,
    /// Where the label stack has come to.
    pub labels: Labels,
    /// The ports of SCTP in a fragment, as received and as they are now: their change cannot be signed
    /// for.
    sctp_fragment: [Option<[u8; 4]>; 2],
    /// How the connection tracker last translated it.
    pub translated: Option<Translated>,
    regs: [u32; 32],
    /// Metadata fields; also fields that the headers call for but the frame is too short or too odd to
    /// have, of which actions and matches speak nevertheless.
    beside: Beside,
}

/// A translation. As long as nothing else changes its addresses, the packet belongs to the same
/// connection in this zone (docs/differences-from-ovs.md).
#[derive(Debug, Clone)]
pub struct Translated {
    /// Where.
    pub zone: u16,
    /// What it was to the tracker.
    pub before: tracker::Packet,
    /// What it became.
    pub after: Tuple,
}

/// A few fields and their values.
#[derive(Debug, Clone)]
struct Beside(Vec<(Field, u128)>);

impl Beside {
    fn get(&self, field: Field) -> Option<u128> {
        self.0.iter().find(|(known, _)| *known == field).map(|(_, value)| *value)
    }

    fn insert(&mut self, field: Field, value: u128) {
        match self.0.iter_mut().find(|(known, _)| *known == field) {
            Some((_, place)) => *place = value,
            None => self.0.push((field, value)),
        }
    }
}

/// The rule that an action is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author {
    /// Its table.
    pub table: u8,
    /// Its cookie.
    pub cookie: u64,
    /// It is the one for what no other rule matches.
    pub is_miss: bool,
}

/// The label stack, as far as the switch has looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labels {
    /// Labels that it knows, three at most.
    pub depth: usize,
    /// Received labels that are gone, and labels on top of the rest.
    changes: (usize, usize),
    /// EtherType as received.
    received: u16,
    /// What is below the labels has never been looked at: it can be sent, not matched or changed.
    pub is_opaque: bool,
}

impl State {
    /// A packet as received.
    pub fn new(frame: &[u8], in_port: u32) -> Self {
        let beside = Beside(vec![(Field::InPort, in_port.into()), (Field::ActsetOutput, UNSET)]);
        let mut state = Self {
            bytes: frame.to_vec(),
            stack: Vec::new(),
            action_set: Vec::new(),
            metered: false,
            levels: 0,
            labels: Labels { depth: 0, changes: (0, 0), received: 0, is_opaque: false },
            sctp_fragment: [None; 2],
            translated: None,
            regs: [0; 32],
            beside,
        };
        state.receive();
        state
    }

    /// The frame is looked at anew: what was said of headers that it does not have is forgotten.
    pub fn receive(&mut self) {
        self.beside.0.retain(|(field, _)| field.is_beside());
        self.sctp_fragment = [self.sctp_ports(); 2];
        let view = self.view();
        let depth = if view.net == Net::Mpls { n_labels(&self.bytes[view.l3..]) } else { 0 };
        self.labels = Labels { depth, changes: (0, 0), received: view.eth_type, is_opaque: false };
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
                None => self.beside.get(field).unwrap_or(0),
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
        if field.needs() == Needs::Mpls {
            if self.labels.depth == 0 {
                return;
            }
            self.renew_label();
        }
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
        if field.needs() == Needs::Sctp {
            self.sctp_fragment[1] = self.sctp_ports();
        }
        if self.labels.is_opaque {
            // Only what is in front of the labels can be written; nothing covers that.
        } else if view.frag == 0 {
            checksum::complete(&mut self.bytes, view, false);
        } else {
            checksum::header(&mut self.bytes, view);
            if let Some(before) = before {
                checksum::amend(&mut self.bytes, view, before);
            }
        }
    }

    /// Some bits of a field.
    pub fn read(&self, part: Part) -> u128 {
        self.get(part.field) >> part.start & ones(part.n_bits)
    }

    /// Writes bits of a field.
    pub fn write_part(&mut self, part: Part, value: u128) {
        self.set(part.field, value << part.start, ones(part.n_bits) << part.start);
    }

    /// Sets a field that no frame has.
    pub fn note(&mut self, field: Field, value: u128) {
        self.beside.insert(field, value);
    }

    /// Forgets a field that no frame has.
    pub fn forget(&mut self, field: Field) {
        self.beside.0.retain(|(known, _)| *known != field);
    }

    /// Where the action set sends the packet is a field, too, unless a group decides it.
    pub fn note_action_set(&mut self) {
        let steps = || self.action_set.iter().map(|(step, _)| step);
        let last = steps().rev().find_map(|step| match step {
            Step::Output(port) => Some(u128::from(*port)),
            Step::InPort => Some(0xfff8),
            Step::Flood => Some(0xfffb),
            Step::Normal => Some(0xfffa),
            Step::Controller => Some(0xfffd),
            _ => None,
        });
        let has_group = steps().any(|step| matches!(step, Step::Group(_)));
        let port = last.filter(|_| !has_group).unwrap_or(UNSET);
        self.note(Field::ActsetOutput, port);
    }

    /// Fields of the pipeline that are not zero, as controllers are told them.
    pub fn metadata(&self) -> BTreeMap<String, u128> {
        let told = self.beside.0.iter().filter(|(field, value)| {
            let is_told = field.is_beside() && !matches!(field, Field::ActsetOutput | Field::ConjId);
            let is_tuple = matches!(field, Field::CtNwProto | Field::CtNwSrc | Field::CtNwDst)
                || matches!(field, Field::CtIpv6Src | Field::CtIpv6Dst | Field::CtTpSrc | Field::CtTpDst);
            *value != 0 && is_told && !is_tuple
        });
        let told = told.map(|(field, value)| (field.name(), *value));
        let regs = self.regs.iter().enumerate().filter(|(_, value)| **value != 0);
        told.chain(regs.map(|(idx, value)| (format!("reg{idx}"), u128::from(*value)))).collect()
    }

    /// Raises the drop precedence of an assured forwarding class (RFC 2597 §6), as meters ask for it.
    pub fn remark(&mut self) {
        let levels = std::mem::take(&mut self.levels);
        let dscp = self.get(Field::IpDscp);
        let (class, precedence) = (dscp >> 3, dscp >> 1 & 3);
        if levels != 0 && self.has(Needs::Ip) && dscp & 1 == 0 && (1..=4).contains(&class) && precedence != 0
        {
            let precedence = (precedence + u128::from(levels)).min(3);
            self.set(Field::IpDscp, class << 3 | precedence << 1, 0x3f);
        }
    }

    /// Puts a label on the stack: a copy of the outermost one, or what RFC 3032 §2 has for a first one.
    /// False: the switch knows three already.
    pub fn push_label(&mut self, eth_type: u16) -> bool {
        let view = self.view();
        let is_mpls = Needs::Mpls.met_by(&view);
        let depth = if is_mpls { self.labels.depth } else { 0 };
        if depth >= 3 {
            return false;
        }
        let entry = if depth > 0 {
            number(&self.bytes[view.l3..view.l3 + 4]) as u32 & !0x100
        } else {
            let is_ip = self.has(Needs::Ip);
            let ttl = if is_ip { self.get(Field::NwTtl) as u32 } else { 0 };
            let class = if is_ip { self.get(Field::IpDscp) as u32 & 7 } else { 0 };
            let label = if view.eth_type == 0x86dd { 2 } else { 0 };
            label << 12 | class << 9 | 0x100 | if ttl == 0 { 64 } else { ttl }
        };
        self.bytes.splice(view.l3..view.l3, entry.to_be_bytes());
        self.bytes[view.l3 - 2..view.l3].copy_from_slice(&eth_type.to_be_bytes());
        self.labels.depth = depth + 1;
        self.labels.changes.1 += 1;
        true
    }

    /// Takes the outermost label off, if there is one. False: there are more than the switch knows.
    pub fn pop_label(&mut self, eth_type: u16) -> bool {
        let view = self.view();
        let depth = if Needs::Mpls.met_by(&view) { self.labels.depth } else { 0 };
        if depth == 0 {
            return true;
        }
        let third = self.bytes.get(view.l3 + 8..view.l3 + 12);
        if depth == 3 && third.is_some_and(|entry| entry[2] & 1 == 0) {
            return false;
        }
        self.bytes.drain(view.l3..view.l3 + 4);
        self.bytes[view.l3 - 2..view.l3].copy_from_slice(&eth_type.to_be_bytes());
        let (n_pops, n_fresh) = &mut self.labels.changes;
        if *n_fresh > 0 {
            *n_fresh -= 1
        } else {
            *n_pops += 1
        }
        self.labels.depth = depth - 1;
        self.labels.is_opaque = if matches!(eth_type, 0x8847 | 0x8848) {
            depth == 1
        } else {
            self.labels.changes != (0, 0) || self.labels.received != eth_type
        };
        true
    }

    /// A label that is written to counts as a new one.
    pub fn renew_label(&mut self) {
        let (n_pops, n_fresh) = &mut self.labels.changes;
        if self.labels.depth > 0 && *n_fresh == 0 {
            *n_pops += 1;
            *n_fresh = 1;
        }
    }

    /// Takes one from the outermost label's TTL; false when it has run out.
    pub fn dec_label_ttl(&mut self) -> bool {
        if !self.has(Needs::Mpls) || self.labels.depth == 0 {
            return true;
        }
        match self.get(Field::MplsTtl) {
            0 | 1 => false,
            ttl => {
                self.renew_label();
                self.set(Field::MplsTtl, ttl - 1, 0xff);
                true
            }
        }
    }

    /// Sets the identifier of an ICMP echo.
    pub fn set_identifier(&mut self, id: u16) {
        let view = self.view();
        if let Some((L4::Icmp | L4::Icmpv6, at)) = view.l4 {
            self.bytes[at + 4..at + 6].copy_from_slice(&id.to_be_bytes());
            checksum::complete(&mut self.bytes, &view, false);
        }
    }

    /// Gives the packet that an ICMP error quotes other addresses and ports.
    pub fn requote(&mut self, about: &About, new: &Tuple) {
        let (view, l3, l4) = (self.view(), about.l3, about.l4);
        let places: [(usize, Vec<u8>); 2] = match new.ipv6 {
            true => [(l3 + 8, new.src.to_be_bytes().to_vec()), (l3 + 24, new.dst.to_be_bytes().to_vec())],
            false => {
                let bytes = |address: u128| (address as u32).to_be_bytes().to_vec();
                [(l3 + 12, bytes(new.src)), (l3 + 16, bytes(new.dst))]
            }
        };
        let [src_port, dst_port] = [new.src_port, new.dst_port].map(|port| port.to_be_bytes().to_vec());
        let ports = match () {
            () if new.has_ports() => vec![(l4, src_port), (l4 + 2, dst_port)],
            () if new.is_icmp() => vec![(l4 + 4, src_port)],
            () => Vec::new(),
        };
        let has_pseudo_header = new.proto != 1;
        let sum_at = match new.proto {
            6 => Some(l4 + 16),
            17 if self.bytes[l4 + 6..l4 + 8] != [0, 0] => Some(l4 + 6),
            1 | 58 => Some(l4 + 2),
            _ => None,
        };
        let mut sum = sum_at.filter(|at| at + 2 <= view.end).map(|at| (at, self.bytes[at..at + 2].to_vec()));
        for (idx, (at, bytes)) in places.iter().chain(&ports).enumerate() {
            let old = self.bytes[*at..at + bytes.len()].to_vec();
            if let Some((_, sum)) = sum.as_mut().filter(|_| has_pseudo_header || idx >= places.len()) {
                checksum::exchange(sum, &old, bytes);
            }
            self.bytes[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        if let Some((at, sum)) = sum {
            self.bytes[at..at + 2].copy_from_slice(&sum);
        }
        if !new.ipv6 {
            let mut sum = self.bytes[l3 + 10..l3 + 12].to_vec();
            checksum::renew(&mut sum, &self.bytes[l3..l4]);
            self.bytes[l3 + 10..l3 + 12].copy_from_slice(&sum);
        }
        checksum::complete(&mut self.bytes, &view, false);
    }

    /// The value of OVN's Geneve option, once it has been set.
    pub fn option(&self) -> Option<u32> {
        self.beside.get(Field::TunMetadata0).map(|value| value as u32)
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
        self.sctp_fragment[0] != self.sctp_fragment[1]
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

/// Labels of a stack that the switch looks at: up to the bottom, three at most.
fn n_labels(stack: &[u8]) -> usize {
    let (entries, _) = stack.as_chunks::<4>();
    let entries = &entries[..entries.len().min(3)];
    entries.iter().position(|entry| entry[2] & 1 == 1).map_or(entries.len(), |bottom| bottom + 1)
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
}
