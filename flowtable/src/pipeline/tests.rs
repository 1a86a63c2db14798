//! Tests of translation: the mask law on random rules, and what each action means.

use proptest::prelude::*;

use super::{
    random::{self, LOCAL, N_WORKLOADS, PEER, TUNNEL, UPLINK, port, rule, snapshot, table},
    *,
};
use crate::{
    drop::DropReason,
    field::{Field, SubField},
    flow::{Action, Match, Rule},
    program::{Effect, FieldEdit, VlanTag},
    trace::{StepEvent, trace},
    types::PortNo,
};

/// Keys that agree with `key` in the masked bits, and elsewhere have bits of `other` or
/// random ones.
pub(crate) fn within(key: &FlowKey, mask: &FlowMask, other: &FlowKey, seed: u64) -> FlowKey {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state ^ state >> 29
    };
    let (all, none) = (next() & 1 == 0, next() & 7 == 0);
    let mut result = *key;
    for (idx, word) in result.words_mut().iter_mut().enumerate() {
        let foreign = if none { next() } else { other.words()[idx] };
        let replace = !mask.words()[idx] & if all { u64::MAX } else { next() };
        *word = *word & !replace | foreign & replace;
    }
    result
}

fn finished(translation: &Translation) -> impl Iterator<Item = (*const Rule, u16, u16)> {
    let finished = translation.tally.finished.iter();
    finished.map(|f| (Arc::as_ptr(&f.rule), f.idle_timeout, f.hard_timeout))
}

pub(crate) fn same(a: &Translation, b: &Translation) -> bool {
    let drop = |t: &Translation| {
        let cause = t.program.drop.as_ref()?;
        Some((cause.reason, cause.rule.as_ref().map(Arc::as_ptr)))
    };
    a.program.emits == b.program.emits
        && a.program.meters == b.program.meters
        && a.program.effects == b.program.effects
        && a.program.samples == b.program.samples
        && a.tally.renewed.iter().map(Arc::as_ptr).eq(b.tally.renewed.iter().map(Arc::as_ptr))
        && a.tally.stations == b.tally.stations
        && finished(a).eq(finished(b))
        && drop(a) == drop(b)
        && a.tally.misses == b.tally.misses
        && a.tally.groups.iter().map(Arc::as_ptr).eq(b.tally.groups.iter().map(Arc::as_ptr))
        && a.mask == b.mask
        && a.rules.iter().map(Arc::as_ptr).eq(b.rules.iter().map(Arc::as_ptr))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Flipping any bit that is not in the mask changes nothing: neither the program nor
    /// the mask nor the rules.
    #[test]
    fn the_mask_law_holds(rules in random::rules(), key in random::key(), others in prop::collection::vec(random::key(), 8), seed: u64) {
        let snapshot = snapshot(1, &rules);
        let translation = translate(&snapshot, &key, &mut NoTrace);
        for sample in 0..64_u64 {
            let other = within(&key, &translation.mask, &others[(sample % 8) as usize], seed ^ sample << 32 ^ sample);
            let again = translate(&snapshot, &other, &mut NoTrace);
            prop_assert!(same(&translation, &again), "{:?}\n{:?}\n{:?}", other, translation, again);
        }
    }

    /// What tables answered before changes nothing, not even the mask, whatever changed meanwhile.
    #[test]
    fn recent_answers_change_nothing(
        versions in prop::collection::vec(random::rules(), 1..3), keys in prop::collection::vec(random::key(), 1..12),
        order in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index, prop::sample::Index, u64)>(), 1..80),
    ) {
        let snapshots: Vec<_> = versions.iter().map(|rules| snapshot(1, rules)).collect();
        let mut recent = Recent::default();
        for (n, (version, key, other, seed)) in order.iter().enumerate() {
            // Most of the time the version stays.
            let snapshot = if n % 8 == 0 { version.get(&snapshots) } else { &snapshots[0] };
            let (key, other) = (key.get(&keys), other.get(&keys));
            let key = within(key, &translate(snapshot, key, &mut NoTrace).mask, other, *seed);
            let plain = translate(snapshot, &key, &mut NoTrace);
            let recalled = translate_recalling(snapshot, &key, None, &mut recent);
            prop_assert!(same(&plain, &recalled), "{:?}\n{:?}\n{:?}", key, plain, recalled);
            prop_assert_eq!(plain.acts_on_headers, recalled.acts_on_headers);
        }
    }

    /// A traced walk is the walk; its steps name the same rules.
    #[test]
    fn tracing_changes_nothing(rules in random::rules(), key in random::key()) {
        let snapshot = snapshot(1, &rules);
        let traced = trace(&snapshot, &key);
        prop_assert!(same(&traced.translation, &translate(&snapshot, &key, &mut NoTrace)));
        let hits: Vec<_> = traced.steps.iter().filter_map(|step| match &step.event {
            StepEvent::Hit(rule) => Some(Arc::as_ptr(rule)),
            StepEvent::Miss(_) | StepEvent::Lost(..) | StepEvent::Note(_) => None,
        }).collect();
        if traced.n_omitted == 0 {
            prop_assert_eq!(hits, traced.translation.rules.iter().map(Arc::as_ptr).collect::<Vec<_>>());
        }
    }

    /// A walk ends in copies or in a cause, never in both or neither.
    #[test]
    fn every_packet_has_an_end(rules in random::rules(), key in random::key()) {
        let translation = translate(&snapshot(1, &rules), &key, &mut NoTrace);
        let leaves = translation.program.emits.iter().any(|emit| emit.leaves());
        prop_assert_eq!(leaves, translation.program.drop.is_none());
    }
}

