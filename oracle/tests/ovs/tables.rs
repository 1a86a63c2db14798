//! Tables as people write them.

use oracle::{
    frame,
    interpreter::Outcome,
    ovs::{Ovs, Protocol, package::Package},
    rng::Rng,
    rules::Features,
    syntax::Rules,
    traffic::{Arrival, arrival},
};

use super::{PORTS, pair::Pair, random::comparable};

/// Tables as people write them: a switch with VLANs, a router, a filter.
const TABLES: &[&str] = &[
    "table=0,priority=10,vlan_tci=0x0/0x1000,in_port=1,actions=push_vlan:0x8100,set_field:0x1064->vlan_vid,resubmit(,1)\n\
     table=0,priority=5,dl_vlan=100,actions=resubmit(,1)\n\
     table=1,priority=10,dl_vlan=100,dl_dst=02:00:00:00:00:02,actions=pop_vlan,output:2\n\
     table=1,priority=1,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=FLOOD\n\
     table=1,priority=0,actions=output:3\n",
    "table=0,priority=10,ip,nw_dst=10.0.0.0/30,actions=dec_ttl,set_field:1->reg0,resubmit(,2)\n\
     table=0,priority=20,ip,nw_dst=10.0.0.2,actions=dec_ttl,set_field:2->reg0,resubmit(,2)\n\
     table=0,priority=9,ipv6,ipv6_dst=fd00::4/126,actions=dec_ttl,set_field:3->reg0,goto_table:2\n\
     table=2,priority=1,reg0=1,actions=set_field:02:00:00:00:00:09->dl_src,output:1,IN_PORT\n\
     table=2,priority=1,reg0=2,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],output:4\n\
     table=2,priority=1,ipv6,reg0=3,actions=clone(set_field:fd00::1->ipv6_src,output:5),output:2\n",
    "table=0,priority=30,tcp,tcp_dst=0x2/0xfffe,tcp_flags=+syn-ack,actions=drop\n\
     table=0,priority=20,tcp,nw_src=10.0.0.0/29,actions=set_field:3->tcp_dst,output:2\n\
     table=0,priority=20,udp6,udp_src=1,actions=set_field:11->ip_dscp,output:3\n\
     table=0,priority=20,icmp6,icmp_type=135,icmp_code=0,nd_target=fd00::1/fd00::3,actions=FLOOD\n\
     table=0,priority=10,arp,arp_op=1,actions=set_field:2->arp_op,move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],IN_PORT\n\
     table=0,priority=0,actions=output:4,output:5\n",
];

#[test]
fn tables_that_people_write_do_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison of tables with Open vSwitch").unwrap() else {
        return;
    };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let mut rng = Rng::new(7);
    for flows in TABLES {
        let arrivals: Vec<Arrival> = (0..400).map(|_| arrival(&mut rng)).filter(sound).collect();
        let mut pair = Pair::new(&mut ovs, Protocol::OpenFlow13, flows);
        // Also when they have seen it before.
        for arrival in arrivals.iter().chain(&arrivals) {
            pair.send(arrival);
        }
        assert!(arrivals.len() > 100, "only {} packets", arrivals.len());
    }
}

/// No fragments, and nothing of which docs/differences-from-ovs.md speaks.
pub(crate) fn sound(arrival: &Arrival) -> bool {
    comparable(&Outcome::default(), &Features::default(), &Rules::default(), arrival)
        && frame::view(&arrival.frame).is_some_and(|view| {
            let extended = view.eth_type == 0x86dd && arrival.frame.get(view.l3 + 6) == Some(&44);
            view.frag == 0 && !extended
        })
}
