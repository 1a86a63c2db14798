//! The switch agrees with the interpreter, and would be caught if it did not.

use oracle::{
    compare::{notice, soak, soak_against},
    field::Field,
    rules::Features,
    syntax::{Ct, GroupKind, Kind, Learn, Nat, Rules, Selection, Step, Values, Zone, ones},
};

/// Triples of this test; `cargo xtask soak` does more, and faster.
const N_TRIPLES: u64 = 60_000;
/// Those of worlds in which connections are tracked.
const N_TRACKED: u64 = 10_000;
/// A fault must show within these.
const N_TO_NOTICE: u64 = 100_000;

#[test]
fn the_switch_does_what_the_interpreter_says() {
    let tally = soak(1, N_TRIPLES, |_| {}).unwrap_or_else(|error| panic!("{error:#}"));
    eprintln!("{}", tally.coverage);
    // The world is one in which things happen.
    assert!(tally.n_copies > N_TRIPLES / 2, "{tally:?}");
    assert!(tally.n_told > N_TRIPLES / 100, "{tally:?}");
    assert!(tally.n_drops > N_TRIPLES / 10, "{tally:?}");
    assert!(tally.n_cache_hits > N_TRIPLES / 5, "{tally:?}");
    assert!(tally.n_choices > 5, "{tally:?}");
    assert!(tally.n_lost * 10 < tally.n_rule_sets, "{tally:?}");
    // With both caches, with one, with none; alone and in batches.
    assert!(tally.n_by_caches.iter().chain(&tally.n_by_batch).all(|n| *n > N_TRIPLES / 10), "{tally:?}");
    for (action, n) in tally.coverage.actions() {
        assert!(n > 0, "no packet met `{action}`");
    }
}

#[test]
fn connections_are_what_the_interpreter_says() {
    let tally = soak_against(1, N_TRACKED, &TRACKING, &|_| {}, |_| {});
    let tally = tally.unwrap_or_else(|error| panic!("{error:#}"));
    for (action, n) in tally.coverage.actions().filter(|(action, _)| action.contains("ct")) {
        assert!(n > 0, "no packet met `{action}`");
    }
    assert!(tally.n_copies > N_TRACKED && tally.n_cache_hits > N_TRACKED / 20, "{tally:?}");
}

/// Changes each action of each rule, those of clones, sets and buckets too.
fn each_step(rules: &mut Rules, change: &dyn Fn(&mut Step)) {
    fn list(steps: &mut [Step], change: &dyn Fn(&mut Step)) {
        for step in steps {
            change(step);
            if let Step::Clone(inner) | Step::WriteActions(inner) = step {
                list(inner, change);
            }
        }
    }
    let buckets = rules.groups.iter_mut().flat_map(|group| &mut group.buckets);
    buckets.for_each(|bucket| list(&mut bucket.steps, change));
    rules.flows.iter_mut().for_each(|flow| list(&mut flow.steps, change));
}

/// Takes actions out of all rules.
fn without(rules: &mut Rules, gone: impl Fn(&Step) -> bool) {
    rules.flows.iter_mut().for_each(|flow| flow.steps.retain(|step| !gone(step)));
}

/// Changes what is asked of the connection tracker.
fn each_ct(rules: &mut Rules, change: impl Fn(&mut Ct)) {
    each_step(rules, &|step| {
        if let Step::Ct(ct) = step {
            change(ct);
        }
    });
}

/// Changes ranges and sets of all rules.
fn each_member(rules: &mut Rules, change: impl Fn(&mut Values)) {
    let members = rules.flows.iter_mut().flat_map(|flow| &mut flow.matching.members);
    members.for_each(|member| change(&mut member.values));
}

/// Changes what is learned.
fn each_learn(rules: &mut Rules, change: impl Fn(&mut Learn)) {
    each_step(rules, &|step| {
        if let Step::Learn(learn) = step {
            change(learn);
        }
    });
}