/// TCP from 10.0.0.1 by port 1.
fn tcp_key() -> FlowKey {
    let mut key = FlowKey::zero();
    key.in_port.set(1);
    key.eth_dst = [2, 0, 0, 0, 0, 2];
    key.eth_type.set(0x0800);
    key.nw_src.set(0x0a00_0001);
    key.nw_dst.set(0x0a00_0002);
    (key.nw_proto, key.nw_ttl) = (6, 64);
    (key.tp_src, key.tp_dst) = (1000.into(), 80.into());
    key
}

fn run(rules: &[Rule], key: &FlowKey) -> Translation {
    let snapshot = snapshot(1, rules);
    assert_eq!(snapshot.tables.len(), rules.len(), "all rules are allowed");
    translate(&snapshot, key, &mut NoTrace)
}

/// One rule in table 0 that takes TCP.
fn run_actions(actions: Vec<Action>, key: &FlowKey) -> Translation {
    let tcp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6);
    let matching = if key.eth_type.get() == 0x0800 { tcp } else { Match::any() };
    run(&[rule(0, 1, matching, actions)], key)
}

fn out(raw: u32) -> Action {
    Action::Output(port(raw))
}

fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.all_bits() }
}

fn to(raw: u8) -> Action {
    Action::Resubmit { port: None, table: Some(table(raw)) }
}

fn ports(translation: &Translation) -> Vec<u32> {
    translation.program.emits.iter().map(|emit| emit.port.get()).collect()
}

fn cause(translation: &Translation) -> (DropReason, Option<u64>) {
    let cause = translation.program.drop.as_ref().expect("it is dropped");
    (cause.reason, cause.rule.as_ref().map(|rule| rule.cookie))
}

