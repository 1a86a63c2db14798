//! Random rules, as far as both switches do the same.

use std::time::{Duration, Instant};

use flowtable::table::FragmentMode;
use oracle::{
    field::Field,
    frame::{self, L4},
    interpreter::{Outcome, Port, Ports, World, interpret, memory::Memory},
    ovs::{Ovs, Protocol, package::Package},
    rng::Rng,
    rules::{Features, Repertoire, rules},
    syntax::{Ct, Flow, Rules, Step},
    traffic::{Arrival, traffic},
};

use super::{
    PORTS,
    pair::{Ours, Sent, check, differ},
};

/// Ways to choose that are tried for a packet.
const MAX_CHOICES: usize = 64;
/// Random rule sets.
const N_WORLDS: u64 = 400;
/// Those with meters.
const N_METERED: u64 = 6;
/// Packets for each, every one of them twice.
const N_ARRIVALS: usize = 40;
/// No more rule sets are begun after this; `FERROFLOW_SECONDS` is for those who want more.
const LIMIT: Duration = Duration::from_secs(45);

/// What rule sets are about, one after the other.
struct Subject {
    name: &'static str,
    features: Features,
    protocols: &'static [Protocol],
}

const BOTH: &[Protocol] = &[Protocol::OpenFlow10, Protocol::OpenFlow13];
const NEWER: &[Protocol] = &[Protocol::OpenFlow13, Protocol::OpenFlow15];
const NEWEST: &[Protocol] = &[Protocol::OpenFlow15];

const SUBJECTS: &[Subject] = &[
    Subject { name: "headers", features: Features::NONE, protocols: BOTH },
    Subject {
        name: "conjunctions",
        features: Features { conjunctions: true, ..Features::NONE },
        protocols: BOTH,
    },
    Subject { name: "action sets", features: Features { sets: true, ..Features::NONE }, protocols: NEWER },
    Subject {
        name: "groups",
        features: Features { groups: true, sets: true, ..Features::NONE },
        protocols: NEWER,
    },
    Subject {
        name: "choices",
        features: Features { groups: true, choices: true, ..Features::NONE },
        protocols: NEWEST,
    },
    Subject { name: "labels", features: Features { labels: true, ..Features::NONE }, protocols: NEWER },
    Subject { name: "learning", features: Features { lessons: true, ..Features::NONE }, protocols: BOTH },
    Subject { name: "stations", features: Features { normal: true, ..Features::NONE }, protocols: BOTH },
    Subject { name: "oddities", features: Features { odds: true, ..Features::NONE }, protocols: BOTH },
    Subject { name: "connections", features: Features { tracking: true, ..Features::NONE }, protocols: BOTH },
    Subject {
        name: "translations",
        features: Features { tracking: true, nat: true, ..Features::NONE },
        protocols: BOTH,
    },
    Subject { name: "fragments", features: Features::NONE, protocols: BOTH },
];

/// They need a clock that stands still.
const METERS: Subject = Subject {
    name: "meters",
    features: Features { meters: Some(true), ..Features::NONE },
    protocols: NEWEST,
};

/// Hands rules over; those that Open vSwitch refuses stay out: it asks more of a rule than that its
/// packets have what it changes.
///
/// False: a match cannot be said in the protocol.
fn hand_over(ovs: &mut Ovs, protocol: Protocol, rules: &mut Rules) -> bool {
    let lines = |lines: Vec<String>| lines.join("\n");
    loop {
        let groups = lines(rules.groups.iter().rev().map(ToString::to_string).collect());
        let mut flows: Vec<String> = rules.meters.iter().map(ToString::to_string).collect();
        flows.extend(rules.flows.iter().map(ToString::to_string));
        let Err(error) = ovs.set_rules(protocol, &groups, &lines(flows)) else { return true };
        let error = format!("{error:#}");
        if error.contains("none of the usable flow formats") {
            return false;
        }
        let refusals = ["actions are invalid with specified match", "OFPBMC_BAD_PREREQ"];
        assert!(refusals.iter().any(|refusal| error.contains(refusal)), "{error}\n{rules}");
        let refused = refused(&error, &rules.flows);
        rules.flows.remove(refused.unwrap_or_else(|| panic!("{error}\n{rules}")));
    }
}

/// Which rule an error is about: the line of the file, or table and priority.
fn refused(error: &str, flows: &[Flow]) -> Option<usize> {
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok();
    if let Some(line) = error.rsplit_once("/flows:").and_then(|(_, line)| number(line)) {
        return line.checked_sub(1);
    }
    let flow = error.split_once("FLOW_MOD")?.1;
    if let Some((_, dump)) = flow.split_once("***") {
        // In bytes (OpenFlow 1.3 §A.3.4.1).
        let lines = dump.lines().filter_map(|line| line.strip_prefix("000000")?.get(2..)?.split_once('|'));
        let bytes = lines.flat_map(|(line, _)| line.split([' ', '-']).collect::<Vec<_>>());
        let bytes: Vec<u8> = bytes.filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let (table, priority) = (*bytes.get(24)?, u16::from_be_bytes([*bytes.get(30)?, *bytes.get(31)?]));
        return flows.iter().position(|flow| (flow.table, flow.priority) == (table, priority));
    }
    let table = flow.split_once("table:").and_then(|(_, text)| number(text)).unwrap_or(0);
    let priority = flow.split_once("priority=").and_then(|(_, text)| number(text)).unwrap_or(0x8000);
    flows.iter().position(|flow| (flow.table.into(), flow.priority.into()) == (table, priority))
}

