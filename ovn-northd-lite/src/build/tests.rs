//! What each feature makes of a small network, and what holds for all flows.

use crate::{
    SetChange, SouthboundDelta, actions, compile,
    dhcp::OptionV6,
    diff, expr,
    fixture::*,
    model::{
        Access, Acl, AclAction, AclDirection, AclLog, Bandwidth, Candidate, Condition, DefaultPolicy,
        DhcpOptions, DhcpV6, HashField, LoadBalancer, Monitored, Names, NatKind, NatRule, NextHop,
        Northbound, PolicyAction, PortGroup, PortServices, QosRule, Rate, RouteMatch, RouteTarget,
        RouterPolicy, Sample, SampleCollector, Samples, SetMember, Severity, Snooping, StaticRoute,
        SwitchOptions, SwitchPortKind, TemplateBackend, TemplatePort, TemplateService, Vip,
    },
    punt::Service,
    southbound::{Southbound, Wire},
};

fn compiled(nb: &Northbound) -> Southbound {
    let sb = compile(nb, &hosts());
    for flow in sb.flows.values() {
        expr::parse(&flow.matching).unwrap_or_else(|error| panic!("{}: {error}", flow.matching));
        let statements =
            actions::parse(&flow.actions).unwrap_or_else(|error| panic!("{}: {error}", flow.actions));
        assert_eq!(actions::print(&statements), flow.actions);
        assert!(!flow.object.is_empty() && flow.why.ends_with('.'), "{flow:?}");
    }
    sb
}

#[test]
fn admission_drops_what_cannot_be_and_ports_that_are_off() {
    let mut nb = small();
    nb.switches.get_mut("web").unwrap().ports.get_mut("b").unwrap().enabled = false;
    let sb = compiled(&nb);
    insta::assert_snapshot!(stages(&sb, "switches/web", "port_sec_l2"));
    let flood = sb.groups.values().find(|group| group.name == "_MC_flood").unwrap();
    assert!(flood.ports.iter().eq(["a", "web-r"]));
}

#[test]
fn port_security_checks_both_ways() {
    let mut nb = Northbound::default();
    let mut web = switch(1);
    let ips = ["10.0.0.5/24", "10.9.0.0/16", "2001:db8::5/128"];
    web.ports.insert("a".into(), secured(workload(1, 5, &[], "h1"), 5, &ips));
    web.ports.insert("b".into(), secured(workload(2, 6, &[], "h1"), 6, &[]));
    nb.switches.insert("web".into(), web);
    insta::assert_snapshot!(stages(&compiled(&nb), "switches/web", "port_sec"));
}

#[test]
fn acls_keep_their_order_and_deny_when_in_doubt() {
    let mut nb = Northbound::default();
    let mut web = switch(1);
    let (from, to) = (AclDirection::FromLport, AclDirection::ToLport);
    let acls = [
        ("allow-web", acl(to, 200, "tcp.dst == {80, 443}", AclAction::Allow)),
        ("broken-allow", acl(to, 150, "tcp.dts == 80", AclAction::Allow)),
        ("broken-drop", acl(to, 140, "tcp.dts == 80", AclAction::Drop)),
        ("contradicted", acl(to, 100, "ip4", AclAction::Allow)),
        ("contradicts", acl(to, 100, "ip4", AclAction::Drop)),
        ("no-telnet", acl(from, 32767, "(ip4 && tcp.dst == 23) || ip6", AclAction::Drop)),
        ("reject", acl(from, 2, "udp", AclAction::Reject)),
        ("related", acl(from, 1, "tcp", AclAction::AllowRelated)),
        ("stateless", acl(from, 0, "icmp4", AclAction::AllowStateless)),
    ];
    web.acls.extend(acls.map(|(id, acl)| (id.to_owned(), acl)));
    nb.switches.insert("web".into(), web);
    insta::assert_snapshot!(stages(&compiled(&nb), "switches/web", "acl"));
}

