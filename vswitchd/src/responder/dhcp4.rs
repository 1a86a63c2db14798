//! A DHCPv4 server (RFC 2131) that knows one client and one address: what it offers, it was
//! told with the packet. So it has nothing to remember, and gives the same answer on any
//! host.
//!
//! The answer has the addresses and ports of the question, except where it goes to; the
//! flow turns the rest around.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ovn_northd_lite::dhcp::{OfferV4, OptionV4};

use super::{Reply, packet::Context, udp::Datagram};

/// Fields before the options, the cookie among them (RFC 2131 §2).
const FIXED: usize = 240;
/// Begins the options (RFC 2131 §3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// A client takes as much, whatever it says (RFC 2131 §2).
const MIN_DATAGRAM: u16 = 576;
/// No answer is longer.
const MAX_DATAGRAM: u16 = 1400;
/// Flag of clients that hear only broadcasts.
const BROADCAST: u16 = 0x8000;
/// Numbers from here are no options of packets.
const FIRST_FIELD: u8 = 253;

/// Options that the protocol is made of.
mod option {
    pub(super) const REQUESTED_IP: u8 = 50;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER_ID: u8 = 54;
    pub(super) const PARAMETERS: u8 = 55;
    pub(super) const MESSAGE: u8 = 56;
    pub(super) const MAX_SIZE: u8 = 57;
    pub(super) const CLIENT_ID: u8 = 61;
    pub(super) const ETHERBOOT: u8 = 175;
    pub(super) const END: u8 = 255;
}

/// Message types (RFC 2132 §9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl Kind {
    /// What clients send.
    const OF_CLIENTS: [Self; 5] = [Self::Discover, Self::Request, Self::Decline, Self::Release, Self::Inform];
}

/// What becomes of a client's message.
pub(super) fn answer(context: &Context<'_>) -> Reply {
    let question = || {
        let offer = OfferV4::decode(context.service_data())?;
        let datagram = Datagram::parse(context)?;
        let question = Question::parse(datagram.payload)?;
        // One client, as the flow says; and no relays.
        let is_own =
            context.source().is_some_and(|mac| mac == question.mac) && question.relay.is_unspecified();
        is_own.then_some((offer, datagram, question))
    };
    let Some((offer, datagram, question)) = question() else { return Reply::Silent };
    let Some(message) = question.judge(&offer) else { return Reply::Silent };
    let to = match message {
        Kind::Nak => Ipv4Addr::BROADCAST,
        _ if !question.client_ip.is_unspecified() => question.client_ip,
        _ if question.flags & BROADCAST != 0 => Ipv4Addr::BROADCAST,
        _ => offer.ip.unwrap_or(Ipv4Addr::BROADCAST),
    };
    let Some(payload) = question.reply(message, &offer) else { return Reply::Silent };
    let src = IpAddr::V4(server_of(&offer).unwrap_or(Ipv4Addr::UNSPECIFIED));
    let made = Datagram { src, dst: to.into(), payload: &payload, ..datagram };
    made.frame(context).map_or(Reply::Silent, Reply::Made)
}

fn server_of(offer: &OfferV4) -> Option<Ipv4Addr> {
    offer.option(OptionV4::SERVER_ID).and_then(address)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

/// A client's message.
#[derive(Debug)]
struct Question<'a> {
    kind: Kind,
    id: [u8; 4],
    flags: u16,
    client_ip: Ipv4Addr,
    relay: Ipv4Addr,
    mac: [u8; 6],
    requested_ip: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    /// Options it asks for, in the order of its liking.
    parameters: &'a [u8],
    /// Longest IP packet it takes.
    max_size: u16,
    client_id: Option<&'a [u8]>,
    is_etherboot: bool,
}

