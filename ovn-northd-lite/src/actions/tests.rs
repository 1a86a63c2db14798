//! Texts and their errors, print∘parse, and what statements become.

use flowtable::{
    field::{Field, SubField},
    flow::Action,
    types::{MeterId, TableId},
};
use proptest::prelude::*;

use super::*;

fn lowered(text: &str) -> Result<Vec<Action>, String> {
    let table = |raw| TableId::new(raw).unwrap();
    lower(
        &parse(text).unwrap(),
        &Flow {
            ports: &|name| (name == "a").then_some(7),
            table: table(10),
            stage: &|pipeline, stage| match (pipeline, stage) {
                (Some(Pipeline::Egress), stage) => TableId::new(62 + stage.unwrap_or(0)).ok(),
                (_, None) => Some(table(11)),
                (_, Some(stage)) => TableId::new(8 + stage).ok().filter(|_| stage < 40),
            },
            output: table(54),
            is_router: true,
            number: 9,
            meter: &|_| MeterId::new(5).unwrap(),
        },
    )
    .map(|lowered| lowered.actions)
}

#[test]
fn errors_tell_place_reason_and_remedy() {
    for (text, wanted) in [
        (
            "sample(probability=1);",
            "column 7: `sample` needs a `probability` and a `collector_set`, from 1 on",
        ),
        (
            "sample(probability=65536, collector_set=1);",
            "column 8: expected `probability=` (up to 65535), `collector_set=`, `obs_domain=` or `obs_point=`, each \
             with a number",
        ),
        ("", "column 1: there is no action; write `drop;` to drop"),
        ("next", "column 5: expected `;`, not the end"),
        ("nxt;", "column 1: there is no action `nxt`; did you mean `next`?"),
        ("eth.dts = eth.src;", "column 1: there is no field `eth.dts`; did you mean `eth.dst`?"),
        ("ip.proto = 6;", "column 1: `ip.proto` cannot be written"),
        ("ip4 = 1;", "column 1: `ip4` cannot be written"),
        ("eth.dst = ip4.src;", "column 11: `eth.dst` has 48 bits, `ip4.src` has 32"),
        ("reg0 = inport;", "column 8: `reg0` has 32 bits, `inport` has 32"),
        ("tcp.dst = 65536;", "column 11: `tcp.dst` has 16 bits, 65536 has 17"),
        ("ip4.dst = 10.0.0.0/8;", "column 11: only a single value can be assigned"),
        ("eth.dst--;", "column 1: only `ip.ttl` can be decremented"),
        ("drop; next;", "column 1: `drop;` goes with no other action"),
        ("next(table=x);", "column 12: expected a stage number, not `x`"),
        ("next(pipeline=up);", "column 15: expected `ingress` or `egress`, not `up`"),
        ("next(300);", "column 6: there is no stage 300"),
        ("ct_commit { next; };", "column 1: `ct_commit` writes ct_mark and ct_label, it cannot do `next;`"),
        ("log(verdict=maybe);", "column 13: `maybe` is not a verdict of `log`"),
        ("log(colour=red);", "column 12: `red` is not a colour of `log`"),
        ("ct_nxt;", "column 1: there is no action `ct_nxt`; did you mean `ct_next`?"),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), wanted, "{text}");
    }
}

#[test]
fn jumps_forward_at_the_end_do_not_come_back() {
    let table = |raw| TableId::new(raw).unwrap();
    let resubmit = |raw| Action::Resubmit { port: None, table: Some(table(raw)) };
    assert_eq!(lowered("next;").unwrap(), [Action::GotoTable(table(11))]);
    assert_eq!(lowered("output;").unwrap(), [Action::GotoTable(table(54))]);
    assert_eq!(lowered("next(0);").unwrap(), [resubmit(8)]);
    assert_eq!(lowered("next(pipeline=egress, table=1);").unwrap(), [Action::GotoTable(table(63))]);
    assert_eq!(lowered("next; output;").unwrap(), [resubmit(11), Action::GotoTable(table(54))]);
    assert_eq!(lowered("drop;").unwrap(), []);
    assert_eq!(lowered("next(99);").unwrap_err(), "there is no stage for `next(99);`");
}

#[test]
fn writes_touch_only_their_bits() {
    let whole = SubField::whole;
    assert_eq!(
        lowered("flags.loopback = 1; reg0[4..7] = 5; outport = \"a\"; eth.dst = eth.src;").unwrap(),
        [
            Action::SetField { field: Field::Reg10, value: 1, mask: 1 },
            Action::SetField { field: Field::Reg0, value: 0x50, mask: 0xf0 },
            Action::SetField { field: Field::Reg15, value: 7, mask: 0xffff_ffff },
            Action::Move { src: whole(Field::EthSrc), dst: whole(Field::EthDst) },
        ]
    );
    assert_eq!(lowered("outport = \"b\";").unwrap_err(), "there is no port `b`");
}

