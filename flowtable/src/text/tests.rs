//! Flow text: print and parse are inverse, and mistakes are told with their place.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use proptest::prelude::*;

use super::*;
use crate::{
    conntrack::{Alg, Nat, NatKind, NatOrder, NatRange},
    drop::DropReason,
    field::{Field, SubField},
    flow::{
        Bundle, BundleAlgorithm, Ct, CtZone, HashFields, Learn, LearnSource, LearnSpec, Multipath,
        MultipathAlgorithm, PuntReason, Sample, SampleDirection, ToController,
    },
    group::{Bucket, Group, GroupKind, Selection, SelectionMethod},
    key::{FlowMask, low_bits},
    meter::{BandConfig, BandKind, Meter, MeterConfig, MeterUnit},
    port::{PortInfo, PortRole},
    program::{
        DropCause, Emit, Extras, FieldEdit, LabelEdit, MeterStep, Program, Punt, TunnelHeader, TunnelKind,
        VlanTag,
    },
    table::{BucketChoice, BucketPlace, GroupChange, MAX_NESTING, check_match, check_rule},
    types::{BucketId, MeterId, PortNo, Vni},
};

fn ports() -> PortTable {
    let mut ports = PortTable::default();
    for (number, name) in [(1, "web-1"), (2, "uplink"), (3, "drop"), (4, "7up")] {
        let info = PortInfo {
            name: name.to_owned(),
            role: PortRole::Workload,
            up: true,
            mtu: 1500,
            partial_checksums: false,
        };
        ports.insert(PortNo::new(number).unwrap(), info);
    }
    ports
}

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

