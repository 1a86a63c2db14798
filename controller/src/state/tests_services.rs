//! Addresses that switches give, and what hosts answer for them.

use std::collections::BTreeSet;

use ferroflow_proto::northbound::{self as pb, resource::Spec as Wire};
use proptest::prelude::*;

use super::*;
use crate::store::MemoryStore;

/// A state over a store, written to as the controller does.
struct World {
    store: MemoryStore,
    state: State,
}

impl World {
    fn new() -> Self {
        let store = MemoryStore::new(LogLimits::default());
        let state = State::load(&store, LogLimits::default()).unwrap();
        Self { store, state }
    }

    /// One transaction: each resource as it is to be, `None`: gone.
    fn run(&mut self, writes: Vec<(&str, Option<Wire>)>) -> Result<(), String> {
        let mut draft = Draft::new(&self.state);
        for (i, (name, spec)) in writes.into_iter().enumerate() {
            let done = match spec {
                Some(spec) => {
                    let resource =
                        pb::Resource { name: name.to_owned(), spec: Some(spec), ..Default::default() };
                    draft.update(i, resource, &[], true)
                }
                None => draft.delete(i, name, false),
            };
            done.map_err(|reason| reason.to_string())?;
        }
        let prepared = draft.finish(|_| Claimed::default()).map_err(|refusal| refusal.to_string())?;
        if !prepared.changes.is_empty() {
            self.store.commit(prepared.txn(self.state.revision())).unwrap();
            self.state.apply(prepared);
        }
        let again = State::load(&self.store, LogLimits::default()).unwrap();
        assert!(again.iter().eq(self.state.iter()), "what is stored is what is known");
        Ok(())
    }

    fn put(&mut self, name: &str, spec: Wire) -> Result<(), String> {
        self.run(vec![(name, Some(spec))])
    }

    /// What was chosen for a port.
    fn chosen(&self, port: &str) -> String {
        let name = Name::parse(&format!("switches/s/ports/{port}")).unwrap();
        let wire = self.state.get(&name).unwrap().to_wire(|_| ChassisStatus::default());
        match wire.spec {
            Some(Wire::LogicalSwitchPort(port)) => port.dynamic_addresses,
            _ => panic!("no port"),
        }
    }

