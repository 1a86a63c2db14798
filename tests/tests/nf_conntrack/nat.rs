//! Translations: each tracker makes its own choice, so what is compared is not the choice but that it is a
//! right one. It lies in the range, nobody else has it, answers and errors find their way back, checksums fit.

use std::collections::HashSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::random::Random;
use ferroflow_tests::{say, scenario};

use crate::packet::{self, End, ICMP, ICMPV6, Read, SYN, Segment, TCP, UDP};
use crate::pair::Pair;
use crate::{Class, Family, Opinion, SEED, Side, seed};

/// Connections that are translated; more than one address of the ranges has ports for.
const N_CONNECTIONS: u64 = 600;
const PORTS: std::ops::RangeInclusive<u16> = 2000..=2099;

/// Clients' addresses are hidden, the service's address stands for a server, and those of some clients
/// (`10.1.200.0/24`) share two ports.
const THEIRS: &str = "
    chain incoming { type nat hook prerouting priority dstnat;
        ip daddr 198.51.100.1 meta l4proto { tcp, udp } dnat to 10.2.0.2:8080
        ip6 daddr fd04::1 meta l4proto { tcp, udp } dnat to [fd02::2]:8080
    }
    chain outgoing { type nat hook postrouting priority srcnat;
        ip daddr 10.2.0.2 return
        ip6 daddr fd02::2 return
        ip saddr 10.1.200.0/24 meta l4proto { tcp, udp } snat to 203.0.113.50:3000-3001
        ip saddr 10.1.0.0/16 meta l4proto { tcp, udp } snat to 203.0.113.10-203.0.113.19:2000-2099
        ip saddr 10.1.0.0/16 snat to 203.0.113.10-203.0.113.19
        ip6 saddr fd01::/16 meta l4proto { tcp, udp } snat to [fd03::10]-[fd03::19]:2000-2099
        ip6 saddr fd01::/16 snat to fd03::10-fd03::19
    }";

const OURS: &[&str] = &[
    "table=0,priority=9,in_port=1,tcp,nw_dst=198.51.100.1,actions=ct(commit,table=1,zone=1,nat(dst=10.2.0.2:8080))",
    "table=0,priority=9,in_port=1,udp,nw_dst=198.51.100.1,actions=ct(commit,table=1,zone=1,nat(dst=10.2.0.2:8080))",
    "table=0,priority=9,in_port=1,tcp6,ipv6_dst=fd04::1,actions=ct(commit,table=1,zone=1,nat(dst=[fd02::2]:8080))",
    "table=0,priority=9,in_port=1,udp6,ipv6_dst=fd04::1,actions=ct(commit,table=1,zone=1,nat(dst=[fd02::2]:8080))",
    "table=0,priority=8,in_port=1,udp,nw_src=10.1.200.0/24,actions=ct(commit,table=1,zone=1,nat(src=203.0.113.50:3000-3001))",
    "table=0,priority=7,in_port=1,tcp,actions=ct(commit,table=1,zone=1,nat(src=203.0.113.10-203.0.113.19:2000-2099))",
    "table=0,priority=7,in_port=1,udp,actions=ct(commit,table=1,zone=1,nat(src=203.0.113.10-203.0.113.19:2000-2099))",
    "table=0,priority=6,in_port=1,icmp,actions=ct(commit,table=1,zone=1,nat(src=203.0.113.10-203.0.113.19))",
    "table=0,priority=7,in_port=1,tcp6,actions=ct(commit,table=1,zone=1,nat(src=[fd03::10]-[fd03::19]:2000-2099))",
    "table=0,priority=7,in_port=1,udp6,actions=ct(commit,table=1,zone=1,nat(src=[fd03::10]-[fd03::19]:2000-2099))",
    "table=0,priority=6,in_port=1,icmp6,actions=ct(commit,table=1,zone=1,nat(src=fd03::10-fd03::19))",
];

const NEW: Opinion = Opinion { class: Class::New, is_reply: false };
const REPLY: Opinion = Opinion { class: Class::Established, is_reply: true };
const ERROR: Opinion = Opinion { class: Class::Related, is_reply: true };

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who {
    Linux,
    We,
}