/// Lines as dumps and manuals have them, and how they are printed.
const LINES: &[(&str, &str)] = &[
    ("priority=0 actions=NORMAL", "cookie=0x0, table=0, priority=0 actions=NORMAL"),
    (
        "table=0,priority=100,ip,nw_dst=10.0.0.0/8,actions=output:2",
        "cookie=0x0, table=0, priority=100,ip,nw_dst=10.0.0.0/8 actions=output:2",
    ),
    (
        " cookie=0x2b, duration=1029.411s, table=0, n_packets=12, n_bytes=936, idle_age=21, priority=100,in_port=1 \
         actions=load:0x5->NXM_NX_REG13[0..15],load:0x1->NXM_NX_REG11[],load:0x3->OXM_OF_METADATA[],\
         load:0x2->NXM_NX_REG14[],resubmit(,8)",
        "cookie=0x2b, table=0, priority=100,in_port=1 actions=set_field:0x5/0xffff->reg13,set_field:0x1->reg11,\
         set_field:0x3->metadata,set_field:0x2->reg14,resubmit(,8)",
    ),
    (
        "cookie=0x5a6bd0f0, duration=5.2s, table=27, n_packets=0, n_bytes=0, priority=50,arp,metadata=0x3,\
         dl_dst=ff:ff:ff:ff:ff:ff,arp_tpa=10.0.0.4,arp_op=1 actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],\
         mod_dl_src:0a:00:00:00:00:04,load:0x2->NXM_OF_ARP_OP[],move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],\
         load:0xa0000000004->NXM_NX_ARP_SHA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],\
         load:0xa000004->NXM_OF_ARP_SPA[],move:NXM_NX_REG14[]->NXM_NX_REG15[],load:0x1->NXM_NX_REG10[0],\
         resubmit(,37)",
        "cookie=0x5a6bd0f0, table=27, priority=50,arp,metadata=0x3,dl_dst=ff:ff:ff:ff:ff:ff,arp_tpa=10.0.0.4,\
         arp_op=1 actions=move:dl_src[]->dl_dst[],set_field:0a:00:00:00:00:04->dl_src,set_field:2->arp_op,\
         move:arp_sha[]->arp_tha[],set_field:0a:00:00:00:00:04->arp_sha,move:arp_spa[]->arp_tpa[],\
         set_field:10.0.0.4->arp_spa,move:reg14[]->reg15[],set_field:0x1/0x1->reg10,resubmit(,37)",
    ),
    (
        "table=17, n_packets=3, n_bytes=294, priority=65532,ct_state=-new+est-rel+rpl-inv+trk,ct_mark=0/0x1,\
         metadata=0x1 actions=resubmit(,18)",
        "cookie=0x0, table=17, priority=65532,ct_state=-new+est-rel+rpl-inv+trk,ct_mark=0x0/0x1,metadata=0x1 \
         actions=resubmit(,18)",
    ),
    (
        "table=15,priority=49,ip,reg7=0,metadata=0x4,nw_dst=10.1.0.0/16 actions=dec_ttl(),\
         load:0->OXM_OF_PKT_REG4[32..47],move:NXM_OF_IP_DST[]->NXM_NX_XXREG0[96..127],\
         load:0xa010001->NXM_NX_XXREG0[64..95],set_field:0a:00:00:00:00:01->eth_src,load:0x1->NXM_NX_REG10[0],\
         resubmit(,23)",
        "cookie=0x0, table=15, priority=49,ip,reg7=0x0,metadata=0x4,nw_dst=10.1.0.0/16 actions=dec_ttl,\
         set_field:0x0/0xffff00000000->xreg4,move:nw_dst[]->xxreg0[96..127],\
         set_field:0xa0100010000000000000000/0xffffffff0000000000000000->xxreg0,\
         set_field:0a:00:00:00:00:01->dl_src,set_field:0x1/0x1->reg10,resubmit(,23)",
    ),
    (
        "icmp6,metadata=0x3,nw_ttl=255,icmp_type=135,icmp_code=0,nd_target=fd00::4,actions=drop",
        "cookie=0x0, table=0, priority=32768,icmp6,metadata=0x3,nw_ttl=255,icmp_type=135,icmp_code=0,\
         nd_target=fd00::4 actions=drop",
    ),
    (
        "tcp6,ipv6_src=fe80::/10,ipv6_dst=::1/ffff::ffff,tp_dst=0x1f40/0xfff8,tcp_flags=+syn-ack actions=LOCAL",
        "cookie=0x0, table=0, priority=32768,tcp6,ipv6_src=fe80::/10,ipv6_dst=::1/ffff::ffff,tp_dst=0x1f40/0xfff8,\
         tcp_flags=+syn-ack actions=LOCAL",
    ),
    (
        "dl_vlan=101,dl_vlan_pcp=3,in_port=\"web-1\" actions=strip_vlan,output:\"uplink\"",
        "cookie=0x0, table=0, priority=32768,in_port=1,dl_vlan=101,dl_vlan_pcp=3 actions=pop_vlan,output:2",
    ),
    (
        "vlan_tci=0x0000/0x1000 actions=push_vlan:0x8100,set_field:4197->vlan_vid,uplink,in_port",
        "cookie=0x0, table=0, priority=32768,vlan_tci=0x0000/0x1000 actions=push_vlan:0x8100,\
         set_field:0x1065->vlan_vid,output:2,IN_PORT",
    ),
    (
        "dl_vlan=0xffff,actions=mod_vlan_vid:5,flood",
        "cookie=0x0, table=0, priority=32768,vlan_tci=0x0000 actions=set_field:0x1005/0x1fff->vlan_tci,FLOOD",
    ),
    (
        "in_port=LOCAL,ip,nw_tos=40,nw_ecn=1,ip_frag=not_later actions=mod_nw_tos:80,CONTROLLER:65535",
        "cookie=0x0, table=0, priority=32768,ip,in_port=LOCAL,nw_tos=40,nw_ecn=1,nw_frag=not_later \
         actions=set_field:20->ip_dscp,CONTROLLER",
    ),
    (
        "udp,tun_id=0x7b,tun_metadata0=0x20003,tun_flags=+df-oam,tp_src=68,tp_dst=67 \
         actions=mod_tp_dst:6767,clone(set_tunnel:0x5,output:NXM_NX_REG15[0..15]),resubmit:7up,goto_table:9",
        "cookie=0x0, table=0, priority=32768,udp,tun_id=0x7b,tun_flags=-oam+df,tun_metadata0=0x20003,tp_src=68,\
         tp_dst=67 actions=set_field:6767->udp_dst,clone(set_tunnel:0x5,output:reg15[0..15]),resubmit:4,goto_table:9",
    ),
    (
        "reg0[4..7]=5,xxreg1=0x1/0xff,ct_label=0x1234000000000000000000005678,tp_dst=443,tcp actions=ALL",
        "cookie=0x0, table=0, priority=32768,ct_label=0x1234000000000000000000005678,tcp,reg0=0x50/0xf0,\
         reg7=0x1/0xff,tp_dst=443 actions=ALL",
    ),
    (
        "mpls,mpls_label=100,mpls_bos=1,tun_metadata5 actions=set_field:3->mpls_tc",
        "cookie=0x0, table=0, priority=32768,mpls,tun_metadata_present=0x20/0x20,mpls_label=100,mpls_bos=1 \
         actions=set_field:3->mpls_tc",
    ),
    (
        "table=0 actions=learn(table=10,idle_timeout=60,priority=7,NXM_OF_VLAN_TCI[0..11],\
         NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:NXM_OF_IN_PORT[]->NXM_NX_REG0[0..15],output:NXM_OF_IN_PORT[]),resubmit(,1)",
        "cookie=0x0, table=0, priority=32768 actions=learn(table=10,idle_timeout=60,priority=7,vlan_tci[0..11],\
         dl_dst[]=dl_src[],load:in_port[0..15]->reg0[0..15],output:in_port[0..15]),resubmit(,1)",
    ),
    (
        "table=34,tcp,reg4[0]=1 actions=learn(table=1,hard_timeout=10,fin_idle_timeout=5,fin_hard_timeout=9,cookie=0xa,\
         send_flow_rem,delete_learned,limit=200,result_dst=NXM_NX_REG10[4],eth_type=0x800,nw_proto=6,NXM_OF_IP_SRC[],\
         ip_dst=192.0.2.1,NXM_OF_TCP_SRC[]=NXM_OF_TCP_DST[],load:0x1->NXM_NX_REG10[7]),fin_timeout(idle_timeout=3)",
        "cookie=0x0, table=34, priority=32768,tcp,reg4=0x1/0x1 actions=learn(table=1,hard_timeout=10,fin_idle_timeout=5,\
         fin_hard_timeout=9,limit=200,cookie=0xa,send_flow_rem,delete_learned,result_dst=reg10[4],dl_type=0x0800,nw_proto=6,\
         nw_src[],nw_dst=192.0.2.1,tcp_src[]=tcp_dst[],load:0x1->reg10[7]),fin_timeout(idle_timeout=3)",
    ),
    (
        "table=17,ip actions=check_pkt_larger(1518)->NXM_NX_REG9[1],controller(userdata=00.00.00.0d,pause,meter_id=4),\
         sample(probability=100,collector_set_id=1,obs_domain_id=2,obs_point_id=3,sampling_port=uplink,egress),NORMAL",
        "cookie=0x0, table=17, priority=32768,ip actions=check_pkt_larger(1518)->reg9[1],\
         controller(userdata=00.00.00.0d,pause,meter_id=4),\
         sample(probability=100,collector_set_id=1,obs_domain_id=2,obs_point_id=3,sampling_port=2,egress),NORMAL",
    ),
    (
        "ip,nw_src=192.0.2.0/255.255.0.255,idle_timeout=0,actions=load:7->NXM_NX_IP_TTL[0..3],load:0x28->NXM_OF_IP_TOS[]",
        "cookie=0x0, table=0, priority=32768,ip,nw_src=192.0.0.0/255.255.0.255 \
         actions=load:0x7->nw_ttl[0..3],load:0x28->nw_tos[]",
    ),
];