/// The random world is rich enough for the properties to mean something.
#[test]
fn random_rules_do_all_sorts_of_things() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut n_groups, mut n_meters) = (0, 0);
    let (mut n_rules, mut n_allowed, mut n_emits, mut n_edits, mut n_tags, mut n_tunnels, mut n_ttl) =
        (0, 0, 0, 0, 0, 0, 0);
    let mut n_new = [0; 6];
    let (mut n_labels, mut n_punts, mut n_cuts, mut n_conjunctions) = (0, 0, 0, 0);
    for _ in 0..5000 {
        let rules = random::rules().new_tree(&mut runner).unwrap().current();
        let key = random::key().new_tree(&mut runner).unwrap().current();
        let snapshot = snapshot(1, &rules);
        n_rules += rules.len();
        n_allowed += snapshot.tables.len();
        let translation = translate(&snapshot, &key, &mut NoTrace);
        n_groups += usize::from(!translation.tally.groups.is_empty());
        n_meters += usize::from(!translation.program.meters.is_empty());
        let leads = |rule: &Arc<Rule>| rule.matching.get(Field::ConjId).1 != 0;
        n_conjunctions += usize::from(translation.rules.iter().any(leads));
        let program = &translation.program;
        let is_length = |bits| usize::from(bits != 0);
        let marks = [
            usize::from(program.effects.iter().any(|effect| matches!(effect, Effect::Learn(_)))),
            usize::from(program.effects.iter().any(|effect| matches!(effect, Effect::Station(_)))),
            usize::from(!translation.tally.stations.is_empty()),
            usize::from(!translation.tally.finished.is_empty()),
            usize::from(!program.samples.is_empty()),
            is_length(translation.mask.get(Field::FrameLen)),
        ];
        n_new.iter_mut().zip(marks).for_each(|(n, mark)| *n += mark);
        let emits = translation.program.emits;
        let extras = || emits.iter().filter_map(|emit| emit.extras.as_ref());
        n_labels += usize::from(extras().any(|extras| extras.labels.is_some()));
        n_punts += usize::from(extras().any(|extras| extras.punt.is_some()));
        n_cuts += usize::from(extras().any(|extras| extras.max_len.is_some()));
        n_emits += usize::from(!emits.is_empty());
        n_edits += usize::from(emits.iter().any(|emit| !emit.edits.is_empty()));
        n_tags += usize::from(emits.iter().any(|emit| !emit.vlan_pushes.is_empty()));
        n_tunnels += usize::from(emits.iter().any(|emit| emit.tunnel.is_some()));
        n_ttl +=
            usize::from(emits.iter().flat_map(|emit| &emit.edits).any(|edit| edit.field == Field::NwTtl));
    }
    let seen = [n_allowed * 1000 / n_rules, n_emits, n_edits, n_tags, n_tunnels, n_ttl];
    let expected = [900, 1000, 100, 80, 10, 10];
    assert!(seen.iter().zip(expected).all(|(seen, expected)| *seen >= expected), "{seen:?}");
    let seen = [n_labels, n_punts, n_cuts, n_conjunctions, n_groups, n_meters];
    let expected = [20, 50, 30, 20, 100, 60];
    assert!(seen.iter().zip(expected).all(|(seen, expected)| *seen >= expected), "{seen:?}");
    assert!(n_new.iter().zip([100, 60, 10, 5, 40, 30]).all(|(n, expected)| *n >= expected), "{n_new:?}");
}

#[test]
fn drops_name_their_reason_and_rule() {
    use DropReason as R;
    let key = tcp_key();
    assert_eq!(cause(&run(&[], &key)), (R::TableMiss, None));
    assert_eq!(cause(&run_actions(vec![], &key)), (R::RuleDrop, Some(0)));
    assert_eq!(cause(&run_actions(vec![set(Field::Reg0, 1)], &key)), (R::RuleDrop, Some(0)));
    assert_eq!(cause(&run_actions(vec![to(3)], &key)), (R::TableMiss, Some(0)));
    assert_eq!(cause(&run_actions(vec![out(1)], &key)), (R::SamePort, Some(0)));
    assert_eq!(cause(&run_actions(vec![out(4)], &key)), (R::PortDown, Some(0)));
    assert_eq!(cause(&run_actions(vec![out(77)], &key)), (R::NoSuchPort, Some(0)));
    assert_eq!(cause(&run_actions(vec![Action::Output(PortNo::LOCAL)], &key)), (R::NoSuchPort, Some(0)));
    assert_eq!(cause(&run_actions(vec![out(TUNNEL)], &key)), (R::TunnelNoRoute, Some(0)));
    let deeper = [rule(0, 1, Match::any(), vec![to(1)]), rule(1, 1, Match::any(), vec![])];
    assert_eq!(cause(&run(&deeper, &key)), (R::RuleDrop, Some(1)));
}

