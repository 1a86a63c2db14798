//! Names that the network knows (RFC 1035). A question is answered when the name is known to
//! the switch of whoever asks, whatever it asks about it; every other one goes on as it
//! came. An answer that is too long says so, and the client asks again by TCP, which is not
//! answered here.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ovn_northd_lite::{
    dhcp::domain,
    key::DatapathKey,
    names::{Record, is_set},
    southbound::Southbound,
};

use super::{Reply, packet::Context, udp::Datagram};

/// Length of a header.
const HEADER: usize = 12;
/// Longest answer for clients that say nothing (RFC 1035 §2.3.4).
const PLAIN_LEN: usize = 512;
/// Longest answer at all: what passes everywhere in one piece (RFC 9715).
const MAX_LEN: usize = 1232;
/// The name of the question, wherever it is needed again (RFC 1035 §4.1.4).
const POINTER: [u8; 2] = [0xc0, HEADER as u8];

/// Types and class (RFC 1035 §3.2, RFC 3596, RFC 6891).
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const ANY: u16 = 255;
const INTERNET: u16 = 1;

/// All names, by the datapaths whose workloads see them.
#[derive(Debug, Default)]
pub(super) struct Names {
    lists: HashMap<String, List>,
    datapaths: HashMap<DatapathKey, Vec<String>>,
}

/// A list of names.
#[derive(Debug, Default)]
struct List {
    by_name: HashMap<String, Vec<(IpAddr, u32)>>,
    by_ip: HashMap<IpAddr, Vec<(String, u32)>>,
}

impl Names {
    /// The names of a view.
    pub(super) fn of(view: &Southbound) -> Self {
        let lists = view.sets.iter().filter(|(name, _)| is_set(name)).map(|(name, members)| {
            let mut list = List::default();
            for Record { name, ttl, ip } in members.iter().filter_map(|member| Record::parse(member)) {
                list.by_ip.entry(ip).or_default().push((name.clone(), ttl));
                list.by_name.entry(name).or_default().push((ip, ttl));
            }
            (name.clone(), list)
        });
        let named = |(key, datapath): (&DatapathKey, &ovn_northd_lite::southbound::Datapath)| {
            let names: Vec<_> = datapath.sets.iter().filter(|name| is_set(name)).cloned().collect();
            (!names.is_empty()).then_some((*key, names))
        };
        Self { lists: lists.collect(), datapaths: view.datapaths.iter().filter_map(named).collect() }
    }

    /// What becomes of a question.
    pub(super) fn answer(&self, context: &Context<'_>) -> Reply {
        let made = || {
            let datagram = Datagram::parse(context)?;
            let question = Question::parse(datagram.payload)?;
            let answers = self.find(context.datapath()?, &question)?;
            Datagram { payload: &question.reply(&answers), ..datagram }.frame(context)
        };
        made().map_or(Reply::Pass, Reply::Made)
    }

    /// The answers to a question about a name that is known.
    fn find(&self, datapath: DatapathKey, question: &Question<'_>) -> Option<Vec<Answer>> {
        let lists = self.datapaths.get(&datapath)?.iter().filter_map(|name| self.lists.get(name));
        if question.kind == PTR {
            let ip = reversed(&question.name)?;
            let names: Vec<_> = lists.filter_map(|list| list.by_ip.get(&ip)).flatten().collect();
            let answer =
                |(name, ttl): &&(String, u32)| Some(Answer { kind: PTR, ttl: *ttl, data: domain(name)? });
            return (!names.is_empty()).then(|| names.iter().filter_map(answer).collect());
        }
        let known: Vec<_> = lists.filter_map(|list| list.by_name.get(&question.name)).flatten().collect();
        let wanted = |kind| question.kind == kind || question.kind == ANY;
        let answer = |(ip, ttl): &&(IpAddr, u32)| match ip {
            IpAddr::V4(ip) => wanted(A).then(|| Answer { kind: A, ttl: *ttl, data: ip.octets().into() }),
            IpAddr::V6(ip) => {
                wanted(AAAA).then(|| Answer { kind: AAAA, ttl: *ttl, data: ip.octets().into() })
            }
        };
        // A name without what is asked for is known all the same: nobody else shall say that it
        // does not exist.
        (!known.is_empty()).then(|| known.iter().filter_map(answer).collect())
    }
}

struct Answer {
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

/// A question with what an answer repeats of it.
#[derive(Debug)]
struct Question<'a> {
    id: [u8; 2],
    /// Recursion is desired.
    is_recursive: bool,
    /// In small letters.
    name: String,
    kind: u16,
    /// As it came.
    bytes: &'a [u8],
    /// Longest answer, version and flags, of clients that say so (RFC 6891).
    extended: Option<(u16, u8, u16)>,
}