#[test]
fn lines_of_dumps_are_understood() {
    for (line, printed) in LINES {
        let rule = parse_flow(line, &ports()).unwrap_or_else(|error| panic!("{line}\n{error}"));
        assert_eq!(rule.to_string(), *printed);
        assert_eq!(parse_flow(printed, &ports()).unwrap().to_string(), *printed);
        for end in (0..line.len()).filter(|end| line.is_char_boundary(*end)) {
            // May be a shorter rule, must not be a crash.
            let _ = parse_flow(&line[..end], &ports());
        }
    }
}

#[test]
fn mistakes_are_placed_explained_and_corrected() {
    let cases: &[(&str, usize, &str, Option<&str>)] = &[
        ("nw_dts=10.0.0.1,ip actions=drop", 0, "no field or protocol `nw_dts`", Some("nw_dst")),
        ("ip,tcpp,actions=drop", 3, "no field or protocol `tcpp`", Some("tcp")),
        ("ip,actoins=drop", 3, "no field or protocol `actoins`", Some("actions")),
        ("nw_dst=10.0.0.1,actions=drop", 0, "`nw_dst` needs `ip`", None),
        ("ip,tp_dst=80,actions=drop", 3, "`tp_dst` needs `tcp`", None),
        ("ip,tcp_dst=80,actions=drop", 3, "`tcp_dst` needs `tcp` or `tcp6`", None),
        ("ip,nw_dst=10.0.0.300,actions=drop", 10, "`10.0.0.300` is not an IPv4 address", None),
        ("ip,nw_dst=10.0.0.0/33,actions=drop", 19, "33 is more than 32", None),
        ("dl_type=0x800/0xff,actions=drop", 14, "`dl_type` can only be used whole", None),
        ("ct_state=+nwe,actions=drop", 10, "no flag `nwe`", Some("new")),
        ("ct_state=+new-new,actions=drop", 14, "there twice", None),
        ("reg0[30..32]=1,actions=drop", 5, "`reg0` has bits 0 to 31", None),
        ("reg0[0..3]=16,actions=drop", 11, "16 is more than 15", None),
        ("tcp,nw_proto=17,actions=drop", 4, "contradicts", None),
        ("ip,ip6,actions=drop", 3, "contradicts", None),
        ("ip", 2, "no actions", None),
        ("nw_dst,actions=drop", 0, "needs a value", None),
        ("tcp=6,actions=drop", 4, "takes no value", None),
        ("nsh_mdtype=1,actions=drop", 0, "not supported yet", None),
        ("idle_timeout=65536,actions=drop", 13, "too large", None),
        ("out_group=3,actions=drop", 0, "choose rules", None),
        ("send_flow_rem=1,actions=drop", 14, "takes no value", None),
        ("actions=group:0xffffff01", 14, "group must be 0 to", None),
        ("actions=meter:0", 14, "meter must be 1 to", None),
        ("actions=meter:slowpath", 14, "not supported", None),
        ("actions=write_actions:1", 8, "write write_actions(actions)", None),
        ("actions=write_metadata:1/x", 25, "not a number", None),
        ("table=255,actions=drop", 6, "table must be 0 to 254", None),
        ("priority=65536,actions=drop", 9, "too large", None),
        ("icmp,icmp_type=256,actions=drop", 15, "256 is more than 255", None),
        ("in_port=web-2,actions=drop", 8, "no port `web-2`", Some("web-1")),
        ("cookie=1/2,actions=drop", 0, "has no mask", None),
        ("actions=ouput:2", 8, "no action or port `ouput`", Some("output")),
        ("actions=output:uplnk", 15, "no port `uplnk`", Some("uplink")),
        ("actions=controller(usredata=00.00)", 19, "`controller` has no `usredata`", Some("userdata")),
        ("actions=controller(pause=1)", 25, "`pause` takes no value", None),
        ("actions=controller(meter_id=0)", 28, "", None),
        ("actions=learn(table=255)", 20, "", None),
        ("actions=learn(tabel=2)", 14, "nor is there such a field", Some("table")),
        ("actions=learn(load:5->ip_src2[])", 22, "there is no field `ip_src2`", Some("ip_src")),
        ("actions=learn(eth_src[]=nw_src[])", 24, "cannot learn 32 bits as 48 bits", None),
        ("actions=learn(load:16->reg0[0..3])", 19, "", None),
        ("actions=learn(nw_src=10.0.0.0/8)", 21, "has no mask", None),
        ("actions=learn(result_dst=reg0[])", 25, "single bit", None),
        ("actions=fin_timeout(idle=5)", 20, "`fin_timeout` has no `idle`", None),
        ("actions=check_pkt_larger(1500)", 8, "write check_pkt_larger(1500)->reg0[0]", None),
        ("actions=check_pkt_larger(70000)->reg0[0]", 25, "", None),
        ("actions=check_pkt_larger(7)->reg0[0..1]", 29, "single bit", None),
        ("actions=check_pkt_larger(7)->ct_state[0]", 29, "cannot be written", None),
        ("actions=sample(collector_set_id=1)", 15, "needs a probability", None),
        ("actions=sample(propability=1)", 15, "`sample` has no", Some("probability")),
        ("actions=controller(userdata=00.0)", 28, "not bytes", None),
        ("actions=controller(reason=actoin)", 26, "no reason `actoin`", Some("action")),
        ("actions=output(port=1)", 15, "write output(port=1,max_len=100)", None),
        ("actions=conjunction(1,2)", 20, "write conjunction", None),
        ("actions=multipath(eth_src,0,modulo,2,0,reg0[])", 28, "no algorithm", Some("modulo_n")),
        ("actions=bundle(eth_src,0,hrw,ofport,1,2)", 36, "expected members", None),
        ("actions=pop:dl_type", 12, "cannot be written", None),
        ("actions=output:2,ct(comit,zone=1)", 20, "no option `comit`", Some("commit")),
        ("actions=ct(zone=reg0[0..7])", 16, "a zone has 16 bits", None),
        ("actions=ct(commit,alg=tfpt)", 22, "no helper `tfpt`", Some("tftp")),
        ("actions=ct(nat(src=10.0.0.9-10.0.0.1))", 19, "smaller address first", None),
        ("actions=ct(nat(src=10.0.0.9:0))", 28, "0 is no port", None),
        ("actions=ct(nat(src=10.0.0.9,dst=10.0.0.1))", 28, "one of `src` and `dst`", None),
        ("actions=drop,output:2", 8, "must be the only action", None),
        ("actions=set_field:1->reg99", 21, "no field `reg99`", Some("reg9")),
        ("actions=set_field:1->dl_type", 21, "`dl_type` cannot be written", None),
        ("actions=set_field:1", 18, "expected `value->field`", None),
        ("actions=load:0x10->reg0[0..3]", 13, "0x10 is more than 15", None),
        ("actions=move:reg0[0..3]->reg1[0..4]", 25, "cannot move 4 bits to 5 bits", None),
        ("actions=move:reg0[0..3]->reg1[5", 30, "`[` without `]`", None),
        ("actions=mod_tp_dst:80", 8, "the match names no protocol", None),
        ("actions=resubmit(,1,tc)", 20, "expected `ct`", Some("ct")),
        ("actions=clone(output:2", 13, "`(` without `)`", None),
        ("actions=output:2)", 16, "`)` without `(`", None),
        ("actions=clone(output:2)x", 13, "expected a comma", None),
        ("actions=push_vlan:0x18100", 18, "too large", None),
        ("ip,nw_tos=41,actions=drop", 10, "ECN", None),
    ];
    for (text, at, reason, suggestion) in cases {
        let error = parse_flow(text, &ports()).expect_err(text);
        assert!(error.reason.contains(reason), "{text}: {error}");
        assert_eq!((error.at, error.suggestion.as_deref()), (*at, *suggestion), "{text}: {error}");
    }
    let error = parse_flow(cases[0].0, &ports()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "character 1: there is no field or protocol `nw_dts`; did you mean `nw_dst`?"
    );
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| format!("{}output:2{}", "clone(".repeat(depth), ")".repeat(depth));
    assert!(parse_actions(&nested(MAX_NESTING), &ports()).is_ok());
    assert!(parse_actions(&nested(MAX_NESTING + 1), &ports()).unwrap_err().reason.contains("nested"));
    assert!(parse_actions(&nested(100_000), &ports()).is_err());
}