#[test]
fn a_packet_goes_back_only_when_that_is_asked_for() {
    let key = tcp_key();
    assert_eq!(ports(&run_actions(vec![Action::Output(PortNo::IN_PORT)], &key)), [1]);
    assert_eq!(ports(&run_actions(vec![set(Field::InPort, 0), out(1)], &key)), [1]);
    assert_eq!(ports(&run_actions(vec![set(Field::InPort, 2), out(2), out(1)], &key)), [1]);
    let loaded = vec![set(Field::Reg0, 1), Action::OutputReg(SubField::new(Field::Reg0, 0, 16).unwrap())];
    assert_eq!(cause(&run_actions(loaded, &key)).0, DropReason::SamePort);
}

#[test]
fn flooding_reaches_workloads_that_are_up_but_the_sender() {
    let flooded = run_actions(vec![Action::Output(PortNo::FLOOD)], &tcp_key());
    assert_eq!(ports(&flooded), (2..N_WORKLOADS).collect::<Vec<_>>());
}

#[test]
fn resubmit_keeps_changes_and_restores_the_input_port() {
    let from_2 = Match::any().with(Field::InPort, 2).with(Field::Reg0, 7);
    let rules = [
        rule(
            0,
            1,
            Match::any(),
            vec![
                set(Field::Reg0, 7),
                Action::Resubmit { port: Some(port(2)), table: Some(table(1)) },
                Action::OutputReg(SubField::new(Field::Reg1, 0, 16).unwrap()),
            ],
        ),
        // Its own output to port 2 is not a way back: only the lookup had that input port.
        rule(1, 1, from_2, vec![out(2), set(Field::Reg1, 3)]),
    ];
    let translation = run(&rules, &tcp_key());
    assert_eq!(ports(&translation), [2, 3]);
    assert_eq!(translation.rules.len(), 2);
}

#[test]
fn clones_undo_and_goto_comes_last() {
    let tcp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6);
    let clone =
        Action::Clone(vec![set(Field::EthDst, 5), Action::PushVlan(0x8100), set(Field::Reg0, 9), out(2)]);
    let rules = [
        rule(0, 1, tcp, vec![clone, out(3), set(Field::Reg0, 1), Action::GotoTable(table(1))]),
        rule(1, 1, Match::any().with(Field::Reg0, 1), vec![Action::Output(PortNo::IN_PORT)]),
    ];
    let emits = run(&rules, &tcp_key()).program.emits;
    assert_eq!(emits.len(), 3);
    assert_eq!((emits[0].port, emits[0].vlan_pushes.len(), emits[0].edits.len()), (port(2), 1, 1));
    assert_eq!((emits[1].port, emits[1].vlan_pushes.len(), emits[1].edits.len()), (port(3), 0, 0));
    assert_eq!(emits[2].port, port(1));
}

#[test]
fn ttl_runs_out_for_its_list_only() {
    let mut key = tcp_key();
    let actions = || vec![Action::DecTtl, out(2)];
    let edit = FieldEdit { field: Field::NwTtl, value: 63, mask: 0xff };
    assert_eq!(run_actions(actions(), &key).program.emits[0].edits, [edit]);
    key.nw_ttl = 1;
    assert_eq!(cause(&run_actions(actions(), &key)), (DropReason::TtlExpired, Some(0)));
    let around = vec![Action::Clone(vec![Action::DecTtl, out(2)]), out(3)];
    assert_eq!(ports(&run_actions(around, &key)), [3]);
    key.eth_type.set(0x88b5);
    let other = run_actions(vec![Action::Clone(vec![out(2)])], &key);
    assert_eq!(ports(&other), [2]);
}

#[test]
fn edits_are_what_may_differ() {
    let mut key = tcp_key();
    let program = run_actions(vec![set(Field::TcpDst, 80), out(2)], &key).program;
    // Nobody looked at the port, so that other packets of the entry may have another.
    assert_eq!(program.emits[0].edits, [FieldEdit { field: Field::TcpDst, value: 80, mask: 0xffff }]);
    let looked = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6).with(Field::TcpDst, 80);
    let same = run(&[rule(0, 1, looked, vec![set(Field::TcpDst, 80), out(2)])], &key).program;
    assert_eq!(same.emits[0].edits, []);
    // A later fragment has no ports.
    key.nw_frag = 3;
    let fragment = run_actions(vec![set(Field::TcpDst, 81), out(2)], &key).program;
    assert_eq!(fragment.emits[0].edits, []);
}

