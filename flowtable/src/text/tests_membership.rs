//! Ranges and sets in matches.

use proptest::prelude::*;

use super::*;
use crate::{field::Field, flow::Values};

fn read(text: &str) -> Result<Match, TextError> {
    parse_match(text, &PortTable::default())
}

#[test]
fn ranges_and_sets_print_as_they_are_written() {
    for text in [
        "tcp,tp_dst=1000-2000",
        "udp6,tp_src=1-65535,tp_dst=$ports",
        "ip,nw_src=10.0.0.5-10.0.0.77",
        "ip,nw_src=$web-hosts",
        "ipv6,ipv6_dst=fd00::1-fd00::ff",
        "eth_src=$printers,dl_dst=02:00:00:00:00:01-02:00:00:00:00:09",
        "vlan_tci=0x1000/0x1000,dl_vlan=100-199",
        "reg3=0x10-0x20,metadata=0x1-0x5,tun_id=0x100-0x1ff,in_port=3-9",
        "icmp,icmp_type=3-5",
        "icmp6,icmp_type=1-4",
        "arp,arp_spa=$web-hosts,arp_op=1-2",
        "tcp,tp_dst=0x0/0x1,tp_dst=1000-2000,tp_dst=$ports",
        "ip,nw_proto=6-17,nw_ttl=0-1",
        "xreg2=0x1-0x2,xxreg0=0x3-0x4,ct_mark=$marks,ct_tp_dst=$ports",
        "mpls,mpls_label=16-31",
        "ip,ip_dscp=8-15",
    ] {
        let matching = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let printed = matching.to_string();
        assert_eq!(read(&printed).as_ref(), Ok(&matching), "{text}: {printed}");
        assert!(!matching.memberships().is_empty(), "{text}");
        let same_items = |a: &str, b: &str| {
            let sorted = |text: &str| {
                let text = text.replace("eth_src", "dl_src");
                let mut items: Vec<_> = text.split(',').map(str::to_owned).collect();
                items.sort();
                items
            };
            sorted(a) == sorted(b)
        };
        assert!(same_items(&printed, text), "{text}: {printed}");
    }
    let rule = parse_flow("priority=7,tcp,tp_dst=1000-2000,actions=drop", &PortTable::default()).unwrap();
    assert_eq!(rule.to_string(), "cookie=0x0, table=0, priority=7,tcp,tp_dst=1000-2000 actions=drop");
}

#[test]
fn a_vlan_range_needs_a_tag_and_a_single_value_is_no_range() {
    let tagged = read("dl_vlan=100-199").unwrap();
    assert_eq!(tagged, read("vlan_tci=0x1000/0x1000,dl_vlan=100-199").unwrap());
    assert_eq!(read("dl_vlan=100-100"), read("dl_vlan=100"));
    assert_eq!(read("tcp,tp_dst=80-80"), read("tcp,tp_dst=80"));
    assert_eq!(read("tcp,tp_dst=1-2,tp_dst=1-2"), read("tcp,tp_dst=1-2"));
}

#[test]
fn ports_with_a_dash_in_their_name_are_no_ranges() {
    let mut ports = PortTable::default();
    let port = PortNo::new(5).unwrap();
    let info = crate::port::PortInfo {
        name: "vm-1".to_owned(),
        role: crate::port::PortRole::Workload,
        up: true,
        mtu: 1500,
        partial_checksums: false,
    };
    ports.insert(port, info);
    assert_eq!(parse_match("in_port=vm-1", &ports), Ok(Match::any().with(Field::InPort, 5)));
    let matching = parse_match("in_port=1-2", &ports).unwrap();
    assert!(matches!(matching.memberships()[0].values, Values::Range(_)));
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, at, reason) in [
        ("tcp,tp_dst=2000-1000", 11, "ends before it begins"),
        ("tcp,tp_dst=1000-70000", 16, "more than 65535"),
        ("tcp,tp_dst=1000-", 16, "not a number"),
        ("ip,nw_src=10.0.0.1-10.0.0", 19, "not an IPv4 address"),
        ("ip,nw_src=10.0.0.0/8-11.0.0.0", 10, "not an IPv4 address"),
        ("ip,nw_src=$", 11, "not the name of a set"),
        ("ip,nw_src=$a b", 13, "no field or protocol `b`"),
        ("ip,nw_src=$9", 11, "not the name of a set"),
        ("tp_dst=1-2", 0, "needs `tcp`, `udp` or `sctp`"),
        ("nw_src=10.0.0.1-10.0.0.9", 0, "needs `ip`"),
        ("ct_state=$a", 9, "cannot be matched by a set"),
        ("ip,nw_tos=4-8", 10, "`ip_dscp` can"),
        ("ip,nw_tos=$a", 10, "`ip_dscp` can"),
        ("tcp,tcp_flags=1-2", 14, "1-2"),
        ("reg0[0..3]=1-2", 11, "not a number"),
        ("dl_vlan=100-199,vlan_tci=0", 16, "contradicts"),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
    let items = |n: u32| (1..=n).fold("tcp".to_owned(), |text, n| format!("{text},tp_dst=0-{n}"));
    assert!(read(&items(32)).is_ok());
    assert!(read(&items(33)).unwrap_err().to_string().contains("more than 32"));
    let packet = parse_key("tcp,tp_dst=1-2", &PortTable::default()).unwrap_err();
    assert!(packet.to_string().contains("not ranges or sets"), "{packet}");
}

proptest! {
    /// Every field that can be in a range reads back from what is printed.
    #[test]
    fn ranges_of_all_fields_read_back(idx in 0..Field::ALL.len(), a: u128, b: u128) {
        use crate::{field::{Format, Prerequisites}, set::{SetKind, ValueRange}};
        let field = Field::ALL[idx];
        prop_assume!(SetKind::of(field).is_some());
        let (a, b) = (a & value::largest(field), b & value::largest(field));
        prop_assume!(a != b && field.info().format != Format::PacketType);
        let base = match field.info().prerequisites {
            Prerequisites::None => Match::any(),
            Prerequisites::Vlan => Match::any().with_masked(Field::VlanTci, 0x1000, 0x1000),
            Prerequisites::Mpls => read("mpls").unwrap(),
            Prerequisites::Ipv4 | Prerequisites::Ip => read("ip").unwrap(),
            Prerequisites::Ipv6 => read("ipv6").unwrap(),
            Prerequisites::Arp => read("arp").unwrap(),
            Prerequisites::Tcp => read("tcp").unwrap(),
            Prerequisites::Udp => read("udp6").unwrap(),
            Prerequisites::Sctp => read("sctp").unwrap(),
            Prerequisites::Icmp => read("icmp").unwrap(),
            Prerequisites::Icmpv6 => read("icmp6").unwrap(),
            Prerequisites::Nd | Prerequisites::NdSolicit => read("icmp6,icmp_type=135,icmp_code=0").unwrap(),
            Prerequisites::NdAdvert => read("icmp6,icmp_type=136,icmp_code=0").unwrap(),
        };
        let m = base.with_range(field, ValueRange::new(a.min(b), a.max(b)).unwrap());
        prop_assert_eq!(crate::table::check_match(&m), Ok(()));
        let printed = m.to_string();
        prop_assert_eq!(read(&printed), Ok(m), "{}", printed);
    }
}
