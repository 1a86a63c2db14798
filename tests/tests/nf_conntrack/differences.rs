//! Where the two trackers differ on purpose: every row of docs/differences-from-nf_conntrack.md, played.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::scenario;

use crate::packet::{self, ACK, FIN, PSH, RST, SYN, Segment};
use crate::pair::Pair;
use crate::{Class, Family, Opinion, SEED, Side, ends};

const C: Side = Side::Client;
const S: Side = Side::Server;

/// A row of the list: its first column, packets, and what each tracker says of them, a letter for each:
/// new, established, a reply (`R`), related, a related reply (`r`), invalid, untracked.
struct Row {
    name: &'static str,
    packets: fn(&mut Pair, u64) -> Packets,
    linux: &'static str,
    ours: &'static str,
}

/// Packets, each with where it comes from.
type Packets = Vec<(Side, Vec<u8>)>;

/// Side, flags, sequence and acknowledgement number, bytes of payload. The client's first number is 1000,
/// the server's 5000.
type Step = (Side, u8, u32, u32, usize);

const OPEN: [Step; 3] = [(C, SYN, 1000, 0, 0), (S, SYN | ACK, 5000, 1001, 0), (C, ACK, 1001, 5001, 0)];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "An answer to a SYN that does not acknowledge it", linux: "NR", ours: "NI",
        packets: |pair, n| tcp(pair, n, &[(C, SYN, 1000, 0, 0), (S, SYN | ACK, 5000, 900, 0)]) },
    Row { name: "A reset in answer to a SYN that does not acknowledge it", linux: "NR", ours: "NI",
        packets: |pair, n| tcp(pair, n, &[(C, SYN, 1000, 0, 0), (S, RST, 5000, 0, 0)]) },
    Row { name: "An acknowledgement without SYN after two SYNs have crossed", linux: "NRI", ours: "NRE",
        packets: |pair, n| tcp(pair, n, &[(C, SYN, 1000, 0, 0), (S, SYN, 5000, 0, 0), (C, ACK, 1001, 5001, 0)]) },
    Row { name: "A segment from before the window", linux: "NREE", ours: "NREI",
        packets: |pair, n| tcp(pair, n, &[&OPEN[..], &[(C, PSH | ACK, 1001_u32.wrapping_sub(100_000), 5001, 10)]].concat()) },
    Row { name: "A segment that begins in the window and ends behind it", linux: "NREE", ours: "NREI",
        packets: |pair, n| tcp(pair, n, &[&OPEN[..], &[(C, PSH | ACK, 1001 + 8000, 5001, 1000)]].concat()) },
    Row { name: "A reset that acknowledges what was never sent", linux: "NREI", ours: "NREE",
        packets: |pair, n| tcp(pair, n, &[&OPEN[..], &[(C, RST | ACK, 1001, 9000, 0)]].concat()) },
    Row { name: "A reset with any number, once a side has finished", linux: "NREEE", ours: "NREEI",
        packets: |pair, n| tcp(pair, n, &[&OPEN[..], &[(C, FIN | ACK, 1001, 5001, 0), (C, RST, 1 << 30, 0, 0)]].concat()) },
    Row { name: "A SYN after the responder's reset", linux: "NRERE", ours: "NRERN",
        packets: |pair, n| tcp(pair, n, &[&OPEN[..], &[(S, RST, 5001, 0, 0), (C, SYN, 70_000, 0, 0)]].concat()) },
    Row { name: "Acknowledgements between FIN and the acknowledgement of it", linux: "NREEEEN", ours: "NREEEEE",
        packets: |pair, n| tcp(pair, n, &[&OPEN[..], &[(C, FIN | ACK, 1001, 5001, 0), (C, FIN | ACK, 1001, 5001, 0),
            (C, ACK, 1002, 5001, 0), (C, SYN, 70_000, 0, 0)]].concat()) },
    Row { name: "The SYN-ACK once more, after the end", linux: "NREERER", ours: "NREEREI",
        packets: |pair, n| tcp(pair, n, &[&OPEN[..], &[(C, FIN | ACK, 1001, 5001, 0), (S, FIN | ACK, 5001, 1002, 0),
            (C, ACK, 1002, 5002, 0), (S, SYN | ACK, 5000, 1001, 0)]].concat()) },
    Row { name: "A SYN-ACK within a connection, from outside of the window", linux: "NRER", ours: "NREI",
        packets: |pair, n| tcp(pair, n, &[&OPEN[..], &[(S, SYN | ACK, 900_000, 1001, 0)]].concat()) },
    Row { name: "A connection picked up, and a segment far behind the first", linux: "NN", ours: "NI",
        packets: |pair, n| tcp(pair, n, &[(C, ACK, 0x5000_0000, 5001, 10), (C, ACK, 1001, 5001, 10)]) },
    Row { name: "A connection picked up whose only answer is a reset", linux: "NRN", ours: "NRE",
        packets: |pair, n| tcp(pair, n, &[(C, ACK, 1001, 5001, 10), (S, RST, 5001, 0, 0), (C, ACK, 1011, 5001, 10)]) },
    Row { name: "An error that quotes less than eight bytes behind the IP header", linux: "Nr", ours: "NI", packets: short_quote },
    Row { name: "A fragment of less than 256 bytes that is not the last", linux: "-N", ours: "--", packets: tiny },
    Row { name: "Neighbour discovery and multicast listeners", linux: "U", ours: "I", packets: neighbour },
];

