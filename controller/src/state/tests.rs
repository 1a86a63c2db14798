//! Transactions on the state: whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use ferroflow_proto::northbound::{self as pb, resource::Spec as Wire};
use proptest::prelude::*;

use super::*;
use crate::store::MemoryStore;

fn resource(name: &str, spec: Wire) -> pb::Resource {
    pb::Resource { name: name.to_owned(), spec: Some(spec), ..Default::default() }
}

fn switch(name: &str) -> pb::Resource {
    resource(name, Wire::LogicalSwitch(Default::default()))
}

fn port(name: &str, addresses: &[&str]) -> pb::Resource {
    let addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
    resource(name, Wire::LogicalSwitchPort(pb::LogicalSwitchPort { addresses, ..Default::default() }))
}

fn router_side(name: &str, router_port: &str) -> pb::Resource {
    let spec = pb::LogicalSwitchPort {
        r#type: pb::logical_switch_port::Type::Router.into(),
        router_port: router_port.to_owned(),
        ..Default::default()
    };
    resource(name, Wire::LogicalSwitchPort(spec))
}

fn router(name: &str, output_ports: &[&str]) -> pb::Resource {
    let route = |port: &&str| pb::StaticRoute {
        prefix: "0.0.0.0/0".into(),
        next_hop: "10.0.0.254".into(),
        output_port: (*port).to_owned(),
        ..Default::default()
    };
    let static_routes = output_ports.iter().map(route).collect();
    resource(name, Wire::LogicalRouter(pb::LogicalRouter { static_routes, ..Default::default() }))
}

fn router_port(name: &str) -> pb::Resource {
    let spec = pb::LogicalRouterPort {
        mac: "0a:00:00:00:01:01".into(),
        networks: vec!["10.0.0.1/24".into()],
        ..Default::default()
    };
    resource(name, Wire::LogicalRouterPort(spec))
}

#[derive(Debug, Clone)]
enum Op {
    Create(pb::Resource),
    Update(pb::Resource),
    Delete(&'static str),
}

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

    fn prepare(&self, ops: &[Op]) -> Result<Prepared, Refusal> {
        let mut draft = Draft::new(&self.state);
        for (i, op) in ops.iter().cloned().enumerate() {
            match op {
                Op::Create(resource) => draft.create(i, resource),
                Op::Update(resource) => draft.update(i, resource, &[], true),
                Op::Delete(name) => draft.delete(i, name, false),
            }
            .map_err(|reason| Refusal { operation: Some(i), reason })?;
        }
        draft.finish(|_| Claimed::default())
    }

    fn commit(&mut self, prepared: Prepared) {
        if !prepared.changes.is_empty() {
            self.store.commit(prepared.txn(self.state.revision())).unwrap();
            self.state.apply(prepared);
        }
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), String> {
        let prepared = self.prepare(ops).map_err(|refusal| refusal.to_string())?;
        self.commit(prepared);
        Ok(())
    }

    fn key(&self, name: &str) -> u32 {
        self.state.get(&Name::parse(name).unwrap()).unwrap().key
    }
}

use Op::{Create, Delete, Update};

#[test]
fn operations_may_come_in_any_order() {
    let mut world = World::new();
    world
        .run(&[
            Create(router_side("switches/s/ports/up", "routers/r/ports/down")),
            Create(router("routers/r", &["routers/r/ports/down"])),
            Create(router_port("routers/r/ports/down")),
            Create(switch("switches/s")),
        ])
        .unwrap();
    assert_eq!(world.state.revision(), Revision::new(1));
    assert_eq!(world.key("switches/s/ports/up"), 1);
    assert_ne!(world.key("switches/s"), world.key("routers/r"));
}

