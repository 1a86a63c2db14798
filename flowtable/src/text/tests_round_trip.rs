//! Print and parse are inverse; nothing that is read does harm.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{
    tests::{LINES, ports},
    *,
};
use crate::{
    conntrack::{Alg, Nat, NatKind, NatOrder, NatRange},
    field::SubField,
    flow::{
        Bundle, BundleAlgorithm, Ct, CtZone, HashFields, Learn, LearnSource, LearnSpec, Multipath,
        MultipathAlgorithm, PuntReason, Sample, SampleDirection, ToController,
    },
    group::{Bucket, Group, GroupKind, Selection, SelectionMethod},
    key::low_bits,
    meter::{BandConfig, BandKind, MeterConfig, MeterUnit},
    table::check_match,
    types::{BucketId, MeterId},
};

fn bounded(field: Field, value: u128) -> u128 {
    value & value::largest(field)
}

/// Masks of all kinds: whole, prefix, flags, sparse.
fn mask(all: u128, kind: u8, noise: u128) -> u128 {
    let chosen = match kind {
        0..=3 => all,
        4 => all & !low_bits(u32::from(noise as u8) % 129),
        5 => noise & (noise >> 64),
        _ => noise,
    };
    if chosen & all == 0 { all } else { chosen & all }
}

/// Starts of matches that let all prerequisites occur.
const STARTS: &[&str] = &[
    "",
    "ip",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "ipv6",
    "tcp6",
    "udp6",
    "sctp6",
    "icmp6",
    "icmp6,icmp_type=135,icmp_code=0",
    "icmp6,icmp_type=136,icmp_code=0",
    "arp",
    "rarp",
    "mpls",
    "mplsm",
    "vlan_tci=0x1000/0x1000,udp",
    "dl_vlan=5,arp",
    "dl_type=0x1234",
    "ip,nw_proto=2",
];

fn valid_match() -> impl Strategy<Value = Match> {
    let part = (0..Field::ALL.len(), any::<u128>(), 0..8_u8, any::<u128>());
    (0..STARTS.len(), proptest::collection::vec(part, 0..12)).prop_map(|(start, parts)| {
        let mut m = parse_match(STARTS[start], &PortTable::default()).unwrap();
        for (idx, value, kind, noise) in parts {
            let field = Field::ALL[idx];
            let info = field.info();
            if m.get(field).1 != 0 || !m.satisfies(info.prerequisites) {
                continue;
            }
            let mask = if info.maskable { mask(field.all_bits(), kind, noise) } else { field.all_bits() };
            let more = m.clone().with_masked(field, bounded(field, value), mask);
            if check_match(&more).is_ok() {
                m = more;
            }
        }
        m
    })
}

fn port_no() -> impl Strategy<Value = PortNo> {
    prop_oneof![0..=0xffff_u32, 0xfff0..=0xffff_u32].prop_map(|port| PortNo::new(port).unwrap())
}

fn sub_field() -> impl Strategy<Value = SubField> {
    (0..Field::ALL.len(), any::<u32>(), any::<u32>()).prop_map(|(idx, start, n_bits)| {
        let width = Field::ALL[idx].info().n_bits;
        let start = start % width;
        SubField::new(Field::ALL[idx], start, 1 + n_bits % (width - start)).unwrap()
    })
}

fn set_field() -> impl Strategy<Value = Action> {
    (0..Field::ALL.len(), any::<u128>(), 0..8_u8, any::<u128>(), sub_field())
        .prop_filter("read-only", |(idx, ..)| Field::ALL[*idx].info().writable)
        .prop_map(|(idx, value, kind, noise, sub)| {
            let field = Field::ALL[idx];
            let all = field.all_bits();
            let mask = if field.info().maskable {
                mask(all, kind, noise)
            } else if kind < 5 {
                all
            } else {
                let start = sub.start % field.info().n_bits;
                low_bits(1 + sub.n_bits % (field.info().n_bits - start)) << start
            };
            Action::SetField { field, value: bounded(field, value) & mask, mask }
        })
}

