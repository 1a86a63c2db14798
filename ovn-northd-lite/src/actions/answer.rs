//! Actions by the host's responder: packets it makes in answer to one
//! (`icmp4 { … };`), and questions it asks for one (`arp { … };`). The actions in braces
//! are those of the packet it makes; they become a rule of their own, which that packet
//! is sent to.

use std::fmt;

use flowtable::{
    field::Field,
    flow::{Action, Match, ToController},
};

use super::{
    Statement, length,
    lower::{Flow, Lowered, list},
    print,
};
use crate::{
    expr::{ExprError, lexer::Token, parser::Parser},
    lower::CONTINUATION,
    punt::{Request, Service},
};

/// Register with the number of a continuation.
pub(super) const NUMBER: Field = crate::punt::CONTINUATION_REGISTER;

/// A packet for the responder, and what it does with the one it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub(super) service: Service,
    /// MTU that an ICMP error tells of.
    pub(super) mtu: Option<u16>,
    pub(super) inner: Vec<Statement>,
}

/// The rule that takes a packet which the responder makes.
#[derive(Debug, Clone)]
pub(crate) struct Continuation {
    pub(crate) matching: Match,
    pub(crate) actions: Vec<Action>,
}

/// Services with actions in braces.
pub(super) fn service(name: &str) -> Option<Service> {
    let found = Service::ALL.iter().find(|(_, known)| *known == name).map(|(service, _)| *service);
    found.filter(|service| {
        use Service::{Arp, Icmp4, Icmp6, Reject, Solicitation, TcpReset};
        matches!(service, Arp | Solicitation | Icmp4 | Icmp6 | TcpReset | Reject)
    })
}

impl Answer {
    /// `(mtu=1400)`, behind `icmp4` and `icmp6`, if it is there.
    pub(super) fn mtu(parser: &mut Parser, service: Service) -> Result<Option<u16>, ExprError> {
        if !matches!(service, Service::Icmp4 | Service::Icmp6) || !parser.take_mark("(") {
            return Ok(None);
        }
        match parser.take() {
            Token::Name(name) if name == "mtu" => {}
            other => return Err(parser.error(format!("expected `mtu=`, not {}", other.describe()))),
        }
        parser.expect_mark("=")?;
        let mtu = length::short(parser)?;
        parser.expect_mark(")")?;
        Ok(Some(mtu))
    }

    /// # Errors
    /// What the inner actions name does not exist.
    pub(super) fn lower(&self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let inner = Flow { table: CONTINUATION, ..*flow };
        let mut continued = Lowered::default();
        list(&self.inner, &inner, &mut continued)?;
        if self.service == Service::Reject {
            // It goes back to where the packet came from, be it by a tunnel.
            let forget = Action::SetField { field: Field::InPort, value: 0, mask: Field::InPort.all_bits() };
            continued.actions.insert(0, forget);
        }
        let actions = out.absorb(continued)?;
        for protocol in self.packets() {
            let matching =
                protocol.iter().fold(Match::any(), |matching, (field, value)| matching.with(*field, *value));
            let matching = matching.with(NUMBER, flow.number.into());
            out.continuations.push(Continuation { matching, actions: actions.clone() });
        }
        let (continuation, table) = (flow.number, flow.table.get());
        let mut userdata = Request { service: self.service, continuation, table }.encode();
        userdata.extend(self.mtu.iter().flat_map(|mtu| mtu.to_be_bytes()));
        out.actions.push(Action::Meter((flow.meter)(self.service)));
        out.actions.push(Action::Controller(Box::new(ToController { userdata, ..ToController::default() })));
        Ok(())
    }

    /// What the packet that is made can be.
    fn packets(&self) -> Vec<Vec<(Field, u128)>> {
        let (eth, proto) = (Field::EthType, Field::NwProto);
        match self.service {
            Service::Arp => vec![vec![(eth, 0x806)]],
            Service::Icmp4 => vec![vec![(eth, 0x800), (proto, 1)]],
            Service::Icmp6 => vec![vec![(eth, 0x86dd), (proto, 58)]],
            Service::Solicitation => {
                vec![vec![(eth, 0x86dd), (proto, 58), (Field::Icmpv6Type, 135), (Field::Icmpv6Code, 0)]]
            }
            Service::TcpReset => {
                // What the actions write tells which packets they are for.
                let text = print(&self.inner);
                let families = [("ip6.", 0x800), ("ip4.", 0x86dd)];
                let meant = families.into_iter().filter(|(other, _)| !text.contains(other));
                meant.map(|(_, eth_type)| vec![(eth, eth_type), (proto, 6)]).collect()
            }
            // Whatever it is, it is turned around already, and nothing of it is written.
            Service::Reject => vec![Vec::new()],
            Service::LearnArp
            | Service::LearnNd
            | Service::DhcpV4
            | Service::DhcpV6
            | Service::Dns
            | Service::Advertise
            | Service::HealthCheck
            | Service::BindVirtual
            | Service::Igmp
            | Service::BfdMessage
            | Service::Activation
            | Service::DhcpRelay
            | Service::Bfd => Vec::new(),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mtu = self.mtu.map(|mtu| format!("(mtu={mtu})")).unwrap_or_default();
        write!(f, "{}{mtu} {{ {} }};", self.service.name(), print(&self.inner))
    }
}