#[test]
fn each_refusal_names_operation_and_resource() {
    let mut world = World::new();
    world
        .run(&[
            Create(switch("switches/s")),
            Create(port("switches/s/ports/a", &["0a:00:00:00:00:01 10.0.0.5"])),
            Create(router("routers/r", &["routers/r/ports/down"])),
            Create(router_port("routers/r/ports/down")),
            Create(router_side("switches/s/ports/up", "routers/r/ports/down")),
        ])
        .unwrap();
    for (op, words) in [
        (Create(switch("switches/s")), "switches/s exists already"),
        (Create(port("switches/none/ports/x", &[])), "needs switches/none"),
        (Create(router_port("routers/r/ports/a")), "taken by switches/s/ports/a"),
        (Create(router_side("switches/s/ports/x", "routers/r/ports/none")), "field `router_port` refers to"),
        (Create(router_side("switches/s/ports/x", "routers/r/ports/down")), "linked to switches/s/ports/up"),
        (Update(router("routers/r", &["routers/r/ports/none"])), "static_routes[0].output_port"),
        (Create(port("switches/s/ports/x", &["0a:00:00:00:00:02 10.0.0.5"])), "10.0.0.5 is already"),
        (Delete("routers/r/ports/down"), "while switches/s/ports/up refers"),
        (Delete("routers/r"), "while switches/s/ports/up refers"),
        (Delete("routers/none"), "no routers/none"),
        (Create(resource("chassis/x", Wire::Chassis(Default::default()))), "hosts register themselves"),
    ] {
        let before = world.store.read().unwrap();
        let reason = world.run(&[Create(switch("switches/new")), op]).unwrap_err();
        assert!(reason.starts_with("operation 1: ") && reason.contains(words), "{reason}");
        assert_eq!(world.store.read().unwrap(), before);
    }
}

#[test]
fn a_router_port_in_a_static_route_stays() {
    let mut world = World::new();
    world
        .run(&[Create(router("routers/r", &["routers/r/ports/p"])), Create(router_port("routers/r/ports/p"))])
        .unwrap();
    assert!(world.run(&[Delete("routers/r/ports/p")]).unwrap_err().contains("while routers/r refers"));
    world.run(&[Delete("routers/r/ports/p"), Update(router("routers/r", &[]))]).unwrap();
}

#[test]
fn deletion_cascades_and_keys_are_not_used_again_soon() {
    let mut world = World::new();
    world.run(&[Create(switch("switches/s")), Create(port("switches/s/ports/a", &[]))]).unwrap();
    world.run(&[Create(switch("switches/s-2"))]).unwrap();
    let first = world.key("switches/s");
    world.run(&[Delete("switches/s"), Create(switch("switches/s"))]).unwrap();
    assert!(world.state.port("a").is_none());
    assert!(world.key("switches/s") > first);
    world.run(&[Create(port("switches/s/ports/a", &[]))]).unwrap();
    world.run(&[Delete("switches/s/ports/a")]).unwrap();
    world.run(&[Create(port("switches/s/ports/a", &[]))]).unwrap();
    assert_eq!(world.key("switches/s/ports/a"), 2);
    world.run(&[Delete("switches/s"), Delete("switches/s-2")]).unwrap();
    let keys: Vec<_> = world.store.read().unwrap().values.into_keys().collect();
    assert_eq!(keys, ["counters/datapaths"]);
}

#[test]
fn a_port_moves_with_its_address_in_one_transaction() {
    let mut world = World::new();
    let address = &["0a:00:00:00:00:01 10.0.0.5"];
    world.run(&[Create(switch("switches/s")), Create(port("switches/s/ports/a", address))]).unwrap();
    world.run(&[Create(port("switches/s/ports/b", address)), Delete("switches/s/ports/a")]).unwrap();
    assert!(world.run(&[Create(port("switches/s/ports/c", address))]).is_err());
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let mut world = World::new();
    world.run(&[Create(switch("switches/s"))]).unwrap();
    let prepared = world.prepare(&[Update(switch("switches/s"))]).unwrap();
    assert!(prepared.changes.is_empty());
    assert_eq!(prepared.results[0].record.as_ref().unwrap().update_revision, Revision::new(1));
    let prepared = world.prepare(&[Create(switch("switches/t")), Delete("switches/t")]).unwrap();
    assert!(prepared.changes.is_empty());
}