/// The same for rules that the interpreter knows: it says which packets both switches treat alike.
fn compare_rules(
    ovs: &mut Ovs,
    (subject, protocol): (&Subject, Protocol),
    rules: &mut Rules,
    arrivals: &[Arrival],
    rng: &mut Rng,
) -> usize {
    if !hand_over(ovs, protocol, rules) {
        return 0;
    }
    let ports: Ports = PORTS.iter().map(|port| (*port, Port::Workload { up: true })).collect();
    let text = rules.to_string();
    let mut ours = Ours::new(&text);
    let features = &subject.features;
    let mode = if subject.name == "fragments" { rng.pick(FragmentMode::ALL) } else { FragmentMode::NxMatch };
    ovs.set_fragments(mode.name()).unwrap();
    ours.set_fragments(mode);
    let mut memory = Memory::new(rules);
    let mut n = 0;
    let mut now = 0;
    for arrival in arrivals.iter().chain(arrivals) {
        if features.meters.is_some() {
            let pause = rng.pick(&[0, 0, 0, 1, 10, 500]);
            if pause > 0 {
                ovs.pass(pause).unwrap();
            }
            ours.pass(pause);
            now += pause * 1_000_000;
        }
        let before = memory.snapshot();
        let world = World { rules, ports: &ports };
        let outcome = interpret(world, &mut memory, now, arrival.port, &arrival.frame);
        if comparable(&outcome, features, rules, arrival) {
            if features.choices {
                choose(ovs, &mut ours, (world, &text), arrival);
            } else {
                check(ovs, &mut ours, &text, arrival);
            }
            n += 1;
        } else {
            memory.forget_packet(&before);
        }
        if features.normal || features.lessons {
            ovs.settle().unwrap();
            ours.settle();
        }
        memory.end_batch(rules, now);
    }
    n
}