impl Who {
    fn send(
        self,
        pair: &mut Pair,
        from: Side,
        family: Family,
        packet: &[u8],
    ) -> Result<Option<(Opinion, Read)>> {
        let outcome = match self {
            Self::Linux => pair.kernel.send(from, family, packet)?,
            Self::We => pair.ours.send(from, family, packet)?,
        };
        outcome.map(|(opinion, packet)| Ok((opinion, packet::read(&packet)?))).transpose()
    }

    /// A packet that must come through, as something.
    fn expect(
        self,
        pair: &mut Pair,
        from: Side,
        family: Family,
        packet: &[u8],
        wanted: Opinion,
    ) -> Result<Read> {
        let came = self.send(pair, from, family, packet)?;
        let (opinion, read) =
            came.with_context(|| format!("{self:?}: dropped {:?}", packet::read(packet)))?;
        ensure!(opinion == wanted, "{self:?}: {opinion} and not {wanted}: {read:?}");
        ensure!(read.is_sound, "{self:?}: a wrong checksum: {read:?}");
        Ok(read)
    }
}

/// A packet from one end to another, with a port or identifier at each.
fn packet(proto: u8, from: End, to: End, mark: u16, is_reply: bool) -> Vec<u8> {
    match proto {
        TCP => {
            let (flags, ack) = if is_reply { (SYN | packet::ACK, 1001) } else { (SYN, 0) };
            let seq = if is_reply { 5000 } else { 1000 };
            packet::tcp(from, to, mark, &Segment { flags, seq, ack, window: 8192, scale: None, len: 0 })
        }
        UDP => packet::udp(from, to, mark, b"something"),
        _ => {
            let kind = match (proto, is_reply) {
                (ICMP, false) => 8,
                (ICMP, true) => 0,
                (_, false) => 128,
                (_, true) => 129,
            };
            let id = if is_reply { to.port } else { from.port };
            packet::icmp(from.ip, to.ip, mark, (kind, 0), u32::from(id) << 16 | 1, b"something")
        }
    }
}

/// The end that a packet names, with the identifier of a ping as its port.
fn source(read: &Read) -> Result<End> {
    let id = read.l4.get(4..6).context("short")?;
    let port =
        if matches!(read.proto, ICMP | ICMPV6) { u16::from_be_bytes([id[0], id[1]]) } else { read.src.port };
    Ok(End { ip: read.src.ip, port })
}

/// Who is spoken to: the server itself, or the address that stands for it.
fn is_service(server: End) -> bool {
    ["198.51.100.1", "fd04::1"].iter().any(|text| text.parse() == Ok(server.ip))
}

fn is_in_range(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [203, 0, 113] && (10..=19).contains(&ip.octets()[3]),
        IpAddr::V6(ip) => (0xfd03 << 112 | 0x10..=0xfd03 << 112 | 0x19).contains(&ip.to_bits()),
    }
}

#[test]
fn translations_are_right_in_both() -> Result<()> {
    scenario::run("translations_are_right_in_both", |prefix| {
        let Some(mut pair) = Pair::with_nat(prefix, THEIRS, OURS)? else { return Ok(()) };
        let seed = seed()?;
        let mut random = Random::new(seed);
        let mut taken = HashSet::new();
        for n in 0..N_CONNECTIONS {
            let family = random.pick(&Family::ALL);
            for who in [Who::Linux, Who::We] {
                // The same choices for both.
                let mut random = random.clone();
                one(&mut pair, who, &mut random, (n, family), &mut taken)
                    .with_context(|| format!("{SEED}={seed}, connection {n}"))?;
            }
            random.number();
        }
        exhaust(&mut pair)?;
        say(&format!("{} translations, each its own", taken.len()));
        Ok(())
    })
}