#[test]
fn dscp_is_written_without_ecn() {
    let mut key = tcp_key();
    key.nw_tos = 3;
    let set_tos = Action::SetField { field: Field::NwTos, value: 0xb8, mask: 0xff };
    let edits = run_actions(vec![set_tos, out(2)], &key).program.emits[0].edits.clone();
    assert_eq!(edits, [FieldEdit { field: Field::NwTos, value: 0xb8, mask: 0xfc }]);
}

#[test]
fn tags_are_pushed_popped_and_rewritten() {
    let tag = |tpid, tci| VlanTag { tpid, tci };
    let emit = |actions: Vec<Action>, key: &FlowKey| {
        let mut actions = actions;
        actions.push(out(2));
        let emit = run_actions(actions, key).program.emits.remove(0);
        (emit.n_vlan_pops, emit.vlan_pushes)
    };
    let untagged = tcp_key();
    let mut tagged = tcp_key();
    tagged.vlan_tpid.set(0x8100);
    tagged.vlan_tci.set(0x1000 | 3 << 13 | 100);
    let mut stacked = tagged;
    stacked.cvlan_tpid.set(0x8100);
    stacked.cvlan_tci.set(0x1000 | 200);
    let vid = |vid: u128| set(Field::VlanVidOxm, 0x1000 | vid);
    use Action::{PopVlan, PushVlan};

    assert_eq!(emit(vec![PopVlan], &untagged), (0, vec![]));
    assert_eq!(emit(vec![vid(7)], &untagged), (0, vec![tag(0x8100, 7)]));
    assert_eq!(emit(vec![PushVlan(0x88a8), vid(7)], &tagged), (0, vec![tag(0x88a8, 7)]));
    assert_eq!(
        emit(vec![PushVlan(0x8100), vid(7), PushVlan(0x88a8), vid(8)], &untagged),
        (0, vec![tag(0x8100, 7), tag(0x88a8, 8)])
    );
    // The priority stays.
    assert_eq!(emit(vec![vid(7)], &tagged), (1, vec![tag(0x8100, 3 << 13 | 7)]));
    assert_eq!(emit(vec![PopVlan], &tagged), (1, vec![]));
    assert_eq!(emit(vec![set(Field::VlanTci, 0)], &tagged), (1, vec![]));
    assert_eq!(emit(vec![PopVlan, PopVlan], &stacked), (2, vec![]));
    assert_eq!(emit(vec![PopVlan, vid(9)], &stacked), (2, vec![tag(0x8100, 9)]));
    let third = run_actions(vec![PushVlan(0x8100), out(2)], &stacked);
    assert_eq!(cause(&third).0, DropReason::Unsupported);
}

#[test]
fn tunnels_need_a_peer_with_a_next_hop() {
    let towards = |dst: std::net::Ipv4Addr| {
        vec![
            Action::SetTunnel(5),
            set(Field::TunMetadata0, 0x0001_0002),
            set(Field::TunDst, dst.to_bits().into()),
            out(TUNNEL),
        ]
    };
    let emit = run_actions(towards(PEER), &tcp_key()).program.emits.remove(0);
    assert_eq!(emit.port, port(UPLINK));
    let header = emit.tunnel.expect("encapsulated");
    assert_eq!((header.vni.get(), header.remote, header.tunnel_port), (5, PEER.into(), port(TUNNEL)));
    assert!(header.bytes.windows(4).any(|window| window == [0, 1, 0, 2]));
    assert_eq!(cause(&run_actions(towards(LOCAL), &tcp_key())).0, DropReason::TunnelNoRoute);
}

