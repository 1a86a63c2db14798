//! How rules see IP fragments.

use proptest::prelude::*;

use super::{
    random::{self, rule, snapshot},
    tests::{same, within},
    *,
};
use crate::{
    drop::DropReason,
    field::Field,
    flow::{Action, Match},
    table::{Change, FragmentMode},
    text::parse_fragment_mode,
    types::PortNo,
};

fn with_mode(rules: &[Rule], mode: FragmentMode) -> Snapshot {
    let snapshot = snapshot(1, rules);
    let tables = snapshot.tables.transact(vec![Change::Fragments(mode)]).unwrap();
    Snapshot { tables: Arc::new(tables), ..(*snapshot).clone() }
}

#[test]
fn each_mode_shows_fragments_in_its_own_way() {
    let udp = Match::any().with(Field::EthType, 0x0800).with(Field::NwProto, 17);
    let out = |n| vec![Action::Output(PortNo::new(n).unwrap())];
    let resubmit = Action::Resubmit { port: None, table: Some(TableId::new(1).unwrap()) };
    let rules = [
        rule(0, 9, udp.clone().with(Field::UdpDst, 53), out(2)),
        rule(0, 8, udp.clone().with(Field::UdpDst, 0), [vec![resubmit], out(3)].concat()),
        rule(1, 9, udp.with(Field::UdpDst, 53), out(4)),
    ];
    let ports = |mode, frag: u8, port: u16| {
        let mut key = FlowKey::zero();
        key.in_port.set(1);
        key.eth_type.set(0x0800);
        (key.nw_proto, key.nw_ttl, key.nw_frag) = (17, 64, frag);
        key.tp_dst.set(port);
        let translation = translate(&with_mode(&rules, mode), &key, &mut NoTrace);
        let ports: Vec<_> = translation.program.emits.iter().map(|emit| emit.port.get()).collect();
        (ports, translation.program.drop.map(|cause| cause.reason))
    };
    for mode in FragmentMode::ALL {
        assert_eq!(ports(*mode, 0, 53), (vec![2], None), "{mode:?}: a whole packet");
    }
    assert_eq!(ports(FragmentMode::NxMatch, 1, 53), (vec![2], None));
    assert_eq!(ports(FragmentMode::NxMatch, 3, 0), (vec![3], None));
    assert_eq!(ports(FragmentMode::Normal, 1, 53), (vec![3], None), "in later tables too");
    assert_eq!(ports(FragmentMode::Normal, 3, 0), (vec![3], None));
    for frag in [1, 3] {
        assert_eq!(ports(FragmentMode::Drop, frag, 0), (vec![], Some(DropReason::Fragment)));
    }
}

#[test]
fn modes_read_as_they_are_named() {
    for mode in FragmentMode::ALL {
        assert_eq!(parse_fragment_mode(mode.name()), Ok(*mode));
    }
    assert_eq!(parse_fragment_mode("nx_match").unwrap_err().suggestion.as_deref(), Some("nx-match"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_mask_law_holds_in_every_mode(
        rules in random::rules(), key in random::key(), others in prop::collection::vec(random::key(), 8),
        seed: u64, mode in prop::sample::select(FragmentMode::ALL),
    ) {
        let snapshot = with_mode(&rules, mode);
        let translation = translate(&snapshot, &key, &mut NoTrace);
        for sample in 0..32_u64 {
            let other = within(&key, &translation.mask, &others[(sample % 8) as usize], seed ^ sample << 32 ^ sample);
            let again = translate(&snapshot, &other, &mut NoTrace);
            prop_assert!(same(&translation, &again), "{:?}\n{:?}\n{:?}", other, translation, again);
        }
    }
}