#[test]
fn what_is_made_and_deleted_in_one_change_keeps_its_place_among_the_results() {
    let world = World::new();
    let asked = [Create(switch("switches/s")), Delete("switches/s"), Create(switch("switches/t"))];
    let prepared = world.prepare(&asked).unwrap();
    let results: Vec<_> =
        prepared.results.iter().map(|result| (result.name.to_string(), result.record.is_some())).collect();
    assert_eq!(results, [("switches/s".to_owned(), false), ("switches/t".to_owned(), true)]);
}

#[test]
fn a_binding_is_not_an_update_and_ends_with_its_chassis() {
    let mut world = World::new();
    world.run(&[Create(switch("switches/s")), Create(port("switches/s/ports/a", &[]))]).unwrap();
    let name = Name::parse("switches/s/ports/a").unwrap();
    let mut draft = Draft::new(&world.state);
    let chassis = pb::Chassis { encap_ip: "192.0.2.1".into(), ..Default::default() };
    draft.register(Name::chassis("h1").unwrap(), chassis).unwrap();
    draft.bind(&name, Some(("h1", true)));
    let prepared = draft.finish(|_| Claimed::default()).unwrap();
    world.commit(prepared);
    let record = world.state.get(&name).unwrap();
    assert_eq!(record.update_revision, Revision::new(1));
    assert_eq!(record.binding.as_ref().unwrap().since, Revision::new(2));
    assert_eq!(world.state.bound_to("h1").collect::<Vec<_>>(), [&name]);

    world.run(&[Update(port("switches/s/ports/a", &["0a:00:00:00:00:09"]))]).unwrap();
    assert!(world.state.get(&name).unwrap().binding.is_some());
    world.run(&[Delete("chassis/h1")]).unwrap();
    assert!(world.state.get(&name).unwrap().binding.is_none());
    assert_eq!(world.state.bound_to("h1").count(), 0);
}

#[test]
fn a_router_with_stateful_translations_keeps_its_chassis() {
    let router = |chassis: &str| {
        let spec = pb::LogicalRouter { chassis: chassis.into(), ..Default::default() };
        resource("routers/r", Wire::LogicalRouter(spec))
    };
    let nat = |stateless| {
        let spec = pb::Nat {
            r#type: pb::nat::Type::DnatAndSnat.into(),
            external_ip: "203.0.113.1".into(),
            logical_ip: "10.0.0.1".into(),
            stateless,
            ..Default::default()
        };
        resource("routers/r/nats/n", Wire::Nat(spec))
    };
    let mut world = World::new();
    world.run(&[Create(router("chassis/h1")), Create(nat(false))]).unwrap();
    let refused = world.run(&[Update(router(""))]).unwrap_err().to_string();
    assert!(refused.contains("routers/r/nats/n remembers connections"), "{refused}");
    world.run(&[Update(router("chassis/h2"))]).unwrap();
    let refused = world.run(&[Update(router("")), Update(nat(false))]).unwrap_err().to_string();
    assert!(refused.contains("is on every host"), "{refused}");
    // Together with its translation it may.
    world.run(&[Update(router("")), Update(nat(true))]).unwrap();
    world.run(&[Update(router("chassis/h1")), Update(nat(false))]).unwrap();
    world.run(&[Delete("routers/r/nats/n"), Update(router(""))]).unwrap();
}

#[test]
fn new_ports_go_to_the_chassis_that_claims_them() {
    let world = World::new();
    let mut draft = Draft::new(&world.state);
    draft.create(0, switch("switches/s")).unwrap();
    draft.create(1, port("switches/s/ports/a", &[])).unwrap();
    let prepared = draft.finish(|record| Claimed {
        chassis: (record.claimed_as() == "a").then(|| "h1".to_owned()),
        ..Claimed::default()
    });
    let prepared = prepared.unwrap();
    assert_eq!(prepared.results[1].record.as_ref().unwrap().binding.as_ref().unwrap().chassis, "h1");
}