#[test]
fn loops_end_and_emit_nothing() {
    let key = tcp_key();
    let itself = run_actions(vec![out(2), to(0)], &key);
    assert_eq!(cause(&itself), (DropReason::DepthExceeded, Some(0)));
    assert_eq!(itself.rules.len(), MAX_DEPTH + 1);
    // Two ways to go at each of the tables: more walks than anyone can wait for.
    let fan: Vec<_> = (0..40).map(|n| rule(n, 1, Match::any(), vec![to(n + 1), to(n + 1)])).collect();
    assert_eq!(cause(&run(&fan, &key)).0, DropReason::TooManyResubmits);
    let clones: Vec<_> =
        (0..2).map(|n| rule(n, 1, Match::any(), vec![Action::Clone(vec![to(1 - n)])])).collect();
    assert_eq!(cause(&run(&clones, &key)).0, DropReason::DepthExceeded);
    let copies = vec![out(2); 9000];
    let many = [rule(0, 1, Match::any(), vec![to(1), to(1)]), rule(1, 1, Match::any(), copies)];
    assert_eq!(cause(&run(&many, &key)).0, DropReason::TooManyOutputs);
}

#[test]
fn a_long_chain_of_forward_steps_is_not_deep() {
    let mut chain: Vec<_> = (0..200).map(|n| rule(n, 1, Match::any(), vec![to(n + 1)])).collect();
    chain.push(rule(200, 1, Match::any(), vec![out(2)]));
    let translation = run(&chain, &tcp_key());
    assert_eq!(ports(&translation), [2]);
    assert_eq!(translation.rules.len(), 201);
}

#[test]
fn controllers_are_told_why_and_what_the_pipeline_knows() {
    use crate::flow::{PuntReason, ToController};
    let mut key = tcp_key();
    let to = ToController { userdata: vec![7], controller: 3, ..ToController::default() };
    let told = |translation: &Translation| {
        let punt = |emit: &crate::program::Emit| emit.extras.clone().and_then(|extras| extras.punt);
        translation.program.emits.iter().filter_map(punt).collect::<Vec<_>>()
    };
    let actions = vec![set(Field::Reg3, 9), Action::Controller(Box::new(to.clone())), out(2)];
    let translation = run_actions(actions, &key);
    assert_eq!(ports(&translation), [PortNo::CONTROLLER.get(), 2]);
    let punts = told(&translation);
    assert_eq!((punts.len(), &punts[0].to, punts[0].table), (1, &to, table(0)));
    assert_eq!(punts[0].metadata, Match::any().with(Field::InPort, 1).with(Field::Reg3, 9));

    key.nw_ttl = 1;
    let expired = run_actions(vec![Action::DecTtlOrTell(vec![4, 5]), out(2)], &key);
    let reasons: Vec<_> = told(&expired).iter().map(|punt| (punt.to.reason, punt.to.controller)).collect();
    assert_eq!(reasons, [(PuntReason::InvalidTtl, 4), (PuntReason::InvalidTtl, 5)]);
    assert_eq!(ports(&expired), [PortNo::CONTROLLER.get(); 2]);

    // What is looked at and goes nowhere is dropped by the rule; what goes on is not.
    let log = ToController { reason: PuntReason::Log, ..ToController::default() };
    let looked = Action::Clone(vec![Action::Controller(Box::new(log))]);
    let dropped = run_actions(vec![looked.clone()], &key);
    assert_eq!(told(&dropped)[0].to.reason, PuntReason::Log);
    let cause = dropped.program.drop.as_ref().expect("it is dropped");
    assert_eq!((cause.reason, cause.rule.is_some()), (DropReason::RuleDrop, true));
    let passed = run_actions(vec![looked, out(2)], &key);
    assert_eq!((told(&passed).len(), passed.program.drop.is_none()), (1, true));

    let miss = run(&[rule(0, 0, Match::any(), vec![Action::Output(PortNo::CONTROLLER)])], &key);
    assert_eq!(told(&miss)[0].to.reason, PuntReason::NoMatch);
}

#[test]
fn an_exit_ends_the_walk_or_the_clone_around_it() {
    let tcp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6);
    let rules = [
        rule(0, 1, tcp.clone(), vec![Action::Clone(vec![to(1), out(2)]), out(3), to(1), out(2)]),
        rule(1, 1, tcp, vec![Action::Output(PortNo::IN_PORT), Action::Exit, out(2)]),
    ];
    assert_eq!(ports(&run(&rules, &tcp_key())), [1, 3, 1]);
}

