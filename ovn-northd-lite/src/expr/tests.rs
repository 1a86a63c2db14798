//! The language as a whole: texts and their errors, print∘parse, and the normal form
//! against the evaluator.

use std::sync::Arc;

use flowtable::{
    field::Field,
    flow::{Match, Rule},
    key::FlowKey,
    set::SetKind,
    table::{Change, Tables},
    types::{Priority, TableId},
};
use proptest::prelude::*;

use super::{symbols::Kind, *};

fn ports(name: &str) -> Option<u16> {
    match name {
        "a" => Some(1),
        "b" => Some(2),
        "_MC_flood" => Some(0x8000),
        _ => None,
    }
}

fn n_matches(text: &str) -> usize {
    parse(text).unwrap().to_matches(&ports).unwrap().len()
}

#[test]
fn errors_tell_place_reason_and_remedy() {
    for (text, wanted) in [
        ("", "column 1: the expression is incomplete"),
        ("tcp.dts == 80", "column 1: there is no field `tcp.dts`; did you mean `tcp.dst`?"),
        ("ip4 && ipv6.src == ::1", "column 8: there is no field `ipv6.src`; did you mean `ip6.src`?"),
        ("tcp.dst == 65536", "column 1: `tcp.dst` has 16 bits, 65536 has 17"),
        ("ip4.src == fe80::1", "column 1: `ip4.src` has 32 bits, fe80::1 has 128"),
        ("icmp4.type == 256", "column 1: `icmp4.type` has 8 bits, 256 has 9"),
        (
            "ip4.src == 10.0.0.1/24",
            "column 12: the value has bits outside its mask; write 10.0.0.0/24, or leave out the mask",
        ),
        ("ip4.src == 10.0.0.0/33", "column 21: the prefix length must be 0 to 32, not 33"),
        ("inport == 1", "column 1: `inport` is compared with a port's name in quotes, not 1"),
        ("tcp.dst == \"a\"", "column 1: `tcp.dst` is a number, \"a\" is the name of a port"),
        ("inport != \"a\"", "column 1: `inport` may only be tested for equality, enclosing `!` considered"),
        (
            "!(inport == \"a\")",
            "column 3: `inport` may only be tested for equality, enclosing `!` considered",
        ),
        ("ip4 == 1", "column 1: `ip4` is true or false; write `ip4` or `!ip4`"),
        ("tcp.dst", "column 1: `tcp.dst` must be compared with something, for example by `==`"),
        (
            "ip4 && tcp || udp",
            "column 12: `&&` and `||` together need parentheses that say which comes first",
        ),
        ("ip4 tcp", "column 5: expected `&&`, `||` or the end, not `tcp`"),
        ("tcp.dst < {1, 2}", "column 1: `<` does not go with a set; use `==` or `!=`"),
        ("1 < tcp.dst > 3", "column 13: a range needs two `<` or `<=`, or two `>` or `>=`"),
        ("eth.dst[48]", "column 9: `eth.dst` has the bits 0 to 47, the lower one written first"),
        ("tcp.dst == {}", "column 14: a set needs at least one member"),
        ("inport == $web", "column 1: `inport` is compared with a port's name in quotes, not $web"),
        ("ip4.src == @web", "column 1: `ip4.src` is a number, @web is the name of a port"),
        ("ip4.src > $web", "column 1: `>` does not go with an address set"),
        ("inport != @web", "column 1: `inport` may only be tested for equality, enclosing `!` considered"),
        ("ip4.src == $", "column 12: `$` must be followed by a name"),
        ("ct.est == 2", "column 1: `ct.est` has 1 bits, 2 has 2"),
        ("ip.proto == 6/0x7", "column 1: `ip.proto` can only be compared as a whole, without a mask"),
        ("ip.proto[0]", "column 10: `ip.proto` can only be used as a whole"),
        ("is_chassis_resident(a)", "column 21: expected the name of a port in quotes"),
    ] {
        assert_eq!(check_match(text).unwrap_err().to_string(), wanted, "{text}");
    }
    let error = check_match(&"(".repeat(60_000)).unwrap_err();
    assert_eq!(error.reason, "nested more than 100 deep");
    let error = check_match(&"!".repeat(60_000)).unwrap_err();
    assert_eq!(error.reason, "nested more than 100 deep");
}