#[test]
fn tiers_groups_logs_and_defaults() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    web.default_policy = DefaultPolicy::Drop;
    let (from, to) = (AclDirection::FromLport, AclDirection::ToLport);
    let log = |name: &str| {
        Some(AclLog { name: name.to_owned(), severity: Severity::Alert, rate: None, related: false })
    };
    let own = [
        ("pass", Acl { tier: 0, log: log(""), ..acl(from, 7, "inport == \"a\"", AclAction::Pass) }),
        ("drop", Acl { tier: 2, log: log("no \"web\""), ..acl(from, 7, "tcp.dst == 80", AclAction::Drop) }),
        ("label", Acl { label: 42, ..acl(from, 6, "ip4.dst == $ops", AclAction::AllowRelated) }),
        ("stateless", acl(from, 5, "udp", AclAction::AllowStateless)),
    ];
    web.acls.extend(own.map(|(id, acl)| (id.to_owned(), acl)));
    let reject = acl(to, 3, "outport == @g && ip4.src == $g_ip4", AclAction::Reject);
    let group = PortGroup {
        ports: [("a".to_owned(), "web".to_owned())].into(),
        acls: [("reject".to_owned(), reject)].into(),
        default_policy: DefaultPolicy::Drop,
    };
    nb.port_groups.insert("g".into(), group);
    nb.address_sets.insert("ops".into(), [SetMember::Ip(network("10.0.0.0/8"))].into());
    let sb = compiled(&nb);
    insta::assert_snapshot!(stages(&sb, "switches/web", "acl"));
    insta::assert_snapshot!(stages(&sb, "switches/web", "stateful"));
    let sets: Vec<_> = sb.sets.iter().map(|(name, members)| format!("{name} {members:?}")).collect();
    assert_eq!(
        sets,
        ["$g_ip4 {\"10.0.0.5\"}", "$g_ip6 {\"2001:db8::5\"}", "$ops {\"10.0.0.0/8\"}", "@g {\"a\"}"]
    );
    // The other switch has nothing of it.
    assert!(!stages(&sb, "switches/db", "acl").contains("reg"));
}

#[test]
fn collectors_are_told_of_new_connections_and_of_those_that_are_there() {
    let mut nb = small();
    let collector = |set, probability| SampleCollector {
        set,
        probability,
        targets: [([192, 0, 2, 9], 4739).into()].into(),
        new_application: 3,
        established_application: 4,
    };
    nb.sample_collectors =
        [("all".to_owned(), collector(7, u16::MAX)), ("few".to_owned(), collector(8, 100))].into();
    let sample = |point, ids: &[&str]| {
        Some(Sample { point, collectors: ids.iter().map(|id| (*id).to_owned()).collect() })
    };
    let to = AclDirection::ToLport;
    let both = Samples { new: sample(42, &["all", "few"]), established: sample(43, &["all"]) };
    let new = Samples { new: sample(44, &["all", "gone"]), established: None };
    let web = nb.switches.get_mut("web").unwrap();
    web.acls
        .insert("in".into(), Acl { samples: both, ..acl(to, 5, "tcp.dst == 80", AclAction::AllowRelated) });
    web.acls.insert("no".into(), Acl { samples: new, ..acl(to, 4, "tcp", AclAction::Drop) });
    let sb = compiled(&nb);
    insta::assert_snapshot!(stages(&sb, "switches/web", "acl_eval"));
    assert_eq!(sb.sets["~all"], ["7 192.0.2.9:4739".to_owned()].into());
    let web = sb.datapaths.values().find(|datapath| datapath.name == "switches/web").unwrap();
    assert!(web.sets.contains("~all") && web.sets.contains("~few") && !web.sets.contains("~gone"));
}

#[test]
fn quality_of_service_marks_and_bounds_what_passes() {
    let mut nb = small();
    let rule = |direction, priority, matching: &str, dscp, bandwidth: Option<(u32, u32)>| QosRule {
        direction,
        priority: flowtable::types::Priority::new(priority).unwrap(),
        matching: matching.to_owned(),
        dscp,
        bandwidth: bandwidth.map(|(kbps, burst_kbit)| Bandwidth { kbps, burst_kbit }),
    };
    let (from, to) = (AclDirection::FromLport, AclDirection::ToLport);
    let rules = [
        ("both", rule(from, 32767, "(inport == \"a\" && udp) || arp", Some(46), Some((8000, 800)))),
        ("mark", rule(to, 0, "1", Some(0), None)),
        ("broken", rule(to, 7, "tcp.dts == 1", Some(1), Some((1, 1)))),
        ("rate", rule(to, 5, "arp", None, Some((1, u32::MAX)))),
    ];
    let web = nb.switches.get_mut("web").unwrap();
    web.qos_rules.extend(rules.map(|(id, rule)| (id.to_owned(), rule)));
    let log = AclLog {
        name: "x".into(),
        severity: Severity::Info,
        related: false,
        rate: Some(Rate { pps: 3, burst: 9 }),
    };
    web.acls.insert("log".into(), Acl { log: Some(log), ..acl(to, 1, "ip4", AclAction::Drop) });
    let sb = compiled(&nb);
    insta::assert_snapshot!(stages(&sb, "switches/web", "qos"));
    assert!(stages(&sb, "switches/web", "acl_eval").contains("name=\"x\", rate=3, burst=9);"));
    for wrong in
        ["set_meter(0);", "set_meter(1, 0);", "set_meter();", "set_meter(4294967296);", "log(rate=0);"]
    {
        assert!(actions::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(actions::print(&actions::parse("set_meter(5);").unwrap()), "set_meter(5, 5);");
}

#[test]
fn known_addresses_are_answered_for() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    if let SwitchPortKind::Workload { unknown, .. } = &mut web.ports.get_mut("b").unwrap().kind {
        *unknown = true;
    }
    insta::assert_snapshot!(stages(&compiled(&nb), "switches/web", "arp_rsp"));
}

#[test]
fn frames_go_where_their_address_is() {
    let mut nb = small();
    insta::assert_snapshot!(stages(&compiled(&nb), "switches/web", "l2_"));
    let web = nb.switches.get_mut("web").unwrap();
    if let SwitchPortKind::Workload { unknown, .. } = &mut web.ports.get_mut("b").unwrap().kind {
        *unknown = true;
    }
    let sb = compiled(&nb);
    assert!(stages(&sb, "switches/web", "l2_unknown").contains("outport = \"_MC_unknown\"; output;"));
    let unknown = sb.groups.values().find(|group| group.name == "_MC_unknown").unwrap();
    assert!(unknown.ports.iter().eq(["b"]));
}

#[test]
fn a_router_answers_routes_and_resolves() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    let route = |prefix, next_hop: &str, output_port: Option<&str>| StaticRoute {
        prefix: network(prefix),
        by: RouteMatch::Destination,
        target: RouteTarget::Via(NextHop {
            ip: next_hop.parse().unwrap(),
            output_port: output_port.map(str::to_owned),
        }),
        symmetric: false,
        table: String::new(),
        hash_fields: Vec::new(),
        monitored: false,
        overrides: false,
    };
    r.static_routes = vec![
        route("0.0.0.0/0", "10.0.1.6", None),
        route("10.0.1.0/24", "10.0.0.6", None),
        route("10.7.0.0/16", "10.0.0.6", Some("r-db")),
        route("10.8.0.0/16", "192.0.2.1", None),
        route("2001:db8:7::/48", "2001:db8::6", None),
        route("2001:db8:8::/48", "2001:db8::6", Some("gone")),
    ];
    insta::assert_snapshot!(flows(&compiled(&nb), "routers/r"));
}

