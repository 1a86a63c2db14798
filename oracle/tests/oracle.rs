//! The switch agrees with the interpreter, and would be caught if it did not.

use oracle::{
    compare::{soak, soak_against},
    field::Field,
    syntax::{Flow, Step, ones},
};

/// Triples of this test; `cargo xtask soak` does more, and faster.
const N_TRIPLES: u64 = 30_000;
/// A fault must show within these.
const N_TO_NOTICE: u64 = 60_000;

#[test]
fn the_switch_does_what_the_interpreter_says() {
    let tally = soak(1, N_TRIPLES, |_| {}).unwrap_or_else(|error| panic!("{error:#}"));
    eprintln!("{tally:?}");
    // The world is one in which things happen.
    assert!(tally.n_copies > N_TRIPLES / 2, "{tally:?}");
    assert!(tally.n_drops > N_TRIPLES / 10, "{tally:?}");
    assert!(tally.n_cache_hits > N_TRIPLES / 5, "{tally:?}");
}

/// Changes each action of a rule, those of clones too.
fn each_step(flow: &mut Flow, change: &dyn Fn(&mut Step)) {
    fn list(steps: &mut [Step], change: &dyn Fn(&mut Step)) {
        for step in steps {
            change(step);
            if let Step::Clone(inner) = step {
                list(inner, change);
            }
        }
    }
    list(&mut flow.steps, change);
}

/// A fault, and what it does to a rule.
type Fault = (&'static str, fn(&mut Flow));

const FAULTS: &[Fault] = &[
    ("a TTL is not decremented", |flow| flow.steps.retain(|step| *step != Step::DecTtl)),
    ("a priority is lost", |flow| flow.priority = u16::MAX - flow.priority),
    ("a tag stays", |flow| flow.steps.retain(|step| *step != Step::PopVlan)),
    ("port 2 is taken for port 3", |flow| {
        each_step(flow, &|step| {
            if *step == Step::Output(2) {
                *step = Step::Output(3);
            }
        });
    }),
    ("a prefix is a bit too short", |flow| {
        for term in flow.matching.terms.iter_mut().filter(|term| term.field == Field::NwDst) {
            let shorter = term.mask << 1 & ones(32);
            (term.mask, term.value) = if shorter == 0 { continue } else { (shorter, term.value & shorter) };
        }
    }),
    ("a clone's changes stay", |flow| {
        let steps = std::mem::take(&mut flow.steps);
        let opened = |step| if let Step::Clone(inner) = step { inner } else { vec![step] };
        flow.steps = steps.into_iter().flat_map(opened).collect();
    }),
    ("a tunnel key is ignored", |flow| flow.steps.retain(|step| !matches!(step, Step::SetTunnel(_)))),
    ("a resubmit forgets the port", |flow| {
        each_step(flow, &|step| {
            if let Step::Resubmit { port, .. } = step {
                *port = None;
            }
        });
    }),
    ("a hop limit is one too high", |flow| {
        each_step(flow, &|step| {
            if let Step::Set(term) = step
                && term.field == Field::NwTtl
            {
                term.value += 1;
            }
        });
    }),
    ("ARP's operation is not written", |flow| {
        flow.steps.retain(|step| !matches!(step, Step::Set(term) if term.field == Field::ArpOp));
    }),
];

#[test]
fn a_switch_with_a_fault_is_noticed() {
    for (fault, spoil) in FAULTS {
        let result = soak_against(1, N_TO_NOTICE, &|flow| spoil(flow), |_| {});
        assert!(result.is_err(), "nobody noticed that {fault}");
    }
}