#[test]
fn names_of_ports_and_actions_do_not_collide() {
    assert_eq!(parse_actions("drop", &ports()), Ok(vec![]));
    assert_eq!(
        parse_actions("output:drop,4,7up,\"7up\"", &ports()).map(|actions| print_actions(&actions)),
        Ok("output:3,output:4,output:4,output:4".to_owned())
    );
    assert_eq!(parse_actions("output:0xfffffffe", &ports()), Ok(vec![Action::Output(PortNo::LOCAL)]));
}

#[test]
fn filters_choose_by_table_match_and_cookie() {
    let filter = parse_filter("table=3,cookie=0x10/-1,ip", &ports()).unwrap();
    assert_eq!((filter.table, filter.cookie, filter.cookie_mask), (TableId::new(3).ok(), 0x10, u64::MAX));
    assert_eq!(filter.matching, parse_match("ip", &ports()).unwrap());
    assert_eq!(parse_filter("", &ports()), Ok(Filter::default()));
    let filter = parse_filter("out_port=3,out_group=7", &ports()).unwrap();
    assert_eq!((filter.out_port, filter.out_group), (PortNo::new(3).ok(), GroupId::new(7).ok()));
    for wrong in ["priority=5", "ip,actions=drop", "idle_timeout=5", "reset_counts"] {
        assert!(parse_filter(wrong, &ports()).is_err(), "{wrong}");
    }
}