#[test]
fn addresses_that_move_and_workloads_outside() {
    let mut nb = small();
    nb.dhcp_options.insert("four".into(), dhcp_v4("10.0.0.0/24"));
    let web = nb.switches.get_mut("web").unwrap();
    web.services.dhcp = [Some("four".into()), None];
    let network = SwitchPortKind::Network {
        network: "n".into(),
        tag: None,
        is_service: false,
        gateway: Default::default(),
    };
    web.ports.insert("net".into(), crate::model::SwitchPort { kind: network, ..workload(7, 7, &[], "h1") });
    let attached = |key, last, ips: &[&str], how: Access| {
        let mut port = workload(key, last, ips, "h1");
        let SwitchPortKind::Workload { access, .. } = &mut port.kind else { panic!("no workload") };
        *access = how;
        port
    };
    let candidates = vec![Candidate { priority: 2, chassis: "h2".into() }];
    let metal = attached(8, 0x77, &["10.0.0.77"], Access::External(candidates.clone().into()));
    web.ports.insert("metal".into(), metal);
    let parents = vec!["a".to_owned(), "b".to_owned()];
    let vip = attached(9, 0x05, &["10.0.0.100"], Access::Virtual { ip: [10, 0, 0, 100].into(), parents });
    web.ports.insert("vip".into(), vip);
    let sb = compiled(&nb);
    let of = |object: &str| {
        let ours = sb.flows.values().filter(|flow| *flow.object == *format!("switches/web/ports/{object}"));
        let mut texts: Vec<_> = ours
            .map(|flow| {
                format!("{} {} {}\n    {}", flow.stage_name, flow.priority.get(), flow.matching, flow.actions)
            })
            .collect();
        texts.sort();
        texts.join("\n")
    };
    insta::assert_snapshot!(format!("{}\n\n{}", of("metal"), of("vip")));
    assert_eq!((&sb.bindings["metal"].wire, &sb.bindings["metal"].gateway), (&Wire::External, &candidates));
    assert_eq!(sb.bindings["metal"].announced, []);
    assert!(sb.groups.values().all(|group| !group.ports.contains("vip") && !group.ports.contains("metal")));
}

#[test]
fn what_is_too_large_is_told() {
    let mut nb = small();
    nb.routers.get_mut("r").unwrap().ports.get_mut("r-db").unwrap().mtu = Some(1400);
    let sb = compiled(&nb);
    insta::assert_snapshot!(
        ["chk_pkt_len", "larger_pkts"].map(|word| stages(&sb, "routers/r", word)).concat()
    );
}