#[test]
fn what_is_pushed_is_popped_in_reverse_and_clones_have_stacks_of_their_own() {
    let sub = |field, n_bits| SubField::new(field, 0, n_bits).unwrap();
    let actions = vec![
        set(Field::Reg0, 2),
        Action::Push(sub(Field::Reg0, 16)),
        set(Field::Reg0, 3),
        Action::Push(sub(Field::Reg0, 16)),
        Action::Clone(vec![Action::Pop(sub(Field::Reg1, 16)), Action::Pop(sub(Field::Reg1, 16))]),
        Action::Pop(sub(Field::Reg2, 16)),
        Action::OutputReg(sub(Field::Reg2, 16)),
        Action::Pop(sub(Field::Reg2, 16)),
        Action::Pop(sub(Field::Reg2, 16)),
        Action::OutputReg(sub(Field::Reg2, 16)),
    ];
    assert_eq!(ports(&run_actions(actions, &tcp_key())), [3, 2]);
    let endless = vec![Action::Push(sub(Field::Reg0, 16)); MAX_STACK + 1];
    assert_eq!(cause(&run_actions(endless, &tcp_key())).0, DropReason::StackOverflow);
}

#[test]
fn labels_are_relative_to_those_received() {
    let label = |actions: Vec<Action>, key: &FlowKey| {
        let translation = run(
            &[rule(
                0,
                1,
                Match::any().with(Field::EthType, key.eth_type.get().into()),
                [actions, vec![out(2)]].concat(),
            )],
            key,
        );
        let extras = translation.program.emits.first().and_then(|emit| emit.extras.clone());
        extras.and_then(|extras| extras.labels).map(|edit| (edit.n_pops, edit.pushes, edit.eth_type))
    };
    use Action::{DecMplsTtl, PopMpls, PushMpls};
    let plain = tcp_key();
    // Label 0 at the bottom, TTL of IP.
    assert_eq!(label(vec![PushMpls(0x8847)], &plain), Some((0, vec![0x140], 0x8847)));
    assert_eq!(label(vec![PushMpls(0x8847), PopMpls(0x0800)], &plain), None);
    let twice =
        vec![PushMpls(0x8847), set(Field::MplsLabel, 16), PushMpls(0x8847), set(Field::MplsLabel, 17)];
    assert_eq!(label(twice, &plain), Some((0, vec![0x1_0140, 0x1_1040], 0x8847)));
    let mut labelled = FlowKey::zero();
    (labelled.in_port, labelled.eth_type) = (1.into(), 0x8847.into());
    labelled.n_mpls = 2;
    labelled.mpls = [0x2_0040.into(), 0x3_0120.into(), 0.into()];
    assert_eq!(label(vec![DecMplsTtl], &labelled), Some((1, vec![0x2_003f], 0x8847)));
    assert_eq!(label(vec![PopMpls(0x8847), DecMplsTtl], &labelled), Some((2, vec![0x3_011f], 0x8847)));
    assert_eq!(label(vec![PopMpls(0x8847), PopMpls(0x0800)], &labelled), Some((2, vec![], 0x0800)));
    // What is below can be sent and not looked at.
    let matching = Match::any().with(Field::EthType, 0x8847);
    let looked = [rule(0, 1, matching, vec![PopMpls(0x0800), Action::DecTtl, out(2)])];
    labelled.n_mpls = 1;
    assert_eq!(cause(&run(&looked, &labelled)).0, DropReason::Unsupported);
}

#[test]
fn what_is_behind_labels_of_the_walk_reads_as_nothing() {
    let sub = |field| SubField::new(field, 0, 3).unwrap();
    let tcp = || Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6);
    let key = FlowKey { nw_dst: 0x0a00_0003.into(), ..tcp_key() };
    let pushed = vec![Action::Push(sub(Field::NwDst)), Action::Pop(sub(Field::Reg0))];
    let pushed = [pushed, vec![Action::OutputReg(sub(Field::Reg0))]].concat();
    for use_it in [pushed, vec![Action::OutputReg(sub(Field::NwDst))]] {
        for (labels, expected) in [(vec![], vec![3]), (vec![Action::PushMpls(0x8847)], vec![])] {
            let rules = [
                rule(0, 1, tcp(), [vec![to(1)], use_it.clone()].concat()),
                rule(1, 1, Match::any(), labels.clone()),
            ];
            assert_eq!(ports(&run(&rules, &key)), expected, "{use_it:?} {labels:?}");
        }
    }
}

