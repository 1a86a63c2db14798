//! Actions that choose among several: `ct_lb_mark` a backend, `select` a route.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use flowtable::{
    conntrack::{Nat, NatKind, NatOrder, NatRange},
    field::Field,
    flow::{Action, Ct},
    group::{Bucket, Group, GroupKind, Selection, SelectionMethod},
    types::{BucketId, GroupId, TableId},
};

use super::lower::{Flow, Lowered, place, resubmit};
use crate::{
    expr::{ExprError, Notation, Operand, lexer::Token, lexer::quote, parser::Parser},
    template,
};

/// Bit of `ct_mark` that says that the destination was translated (OVN's).
const NATTED: u128 = 1 << 1;

/// What routers do to the sources of a connection, with its words in texts, and its bits of
/// `ct_mark` and of the flags.
const SOURCES: &[(&str, u128, u128)] = &[("skip_snat", 1 << 2, 1 << 9), ("force_snat", 1 << 3, 1 << 3)];

/// `ct_lb_mark;` translates as the connection has it; with backends, a new connection gets
/// one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// Addresses with ports, or all without.
    pub(super) backends: Vec<(IpAddr, Option<u16>)>,
    /// Names of variables that have more of them; there is none when it is lowered.
    pub(super) variables: Vec<String>,
    /// What is hashed; empty: addresses, protocol and ports.
    pub(super) hash_fields: Vec<String>,
    /// Which of [`SOURCES`].
    pub(super) source: Option<&'static str>,
}

/// `field = select(1, 2);`, `field = select(values=(1, 2); hash_fields="ip_src");`: writes one
/// of the numbers and goes on in the next stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    pub(super) dst: Operand,
    pub(super) members: Vec<u16>,
    /// What is hashed; empty: addresses, protocol and ports.
    pub(super) hash_fields: Vec<String>,
}

/// Fields of the key by their names in `hash_fields`, for each protocol.
const HASHED: &[(&str, &[Field])] = &[
    ("ip_src", &[Field::NwSrc, Field::Ipv6Src]),
    ("ip_dst", &[Field::NwDst, Field::Ipv6Dst]),
    ("tp_src", &[Field::TcpSrc, Field::UdpSrc, Field::SctpSrc]),
    ("tp_dst", &[Field::TcpDst, Field::UdpDst, Field::SctpDst]),
];

impl Balance {
    /// What follows `ct_lb_mark`.
    pub(super) fn parse(parser: &mut Parser) -> Result<Self, ExprError> {
        let mut balance = Self::default();
        if !parser.take_mark("(") {
            return Ok(balance);
        }
        loop {
            let position = parser.position();
            let Token::Name(key) = parser.take() else {
                return Err(ExprError::new(position, "expected `backends=` or `hash_fields=`"));
            };
            if let Some((word, ..)) = SOURCES.iter().find(|(word, ..)| *word == key) {
                balance.source = Some(word);
                break;
            }
            parser.expect_mark("=")?;
            let position = parser.position();
            let Token::Text(text) = parser.take() else {
                return Err(ExprError::new(position, "expected a list in quotes"));
            };
            let wrong = |what: &str| ExprError::new(position, format!("`{what}` is not one of {key}"));
            for part in text.split(',') {
                match key.as_str() {
                    "backends" if template::variable(part).is_some() => {
                        balance.variables.push(part.to_owned())
                    }
                    "backends" => balance.backends.push(endpoint(part).ok_or_else(|| wrong(part))?),
                    "hash_fields" if HASHED.iter().any(|(name, _)| *name == part) => {
                        balance.hash_fields.push(part.to_owned());
                    }
                    _ => return Err(wrong(part)),
                }
            }
            if !parser.take_mark(";") {
                break;
            }
        }
        parser.expect_mark(")")?;
        Ok(balance)
    }

    /// # Errors
    /// The group cannot be numbered, or there is no next stage.
    pub(super) fn lower(&self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let table = flow.next()?;
        if let Some(variable) = self.variables.first() {
            return Err(format!("`{variable}` has no values here"));
        }
        if self.backends.is_empty() {
            let zone = flow.balance_zone();
            let ct = Ct { table: Some(table), zone, nat: Some(Nat::Existing), ..Ct::default() };
            out.actions.push(Action::Ct(Box::new(ct)));
            return Ok(());
        }
        let ids = ids(self.backends.iter().map(Self::text));
        let buckets = self.backends.iter().zip(ids);
        let buckets = buckets.map(|(backend, id)| Bucket::new(id, vec![self.commit(flow, *backend, table)]));
        let selection = selection(&self.hash_fields);
        let id = group_id(flow.number)?;
        out.groups.push(Group::new(id, GroupKind::Select(selection), buckets.collect()));
        let flag = SOURCES.iter().find(|(word, ..)| Some(*word) == self.source).map(|(_, _, flag)| *flag);
        out.actions.extend(flag.map(|flag| Action::SetField {
            field: Field::Reg10,
            value: flag,
            mask: flag,
        }));
        out.actions.push(Action::Group(id));
        Ok(())
    }

    fn commit(&self, flow: &Flow<'_>, (ip, port): (IpAddr, Option<u16>), table: TableId) -> Action {
        let range = NatRange {
            kind: NatKind::Destination,
            addresses: Some((ip, ip)),
            ports: port.map(|port| (port, port)),
            order: NatOrder::Keep,
            persistent: false,
        };
        let source = SOURCES.iter().find(|(word, ..)| Some(*word) == self.source);
        let mark = NATTED | source.map_or(0, |(_, mark, _)| *mark);
        Action::Ct(Box::new(Ct {
            commit: true,
            table: Some(table),
            zone: flow.balance_zone(),
            nat: Some(Nat::New(range)),
            exec: vec![Action::SetField { field: Field::CtMark, value: mark, mask: mark }],
            ..Ct::default()
        }))
    }