#[test]
fn answers_go_back_the_way_their_connections_came() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    let by_source = |by, prefix: &str, next_hop: &str| StaticRoute {
        prefix: network(prefix),
        by,
        target: RouteTarget::Via(NextHop { ip: next_hop.parse().unwrap(), output_port: None }),
        symmetric: next_hop.ends_with('6'),
        table: String::new(),
        hash_fields: Vec::new(),
        monitored: false,
        overrides: false,
    };
    r.chassis = Some("h1".into());
    r.static_routes = vec![
        by_source(RouteMatch::Destination, "0.0.0.0/0", "10.0.0.5"),
        by_source(RouteMatch::Destination, "0.0.0.0/0", "10.0.0.6"),
        by_source(RouteMatch::Source, "10.9.0.0/16", "10.0.1.6"),
        by_source(RouteMatch::Destination, "10.8.0.0/16", "10.0.1.5"),
    ];
    let of = |sb: &Southbound| {
        let ours = sb.flows.values().filter(|flow| {
            flow.stage_name.contains("ecmp_stateful") || flow.why.contains(" way that the connection came")
        });
        let text = |flow: &std::sync::Arc<crate::southbound::LogicalFlow>| {
            let priority = flow.priority.get();
            format!(
                "{:02} {} {priority} {}\n    {}",
                flow.stage, flow.stage_name, flow.matching, flow.actions
            )
        };
        let mut texts: Vec<_> = ours.map(text).collect();
        texts.sort();
        texts.join("\n")
    };
    insta::assert_snapshot!(of(&compiled(&nb)));
    // A router that is everywhere remembers no connections but at its gateways.
    nb.routers.get_mut("r").unwrap().chassis = None;
    assert!(!of(&compiled(&nb)).contains("ct_commit"));
    let port = nb.routers.get_mut("r").unwrap().ports.get_mut("r-web").unwrap();
    port.gateway = vec![Candidate { priority: 1, chassis: "h2".into() }].into();
    let text = of(&compiled(&nb));
    assert_eq!(text.matches("ct_commit").count(), 2, "{text}");
    assert!(text.contains("&& is_chassis_resident(\"cr:r-web\")"), "{text}");
}

#[test]
fn routers_on_one_switch_know_each_other() {
    let mut nb = small();
    let mut r2 = router(4);
    r2.ports.insert("r2-web".into(), router_port(1, 0xf2, &["10.0.0.2/24"]));
    nb.routers.insert("r2".into(), r2);
    let web = nb.switches.get_mut("web").unwrap();
    web.ports.insert("web-r2".into(), to_router(4, "r2", "r2-web"));
    insta::assert_snapshot!(stages(&compiled(&nb), "routers/r2", "arp_resolve"));
    nb.routers.get_mut("r").unwrap().enabled = false;
    let sb = compiled(&nb);
    assert!(!stages(&sb, "routers/r2", "arp_resolve").contains("routers/r/"));
    insta::assert_snapshot!(flows(&sb, "routers/r"));
}

#[test]
fn a_router_port_is_linked_to_one_switch_port() {
    let mut nb = small();
    let db = nb.switches.get_mut("db").unwrap();
    db.ports.insert("thief".into(), to_router(9, "r", "r-web"));
    db.ports.insert("dangling".into(), to_router(10, "r", "gone"));
    let sb = compiled(&nb);
    assert_eq!(sb.bindings["r-web"].peer.as_deref(), Some("thief"));
    assert_eq!(sb.bindings["thief"].peer.as_deref(), Some("r-web"));
    assert_eq!(sb.bindings["web-r"].peer, None);
    assert_eq!(sb.bindings["dangling"].peer, None);
}

#[test]
fn hosts_answer_for_the_network() {
    let mut nb = small();
    nb.dhcp_options.insert("four".into(), dhcp_v4("10.0.0.0/24"));
    let options = [("dns_server", "2001:db8::53"), ("domain_search", "a.example,b.example")];
    let options = options.map(|(name, text)| {
        let option = OptionV6::named(name).unwrap();
        (option, option.parse(text).unwrap())
    });
    let six = DhcpV6 {
        network: network("2001:db8::/64"),
        server_mac: mac(0xdd),
        is_stateless: false,
        options: options.into(),
    };
    nb.dhcp_options.insert("six".into(), DhcpOptions::V6(six));
    let names = Names { records: [("a.example".to_owned(), [[10, 0, 0, 5].into()].into())].into(), ttl: 60 };
    nb.names.insert("zone".into(), names);
    nb.limits.insert("tight".into(), [(Service::Dns, Rate { pps: 5, burst: 9 })].into());
    let web = nb.switches.get_mut("web").unwrap();
    web.services.dhcp = [Some("four".into()), None];
    web.services.names.insert("zone".into());
    web.services.limits = Some("tight".into());
    let a = web.ports.get_mut("a").unwrap();
    a.services = PortServices { dhcp: [None, Some("six".into())], hostname: Some("web-a".into()) };
    let r_web = nb.routers.get_mut("r").unwrap().ports.get_mut("r-web").unwrap();
    r_web.advertisement = Some(advertisement());
    let sb = compiled(&nb);
    insta::assert_snapshot!(stages(&sb, "switches/web", "dhcp"));
    insta::assert_snapshot!(stages(&sb, "switches/web", "dns"));
    insta::assert_snapshot!(stages(&sb, "routers/r", "nd_ra"));
    assert_eq!(sb.sets["#zone"], ["a.example 60 10.0.0.5".to_owned()].into());
    let web = sb.datapaths.values().find(|datapath| datapath.name == "switches/web").unwrap();
    assert!(web.sets.contains("#zone") && web.limits.contains_key(&Service::Dns));
    assert_eq!(sb.bindings["r-web"].advertises.as_ref().unwrap().interval, (200, 600));
    assert_eq!(sb.bindings.values().filter(|binding| binding.advertises.is_some()).count(), 1);
    // A name more is one member, and nothing else.
    nb.names.get_mut("zone").unwrap().records.insert("b".to_owned(), [[10, 0, 0, 6].into()].into());
    let delta = diff(&sb, &compiled(&nb));
    let change = SetChange { added: ["b 60 10.0.0.6".to_owned()].into(), ..SetChange::default() };
    let sets = [("#zone".to_owned(), change)].into();
    assert_eq!(delta, SouthboundDelta { sets, ..SouthboundDelta::default() });
}

