//! Services by the host's responder that turn a packet into its answer:
//! `reg0[3] = put_dhcp_opts(…);`, `put_dhcpv6_opts`, `dns_lookup`, `put_nd_ra_opts`; and
//! `reg0[14] = igmp();`, where the bit says whether somebody asks what others hear. The
//! packet waits for the responder; then the rest of the list goes on with the answer and
//! the bit set, or with the packet as it was and the bit clear.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use flowtable::{
    field::SubField,
    flow::{Action, Match, ToController},
    types::MacAddr,
};

use super::{
    Statement,
    answer::{Continuation, NUMBER},
    lower::{Flow, Lowered, list, place},
};
use crate::{
    advertisement::Advertised,
    dhcp::{OfferV4, OfferV6, OptionV4, OptionV6, Relay, Toward, Value},
    expr::{
        ExprError, Operand,
        lexer::{Token, print_number},
        parser::Parser,
    },
    lower::CONTINUATION,
    punt::{ANSWERED, Request, Service},
};

/// A packet for the responder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// A bit that says whether the packet is the answer now.
    dst: Operand,
    what: What,
}

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    DhcpV4 { ip: Ipv4Addr, options: BTreeMap<OptionV4, Value> },
    DhcpV6 { ip: Option<Ipv6Addr>, server: MacAddr, options: BTreeMap<OptionV6, Value> },
    Dns,
    Igmp,
    Advertise(Box<Advertised>),
    Relay(Relay),
}

/// The two ways of a relay.
const TO_SERVER: &str = "dhcp_relay_req_chk";
const TO_CLIENT: &str = "dhcp_relay_resp_chk";

/// The functions, by name.
pub(super) const FUNCTIONS: [(&str, Service); 7] = [
    (TO_SERVER, Service::DhcpRelay),
    (TO_CLIENT, Service::DhcpRelay),
    ("igmp", Service::Igmp),
    ("put_dhcp_opts", Service::DhcpV4),
    ("put_dhcpv6_opts", Service::DhcpV6),
    ("dns_lookup", Service::Dns),
    ("put_nd_ra_opts", Service::Advertise),
];

impl Serve {
    /// What follows `field = put_dhcp_opts`, and so on.
    pub(super) fn parse(
        parser: &mut Parser,
        dst: Operand,
        (name, service): (&str, Service),
    ) -> Result<Self, ExprError> {
        let position = parser.position();
        let wrong = |reason: String| ExprError::new(position, reason);
        if dst.is_port() || dst.place().is_none_or(|place| place.n_bits != 1) {
            return Err(wrong(format!("`{dst}` is not one bit")));
        }
        let arguments = arguments(parser)?;
        let what = match service {
            Service::DhcpV4 => v4(&arguments).map_err(wrong)?,
            Service::DhcpV6 => v6(&arguments).map_err(wrong)?,
            Service::Advertise => What::Advertise(Box::new(Advertised::parse(&arguments).map_err(wrong)?)),
            Service::DhcpRelay => relay(name, &arguments).map_err(wrong)?,
            Service::Igmp if arguments.is_empty() => What::Igmp,
            Service::Dns if arguments.is_empty() => What::Dns,
            _ => return Err(wrong("it has no arguments".to_owned())),
        };
        Ok(Self { dst, what })
    }

    fn service(&self) -> Service {
        match self.what {
            What::DhcpV4 { .. } => Service::DhcpV4,
            What::DhcpV6 { .. } => Service::DhcpV6,
            What::Dns => Service::Dns,
            What::Igmp => Service::Igmp,
            What::Advertise(_) => Service::Advertise,
            What::Relay(_) => Service::DhcpRelay,
        }
    }

    /// What the responder has to know.
    fn payload(&self) -> Result<Vec<u8>, String> {
        let text = |error: crate::dhcp::OptionError| error.to_string();
        Ok(match &self.what {
            What::DhcpV4 { ip, options } => OfferV4::new(*ip, options).map_err(text)?.encode(),
            What::DhcpV6 { ip, server, options } => {
                OfferV6::new(*ip, *server, options).map_err(text)?.encode()
            }
            What::Dns | What::Igmp => Vec::new(),
            What::Advertise(advertised) => advertised.message(),
            What::Relay(relay) => relay.encode(),
        })
    }

    /// The rest of the list is that of the packet that comes back.
    ///
    /// # Errors
    /// What the rest names does not exist, or it has a packet for the responder itself.
    pub(super) fn lower(&self, rest: &[Statement], flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        let inner = Flow { table: CONTINUATION, ..*flow };
        let mut continued = Lowered::default();
        continued.actions.push(Action::Move { src: ANSWERED, dst: place(&self.dst)? });
        continued.actions.push(clear(ANSWERED));
        list(rest, &inner, &mut continued)?;
        if !continued.continuations.is_empty() {
            return Err("one flow can ask the host once".to_owned());
        }
        let actions = out.absorb(continued)?;
        let matching = Match::any().with(NUMBER, flow.number.into());
        out.continuations.push(Continuation { matching, actions });
        let request = Request { service: self.service(), continuation: flow.number, table: flow.table.get() };
        let userdata = [request.encode(), self.payload()?].concat();
        out.actions.push(Action::Meter((flow.meter)(self.service())));
        out.actions.push(Action::Controller(Box::new(ToController { userdata, ..ToController::default() })));
        Ok(())
    }
}

