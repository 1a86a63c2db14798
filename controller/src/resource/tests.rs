//! Resources from the wire: what is taken, and what is refused with which words.

use std::collections::HashMap;

use ferroflow_proto::northbound::{self as pb, resource::Spec as Wire};
use ovn_northd_lite::model::HealthCheck;
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

#[test]
fn names_have_kind_id_and_parent() {
    let port = name("switches/web.1/ports/a-b_c");
    assert_eq!((port.kind(), port.id()), (Kind::SwitchPort, "a-b_c"));
    assert_eq!(port.parent(), Some(name("switches/web.1")));
    assert_eq!(name("routers/r").parent(), None);
    for wrong in [
        "",
        "/",
        "switches",
        "switches/",
        "switches/a/",
        "switches//ports/a",
        "switch/a",
        "switches/a/ports",
        "switches/a/ports/b/c/d",
        "routers/r/acls/x",
        "ports/a",
        "switches/-a",
        "switches/a b",
        "chassis/é",
    ] {
        assert!(Name::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Name::parse(&format!("switches/{}", "a".repeat(63))).is_ok());
    assert!(Name::parse(&format!("switches/{}", "a".repeat(64))).is_err());
}

fn port(addresses: &[&str], port_security: &[&str]) -> Wire {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Wire::LogicalSwitchPort(pb::LogicalSwitchPort {
        addresses: own(addresses),
        port_security: own(port_security),
        ..Default::default()
    })
}

/// The reason a spec is refused.
fn refused(text: &str, wire: &Wire) -> String {
    parse_spec(&name(text), Some(wire)).unwrap_err().to_string()
}

#[test]
fn a_workload_port_has_typed_addresses() {
    let wire = port(
        &["0a:00:00:00:00:01 10.0.0.5 2001:db8::5", "unknown"],
        &["0a:00:00:00:00:01 10.0.0.5 10.1.0.0/16"],
    );
    let Spec::SwitchPort(spec) = parse_spec(&name("switches/s/ports/p"), Some(&wire)).unwrap() else {
        panic!("another kind");
    };
    let Attachment::Workload { addresses, unknown, port_security, .. } = spec.attachment else {
        panic!("another attachment");
    };
    assert!(unknown && spec.enabled);
    assert_eq!(addresses[0].ips.len(), 2);
    assert_eq!(port_security[0].ips[0].prefix_len, 32);
    assert_eq!(port_security[0].ips[1].prefix_len, 16);
}

#[test]
fn each_refusal_names_the_field_and_the_value() {
    let at = "switches/s/ports/p";
    for (wire, field, value) in [
        (port(&["dynamic", "0a:00:00:00:00:01 dynamic"], &[]), "addresses", "more than one"),
        (port(&["dynamic 10.0.0.5 10.0.0.6"], &[]), "addresses[0]", "several addresses of a family"),
        (port(&["10.0.0.5 dynamic"], &[]), "addresses[0]", "`10.0.0.5`"),
        (port(&["0a:00:00:00:00:01 10.0.0.5 dynamic"], &[]), "addresses[0]", "is no entry"),
        (port(&[""], &[]), "addresses[0]", "``"),
        (port(&["01:00:00:00:00:01"], &[]), "addresses[0]", "01:00:00:00:00:01"),
        (port(&["0a:00:00:00:00:01 10.0.0.256"], &[]), "addresses[0]", "10.0.0.256"),
        (port(&["0a:00:00:00:00:01 224.0.0.1"], &[]), "addresses[0]", "224.0.0.1"),
        (port(&["0a:00:00:00:00:01 10.0.0.0/24"], &[]), "addresses[0]", "10.0.0.0/24"),
        (port(&[], &["0a:00:00:00:00:01 10.0.0.1/33"]), "port_security[0]", "10.0.0.1/33"),
        (port(&[], &["unknown"]), "port_security[0]", "unknown"),
        (Wire::Acl(pb::Acl::default()), "spec", "logical_switch_port"),
    ] {
        let reason = refused(at, &wire);
        assert!(reason.contains(&format!("`{field}`")) && reason.contains(value), "{reason}");
    }
}

#[test]
fn a_router_port_is_told_of_each_neighbour_once() {
    let at = "routers/r/ports/p";
    let port = |bound: &[(&str, &str)]| {
        let bind = |(ip, mac): &(&str, &str)| pb::StaticMacBinding {
            ip: (*ip).into(),
            mac: (*mac).into(),
            override_dynamic: true,
        };
        Wire::LogicalRouterPort(pb::LogicalRouterPort {
            mac: "0a:00:00:00:00:01".into(),
            networks: vec!["10.0.0.1/24".into()],
            static_mac_bindings: bound.iter().map(bind).collect(),
            ..Default::default()
        })
    };
    let (one, two) = (("10.0.0.9", "0a:00:00:00:00:09"), ("2001:db8::9", "0a:00:00:00:00:09"));
    let Ok(Spec::RouterPort(spec)) = parse_spec(&name(at), Some(&port(&[one, two]))) else {
        panic!("refused")
    };
    assert!(spec.static_macs.len() == 2 && spec.static_macs.values().all(|bound| bound.overrides));
    let mtu = |gateway_mtu, networks: &[&str]| {
        let Wire::LogicalRouterPort(mut port) = port(&[]) else { panic!("no port") };
        port.networks.extend(networks.iter().map(|text| (*text).to_owned()));
        Wire::LogicalRouterPort(pb::LogicalRouterPort { gateway_mtu, ..port })
    };
    for (value, networks) in [(0, &[][..]), (576, &[]), (1280, &["2001:db8::1/64"]), (65_000, &[])] {
        assert!(parse_spec(&name(at), Some(&mtu(value, networks))).is_ok(), "{value}");
    }
    for (value, networks) in [(575, &[][..]), (1279, &["2001:db8::1/64"]), (65_001, &[]), (65_536, &[])] {
        assert!(refused(at, &mtu(value, networks)).contains("`gateway_mtu`"), "{value}");
    }
    assert!(refused(at, &port(&[one, one])).contains("static_mac_bindings[1].ip"));
    assert!(refused(at, &port(&[("10.0.0.0/24", one.1)])).contains("static_mac_bindings[0].ip"));
    assert!(refused(at, &port(&[(one.0, "01:00:00:00:00:09")])).contains("static_mac_bindings[0].mac"));
}

#[test]
fn routers_refuse_what_could_not_route() {
    let router = |prefix: &str, next_hop: &str, output_port: &str| {
        Wire::LogicalRouter(pb::LogicalRouter {
            static_routes: vec![pb::StaticRoute {
                prefix: prefix.into(),
                next_hop: next_hop.into(),
                output_port: output_port.into(),
                ..Default::default()
            }],
            ..Default::default()
        })
    };
    assert!(
        parse_spec(&name("routers/r"), Some(&router("0.0.0.0/0", "10.0.0.1", "routers/r/ports/p"))).is_ok()
    );
    let reason = refused("routers/r", &router("10.1.0.5/16", "10.0.0.1", ""));
    assert!(reason.contains("static_routes[0].prefix") && reason.contains("write 10.1.0.0/16"), "{reason}");
    assert!(refused("routers/r", &router("10.1.0.0/16", "2001:db8::1", "")).contains("family"));
    let elsewhere = refused("routers/r", &router("10.1.0.0/16", "10.0.0.1", "routers/q/ports/p"));
    assert!(elsewhere.contains("not a port of routers/r"), "{elsewhere}");

    let port = |networks: &[&str]| {
        Wire::LogicalRouterPort(pb::LogicalRouterPort {
            mac: "0a:00:00:00:01:01".into(),
            networks: networks.iter().map(|text| (*text).to_owned()).collect(),
            ..Default::default()
        })
    };
    let at = "routers/r/ports/p";
    assert!(parse_spec(&name(at), Some(&port(&["10.0.0.1/24", "2001:db8::1/64", "10.9.0.0/31"]))).is_ok());
    assert!(refused(at, &port(&[])).contains("networks"));
    assert!(refused(at, &port(&["10.0.0.0/24"])).contains("the network itself"));
    assert!(refused(at, &port(&["10.0.0.1"])).contains("networks[0]"));
}

fn acl(action: pb::acl::Action, priority: u32) -> Wire {
    Wire::Acl(pb::Acl {
        direction: pb::acl::Direction::ToLport.into(),
        priority,
        r#match: "ip4".into(),
        action: action.into(),
        ..Default::default()
    })
}

#[test]
fn rules_about_quality_of_service_do_something() {
    let at = "switches/s/qos-rules/q";
    let good = || pb::QosRule {
        direction: pb::acl::Direction::ToLport.into(),
        priority: 32_767,
        r#match: "ip4".into(),
        dscp: Some(0),
        rate_kbps: 8,
        burst_kbit: 0,
    };
    let Ok(Spec::QosRule(rule)) = parse_spec(&name(at), Some(&Wire::QosRule(good()))) else {
        panic!("refused")
    };
    let burst = rule.bandwidth.map(|bandwidth| bandwidth.burst_kbit);
    assert_eq!((rule.dscp, burst), (Some(0), Some(8)), "as much as in a second");
    let refused = |change: fn(&mut pb::QosRule)| {
        let mut rule = good();
        change(&mut rule);
        refused(at, &Wire::QosRule(rule))
    };
    assert!(refused(|rule| rule.dscp = Some(64)).contains("`dscp`: 64 is not a code point"));
    assert!(refused(|rule| (rule.dscp, rule.rate_kbps) = (None, 0)).contains("the rule does nothing"));
    assert!(refused(|rule| (rule.rate_kbps, rule.burst_kbit) = (0, 5)).contains("`burst_kbit`"));
    assert!(refused(|rule| rule.priority = 32_768).contains("`priority`"));
    assert!(refused(|rule| rule.direction = 0).contains("`direction`"));
    assert!(refused(|rule| rule.r#match = "tcp.dts == 1".into()).contains("`match`"));
}

#[test]
fn acls_are_checked_field_by_field() {
    use pb::acl::Action;
    let at = "switches/s/acls/x";
    let known = [
        Action::Allow,
        Action::AllowRelated,
        Action::AllowStateless,
        Action::Drop,
        Action::Reject,
        Action::Pass,
    ];
    for action in known {
        assert!(parse_spec(&name(at), Some(&acl(action, 32_767))).is_ok());
        assert!(parse_spec(&name("port-groups/g/acls/x"), Some(&acl(action, 0))).is_ok());
    }
    assert!(refused(at, &acl(Action::Drop, 32_768)).contains("`priority`: 32768"));
    assert!(refused(at, &acl(Action::Drop, 65_536 + 5)).contains("out of range"));
    assert!(refused(at, &acl(Action::Unspecified, 1)).contains("`action`"));
    let with = |action, change: fn(&mut pb::Acl)| {
        let Wire::Acl(mut acl) = acl(action, 1) else { panic!("no ACL") };
        change(&mut acl);
        Wire::Acl(acl)
    };
    assert!(refused(at, &with(Action::Drop, |acl| acl.tier = 4)).contains("`tier`: 4 is out of range"));
    assert!(refused(at, &with(Action::Drop, |acl| acl.label = 1)).contains("`label`: only connections"));
    assert!(refused(at, &with(Action::Drop, |acl| acl.severity = 9)).contains("`severity`"));
    assert!(refused(at, &with(Action::Drop, |acl| acl.log_name = "a\nb".into())).contains("`log_name`"));
    let wrong = with(Action::Drop, |acl| acl.r#match = "ip4.src == $web && inport == @db && x".into());
    assert!(refused(at, &wrong).contains("column 37: there is no field `x`"), "{}", refused(at, &wrong));
    let full = with(Action::AllowRelated, |acl| {
        (acl.tier, acl.label, acl.log, acl.severity) = (3, 7, true, pb::acl::Severity::Alert.into());
    });
    let Ok(Spec::Acl(full)) = parse_spec(&name(at), Some(&full)) else { panic!("refused") };
    assert_eq!((full.tier, full.label, full.log.unwrap().severity.name()), (3, 7, "alert"));
}

#[test]
fn sets_have_typed_members() {
    let set = |addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
        Wire::AddressSet(pb::AddressSet { addresses })
    };
    let texts = ["10.0.0.5", "10.0.0.0/8", "2001:db8::/32", "0a:00:00:00:00:01", "10.0.0.5", "0.0.0.0/0"];
    let Ok(Spec::AddressSet(members)) = parse_spec(&name("address-sets/a-b.c"), Some(&set(&texts))) else {
        panic!("refused")
    };
    assert_eq!(members.len(), 5);
    for wrong in ["", "10.0.0.5/8", "10.0.0.0/33", "web", "10.0.0.1 "] {
        assert!(refused("address-sets/a", &set(&[wrong])).contains("addresses[0]"), "{wrong}");
    }
    let group = |ports: &[&str]| {
        let ports = ports.iter().map(|text| (*text).to_owned()).collect();
        Wire::PortGroup(pb::PortGroup { ports, ..Default::default() })
    };
    assert!(parse_spec(&name("port-groups/g"), Some(&group(&["switches/s/ports/a"]))).is_ok());
    for wrong in ["a", "routers/r/ports/a", "switches/s", ""] {
        assert!(refused("port-groups/g", &group(&[wrong])).contains("ports[0]"), "{wrong}");
    }
    let odd = Wire::PortGroup(pb::PortGroup { default_policy: 9, ..Default::default() });
    assert!(refused("port-groups/g", &odd).contains("`default_policy`"));
}

#[test]
fn an_acl_is_below_a_switch_or_a_port_group() {
    let of_group = name("port-groups/g/acls/x");
    assert_eq!((of_group.kind(), of_group.parent()), (Kind::Acl, Some(name("port-groups/g"))));
    assert_eq!(name("switches/s/acls/x").parent(), Some(name("switches/s")));
    assert_eq!(Kind::Acl.to_string(), "switches/{id}/acls/{id} or port-groups/{id}/acls/{id}");
    assert_eq!(Kind::PortGroup.child_kinds().collect::<Vec<_>>(), [Kind::Acl]);
    assert_eq!(Kind::Switch.child_kinds().collect::<Vec<_>>(), [Kind::SwitchPort, Kind::QosRule, Kind::Acl]);
    assert!(Name::parse("address-sets/a/acls/x").is_err());
}

#[test]
fn masks_change_what_they_name_and_nothing_else() {
    let at = name("switches/s/acls/x");
    let labels = HashMap::from([("a".to_owned(), "1".to_owned())]);
    let merged = |paths: &[&str], new: Option<&Wire>| {
        let (mut spec, mut kept) = (acl(pb::acl::Action::Drop, 1), labels.clone());
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        merge(&at, (&mut spec, &mut kept), (new, &HashMap::new()), &paths).map(|()| (spec, kept))
    };
    let new = acl(pb::acl::Action::Allow, 7);
    assert_eq!(merged(&["priority"], Some(&new)).unwrap(), (acl(pb::acl::Action::Drop, 7), labels.clone()));
    assert_eq!(merged(&["labels"], None).unwrap(), (acl(pb::acl::Action::Drop, 1), HashMap::new()));
    let reason = merged(&["prio"], Some(&new)).unwrap_err().to_string();
    assert!(
        reason.contains(
            "priority, match, action, tier, label, log, log_name, severity, log_rate, log_burst, apply_after_lb, persist_established, log_related, sample_new, sample_established, labels"
        ),
        "{reason}"
    );
    assert!(merged(&["match"], Some(&Wire::LogicalSwitch(Default::default()))).is_err());
    assert!(merged(&["match"], None).is_err());
}

#[test]
fn errors_show_little_of_a_hostile_text() {
    let shown = Shown(&"é\n".repeat(1000)).to_string();
    assert!(shown.len() < 300 && !shown.contains('\n'), "{shown}");
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,40}", digits in "[0-9a-f:./ ]{0,30}") {
        for text in [&text, &digits] {
            if let Ok(name) = Name::parse(text) {
                prop_assert_eq!(name.as_str(), text.as_str());
            }
            let _ = parse_spec(&name("switches/s/ports/p"), Some(&port(&[text], &[text])));
            let wire = Wire::LogicalRouterPort(pb::LogicalRouterPort {
                mac: text.clone(), networks: vec![text.clone()], ..Default::default()
            });
            let _ = parse_spec(&name("routers/r/ports/p"), Some(&wire));
        }
    }
}

#[test]
fn load_balancers_and_translations_refuse_what_cannot_work() {
    let balancer = |vip: &str, backends: &[&str]| {
        let backend = |address: &&str| pb::Backend { address: (*address).to_owned(), ..Default::default() };
        let backends = backends.iter().map(backend).collect();
        let vips = vec![pb::Vip { address: vip.to_owned(), backends }];
        Wire::LoadBalancer(pb::LoadBalancer { vips, ..Default::default() })
    };
    let lb = "load-balancers/lb";
    for (vip, backends) in [
        ("192.0.2.1:80", &["10.0.0.5:8080", "10.0.0.6:8080"][..]),
        ("192.0.2.1", &["10.0.0.5"]),
        ("[2001:db8::1]:80", &["[2001:db8::5]:80"]),
        ("2001:db8::1", &[]),
    ] {
        assert!(parse_spec(&name(lb), Some(&balancer(vip, backends))).is_ok(), "{vip}");
    }
    for (vip, backends, wanted) in [
        ("192.0.2.1:80", "10.0.0.5", "just where its service has one"),
        ("192.0.2.1", "10.0.0.5:80", "just where its service has one"),
        ("192.0.2.1:80", "[2001:db8::5]:80", "family"),
        ("192.0.2.1:0", "10.0.0.5:80", "port 0"),
        ("here", "10.0.0.5:80", "192.0.2.10:80"),
    ] {
        assert!(refused(lb, &balancer(vip, &[backends])).contains(wanted), "{vip} {backends}");
    }
    let checked = |protocol, interval, (ip, port, source): (&str, &str, &str)| {
        let point = pb::ProbePoint {
            backend_ip: ip.to_owned(),
            logical_port: port.to_owned(),
            source_ip: source.to_owned(),
        };
        Wire::LoadBalancer(pb::LoadBalancer {
            protocol,
            health_check: Some(pb::HealthCheck { interval, ..Default::default() }),
            probe_points: vec![point],
            ..Default::default()
        })
    };
    let good = ("10.0.0.5", "switches/s/ports/p", "10.0.0.250");
    let Ok(Spec::LoadBalancer(spec)) = parse_spec(&name(lb), Some(&checked(0, 0, good))) else {
        panic!("refused")
    };
    let usual = HealthCheck { interval: 5, timeout: 20, n_successes: 3, n_failures: 3 };
    assert_eq!(spec.health_check, Some(usual));
    for (protocol, interval, point, wanted) in [
        (2, 0, good, "`health_check`"),
        (0, 3601, good, "`health_check.interval`"),
        (0, 0, ("here", good.1, good.2), "`probe_points[0].backend_ip`"),
        (0, 0, (good.0, "p", good.2), "`probe_points[0].logical_port`"),
        (0, 0, (good.0, good.1, good.0), "`probe_points[0].source_ip`"),
        (0, 0, (good.0, good.1, "2001:db8::1"), "`probe_points[0].source_ip`"),
    ] {
        assert!(refused(lb, &checked(protocol, interval, point)).contains(wanted), "{point:?}");
    }
    let nat = |kind: pb::nat::Type, external: &str, logical: &str, ports: &str| {
        Wire::Nat(pb::Nat {
            r#type: kind.into(),
            external_ip: external.to_owned(),
            logical_ip: logical.to_owned(),
            external_port_range: ports.to_owned(),
            ..Default::default()
        })
    };
    use pb::nat::Type::{Dnat, DnatAndSnat, Snat, Unspecified};
    let n = "routers/r/nats/n";
    assert!(parse_spec(&name(n), Some(&nat(Snat, "192.0.2.1", "10.0.0.0/16", "5000-6000"))).is_ok());
    assert!(parse_spec(&name(n), Some(&nat(DnatAndSnat, "192.0.2.1", "10.0.0.5", ""))).is_ok());
    for (kind, external, logical, ports, wanted) in [
        (Unspecified, "192.0.2.1", "10.0.0.5", "", "snat, dnat"),
        (Dnat, "192.0.2.1", "10.0.0.0/16", "", "only snat"),
        (Snat, "192.0.2.1", "2001:db8::/64", "", "family"),
        (Dnat, "192.0.2.1", "10.0.0.5", "1-2", "leave it out"),
        (Snat, "192.0.2.1", "10.0.0.0/16", "6000-5000", "5000-6000"),
        (Snat, "192.0.2.1", "10.0.0.0/16", "0-5", "5000-6000"),
    ] {
        assert!(
            refused(n, &nat(kind, external, logical, ports)).contains(wanted),
            "{kind:?} {logical} {ports}"
        );
    }
}

#[test]
fn checks_of_ports_ask_somebody_from_somewhere_else() {
    use pb::port_health_check::Protocol;
    let check = |protocol: Protocol, ip: &str, port, source: &str| pb::PortHealthCheck {
        protocol: protocol.into(),
        ip: ip.to_owned(),
        port,
        source_ip: source.to_owned(),
        ..Default::default()
    };
    let parsed = |checks: Vec<pb::PortHealthCheck>| {
        let port = pb::LogicalSwitchPort { health_checks: checks, ..Default::default() };
        let name = Name::parse("switches/s/ports/p").unwrap();
        match parse_spec(&name, Some(&Wire::LogicalSwitchPort(port))) {
            Ok(Spec::SwitchPort(spec)) => Ok(spec.options.checks.len()),
            Ok(_) => panic!("another kind"),
            Err(error) => Err(error.to_string()),
        }
    };
    let (icmp, tcp) = (Protocol::Unspecified, Protocol::Tcp);
    let one = check(icmp, "10.0.0.5", 0, "10.0.0.9");
    assert_eq!(parsed(vec![one.clone(), check(tcp, "10.0.0.5", 80, "10.0.0.9")]), Ok(2));
    for (wrong, field) in [
        (check(icmp, "10.0.0.5", 7, "10.0.0.9"), "health_checks[1].port"),
        (check(tcp, "10.0.0.5", 0, "10.0.0.9"), "health_checks[1].port"),
        (check(tcp, "10.0.0.5", 65_536, "10.0.0.9"), "health_checks[1].port"),
        (check(tcp, "10.0.0.5", 80, "10.0.0.5"), "health_checks[1].source_ip"),
        (check(tcp, "10.0.0.5", 80, "::9"), "health_checks[1].source_ip"),
        (check(tcp, "x", 80, "10.0.0.9"), "health_checks[1].ip"),
        (one.clone(), "health_checks[1]"),
    ] {
        let error = parsed(vec![one.clone(), wrong]).unwrap_err();
        assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
    }
    assert!(parsed(vec![one; 9]).is_err());
}

#[test]
fn options_of_ports_and_routers_that_mean_nothing_are_refused() {
    use pb::logical_switch_port::{TagType, Type};
    let port = pb::LogicalSwitchPort::default();
    let network = pb::LogicalSwitchPort {
        r#type: Type::Localnet.into(),
        network_name: "n".into(),
        tag_type: TagType::Service.into(),
        ..port.clone()
    };
    let open = pb::LogicalSwitchPort {
        addresses: vec!["0a:00:00:00:00:05".into(), "unknown".into()],
        force_fdb_lookup: true,
        ..port.clone()
    };
    let nested =
        pb::LogicalSwitchPort { parent: "switches/s/ports/vm".into(), tag_request: true, ..port.clone() };
    let at = "switches/s/ports/p";
    for good in [&open, &nested, &pb::LogicalSwitchPort { tag: 5, ..network.clone() }] {
        assert!(parse_spec(&name(at), Some(&Wire::LogicalSwitchPort(good.clone()))).is_ok(), "{good:?}");
    }
    for (wrong, field) in [
        (pb::LogicalSwitchPort { addresses: Vec::new(), ..open.clone() }, "force_fdb_lookup"),
        (pb::LogicalSwitchPort { learn_fdb: Some(false), ..open.clone() }, "force_fdb_lookup"),
        (
            pb::LogicalSwitchPort { port_security: vec!["0a:00:00:00:00:05".into()], ..open },
            "force_fdb_lookup",
        ),
        (pb::LogicalSwitchPort { tag: 5, ..nested.clone() }, "tag_request"),
        (pb::LogicalSwitchPort { parent: String::new(), ..nested.clone() }, "tag"),
        (pb::LogicalSwitchPort { r#type: Type::Localport.into(), ..nested }, "tag"),
        (network.clone(), "tag_type"),
        (pb::LogicalSwitchPort { tag: 5, tag_type: 9, ..network }, "tag_type"),
        (pb::LogicalSwitchPort { tag_type: 1, ..port }, "tag_type"),
    ] {
        let reason = refused(at, &Wire::LogicalSwitchPort(wrong));
        assert!(reason.contains(&format!("`{field}`")), "{field}: {reason}");
    }
    let route = pb::StaticRoute {
        prefix: "10.0.0.0/24".into(),
        discard: true,
        by_source: true,
        override_connected: true,
        ..Default::default()
    };
    let router = pb::LogicalRouter { static_routes: vec![route], ..Default::default() };
    let reason = refused("routers/r", &Wire::LogicalRouter(router));
    assert!(reason.contains("static_routes[0].override_connected"), "{reason}");
    let router = pb::LogicalRouter { mac_binding_age_threshold: Some(65_536), ..Default::default() };
    assert!(refused("routers/r", &Wire::LogicalRouter(router)).contains("mac_binding_age_threshold"));
    let bypass = |gateway_mtu, text: &str| {
        Wire::LogicalRouterPort(pb::LogicalRouterPort {
            mac: "0a:00:00:00:01:01".into(),
            networks: vec!["10.0.0.1/24".into()],
            gateway_mtu,
            gateway_mtu_bypass: text.into(),
            ..Default::default()
        })
    };
    let at = "routers/r/ports/p";
    assert!(parse_spec(&name(at), Some(&bypass(1400, "tcp || udp.dst == 53"))).is_ok());
    for (mtu, text) in [(0, "tcp"), (1400, "tpc"), (1400, "ip4.src == $web")] {
        assert!(refused(at, &bypass(mtu, text)).contains("`gateway_mtu_bypass`"), "{text}");
    }
}