#[test]
fn stations_are_remembered_behind_ports_that_take_unknown_addresses() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    if let SwitchPortKind::Workload { unknown, .. } = &mut web.ports.get_mut("b").unwrap().kind {
        *unknown = true;
    }
    web.options = SwitchOptions {
        station_age: 60,
        vlan_passthru: true,
        asks_routers: false,
        ..SwitchOptions::default()
    };
    let sb = compiled(&nb);
    insta::assert_snapshot!(["fdb", "l2_"].map(|word| stages(&sb, "switches/web", word)).concat());
    assert!(!stages(&sb, "switches/web", "port_sec_l2").contains("vlan"));
    let flood = sb.groups.values().find(|group| group.name == "_MC_flood_l2").unwrap();
    assert!(flood.ports.iter().eq(["a", "b"]));
    assert!(!stages(&sb, "switches/db", "fdb").contains("put_fdb("));
}

#[test]
fn routers_stand_for_networks_and_workloads_for_themselves() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    web.ports.get_mut("a").unwrap().options.silent = true;
    let options = &mut web.ports.get_mut("web-r").unwrap().options;
    options.stands_for = vec![network("10.9.0.0/16"), network("2001:db8:9::/64")];
    insta::assert_snapshot!(stages(&compiled(&nb), "switches/web", "arp_rsp"));
}

#[test]
fn routes_have_names_and_policies_chains() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    let of = |table: &str, hop: &str| StaticRoute {
        table: table.to_owned(),
        hash_fields: vec![HashField::IpSrc],
        ..route("192.0.2.0/24", Some(hop))
    };
    r.static_routes =
        vec![of("", "10.0.1.6"), of("red", "10.0.0.6"), of("red", "10.0.1.6"), of("gone", "10.0.0.5")];
    r.ports.get_mut("r-web").unwrap().route_table = "red".to_owned();
    let two = PolicyAction::Reroute(["10.0.0.6", "10.0.1.6"].map(|ip| ip.parse().unwrap()).into());
    let in_chain = |policy: RouterPolicy| RouterPolicy { chain: "x".to_owned(), ..policy };
    r.policies
        .insert("jump".into(), RouterPolicy { mark: 5, ..policy(9, "tcp", PolicyAction::Jump("x".into())) });
    r.policies.insert("two".into(), in_chain(policy(9, "tcp", two.clone())));
    r.policies.insert("first".into(), policy(8, "tcp", two));
    r.policies.insert("broken".into(), in_chain(policy(7, "tcp.dts == 1", PolicyAction::Drop)));
    let sb = compiled(&nb);
    let of_router = ["ip_routing", "policy"].map(|word| stages(&sb, "routers/r", word)).concat();
    insta::assert_snapshot!(of_router);
}

