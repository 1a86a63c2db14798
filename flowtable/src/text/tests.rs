//! What is read of lines as users write them, and mistakes told with their place.

use super::*;
use crate::{
    port::{PortInfo, PortRole},
    table::{BucketChoice, BucketPlace, GroupChange, MAX_NESTING, check_rule},
    types::BucketId,
};

pub(super) fn ports() -> PortTable {
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

/// Lines as dumps and manuals have them, and how they are printed.
pub(super) const LINES: &[(&str, &str)] = &[
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