#[test]
fn groups_are_read_as_ovs_ofctl_does() {
    let read = |text: &str| parse_group(text, &ports());
    let print = |text: &str| read(text).map(|group| print_group(&group)).map_err(|error| error.reason);
    assert_eq!(
        print("group_id=1,type=select,selection_method=hash,fields(ip_dst,tcp_dst=0xff),bucket=weight:10,watch_port:web-1,actions=output:1,output:2,bucket=bucket_id:0,drop").unwrap(),
        "group_id=1,type=select,selection_method=hash,fields(nw_dst,tcp_dst=0xff),\
         bucket=bucket_id:1,weight:10,watch_port:1,actions=output:1,output:2,\
         bucket=bucket_id:0,weight:1,actions=drop"
    );
    assert_eq!(
        print("group_id=7 type=ff bucket=watch_port:2,output:2 bucket=watch_group:1,group:1").unwrap(),
        "group_id=7,type=ff,bucket=bucket_id:0,watch_port:2,actions=output:2,\
         bucket=bucket_id:1,watch_group:1,actions=group:1"
    );
    for (text, reason) in [
        ("type=all,bucket=output:1", "needs `group_id`"),
        ("group_id=1,bucket=output:1", "needs `type`"),
        ("group_id=1,type=al,bucket=output:1", "no group type `al`"),
        ("group_id=1,type=all,selection_method=hash,bucket=output:1", "only groups of type select"),
        ("group_id=1,type=select,selection_method=hsh,bucket=output:1", "no selection method"),
        ("group_id=1,type=select,fields(ip_dst,ip_dst),bucket=output:1", "there twice"),
        ("group_id=1,type=select,fields(tcp_dst=0),bucket=output:1", "chooses no bits"),
        ("group_id=1,type=select,fields(nw_proto=0x1),bucket=output:1", "only be used whole"),
        ("group_id=1,type=all,bucket=weight:5", "no actions"),
        ("group_id=1,type=all,bukcet=output:1", "a group has no `bukcet`"),
        ("group_id=1,type=all,command_bucket_id=last,bucket=output:1", "for changing buckets"),
    ] {
        assert!(print(text).unwrap_err().contains(reason), "{text}");
    }
}

