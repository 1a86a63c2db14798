//! Reads and prints matches: `tcp,nw_dst=10.0.0.0/8,tp_dst=80`.

use super::{
    TextError,
    cursor::{Cursor, Form, Piece},
    membership, names, value,
};
use crate::{
    field::{Field, Prerequisites},
    flow::{Match, Membership, Values},
    key::FlowMask,
    port::PortTable,
    table::{RuleError, check_match},
};

/// Bit of a TCI in the key: a tag is there.
const PRESENT: u128 = 0x1000;

/// A match under construction. Items may come in any order; what depends on the
/// protocol waits until all are there.
pub(super) struct MatchReader<'a> {
    pub(super) ports: &'a PortTable,
    matching: Match,
    /// Fields that were named, and where.
    named: Vec<(Field, Piece<'a>)>,
    /// `tp_src` and `tp_dst` with their values.
    by_protocol: Vec<(Piece<'a>, Piece<'a>)>,
}

impl<'a> MatchReader<'a> {
    /// Matches everything so far.
    pub(super) fn new(ports: &'a PortTable) -> Self {
        Self { ports, matching: Match::any(), named: Vec::new(), by_protocol: Vec::new() }
    }

    /// Adds what an item requires.
    pub(super) fn item(&mut self, name: Piece<'a>, form: Form<'a>) -> Result<(), TextError> {
        if let Form::Bare = form {
            return self.keyword(name);
        }
        if names::BY_PROTOCOL.contains(&name.text) {
            self.by_protocol.push((name, form.value(name)?));
            return Ok(());
        }
        if name.text.contains('[') {
            let sub = names::sub_field(name)?;
            let part = value::number_up_to(form.value(name)?, sub.bits() >> sub.start)?;
            return self.require(name, sub.field, part << sub.start, sub.bits());
        }
        if names::PROTOCOLS.iter().any(|(protocol, ..)| *protocol == name.text) {
            return form.bare(name);
        }
        let field = match names::field(name) {
            // OVS prints both kinds of ICMP alike.
            Ok(Field::Icmpv6Type) => Field::IcmpType,
            Ok(Field::Icmpv6Code) => Field::IcmpCode,
            Ok(field) => field,
            Err(error) => return Err(with_protocols(name, error)),
        };
        let text = match form {
            // `packet_type(0,0)` is no form of OVS, `packet_type=(0,0)` is.
            Form::Value(_) => form.value(name)?,
            _ => return Err(name.error(format!("write `{field}=value`"))),
        };
        self.field(name, field, text)
    }

    /// Adds what the text requires of a field.
    fn field(&mut self, name: Piece<'a>, field: Field, text: Piece<'a>) -> Result<(), TextError> {
        match membership::parse(field, text, self.ports)? {
            Some(Values::Range(range)) if range.first() == range.last() => {
                self.require_value(name, field, range.first())
            }
            Some(values) => self.require_one_of(name, field, values),
            None => {
                let (field, value, mask) = self.special(field, text)?;
                self.require(name, field, value, mask)
            }
        }
    }

    fn require_value(&mut self, name: Piece<'a>, field: Field, value: u128) -> Result<(), TextError> {
        self.require_tag(name, field)?;
        self.require(name, field, value, field.all_bits())
    }

    fn require_one_of(&mut self, name: Piece<'a>, field: Field, values: Values) -> Result<(), TextError> {
        self.require_tag(name, field)?;
        self.named.push((field, name));
        let matching = std::mem::take(&mut self.matching);
        self.matching = match values {
            Values::Range(range) => matching.with_range(field, range),
            Values::Set(set) => matching.with_set(field, set),
        };
        Ok(())
    }

    /// Parts of a tag are only there with a tag.
    fn require_tag(&mut self, name: Piece<'a>, field: Field) -> Result<(), TextError> {
        match field {
            Field::VlanVid | Field::VlanPcp => self.require(name, Field::VlanTci, PRESENT, PRESENT),
            _ => Ok(()),
        }
    }