#[test]
fn bundles_choose_members_that_are_up() {
    use crate::flow::{Bundle, BundleAlgorithm, HashFields};
    let bundle = |algorithm, members: &[u32]| {
        let members = members.iter().map(|raw| port(*raw)).collect();
        let bundle = Bundle { fields: HashFields::SymmetricL4, basis: 0, algorithm, members, dst: None };
        ports(&run_actions(vec![Action::Bundle(Box::new(bundle))], &tcp_key()))
    };
    assert_eq!(bundle(BundleAlgorithm::ActiveBackup, &[4, 77, 3, 2]), [3]);
    assert_eq!(bundle(BundleAlgorithm::HighestWeight, &[4, 77, 3]), [3]);
    assert_eq!(bundle(BundleAlgorithm::HighestWeight, &[4]), []);
}

#[test]
fn symmetric_hashes_do_not_see_the_direction() {
    use crate::flow::{HashFields, Multipath, MultipathAlgorithm};
    let dst = SubField::new(Field::Reg0, 0, 16).unwrap();
    let choose = |fields, key: &FlowKey| {
        let algorithm = MultipathAlgorithm::ModuloN;
        let multipath = Multipath { fields, basis: 1, algorithm, n_links: 60_000, argument: 0, dst };
        let actions = vec![Action::Multipath(Box::new(multipath)), Action::OutputReg(dst)];
        let snapshot = snapshot(1, &[rule(0, 1, Match::any(), actions)]);
        let traced = trace(&snapshot, key);
        traced.steps.iter().find_map(|step| match &step.event {
            StepEvent::Note(note) if note.starts_with("link") => Some(note.clone()),
            _ => None,
        })
    };
    let there = tcp_key();
    let mut back = there;
    (back.nw_src, back.nw_dst) = (there.nw_dst, there.nw_src);
    (back.tp_src, back.tp_dst) = (there.tp_dst, there.tp_src);
    (back.eth_src, back.eth_dst) = (there.eth_dst, there.eth_src);
    for fields in [HashFields::SymmetricL4, HashFields::SymmetricL3L4, HashFields::SymmetricL3L4Udp] {
        assert_eq!(choose(fields, &there), choose(fields, &back));
        let mut other = there;
        other.tp_dst.set(81);
        assert_ne!(choose(fields, &there), choose(fields, &other));
    }
    assert_ne!(choose(HashFields::NwSrc, &there), choose(HashFields::NwSrc, &back));
}

#[test]
fn a_conjunction_needs_all_its_clauses() {
    let part = |id, clause| Action::Conjunction { id, clause, n_clauses: 2 };
    let tcp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 6);
    let rules = [
        rule(0, 5, tcp.clone().with(Field::NwSrc, 0x0a00_0001), vec![part(7, 1)]),
        rule(0, 5, tcp.clone().with(Field::NwSrc, 0x0a00_0003), vec![part(7, 1)]),
        rule(0, 5, tcp.clone().with(Field::TcpDst, 80), vec![part(7, 2)]),
        rule(0, 5, Match::any().with(Field::ConjId, 7), vec![out(2)]),
        rule(0, 1, Match::any(), vec![out(3)]),
    ];
    let mut key = tcp_key();
    let both = run(&rules, &key);
    assert_eq!(ports(&both), [2]);
    assert_eq!(both.mask.get(Field::ConjId), Field::ConjId.all_bits(), "it was looked at first");
    key.tp_dst.set(81);
    assert_eq!(ports(&run(&rules, &key)), [3]);
    key.tp_dst.set(80);
    key.nw_src.set(0x0a00_0003);
    assert_eq!(ports(&run(&rules, &key)), [2]);
    // A plain rule of the same priority wins.
    let plain = [rules.to_vec(), vec![rule(0, 5, tcp, vec![Action::Output(PortNo::IN_PORT)])]].concat();
    assert_eq!(ports(&run(&plain, &key)), [1]);
}
