//! Who has an address: `get_arp` and `get_nd` look the MAC address up, `lookup_arp` and
//! `lookup_nd` ask whether it is known, `lookup_arp_ip` whether any is, `put_arp` and `put_nd` have
//! the host's responder remember it, for so many seconds if they say so.

use std::fmt;

use flowtable::{
    field::{Field, SubField},
    flow::{Action, ToController},
};

use super::{
    length::short,
    lower::{Flow, Lowered, place, resubmit},
};
use crate::{
    expr::{ExprError, Operand, parser::Parser},
    lower::{GET_NEIGHBOUR, LOOKUP_NEIGHBOUR},
    punt::{NEIGHBOUR_ADDRESS as ADDRESS, NEIGHBOUR_MAC as MAC, NEIGHBOUR_PORT as PORT, Request, Service},
};

/// Where the lookup's result is: a flag, as in OVN.
pub(crate) const KNOWN: SubField = SubField { field: Field::Reg10, start: 6, n_bits: 1 };
/// One of the actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// `get_arp(outport, reg0);`: `eth.dst` becomes the address's, or zero.
    Get {
        /// Port, IP address.
        of: [Operand; 2],
    },
    /// `field = lookup_arp(inport, arp.spa, arp.sha);`
    Lookup {
        /// A bit that says whether just this is known.
        dst: Operand,
        /// Port, IP address, MAC address.
        of: [Operand; 3],
    },
    /// `field = lookup_arp_ip(inport, arp.spa);`
    LookupIp {
        /// A bit that says whether any MAC address is known.
        dst: Operand,
        /// Port, IP address.
        of: [Operand; 2],
    },
    /// `put_arp(inport, arp.spa, arp.sha);`, `put_arp(inport, arp.spa, arp.sha, 60);`
    Put {
        /// Port, IP address, MAC address.
        of: [Operand; 3],
        /// Seconds; 0: for ever. `None`: as long as usual.
        age: Option<u16>,
    },
}

impl Neighbour {
    /// What follows `get_arp` or `get_nd`.
    pub(super) fn get(parser: &mut Parser) -> Result<Self, ExprError> {
        Ok(Self::Get { of: operands(parser)? })
    }

    /// What follows `put_arp` or `put_nd`.
    pub(super) fn put(parser: &mut Parser) -> Result<Self, ExprError> {
        let of = first_operands(parser)?;
        let age = if parser.take_mark(",") { Some(short(parser)?) } else { None };
        parser.expect_mark(")")?;
        Ok(Self::Put { of, age })
    }

    /// What follows `field = lookup_arp`.
    pub(super) fn lookup(parser: &mut Parser, dst: Operand) -> Result<Self, ExprError> {
        Ok(Self::Lookup { dst, of: operands(parser)? })
    }

    /// What follows `field = lookup_arp_ip`.
    pub(super) fn lookup_ip(parser: &mut Parser, dst: Operand) -> Result<Self, ExprError> {
        Ok(Self::LookupIp { dst, of: operands(parser)? })
    }

    /// # Errors
    /// An operand is no field.
    pub(super) fn lower(self, flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
        match self {
            Self::Get { of: [port, ip] } => {
                load(out, port, ip)?;
                out.actions.push(clear(Field::EthDst));
                out.actions.push(resubmit(GET_NEIGHBOUR));
                forget(out);
            }
            Self::Lookup { dst, of: [port, ip, mac] } => {
                load(out, port, ip)?;
                out.actions.push(Action::Move { src: place(&mac)?, dst: MAC });
                known(out, &dst)?;
            }
            Self::LookupIp { dst, of: [port, ip] } => {
                // No neighbour has the MAC address zero: rules with it are about the IP address.
                load(out, port, ip)?;
                out.actions.push(Action::SetField { field: MAC.field, value: 0, mask: MAC.bits() });
                known(out, &dst)?;
            }
            Self::Put { of: [port, ip, mac], age } => {
                let is_v4 = place(&ip)?.n_bits == 32;
                let service = if is_v4 { Service::LearnArp } else { Service::LearnNd };
                let mut userdata = Request { service, continuation: 0, table: flow.table.get() }.encode();
                userdata.extend(age.map(u16::to_be_bytes).into_iter().flatten());
                let mut saved = Lowered::default();
                load(&mut saved, port, ip)?;
                saved.actions.push(Action::Move { src: place(&mac)?, dst: MAC });
                saved.actions.push(Action::Meter((flow.meter)(service)));
                let punt = ToController { userdata, ..ToController::default() };
                saved.actions.push(Action::Controller(Box::new(punt)));
                out.actions.push(Action::Clone(saved.actions));
            }
        }
        Ok(())
    }