    /// The match, once its prerequisites have been found to hold.
    pub(super) fn finish(mut self) -> Result<Match, TextError> {
        for (name, text) in std::mem::take(&mut self.by_protocol) {
            let field = transport_field(&self.matching, name.text == "tp_src").ok_or_else(|| {
                name.error(format!("`{}` needs `tcp`, `udp` or `sctp`, or their forms for IPv6", name.text))
            })?;
            self.field(name, field, text)?;
        }
        check_match(&self.matching).map_err(|error| self.place(&error))?;
        Ok(self.matching)
    }

    fn keyword(&mut self, name: Piece<'a>) -> Result<(), TextError> {
        if let Some((_, eth_type, proto)) = names::PROTOCOLS.iter().find(|(known, ..)| *known == name.text) {
            self.require(name, Field::EthType, (*eth_type).into(), Field::EthType.all_bits())?;
            if let Some(proto) = proto {
                self.require(name, Field::NwProto, (*proto).into(), Field::NwProto.all_bits())?;
            }
            return Ok(());
        }
        // A Geneve option without a value has to be present.
        let option = name.text.strip_prefix("tun_metadata").and_then(|number| number.parse::<usize>().ok());
        if let Some(idx) = option.filter(|idx| Field::tun_metadata(*idx).is_some()) {
            return self.require(name, Field::TunMetadataPresent, 1 << idx, 1 << idx);
        }
        match names::field(name) {
            Ok(field) => Err(name.error(format!("`{field}` needs a value: `{field}=...`"))),
            Err(error) => Err(with_protocols(name, error)),
        }
    }

    /// Fields whose text does not say just what it stands for.
    fn special(&self, field: Field, text: Piece<'a>) -> Result<(Field, u128, u128), TextError> {
        Ok(match field {
            // OpenFlow 1.0: 0xffff is "no tag".
            Field::VlanVid if matches!(value::number(text), Ok(0xffff)) => {
                (Field::VlanTci, 0, Field::VlanTci.all_bits())
            }
            Field::VlanVid => {
                let (value, mask) = value::value_and_mask(field, text, self.ports)?;
                (Field::VlanTci, value | PRESENT, mask | PRESENT)
            }
            Field::VlanPcp => {
                let (value, mask) = value::value_and_mask(field, text, self.ports)?;
                (Field::VlanTci, value << 13 | PRESENT, mask << 13 | PRESENT)
            }
            Field::NwTos => (Field::IpDscp, dscp(text)?, Field::IpDscp.all_bits()),
            _ => {
                let (value, mask) = value::value_and_mask(field, text, self.ports)?;
                (field, value, mask)
            }
        })
    }

    fn require(&mut self, name: Piece<'a>, field: Field, value: u128, mask: u128) -> Result<(), TextError> {
        let (old_value, old_mask) = self.matching.get(field);
        if (old_value ^ value) & old_mask & mask != 0 {
            return Err(name.error(format!("`{}` contradicts what is before it", name.text)));
        }
        self.named.push((field, name));
        self.matching = std::mem::take(&mut self.matching).with_masked(field, value, mask);
        Ok(())
    }

    /// The error at the item that names the field, or one that shares its storage.
    fn place(&self, error: &RuleError) -> TextError {
        let (RuleError::Prerequisites { field, .. } | RuleError::NotMaskable { field }) = error else {
            return Piece::whole("").error(error.to_string());
        };
        let shares = |named: &Field| named.info().offset == field.info().offset;
        let Some((named, name)) = self.named.iter().find(|(named, _)| shares(named)) else {
            return Piece::whole("").error(error.to_string());
        };
        let needs = named.info().prerequisites;
        if self.matching.satisfies(needs) {
            return name.error(error.to_string());
        }
        name.error(format!("`{}` needs {}", name.text, needs.describe()))
    }
}

/// Reads a list of items that are all parts of the match.
pub(super) fn parse<'a>(list: Piece<'a>, ports: &'a PortTable) -> Result<Match, TextError> {
    let mut cursor = Cursor::new(list);
    let mut reader = MatchReader::new(ports);
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        reader.item(name, form)?;
    }
    reader.finish()
}

/// A TOS byte without its ECN bits.
pub(super) fn dscp(text: Piece<'_>) -> Result<u128, TextError> {
    let tos = value::number_up_to(text, 255)?;
    if tos & 3 != 0 {
        return Err(text.error("the low two bits of nw_tos are ECN; use nw_ecn for them"));
    }
    Ok(tos >> 2)
}

