//! Incremental against full.

mod changes;

use std::collections::BTreeSet;

use super::*;
use crate::{
    SetChange, chassis_view, compile,
    fixture::*,
    model::{AclAction, AclDirection, PortGroup, SetMember, SwitchPort},
};

#[test]
fn work_that_is_shared_out_gives_the_same_in_whatever_order() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    let (_, port) = web.ports.first_key_value().unwrap();
    let copies: Vec<_> = (0..5000_u16)
        .map(|n| (format!("p{n}"), SwitchPort { key: port_key(100 + n), ..port.clone() }))
        .collect();
    web.ports.extend(copies);
    let mut compiler = Compiler::with(Workers(|n, work| (0..n).rev().for_each(work)));
    let all = Dirty {
        switches: nb.switches.keys().cloned().collect(),
        routers: nb.routers.keys().cloned().collect(),
        chassis: hosts().into_keys().collect(),
        ..Dirty::default()
    };
    compiler.update(&nb, &hosts(), &all);
    assert!(compiler.southbound() == &compile(&nb, &hosts()));
}

#[test]
fn a_new_member_is_sent_alone() {
    let mut nb = small();
    let member = |text: &str| SetMember::Ip(network(text));
    nb.address_sets.insert("ops".into(), [member("10.0.0.0/8")].into());
    let of_group =
        acl(AclDirection::ToLport, 5, "outport == @g && ip4.src == {$ops, $g_ip4}", AclAction::AllowRelated);
    let group = PortGroup {
        ports: [("a".into(), "web".into())].into(),
        acls: [("x".into(), of_group)].into(),
        ..PortGroup::default()
    };
    nb.port_groups.insert("g".into(), group);
    let mut compiler = Compiler::new();
    let all = Dirty {
        switches: nb.switches.keys().cloned().collect(),
        routers: nb.routers.keys().cloned().collect(),
        chassis: hosts().into_keys().collect(),
        address_sets: ["ops".to_owned()].into(),
        port_groups: ["g".to_owned()].into(),
        ..Dirty::default()
    };
    compiler.update(&nb, &hosts(), &all);
    assert_eq!(compiler.southbound(), &compile(&nb, &hosts()));

    nb.address_sets.get_mut("ops").unwrap().insert(member("192.0.2.1/32"));
    let dirty = Dirty { address_sets: ["ops".to_owned()].into(), ..Dirty::default() };
    let delta = compiler.update(&nb, &hosts(), &dirty);
    let one = |added: &str| SetChange { added: [added.to_owned()].into(), ..SetChange::default() };
    let sets = [("$ops".to_owned(), one("192.0.2.1"))].into();
    assert_eq!(delta, SouthboundDelta { sets, ..SouthboundDelta::default() });

    // Another port of the same switch: its flows stay.
    nb.port_groups.get_mut("g").unwrap().ports.insert("b".into(), "web".into());
    let dirty = Dirty { port_groups: ["g".to_owned()].into(), ..Dirty::default() };
    let delta = compiler.update(&nb, &hosts(), &dirty);
    assert_eq!(delta.sets.keys().collect::<Vec<_>>(), ["$g_ip4", "$g_ip6", "@g"]);
    assert_eq!((delta.flows.len(), delta.datapaths.len()), (0, 0));
    // The first one of another switch: the group's ACLs apply there now.
    nb.port_groups.get_mut("g").unwrap().ports.insert("c".into(), "db".into());
    let delta = compiler.update(&nb, &hosts(), &dirty);
    assert!(delta.flows.values().all(|flow| flow.datapath.get() == 2) && !delta.flows.is_empty());
    assert_eq!(compiler.southbound(), &compile(&nb, &hosts()));
    // Hosts are told of sets that their flows name.
    let mut far = compiler.southbound().clone();
    far.bindings.values_mut().for_each(|binding| binding.chassis = None);
    assert!(chassis_view(&far, "h1").sets.is_empty());
    assert_eq!(chassis_view(compiler.southbound(), "h1").sets.len(), 3);
}

/// A balancer that comes into a group costs one unit for each switch that uses the group, however
/// many others are in it; and nobody is told of anything else.
#[test]
fn a_balancer_that_comes_into_a_group_is_all_that_changes() {
    let mut nb = small();
    let id = |n: usize| format!("lb{n}");
    for n in 0..200 {
        let vip = format!("10.96.{}.{}:80", n / 100, n % 100);
        nb.load_balancers.insert(id(n), balancer(&vip, &["10.0.0.5:8080"]));
    }
    nb.balancer_groups.insert("all".into(), (0..199).map(id).collect());
    for switch in nb.switches.values_mut() {
        switch.balancer_groups.insert("all".into());
    }
    let all = Dirty {
        switches: nb.switches.keys().cloned().collect(),
        routers: nb.routers.keys().cloned().collect(),
        chassis: hosts().into_keys().collect(),
        load_balancers: nb.load_balancers.keys().cloned().collect(),
        balancer_groups: nb.balancer_groups.keys().cloned().collect(),
        ..Dirty::default()
    };
    let mut compiler = Compiler::new();
    compiler.update(&nb, &hosts(), &all);
    assert_eq!(compiler.southbound(), &compile(&nb, &hosts()));
    nb.balancer_groups.get_mut("all").unwrap().insert(id(199));
    let dirty = Dirty { balancer_groups: ["all".to_owned()].into(), ..Dirty::default() };
    let delta = compiler.update(&nb, &hosts(), &dirty);
    assert_eq!(compiler.southbound(), &compile(&nb, &hosts()));
    assert!(delta.flows.values().all(|flow| *flow.object == *"load-balancers/lb199"));
    let datapaths: BTreeSet<_> = delta.flows.values().map(|flow| flow.datapath.get()).collect();
    assert_eq!(datapaths, [1, 2].into());
    let flows = delta.flows.keys().copied().collect();
    nb.load_balancers.remove("lb199");
    let dirty = Dirty { load_balancers: [id(199)].into(), ..Dirty::default() };
    let removed = compiler.update(&nb, &hosts(), &dirty).removed;
    assert_eq!(removed, crate::Removed { flows, ..Default::default() });
}

#[test]
fn what_is_not_reached_is_not_compiled_again() {
    let mut nb = small();
    let mut far = switch(9);
    far.ports.insert("x".into(), workload(1, 0x55, &["10.5.0.5"], "h2"));
    nb.switches.insert("far".into(), far);
    let all = Dirty {
        switches: nb.switches.keys().cloned().collect(),
        routers: nb.routers.keys().cloned().collect(),
        chassis: hosts().into_keys().collect(),
        ..Dirty::default()
    };
    let mut compiler = Compiler::new();
    compiler.update(&nb, &hosts(), &all);
    nb.switches.get_mut("far").unwrap().ports.clear();
    nb.routers.get_mut("r").unwrap().ports.get_mut("r-web").unwrap().mac = mac(0xee);
    let dirty = Dirty { routers: ["r".to_owned()].into(), ..Dirty::default() };
    let delta = compiler.update(&nb, &hosts(), &dirty);
    assert!(compiler.southbound().bindings.contains_key("x"), "nobody said that `far` changed");
    let touched: BTreeSet<_> = delta.flows.values().map(|flow| flow.datapath.get()).collect();
    assert_eq!(touched, [1, 3].into(), "the switch knows the router's address");
}
