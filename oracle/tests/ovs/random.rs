//! Random rules, as far as both switches do the same.

use std::time::{Duration, Instant};

use oracle::{
    frame::{self, L4},
    interpreter::{Outcome, Port, Ports, World, interpret, memory::Memory},
    ovs::{Ovs, Protocol, package::Package},
    rng::Rng,
    rules::{Features, Repertoire, rules},
    syntax::{Rules, Step},
    traffic::{Arrival, traffic},
};

use super::{
    PORTS,
    pair::{Ours, check},
};

/// Random rule sets.
const N_WORLDS: u64 = 400;
/// Packets for each, every one of them twice.
const N_ARRIVALS: usize = 40;
/// No more rule sets are begun after this.
const LIMIT: Duration = Duration::from_secs(45);

/// The same for rules that the interpreter knows: it says which packets both switches treat alike.
fn compare_rules(
    ovs: &mut Ovs,
    protocol: Protocol,
    features: &Features,
    rules: &Rules,
    arrivals: &[Arrival],
) -> usize {
    let ports: Ports = PORTS.iter().map(|port| (*port, Port::Workload { up: true })).collect();
    let text = rules.to_string();
    let mut ours = Ours::new(&text);
    let lines = |lines: Vec<String>| lines.join("\n");
    let groups = lines(rules.groups.iter().rev().map(ToString::to_string).collect());
    let flows = lines(rules.flows.iter().map(ToString::to_string).collect());
    if let Err(error) = ovs.set_rules(protocol, &groups, &flows) {
        // It asks more of a rule than that its packets have what it changes.
        let error = format!("{error:#}");
        let refusals = ["actions are invalid with specified match", "OFPBMC_BAD_PREREQ"];
        assert!(refusals.iter().any(|refusal| error.contains(refusal)), "{error}\n{text}");
        return 0;
    }
    let mut memory = Memory::new(rules);
    let mut n = 0;
    for arrival in arrivals.iter().chain(arrivals) {
        let before = memory.snapshot();
        let outcome = interpret(World { rules, ports: &ports }, &mut memory, 0, arrival.port, &arrival.frame);
        if comparable(&outcome, features, rules, arrival) {
            check(ovs, &mut ours, &text, arrival);
            n += 1;
        } else {
            memory.forget_packet(&before);
        }
    }
    n
}

/// Packets that both switches treat alike; why others are left out is in docs/differences-from-ovs.md.
pub(crate) fn comparable(
    outcome: &Outcome,
    features: &Features,
    rules: &Rules,
    Arrival { frame, .. }: &Arrival,
) -> bool {
    let Some(view) = frame::view(frame) else { return false };
    let dei = |tag: &usize| frame.get(tag + 2).is_some_and(|tci| tci & 0x10 != 0);
    let is_ip = matches!(view.eth_type, 0x0800 | 0x86dd);
    let ipv6_fragment = view.eth_type == 0x86dd && frame.get(view.l3 + 6) == Some(&44);
    let is_fragment = view.frag != 0 || ipv6_fragment;
    let readdressed_fragment =
        (view.frag == 3 || ipv6_fragment) && writes(rules, &["->nw_src", "->nw_dst", "->ipv6_", "->icmp_"]);
    let protocol_zero = view.proto == 0 && is_ip;
    // Ports of zero are no ports to its tracker.
    let port_zero = matches!(view.l4, Some((L4::Tcp | L4::Udp, at))
        if frame[at..at + 2] == [0, 0] || frame[at + 2..at + 4] == [0, 0]);
    let tracked_otherwise = features.tracking
        && is_ip
        && (is_fragment || port_zero || !matches!(view.proto, 1 | 6 | 17 | 58) || view.l4.is_none());
    !(protocol_zero
        || outcome.is_lost
        || outcome.whys.contains(&"unsupported")
        || tracked_otherwise
        || view.tags.iter().any(dei)
        || readdressed_fragment)
}

/// Some action of the rules has one of these in its text.
fn writes(rules: &Rules, texts: &[&str]) -> bool {
    let has = |step: &Step| texts.iter().any(|text| step.to_string().contains(text));
    let buckets = rules.groups.iter().flat_map(|group| &group.buckets);
    rules.flows.iter().any(|flow| flow.steps.iter().any(has))
        || buckets.flat_map(|bucket| &bucket.steps).any(has)
}

/// Parts of the language in which Open vSwitch is compared.
fn features(rng: &mut Rng) -> Features {
    Features { conjunctions: rng.one_in(3), ..Features::default() }
}

#[test]
fn random_rules_do_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison with Open vSwitch").unwrap() else { return };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let start = Instant::now();
    let (mut n_packets, mut n_worlds) = (0, 0);
    let seeds = std::env::var("FERROFLOW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    for seed in seeds..seeds + N_WORLDS {
        if start.elapsed() > LIMIT {
            break;
        }
        let mut rng = Rng::new(seed);
        let protocol = rng.pick(&[Protocol::OpenFlow10, Protocol::OpenFlow13]);
        let features = features(&mut rng);
        let repertoire =
            Repertoire { ports: PORTS, tunnel: None, loops: false, protocol: Some(protocol), features };
        let mut rules = rules(&mut rng, &repertoire);
        // Open vSwitch wants no invalid packets to be remembered.
        rules.flows.retain(|flow| !["+inv", "commit"].iter().all(|word| flow.to_string().contains(word)));
        let mut traffic = traffic(&mut rng, &features);
        let mut arrival = || {
            let port = traffic.port(&mut rng);
            Arrival { port, frame: traffic.next(&mut rng, port).frame }
        };
        let arrivals: Vec<Arrival> = (0..N_ARRIVALS).map(|_| arrival()).collect();
        eprintln!("seed {seed}");
        let n = compare_rules(&mut ovs, protocol, &features, &rules, &arrivals);
        n_packets += n;
        n_worlds += u64::from(n > 0);
    }
    eprintln!(
        "Open vSwitch {}: {n_worlds} rule sets, {n_packets} packets, {:.0} s",
        ovs.version(),
        start.elapsed().as_secs_f64()
    );
    assert!(n_worlds >= N_WORLDS / 4, "only {n_worlds} rule sets in {LIMIT:?}");
}