/// Either may choose as it likes among what can be chosen.
fn choose(ovs: &mut Ovs, ours: &mut Ours, (world, text): (World<'_>, &str), arrival: &Arrival) {
    let Some(possible) = possible(world, arrival) else { return };
    let sent = [ovs.send(arrival.port, &arrival.frame).unwrap(), ours.send(arrival.port, &arrival.frame)];
    if !sent.iter().all(|sent| possible.contains(sent)) {
        differ(ovs, text, arrival, sent.each_ref());
    }
}

/// What can leave, sorted; nothing when these are too many.
fn possible(world: World<'_>, arrival: &Arrival) -> Option<Vec<Sent>> {
    let mut all = Vec::new();
    let mut guess: Vec<usize> = Vec::new();
    for _ in 0..MAX_CHOICES {
        let mut memory = Memory::new(world.rules);
        memory.guess(guess.clone());
        let outcome = interpret(world, &mut memory, 0, arrival.port, &arrival.frame);
        let mut sent: Sent = outcome.sent.into_iter().map(|sent| (sent.port, sent.frame)).collect();
        sent.sort();
        all.push(sent);
        let sizes: Vec<usize> = memory.fresh().iter().map(|(_, n)| *n).collect();
        guess.resize(sizes.len(), 0);
        let Some(next) = (0..sizes.len()).rev().find(|idx| guess[*idx] + 1 < sizes[*idx]) else {
            return Some(all);
        };
        guess[next] += 1;
        guess.truncate(next + 1);
    }
    None
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
    // Its automaton of TCP is another one: whole conversations are compared elsewhere. An echo with a code is none to its tracker.
    let echo_code =
        matches!(view.l4, Some((L4::Icmp, at)) if matches!(frame[at], 0 | 8) && frame[at + 1] != 0);
    let tracked_otherwise = features.tracking
        && is_ip
        && (echo_code || is_fragment || port_zero || !matches!(view.proto, 1 | 17 | 58) || view.l4.is_none());
    let priority_only =
        |tag: &usize| frame.get(tag + 2..tag + 4).is_some_and(|tci| (tci[0] & 0xf, tci[1]) == (0, 0));
    let is_announced = view.eth_type == 0x0806 && frame[..6] == [0xff; 6];
    let bridged_otherwise = features.normal && (is_announced || view.tags.iter().any(priority_only));
    !(protocol_zero
        || bridged_otherwise
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

/// Leaves out what is not the same, as docs/differences-from-ovs.md says.
fn adapt(features: &Features, is_first_half: bool, steps: &mut Vec<Step>) {
    // What stands behind a translation sees the packet translated, though only its copy should be.
    if let Some(idx) = steps.iter().position(|step| matches!(step, Step::Ct(Ct { nat: Some(_), .. }))) {
        steps.truncate(idx + 1);
    }
    if features.normal {
        // Tags without a VLAN, and packets from nowhere.
        let is_left_out = |step: &Step| match step {
            Step::PushVlan(_) | Step::ModVlanPcp(_) => true,
            Step::Set(term) => matches!(term.field, Field::InPort | Field::VlanPcp),
            _ => false,
        };
        steps.retain(|step| !is_left_out(step));
    }
    // The action set is executed within clones as well; a choice by hash within one ends the walk.
    steps.retain(|step| !((features.sets || features.choices) && matches!(step, Step::Clone(_))));
    // A clone that exits ends the walk with it.
    let is_exiting = |step: &Step| match step {
        Step::Exit => is_first_half,
        Step::Clone(_) => !is_first_half,
        _ => false,
    };
    steps.retain(|step| !(features.odds && is_exiting(step)));
    // Of a label that is pushed and popped nothing is left, nor of the type that was given with it.
    let is_kept = |step: &Step| match step {
        Step::PushMpls(_) => is_first_half,
        Step::PopMpls(_) => !is_first_half,
        _ => true,
    };
    steps.retain(is_kept);
    for step in steps {
        if let Step::Clone(inner) = step {
            adapt(features, is_first_half, inner);
        }
    }
}

/// A rule set and its packets, compared; how many of these were.
fn compare(ovs: &mut Ovs, seed: u64, subject: &Subject) -> usize {
    eprintln!("seed {seed}, {}", subject.name);
    let mut rng = Rng::new(seed);
    let protocol = rng.pick(subject.protocols);
    let features = subject.features;
    let repertoire =
        Repertoire { ports: PORTS, tunnel: None, loops: false, protocol: Some(protocol), features };
    let mut rules = rules(&mut rng, &repertoire);
    // Open vSwitch wants no invalid packets to be remembered.
    rules.flows.retain(|flow| !["+inv", "commit"].iter().all(|word| flow.to_string().contains(word)));
    let is_first_half = rng.one_in(2);
    for flow in &mut rules.flows {
        adapt(&features, is_first_half, &mut flow.steps);
    }
    // Its text has a meter only in front of all other actions, and one.
    for flow in &mut rules.flows {
        let meter = flow.steps.iter().find(|step| matches!(step, Step::Meter(_))).cloned();
        flow.steps.retain(|step| !matches!(step, Step::Meter(_)));
        flow.steps.splice(0..0, meter);
    }
    let mut traffic = traffic(&mut rng, &features);
    let mut arrival = || {
        let port = traffic.port(&mut rng);
        Arrival { port, frame: traffic.next(&mut rng, port).frame }
    };
    let arrivals: Vec<Arrival> = (0..N_ARRIVALS).map(|_| arrival()).collect();
    compare_rules(ovs, (subject, protocol), &mut rules, &arrivals, &mut rng)
}

/// Seeds from `FERROFLOW_SEED` on, which brings a failure back, until it is time.
fn seeds(n: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let (start, first) = (Instant::now(), number("FERROFLOW_SEED").unwrap_or(0));
    let (n, limit) = match number("FERROFLOW_SECONDS") {
        Some(secs) => (u64::MAX - first, Duration::from_secs(secs)),
        None => (n, LIMIT),
    };
    (first..first + n).take_while(move |_| start.elapsed() < limit)
}

#[test]
fn random_rules_do_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison with Open vSwitch").unwrap() else { return };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let start = Instant::now();
    let mut tally = vec![(0, 0); SUBJECTS.len()];
    for seed in seeds(N_WORLDS) {
        let idx = seed as usize % SUBJECTS.len();
        let n = compare(&mut ovs, seed, &SUBJECTS[idx]);
        tally[idx].0 += u64::from(n > 0);
        tally[idx].1 += n;
    }
    for (subject, (n_worlds, n_packets)) in SUBJECTS.iter().zip(&tally) {
        eprintln!("{}: {n_worlds} rule sets, {n_packets} packets", subject.name);
    }
    eprintln!("Open vSwitch {}: {:.0} s", ovs.version(), start.elapsed().as_secs_f64());
    let n_worlds: u64 = tally.iter().map(|(n_worlds, _)| n_worlds).sum();
    assert!(n_worlds >= N_WORLDS / 8, "only {n_worlds} rule sets");
}

#[test]
fn random_meters_do_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison of meters with Open vSwitch").unwrap() else {
        return;
    };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    ovs.stop_time().unwrap();
    let start = Instant::now();
    let (mut n_worlds, mut n_packets) = (0, 0);
    // With a clock that stands still Open vSwitch takes seconds for what else takes milliseconds.
    for seed in seeds(N_METERED) {
        n_packets += compare(&mut ovs, seed, &METERS);
        n_worlds += 1;
    }
    eprintln!("meters: {n_worlds} rule sets, {n_packets} packets, {:.0} s", start.elapsed().as_secs_f64());
    assert!(n_packets > N_ARRIVALS, "only {n_packets} packets");
}
