//! All match fields of ovs-fields(7), but for NSH, ERSPAN and GTP-U.

use super::*;
use crate::field::Field;

/// A match for each name and, where a part of the field can be matched, one with a mask.
const FIELDS: &[&str] = &[
    "in_port=1",
    "in_port_oxm=1",
    "skb_priority=0x1",
    "pkt_mark=0x1/0xff",
    "packet_type=(0,0x0)",
    "packet_type=(1,0x800)",
    "actset_output=1",
    "conj_id=7",
    "recirc_id=0x1",
    "dp_hash=0x1/0xf",
    "metadata=0x1234567890/0xffffffffff",
    "tun_id=0x5/0xff",
    "tunnel_id=0x5",
    "tun_src=192.0.2.1",
    "tun_dst=192.0.2.0/24",
    "tun_ipv6_src=2001:db8::1",
    "tun_ipv6_dst=2001:db8::/32",
    "tun_tos=0x10",
    "tun_ttl=64",
    "tun_flags=+oam-df+csum-key",
    "tun_gbp_id=5",
    "tun_gbp_id=0x5/0xf",
    "tun_gbp_flags=0x8/0x8",
    "ct_state=+new-est+rel-rpl-inv+trk-snat-dnat",
    "ct_zone=0x5",
    "ct_mark=0x1/0x1",
    "ct_label=0x10000000000000000/0x10000000000000000",
    "ct_nw_proto=6",
    "ip,ct_nw_src=10.0.0.0/8",
    "ip,ct_nw_dst=10.0.0.1",
    "ipv6,ct_ipv6_src=fd00::/8",
    "ipv6,ct_ipv6_dst=fd00::1",
    "ct_tp_src=80",
    "ct_tp_dst=0x50/0xfff0",
    "dl_src=02:00:00:00:00:00/ff:00:00:00:00:00",
    "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
    "eth_src=02:00:00:00:00:01",
    "eth_dst=02:00:00:00:00:01",
    "dl_type=0x88cc",
    "eth_type=0x88cc",
    "vlan_tci=0x1064/0x1fff",
    "dl_vlan=100",
    "dl_vlan=100,dl_vlan_pcp=3",
    "vlan_vid=0x1064/0x1fff",
    "dl_vlan=100,vlan_pcp=3",
    "mpls,mpls_label=16",
    "mplsm,mpls_tc=5",
    "mpls,mpls_bos=1",
    "mpls,mpls_ttl=64",
    "ip,nw_src=10.0.0.0/255.0.0.255",
    "ip,ip_dst=10.0.0.1",
    "ipv6,ipv6_src=fd00::/8",
    "ipv6,ipv6_dst=::1/::ffff",
    "ipv6,ipv6_label=0x12345/0xff",
    "ip,nw_proto=89",
    "ipv6,ip_proto=89",
    "ip,nw_ttl=1",
    "ip,ip_frag=first",
    "ipv6,nw_frag=not_later",
    "ip,nw_frag=yes",
    "ip,nw_frag=later",
    "ip,nw_frag=no",
    "ip,nw_tos=32",
    "ip,ip_dscp=8",
    "ipv6,nw_ecn=3",
    "ip,ip_ecn=1",
    "arp,arp_op=2",
    "arp,arp_spa=10.0.0.0/8",
    "rarp,arp_tpa=10.0.0.1",
    "arp,arp_sha=02:00:00:00:00:01",
    "rarp,arp_tha=02:00:00:00:00:00/ff:ff:00:00:00:00",
    "tcp,tcp_src=80",
    "tcp6,tcp_dst=0x50/0xfff0",
    "tcp,tcp_flags=+syn-ack",
    "tcp,tcp_flags=0x2/0xfff",
    "udp,udp_src=53",
    "udp6,udp_dst=53",
    "sctp,sctp_src=5000",
    "sctp6,sctp_dst=0x8/0x8",
    "icmp,icmp_type=8,icmp_code=0",
    "icmp6,icmpv6_type=128,icmpv6_code=0",
    "icmp6,icmp_type=135,icmp_code=0,nd_target=fd00::/8",
    "icmp6,icmp_type=135,icmp_code=0,nd_sll=02:00:00:00:00:01",
    "icmp6,icmp_type=136,icmp_code=0,nd_tll=02:00:00:00:00:01",
    "icmp6,icmp_type=136,icmp_code=0,nd_reserved=0xe0000000",
    "icmp6,icmp_type=136,icmp_code=0,nd_options_type=2",
];