fn clear(place: SubField) -> Action {
    Action::SetField { field: place.field, value: 0, mask: place.bits() }
}

fn v4(arguments: &[(String, String)]) -> Result<What, String> {
    let (mut ip, mut options) = (None, BTreeMap::new());
    for (name, text) in arguments {
        if name == "offerip" {
            ip = Some(text.parse().map_err(|_| format!("`{text}` is not an IPv4 address"))?);
            continue;
        }
        let option = OptionV4::named(name).map_err(|error| error.to_string())?;
        options.insert(option, option.parse(text).map_err(|error| error.to_string())?);
    }
    let ip = ip.ok_or("put_dhcp_opts needs `offerip`")?;
    Ok(What::DhcpV4 { ip, options })
}

fn v6(arguments: &[(String, String)]) -> Result<What, String> {
    let (mut ip, mut server, mut options) = (None, None, BTreeMap::new());
    for (name, text) in arguments {
        match name.as_str() {
            "ia_addr" => ip = Some(text.parse().map_err(|_| format!("`{text}` is not an IPv6 address"))?),
            "server_id" => server = Some(text.parse().map_err(|_| format!("`{text}` is not a MAC address"))?),
            _ => {
                let option = OptionV6::named(name).map_err(|error| error.to_string())?;
                options.insert(option, option.parse(text).map_err(|error| error.to_string())?);
            }
        }
    }
    let server = server.ok_or("put_dhcpv6_opts needs `server_id`")?;
    Ok(What::DhcpV6 { ip, server, options })
}

fn relay(name: &str, arguments: &[(String, String)]) -> Result<What, String> {
    let toward = if name == TO_CLIENT { Toward::Client } else { Toward::Server };
    let address = |wanted: &str| {
        let found = arguments.iter().find(|(name, _)| name == wanted);
        let (_, text) = found.ok_or_else(|| format!("{name} needs `{wanted}`"))?;
        text.parse().map_err(|_| format!("`{text}` is not an IPv4 address"))
    };
    if arguments.len() != 2 {
        return Err(format!("{name} takes `relay` and `server`"));
    }
    Ok(What::Relay(Relay { toward, relay: address("relay")?, server: address("server")? }))
}

/// `(name = value, …)`: values as text, with the quotes of quoted ones.
fn arguments(parser: &mut Parser) -> Result<Vec<(String, String)>, ExprError> {
    let mut found = Vec::new();
    parser.expect_mark("(")?;
    while !parser.take_mark(")") {
        if !found.is_empty() {
            parser.expect_mark(",")?;
        }
        let Token::Name(name) = parser.take() else {
            return Err(parser.error("expected the name of an argument"));
        };
        parser.expect_mark("=")?;
        found.push((name, value(parser)?));
    }
    Ok(found)
}

/// Everything up to the next comma or bracket that is not in braces.
fn value(parser: &mut Parser) -> Result<String, ExprError> {
    let (mut text, mut is_list) = (String::new(), false);
    loop {
        match parser.peek() {
            Token::Punctuation("," | ")") if !is_list => break,
            Token::End => return Err(parser.error("the argument has no end")),
            _ => {}
        }
        match parser.take() {
            Token::Text(inner) => text.push_str(&format!("\"{inner}\"")),
            Token::Constant(number, notation) => text.push_str(&print_number(number, notation)),
            Token::Name(name) => text.push_str(&name),
            Token::Punctuation(mark) => {
                text.push_str(mark);
                match mark {
                    "{" => is_list = true,
                    "}" => is_list = false,
                    _ => {}
                }
            }
            other => return Err(parser.error(format!("{} is not part of a value", other.describe()))),
        }
    }
    if text.is_empty() { Err(parser.error("expected a value")) } else { Ok(text) }
}

impl fmt::Display for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service();
        let name = match &self.what {
            What::Relay(Relay { toward: Toward::Client, .. }) => TO_CLIENT,
            _ => FUNCTIONS.iter().find(|(_, known)| *known == service).map_or("", |(name, _)| name),
        };
        let arguments: Vec<(&str, String)> = match &self.what {
            What::DhcpV4 { ip, options } => {
                let options = options.iter().map(|(option, value)| (option.name(), value.print()));
                std::iter::once(("offerip", ip.to_string())).chain(options).collect()
            }
            What::DhcpV6 { ip, server, options } => {
                let options = options.iter().map(|(option, value)| (option.name(), value.print()));
                let ip = ip.map(|ip| ("ia_addr", ip.to_string()));
                let server = ("server_id", server.to_string());
                ip.into_iter().chain([server]).chain(options).collect()
            }
            What::Dns | What::Igmp => Vec::new(),
            What::Advertise(advertised) => advertised.arguments(),
            What::Relay(relay) => {
                vec![("relay", relay.relay.to_string()), ("server", relay.server.to_string())]
            }
        };
        let arguments: Vec<_> = arguments.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        write!(f, "{} = {name}({});", self.dst, arguments.join(", "))
    }
}
