//! Affinity of clients: `reg9[6] = chk_lb_aff();` asks which backend the client of a new
//! connection had last (its address is in `reg4` or `xxreg1` then, its port in
//! `reg1[0..15]`); `commit_lb_aff(vip="…", backend="…", proto=tcp, timeout=60);` has the switch
//! remember it, for as long as the client comes back within that many seconds.

use std::{fmt, net::IpAddr};

use flowtable::{
    field::{Field, SubField},
    flow::{Action, Learn, LearnSource, LearnSpec},
};

use super::lower::{Flow, Lowered, resubmit};
use crate::{
    expr::{
        ExprError, Notation, Operand,
        lexer::{Token, quote},
        parser::Parser,
    },
    lower::LB_AFFINITY,
    model::{Protocol, Vip},
};

/// Whether the client had a backend before.
const KNOWN: SubField = SubField { field: Field::Reg9, start: 6, n_bits: 1 };
/// The backend's port.
const PORT: SubField = SubField { field: Field::Reg1, start: 0, n_bits: 16 };
/// Clients that are remembered of each backend of a service, on a host. Those beyond it are
/// spread like new ones.
const MAX_CLIENTS: u32 = 16_384;

/// `chk_lb_aff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckAffinity;

impl CheckAffinity {
    /// What follows `reg9[6] = chk_lb_aff`.
    pub(super) fn parse(parser: &mut Parser, dst: Operand) -> Result<Self, ExprError> {
        if dst.place() != Some(KNOWN) {
            return Err(parser.error(format!("`chk_lb_aff` answers in `reg9[6]`, not in `{dst}`")));
        }
        parser.expect_mark("(")?;
        parser.expect_mark(")")?;
        Ok(Self)
    }

    pub(super) fn lower(self, out: &mut Lowered) {
        out.actions.push(Action::SetField { field: KNOWN.field, value: 0, mask: KNOWN.bits() });
        out.actions.push(resubmit(LB_AFFINITY));
    }
}

impl fmt::Display for CheckAffinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("reg9[6] = chk_lb_aff();")
    }
}

/// `commit_lb_aff`: the client of the packet has this backend from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitAffinity {
    /// The service.
    pub(crate) vip: Vip,
    /// The backend.
    pub(crate) backend: Vip,
    /// Protocol of a service that has a port.
    pub(crate) protocol: Protocol,
    /// Seconds.
    pub(crate) timeout: u16,
}

impl CommitAffinity {
    /// What follows `commit_lb_aff`.
    pub(super) fn parse(parser: &mut Parser) -> Result<Self, ExprError> {
        let (mut vip, mut backend, mut timeout) = (None, None, None);
        let mut protocol = Protocol::default();
        parser.expect_mark("(")?;
        loop {
            let position = parser.position();
            let key = parser.take();
            parser.expect_mark("=")?;
            let known = match (key, parser.take()) {
                (Token::Name(key), Token::Text(text)) if key == "vip" => {
                    vip = endpoint(&text);
                    vip.is_some()
                }
                (Token::Name(key), Token::Text(text)) if key == "backend" => {
                    backend = endpoint(&text);
                    backend.is_some()
                }
                (Token::Name(key), Token::Name(name)) if key == "proto" => {
                    let found = Protocol::ALL.into_iter().find(|known| known.name() == name);
                    protocol = found.unwrap_or_default();
                    found.is_some()
                }
                (Token::Name(key), Token::Constant(number, Notation::Decimal)) if key == "timeout" => {
                    timeout = u16::try_from(number).ok().filter(|timeout| *timeout > 0);
                    timeout.is_some()
                }
                _ => false,
            };
            if !known {
                let reason = "expected `vip=`, `backend=`, `proto=` or `timeout=`, each with its value";
                return Err(ExprError::new(position, reason));
            }
            if !parser.take_mark(",") {
                break;
            }
        }
        parser.expect_mark(")")?;
        match (vip, backend, timeout) {
            (Some(vip), Some(backend), Some(timeout)) if vip.ip.is_ipv4() == backend.ip.is_ipv4() => {
                Ok(Self { vip, backend, protocol, timeout })
            }
            _ => {
                Err(parser.error("`commit_lb_aff` needs `vip=` and `backend=` of one family, and `timeout=`"))
            }
        }
    }

    pub(super) fn lower(&self, flow: &Flow<'_>, out: &mut Lowered) {
        let given =
            |field, value| LearnSpec::Match { dst: SubField::whole(field), src: LearnSource::Value(value) };
        let same = |field| LearnSpec::Match {
            dst: SubField::whole(field),
            src: LearnSource::Field(SubField::whole(field)),
        };
        let load = |dst, value| LearnSpec::Load { dst, src: LearnSource::Value(value) };
        let value = |ip| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let (eth_type, src, dst, place) = match self.vip.ip {
            IpAddr::V4(_) => (0x800, Field::NwSrc, Field::NwDst, Field::Reg4),
            IpAddr::V6(_) => (0x86dd, Field::Ipv6Src, Field::Ipv6Dst, Field::Xxreg1),
        };
        let mut specs = vec![same(Field::Metadata), given(Field::EthType, eth_type), same(src)];
        specs.push(given(dst, value(self.vip.ip)));
        if let Some(port) = self.vip.port {
            let (number, field) = match self.protocol {
                Protocol::Tcp => (6, Field::TcpDst),
                Protocol::Udp => (17, Field::UdpDst),
                Protocol::Sctp => (132, Field::SctpDst),
            };
            specs.extend([given(Field::NwProto, number), given(field, port.into())]);
        }
        specs.push(load(SubField::whole(place), value(self.backend.ip)));
        specs.extend(self.backend.port.map(|port| load(PORT, port.into())));
        specs.push(load(KNOWN, 1));
        let learn = Learn {
            table: LB_AFFINITY,
            cookie: flow.number.into(),
            idle_timeout: self.timeout,
            limit: MAX_CLIENTS,
            specs,
            ..Learn::default()
        };
        out.actions.push(Action::Learn(Box::new(learn)));
    }
}

impl fmt::Display for CommitAffinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vip, backend, protocol, timeout } = self;
        let (vip_text, backend) = (quote(&vip.to_string()), quote(&backend.to_string()));
        write!(f, "commit_lb_aff(vip={vip_text}, backend={backend}")?;
        if vip.port.is_some() {
            write!(f, ", proto={}", protocol.name())?;
        }
        write!(f, ", timeout={timeout});")
    }
}

fn endpoint(text: &str) -> Option<Vip> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Vip { ip, port: None });
    }
    text.parse::<std::net::SocketAddr>().ok().map(|socket| Vip { ip: socket.ip(), port: Some(socket.port()) })
}