#[test]
fn changes_of_buckets_are_read() {
    let known = |_| parse_group("group_id=1,type=all,bucket=output:1", &ports()).ok();
    let read = parse_inserted_buckets("group_id=1,command_bucket_id=first,bucket=output:2", &ports(), known);
    let Ok(GroupChange::InsertBuckets { at: BucketPlace::First, buckets, .. }) = read else {
        panic!("{read:?}");
    };
    assert_eq!(buckets[0].id.get(), 1, "0 is taken");
    let removed = |text| parse_removed_buckets(text, &ports()).map_err(|error| error.reason);
    let Ok(GroupChange::RemoveBuckets { which, .. }) = removed("group_id=1,command_bucket_id=5") else {
        panic!("not read");
    };
    assert_eq!(which, BucketChoice::Id(BucketId::new(5).unwrap()));
    assert!(removed("group_id=1").unwrap_err().contains("say which"));
    assert!(removed("group_id=1,type=all,command_bucket_id=all").unwrap_err().contains("changes buckets"));
}

#[test]
fn meters_are_read_as_ovs_ofctl_does() {
    let print = |text: &str| parse_meter(text).map(|meter| print_meter(&meter)).map_err(|error| error.reason);
    assert_eq!(
        print("meter=1,kbps,burst,stats,bands=type=drop,rate=1000,burst_size=50,type=dscp_remark,rate=10,prec_level=1")
            .unwrap(),
        "meter=1 kbps burst stats bands=type=drop rate=1000 burst_size=50 type=dscp_remark rate=10 prec_level=1"
    );
    assert_eq!(print("meter=2,band=type=drop,rate=5").unwrap(), "meter=2 kbps bands=type=drop rate=5");
    for (text, reason) in [
        ("kbps,bands=type=drop,rate=1", "needs `meter=number`"),
        ("meter=1,kbps,pktps", "not both"),
        ("meter=1,rate=5", "begins with"),
        ("meter=1,bands=type=drop", "`rate` of at least 1"),
        ("meter=1,bands=type=drop,rate=0", "`rate` of at least 1"),
        ("meter=1,bands=type=drop,rate=5,burst_size=3", "needs the flag `burst`"),
        ("meter=1,bands=type=drop,rate=5,prec_level=1", "only dscp_remark"),
        ("meter=1,bands=type=dscp_remark,rate=5", "needs `prec_level`"),
        ("meter=1,bands=type=drip,rate=5", "no band type"),
        ("meter=1,bands=bands=type=drop,rate=5", "within"),
        ("meter=1,bnads=type=drop", "a meter has no `bnads`"),
    ] {
        assert!(print(text).unwrap_err().contains(reason), "{text}: {:?}", print(text));
    }
}