/// The field that `tp_src` or `tp_dst` means under a match.
pub(super) fn transport_field(matching: &Match, is_src: bool) -> Option<Field> {
    let fields = [
        (Prerequisites::Tcp, Field::TcpSrc, Field::TcpDst),
        (Prerequisites::Udp, Field::UdpSrc, Field::UdpDst),
        (Prerequisites::Sctp, Field::SctpSrc, Field::SctpDst),
    ];
    let (_, src, dst) = fields.into_iter().find(|(needs, ..)| matching.satisfies(*needs))?;
    Some(if is_src { src } else { dst })
}

/// Offers protocols too, where a name is no field's.
fn with_protocols(name: Piece<'_>, error: TextError) -> TextError {
    if error.reason.contains("not supported") {
        return error;
    }
    let others = ["table", "priority", "cookie", "actions"];
    let protocols = names::PROTOCOLS.iter().map(|(protocol, ..)| *protocol);
    let known = names::field_names().chain(protocols).chain(names::BY_PROTOCOL.iter().copied()).chain(others);
    name.misspelt(format!("there is no field or protocol `{}`", name.text), known)
}

/// Fields before the protocol.
const BEFORE_PROTOCOL: &[Field] = &[
    Field::RecircId,
    Field::DpHash,
    Field::ConjId,
    Field::SkbPriority,
    Field::PktMark,
    Field::ActsetOutput,
    Field::PacketType,
    Field::CtState,
    Field::CtZone,
    Field::CtMark,
    Field::CtLabel,
    Field::CtNwSrc,
    Field::CtIpv6Src,
    Field::CtNwDst,
    Field::CtIpv6Dst,
    Field::CtNwProto,
    Field::CtTpSrc,
    Field::CtTpDst,
];

/// Fields behind the protocol and the registers.
const BEHIND_PROTOCOL: &[Field] = &[
    Field::TunId,
    Field::TunSrc,
    Field::TunDst,
    Field::TunIpv6Src,
    Field::TunIpv6Dst,
    Field::TunTos,
    Field::TunTtl,
    Field::TunFlags,
    Field::TunGbpId,
    Field::TunGbpFlags,
    Field::TunMetadataPresent,
    Field::Metadata,
    Field::InPort,
];

/// Headers, in the order in which they are printed. Of fields that share storage the
/// first one whose prerequisites hold is meant.
const HEADERS: &[Field] = &[
    Field::VlanTpid,
    Field::CvlanTci,
    Field::CvlanTpid,
    Field::EthSrc,
    Field::EthDst,
    Field::EthType,
    Field::MplsDepth,
    Field::MplsLabel,
    Field::MplsTc,
    Field::MplsBos,
    Field::MplsTtl,
    Field::MplsLse1,
    Field::MplsLse2,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::Ipv6Label,
    Field::NwSrc,
    Field::NwDst,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpOp,
    Field::NwProto,
    Field::ArpSha,
    Field::ArpTha,
    Field::IpDscp,
    Field::NwEcn,
    Field::NwTtl,
    Field::NwFrag,
    Field::TcpSrc,
    Field::TcpDst,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
    Field::SctpDst,
    Field::IcmpType,
    Field::IcmpCode,
    Field::Icmpv6Type,
    Field::Icmpv6Code,
    Field::TcpFlags,
    Field::NdTarget,
    Field::NdSll,
    Field::NdTll,
    Field::NdReserved,
    Field::NdOptionsType,
];

/// Prints a match; `parse` reads it back as the same.
pub(super) fn print(matching: &Match) -> String {
    let memberships = matching.memberships().iter().collect();
    let mut printer = Printer { matching, left: matching.expand().1, memberships, items: Vec::new() };
    printer.fields(BEFORE_PROTOCOL);
    printer.protocol();
    let numbered = |of: fn(usize) -> Option<Field>| (0..).map_while(of).collect::<Vec<_>>();
    printer.fields(&numbered(Field::reg));
    printer.fields(BEHIND_PROTOCOL);
    printer.fields(&numbered(Field::tun_metadata));
    printer.vlan();
    printer.fields(HEADERS);
    printer.leftovers();
    printer.items.join(",")
}