impl<'a> Question<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, options) = bytes.split_first_chunk::<FIXED>()?;
        let at = |from: usize| address(fixed.get(from..from + 4)?);
        // A request, by Ethernet.
        (fixed.starts_with(&[1, 1, 6]) && fixed.ends_with(&COOKIE)).then_some(())?;
        let mut question = Self {
            kind: Kind::Discover,
            id: fixed.get(4..8)?.try_into().ok()?,
            flags: u16::from_be_bytes(fixed.get(10..12)?.try_into().ok()?),
            client_ip: at(12)?,
            relay: at(24)?,
            mac: fixed.get(28..34)?.try_into().ok()?,
            requested_ip: None,
            server: None,
            parameters: &[],
            max_size: MIN_DATAGRAM,
            client_id: None,
            is_etherboot: false,
        };
        let mut kind = None;
        for (code, value) in (Options { rest: options }) {
            match code {
                option::MESSAGE_TYPE => {
                    let [number] = *value else { return None };
                    kind = Kind::OF_CLIENTS.into_iter().find(|kind| *kind as u8 == number);
                }
                option::REQUESTED_IP => question.requested_ip = Some(address(value)?),
                option::SERVER_ID => question.server = Some(address(value)?),
                option::PARAMETERS => question.parameters = value,
                option::MAX_SIZE => {
                    let size = u16::from_be_bytes(value.try_into().ok()?);
                    question.max_size = size.clamp(MIN_DATAGRAM, MAX_DATAGRAM);
                }
                option::CLIENT_ID => question.client_id = Some(value),
                option::ETHERBOOT => question.is_etherboot = true,
                _ => {}
            }
        }
        question.kind = kind?;
        Some(question)
    }

    /// The message to answer with; none: nobody waits for one, or another server's.
    fn judge(&self, offer: &OfferV4) -> Option<Kind> {
        let is_for_another = self.server.is_some() && self.server != server_of(offer);
        if is_for_another {
            return None;
        }
        match self.kind {
            Kind::Discover => Some(Kind::Offer),
            Kind::Inform => Some(Kind::Ack),
            // RFC 2131 §4.3.2: selecting and rebooting clients say it in an option, renewing and
            // rebinding ones in their own address.
            Kind::Request => {
                let wanted = self.requested_ip.unwrap_or(self.client_ip);
                Some(if Some(wanted) == offer.ip { Kind::Ack } else { Kind::Nak })
            }
            Kind::Decline => {
                let ip = self.requested_ip.unwrap_or(self.client_ip);
                tracing::warn!(%ip, "a DHCP client finds that somebody else has its address");
                None
            }
            // The address stays the port's.
            Kind::Release => None,
            Kind::Offer | Kind::Ack | Kind::Nak => None,
        }
    }

    fn reply(&self, message: Kind, offer: &OfferV4) -> Option<Vec<u8>> {
        let is_given = matches!(message, Kind::Offer | Kind::Ack) && self.kind != Kind::Inform;
        let mut bytes = vec![2, 1, 6, 0];
        bytes.extend(self.id);
        bytes.extend([0, 0]);
        bytes.extend(self.flags.to_be_bytes());
        let client_ip = if message == Kind::Nak { Ipv4Addr::UNSPECIFIED } else { self.client_ip };
        bytes.extend(client_ip.octets());
        bytes.extend(offer.ip.filter(|_| is_given).unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        let next_server = offer.option(OptionV4::NEXT_SERVER).and_then(address);
        bytes.extend(next_server.filter(|_| message != Kind::Nak).unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        bytes.extend([0; 4]);
        bytes.extend(self.mac);
        bytes.resize(FIXED - COOKIE.len(), 0);
        bytes.extend(COOKIE);
        let max = usize::from(self.max_size).saturating_sub(20 + 8 + 1);
        let mut options = Written { bytes, max, codes: BTreeSet::new() };
        options.put(option::MESSAGE_TYPE, &[message as u8]);
        options.put(option::SERVER_ID, offer.option(OptionV4::SERVER_ID)?);
        // RFC 6842.
        self.client_id.into_iter().for_each(|id| options.put(option::CLIENT_ID, id));
        if message == Kind::Nak {
            options.put(option::MESSAGE, b"not your address in this network");
        } else {
            self.parameters(offer, is_given, &mut options);
        }
        let mut bytes = options.bytes;
        bytes.push(option::END);
        // Some clients want a message of BOOTP's length (RFC 1542 §2.1).
        bytes.resize(bytes.len().max(300), 0);
        Some(bytes)
    }

    /// What is configured: the lease and the mask, what the client asks for, the rest.
    fn parameters(&self, offer: &OfferV4, is_given: bool, options: &mut Written) {
        let lease = [OptionV4::LEASE_TIME, OptionV4::T1, OptionV4::T2].map(OptionV4::code);
        let configured = |code: u8| offer.options.get(&code).cloned();
        if is_given {
            let seconds =
                configured(lease[0]).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
            let part = |n: u64| seconds.map(|all| (u64::from(all) * n / 8) as u32);
            let defaults = [seconds, part(4), part(7)];
            for (code, default) in lease.into_iter().zip(defaults) {
                let value = configured(code).or(default.map(|seconds| seconds.to_be_bytes().to_vec()));
                value.iter().for_each(|value| options.put(code, value));
            }
        }
        options.codes.extend(lease);
        if let Some(file) = offer.option(OptionV4::BOOTFILE_ALT).filter(|_| self.is_etherboot) {
            options.put(OptionV4::BOOTFILE.code(), file);
        }
        let liked = self.parameters.iter().filter_map(|code| Some((code, offer.options.get(code)?)));
        let mask = offer.options.get_key_value(&OptionV4::NETMASK.code());
        for (code, value) in mask.into_iter().chain(liked).chain(&offer.options) {
            options.put(*code, value);
        }
    }
}

/// Options on the way into a message.
struct Written {
    bytes: Vec<u8>,
    /// Longest message, without the mark of its end.
    max: usize,
    /// Numbers of options that are in, or shall not come in.
    codes: BTreeSet<u8>,
}

impl Written {
    /// Adds an option once, if there is room.
    fn put(&mut self, code: u8, value: &[u8]) {
        let Ok(len) = u8::try_from(value.len()) else { return };
        let fits = self.bytes.len() + 2 + value.len() <= self.max;
        if code < FIRST_FIELD && fits && self.codes.insert(code) {
            self.bytes.extend([code, len]);
            self.bytes.extend(value);
        }
    }
}

/// The options of a message, up to their end or to one that is cut off.
struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (code, rest) = self.rest.split_first()?;
            match *code {
                0 => self.rest = rest,
                option::END => {
                    self.rest = &[];
                    return None;
                }
                code => {
                    let (len, rest) = rest.split_first()?;
                    let (value, rest) = rest.split_at_checked(usize::from(*len))?;
                    self.rest = rest;
                    return Some((code, value));
                }
            }
        }
    }
}
