//! The tracker beside Linux's: the same packets through nf_conntrack in a namespace and through the switch;
//! both must think the same of each. Where they do not, that is on purpose and listed with its reason in
//! docs/differences-from-nf_conntrack.md, and every row of that list is seen to be true.

#![forbid(unsafe_code)]

mod differences;
mod fragments;
mod kernel;
mod nat;
mod others;
mod ours;
mod packet;
mod pair;
mod tcp;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::random::Random;
use ferroflow_tests::{say, scenario};
use flowtable::conntrack::State;

use self::packet::End;
use self::pair::{Pair, Story};

/// How long random packets are compared.
const DURATION: Duration = Duration::from_secs(6);
/// Set to the seed of a failure, to see it again.
const SEED: &str = "FERROFLOW_SEED";
/// One segment in so many comes damaged first.
const SPOILT: u64 = 40;
/// Ports of clients, so that each conversation has its own.
const N_PORTS: u64 = 60_000;

/// What a tracker thinks of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opinion {
    class: Class,
    is_reply: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    New,
    Established,
    Related,
    Invalid,
    Untracked,
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.is_reply { ", a reply" } else { "" };
        write!(f, "{:?}{direction}", self.class)
    }
}

/// Where a packet comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Address `n` of a side's network.
    fn address(self, side: Side, n: u16) -> IpAddr {
        let [high, low] = n.to_be_bytes();
        let net = side as u8 + 1;
        match self {
            Self::V4 => Ipv4Addr::new(10, net, high, low).into(),
            Self::V6 => Ipv6Addr::new(0xfd00 | u16::from(net), 0, 0, 0, 0, 0, 0, n).into(),
        }
    }

    /// From and to for packets that nobody tracks.
    fn fence(self, from: Side) -> (IpAddr, IpAddr) {
        (self.address(from, 1), self.address(from.other(), 1))
    }
}

/// The seed of this run, told so that it can be had again.
fn seed() -> Result<u64> {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text}"))?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64 % 1_000_000_000,
    };
    say(&format!("comparison with nf_conntrack: {SEED}={seed}"));
    Ok(seed)
}

/// Client and server of conversation `n`; no other has both.
fn ends(n: u64, family: Family) -> (End, End) {
    let client = family.address(Side::Client, 2 + (n / N_PORTS) as u16);
    let port = 1024 + (n % N_PORTS) as u16;
    (End { ip: client, port }, End { ip: family.address(Side::Server, 2), port: 80 })
}

#[test]
fn tcp_is_judged_as_linux_does() -> Result<()> {
    scenario::run("tcp_is_judged_as_linux_does", |prefix| {
        let Some(mut pair) = Pair::get_or_skip(prefix)? else { return Ok(()) };
        let seed = seed()?;
        let start = Instant::now();
        let mut n = 0;
        while start.elapsed() < DURATION {
            let family = Family::ALL[n as usize % 2];
            let (client, server) = ends(n, family);
            let mut story = Story::default();
            for (side, segment) in tcp::Conversation::new(seed.wrapping_add(n)) {
                let (from, to) = if side == Side::Client { (client, server) } else { (server, client) };
                let whose = || format!("{SEED}={seed}, conversation {n}");
                if pair.n_packets % SPOILT == 0 {
                    let mut spoilt = packet::tcp(from, to, pair.next_mark(), &segment);
                    spoilt.iter_mut().last().into_iter().for_each(|byte| *byte ^= 0x10);
                    let opinions = pair.send(side, family, &spoilt)?;
                    story.tell(side, ("spoilt", segment), opinions).with_context(whose)?;
                }
                let packet = packet::tcp(from, to, pair.next_mark(), &segment);
                let opinions = pair.send(side, family, &packet)?;
                story.tell(side, segment, opinions).with_context(whose)?;
            }
            n += 1;
        }
        ensure!(pair.n_packets > 1000, "only {} packets", pair.n_packets);
        let n_same = same_states(&pair)?;
        say(&format!("{n} conversations, {} segments, {n_same} states at the end", pair.n_packets));
        Ok(())
    })
}

/// What both remember at the end is the same; answers how many connections that were.
fn same_states(pair: &Pair) -> Result<usize> {
    let ours: HashMap<_, _> = pair
        .ours
        .connections()
        .into_iter()
        .map(|found| {
            let tuple = &found.original;
            let ends = [(tuple.src, tuple.src_port), (tuple.dst, tuple.dst_port)];
            (ends.map(|(bits, port)| (tuple.address(bits), port)), found)
        })
        .collect();
    let entries = pair.kernel.entries()?;
    for entry in &entries {
        let (from, to) = entry.original;
        let found = ours.get(&[(from.ip, from.port), (to.ip, to.port)]);
        let state = found.with_context(|| format!("only Linux remembers {entry:?}"))?.state;
        ensure!(is_same_state(&entry.state, state), "Linux has {entry:?}, we have it as {}", state.name());
    }
    // Of refused connections Linux remembers nothing.
    let n_known = ours.values().filter(|found| found.state != State::TcpClosed).count();
    let n_theirs = entries.iter().filter(|entry| entry.state != "CLOSE").count();
    ensure!(n_known == n_theirs, "we remember {n_known} connections, Linux {n_theirs}");
    Ok(entries.len())
}

/// Linux goes on at any acknowledgement after a FIN, we at that of the FIN.
fn is_same_state(theirs: &str, ours: State) -> bool {
    match theirs {
        "SYN_SENT" => ours == State::TcpSynSent,
        "SYN_SENT2" | "SYN_RECV" => ours == State::TcpSynRecv,
        "ESTABLISHED" => ours == State::TcpEstablished,
        "FIN_WAIT" | "CLOSE_WAIT" => ours == State::TcpFinWait,
        "LAST_ACK" => matches!(ours, State::TcpFinWait | State::TcpClosing),
        "TIME_WAIT" => matches!(ours, State::TcpFinWait | State::TcpClosing | State::TcpTimeWait),
        "CLOSE" => ours == State::TcpClosed,
        _ => false,
    }
}

#[test]
fn other_protocols_are_judged_as_linux_does() -> Result<()> {
    scenario::run("other_protocols_are_judged_as_linux_does", |prefix| {
        let Some(mut pair) = Pair::get_or_skip(prefix)? else { return Ok(()) };
        let seed = seed()?;
        let mut random = Random::new(seed);
        let start = Instant::now();
        let mut n = 0;
        while start.elapsed() < DURATION {
            let family = Family::ALL[n as usize % 2];
            others::converse(&mut pair, &mut random, n, family)
                .with_context(|| format!("{SEED}={seed}, conversation {n}"))?;
            n += 1;
        }
        ensure!(pair.n_packets > 1000, "only {} packets", pair.n_packets);
        say(&format!("{n} conversations, {} packets", pair.n_packets));
        Ok(())
    })
}
