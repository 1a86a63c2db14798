//! Conversations of UDP, ICMP, SCTP and protocols without ports, with errors about them.

use anyhow::Result;
use ferroflow_tests::random::Random;

use crate::packet::{self, End};
use crate::pair::{Pair, Story};
use crate::{Family, Side, ends, fragments};

const N_PACKETS: u64 = 12;
/// Errors by family: type and code. Unreachable, fragmentation needed, time exceeded, a wrong parameter.
const ERRORS: [&[(u8, u8)]; 2] =
    [&[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0)], &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 0)]];
/// Requests and answers that ICMP has.
const REQUESTS: [&[(u8, u8)]; 2] = [&[(8, 0), (13, 14), (15, 16), (17, 18)], &[(128, 129)]];
/// Bytes that an error quotes behind the IP header, at least (RFC 792).
const QUOTED: usize = 8;

/// A conversation that belongs to a state of the numbers.
pub(crate) fn converse(pair: &mut Pair, random: &mut Random, n: u64, family: Family) -> Result<()> {
    match random.below(5) {
        0 => udp(pair, random, n, family),
        1 => icmp(pair, random, n, family),
        2 => sctp(pair, random, n, family),
        3 => fragments::converse(pair, random, n, family),
        _ => other(pair, random, n, family),
    }
}

fn directed<T>(side: Side, [client, server]: [T; 2]) -> (T, T) {
    if side == Side::Client { (client, server) } else { (server, client) }
}

fn udp(pair: &mut Pair, random: &mut Random, n: u64, family: Family) -> Result<()> {
    let (client, server) = ends(n, family);
    let mut story = Story::default();
    let mut sent = Vec::new();
    for _ in 0..random.below(N_PACKETS) {
        let side = random.pick(&[Side::Client, Side::Server]);
        if random.chance(1, 4) {
            error(pair, random, family, &sent, &mut story)?;
            continue;
        }
        let (from, to) = directed(side, [client, server]);
        let len = random.below(40) as usize;
        let packet = packet::udp(from, to, pair.next_mark(), &random.bytes(len));
        let opinions = pair.send(side, family, &packet)?;
        story.tell(side, "UDP", opinions)?;
        sent.push((side, packet));
    }
    Ok(())
}

fn icmp(pair: &mut Pair, random: &mut Random, n: u64, family: Family) -> Result<()> {
    let (client, server) = ends(n, family);
    let mut story = Story::default();
    let mut sent = Vec::new();
    let id = client.port;
    for seq in 0..random.below(N_PACKETS) {
        let side = random.pick(&[Side::Client, Side::Client, Side::Server]);
        if random.chance(1, 4) {
            error(pair, random, family, &sent, &mut story)?;
            continue;
        }
        let (from, to) = directed(side, [client.ip, server.ip]);
        let (request, answer) = random.pick(REQUESTS[family as usize]);
        let kind = if (side == Side::Client) == random.chance(9, 10) { request } else { answer };
        // An answer to a question of somebody else.
        let id = if random.chance(1, 10) { id ^ 0x8000 } else { id };
        let packet =
            packet::icmp(from, to, pair.next_mark(), (kind, 0), u32::from(id) << 16 | seq as u32, b"ping");
        let opinions = pair.send(side, family, &packet)?;
        story.tell(side, (kind, id), opinions)?;
        sent.push((side, packet));
    }
    Ok(())
}

