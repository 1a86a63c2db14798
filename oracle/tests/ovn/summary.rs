//! What ovn-trace(8) says, in its summary: actions as they are done, and blocks for what they lead to, each of
//! which has a packet of its own.

use crate::{Left, Verdict, packet::Headers};

/// Packets that OVN makes of the one that is traced. Their way is not compared, and ovn-trace takes them for
/// the first packet there.
const ANSWERS: [&str; 3] = ["tcp_reset", "icmp4", "icmp6"];
const QUESTIONS: [&str; 2] = ["arp", "nd_ns"];
/// Spaces for each block.
const INDENT: usize = 4;

/// What becomes of a packet with these headers.
pub(crate) fn read(text: &str, headers: Headers) -> Verdict {
    let mut verdict = Verdict::default();
    // The packets of the blocks that a line is in; `None`: one that OVN has made.
    let mut blocks = vec![Some(headers)];
    // The backend of the last load balancer.
    let mut backend = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let step = line.trim_start();
        blocks.truncate((line.len() - step.len()) / INDENT + 1);
        let Some(Some(packet)) = blocks.last_mut() else {
            if step.ends_with('{') {
                blocks.push(None);
            }
            continue;
        };
        let word = step.split([' ', ';', '(']).next().unwrap_or_default();
        let is_block = step.ends_with('{');
        if (ANSWERS.contains(&word) || QUESTIONS.contains(&word))
            && (is_block || step.len() == word.len() + 1)
        {
            verdict.is_refused |= ANSWERS.contains(&word);
            verdict.asks |= QUESTIONS.contains(&word);
            blocks.push(None);
            continue;
        }
        if is_block {
            let mut inner = packet.clone();
            transform(&mut inner, step, backend.take());
            blocks.push(Some(inner));
        } else if let Some(chosen) = step.strip_prefix("ct_lb_mark(backends=") {
            backend = chosen.strip_suffix(");").map(str::to_owned);
        } else if let Some(to) = step.strip_prefix("/* output to \"") {
            let (port, rest) = to.split_once('"').unwrap();
            // Of a workload's type.
            if rest.starts_with(", type \"\"") {
                verdict.left.insert(Left { port: port.to_owned(), headers: packet.clone() });
            }
        } else {
            act(packet, step);
        }
    }
    verdict
}

/// What connections do to a packet.
fn transform(packet: &mut Headers, step: &str, backend: Option<String>) {
    if step.starts_with("ct_lb_mark") {
        let Some(backend) = backend else { return };
        let (ip, port) = backend.rsplit_once(':').unwrap();
        packet.dst = ip.trim_matches(['[', ']']).parse().unwrap();
        packet.ports[1] = port.parse().unwrap();
    } else if let Some((_, set)) = step.split_once("nat(").or_else(|| step.split_once("czone(")) {
        // `ct_snat(ip4.src=192.0.2.1) {`, `ct_dnatin_czone(ip6.dst=fd00::1) {`
        let (field, ip) = set.split_once(')').unwrap().0.split_once('=').unwrap();
        let ip = ip.parse().unwrap();
        if field.ends_with("src") { packet.src = ip } else { packet.dst = ip }
    }
}

/// What an action does to a packet.
fn act(packet: &mut Headers, step: &str) {
    // A load balancer's client that is its own backend gets its packets from the service.
    if let Some(src) = step.strip_prefix("/* nat(src=").and_then(|rest| rest.split(')').next()) {
        packet.src = src.trim_matches(['[', ']']).parse().unwrap();
    }
    let Some(action) = step.strip_suffix(';').filter(|action| !action.contains('{')) else { return };
    match action {
        "ip.ttl--" => packet.ttl -= 1,
        "eth.dst <-> eth.src" | "eth.src <-> eth.dst" => {
            std::mem::swap(&mut packet.eth_src, &mut packet.eth_dst);
        }
        "ip4.dst <-> ip4.src" | "ip6.dst <-> ip6.src" | "ip4.src <-> ip4.dst" | "ip6.src <-> ip6.dst" => {
            std::mem::swap(&mut packet.src, &mut packet.dst);
        }
        _ => {
            if let Some((field, value)) = action.split_once(" = ") {
                assign(packet, field, value);
            }
        }
    }
}

fn assign(packet: &mut Headers, field: &str, value: &str) {
    match field {
        "eth.src" => value.clone_into(&mut packet.eth_src),
        "eth.dst" => value.clone_into(&mut packet.eth_dst),
        "ip4.src" | "ip6.src" => packet.src = value.parse().unwrap(),
        "ip4.dst" | "ip6.dst" => packet.dst = value.parse().unwrap(),
        "ip.ttl" => packet.ttl = value.parse().unwrap(),
        "tcp.src" | "udp.src" => packet.ports[0] = value.parse().unwrap(),
        "tcp.dst" | "udp.dst" => packet.ports[1] = value.parse().unwrap(),
        _ => {}
    }
}
