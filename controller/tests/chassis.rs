//! Hosts: streams, bindings, receipts.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use controller::store::LogLimits;
use ferroflow_proto::{
    chassis::{self as ch, sync_request::Message},
    northbound as nb,
};
use tempfile::TempDir;
use tonic::Code;

async fn one_switch(world: &World, ports: &[&str]) -> u64 {
    let mut operations = vec![create(switch("switches/s"))];
    for (i, id) in ports.iter().enumerate() {
        let address = format!("0a:00:00:00:00:{:02x} 10.0.0.{}", i + 1, i + 1);
        operations.push(create(port(&format!("switches/s/ports/{id}"), &address)));
    }
    world.transact(operations).await.revision
}

/// Waits until the port is as it should be, by watching.
async fn wait_for_port(world: &World, name: &str, is_it: impl Fn(&nb::LogicalSwitchPort) -> bool) {
    let mut watch = world.watch(0, "").await;
    loop {
        for event in soon(watch.message()).await.unwrap().unwrap().events {
            if let Some(nb::event::Event::Put(resource)) = event.event
                && resource.name == name
                && let Some(nb::resource::Spec::LogicalSwitchPort(port)) = &resource.spec
                && is_it(port)
            {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_claimed_port_is_bound_sent_and_up_once_acknowledged() {
    let world = World::new().await;
    one_switch(&world, &["a", "b"]).await;
    let (mut host, first) = world.chassis("h1", 1, &["a"]).await;
    assert!(first.logical_flows.is_empty() || first.port_bindings.iter().any(|b| b.chassis == "h1"));
    if first.port_bindings.is_empty() {
        host.ack(first.revision, &[]).await;
        let update = host.update().await;
        assert!(!update.full && !update.logical_flows.is_empty());
        let bound = update.port_bindings.iter().find(|binding| binding.name == "a").unwrap();
        assert_eq!(bound.chassis, "h1");
        assert!(!world.port("switches/s/ports/a").await.up);
        host.ack(update.revision, &[]).await;
    } else {
        host.ack(first.revision, &[]).await;
    }
    wait_for_port(&world, "switches/s/ports/a", |port| port.chassis == "chassis/h1" && port.up).await;
    assert!(world.port("switches/s/ports/b").await.chassis.is_empty());
    let Some(nb::resource::Spec::Chassis(chassis)) = world.get("chassis/h1").await.spec else {
        panic!("another kind");
    };
    assert!(chassis.connected && chassis.applied_revision > 0);
    assert_eq!((chassis.hostname.as_str(), chassis.encap_ip.as_str()), ("h1.example", "192.0.2.1"));
    world.stop().await;
}

#[tokio::test]
async fn a_port_that_is_already_claimed_is_born_bound() {
    let world = World::new().await;
    let (mut host, _) = world.chassis("h1", 1, &["a"]).await;
    let revision = loop {
        // The claims may still be on their way; then the port is bound one revision later.
        let revision = one_switch(&world, &["a"]).await;
        if world.port("switches/s/ports/a").await.chassis == "chassis/h1" {
            break revision;
        }
        world.transact(vec![delete("switches/s")]).await;
    };
    assert!(host.update_until_bound("a", "h1").await >= revision);
    let receipt = world.receipt(revision, true).await;
    assert!(receipt.complete && receipt.chassis.len() == 1, "{receipt:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_receipt_completes_with_the_last_acknowledgement() {
    let world = World::new().await;
    one_switch(&world, &["a", "b"]).await;
    let (mut one, first) = world.chassis("h1", 1, &["a"]).await;
    one.ack(first.revision, &[]).await;
    let (mut two, first) = world.chassis("h2", 1, &["b"]).await;
    two.ack(first.revision, &[]).await;
    wait_for_port(&world, "switches/s/ports/a", |port| !port.chassis.is_empty()).await;
    wait_for_port(&world, "switches/s/ports/b", |port| !port.chassis.is_empty()).await;
    let revision = world.transact(vec![create(acl("switches/s/acls/x", 1, "ip4"))]).await.revision;
    let unrelated = world.transact(vec![create(switch("switches/other"))]).await.revision;

    let has_acl = |update: &ch::SyncResponse| {
        update.logical_flows.iter().any(|flow| flow.object == "switches/s/acls/x")
    };
    for host in [&mut one, &mut two] {
        let pending = world.receipt(revision, false).await;
        assert!(!pending.complete, "{pending:?}");
        loop {
            let update = host.update().await;
            if has_acl(&update) {
                host.ack(update.revision, &["switches/s/acls/x: too many"]).await;
                break;
            }
            host.ack(update.revision, &[]).await;
        }
    }
    let receipt = world.receipt(revision, true).await;
    assert!(receipt.complete);
    let ids: Vec<_> = receipt.chassis.iter().map(|chassis| chassis.chassis.as_str()).collect();
    assert_eq!(ids, ["chassis/h1", "chassis/h2"]);
    assert!(receipt.chassis.iter().all(|chassis| chassis.applied && chassis.connected));
    assert_eq!(receipt.chassis[0].errors, ["switches/s/acls/x: too many"]);
    let receipt = world.receipt(unrelated, true).await;
    assert!(receipt.complete, "{receipt:?}");
    let request = nb::GetReceiptRequest { revision: 999, wait: true };
    assert_eq!(world.client().get_receipt(request).await.unwrap_err().code(), Code::OutOfRange);
    world.stop().await;
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline_with_what_is_pending() {
    let world = World::new().await;
    one_switch(&world, &["a"]).await;
    let (host, _) = world.chassis("h1", 1, &["a"]).await;
    wait_for_port(&world, "switches/s/ports/a", |port| !port.chassis.is_empty()).await;
    let revision = world.transact(vec![create(acl("switches/s/acls/x", 1, "ip4"))]).await.revision;
    let mut request = tonic::Request::new(nb::GetReceiptRequest { revision, wait: true });
    request.set_timeout(std::time::Duration::from_millis(500));
    let receipt = world.client().get_receipt(request).await.unwrap().into_inner();
    assert!(!receipt.complete);
    drop(host);
    world.stop().await;
}

#[tokio::test]
async fn two_claims_of_one_port() {
    let world = World::new().await;
    one_switch(&world, &["a"]).await;
    let (one, _) = world.chassis("h1", 1, &["a"]).await;
    wait_for_port(&world, "switches/s/ports/a", |port| port.chassis == "chassis/h1").await;
    let (mut two, _) = world.chassis("h2", 1, &["a"]).await;
    // Its second claims come after the first have been judged.
    two.claim(&["a", "b"]).await;
    world.transact(vec![create(port("switches/s/ports/b", ""))]).await;
    wait_for_port(&world, "switches/s/ports/b", |port| port.chassis == "chassis/h2").await;
    assert_eq!(world.port("switches/s/ports/a").await.chassis, "chassis/h1");
    drop(one);
    wait_for_port(&world, "switches/s/ports/a", |port| port.chassis == "chassis/h2").await;
    two.update_until_bound("a", "h2").await;
    world.stop().await;
}

#[tokio::test]
async fn changes_of_claims_bind_and_unbind_and_leave_others_alone() {
    let world = World::new().await;
    one_switch(&world, &["a", "b", "c"]).await;
    let (host, first) = world.chassis("h1", 1, &["a", "b"]).await;
    assert!(first.takes_claim_changes);
    wait_for_port(&world, "switches/s/ports/b", |port| port.chassis == "chassis/h1").await;
    host.change_claims(&["c"], &["a", "never-claimed"]).await;
    wait_for_port(&world, "switches/s/ports/c", |port| port.chassis == "chassis/h1").await;
    wait_for_port(&world, "switches/s/ports/a", |port| port.chassis.is_empty()).await;
    assert_eq!(world.port("switches/s/ports/b").await.chassis, "chassis/h1");
    // What is in both is claimed.
    host.change_claims(&["a"], &["a"]).await;
    wait_for_port(&world, "switches/s/ports/a", |port| port.chassis == "chassis/h1").await;
    world.stop().await;
}

#[tokio::test]
async fn a_newer_incarnation_replaces_the_stream_and_an_older_cannot() {
    let world = World::new().await;
    let (mut old, _) = world.chassis("h1", 5, &[]).await;
    let (new, _) = world.chassis("h1", 6, &[]).await;
    let error = loop {
        match soon(old.updates.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a reason"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::Aborted);
    assert_eq!(world.hello("h1", 5, "192.0.2.1").await.err().unwrap().code(), Code::Aborted);
    drop(new);
    world.stop().await;
}

#[tokio::test]
async fn nonsense_from_a_chassis_ends_its_stream_with_a_reason() {
    let world = World::new().await;
    assert_eq!(world.hello("-", 1, "192.0.2.1").await.err().unwrap().code(), Code::InvalidArgument);
    assert_eq!(world.hello("h1", 1, "nowhere").await.err().unwrap().code(), Code::InvalidArgument);
    assert!(!world.controller.chassis_status("h1").connected);
    let hello = ch::Hello { chassis: "h1".into(), ..Default::default() };
    for nonsense in [
        request(Message::Ack(ch::Ack { revision: u64::MAX, errors: Vec::new() })),
        request(Message::Hello(hello)),
        // It has not said what it claims.
        request(Message::ClaimChanges(ch::ClaimChanges::default())),
        ch::SyncRequest { message: None },
    ] {
        let mut host = world.hello("h2", 1, "192.0.2.2").await.unwrap();
        host.requests.send(nonsense).await.unwrap();
        let error = loop {
            match soon(host.updates.message()).await {
                Ok(update) => assert!(update.is_some()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::InvalidArgument, "{}", error.message());
    }
    let claims = vec![ch::Claim { logical_port: "no such/id".into(), up: true }];
    let host = world.hello("h3", 1, "192.0.2.3").await.unwrap();
    host.requests.send(request(Message::Claims(ch::Claims { claims }))).await.unwrap();
    host.claim(&["a"]).await;
    one_switch(&world, &["a"]).await;
    wait_for_port(&world, "switches/s/ports/a", |port| port.chassis == "chassis/h3").await;
    world.stop().await;
}

#[tokio::test]
async fn bindings_and_receipts_outlive_a_restart() {
    let limits = LogLimits::default();
    let world = World::on_disk(TempDir::new().unwrap(), limits).await;
    let revision = one_switch(&world, &["a"]).await;
    let (host, first) = world.chassis("h1", 1, &["a"]).await;
    host.ack(first.revision, &[]).await;
    wait_for_port(&world, "switches/s/ports/a", |port| port.chassis == "chassis/h1").await;
    drop(host);

    let world = World::on_disk(world.stop().await, limits).await;
    assert_eq!(world.port("switches/s/ports/a").await.chassis, "chassis/h1");
    let receipt = world.receipt(revision, false).await;
    assert!(!receipt.complete, "{receipt:?}");
    let (host, first) = world.chassis("h1", 1, &["a"]).await;
    assert!(first.port_bindings.iter().any(|binding| binding.chassis == "h1"));
    host.ack(first.revision, &[]).await;
    assert!(world.receipt(revision, true).await.complete);

    // A host that is here cannot be deleted; one that is gone takes its bindings with it.
    let request = nb::DeleteResourceRequest { name: "chassis/h1".into(), ..Default::default() };
    let error = world.client().delete_resource(request.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    drop(host);
    soon(async {
        let mut progress = world.controller.receipts.progress();
        while world.controller.chassis_status("h1").connected {
            progress.changed().await.unwrap();
        }
    })
    .await;
    world.client().delete_resource(request).await.unwrap();
    assert!(world.port("switches/s/ports/a").await.chassis.is_empty());
    world.stop().await;
}

/// A host that does not read gets one update for all it has missed.
#[tokio::test]
async fn a_slow_chassis_is_sent_the_newest_view_only() {
    let world = World::new().await;
    one_switch(&world, &["a"]).await;
    let (mut host, first) = world.chassis("h1", 1, &["a"]).await;
    let mut have: std::collections::BTreeSet<u64> = first.logical_flows.iter().map(|flow| flow.id).collect();
    let mut newest = 0;
    for i in 0..300 {
        let name = format!("switches/s/acls/x{i}");
        newest = world.transact(vec![create(acl(&name, i, "ip4"))]).await.revision;
        if i % 2 == 0 {
            newest = world.transact(vec![delete(&name)]).await.revision;
        }
    }
    let mut at = first.revision;
    while at < newest {
        let update = host.update().await;
        assert!(!update.full && update.revision > at);
        at = update.revision;
        for id in update.removed.unwrap().logical_flows {
            assert!(have.remove(&id));
        }
        have.extend(update.logical_flows.iter().map(|flow| flow.id));
    }
    let (_again, full) = world.chassis("h1", 2, &["a"]).await;
    let all: std::collections::BTreeSet<u64> = full.logical_flows.iter().map(|flow| flow.id).collect();
    assert_eq!(have, all);
    world.stop().await;
}

/// Backends of a load balancer with what is known of them.
fn health(resource: &nb::Resource) -> Vec<i32> {
    let Some(nb::resource::Spec::LoadBalancer(balancer)) = &resource.spec else { return Vec::new() };
    balancer.vips.iter().flat_map(|vip| &vip.backends).map(|backend| backend.health).collect()
}

#[tokio::test]
async fn a_chassis_says_which_of_its_own_backends_serve() {
    let world = World::on_disk(TempDir::new().unwrap(), LogLimits::default()).await;
    one_switch(&world, &["a", "b"]).await;
    let backend = |address: &str| nb::Backend { address: address.to_owned(), ..Default::default() };
    let point = |ip: &str, port: &str| nb::ProbePoint {
        backend_ip: ip.to_owned(),
        logical_port: format!("switches/s/ports/{port}"),
        source_ip: "10.0.0.250".to_owned(),
    };
    let vip = nb::Vip {
        address: "192.0.2.10:80".to_owned(),
        backends: vec![backend("10.0.0.1:8080"), backend("10.0.0.2:8080")],
    };
    let balancer = nb::LoadBalancer {
        vips: vec![vip],
        health_check: Some(nb::HealthCheck { interval: 7, ..Default::default() }),
        probe_points: vec![point("10.0.0.1", "a"), point("10.0.0.2", "b")],
        ..Default::default()
    };
    let lb = "load-balancers/lb";
    let spec = nb::resource::Spec::LoadBalancer(balancer.clone());
    world.transact(vec![create(resource(lb, spec))]).await;
    let (mut host, first) = world.chassis("h1", 1, &["a"]).await;
    let probes_of = |update: &ch::SyncResponse| {
        let bound = update.port_bindings.iter().find(|binding| binding.chassis == "h1")?;
        Some(bound.probes.iter().map(|probe| (probe.backend_ip.clone(), probe.interval)).collect::<Vec<_>>())
    };
    let mut probes = probes_of(&first);
    host.ack(first.revision, &[]).await;
    while probes.is_none() {
        let update = host.update().await;
        host.ack(update.revision, &[]).await;
        probes = probes_of(&update);
    }
    assert_eq!(probes, Some(vec![("10.0.0.1".to_owned(), 7)]));
    let before = world.get(lb).await;
    assert_eq!(health(&before), [0, 0]);
    // Of another's backend, of another service, of no load balancer: none of its business.
    let says = |balancer: &str, vip: &str, backend: &str| ch::BackendHealth {
        load_balancer: balancer.to_owned(),
        vip: vip.to_owned(),
        backend: backend.to_owned(),
        port: String::new(),
        online: true,
    };
    let backends = vec![
        says("lb", "192.0.2.10:80", "10.0.0.2:8080"),
        says("lb", "192.0.2.11:80", "10.0.0.1:8080"),
        says("none", "192.0.2.10:80", "10.0.0.1:8080"),
        says("lb/x", "", ""),
        says("lb", "192.0.2.10:80", "10.0.0.1:8080"),
    ];
    host.requests.send(request(Message::Health(ch::Health { backends }))).await.unwrap();
    let mut watch = world.watch(0, "").await;
    let known = |event: &nb::Event| match &event.event {
        Some(nb::event::Event::Put(resource)) if resource.name == lb => health(resource)[0] == 1,
        _ => false,
    };
    while !soon(watch.message()).await.unwrap().unwrap().events.iter().any(known) {}
    let after = world.get(lb).await;
    assert_eq!((health(&after), after.update_revision), (vec![1, 0], before.update_revision));
    drop((host, watch));
    // It outlives a restart, and goes with what it is of.
    let world = World::on_disk(world.stop().await, LogLimits::default()).await;
    assert_eq!(health(&world.get(lb).await), [1, 0]);
    let spec = nb::resource::Spec::LoadBalancer(nb::LoadBalancer { health_check: None, ..balancer });
    let update = nb::Update { resource: Some(resource(lb, spec)), ..Default::default() };
    world.transact(vec![nb::Operation { op: Some(nb::operation::Op::Update(update)) }]).await;
    assert_eq!(health(&world.get(lb).await), [0, 0]);
    world.stop().await;
}