    /// The IPv4 address that was chosen for a port.
    fn ip(&self, port: &str) -> String {
        self.chosen(port).split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

fn switch(subnet: &str, excluded: &[&str], ipv6_prefix: &str) -> Wire {
    let management = pb::AddressManagement {
        subnet: subnet.to_owned(),
        exclude_ips: excluded.iter().map(|text| (*text).to_owned()).collect(),
        ipv6_prefix: ipv6_prefix.to_owned(),
        ..Default::default()
    };
    Wire::LogicalSwitch(pb::LogicalSwitch { address_management: Some(management), ..Default::default() })
}

fn port(addresses: &[&str]) -> Wire {
    let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
    Wire::LogicalSwitchPort(pb::LogicalSwitchPort { addresses, ..Default::default() })
}

#[test]
fn ports_get_addresses_and_keep_them() {
    let mut world = World::new();
    world.put("switches/s", switch("10.0.0.0/24", &["10.0.0.3..10.0.0.9"], "2001:db8::/64")).unwrap();
    world.put("switches/s/ports/a", port(&["dynamic"])).unwrap();
    assert_eq!(world.chosen("a"), "0a:5e:f0:00:00:01 10.0.0.2 2001:db8::85e:f0ff:fe00:1");
    world.put("switches/s/ports/b", port(&["0a:00:00:00:00:0b dynamic"])).unwrap();
    assert_eq!(world.chosen("b"), "0a:00:00:00:00:0b 10.0.0.10 2001:db8::800:ff:fe00:b");
    world.put("switches/s/ports/c", port(&["dynamic 10.0.0.77 2001:db8::c"])).unwrap();
    assert_eq!(world.chosen("c"), "0a:5e:f0:00:00:02 10.0.0.77 2001:db8::c");
    // Another write changes nothing; another network what has to change.
    let (a, b) = (world.chosen("a"), world.chosen("b"));
    let enabled = pb::LogicalSwitchPort {
        addresses: vec!["dynamic".to_owned()],
        enabled: Some(false),
        ..Default::default()
    };
    world.put("switches/s/ports/a", Wire::LogicalSwitchPort(enabled)).unwrap();
    assert_eq!(world.chosen("a"), a);
    world.put("switches/s", switch("10.0.0.0/24", &["10.0.0.2"], "2001:db8::/64")).unwrap();
    assert_eq!((world.ip("a"), world.chosen("b")), ("10.0.0.11".to_owned(), b));
    world.put("switches/s", switch("10.9.0.0/24", &[], "")).unwrap();
    let ips: BTreeSet<_> = ["a", "b"].map(|port| world.ip(port)).into();
    assert!(ips.len() == 2 && ips.iter().all(|ip| ip.starts_with("10.9.0.")), "{ips:?}");
    // Without the entry the address goes.
    world.put("switches/s/ports/a", port(&[])).unwrap();
    assert_eq!(world.chosen("a"), "");
}

#[test]
fn what_is_given_clashes_with_nothing() {
    let mut world = World::new();
    let router_port = Wire::LogicalRouterPort(pb::LogicalRouterPort {
        mac: "0a:00:00:00:01:01".to_owned(),
        networks: vec!["10.0.0.3/29".to_owned()],
        ..Default::default()
    });
    let to_router = Wire::LogicalSwitchPort(pb::LogicalSwitchPort {
        r#type: pb::logical_switch_port::Type::Router.into(),
        router_port: "routers/r/ports/r-s".to_owned(),
        ..Default::default()
    });
    let all = vec![
        ("switches/s", Some(switch("10.0.0.0/29", &[], ""))),
        ("routers/r", Some(Wire::LogicalRouter(Default::default()))),
        ("routers/r/ports/r-s", Some(router_port)),
        ("switches/s/ports/s-r", Some(to_router)),
        // In the order of names the dynamic one comes first.
        ("switches/s/ports/z", Some(port(&["0a:00:00:00:00:01 10.0.0.2"]))),
        ("switches/s/ports/a", Some(port(&["dynamic"]))),
    ];
    world.run(all).unwrap();
    assert_eq!(world.ip("a"), "10.0.0.4");
    // A static address that was given already is refused, one given in the same moment is not given.
    let error = world.put("switches/s/ports/b", port(&["0a:00:00:00:00:02 10.0.0.4"])).unwrap_err();
    assert!(error.contains("10.0.0.4 is already that of switches/s/ports/a"), "{error}");
    world.put("switches/s/ports/b", port(&["dynamic"])).unwrap();
    assert_eq!(world.ip("b"), "10.0.0.5");
    world.put("switches/s/ports/c", port(&["dynamic"])).unwrap();
    // 10.0.0.1 is a router's by custom, .2 z's, .3 the router's, .4 to .6 are given.
    let error = world.put("switches/s/ports/d", port(&["dynamic"])).unwrap_err();
    assert!(error.contains("switches/s has no address left in 10.0.0.0/29"), "{error}");
    assert!(error.contains("switches/s/ports/d"), "{error}");
    // Nothing was taken by the attempt.
    world.run(vec![("switches/s/ports/b", None), ("switches/s/ports/d", Some(port(&["dynamic"])))]).unwrap();
    assert_eq!(world.ip("d"), "10.0.0.5");
}

#[test]
fn an_address_that_is_free_again_rests() {
    let mut world = World::new();
    world.put("switches/s", switch("10.0.0.0/28", &[], "")).unwrap();
    let mut seen = Vec::new();
    for _ in 0..26 {
        world.put("switches/s/ports/p", port(&["dynamic"])).unwrap();
        seen.push(world.ip("p"));
        world.run(vec![("switches/s/ports/p", None)]).unwrap();
    }
    let (first, second) = seen.split_at(13);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 13, "{seen:?}");
    assert_eq!(first, second);
    // A switch made anew starts anew.
    world.run(vec![("switches/s", None)]).unwrap();
    world.put("switches/s", switch("10.0.0.0/28", &[], "")).unwrap();
    world.put("switches/s/ports/p", port(&["dynamic"])).unwrap();
    assert_eq!(world.ip("p"), "10.0.0.2");
}

#[test]
fn asking_where_nothing_is_given_is_refused() {
    let mut world = World::new();
    world.put("switches/s", Wire::LogicalSwitch(Default::default())).unwrap();
    let error = world.put("switches/s/ports/a", port(&["dynamic"])).unwrap_err();
    assert!(error.contains("the switch gives no addresses"), "{error}");
    world.put("switches/s", switch("10.0.0.0/24", &[], "")).unwrap();
    world.put("switches/s/ports/a", port(&["dynamic"])).unwrap();
    let error = world.put("switches/s", Wire::LogicalSwitch(Default::default())).unwrap_err();
    assert!(error.contains("switches/s/ports/a asks for a dynamic address"), "{error}");
    // Only a MAC address where that is all there is.
    world.put("switches/s", switch("", &[], "")).unwrap();
    assert_eq!(world.chosen("a").split(' ').count(), 1);
}

fn dhcp(cidr: &str, server_id: &str) -> Wire {
    let options = [("server_id".to_owned(), server_id.to_owned())].into();
    Wire::DhcpOptions(pb::DhcpOptions { cidr: cidr.to_owned(), options })
}

#[test]
fn what_is_named_is_there_and_of_its_family() {
    let mut world = World::new();
    let named = |four: &str, names: &[&str], limits: &str| {
        Wire::LogicalSwitch(pb::LogicalSwitch {
            dhcpv4_options: four.to_owned(),
            names: names.iter().map(|text| (*text).to_owned()).collect(),
            control_plane_limits: limits.to_owned(),
            ..Default::default()
        })
    };
    for (spec, wanted) in [
        (named("dhcp-options/x", &[], ""), "dhcp-options/x, which does not exist"),
        (named("", &["names/x"], ""), "names/x, which does not exist"),
        (named("", &[], "control-plane-limits/x"), "control-plane-limits/x, which does not exist"),
        (named("names/x", &[], ""), "`names/x` is not the name of one"),
    ] {
        let error = world.put("switches/s", spec).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    world.put("dhcp-options/six", dhcp("2001:db8::/64", "0a:00:00:00:00:01")).unwrap();
    let error = world.put("switches/s", named("dhcp-options/six", &[], "")).unwrap_err();
    assert!(error.contains("other family"), "{error}");
    world.put("dhcp-options/four", dhcp("10.0.0.0/24", "10.0.0.1")).unwrap();
    world.put("switches/s", named("dhcp-options/four", &[], "")).unwrap();
    let error = world.put("dhcp-options/four", dhcp("2001:db8::/64", "0a:00:00:00:00:01")).unwrap_err();
    assert!(error.contains("switches/s uses it for the other family"), "{error}");
    let error = world.run(vec![("dhcp-options/four", None)]).unwrap_err();
    assert!(error.contains("switches/s refers to it"), "{error}");
    world.put("switches/s", named("", &[], "")).unwrap();
    world.run(vec![("dhcp-options/four", None)]).unwrap();
}

#[test]
fn groups_name_what_is_there_and_are_named() {
    let mut world = World::new();
    let group = |members: &[&str]| {
        let load_balancers = members.iter().map(|id| format!("load-balancers/{id}")).collect();
        Wire::LoadBalancerGroup(pb::LoadBalancerGroup { load_balancers })
    };
    let hosts = |ids: &[&str]| {
        let host = |id: &&str| pb::GatewayChassis { chassis: format!("chassis/{id}"), priority: 1 };
        Wire::HaChassisGroup(pb::HaChassisGroup { chassis: ids.iter().map(host).collect() })
    };
    let balancer = || Wire::LoadBalancer(pb::LoadBalancer::default());
    let error = world.put("load-balancer-groups/g", group(&["a"])).unwrap_err();
    assert!(error.contains("field `load_balancers[0]` refers to load-balancers/a"), "{error}");
    let both =
        vec![("load-balancer-groups/g", Some(group(&["a", "b"]))), ("load-balancers/a", Some(balancer()))];
    assert!(world.run(both.clone()).is_err(), "b is not there");
    world.run([both, vec![("load-balancers/b", Some(balancer()))]].concat()).unwrap();
    let user = Wire::LogicalSwitch(pb::LogicalSwitch {
        load_balancer_groups: vec!["load-balancer-groups/g".to_owned()],
        ..Default::default()
    });
    world.put("switches/s", user).unwrap();
    let error = world.run(vec![("load-balancer-groups/g", None)]).unwrap_err();
    assert!(error.contains("while switches/s refers to it"), "{error}");
    // One that is deleted leaves its groups.
    world.run(vec![("load-balancers/a", None)]).unwrap();
    let name = Name::parse("load-balancer-groups/g").unwrap();
    let Wire::LoadBalancerGroup(left) = &world.state.get(&name).unwrap().wire else { panic!("no group") };
    assert_eq!(left.load_balancers, ["load-balancers/b"]);

    world.put("routers/r", Wire::LogicalRouter(Default::default())).unwrap();
    let port = |group: &str, list: &[&str]| {
        Wire::LogicalRouterPort(pb::LogicalRouterPort {
            mac: "0a:00:00:00:01:01".to_owned(),
            networks: vec!["10.0.0.1/24".to_owned()],
            ha_chassis_group: group.to_owned(),
            gateway_chassis: list
                .iter()
                .map(|id| pb::GatewayChassis { chassis: format!("chassis/{id}"), priority: 1 })
                .collect(),
            ..Default::default()
        })
    };
    let error = world.put("routers/r/ports/p", port("ha-chassis-groups/h", &[])).unwrap_err();
    assert!(error.contains("field `ha_chassis_group` refers to ha-chassis-groups/h"), "{error}");
    let error = world.put("ha-chassis-groups/h", hosts(&[])).unwrap_err();
    assert!(error.contains("would be nowhere"), "{error}");
    world.put("ha-chassis-groups/h", hosts(&["h1", "h2"])).unwrap();
    let error = world.put("routers/r/ports/p", port("ha-chassis-groups/h", &["h1"])).unwrap_err();
    assert!(error.contains("leave one of them out"), "{error}");
    world.put("routers/r/ports/p", port("ha-chassis-groups/h", &[])).unwrap();
    assert!(world.run(vec![("ha-chassis-groups/h", None)]).is_err(), "a port needs it");
    // What remembers connections has its place by the group.
    let hide = Wire::Nat(pb::Nat {
        r#type: pb::nat::Type::Snat.into(),
        external_ip: "10.0.0.1".to_owned(),
        logical_ip: "10.1.0.0/16".to_owned(),
        ..Default::default()
    });
    world.put("routers/r/nats/n", hide).unwrap();
    assert!(world.put("routers/r/ports/p", port("", &[])).is_err());
    world
        .run(vec![("routers/r/nats/n", None), ("routers/r/ports/p", None), ("ha-chassis-groups/h", None)])
        .unwrap();
}

#[test]
fn services_refuse_what_makes_no_sense() {
    let options = |cidr: &str, pairs: &[(&str, &str)]| {
        let options = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        ("dhcp-options/x", Wire::DhcpOptions(pb::DhcpOptions { cidr: cidr.to_owned(), options }))
    };
    let names = |name: &str, addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
        let records = vec![pb::NameRecord { name: name.to_owned(), addresses }];
        ("names/x", Wire::Names(pb::Names { records, ttl: 0 }))
    };
    let limit = |class: &str, rate| {
        let limits = vec![pb::ControlPlaneLimit { class: class.to_owned(), rate, burst: 0 }];
        ("control-plane-limits/x", Wire::ControlPlaneLimits(pb::ControlPlaneLimits { limits }))
    };
    let excluded = |ips: &str| ("switches/s", switch("10.0.0.0/24", &[ips], ""));
    for ((name, spec), wanted) in [
        (options("10.0.0.1/24", &[]), "has host bits set"),
        (options("10.0.0.0/24", &[]), "options[server_id]"),
        (
            options("10.0.0.0/24", &[("server_id", "10.0.0.1"), ("ruter", "10.0.0.1")]),
            "did you mean `router`",
        ),
        (options("10.0.0.0/24", &[("server_id", "10.0.0.1"), ("mtu", "x")]), "options[mtu]"),
        (options("2001:db8::/64", &[("router", "10.0.0.1")]), "there is no DHCP option `router`"),
        (names("a b", &["10.0.0.1"]), "records[0].name"),
        (names("a", &[]), "records[0].addresses"),
        (names("a", &["10.0.0.300"]), "records[0].addresses[0]"),
        (limit("dhcp", 5), "`dhcp` is not a class; there are: arp,"),
        (limit("dns", 0), "at least one packet"),
        (excluded("10.0.1.1"), "not in the subnet"),
        (excluded("10.0.0.9..10.0.0.5"), "is no range"),
        (("switches/s", switch("10.0.0.0/31", &[], "")), "8 to 30 bits"),
        (("switches/s", switch("", &[], "2001:db8::/63")), "64 bits"),
    ] {
        let error = World::new().put(name, spec).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever happens, no two ports have an address in common, and none has a foreign one.
    #[test]
    fn addresses_are_unique_and_from_the_network(
        steps in prop::collection::vec((0_u8..6, 0_u8..8, 0_u8..8), 1..40),
    ) {
        let mut world = World::new();
        world.put("switches/s", switch("10.0.0.0/29", &[], "2001:db8::/64")).unwrap();
        for (what, i, j) in steps {
            let name = format!("switches/s/ports/p{i}");
            let fixed = format!("0a:00:00:00:00:{:02x} 10.0.0.{j}", 16 + j);
            // Many make no sense at that moment; then nothing happens.
            let _ = match what {
                0 => world.run(vec![(name.as_str(), None)]),
                1 if j > 0 => world.put(&name, port(&[&fixed])),
                2 => world.put(&name, port(&["dynamic", "unknown"])),
                3 => world.put("switches/s", switch("10.0.0.0/29", &[&format!("10.0.0.{j}")], "2001:db8::/64")),
                4 => world.put("switches/s", switch("10.0.0.0/29", &[], "")),
                _ => world.put(&name, port(&["dynamic"])),
            };
            let mut seen = BTreeSet::new();
            let ports: Vec<_> = world.state.iter().filter(|record| record.name.kind() == Kind::SwitchPort).collect();
            for record in ports {
                for address in index::addresses_of(record) {
                    prop_assert!(seen.insert(address), "{} has {address} too", record.name);
                }
                for ip in record.chosen.iter().flat_map(|chosen| &chosen.ips).filter(|ip| ip.is_ipv4()) {
                    let last = ip.to_string().rsplit('.').next().unwrap().parse::<u8>().unwrap();
                    prop_assert!((2..=6).contains(&last), "{ip}");
                }
            }
        }
    }
}

/// A workload behind `vm`, with this tag, or with any (0).
fn behind(tag: u32) -> Wire {
    Wire::LogicalSwitchPort(pb::LogicalSwitchPort {
        parent: "switches/s/ports/vm".to_owned(),
        tag,
        tag_request: tag == 0,
        ..Default::default()
    })
}

#[test]
fn tags_are_chosen_that_nobody_else_has_and_stay() {
    let mut world = World::new();
    let tag = |world: &World, port: &str| {
        let name = Name::parse(&format!("switches/s/ports/{port}")).unwrap();
        match world.state.get(&name).unwrap().to_wire(|_| ChassisStatus::default()).spec {
            Some(Wire::LogicalSwitchPort(port)) => port.chosen_tag,
            _ => panic!("no port"),
        }
    };
    world.put("switches/s", Wire::LogicalSwitch(Default::default())).unwrap();
    world.put("switches/s/ports/vm", port(&[])).unwrap();
    let at_once = [("a", 0), ("b", 2), ("c", 0)];
    let named: Vec<_> =
        at_once.iter().map(|(id, tag)| (format!("switches/s/ports/{id}"), behind(*tag))).collect();
    world.run(named.iter().map(|(name, wire)| (name.as_str(), Some(wire.clone()))).collect()).unwrap();
    assert_eq!([tag(&world, "a"), tag(&world, "b"), tag(&world, "c")], [1, 0, 3]);
    // What was chosen is not another's; what is written again stays; what is free again is given.
    let error = world.put("switches/s/ports/d", behind(3)).unwrap_err();
    assert!(error.contains("`tag`: 3 was chosen for switches/s/ports/c; use another one"), "{error}");
    world.run(vec![("switches/s/ports/a", None), ("switches/s/ports/c", Some(behind(0)))]).unwrap();
    assert_eq!(tag(&world, "c"), 3);
    world.put("switches/s/ports/d", behind(0)).unwrap();
    assert_eq!(tag(&world, "d"), 1);
    // Who says its tag has none that was chosen; behind another one it is chosen anew.
    world.put("switches/s/ports/c", behind(9)).unwrap();
    assert_eq!(tag(&world, "c"), 0);
    world.put("switches/s/ports/other", port(&[])).unwrap();
    let Wire::LogicalSwitchPort(mut moved) = behind(0) else { unreachable!() };
    world.put("switches/s/ports/e", Wire::LogicalSwitchPort(moved.clone())).unwrap();
    assert_eq!(tag(&world, "e"), 3);
    moved.parent = "switches/s/ports/other".to_owned();
    world.put("switches/s/ports/e", Wire::LogicalSwitchPort(moved)).unwrap();
    assert_eq!(tag(&world, "e"), 1);
    // When none is left, it is told.
    let others = (1..=4094).filter(|raw| ![1, 2, 9].contains(raw));
    let others: Vec<_> = others.map(|raw| (format!("switches/s/ports/x{raw}"), behind(raw))).collect();
    world.run(others.iter().map(|(name, wire)| (name.as_str(), Some(wire.clone()))).collect()).unwrap();
    let error = world.put("switches/s/ports/z", behind(0)).unwrap_err();
    assert!(error.contains("`tag_request`: every VLAN behind switches/s/ports/vm is taken"), "{error}");
}