/// A fault, where it can show, and what it does to the rules that the switch gets.
type Fault = (&'static str, Wanted, fn(&mut Rules));
type Wanted = fn(&Features) -> bool;

const ANY: Wanted = |_| true;
const LABELS: Wanted = |features| features.labels;
const SETS: Wanted = |features| features.sets;
const ODDS: Wanted = |features| features.odds;
const PUNTS: Wanted = |features| features.punts;
const GROUPS: Wanted = |features| features.groups;
const CHOICES: Wanted = |features| features.choices;
const METERS: Wanted = |features| features.meters == Some(true);
const CONJUNCTIONS: Wanted = |features| features.conjunctions;
const TRACKING: Wanted = |features| features.tracking;
const NAT: Wanted = |features| features.nat;
const VALUES: Wanted = |features| features.values;
const NORMAL: Wanted = |features| features.normal;
const LESSONS: Wanted = |features| features.lessons;

const FAULTS: &[Fault] = &[
    ("a TTL is not decremented", ANY, |rules| without(rules, |step| *step == Step::DecTtl)),
    ("a priority is lost", ANY, |rules| {
        rules.flows.iter_mut().for_each(|flow| flow.priority = u16::MAX - flow.priority);
    }),
    ("a tag stays", ANY, |rules| without(rules, |step| *step == Step::PopVlan)),
    ("port 2 is taken for port 3", ANY, |rules| {
        each_step(rules, &|step| {
            if *step == Step::Output(2) {
                *step = Step::Output(3);
            }
        });
    }),
    ("a prefix is a bit too short", ANY, |rules| {
        let terms = rules.flows.iter_mut().flat_map(|flow| &mut flow.matching.terms);
        for term in terms.filter(|term| term.field == Field::NwDst) {
            let shorter = term.mask << 1 & ones(32);
            (term.mask, term.value) = if shorter == 0 { continue } else { (shorter, term.value & shorter) };
        }
    }),
    ("a clone's changes stay", ANY, |rules| {
        for flow in &mut rules.flows {
            let opened = |step| if let Step::Clone(inner) = step { inner } else { vec![step] };
            flow.steps = std::mem::take(&mut flow.steps).into_iter().flat_map(opened).collect();
        }
    }),
    ("a tunnel key is ignored", ANY, |rules| without(rules, |step| matches!(step, Step::SetTunnel(_)))),
    ("a resubmit forgets the port", ANY, |rules| {
        each_step(rules, &|step| {
            if let Step::Resubmit { port, .. } = step {
                *port = None;
            }
        });
    }),
    ("a hop limit is one too high", ANY, |rules| {
        each_step(rules, &|step| {
            if let Step::Set(term) = step
                && term.field == Field::NwTtl
            {
                term.value += 1;
            }
        });
    }),
    (
        "ARP's operation is not written",
        |features| features.theme == Some(Kind::Arp),
        |rules| {
            without(rules, |step| matches!(step, Step::Set(term) if term.field == Field::ArpOp));
        },
    ),
    ("a label's TTL is not decremented", LABELS, |rules| without(rules, |step| *step == Step::DecMplsTtl)),
    ("a label is pushed as multicast", LABELS, |rules| {
        each_step(rules, &|step| {
            if *step == Step::PushMpls(0x8847) {
                *step = Step::PushMpls(0x8848);
            }
        });
    }),
    ("an action set is not cleared", SETS, |rules| without(rules, |step| *step == Step::ClearActions)),
    ("the last action of a set is forgotten", SETS, |rules| {
        each_step(rules, &|step| {
            if let Step::WriteActions(steps) = step
                && steps.len() > 1
            {
                steps.pop();
            }
        });
    }),
    ("metadata is not written", SETS, |rules| without(rules, |step| matches!(step, Step::WriteMetadata(..)))),
    ("a bit is lost on the stack", ODDS, |rules| {
        each_step(rules, &|step| {
            if let Step::Push(part) = step
                && part.n_bits > 1
            {
                (part.start, part.n_bits) = (part.start + 1, part.n_bits - 1);
            }
        });
    }),
    ("truncation leaves a byte more", ODDS, |rules| {
        each_step(rules, &|step| {
            if let Step::Truncated { max_len, .. } = step {
                *max_len += 1;
            }
        });
    }),
    ("a walk does not end where it should", ODDS, |rules| without(rules, |step| *step == Step::Exit)),
    ("a controller is told to another", PUNTS, |rules| {
        each_step(rules, &|step| {
            if let Step::Tell(tell) = step {
                tell.id ^= 1;
            }
        });
    }),
    ("userdata is lost", PUNTS, |rules| {
        each_step(rules, &|step| {
            if let Step::Tell(tell) = step {
                tell.userdata.clear();
            }
        });
    }),
    (
        "a bucket watches nothing",
        |features| features.groups && features.choices,
        |rules| {
            let groups = rules.groups.iter_mut().filter(|group| matches!(group.kind, GroupKind::Select(_)));
            groups.flat_map(|group| &mut group.buckets).for_each(|bucket| bucket.watch_port = None);
        },
    ),
    ("fast failover prefers the last", GROUPS, |rules| {
        let groups = rules.groups.iter_mut().filter(|group| group.kind == GroupKind::FastFailover);
        groups.for_each(|group| group.buckets.reverse());
    }),
    ("a group of all has one bucket", GROUPS, |rules| {
        rules
            .groups
            .iter_mut()
            .filter(|group| group.kind == GroupKind::All)
            .for_each(|group| group.buckets.truncate(1));
    }),
    ("a choice does not stick", CHOICES, |rules| {
        for group in &mut rules.groups {
            if let GroupKind::Select(selection) = &mut group.kind {
                *selection = Selection::Fields(vec![
                    Field::NwTtl,
                    Field::IpDscp,
                    Field::TcpDst,
                    Field::UdpDst,
                    Field::EthDst,
                ]);
            }
        }
        each_step(rules, &|step| {
            if let Step::Multipath(multipath) = step {
                multipath.hashed = oracle::syntax::Hashed::SymmetricL4;
            }
        });
    }),
    ("a link too many is chosen", CHOICES, |rules| {
        each_step(rules, &|step| {
            if let Step::Multipath(multipath) = step {
                multipath.n_links += 1;
            }
        });
    }),
    ("a bundle has another member", CHOICES, |rules| {
        each_step(rules, &|step| {
            if let Step::Bundle(bundle) = step {
                bundle.members = vec![3];
            }
        });
    }),
    ("a meter has twice the burst", METERS, |rules| {
        rules.meters.iter_mut().flat_map(|meter| &mut meter.bands).for_each(|band| band.burst *= 2);
    }),
    ("a meter remarks by one level more", METERS, |rules| {
        let bands = rules.meters.iter_mut().flat_map(|meter| &mut meter.bands);
        bands.filter(|band| band.levels == 1).for_each(|band| band.levels = 2);
    }),
    ("a clause is satisfied by anything", CONJUNCTIONS, |rules| {
        for flow in &mut rules.flows {
            if matches!(flow.steps[..], [Step::Conjunction { clause: 1, .. }]) {
                flow.matching.terms.clear();
            }
        }
    }),
    ("a connection is not remembered", TRACKING, |rules| {
        each_ct(rules, |ct| {
            ct.commit = false;
            ct.force = false;
            ct.exec.clear();
            if matches!(ct.nat, Some(Nat::To { .. })) {
                ct.nat = None;
            }
        });
    }),
    ("zones are one", TRACKING, |rules| each_ct(rules, |ct| ct.zone = Zone::Number(0))),
    ("an answer is not forced out", TRACKING, |rules| each_ct(rules, |ct| ct.force = false)),
    ("a mark is not noted", TRACKING, |rules| each_ct(rules, |ct| ct.exec.clear())),
    ("a translation is to the next port", NAT, |rules| {
        each_ct(rules, |ct| {
            if let Some(Nat::To { port: Some(port), .. }) = &mut ct.nat {
                *port += 1;
            }
        });
    }),
    ("answers are not translated", NAT, |rules| {
        each_ct(rules, |ct| {
            if ct.nat == Some(Nat::Existing) && ct.table.is_some() {
                ct.nat = None;
            }
        });
    }),
    ("a connection is not forgotten", TRACKING, |rules| without(rules, |step| *step == Step::CtClear)),
    ("a lookup ignores the first packet's addresses", TRACKING, |rules| {
        each_step(rules, &|step| {
            if let Step::Resubmit { ct, .. } = step {
                *ct = false;
            }
        });
    }),
    ("a range begins one too late", VALUES, |rules| {
        each_member(rules, |values| {
            if let Values::Range(first, last) = values
                && *first < *last
            {
                *first += 1;
            }
        });
    }),
    ("a range ends one too early", VALUES, |rules| {
        each_member(rules, |values| {
            if let Values::Range(first, last) = values
                && *first < *last
            {
                *last -= 1;
            }
        });
    }),
    ("a member of a set is forgotten", VALUES, |rules| {
        for set in &mut rules.sets {
            set.members.pop();
        }
    }),
    ("a station is known to nobody", NORMAL, |rules| {
        each_step(rules, &|step| {
            if *step == Step::Normal {
                *step = Step::Flood;
            }
        });
    }),
    ("nothing is learned", LESSONS, |rules| without(rules, |step| matches!(step, Step::Learn(_)))),
    ("what is learned does less", LESSONS, |rules| {
        each_learn(rules, |learn| _ = learn.specs.pop());
    }),
    ("a limit on what is learned is one higher", LESSONS, |rules| {
        each_learn(rules, |learn| learn.limit += u32::from(learn.limit > 0));
    }),
    ("an option stays", ODDS, |rules| without(rules, |step| matches!(step, Step::DeleteField(_)))),
];

#[test]
fn a_switch_with_a_fault_is_noticed() {
    let mut unnoticed = Vec::new();
    for (fault, wanted, spoil) in FAULTS {
        match notice(1, N_TO_NOTICE, wanted, spoil) {
            None => unnoticed.push(fault),
            Some(error) => {
                let error = format!("{error:#}");
                assert!(
                    !error.contains(" needs "),
                    "the fault {fault} makes rules that are refused: {error}"
                );
            }
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed that {unnoticed:?}");
}