#[test]
fn gateways_balance_for_who_is_outside() {
    let mut nb = small();
    let mut lb = balancer("10.0.0.100:80", &["10.0.1.5:8080"]);
    (lb.affinity, lb.skip_snat, lb.reject) = (Some(60), true, true);
    nb.load_balancers.insert("lb".into(), lb);
    let r = nb.routers.get_mut("r").unwrap();
    r.load_balancers.insert("lb".into());
    r.ports.get_mut("r-web").unwrap().gateway = vec![Candidate { priority: 1, chassis: "h2".into() }].into();
    let of = |sb: &Southbound, datapath: &str| {
        let all = flows(sb, datapath);
        all.split_inclusive("\n").filter(|line| line.contains("load-balancers/lb")).count()
    };
    let sb = compiled(&nb);
    let words = ["defrag", "lb_aff", "lr_in_dnat", "lr_out_snat"];
    insta::assert_snapshot!(words.map(|word| stages(&sb, "routers/r", word)).concat());
    assert_eq!((of(&sb, "switches/web"), of(&sb, "switches/db") > 0), (0, true), "clients of the gateway");
    let r = nb.routers.get_mut("r").unwrap();
    r.chassis = Some("h1".into());
    r.options.balancer_sources = vec!["10.0.1.1".parse().unwrap()];
    r.options.dnat_sources = vec!["10.0.1.3".parse().unwrap()];
    r.nats.insert("in".into(), nat(NatKind::Destination, "10.0.0.101", "10.0.1.5/32"));
    r.nats.insert(
        "hide".into(),
        NatRule {
            condition: Some(Condition {
                priority: flowtable::types::Priority::new(7).unwrap(),
                matching: "tcp.dst == 80".to_owned(),
            }),
            ..nat(NatKind::Source, "10.0.0.102", "10.0.1.0/24")
        },
    );
    nb.load_balancers.get_mut("lb").unwrap().skip_snat = false;
    let sb = compiled(&nb);
    insta::assert_snapshot!(
        ["unsnat", "lr_in_dnat", "lr_out_snat"].map(|word| stages(&sb, "routers/r", word)).concat()
    );
}

#[test]
fn other_routers_have_routes_to_what_is_offered() {
    let mut nb = small();
    let mut join = switch(4);
    join.ports.insert("join-r".into(), to_router(1, "r", "r-join"));
    join.ports.insert("join-edge".into(), to_router(2, "edge", "edge-join"));
    nb.switches.insert("join".into(), join);
    let r = nb.routers.get_mut("r").unwrap();
    r.ports.insert("r-join".into(), router_port(3, 0xf2, &["100.64.0.1/16", "fd98::1/64"]));
    let mut edge = router(5);
    edge.chassis = Some("h1".into());
    edge.ports.insert("edge-join".into(), router_port(1, 0xf3, &["100.64.0.2/16", "fd98::2/64"]));
    edge.nats.insert("in".into(), nat(NatKind::Destination, "203.0.113.5", "10.0.0.5/32"));
    edge.nats.insert(
        "told".into(),
        NatRule { add_route: true, ..nat(NatKind::Destination, "203.0.113.6", "10.0.0.6/32") },
    );
    edge.balancer_groups.insert("lg".into());
    nb.routers.insert("edge".into(), edge);
    nb.balancer_groups.insert("lg".into(), ["told".to_owned(), "plain".to_owned(), "v6".to_owned()].into());
    let told = |vip: &str| LoadBalancer { add_route: true, ..balancer(vip, &[]) };
    nb.load_balancers.insert("told".into(), told("203.0.113.80:80"));
    nb.load_balancers.insert("v6".into(), told("[2001:db8:7::80]:80"));
    nb.load_balancers.insert("plain".into(), balancer("203.0.113.81:80", &[]));
    let sb = compiled(&nb);
    let of = |router: &str| {
        let flows = stages(&sb, router, "lr_in_ip_routing");
        flows.lines().filter(|line| line.contains("offers a way")).count()
    };
    // The one that offers them needs no route.
    assert_eq!((of("routers/r"), of("routers/edge")), (3, 0));
    insta::assert_snapshot!(stages(&sb, "routers/r", "lr_in_ip_routing"));
}

#[test]
fn answers_are_logged_by_the_label_and_what_cannot_be_served_is_told() {
    let mut nb = small();
    let log = AclLog { name: "x".into(), severity: Severity::Info, related: true, rate: None };
    let web = nb.switches.get_mut("web").unwrap();
    for (id, direction) in [("in", AclDirection::ToLport), ("out", AclDirection::FromLport)] {
        let rule = acl(direction, 7, "tcp", AclAction::AllowRelated);
        web.acls.insert(id.into(), Acl { label: 42, log: Some(log.clone()), ..rule });
    }
    web.load_balancers.extend(["silent".to_owned(), "told".to_owned()]);
    let empty = |vip: &str, reject| LoadBalancer { event: true, reject, ..balancer(vip, &[]) };
    nb.load_balancers.insert("silent".into(), empty("10.96.0.1:80", false));
    nb.load_balancers.insert("told".into(), empty("10.96.0.2:80", true));
    let sb = compiled(&nb);
    insta::assert_snapshot!(stages(&sb, "switches/web", "acl_eval"));
    insta::assert_snapshot!(stages(&sb, "switches/web", "ls_in_lb"));
}