#[test]
fn usual_matches_stay_few() {
    for (text, wanted) in [
        ("1", 1),
        ("0", 0),
        ("ip", 2),
        ("tcp", 2),
        ("ip4 && tcp.dst == 80", 1),
        ("tcp && tcp.dst == {80, 443}", 4),
        ("ip4 && 1000 <= tcp.dst <= 2000", 1),
        ("ip4 && tcp.dst >= 1024", 1),
        ("ip4.src == {10.0.0.0/24, 10.0.1.0/24}", 1),
        ("ip4.src != 10.0.0.0/8", 2),
        ("nd", 2),
        ("ip4 && ip.proto != 6", 2),
        ("!ip4", 2),
        ("!ip", 3),
        ("!tcp", 7),
        ("ip && !tcp", 4),
        ("arp && !ip", 1),
        ("tcp && !ip4", 1),
        ("!(tcp || udp)", 9),
        ("!tcp && ip4.dst == 10.0.0.0/8", 2),
        ("ip4 && !(ip.proto == {1, 6, 17})", 7),
        ("!(udp.dst == 80)", 4),
        ("ip4 && ip.ttl == {0, 1}", 2),
        ("icmp4.type > 250", 1),
        ("arp && ip4", 0),
        ("inport == {\"a\", \"gone\"} && ip4", 1),
        ("inport == \"gone\" || ip4", 1),
        ("!(ip4.src == 10.0.0.1 || ip4.src == 10.0.0.2)", 2),
        ("xreg0[32..63] == 5 && reg0 == 6", 0),
        ("xreg0[32..63] == 5 && reg0 == 5", 1),
    ] {
        check_match(text).unwrap();
        assert_eq!(n_matches(text), wanted, "{text}");
    }
}

#[test]
fn what_is_too_large_is_refused_with_the_limit() {
    let all = |n: u32, shift: u32| {
        let list: Vec<_> = (0..n).map(|i| (i << shift).to_string()).collect();
        list.join(", ")
    };
    let text = format!("ip4.src == {{{}}} && ip4.dst == {{{}}}", all(100, 8), all(100, 8));
    assert!(check_match(&text).unwrap_err().reason.contains("more than 4096 matches"));
    let names: Vec<_> = (0..5000).map(|i| format!("\"p{i}\"")).collect();
    let error = check_match(&format!("inport == {{{}}}", names.join(", "))).unwrap_err();
    assert!(error.reason.contains("more than 4096 matches"), "{error}");
    let text = format!("ip4.src == {{{}}}", all(4096, 8));
    check_match(&text).unwrap();
}

#[test]
fn sets_are_as_good_as_their_members_and_no_product() {
    let member = |text: &str| constant(text).unwrap();
    let sets = |name: SetName<'_>| match name {
        SetName::Addresses("web") => {
            Some(["10.0.0.0/24", "10.0.2.1", "::1", "0a:00:00:00:00:01"].map(member).into())
        }
        SetName::Addresses("long") => Some((0..100).map(|i| member(&format!("10.{i}.0.1"))).collect()),
        SetName::Addresses("none") => Some(Vec::new()),
        SetName::Ports("g-1.x") => Some(["a", "gone", "b"].map(|id| Constant::Port(id.to_owned())).into()),
        _ => None,
    };
    let resolved = |text: &str| parse(text).unwrap().with_sets(&sets);
    for (text, wanted) in [
        ("ip4.src == $web", "ip4.src == {10.0.0.0/24, 10.0.2.1}"),
        ("ip4.src != $web", "ip4.src != {10.0.0.0/24, 10.0.2.1}"),
        ("ip6.dst == {::2, $web}", "ip6.dst == {::2, ::1}"),
        ("eth.src == $web", "eth.src == 0a:00:00:00:00:01"),
        ("inport == @g-1.x", "inport == {\"a\", \"b\"}"),
        ("ip4.src == $none", "0"),
        ("ip4.src != $none", "ip4"),
    ] {
        let matches = |expr: Expr| expr.to_matches(&ports).unwrap();
        assert_eq!(matches(resolved(text).unwrap()), matches(parse(wanted).unwrap()), "{text}");
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
    assert_eq!(resolved("ip4.src == $x").unwrap_err().reason, "there is no address set `$x`");
    assert_eq!(resolved("inport == @x").unwrap_err().reason, "there is no port group `@x`");
    assert_eq!(sets_of("ip4.src == {$b, $a} || inport == @c"), ["$a", "$b", "@c"].map(str::to_owned).into());

    let text =
        "reg0[7] == 1 && (inport == @g-1.x && ip && ip4.src == $long && ip4.dst == $long && tcp.dst == 80)";
    let by_clause = |expr: Expr| expr.to_matches_by_clause(&ports, &|_, _, _| None).unwrap();
    let all = by_clause(resolved(text).unwrap());
    let [Matches::All { clauses, .. }, Matches::All { .. }] = &all[..] else { panic!("{all:?}") };
    assert_eq!(clauses.iter().map(Vec::len).collect::<Vec<_>>(), [100, 100], "for each of two ports");
}