fn tcp(pair: &mut Pair, n: u64, steps: &[Step]) -> Packets {
    let (client, server) = ends(n, Family::V4);
    let packet = |(side, flags, seq, ack, len): &Step| {
        let (from, to) = if *side == C { (client, server) } else { (server, client) };
        let segment = Segment { flags: *flags, seq: *seq, ack: *ack, window: 8192, scale: None, len: *len };
        (*side, packet::tcp(from, to, pair.next_mark(), &segment))
    };
    steps.iter().map(packet).collect()
}

fn short_quote(pair: &mut Pair, n: u64) -> Packets {
    let (client, server) = ends(n, Family::V4);
    let about = packet::udp(client, server, pair.next_mark(), b"x");
    let error = packet::icmp(server.ip, client.ip, pair.next_mark(), (3, 3), 0, &about[..20 + 4]);
    vec![(C, about), (S, error)]
}

fn tiny(pair: &mut Pair, n: u64) -> Packets {
    let (client, server) = ends(n, Family::V4);
    let datagram = packet::udp(client, server, pair.next_mark(), &[0; 600]);
    let end = packet::payload_len(&datagram);
    vec![(C, packet::piece(&datagram, 0, 64)), (C, packet::piece(&datagram, 64, end))]
}

fn neighbour(pair: &mut Pair, _: u64) -> Packets {
    let [client, server] = [C, S].map(|side| Family::V6.address(side, 5));
    vec![(C, packet::icmp(client, server, pair.next_mark(), (135, 0), 0, &[0; 16]))]
}

fn letter(opinion: Option<Opinion>) -> char {
    match opinion {
        None => '-',
        Some(Opinion { class, is_reply }) => match (class, is_reply) {
            (Class::New, _) => 'N',
            (Class::Established, false) => 'E',
            (Class::Established, true) => 'R',
            (Class::Related, false) => 'L',
            (Class::Related, true) => 'r',
            (Class::Invalid, _) => 'I',
            (Class::Untracked, _) => 'U',
        },
    }
}

#[test]
fn differences_are_as_listed() -> Result<()> {
    scenario::run("differences_are_as_listed", |prefix| {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences-from-nf_conntrack.md");
        let page = std::fs::read_to_string(&page).with_context(|| format!("{}", page.display()))?;
        let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        // Without the head of the table.
        let listed: BTreeSet<&str> = cells.skip(1).collect();
        let played: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
        ensure!(listed == played, "listed or played alone: {:?}", listed.symmetric_difference(&played));
        let Some(mut pair) = Pair::get_or_skip(prefix)? else { return Ok(()) };
        for (n, row) in (0..).zip(ROWS) {
            let packets = (row.packets)(&mut pair, n);
            let (mut linux, mut ours) = (String::new(), String::new());
            for (side, packet) in packets {
                let family = if packet[0] >> 4 == 4 { Family::V4 } else { Family::V6 };
                let [theirs, mine] = pair.send(side, family, &packet)?;
                linux.push(letter(theirs));
                ours.push(letter(mine));
            }
            ensure!(
                (linux.as_str(), ours.as_str()) == (row.linux, row.ours),
                "{}: Linux says {linux}, listed as {}; we say {ours}, listed as {} ({SEED} has no part in it)",
                row.name,
                row.linux,
                row.ours
            );
        }
        Ok(())
    })
}