#[test]
fn every_field_of_open_vswitch_is_read_and_printed() {
    let ports = PortTable::default();
    let numbered = (0..32).map(|n| format!("reg{n}=0x1/0xff"));
    let numbered = numbered.chain((0..16).map(|n| format!("xreg{n}=0x100000000/0x1ff00000000")));
    let numbered = numbered.chain((0..8).map(|n| format!("xxreg{n}=0x1ffff0000000000000000")));
    let numbered = numbered.chain((0..64).map(|n| format!("tun_metadata{n}=0x12/0xff")));
    let numbered = numbered.chain((0..64).map(|n| format!("tun_metadata{n}")));
    for text in FIELDS.iter().map(|text| (*text).to_owned()).chain(numbered) {
        let matching = parse_match(&text, &ports).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(!matching.is_any(), "{text}");
        let printed = matching.to_string();
        assert_eq!(parse_match(&printed, &ports), Ok(matching), "{text}: {printed}");
    }
    let missing = |field: &&Field| {
        let info = field.info();
        let named = |name: &str| {
            let is_item = |item: &str| item.split('=').next() == Some(name);
            FIELDS.iter().any(|text| text.split(',').any(is_item))
        };
        let numbered = ["reg", "xreg", "xxreg", "tun_metadata"].iter().any(|start| {
            info.name.strip_prefix(start).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
        });
        !numbered && !named(info.name) && !info.aliases.iter().any(|alias| named(alias))
    };
    let ours: Vec<_> = Field::ALL.iter().filter(missing).map(|field| field.info().name).collect();
    // Datapath fields, which OVS has no match for.
    let known = [
        "vlan_tpid",
        "cvlan_tci",
        "cvlan_tpid",
        "mpls_depth",
        "mpls_lse1",
        "mpls_lse2",
        "frame_len",
        "tun_metadata_present",
    ];
    assert_eq!(ours, known);
}

#[test]
fn fields_without_their_packets_and_parts_of_whole_fields_are_refused() {
    for (text, reason) in [
        ("nw_src=10.0.0.1", "needs `ip`"),
        ("ipv6,nw_src=10.0.0.1", "needs `ip`"),
        ("ip,ct_ipv6_src=fd00::1", "needs `ipv6`"),
        ("mpls_ttl=1", "needs `mpls`"),
        ("arp,nw_ttl=1", "needs `ip` or `ipv6`"),
        ("icmp,icmp_type=8/8", "whole"),
        ("icmp6,icmp_type=136,icmp_code=0,nd_sll=02:00:00:00:00:01", "icmp_type=135"),
        ("icmp6,nd_target=fd00::1", "icmp_type=135"),
        ("icmp6,icmp_type=136,icmp_code=0,nd_options_type=2/2", "whole"),
        ("ct_zone=1/1", "whole"),
        ("in_port=1/1", "whole"),
        ("conj_id=1/1", "whole"),
        ("ip,nw_ttl=1/1", "whole"),
        ("actset_output=1/1", "whole"),
        ("packet_type=(0,0)/1", ""),
        ("reg32=1", "reg3"),
        ("xxreg8=1", "xxreg"),
        ("tun_metadata64", "tun_metadata"),
        ("nsh_spi=1", "not supported yet"),
        ("tun_gtpu_flags=1", "not supported yet"),
        ("tun_erspan_idx=1", "not supported yet"),
    ] {
        let error = parse_match(text, &PortTable::default()).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

/// Names and masks of Open vSwitch (`ovs-fields(7)`, "IP Fragment"); two of them mean the same
/// as another one, since a later fragment is a fragment.
#[test]
fn fragments_have_the_names_of_open_vswitch() {
    let ports = PortTable::default();
    for (text, name) in [
        ("0x0/0x1", "no"),
        ("0/3", "no"),
        ("0x0", "no"),
        ("0x1/0x1", "yes"),
        ("0x1/0x3", "first"),
        ("0x3", "later"),
        ("0x2/0x2", "later"),
        ("0x0/0x2", "not_later"),
    ] {
        let matching = parse_match(&format!("ip,nw_frag={text}"), &ports).unwrap();
        assert_eq!(matching.to_string(), format!("ip,nw_frag={name}"), "{text}");
        assert_eq!(parse_match(&matching.to_string(), &ports), Ok(matching), "{text}");
    }
}