#[test]
fn sets_stay_sets() {
    use flowtable::set::{NamedSet, Sets, ValueRange};
    let switch_set = |name: SetName<'_>, kind: SetKind, negated: bool| {
        let word = match name {
            SetName::Addresses("web") => "web",
            SetName::Ports("g") => "g",
            _ => return None,
        };
        Some(flowtable::set::SetName::new(&format!("{kind}-{negated}.{word}")).unwrap())
    };
    let rules = |text: &str| {
        let expr =
            parse(text).unwrap().with_odd_sets(&|_| Some(vec![constant("10.0.0.9").unwrap()])).unwrap();
        match &expr.to_matches_by_clause(&ports, &switch_set).unwrap()[..] {
            [Matches::Any(list)] => list.iter().map(|one| one.to_string()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        rules("outport == @g && ip4.src == $web && 1000 <= tcp.dst <= 2000"),
        ["tcp,reg15=$number-false.g,nw_src=$ipv4-false.web,tp_dst=1000-2000"]
    );
    assert_eq!(rules("ip4.src != $web"), ["ip,nw_src=$ipv4-true.web"]);
    assert_eq!(rules("ip4.src == {10.0.0.1, $web}").len(), 2);
    assert_eq!(rules("ip4.src[0..7] == $web").len(), 0, "not whole: no member of so few bits");
    assert_eq!(rules("eth.src == $web"), ["dl_src=$mac-false.web"]);
    // What they mean is what their members mean.
    let mut sets = Sets::default();
    let mut web =
        NamedSet::new(switch_set(SetName::Addresses("web"), SetKind::Ipv4, false).unwrap(), SetKind::Ipv4);
    web.insert(ValueRange::one(0x0a00_0005));
    sets.insert(web);
    let expr = parse("ip4.src == {$web, 10.0.0.7} && ip.ttl == 64").unwrap();
    let all = expr.to_matches_by_clause(&ports, &switch_set).unwrap();
    let [Matches::Any(list)] = &all[..] else { panic!("{all:?}") };
    for last in 0..16 {
        let mut key = FlowKey::zero();
        key.set(Field::EthType, 0x800);
        key.set(Field::NwSrc, 0x0a00_0000 + last);
        key.set(Field::NwTtl, 64);
        assert_eq!(list.iter().any(|one| one.matches_with(&key, &sets)), last == 5 || last == 7);
    }
}

#[test]
fn negation_stays_within_the_packets_that_have_the_field() {
    let mut key = FlowKey::zero();
    key.set(Field::EthType, 0x806);
    for (text, wanted) in
        [("!(tcp.dst == 80)", false), ("!eth.bcast", true), ("ip.proto != 6", false), ("!ip.is_frag", false)]
    {
        let expr = parse(text).unwrap();
        assert_eq!(expr.eval(&key, &ports), wanted, "{text}");
        assert_eq!(
            expr.to_matches(&ports).unwrap().iter().any(|m| m.matches(&key)),
            wanted,
            "{text} as matches"
        );
    }
    assert!(parse("!tcp").unwrap().eval(&key, &ports), "a packet without ports is not TCP");
}

/// A comparison or test of a random symbol, with values near those of [`any_key`].
fn any_leaf() -> impl Strategy<Value = String> {
    let symbols: Vec<_> = symbols::all().iter().collect();
    let ops = vec!["==", "!=", "<", "<=", ">", ">="];
    let symbol = proptest::sample::select(symbols);
    (symbol, proptest::sample::select(ops), any::<[u128; 3]>(), any::<(u8, u8, u8)>()).prop_map(
        |(symbol, op, values, (choice, a, b))| match symbol.kind {
            Kind::Predicate(_) => symbol.name.to_owned(),
            Kind::Port(_) => format!("{} == {{\"a\", \"_MC_flood\", \"gone\"}}", symbol.name),
            Kind::Number { max_bits, .. } => {
                let fit = |value: u128| value & flowtable::key::low_bits(max_bits.min(128));
                let few = fit(values[0] & 3);
                match choice % 6 {
                    0 => format!("{} {op} {few}", symbol.name),
                    1 => format!("{} == {{{}, {few}}}", symbol.name, fit(values[1])),
                    2 if max_bits > 8 && max_bits != 16 => {
                        let mask = fit(values[1]) | 1;
                        let mask = if max_bits > 16 { mask & 0xff } else { mask };
                        format!("{} != {:#x}/{:#x}", symbol.name, fit(values[2]) & mask, mask)
                    }
                    3 => format!("{few} <= {} < {}", symbol.name, fit(values[1])),
                    4 => {
                        let (a, b) = (u32::from(a) % max_bits, u32::from(b) % max_bits);
                        let n_bits = a.abs_diff(b) + 1;
                        let value = values[1] & flowtable::key::low_bits(n_bits);
                        format!("{}[{}..{}] {op} {value}", symbol.name, a.min(b), a.max(b))
                    }
                    _ => format!("{few} {op} {}", symbol.name),
                }
            }
        },
    )
}

fn any_text() -> impl Strategy<Value = String> {
    any_leaf().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" && "))),
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" || "))),
            inner.prop_map(|part| format!("!({part})")),
        ]
    })
}