#[test]
fn a_port_that_is_written_goes_to_the_chassis_that_has_it_now() {
    let mut world = World::new();
    let at = |chassis: Option<&str>| {
        let chassis = chassis.map(str::to_owned);
        move |_: &Record| Claimed { chassis: chassis.clone(), ..Claimed::default() }
    };
    let mut places = Vec::new();
    for chassis in [Some("h1"), Some("h2"), None] {
        let mut draft = Draft::new(&world.state);
        draft.update(0, switch("switches/s"), &[], true).unwrap();
        draft.update(1, port("switches/s/ports/a", &[]), &[], true).unwrap();
        let prepared = draft.finish(at(chassis)).unwrap();
        let binding = prepared.results[1].record.as_ref().unwrap().binding.clone().unwrap();
        places.push((binding.chassis, binding.since == prepared.revision));
        world.commit(prepared);
    }
    let h2 = || "h2".to_owned();
    assert_eq!(places, [("h1".to_owned(), true), (h2(), true), (h2(), false)]);
}

fn acl(name: &str, matching: &str) -> pb::Resource {
    let spec = pb::Acl {
        direction: pb::acl::Direction::ToLport.into(),
        r#match: matching.to_owned(),
        action: pb::acl::Action::AllowRelated.into(),
        ..Default::default()
    };
    resource(name, Wire::Acl(spec))
}

fn group(name: &str, ports: &[&str]) -> pb::Resource {
    let ports = ports.iter().map(|text| (*text).to_owned()).collect();
    resource(name, Wire::PortGroup(pb::PortGroup { ports, ..Default::default() }))
}

fn address_set(name: &str) -> pb::Resource {
    resource(name, Wire::AddressSet(Default::default()))
}

#[test]
fn a_set_that_an_acl_names_is_there_and_stays() {
    let mut world = World::new();
    let own = acl("switches/s/acls/x", "ip4.src == $web && outport == @g && ip4.dst == $g_ip4");
    let refused = |world: &mut World, ops: &[Op]| world.run(ops).unwrap_err();
    world.run(&[Create(switch("switches/s")), Create(port("switches/s/ports/a", &[]))]).unwrap();
    let reason = refused(&mut world, &[Create(own.clone())]);
    assert!(reason.contains("field `match` refers to address-sets/g_ip4"), "{reason}");
    let reason = refused(&mut world, &[Create(group("port-groups/g", &[])), Create(own.clone())]);
    assert!(reason.contains("field `match` refers to address-sets/web"), "{reason}");
    let reason = refused(&mut world, &[Create(group("port-groups/g", &["switches/s/ports/b"]))]);
    assert!(reason.contains("field `ports[0]` refers to switches/s/ports/b"), "{reason}");
    let sets = [Create(group("port-groups/g", &[])), Create(address_set("address-sets/web"))];
    world.run(&[&[Create(own)][..], &sets].concat()).unwrap();
    for set in ["port-groups/g", "address-sets/web"] {
        assert!(refused(&mut world, &[Delete(set)]).contains("while switches/s/acls/x refers"));
    }
    // The set of a group is as good as one of its own.
    let other = Update(acl("switches/s/acls/x", "ip4.dst == $g_ip4"));
    world.run(&[other, Delete("address-sets/web"), Create(address_set("address-sets/g_ip4"))]).unwrap();
    world.run(&[Delete("port-groups/g")]).unwrap();
    assert!(refused(&mut world, &[Delete("address-sets/g_ip4")]).contains("while switches/s/acls/x refers"));
    world.run(&[Delete("address-sets/g_ip4"), Delete("switches/s")]).unwrap();
}

#[test]
fn a_group_goes_with_its_acls_and_a_port_leaves_its_groups() {
    let mut world = World::new();
    let ports = ["switches/s/ports/a", "switches/s/ports/b"];
    world
        .run(&[
            Create(switch("switches/s")),
            Create(port(ports[0], &[])),
            Create(port(ports[1], &[])),
            Create(group("port-groups/g", &ports)),
            Create(acl("port-groups/g/acls/x", "outport == @g")),
        ])
        .unwrap();
    world.run(&[Delete("switches/s/ports/a")]).unwrap();
    let left = |world: &World| {
        let name = Name::parse("port-groups/g").unwrap();
        let wire = world.state.get(&name).unwrap().wire.clone();
        let Wire::PortGroup(group) = wire else { panic!("{wire:?}") };
        group.ports
    };
    assert_eq!(left(&world), ["switches/s/ports/b"]);
    world.run(&[Delete("switches/s")]).unwrap();
    assert_eq!(left(&world), [""; 0]);
    world.run(&[Delete("port-groups/g")]).unwrap();
    assert_eq!(world.state.iter().count(), 0);
    assert_eq!(world.state.index, index::Index::default());
}