    fn is_v4(&self) -> bool {
        let (Self::Get { of: [_, ip] }
        | Self::LookupIp { of: [_, ip], .. }
        | Self::Lookup { of: [_, ip, _], .. }
        | Self::Put { of: [_, ip, _], .. }) = self;
        ip.place().is_some_and(|place| place.n_bits == 32)
    }
}

/// Puts port and address where the tables of neighbours look for them.
fn load(out: &mut Lowered, port: Operand, ip: Operand) -> Result<(), String> {
    let ip = place(&ip)?;
    out.actions.push(Action::Move { src: place(&port)?, dst: SubField::whole(PORT) });
    out.actions.push(clear(ADDRESS));
    out.actions.push(Action::Move { src: ip, dst: SubField { field: ADDRESS, start: 0, n_bits: ip.n_bits } });
    Ok(())
}

/// Looks up whether what is loaded is known.
fn known(out: &mut Lowered, dst: &Operand) -> Result<(), String> {
    out.actions.push(Action::SetField { field: KNOWN.field, value: 0, mask: KNOWN.bits() });
    out.actions.push(resubmit(LOOKUP_NEIGHBOUR));
    out.actions.push(Action::Move { src: KNOWN, dst: place(dst)? });
    forget(out);
    Ok(())
}

/// Clears what a lookup has used: nothing later depends on it.
fn forget(out: &mut Lowered) {
    out.actions.extend([PORT, ADDRESS, MAC.field].map(clear));
}

fn clear(field: Field) -> Action {
    Action::SetField { field, value: 0, mask: field.all_bits() }
}

/// `(port, address)` or `(port, address, mac)`.
fn operands<const N: usize>(parser: &mut Parser) -> Result<[Operand; N], ExprError> {
    let found = first_operands(parser)?;
    parser.expect_mark(")")?;
    Ok(found)
}

/// The same, up to what follows them.
fn first_operands<const N: usize>(parser: &mut Parser) -> Result<[Operand; N], ExprError> {
    parser.expect_mark("(")?;
    let mut found = Vec::with_capacity(N);
    for idx in 0..N {
        if idx > 0 {
            parser.expect_mark(",")?;
        }
        let position = parser.position();
        let operand = parser.operand()?;
        let fits = match (idx, operand.place().map(|place| place.n_bits)) {
            (0, _) => operand.is_port(),
            (1, Some(n_bits)) => !operand.is_port() && matches!(n_bits, 32 | 128),
            (_, Some(n_bits)) => n_bits == 48,
            (_, None) => false,
        };
        if !fits {
            let wanted = ["a port", "an IP address", "a MAC address"].get(idx).copied().unwrap_or_default();
            return Err(ExprError::new(position, format!("`{operand}` is not {wanted}")));
        }
        found.push(operand);
    }
    found.try_into().map_err(|_| parser.error("too few arguments"))
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_v4() { "arp" } else { "nd" };
        match self {
            Self::Get { of: [port, ip] } => write!(f, "get_{family}({port}, {ip});"),
            Self::Lookup { dst, of: [port, ip, mac] } => {
                write!(f, "{dst} = lookup_{family}({port}, {ip}, {mac});")
            }
            Self::LookupIp { dst, of: [port, ip] } => write!(f, "{dst} = lookup_{family}_ip({port}, {ip});"),
            Self::Put { of: [port, ip, mac], age: None } => {
                write!(f, "put_{family}({port}, {ip}, {mac});")
            }
            Self::Put { of: [port, ip, mac], age: Some(age) } => {
                write!(f, "put_{family}({port}, {ip}, {mac}, {age});")
            }
        }
    }
}