/// Keys with few values in each field, so that comparisons hold often.
fn any_key() -> impl Strategy<Value = FlowKey> {
    let small = proptest::collection::vec((any::<u8>(), any::<u128>()), Field::ALL.len());
    let kind = proptest::sample::select(vec![
        (0x800, 6),
        (0x800, 17),
        (0x800, 1),
        (0x800, 132),
        (0x86dd, 6),
        (0x86dd, 58),
        (0x86dd, 17),
        (0x806, 1),
        (0x88cc, 0),
    ]);
    let nd = proptest::sample::select(vec![8, 128, 133, 134, 135, 136, 143]);
    (small, kind, nd).prop_map(|(small, (eth_type, proto), icmp_type)| {
        let mut key = FlowKey::zero();
        for (field, (choice, value)) in Field::ALL.iter().zip(small) {
            let value = match choice % 4 {
                0 => 0,
                1 => value & 3,
                2 => u128::MAX,
                _ => value,
            };
            key.set(*field, value);
        }
        key.set(Field::EthType, eth_type);
        key.set(Field::NwProto, proto);
        if proto == 58 {
            key.set(Field::Icmpv6Type, icmp_type);
            key.set(Field::Icmpv6Code, 0);
            key.set(Field::NwTtl, 255);
        }
        key
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn matches_hold_exactly_when_the_expression_does(
        text in any_text(),
        keys in proptest::collection::vec(any_key(), 8),
    ) {
        // Texts that compare a port by `!` are refused, and so are the largest ones.
        let Ok(expr) = parse(&text) else { return Ok(()) };
        let Ok(matches) = expr.to_matches(&ports) else { return Ok(()) };
        for key in keys {
            let wanted = expr.eval(&key, &ports);
            prop_assert_eq!(matches.iter().any(|m| m.matches(&key)), wanted, "{} for {:?}", text, key);
        }
    }

    #[test]
    fn clauses_hold_exactly_when_the_expression_does(
        texts in proptest::collection::vec(any_text(), 2..5),
        keys in proptest::collection::vec(any_key(), 8),
    ) {
        let text = texts.join(" && ");
        let Ok(expr) = parse(&text) else { return Ok(()) };
        let Ok(all) = expr.to_matches_by_clause(&ports, &|_, _, _| None) else { return Ok(()) };
        for key in keys {
            let hits = |list: &Vec<Match>| list.iter().any(|one| one.matches(&key));
            let holds = all.iter().any(|matches| match matches {
                Matches::Any(list) => hits(list),
                Matches::All { clauses, common } => common.matches(&key) && clauses.iter().all(hits),
            });
            prop_assert_eq!(holds, expr.eval(&key, &ports), "{} for {:?}", text, key);
        }
    }

    #[test]
    fn tables_take_the_matches(text in any_text()) {
        let Ok(matches) = parse(&text).and_then(|expr| expr.to_matches(&ports)) else { return Ok(()) };
        let rule = |matching: &Match| Rule {
            table: TableId::new(0).unwrap(),
            priority: Priority::new(0).unwrap(),
            matching: matching.clone(),
            actions: Vec::new(),
            cookie: 0,
            origin: Arc::default(),
            life: Default::default(),
            stats: Arc::default(),
        };
        for matching in &matches {
            let taken = Tables::default().transact(vec![Change::Add(rule(matching))]);
            prop_assert!(taken.is_ok(), "{}: {}", text, taken.unwrap_err());
        }
    }

    #[test]
    fn printing_and_parsing_again_changes_nothing(text in any_text()) {
        let Ok(expr) = parse(&text) else { return Ok(()) };
        prop_assert_eq!(parse(&expr.to_string()).unwrap(), expr);
    }

    #[test]
    fn broken_texts_do_not_panic(text in any_text(), at in any::<usize>(), byte in any::<u8>()) {
        let mut bytes = text.clone().into_bytes();
        let at = at % bytes.len();
        let _ = check_match(&text[..at]);
        bytes[at] = byte;
        let _ = check_match(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn noise_does_not_panic(text in ".{0,40}") {
        let _ = check_match(&text);
    }
}

#[test]
fn leaves_of_the_property_are_mostly_accepted() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let texts: Vec<_> = (0..500).map(|_| any_text().new_tree(&mut runner).unwrap().current()).collect();
    let accepted = texts.iter().filter(|text| parse(text).is_ok_and(|e| e.to_matches(&ports).is_ok()));
    assert!(accepted.count() > 350);
}