/// An error about a packet that went by, or about one that did not.
fn error(
    pair: &mut Pair,
    random: &mut Random,
    family: Family,
    sent: &[(Side, Vec<u8>)],
    story: &mut Story,
) -> Result<()> {
    if sent.is_empty() {
        return Ok(());
    }
    let (side, about) = &sent[random.below(sent.len() as u64) as usize];
    let header_len = if family == Family::V4 { 20 } else { 40 };
    let mut quote = about.clone();
    let l4_len = quote.len() - header_len;
    quote.truncate(header_len + QUOTED.max(random.below(l4_len as u64 + 1) as usize));
    let what = random.below(8);
    match what {
        // Less than its ports, another port, another address.
        0 => quote.truncate(header_len + random.below(4) as usize),
        1 => quote[header_len + 5] ^= 0x40,
        2 => quote[header_len - 1] ^= 0x80,
        _ => {}
    }
    let read = packet::read(about)?;
    let router = family.address(side.other(), 9);
    let from = if random.chance(1, 2) { router } else { read.dst.ip };
    let to = if what == 3 { family.address(*side, 77) } else { read.src.ip };
    let kind = random.pick(ERRORS[family as usize]);
    let packet = packet::icmp(
        from,
        to,
        pair.next_mark(),
        kind,
        if kind == (3, 4) || kind == (2, 0) { 1400 } else { 0 },
        &quote,
    );
    let opinions = pair.send(side.other(), family, &packet)?;
    story.tell(side.other(), ("error", kind, what, packet.len()), opinions)
}

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// An association from its first packet to its last, with packets between that have a wrong tag.
fn sctp(pair: &mut Pair, random: &mut Random, n: u64, family: Family) -> Result<()> {
    let (client, server) = ends(n, family);
    // The tag that packets of each side carry, which the other has asked for.
    let tags = [0, 1].map(|_| random.number() as u32 | 1);
    let mut plan = vec![
        (Side::Client, INIT),
        (Side::Server, INIT_ACK),
        (Side::Client, COOKIE_ECHO),
        (Side::Server, COOKIE_ACK),
    ];
    for _ in 0..random.below(N_PACKETS) {
        plan.push((
            random.pick(&[Side::Client, Side::Server]),
            random.pick(&[DATA, DATA, SACK, HEARTBEAT, HEARTBEAT_ACK]),
        ));
    }
    match random.below(3) {
        0 => plan.extend([
            (Side::Client, SHUTDOWN),
            (Side::Server, SHUTDOWN_ACK),
            (Side::Client, SHUTDOWN_COMPLETE),
        ]),
        1 => plan.push((random.pick(&[Side::Client, Side::Server]), ABORT)),
        _ => {}
    }
    let mut story = Story::default();
    for (idx, (side, chunk)) in plan.into_iter().enumerate() {
        let tag = if chunk == INIT { 0 } else { tags[side as usize] };
        if idx > 0 && random.chance(1, 6) {
            say_sctp(pair, &mut story, side, family, (client, server), (DATA, tag ^ 0x55), &[0; 12])?;
        }
        let body = match chunk {
            INIT | INIT_ACK => {
                [&tags[1 - side as usize].to_be_bytes()[..], &[0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 9]]
                    .concat()
            }
            _ => vec![0; 12],
        };
        say_sctp(pair, &mut story, side, family, (client, server), (chunk, tag), &body)?;
    }
    Ok(())
}

fn say_sctp(
    pair: &mut Pair,
    story: &mut Story,
    side: Side,
    family: Family,
    (client, server): (End, End),
    (chunk, tag): (u8, u32),
    body: &[u8],
) -> Result<()> {
    let (from, to) = directed(side, [client, server]);
    let packet = packet::sctp(from, to, pair.next_mark(), tag, chunk, body);
    let opinions = pair.send(side, family, &packet)?;
    story.tell(side, ("SCTP chunk and tag", chunk, tag), opinions)
}

/// Protocols that are known by their addresses alone.
fn other(pair: &mut Pair, random: &mut Random, n: u64, family: Family) -> Result<()> {
    let proto = random.pick(&[packet::GRE, 50, 253]);
    let addresses = [(Side::Client, 300), (Side::Server, 3)];
    let [client, server] = addresses.map(|(side, base)| {
        family.address(side, base + if side == Side::Client { (n % 60_000) as u16 } else { 0 })
    });
    let mut story = Story::default();
    for _ in 0..random.below(N_PACKETS) {
        let side = random.pick(&[Side::Client, Side::Server]);
        let (from, to) = directed(side, [client, server]);
        let mut payload = vec![0, 0, 8, 0];
        let len = random.below(40) as usize;
        payload.extend(random.bytes(len));
        let packet = packet::other(from, to, pair.next_mark(), proto, &payload);
        let opinions = pair.send(side, family, &packet)?;
        story.tell(side, ("protocol", proto), opinions)?;
    }
    Ok(())
}