struct Printer<'a> {
    matching: &'a Match,
    /// Bits not printed yet.
    left: FlowMask,
    /// Ranges and sets not printed yet.
    memberships: Vec<&'a Membership>,
    items: Vec<String>,
}

impl Printer<'_> {
    fn fields(&mut self, fields: &[Field]) {
        for field in fields {
            if self.matching.satisfies(field.info().prerequisites) {
                if self.left.get(*field) != 0 {
                    self.field(*field);
                }
                self.memberships_of(*field);
            }
        }
    }

    fn memberships_of(&mut self, field: Field) {
        for Membership { values, .. } in self.memberships.extract_if(.., |one| one.field.shares_place(field))
        {
            self.items.push(format!("{}={}", printed_name(field), membership::print(field, values)));
        }
    }

    fn field(&mut self, field: Field) {
        let (value, mask) = self.matching.get(field);
        self.left.remove(field, mask);
        self.items.push(match field {
            Field::IpDscp if mask == field.all_bits() => format!("nw_tos={}", value << 2),
            _ => format!("{}={}", printed_name(field), value::print(field, value, mask)),
        });
    }

    /// The shorthand for EtherType and protocol, where there is one.
    fn protocol(&mut self) {
        let whole = |field: Field| {
            let (value, mask) = self.matching.get(field);
            (mask == field.all_bits()).then_some(value)
        };
        let (eth_type, proto) = (whole(Field::EthType), whole(Field::NwProto));
        let find = |proto: Option<u128>| {
            names::PROTOCOLS
                .iter()
                .find(|(_, e, p)| Some((*e).into()) == eth_type && p.map(u128::from) == proto)
        };
        // `igmp` is read and not printed: dumps of OVS know it, its parser does not.
        let found = find(proto).filter(|_| proto.is_some_and(|proto| proto != 2)).or_else(|| find(None));
        let Some((name, _, proto)) = found else { return };
        self.items.push((*name).to_owned());
        self.left.remove(Field::EthType, Field::EthType.all_bits());
        if proto.is_some() {
            self.left.remove(Field::NwProto, Field::NwProto.all_bits());
        }
    }

    fn vlan(&mut self) {
        self.vlan_bits();
        self.fields(&[Field::VlanTci, Field::VlanVidOxm, Field::VlanVid, Field::VlanPcp]);
    }

    fn vlan_bits(&mut self) {
        let (value, mask) = self.matching.get(Field::VlanTci);
        if mask == 0 {
            return;
        }
        self.left.remove(Field::VlanTci, mask);
        let (vid, pcp) = (mask & 0xfff, mask & 0xe000);
        let is_plain = value & mask & PRESENT != 0
            && matches!(vid, 0 | 0xfff)
            && matches!(pcp, 0 | 0xe000)
            && (vid, pcp) != (0, 0);
        if !is_plain {
            return self.items.push(format!("vlan_tci={}", value::print(Field::VlanTci, value, mask)));
        }
        if vid != 0 {
            self.items.push(format!("dl_vlan={}", value & 0xfff));
        }
        if pcp != 0 {
            self.items.push(format!("dl_vlan_pcp={}", value >> 13));
        }
    }

    /// Bits whose prerequisites do not hold: no table takes such a match, but it has to
    /// be shown in the error that says so.
    fn leftovers(&mut self) {
        for field in Field::ALL {
            let bits = self.left.get(*field);
            if bits != 0 {
                let (value, _) = self.matching.get(*field);
                self.left.remove(*field, bits);
                self.items.push(format!("{field}={}", value::print(*field, value & bits, bits)));
            }
        }
        for Membership { field, values } in std::mem::take(&mut self.memberships) {
            self.items.push(format!("{field}={}", membership::print(*field, values)));
        }
    }
}

/// The name that dumps have for a field in a match.
fn printed_name(field: Field) -> &'static str {
    match field {
        Field::TcpSrc | Field::UdpSrc | Field::SctpSrc => "tp_src",
        Field::TcpDst | Field::UdpDst | Field::SctpDst => "tp_dst",
        Field::Icmpv6Type => "icmp_type",
        Field::Icmpv6Code => "icmp_code",
        Field::NwFrag => "nw_frag",
        _ => field.info().name,
    }
}