#[test]
fn metered_programs_print_what_depends_on_a_meter() {
    let meter = |text: &str| Arc::new(Meter::new(parse_meter(text).unwrap(), None, Default::default()));
    let rule = Arc::new(parse_flow("actions=drop", &ports()).unwrap());
    let step = |id: u32, emits, n_within| MeterStep {
        meter: meter(&format!("meter={id},bands=type=drop,rate=1")),
        rule: Arc::clone(&rule),
        emits,
        n_within,
    };
    let emit = |number| Emit {
        n_vlan_pops: 0,
        vlan_pushes: vec![],
        edits: vec![],
        tunnel: None,
        port: PortNo::new(number).unwrap(),
        extras: None,
        ct: None,
    };
    let program = Program {
        emits: vec![emit(1), emit(2), emit(3)],
        meters: vec![step(1, 1..2, 0), step(2, 2..2, 0), step(3, 2..3, 0), step(4, 3..3, 0)],
        drop: None,
        ..Program::default()
    };
    assert_eq!(print_program(&program), "1,clone(meter(1),2),clone(meter(2)),meter(3),3,clone(meter(4))");
    let dropped = Program { emits: vec![], ..program };
    assert!(print_program(&dropped).starts_with("meter(1),"));
}

#[test]
fn a_described_packet_can_exist() {
    let key =
        parse_key("in_port=web-1,tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80,dl_vlan=7", &ports()).unwrap();
    let expected = [
        (Field::InPort, 1),
        (Field::EthType, 0x0800),
        (Field::NwProto, 6),
        (Field::NwSrc, 0x0a00_0001),
        (Field::NwDst, 0x0a00_0002),
        (Field::NwTtl, 64),
        (Field::TcpDst, 80),
        (Field::VlanTci, 0x1007),
        (Field::VlanTpid, 0x8100),
    ];
    let mut wanted = FlowKey::zero();
    for (field, value) in expected {
        wanted.set(field, value);
    }
    assert_eq!(key, wanted);

    let get = |text: &str, field| parse_key(text, &ports()).unwrap().get(field);
    assert_eq!(get("ipv6,nw_ttl=1", Field::NwTtl), 1);
    assert_eq!(get("arp,arp_op=1", Field::NwTtl), 0);
    assert_eq!(get("mpls,mpls_label=5", Field::MplsBos), 1);
    assert_eq!(get("mpls,mpls_label=5", Field::MplsDepth), 1);
    assert_eq!(get("tun_metadata3=5", Field::TunMetadataPresent), 8);
    assert_eq!(get("ct_state=+trk-new", Field::CtState), 0x20);
    for wrong in ["ip,nw_src=10.0.0.0/8", "nw_src=10.0.0.1", "tcp,tp_dst=0x10/0xf0", "actions=drop"] {
        assert!(parse_key(wrong, &ports()).is_err(), "{wrong}");
    }
}

fn megaflow(text: &str, key: &str) -> String {
    let (_, mask) = parse_match(text, &ports()).unwrap().expand();
    print_megaflow_match(&parse_key(key, &ports()).unwrap(), &mask)
}

#[test]
fn megaflows_print_like_datapath_dumps() {
    assert_eq!(print_megaflow_match(&FlowKey::zero(), &FlowMask::empty()), "");
    assert_eq!(
        megaflow(
            "in_port=2,dl_dst=0a:00:00:00:00:01,ip,nw_dst=10.0.0.0/8,ip_frag=no",
            "in_port=2,dl_dst=0a:00:00:00:00:01,ip,nw_dst=10.1.2.3",
        ),
        "in_port(2),eth(dst=0a:00:00:00:00:01),eth_type(0x0800),ipv4(dst=10.0.0.0/255.0.0.0,frag=no)"
    );
    assert_eq!(
        megaflow(
            "in_port=1,tun_id=5,tun_metadata0=1,ct_state=+est-new,ct_zone=3,dl_vlan=9,tcp6,\
             ipv6_src=fd00::/64,nw_ttl=1,tp_dst=80,tcp_flags=+syn",
            "in_port=1,tun_id=5,tun_metadata0=0x20003,ct_state=+est,ct_zone=3,dl_vlan=9,tcp6,\
             ipv6_src=fd00::1,tp_dst=80,tcp_flags=+syn",
        ),
        "ct_state(-new+est),ct_zone(0x3),tunnel(tun_id=0x5,tun_metadata0=0x20003),in_port(1),eth_type(0x8100),\
         vlan(vid=9),encap(eth_type(0x86dd),ipv6(src=fd00::/ffff:ffff:ffff:ffff::,proto=6,hlimit=64),tcp(dst=80),\
         tcp_flags(+syn))"
    );
    assert_eq!(
        megaflow("arp,arp_op=1,arp_tpa=10.0.0.1", "arp,arp_op=1,arp_tpa=10.0.0.1"),
        "eth_type(0x0806),arp(tip=10.0.0.1,op=1)"
    );
}

