//! What is sent to groups: on a switch that listens, to those that want to hear it. Hosts
//! read what workloads say of that (IGMP, MLD) and tell the controller; a group that
//! somebody asked for is a group of ports.
//!
//! Questions of routers go to everybody, and what workloads say to routers alone: whoever
//! hears another one ask for the same need not ask any more (RFC 4541 §2.1.1).

use crate::{
    build::{
        FLOOD, HEAR_ALL, HEAR_ALL_KEY, REPORTS, REPORTS_KEY,
        multicast::{Listening, name},
        sink::FlowSink,
        stage::SwitchIn,
        topology::{SwitchGroupInput, SwitchTraits},
    },
    expr::lexer::quote,
};

/// What is said about groups.
const SAID: &str = "igmp || mldv1 || mldv2";
/// Groups of the link, which everybody hears (RFC 4541 §2.1.2, §3).
const ON_LINK: [&str; 2] =
    ["ip4.dst == 224.0.0.0/24", "ip6.dst == {ff00::/ff0f::, ff01::/ff0f::, ff02::/ff0f::}"];

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    let (object, stage) = (&switch.object, SwitchIn::L2Lkup);
    sink.add(SwitchIn::McastSnoop, 0, "1", "next;", object, "It says nothing about groups that matters.");
    let Some((listening, snooping)) = switch.listening.as_ref().zip(switch.options.snooping.as_ref()) else {
        return;
    };
    let why = "What workloads say about groups, and what routers ask, is read by their host.";
    sink.add(SwitchIn::McastSnoop, 100, SAID, "reg0[14] = igmp(); next;", object, why);
    let to = |group: &str| format!("outport = {}; output;", quote(group));
    let why = "A router asks all what they want to hear.";
    sink.add(stage, 100, format!("reg0[14] == 1 && ({SAID})"), to(FLOOD), object, why);
    match REPORTS_KEY.filter(|_| !listening.hear_reports.is_empty()) {
        Some(key) => {
            let why = "Routers are told what workloads want to hear.";
            sink.add(stage, 99, SAID, to(REPORTS), object, why);
            listening.hear_reports.iter().for_each(|port| sink.join(key, REPORTS, port));
        }
        None => {
            let why = "Its host has read what the workload wants to hear, and no router is to be told.";
            sink.add(stage, 99, SAID, "drop;", object, why);
        }
    }
    for on_link in ON_LINK {
        let why = "All stations of a link hear its own groups (RFC 4541 §2.1.2).";
        sink.add(stage, 73, on_link, to(FLOOD), object, why);
    }
    match HEAR_ALL_KEY.filter(|_| !listening.hear_all.is_empty()) {
        Some(key) => listening.hear_all.iter().for_each(|port| sink.join(key, HEAR_ALL, port)),
        None if snooping.floods_unknown => {}
        None => {
            let why = "Nobody wants to hear the group.";
            sink.add(stage, 72, "ip4.mcast || ip6.mcast", "drop;", object, why);
        }
    }
    if !snooping.floods_unknown && !listening.hear_all.is_empty() {
        let why = "Nobody wants to hear the group but those that hear everything.";
        sink.add(stage, 72, "ip4.mcast || ip6.mcast", to(HEAR_ALL), object, why);
    }
}

/// A group that somebody wants to hear.
pub(super) fn group(input: &SwitchGroupInput<'_>, sink: &mut FlowSink) {
    let SwitchGroupInput { switch, ip, hearers } = input;
    let none = Listening::default();
    let listening = switch.listening.as_ref().unwrap_or(&none);
    let group = name(*ip);
    for port in hearers.ports.union(&listening.hear_all) {
        sink.join(hearers.key, group.clone(), port);
    }
    let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
    let why = "Somebody wants to hear the group.";
    let actions = format!("outport = {}; output;", quote(&group));
    let matching = format!("eth.mcast && {family}.dst == {ip}");
    sink.add(SwitchIn::L2Lkup, 90, matching, actions, &switch.object, why);
}