#[test]
fn an_exchange_goes_through_scratch_of_its_width() {
    let whole = SubField::whole;
    let scratch = SubField::new(Field::Xreg12, 0, 48).unwrap();
    assert_eq!(
        lowered("eth.dst <-> eth.src;").unwrap(),
        [
            Action::Move { src: whole(Field::EthDst), dst: scratch },
            Action::Move { src: whole(Field::EthSrc), dst: whole(Field::EthDst) },
            Action::Move { src: scratch, dst: whole(Field::EthSrc) },
        ]
    );
    assert_eq!(lowered("ip6.dst <-> ip6.src; ip4.dst <-> ip4.src;").unwrap().len(), 6);
}

fn any_statement() -> impl Strategy<Value = String> {
    let field = proptest::sample::select(vec![
        ("eth.dst", 48),
        ("eth.src", 48),
        ("ip4.src", 32),
        ("ip6.dst", 128),
        ("reg0", 32),
        ("xreg1", 64),
        ("ip.ttl", 8),
        ("icmp6.type", 8),
        ("nd.target", 128),
    ]);
    let plain = vec![
        "next;",
        "next(7);",
        "next(pipeline=egress, table=3);",
        "next(pipeline=ingress);",
        "output;",
        "ip.ttl--;",
        "ct_next;",
        "ct_commit { ct_mark.blocked = 1; };",
        "ct_commit { ct_mark.blocked = 0; ct_label.label = reg3; };",
        "log(verdict=drop, severity=alert, name=\"a \\\"b\");",
        "log(verdict=allow, severity=info);",
        "sample(probability=9, collector_set=7, obs_domain=16777217, obs_point=42);",
        "reject { outport <-> inport; flags.from_tunnel = 0; next(pipeline=ingress, table=3); };",
        "eth.dst <-> eth.src;",
        "arp.tpa <-> arp.spa;",
        "outport = inport;",
        "outport = \"x\\\"y\";",
        "reg0[3..9] = reg1[0..6];",
        "ct_clear;",
        "ct_dnat;",
        "ct_dnat(10.0.0.5);",
        "ct_snat(2001:db8::1, 1000..2000);",
        "ct_lb_mark;",
        "ct_lb_mark(backends=\"10.0.0.5:80,10.0.0.6:81\"; hash_fields=\"ip_src,tp_dst\");",
        "ct_lb_mark(backends=\"[2001:db8::1]:80,[2001:db8::2]:80\");",
        "reg8[16..31] = select(1, 2, 7);",
        "get_arp(outport, reg0);",
        "get_nd(outport, xxreg0);",
        "put_arp(inport, arp.spa, arp.sha);",
        "put_nd(inport, nd.target, nd.tll, 60);",
        "reg9[3] = lookup_arp_ip(inport, arp.spa);",
        "reg9[2] = lookup_nd(inport, ip6.src, nd.sll);",
        "clone { ct_clear; inport = outport; next(pipeline=ingress, table=0); };",
        "icmp4 { icmp4.type = 11; icmp4.code = 0; next; };",
        "tcp_reset { output; };",
        "reg0[3] = put_dhcp_opts(offerip = 10.0.0.5, netmask = 255.255.255.0, router = {10.0.0.1, 10.0.0.2}, hostname = \"a \\\"b\", lease_time = 60, domain_search_list = \"a.b,c\", classless_static_route = {10.9.0.0/16, 10.0.0.1});",
        "reg0[3] = put_dhcpv6_opts(ia_addr = 2001:db8::5, server_id = 0a:00:00:00:00:01, dns_server = 2001:db8::53);",
        "reg0[4] = dns_lookup();",
        "reg9[7] = dhcp_relay_req_chk(relay = 10.0.1.1, server = 10.0.2.5);",
        "reg9[7] = dhcp_relay_resp_chk(relay = 10.0.1.1, server = 10.0.2.5);",
        "reg0[5] = put_nd_ra_opts(addr_mode = \"slaac\", prefix = 2001:db8::/64, slla = 0a:00:00:00:00:01, router_preference = \"LOW\", lifetime = 0);",
    ];
    prop_oneof![
        proptest::sample::select(plain).prop_map(str::to_owned),
        (field, any::<u128>()).prop_map(|((name, n_bits), value)| {
            format!("{name} = {};", value & flowtable::key::low_bits(n_bits))
        }),
    ]
}

proptest! {
    #[test]
    fn printing_and_parsing_again_changes_nothing(list in proptest::collection::vec(any_statement(), 1..6)) {
        let text = list.join(" ");
        let statements = parse(&text).unwrap();
        prop_assert_eq!(print(&statements), text);
    }

    #[test]
    fn broken_texts_do_not_panic(
        list in proptest::collection::vec(any_statement(), 1..4),
        at in any::<usize>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = list.join(" ").into_bytes();
        let at = at % bytes.len();
        let _ = parse(&String::from_utf8_lossy(&bytes[..at]));
        bytes[at] = byte;
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }
}
