//! A DHCPv6 server (RFC 8415) that knows one client and one address, or only options: what
//! it offers, it was told with the packet.

use std::net::Ipv6Addr;

use ovn_northd_lite::dhcp::OfferV6;

use super::{Reply, packet::Context, udp::Datagram};

/// Options that the protocol is made of (RFC 8415 §21).
mod option {
    pub(super) const CLIENT_ID: u16 = 1;
    pub(super) const SERVER_ID: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const IA_TA: u16 = 4;
    pub(super) const IA_ADDR: u16 = 5;
    pub(super) const PREFERENCE: u16 = 7;
    pub(super) const STATUS: u16 = 13;
    pub(super) const RAPID_COMMIT: u16 = 14;
    pub(super) const IA_PD: u16 = 25;
}

/// Status codes (RFC 8415 §21.13).
mod status {
    pub(super) const SUCCESS: u16 = 0;
    pub(super) const NO_ADDRS_AVAIL: u16 = 2;
    pub(super) const NO_BINDING: u16 = 3;
    pub(super) const NOT_ON_LINK: u16 = 4;
    pub(super) const NO_PREFIX_AVAIL: u16 = 6;
}

/// Longest identifier (RFC 8415 §11.1).
const MAX_DUID: usize = 130;
/// Associations of one message that are answered.
const MAX_ASSOCIATIONS: usize = 8;

/// Message types (RFC 8415 §7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
    Decline = 9,
    InformationRequest = 11,
}

impl Kind {
    /// What clients send.
    const OF_CLIENTS: [Self; 8] = [
        Self::Solicit,
        Self::Request,
        Self::Confirm,
        Self::Renew,
        Self::Rebind,
        Self::Release,
        Self::Decline,
        Self::InformationRequest,
    ];

    /// Whether it is to one server, by name; `None`: as it likes.
    fn names_server(self) -> Option<bool> {
        match self {
            Self::Request | Self::Renew | Self::Release | Self::Decline => Some(true),
            Self::Solicit | Self::Confirm | Self::Rebind => Some(false),
            Self::InformationRequest | Self::Advertise | Self::Reply => None,
        }
    }
}

/// What becomes of a client's message.
pub(super) fn answer(context: &Context<'_>) -> Reply {
    let made = || {
        let offer = OfferV6::decode(context.service_data())?;
        let datagram = Datagram::parse(context)?;
        let payload = Question::parse(datagram.payload)?.reply(&offer)?;
        Datagram { payload: &payload, ..datagram }.frame(context)
    };
    made().map_or(Reply::Silent, Reply::Made)
}

/// A client's message.
#[derive(Debug)]
struct Question<'a> {
    kind: Kind,
    id: [u8; 3],
    client: Option<&'a [u8]>,
    server: Option<&'a [u8]>,
    is_rapid: bool,
    /// Identity associations: which option, and its content.
    associations: Vec<(u16, &'a [u8])>,
}