fn one(
    pair: &mut Pair,
    who: Who,
    random: &mut Random,
    (n, family): (u64, Family),
    taken: &mut HashSet<(Who, u8, IpAddr, u16, IpAddr, u16)>,
) -> Result<()> {
    let proto = random.pick(&[TCP, UDP, if family == Family::V4 { ICMP } else { ICMPV6 }]);
    // Few ports and few servers, so that translations collide.
    let client = End {
        ip: family.address(Side::Client, 10 + n as u16),
        port: random.pick(&[2000, 2001, 2002, 40_000]),
    };
    let service = if family == Family::V4 { "198.51.100.1" } else { "fd04::1" };
    let server = match random.below(4) {
        0 if proto == TCP || proto == UDP => End { ip: service.parse()?, port: 80 },
        _ => End { ip: family.address(Side::Server, 3), port: 80 },
    };
    let there = packet(proto, client, server, pair.next_mark(), false);
    let out = who.expect(pair, Side::Client, family, &there, NEW)?;
    let src = source(&out)?;
    if is_service(server) {
        let wanted = End { ip: family.address(Side::Server, 2), port: 8080 };
        ensure!(out.dst == wanted && src == client, "{who:?}: {out:?}");
    } else {
        ensure!(out.dst.ip == server.ip && is_in_range(src.ip), "{who:?}: {out:?}");
        ensure!(!matches!(proto, TCP | UDP) || PORTS.contains(&src.port), "{who:?}: {out:?}");
    }
    ensure!(taken.insert((who, proto, src.ip, src.port, out.dst.ip, out.dst.port)), "{who:?}: again {out:?}");
    error(pair, who, family, (client, server), &there, random)?;
    let back = packet(proto, out.dst, src, pair.next_mark(), true);
    let came = who.expect(pair, Side::Server, family, &back, REPLY)?;
    ensure!(came.dst.ip == client.ip && came.src.ip == server.ip, "{who:?}: {came:?}");
    ensure!(!matches!(proto, TCP | UDP) || (came.dst, came.src) == (client, server), "{who:?}: {came:?}");
    Ok(())
}

/// The packet once more, and a router behind cannot forward it: the client hears of the packet it has sent.
fn error(
    pair: &mut Pair,
    who: Who,
    family: Family,
    (client, server): (End, End),
    there: &[u8],
    random: &mut Random,
) -> Result<()> {
    let outcome = match who {
        Who::Linux => pair.kernel.send(Side::Client, family, there)?,
        Who::We => pair.ours.send(Side::Client, family, there)?,
    };
    let (_, about) = outcome.context("dropped the second time")?;
    let quoted = packet::read(&about)?;
    let kinds = if family == Family::V4 { [(11, 0), (3, 4)] } else { [(3, 0), (2, 0)] };
    let router = family.address(Side::Server, 9);
    let from = random.pick(&[router, quoted.dst.ip]);
    let kind = random.pick(&kinds);
    let error = packet::icmp(from, quoted.src.ip, pair.next_mark(), kind, 1400, &about);
    let came = who.expect(pair, Side::Server, family, &error, ERROR)?;
    // A router in front of the hidden server is hidden with it.
    let wanted = if from == router && !is_service(server) { router } else { server.ip };
    ensure!(came.dst.ip == client.ip && came.src.ip == wanted, "{who:?}: {came:?}");
    let inner = packet::read(came.l4.get(8..).context("short")?)?;
    let original = packet::read(there)?;
    ensure!(
        Read { dscp: 0, ..inner.clone() } == original,
        "{who:?}: the client sent {original:?} and hears of {inner:?}"
    );
    Ok(())
}

/// A third connection where there are two translations is dropped, by both.
fn exhaust(pair: &mut Pair) -> Result<()> {
    let family = Family::V4;
    let server = End { ip: family.address(Side::Server, 3), port: 53 };
    for who in [Who::Linux, Who::We] {
        for n in 0..3 {
            let client = End { ip: family.address(Side::Client, 200 << 8 | n), port: 5000 };
            let there = packet(UDP, client, server, pair.next_mark(), false);
            let came = who.send(pair, Side::Client, family, &there)?;
            ensure!(came.is_some() == (n < 2), "{who:?}: connection {n}: {came:?}");
            ensure!(came.is_none_or(|(_, read)| (3000..=3001).contains(&read.src.port)), "{who:?}");
        }
    }
    Ok(())
}