#[test]
fn programs_print_like_datapath_actions() {
    let edit = |field: Field, value| FieldEdit { field, value, mask: field.all_bits() };
    let port = |number| PortNo::new(number).unwrap();
    let plain = |number| Emit {
        n_vlan_pops: 0,
        vlan_pushes: vec![],
        edits: vec![],
        tunnel: None,
        port: port(number),
        extras: None,
        ct: None,
    };
    let routed = Emit {
        edits: vec![edit(Field::EthDst, 0x0a00_0000_0001), edit(Field::NwTtl, 63), edit(Field::UdpDst, 53)],
        ..plain(3)
    };
    let tagged =
        Emit { n_vlan_pops: 1, vlan_pushes: vec![VlanTag { tpid: 0x8100, tci: 0x7005 }], ..plain(4) };
    let header = TunnelHeader {
        kind: TunnelKind::Geneve,
        vni: Vni::new(0x7b).unwrap(),
        remote: IpAddr::from([192, 0, 2, 2]),
        bytes: vec![0; 58],
        tunnel_port: port(9),
    };
    let tunnelled = Emit { tunnel: Some(Arc::new(header)), ..plain(1) };
    let print = |emits: Vec<Emit>| print_program(&Program { emits, ..Program::default() });

    assert_eq!(
        print(vec![routed.clone()]),
        "set(eth(dst=0a:00:00:00:00:01)),set(ip(ttl=63)),set(udp(dst=53)),3"
    );
    assert_eq!(
        print(vec![plain(2), tagged, plain(5)]),
        "2,clone(pop_vlan,push_vlan(tpid=0x8100,vid=5,pcp=3),4),5"
    );
    assert_eq!(
        print(vec![tunnelled]),
        "tnl_push(tnl_port(9),geneve(vni=0x7b,dst=192.0.2.2,size=58),out_port(1))"
    );
    let labels = Some(LabelEdit { n_pops: 1, pushes: vec![0x1_0340], eth_type: 0x8847 });
    let extras = Some(Box::new(Extras { labels, max_len: Some(64), queue: Some(2), punt: None }));
    assert_eq!(
        print(vec![Emit { extras, ..plain(7) }]),
        "pop_mpls(eth_type=0x8847),push_mpls(label=16,tc=1,ttl=64,bos=1,eth_type=0x8847),trunc(64),queue(2),7"
    );
    let punt = Punt {
        to: ToController { controller: 3, ..ToController::default() },
        table: TableId::FIRST,
        cookie: 0,
        metadata: Match::any(),
        next: None,
    };
    let extras = Some(Box::new(Extras { punt: Some(Arc::new(punt)), ..Extras::default() }));
    assert_eq!(
        print(vec![Emit { extras, ..plain(0xfffd) }]),
        "userspace(controller(reason=action,id=3,max_len=65535))"
    );
    let nat = Emit { edits: vec![edit(Field::NwDst, 0x0a00_0001), edit(Field::NwTtl, 63)], ..plain(3) };
    assert_eq!(print(vec![nat]), "set(ipv4(dst=10.0.0.1,ttl=63)),3");
    let cause = DropCause { reason: DropReason::TtlExpired, rule: None };
    assert_eq!(print_program(&Program { drop: Some(cause), ..Program::default() }), "drop(ttl-expired)");
    assert_eq!(print(vec![]), "drop");
}

/// What users paste loads, and prints as what it is.
#[test]
fn pasted_dumps_load_unchanged() {
    let lines =
        include_str!("testdata/dumps.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut n_lines = 0;
    for line in lines {
        let rule = parse_flow(line, &ports()).unwrap_or_else(|error| panic!("{line}\n{error}"));
        check_rule(&rule).unwrap_or_else(|error| panic!("{line}\n{error}"));
        let printed = rule.to_string();
        let again = parse_flow(&printed, &ports()).unwrap_or_else(|error| panic!("{printed}\n{error}"));
        assert_eq!((&again.matching, &again.actions), (&rule.matching, &rule.actions), "{line}\n{printed}");
        assert_eq!((again.table, again.priority, again.cookie), (rule.table, rule.priority, rule.cookie));
        n_lines += 1;
    }
    assert!(n_lines >= 80, "{n_lines}");
}