    fn text((ip, port): &(IpAddr, Option<u16>)) -> String {
        match (ip, port) {
            (ip, None) => ip.to_string(),
            (IpAddr::V4(ip), Some(port)) => format!("{ip}:{port}"),
            (IpAddr::V6(ip), Some(port)) => format!("[{ip}]:{port}"),
        }
    }
}

/// How a group chooses by these fields.
fn selection(names: &[String]) -> Selection {
    let fields = HASHED.iter().filter(|(name, _)| names.iter().any(|wanted| wanted == name));
    let fields: Vec<_> =
        fields.flat_map(|(_, fields)| *fields).map(|field| (*field, field.all_bits())).collect();
    let method = if fields.is_empty() { SelectionMethod::Default } else { SelectionMethod::Hash };
    Selection { method, param: 0, fields }
}

fn endpoint(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip, None));
    }
    text.parse::<std::net::SocketAddr>().ok().map(|socket| (socket.ip(), Some(socket.port())))
}

impl Select {
    /// What follows `field = select`.
    pub(super) fn parse(parser: &mut Parser, dst: Operand) -> Result<Self, ExprError> {
        parser.expect_mark("(")?;
        let has_fields = matches!(parser.peek(), Token::Name(name) if name == "values");
        if has_fields {
            parser.take();
            parser.expect_mark("=")?;
            parser.expect_mark("(")?;
        }
        let members = Self::members(parser)?;
        let hash_fields = if has_fields { Self::hash_fields(parser)? } else { Vec::new() };
        parser.expect_mark(")")?;
        Ok(Self { dst, members, hash_fields })
    }

    /// What follows `values=(1, 2`.
    fn hash_fields(parser: &mut Parser) -> Result<Vec<String>, ExprError> {
        parser.expect_mark(")")?;
        parser.expect_mark(";")?;
        let position = parser.position();
        let is_named = parser.take() == Token::Name("hash_fields".to_owned());
        parser.expect_mark("=")?;
        let names: Vec<String> = match parser.take() {
            Token::Text(text) => text.split(',').map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let is_known = |name: &String| HASHED.iter().any(|(known, _)| known == name);
        if is_named && !names.is_empty() && names.iter().all(is_known) {
            return Ok(names);
        }
        let known: Vec<_> = HASHED.iter().map(|(name, _)| *name).collect();
        Err(ExprError::new(position, format!("expected `hash_fields=` with some of {}", known.join(", "))))
    }

    /// Numbers, up to something else.
    fn members(parser: &mut Parser) -> Result<Vec<u16>, ExprError> {
        let mut members = Vec::new();
        loop {
            let position = parser.position();
            match parser.take() {
                Token::Constant(number, Notation::Decimal) if number <= 0xffff => members.push(number as u16),
                other => {
                    return Err(ExprError::new(
                        position,
                        format!("expected a number below 65536, not {}", other.describe()),
                    ));
                }
            }
            if !parser.take_mark(",") {
                return Ok(members);
            }
        }
    }

    /// # Errors
    /// The group cannot be numbered, or there is no next stage.
    pub(super) fn lower(&self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let (place, table) = (place(&self.dst)?, flow.next()?);
        let bucket = |member: &u16| {
            let id = BucketId::new(u32::from(*member)).map_err(|error| error.to_string())?;
            let value = u128::from(*member) << place.start;
            let set = Action::SetField { field: place.field, value, mask: place.bits() };
            Ok(Bucket::new(id, vec![set, resubmit(table)]))
        };
        let buckets = self.members.iter().map(bucket).collect::<Result<_, String>>()?;
        let id = group_id(flow.number)?;
        out.groups.push(Group::new(id, GroupKind::Select(selection(&self.hash_fields)), buckets));
        out.actions.push(Action::Group(id));
        Ok(())
    }
}

fn group_id(number: u32) -> Result<GroupId, String> {
    GroupId::new(number).map_err(|error| error.to_string())
}

/// Numbers of buckets that depend on each bucket alone, so that a backend which comes or
/// goes moves no client of another.
fn ids(texts: impl Iterator<Item = String>) -> Vec<BucketId> {
    let mut taken = BTreeSet::new();
    texts
        .filter_map(|text| {
            let mut raw = crate::key::hash32(text.as_bytes()) >> 1;
            while !taken.insert(raw) {
                raw = (raw + 1) & 0x7fff_ffff;
            }
            BucketId::new(raw).ok()
        })
        .collect()
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ct_lb_mark")?;
        let list: Vec<_> =
            self.backends.iter().map(Self::text).chain(self.variables.iter().cloned()).collect();
        if !list.is_empty() {
            let list = list.join(",");
            write!(f, "(backends={}", quote(&list))?;
            if !self.hash_fields.is_empty() {
                write!(f, "; hash_fields={}", quote(&self.hash_fields.join(",")))?;
            }
            if let Some(source) = self.source {
                write!(f, "; {source}")?;
            }
            f.write_str(")")?;
        }
        f.write_str(";")
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> = self.members.iter().map(ToString::to_string).collect();
        let members = members.join(", ");
        if self.hash_fields.is_empty() {
            return write!(f, "{} = select({members});", self.dst);
        }
        let fields = quote(&self.hash_fields.join(","));
        write!(f, "{} = select(values=({members}); hash_fields={fields});", self.dst)
    }
}