#[test]
fn services_that_differ_by_chassis_name_variables() {
    let mut nb = small();
    nb.switches.get_mut("web").unwrap().load_balancers.insert("lb".into());
    let r = nb.routers.get_mut("r").unwrap();
    r.chassis = Some("h1".to_owned());
    r.load_balancers.insert("lb".into());
    let service = |port: Option<&str>, backends: &[TemplateBackend]| TemplateService {
        is_v4: port.is_some(),
        address: "node".into(),
        port: port.map(|id| TemplatePort::Variable(id.to_owned())),
        backends: backends.to_vec(),
    };
    let near = TemplateBackend::Variable("near".into());
    let fixed = TemplateBackend::Fixed(Vip { ip: "2001:db8::5".parse().unwrap(), port: None });
    let lb = LoadBalancer {
        templates: vec![service(Some("port"), std::slice::from_ref(&near)), service(None, &[fixed, near])],
        hash_fields: vec![HashField::IpSrc],
        skip_snat: true,
        event: true,
        ..LoadBalancer::default()
    };
    nb.load_balancers.insert("lb".into(), lb);
    let sb = compiled(&nb);
    let of =
        |datapath, words: &[&str]| words.iter().map(|word| stages(&sb, datapath, word)).collect::<String>();
    insta::assert_snapshot!(of("switches/web", &["ls_in_pre_lb", "ls_in_lb"]));
    insta::assert_snapshot!(of("routers/r", &["lr_in_defrag", "lr_in_dnat"]));
    let named = |name: &str| &sb.datapaths.values().find(|datapath| datapath.name == name).unwrap().sets;
    assert!(["^near", "^node", "^port"].iter().all(|set| named("switches/web").contains(*set)));
}

/// `small`, where switches listen, the router relays, and the workloads on `db` hear groups.
fn listening() -> Northbound {
    let mut nb = small();
    for switch in nb.switches.values_mut() {
        switch.options.snooping = Some(Snooping::default());
    }
    let hear = |nb: &mut Northbound, switch: &str, port: &str, groups: &[&str]| {
        let port = nb.switches.get_mut(switch).unwrap().ports.get_mut(port).unwrap();
        port.hears = groups.iter().map(|ip| ip.parse().unwrap()).collect();
    };
    hear(&mut nb, "db", "c", &["239.1.2.3", "ff05::1:3"]);
    hear(&mut nb, "db", "d", &["239.1.2.3"]);
    nb.routers.get_mut("r").unwrap().options.relays = true;
    nb
}

#[test]
fn groups_are_for_those_that_want_to_hear_them() {
    let mut nb = listening();
    let web = nb.switches.get_mut("web").unwrap();
    web.ports.get_mut("a").unwrap().options.hears_all = true;
    web.ports.get_mut("b").unwrap().hears = [[0, 0, 0, 0].into()].into();
    nb.switches.get_mut("db").unwrap().options.snooping.as_mut().unwrap().floods_unknown = true;
    nb.routers.get_mut("r").unwrap().ports.get_mut("r-web").unwrap().hears_all = true;
    let sb = compiled(&nb);
    insta::assert_snapshot!(stages(&sb, "switches/web", "mcast_snoop"));
    insta::assert_snapshot!(stages(&sb, "switches/web", "l2_lkup"));
    insta::assert_snapshot!(stages(&sb, "switches/db", "l2_lkup"));
    let of_router = |word: &str| {
        let flows = stages(&sb, "routers/r", word);
        let about =
            |text: &str| text.contains("mcast") || text.contains("_MC_") || text.contains("224.0.0.0");
        let mut lines = flows.lines().filter(|line| !line.starts_with("lr_")).collect::<Vec<_>>();
        let mut text = String::new();
        while lines.len() >= 3 {
            let flow: Vec<_> = lines.drain(..3).collect();
            if flow.iter().any(|line| about(line)) {
                text.push_str(&format!("{}\n", flow.join("\n")));
            }
        }
        text
    };
    let words = ["ip_input", "ip_routing", "arp_resolve", "delivery"];
    insta::assert_snapshot!(words.map(of_router).join("\n"));
    let groups = sb.groups.iter().filter(|(_, group)| group.name != "_MC_flood");
    let groups: Vec<_> =
        groups.map(|((datapath, _), group)| format!("{datapath} {} {:?}", group.name, group.ports)).collect();
    insta::assert_snapshot!(groups.join("\n"));
}