impl<'a> Question<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let ([number, id @ ..], rest) = bytes.split_first_chunk::<4>()?;
        let kind = Kind::OF_CLIENTS.into_iter().find(|kind| *kind as u8 == *number)?;
        let mut question =
            Self { kind, id: *id, client: None, server: None, is_rapid: false, associations: Vec::new() };
        let mut options = Options { rest };
        for (code, value) in options.by_ref() {
            match code {
                option::CLIENT_ID if (1..=MAX_DUID).contains(&value.len()) => question.client = Some(value),
                option::SERVER_ID => question.server = Some(value),
                option::RAPID_COMMIT => question.is_rapid = true,
                option::IA_NA | option::IA_TA | option::IA_PD
                    if question.associations.len() < MAX_ASSOCIATIONS =>
                {
                    question.associations.push((code, value));
                }
                _ => {}
            }
        }
        options.rest.is_empty().then_some(question)
    }

    fn reply(&self, offer: &OfferV6) -> Option<Vec<u8>> {
        let own_id = duid(offer);
        // RFC 8415 §16: who it is from, and whether it is for this server.
        let is_sound = match self.kind.names_server() {
            Some(true) => self.server == Some(&own_id) && self.client.is_some(),
            Some(false) => self.server.is_none() && self.client.is_some(),
            None => self.server.is_none_or(|server| server == own_id),
        };
        let wants_address = self.kind != Kind::InformationRequest;
        if !is_sound || wants_address && offer.ip.is_none() {
            return None;
        }
        let is_advertised = self.kind == Kind::Solicit && !self.is_rapid;
        let kind = if is_advertised { Kind::Advertise } else { Kind::Reply };
        let mut bytes = vec![kind as u8];
        bytes.extend(self.id);
        self.client.into_iter().for_each(|id| put(&mut bytes, option::CLIENT_ID, id));
        put(&mut bytes, option::SERVER_ID, &own_id);
        if self.kind == Kind::Solicit {
            // There is no better server to wait for.
            put(&mut bytes, option::PREFERENCE, &[255]);
            if self.is_rapid {
                put(&mut bytes, option::RAPID_COMMIT, &[]);
            }
        }
        self.addresses(offer, &mut bytes)?;
        if !matches!(self.kind, Kind::Confirm | Kind::Release | Kind::Decline) {
            offer.options.iter().for_each(|(code, value)| put(&mut bytes, *code, value));
        }
        Some(bytes)
    }

    /// What the answer says of addresses.
    fn addresses(&self, offer: &OfferV6, bytes: &mut Vec<u8>) -> Option<()> {
        let Some(ip) = offer.ip else { return Some(()) };
        match self.kind {
            Kind::Confirm => {
                let mut known =
                    self.associations.iter().flat_map(|(_, content)| addresses_in(content)).peekable();
                // RFC 8415 §18.3.3: without addresses there is nothing to say.
                known.peek()?;
                let code = if known.all(|known| known == ip) { status::SUCCESS } else { status::NOT_ON_LINK };
                put_status(bytes, code);
            }
            Kind::Release | Kind::Decline => {
                if self.kind == Kind::Decline {
                    tracing::warn!(%ip, "a DHCPv6 client finds that somebody else has its address");
                }
                put_status(bytes, status::SUCCESS);
                for (code, content) in &self.associations {
                    if addresses_in(content).any(|known| known != ip) {
                        let mut association = content.get(..4)?.to_vec();
                        association.extend([0; 8].iter().take(if *code == option::IA_TA { 0 } else { 8 }));
                        put_status(&mut association, status::NO_BINDING);
                        put(bytes, *code, &association);
                    }
                }
            }
            Kind::InformationRequest => {}
            _ => {
                let mut is_given = false;
                for (code, content) in &self.associations {
                    put(bytes, *code, &association(offer, ip, (*code, content), &mut is_given)?);
                }
            }
        }
        Some(())
    }
}

/// The answer to an association: the first for an address gets it.
fn association(
    offer: &OfferV6,
    ip: Ipv6Addr,
    (code, content): (u16, &[u8]),
    is_given: &mut bool,
) -> Option<Vec<u8>> {
    let mut answer = content.get(..4)?.to_vec();
    if code != option::IA_NA || *is_given {
        answer.extend([0; 8].iter().take(if code == option::IA_TA { 0 } else { 8 }));
        let is_prefix = code == option::IA_PD;
        put_status(&mut answer, if is_prefix { status::NO_PREFIX_AVAIL } else { status::NO_ADDRS_AVAIL });
        return Some(answer);
    }
    *is_given = true;
    let lease = offer.lease_time;
    let part = |n: u64| if lease == u32::MAX { lease } else { (u64::from(lease) * n / 10) as u32 };
    answer.extend(part(5).to_be_bytes());
    answer.extend(part(8).to_be_bytes());
    put_address(&mut answer, ip, lease);
    // What the client had is its own no longer (RFC 8415 §18.3.4).
    addresses_in(content).filter(|known| *known != ip).take(MAX_ASSOCIATIONS).for_each(|known| {
        put_address(&mut answer, known, 0);
    });
    Some(answer)
}

/// Identifier by MAC address (RFC 8415 §11.4).
fn duid(offer: &OfferV6) -> Vec<u8> {
    [&[0, 3, 0, 1], &offer.server.octets()[..]].concat()
}

fn put(bytes: &mut Vec<u8>, code: u16, value: &[u8]) {
    let Ok(len) = u16::try_from(value.len()) else { return };
    bytes.extend(code.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(value);
}

fn put_status(bytes: &mut Vec<u8>, code: u16) {
    put(bytes, option::STATUS, &code.to_be_bytes());
}

fn put_address(bytes: &mut Vec<u8>, ip: Ipv6Addr, lease: u32) {
    let value = [&ip.octets()[..], &lease.to_be_bytes(), &lease.to_be_bytes()].concat();
    put(bytes, option::IA_ADDR, &value);
}

/// Addresses that an association for addresses names.
fn addresses_in(content: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let options = Options { rest: content.get(12..).unwrap_or_default() };
    let of = |value: &[u8]| <[u8; 16]>::try_from(value.get(..16)?).ok().map(Ipv6Addr::from);
    options.filter(|(code, _)| *code == option::IA_ADDR).filter_map(move |(_, value)| of(value))
}

/// The options of a message. What is cut off stays in `rest`.
struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([a, b, c, d], rest) = self.rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
        self.rest = rest;
        Some((u16::from_be_bytes([*a, *b]), value))
    }
}