/// Actions that few rules have.
fn special_action() -> impl Strategy<Value = Action> {
    use proptest::{collection::vec, option::of, sample::select};
    let table = || (0..=254_u8).prop_map(|table| TableId::new(table).unwrap());
    let other_port = port_no().prop_filter("stands for none", |port| *port != PortNo::IN_PORT);
    let target = || sub_field().prop_filter("read-only", |sub| sub.field.info().writable);
    let fields = || select(HashFields::ALL).prop_map(|(_, fields)| fields);
    let meter = || of((1..=0xffff_0000_u32).prop_map(|id| MeterId::new(id).unwrap()));
    let more = (vec(any::<u8>(), 0..20), any::<bool>(), meter());
    let controller = (any::<u16>(), select(PuntReason::ALL), any::<u16>(), more).prop_map(
        |(max_len, reason, controller, (userdata, pause, meter))| {
            Action::Controller(Box::new(ToController { max_len, reason, controller, userdata, pause, meter }))
        },
    );
    let direction = select(vec![SampleDirection::Unsaid, SampleDirection::Ingress, SampleDirection::Egress]);
    let sample = (1..=u16::MAX, any::<[u32; 3]>(), of(port_no()), direction).prop_map(
        |(probability, [collector_set, obs_domain, obs_point], sampling_port, direction)| {
            Action::Sample(Sample {
                probability,
                collector_set,
                obs_domain,
                obs_point,
                sampling_port,
                direction,
            })
        },
    );
    let bit = || target().prop_map(|sub| SubField { n_bits: 1, ..sub });
    let algorithm = select(MultipathAlgorithm::ALL).prop_map(|(_, algorithm)| algorithm);
    let multipath = (fields(), any::<u16>(), algorithm, any::<u32>(), any::<u32>(), target()).prop_map(
        |(fields, basis, algorithm, n_links, argument, dst)| {
            Action::Multipath(Box::new(Multipath { fields, basis, algorithm, n_links, argument, dst }))
        },
    );
    let algorithm = select(BundleAlgorithm::ALL).prop_map(|(_, algorithm)| algorithm);
    let bundle = (fields(), any::<u16>(), algorithm, vec(port_no(), 0..4), of(target())).prop_map(
        |(fields, basis, algorithm, members, dst)| {
            Action::Bundle(Box::new(Bundle { fields, basis, algorithm, members, dst }))
        },
    );
    prop_oneof![
        (port_no(), any::<u32>()).prop_map(|(port, max_len)| Action::OutputTruncated { port, max_len }),
        (port_no(), any::<u32>()).prop_map(|(port, queue)| Action::Enqueue { port, queue }),
        any::<u32>().prop_map(Action::SetQueue),
        controller,
        vec(any::<u16>(), 1..4).prop_map(Action::DecTtlOrTell),
        any::<u16>().prop_map(Action::PushMpls),
        any::<u16>().prop_map(Action::PopMpls),
        sub_field().prop_map(Action::Push),
        target().prop_map(Action::Pop),
        (0..Field::ALL.len()).prop_map(|idx| Action::DeleteField(Field::ALL[idx])),
        (of(other_port), of(table())).prop_map(|(port, table)| Action::ResubmitCt { port, table }),
        vec(any::<u8>(), 0..20).prop_map(Action::Note),
        multipath,
        bundle,
        (any::<u32>(), any::<u8>(), any::<u8>()).prop_map(|(id, clause, n_clauses)| Action::Conjunction {
            id,
            clause,
            n_clauses
        }),
        select(vec![Action::PopQueue, Action::DecMplsTtl, Action::Exit]),
        sample,
        any::<[u16; 2]>()
            .prop_map(|[idle_timeout, hard_timeout]| Action::FinTimeout { idle_timeout, hard_timeout }),
        (any::<u16>(), bit()).prop_map(|(max_len, dst)| Action::CheckPktLarger { max_len, dst }),
        learn(bit().boxed()),
    ]
}

fn learn(bit: proptest::strategy::BoxedStrategy<SubField>) -> impl Strategy<Value = Action> {
    use proptest::{collection::vec, option::of};
    let any_value = |sub: SubField, value: u128| {
        let whole = sub == SubField::whole(sub.field);
        LearnSource::Value(if whole { bounded(sub.field, value) } else { value & low_bits(sub.n_bits) })
    };
    let spec = (0_u8..6, sub_field(), sub_field(), any::<u128>()).prop_map(move |(kind, dst, src, value)| {
        let n_bits = src.n_bits.min(dst.n_bits);
        let narrow = SubField { n_bits, ..dst };
        let from_field = LearnSource::Field(SubField { n_bits, ..src });
        let can_load = dst.field.info().writable;
        match kind {
            0 => LearnSpec::Output(src),
            1 => LearnSpec::Match { dst, src: LearnSource::Field(dst) },
            2 => LearnSpec::Match { dst: narrow, src: from_field },
            3 if can_load => LearnSpec::Load { dst: narrow, src: from_field },
            4 if can_load => LearnSpec::Load { dst, src: LearnSource::Value(value & low_bits(dst.n_bits)) },
            _ => LearnSpec::Match { dst, src: any_value(dst, value) },
        }
    });
    let place = (0..=254_u8, any::<u16>(), any::<u64>(), any::<u32>());
    (place, any::<[u16; 4]>(), any::<[bool; 2]>(), of(bit), vec(spec, 0..5)).prop_map(
        |((table, priority, cookie, limit), timeouts, [send_flow_rem, delete_learned], result_dst, specs)| {
            let [idle_timeout, hard_timeout, fin_idle_timeout, fin_hard_timeout] = timeouts;
            Action::Learn(Box::new(Learn {
                table: TableId::new(table).unwrap(),
                priority: Priority::new(priority).unwrap(),
                cookie,
                idle_timeout,
                hard_timeout,
                fin_idle_timeout,
                fin_hard_timeout,
                send_flow_rem,
                delete_learned,
                limit,
                result_dst,
                specs,
            }))
        },
    )
}