impl<'a> Question<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let (header, body) = message.split_first_chunk::<HEADER>()?;
        let [a, b, flags, _, counts @ ..] = *header;
        let [_, n_questions, _, n_answers, _, n_authorities, _, n_additional] = counts;
        // A question, a standard one, one, and nothing but.
        let is_plain = flags & 0xf8 == 0 && counts.iter().step_by(2).all(|high| *high == 0);
        (is_plain && (n_questions, n_answers, n_authorities) == (1, 0, 0)).then_some(())?;
        let (name, rest) = name(body)?;
        let (fixed, additional) = rest.split_first_chunk::<4>()?;
        let [k1, k2, c1, c2] = *fixed;
        (u16::from_be_bytes([c1, c2]) == INTERNET).then_some(())?;
        let bytes = body.get(..body.len() - additional.len())?;
        let extended = if n_additional > 0 { extension(additional) } else { None };
        let kind = u16::from_be_bytes([k1, k2]);
        Some(Self { id: [a, b], is_recursive: flags & 1 != 0, name, kind, bytes, extended })
    }

    fn reply(&self, answers: &[Answer]) -> Vec<u8> {
        // RFC 6891 §6.1.3: only version 0 is known.
        let is_too_new = self.extended.is_some_and(|(_, version, _)| version > 0);
        let answers = if is_too_new { &[][..] } else { answers };
        let whole = self.write(answers, (false, is_too_new));
        let max = self.extended.map_or(PLAIN_LEN, |(len, ..)| usize::from(len).clamp(PLAIN_LEN, MAX_LEN));
        if whole.len() <= max { whole } else { self.write(&[], (true, is_too_new)) }
    }

    fn write(&self, answers: &[Answer], (is_cut, is_too_new): (bool, bool)) -> Vec<u8> {
        let mut bytes = self.id.to_vec();
        // An answer, by who knows; recursion is on offer, since the resolver behind does it.
        bytes.push(0x84 | u8::from(is_cut) << 1 | u8::from(self.is_recursive));
        bytes.push(0x80);
        let n_answers = u16::try_from(answers.len()).unwrap_or(u16::MAX);
        for count in [1, n_answers, 0, u16::from(self.extended.is_some())] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(self.bytes);
        for Answer { kind, ttl, data } in answers.iter().take(n_answers.into()) {
            bytes.extend(POINTER);
            bytes.extend(kind.to_be_bytes());
            bytes.extend(INTERNET.to_be_bytes());
            bytes.extend(ttl.to_be_bytes());
            bytes.extend(u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
            bytes.extend(data);
        }
        if let Some((_, _, flags)) = self.extended {
            bytes.push(0);
            bytes.extend(OPT.to_be_bytes());
            bytes.extend((MAX_LEN as u16).to_be_bytes());
            bytes.extend([u8::from(is_too_new), 0]);
            bytes.extend((flags & 0x8000).to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes
    }
}

/// A name without pointers, in small letters, and what is behind it.
fn name(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (mut name, mut rest) = (String::new(), bytes);
    loop {
        let (len, behind) = rest.split_first()?;
        if *len == 0 {
            return Some((name, behind));
        }
        if *len > 63 || name.len() > 255 {
            return None;
        }
        let (label, behind) = behind.split_at_checked(usize::from(*len))?;
        let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !label.iter().all(is_known) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        rest = behind;
    }
}

/// What a client says about itself: the first additional record, if it is that.
fn extension(bytes: &[u8]) -> Option<(u16, u8, u16)> {
    let [0, a, b, l1, l2, _, version, f1, f2, ..] = *bytes else { return None };
    let is_it = u16::from_be_bytes([a, b]) == OPT;
    is_it.then_some((u16::from_be_bytes([l1, l2]), version, u16::from_be_bytes([f1, f2])))
}

/// The address that a name of the reverse tree stands for.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let octets: Option<Vec<u8>> = labels.rsplit('.').map(|label| label.parse().ok()).collect();
        return Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets?).ok()?)));
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut number = 0_u128;
    let mut n_digits = 0;
    for label in labels.rsplit('.') {
        let mut characters = label.chars();
        let digit = characters.next().and_then(|digit| digit.to_digit(16))?;
        if characters.next().is_some() || n_digits == 32 {
            return None;
        }
        number = number << 4 | u128::from(digit);
        n_digits += 1;
    }
    (n_digits == 32).then(|| IpAddr::V6(Ipv6Addr::from_bits(number)))
}