#[test]
fn what_leads_to_a_next_hop_that_does_not_live_is_not_there() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    r.chassis = Some("h1".to_owned());
    let monitored = |is_up| Monitored { min_tx: 100, min_rx: 200, multiplier: 3, is_up };
    let port = r.ports.get_mut("r-db").unwrap();
    port.monitored =
        [([10, 0, 1, 5].into(), monitored(true)), ([10, 0, 1, 6].into(), monitored(false))].into();
    let of = |hop: &str| StaticRoute { monitored: true, ..route("192.0.2.0/24", Some(hop)) };
    r.static_routes =
        vec![of("10.0.1.5"), of("10.0.1.6"), StaticRoute { ..route("192.0.0.0/16", Some("10.0.1.6")) }];
    let hops = PolicyAction::Reroute(["10.0.1.5", "10.0.1.6"].map(|ip| ip.parse().unwrap()).into());
    let dead = PolicyAction::Reroute(vec!["10.0.1.6".parse().unwrap()]);
    r.policies.insert("two".into(), RouterPolicy { monitored: true, ..policy(9, "tcp", hops) });
    r.policies.insert("dead".into(), RouterPolicy { monitored: true, ..policy(8, "udp", dead) });
    let sb = compiled(&nb);
    let flows = stages(&sb, "routers/r", "ip_routing");
    assert!(flows.contains("ip4.dst == 192.0.2.0/24") && !flows.contains("select"), "{flows}");
    let flows = stages(&sb, "routers/r", "policy");
    assert!(flows.contains("(tcp) && ip4") && !flows.contains("udp") && !flows.contains("select"), "{flows}");
    let questions = stages(&sb, "routers/r", "ip_input");
    assert_eq!(questions.matches("handle_bfd_msg();").count(), 2);
    let sessions: Vec<_> =
        sb.bindings["r-db"].sessions.iter().map(|session| session.peer.to_string()).collect();
    assert_eq!(sessions, ["10.0.1.5", "10.0.1.6"]);
    // The other one is gone, too: its packets take the shorter prefix.
    let mut gone = nb.clone();
    let port = gone.routers.get_mut("r").unwrap().ports.get_mut("r-db").unwrap();
    port.monitored.values_mut().for_each(|session| session.is_up = false);
    let flows = stages(&compiled(&gone), "routers/r", "ip_routing");
    assert!(!flows.contains("192.0.2.0/24") && flows.contains("192.0.0.0/16"), "{flows}");
}

#[test]
fn gateways_that_remember_nothing_or_all() {
    let mut nb = small();
    let mut lb = balancer("10.0.0.100:80", &["10.0.1.5:8080", "10.0.1.6:8080"]);
    (lb.stateless, lb.hash_fields) = (true, vec![HashField::IpSrc]);
    nb.load_balancers.insert("lb".into(), lb);
    let r = nb.routers.get_mut("r").unwrap();
    r.load_balancers.insert("lb".into());
    r.options.commits_all = true;
    let port = r.ports.get_mut("r-web").unwrap();
    (port.gateway, port.bridges) = (vec![Candidate { priority: 1, chassis: "h2".into() }].into(), true);
    let sb = compiled(&nb);
    let words = ["unsnat", "defrag", "lr_in_dnat", "lb_aff_learn", "gw_redirect", "undnat", "lr_out_snat"];
    insta::assert_snapshot!(words.map(|word| stages(&sb, "routers/r", word)).concat());
    assert_eq!(sb.bindings["cr:r-web"].peer, sb.bindings["r-web"].peer);
    // On a router of one chassis, which sees both directions, it is as without.
    let r = nb.routers.get_mut("r").unwrap();
    r.chassis = Some("h1".into());
    r.options.commits_all = false;
    let told = |nb: &Northbound| stages(&compiled(nb), "routers/r", "");
    let with = told(&nb);
    nb.load_balancers.get_mut("lb").unwrap().stateless = false;
    assert_eq!(with, told(&nb));
}

#[test]
fn what_routers_and_ports_can_be_told_besides() {
    let mut nb = small();
    let r = nb.routers.get_mut("r").unwrap();
    let overriding = StaticRoute { overrides: true, ..route("10.0.1.0/24", Some("10.0.0.6")) };
    r.static_routes = vec![route("10.0.0.0/24", None), overriding];
    let port = r.ports.get_mut("r-db").unwrap();
    (port.mtu, port.mtu_bypass) = (Some(1300), "tcp || udp.dst == 53".into());
    let flows = stages(&compiled(&nb), "routers/r", "lookup_neighbor");
    assert_eq!(flows.matches("reg9[3] = lookup_arp_ip(inport, arp.spa);").count(), 2, "{flows}");
    let r = nb.routers.get_mut("r").unwrap();
    (r.options.learns_all, r.options.neighbour_age) = (true, Some(60));
    let SwitchPortKind::Workload { unknown, .. } =
        &mut nb.switches.get_mut("web").unwrap().ports.get_mut("a").unwrap().kind
    else {
        unreachable!()
    };
    *unknown = true;
    nb.switches.get_mut("web").unwrap().ports.get_mut("a").unwrap().options.is_looked_up = true;
    let sb = compiled(&nb);
    let words = ["neighbor", "chk_pkt_len", "lr_in_ip_routing"];
    insta::assert_snapshot!(words.map(|word| stages(&sb, "routers/r", word)).concat());
    insta::assert_snapshot!(stages(&sb, "switches/web", "l2_lkup"));
}