fn ct() -> impl Strategy<Value = Action> {
    let v4 = any::<[u32; 2]>().prop_map(|ips| ips.map(|ip| IpAddr::from(Ipv4Addr::from_bits(ip))));
    let v6 = any::<[u128; 2]>().prop_map(|ips| ips.map(|ip| IpAddr::from(Ipv6Addr::from_bits(ip))));
    let addresses = prop_oneof![v4, v6].prop_map(|[a, b]| (a.min(b), a.max(b)));
    let ports = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let range = proptest::option::of((addresses, proptest::option::of(ports)));
    let order = proptest::sample::select(vec![NatOrder::Keep, NatOrder::Hash, NatOrder::Random]);
    let nat =
        (any::<bool>(), range, order, any::<bool>()).prop_map(|(is_source, range, order, persistent)| {
            let kind = if is_source { NatKind::Source } else { NatKind::Destination };
            let (addresses, ports) =
                range.map_or((None, None), |(addresses, ports)| (Some(addresses), ports));
            Nat::New(NatRange { kind, addresses, ports, order, persistent })
        });
    let nat = proptest::option::of(prop_oneof![Just(Nat::Existing), nat]);
    let zone = prop_oneof![
        any::<u16>().prop_map(CtZone::Literal),
        Just(CtZone::Field(SubField { field: Field::Reg13, start: 0, n_bits: 16 })),
    ];
    let table = proptest::option::of((0..=254_u8).prop_map(|table| TableId::new(table).unwrap()));
    let label =
        any::<u128>().prop_map(|value| Action::SetField { field: Field::CtLabel, value, mask: u128::MAX });
    let exec = proptest::collection::vec(label, 0..2);
    let alg = proptest::option::of(proptest::sample::select(Alg::ALL));
    (any::<[bool; 2]>(), table, zone, nat, exec, proptest::option::of(0_u8..16), alg).prop_map(
        |([commit, force], table, zone, nat, exec, timeout, alg)| {
            Action::Ct(Box::new(Ct { commit, force, table, zone, nat, exec, timeout, alg }))
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let table = || (0..=254_u8).prop_map(|table| TableId::new(table).unwrap());
    let moved = (sub_field(), sub_field()).prop_filter_map("read-only", |(src, dst)| {
        let n_bits = src.n_bits.min(dst.n_bits);
        let action = Action::Move { src: SubField { n_bits, ..src }, dst: SubField { n_bits, ..dst } };
        dst.field.info().writable.then_some(action)
    });
    let other_port = port_no().prop_filter("stands for none", |port| *port != PortNo::IN_PORT);
    let simple = prop_oneof![
        port_no().prop_map(Action::Output),
        sub_field().prop_map(Action::OutputReg),
        set_field(),
        set_field(),
        moved,
        (proptest::option::of(other_port), proptest::option::of(table()))
            .prop_map(|(port, table)| Action::Resubmit { port, table }),
        table().prop_map(Action::GotoTable),
        Just(Action::DecTtl),
        any::<u16>().prop_map(Action::PushVlan),
        Just(Action::PopVlan),
        any::<u64>().prop_map(Action::SetTunnel),
        special_action(),
        special_action(),
        (0..=0xffff_ff00_u32).prop_map(|id| Action::Group(GroupId::new(id).unwrap())),
        (1..=0xffff_0000_u32).prop_map(|id| Action::Meter(MeterId::new(id).unwrap())),
        Just(Action::ClearActions),
        (any::<u64>(), any::<u64>())
            .prop_map(|(value, mask)| Action::WriteMetadata { value: value & mask, mask }),
        Just(Action::CtClear),
        ct(),
    ];
    simple.prop_recursive(3, 12, 4, |inner| {
        let list = || proptest::collection::vec(inner.clone(), 0..4);
        prop_oneof![list().prop_map(Action::Clone), list().prop_map(Action::WriteActions)]
    })
}

fn life() -> impl Strategy<Value = RuleLife> {
    let number = || prop_oneof![Just(0), any::<u16>()];
    (number(), number(), number(), any::<u8>()).prop_map(|(idle_timeout, hard_timeout, importance, bits)| {
        let named = RuleFlags::NAMES.iter().enumerate().filter(|(idx, _)| bits >> idx & 1 != 0);
        let flags = named.fold(RuleFlags::default(), |flags, (_, (_, flag))| flags.with(*flag));
        RuleLife { idle_timeout, hard_timeout, importance, flags, ..RuleLife::default() }
    })
}

fn group() -> impl Strategy<Value = Group> {
    let id = || (0..=0xffff_ff00_u32).prop_map(|id| GroupId::new(id).unwrap());
    let field = (0..Field::ALL.len(), any::<u128>()).prop_map(|(idx, noise)| {
        let field = Field::ALL[idx];
        let bits = noise & field.all_bits();
        (field, if field.info().maskable && bits != 0 { bits } else { field.all_bits() })
    });
    let fields = proptest::collection::vec(field, 0..4).prop_map(|mut fields| {
        fields.sort_by_key(|(field, _)| *field);
        fields.dedup_by_key(|(field, _)| *field);
        fields
    });
    let methods = [SelectionMethod::Default, SelectionMethod::Hash, SelectionMethod::DpHash];
    let selection = (proptest::sample::select(methods.to_vec()), any::<u64>(), fields)
        .prop_map(|(method, param, fields)| GroupKind::Select(Selection { method, param, fields }));
    let kind = prop_oneof![
        Just(GroupKind::All),
        Just(GroupKind::Indirect),
        Just(GroupKind::FastFailover),
        selection
    ];
    let of = proptest::option::of::<proptest::strategy::BoxedStrategy<GroupId>>;
    let actions = proptest::collection::vec(action(), 0..3);
    let bucket =
        (0..=0xffff_ff00_u32, any::<u16>(), proptest::option::of(port_no()), of(id().boxed()), actions)
            .prop_map(|(id, weight, watch_port, watch_group, actions)| {
                let id = BucketId::new(id).unwrap();
                Bucket { weight, watch_port, watch_group, ..Bucket::new(id, actions) }
            });
    (id(), kind, proptest::collection::vec(bucket, 0..4))
        .prop_map(|(id, kind, buckets)| Group::new(id, kind, buckets))
}

fn meter() -> impl Strategy<Value = MeterConfig> {
    let band = (1..=u32::MAX, any::<u32>(), 0..3_u8).prop_map(|(rate, burst_size, level)| {
        let kind = if level == 0 { BandKind::Drop } else { BandKind::DscpRemark(level) };
        BandConfig { kind, rate, burst_size }
    });
    let bands = proptest::collection::vec(band, 0..4);
    (1..=0xffff_0000_u32, any::<bool>(), any::<bool>(), any::<bool>(), bands).prop_map(
        |(id, is_kbps, burst, stats, mut bands)| {
            if !burst {
                bands.iter_mut().for_each(|band| band.burst_size = 0);
            }
            let unit = if is_kbps { MeterUnit::Kbps } else { MeterUnit::Pktps };
            MeterConfig { id: MeterId::new(id).unwrap(), unit, burst, stats, bands, port_share: 0 }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn matches_read_back_as_printed(m in valid_match()) {
        let text = m.to_string();
        prop_assert_eq!(parse_match(&text, &ports()), Ok(m), "{}", text);
    }

    #[test]
    fn actions_read_back_as_printed(actions in proptest::collection::vec(action(), 0..6)) {
        let text = print_actions(&actions);
        prop_assert_eq!(parse_actions(&text, &ports()), Ok(actions), "{}", text);
    }

    #[test]
    fn rules_read_back_as_printed(
        m in valid_match(), actions in proptest::collection::vec(action(), 0..3),
        table in 0..=254_u8, priority in any::<u16>(), cookie in any::<u64>(), life in life(),
    ) {
        let rule = Rule {
            table: TableId::new(table).unwrap(),
            priority: Priority::new(priority).unwrap(),
            matching: m,
            actions,
            cookie,
            origin: Arc::default(),
            life,
            stats: Arc::default(),
        };
        for text in [print_flow(&rule), print_flow_with_stats(&rule)] {
            let read = parse_flow(&text, &ports()).unwrap();
            prop_assert_eq!(print_flow(&read), rule.to_string());
            prop_assert_eq!((read.matching, read.actions), (rule.matching.clone(), rule.actions.clone()));
            prop_assert_eq!(read.life, rule.life);
        }
    }

    #[test]
    fn groups_read_back_as_printed(group in group()) {
        let text = print_group(&group);
        prop_assert_eq!(parse_group(&text, &ports()), Ok(group), "{}", text);
    }

    #[test]
    fn meters_read_back_as_printed(meter in meter()) {
        let text = print_meter(&meter);
        prop_assert_eq!(parse_meter(&text), Ok(meter.clone()), "{}", text);
        prop_assert_eq!(parse_meter(&text.replace(' ', ",")), Ok(meter), "{}", text);
    }

    /// Text of groups and meters, cut and changed: no harm, and what is read prints as it is read.
    #[test]
    fn hostile_groups_and_meters_do_no_harm(group in group(), meter in meter(), at: usize, byte in any::<char>()) {
        for text in [print_group(&group), print_meter(&meter)] {
            let mut chars: Vec<char> = text.chars().collect();
            let at = at % chars.len();
            let cut: String = chars[..at].iter().collect();
            chars[at] = byte;
            let changed: String = chars.into_iter().collect();
            for text in [cut, changed] {
                if let Ok(group) = parse_group(&text, &ports()) {
                    prop_assert_eq!(parse_group(&print_group(&group), &ports()), Ok(group));
                }
                if let Ok(meter) = parse_meter(&text) {
                    prop_assert_eq!(parse_meter(&print_meter(&meter)), Ok(meter));
                }
            }
        }
    }

    /// Also matches that no table takes can be shown.
    #[test]
    fn any_match_prints(idx in 0..Field::ALL.len(), value in any::<u128>(), mask in any::<u128>()) {
        let m = Match::any().with_masked(Field::ALL[idx], value, mask);
        prop_assert_eq!(m.to_string().is_empty(), m == Match::any());
        let (key, mask) = m.expand();
        print_megaflow_match(&key, &mask);
    }

    /// What is read is a match of a table, whatever the text; nothing panics.
    #[test]
    fn hostile_text_does_no_harm(text in hostile()) {
        let ports = ports();
        if let Ok(m) = parse_match(&text, &ports) {
            prop_assert_eq!(check_match(&m), Ok(()));
            prop_assert_eq!(parse_match(&m.to_string(), &ports), Ok(m), "{}", text);
        }
        if let Ok(actions) = parse_actions(&text, &ports) {
            prop_assert_eq!(parse_actions(&print_actions(&actions), &ports), Ok(actions), "{}", text);
        }
        for error in [
            parse_flow(&text, &ports).err(),
            parse_key(&text, &ports).err(),
            parse_filter(&text, &ports).err(),
        ].into_iter().flatten() {
            prop_assert!(text.is_char_boundary(error.at), "{}: {}", text, error);
            prop_assert!(!error.reason.is_empty());
        }
    }
}

/// Characters at random, and words of the language in random order.
fn hostile() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(vec![
        "ip",
        "tcp",
        "reg0",
        "nw_src",
        "10.0.0.1",
        "/",
        "8",
        "=",
        "=",
        ",",
        ",",
        "(",
        ")",
        "[",
        "]",
        "..",
        "->",
        ":",
        "set_field",
        "load",
        "move",
        "output",
        "resubmit",
        "clone",
        "actions=",
        "0x",
        "-1",
        "+",
        "new",
        "|",
        "\"",
        "web-1",
        "tun_metadata3",
        "vlan_tci",
        "dl_vlan",
        "4095",
        "ct_state",
        "0xffffffffffffffffffff",
        " ",
        "é",
        "\u{0}",
        "tp_dst",
        "in_port",
        "packet_type",
        "icmp_type",
        "table",
        "255",
    ]);
    prop_oneof![
        proptest::collection::vec(word, 0..14).prop_map(|words| words.concat()),
        any::<String>(),
        (0..LINES.len(), any::<usize>(), any::<char>()).prop_map(|(idx, at, c)| {
            let mut text: Vec<char> = LINES[idx].0.chars().collect();
            let at = at % text.len();
            text[at] = c;
            text.into_iter().collect()
        }),
    ]
}