/// Few names, so that operations on them collide.
const NAMES: &[&str] = &[
    "switches/s",
    "switches/t",
    "switches/s/ports/a",
    "switches/t/ports/a",
    "switches/s/ports/b",
    "routers/r",
    "routers/r/ports/p",
    "routers/r/ports/b",
    "address-sets/web",
    "port-groups/g",
    "port-groups/g/acls/x",
];

/// Operations on them.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let any_resource = prop::sample::select(NAMES).prop_flat_map(|name| {
        let specs = match Name::parse(name).unwrap().kind() {
            Kind::Switch => vec![switch(name)],
            Kind::Router => vec![router(name, &[]), router(name, &["routers/r/ports/p"])],
            Kind::RouterPort => vec![router_port(name)],
            Kind::AddressSet => vec![address_set(name)],
            Kind::PortGroup => {
                vec![group(name, &[]), group(name, &["switches/s/ports/a", "switches/t/ports/a"])]
            }
            Kind::Acl => vec![acl(name, "outport == @g"), acl(name, "ip4.src == {$web, $g_ip4}")],
            _ => vec![
                port(name, &[]),
                port(name, &["0a:00:00:00:00:01 10.0.0.5"]),
                router_side(name, "routers/r/ports/p"),
            ],
        };
        prop::sample::select(specs)
    });
    let op = prop_oneof![
        any_resource.clone().prop_map(Create),
        any_resource.prop_map(Update),
        prop::sample::select(NAMES).prop_map(Delete),
    ];
    prop::collection::vec(op, 0..6)
}

/// What must hold of every state.
fn check_sound(state: &State) {
    let mut ids = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for record in state.iter() {
        let name = &record.name;
        if let Some(parent) = name.parent() {
            assert!(state.get(&parent).is_some(), "{name} is an orphan");
        }
        if let Some(scope) = keys::scope(name) {
            assert!(record.key > 0 && keys.insert((scope, record.key)), "{name}: key {}", record.key);
        }
        if index::is_port(name) {
            assert!(ids.insert(name.id().to_owned()), "{name}: id");
        }
        if let Some(peer) = index::peer_of(record) {
            assert!(state.get(peer).is_some(), "{name} dangles");
        }
        for port in index::members_of(record) {
            assert!(state.get(port).is_some(), "{name} has {port}");
        }
        if index::sets_of(record).contains("$web") {
            assert!(state.get(&Name::parse("address-sets/web").unwrap()).is_some(), "{name} names a set");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_transactions_leave_a_sound_state(transactions in prop::collection::vec(ops(), 1..8)) {
        let mut world = World::new();
        let mut past: BTreeMap<Revision, Vec<Arc<Record>>> = BTreeMap::new();
        for ops in transactions {
            let before = world.store.read().unwrap();
            if world.run(&ops).is_err() {
                prop_assert_eq!(world.store.read().unwrap(), before);
            }
            check_sound(&world.state);
            past.insert(world.state.revision(), world.state.iter().cloned().collect());
        }
        let loaded = State::load(&world.store, LogLimits::default()).unwrap();
        prop_assert_eq!(&loaded.records, &world.state.records);
        prop_assert_eq!(&loaded.index, &world.state.index);
        prop_assert_eq!(&loaded.counters, &world.state.counters);
        for (revision, records) in past {
            let scan = |kind| world.state.scan(revision, kind, None, "").unwrap().collect::<Vec<_>>();
            prop_assert_eq!(Kind::ALL.into_iter().flat_map(scan).collect::<Vec<_>>(), records);
        }
    }
}
