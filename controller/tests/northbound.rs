//! The northbound API as its clients see it.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use common::*;
use controller::store::LogLimits;
use ferroflow_proto::northbound::{self as nb, event, resource::Spec};
use prost_types::FieldMask;
use tempfile::TempDir;
use tonic::Code;

#[tokio::test]
async fn resources_are_created_read_changed_and_deleted() {
    let world = World::new().await;
    let mut client = world.client();
    world.transact(vec![create(switch("switches/web"))]).await;
    let request = nb::CreateResourceRequest {
        resource: Some(acl("switches/web/acls/x", 10, "ip4")),
        ..Default::default()
    };
    let created = client.create_resource(request).await.unwrap().into_inner();
    assert_eq!(created.revision, 2);
    assert_eq!(created.resource.unwrap().create_revision, 2);

    let update = |paths: &[&str], priority| nb::UpdateResourceRequest {
        resource: Some(acl("switches/web/acls/x", priority, "ip6")),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    let updated = client.update_resource(update(&["priority"], 20)).await.unwrap().into_inner();
    let Some(nb::Resource { spec: Some(Spec::Acl(acl)), create_revision: 2, update_revision: 3, .. }) =
        updated.resource
    else {
        panic!("another resource");
    };
    assert_eq!((acl.priority, acl.r#match.as_str()), (20, "ip4"));
    let error = client.update_resource(update(&["prio"], 20)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("direction, priority, match, action"), "{}", error.message());
    assert!(!error.message().contains("operation"), "one operation is not counted: {}", error.message());

    let request = nb::DeleteResourceRequest { name: "switches/web".into(), ..Default::default() };
    assert_eq!(client.delete_resource(request.clone()).await.unwrap().into_inner().revision, 4);
    assert_eq!(client.delete_resource(request.clone()).await.unwrap_err().code(), Code::NotFound);
    let lenient = nb::DeleteResourceRequest { allow_missing: true, ..request };
    assert_eq!(client.delete_resource(lenient).await.unwrap().into_inner().revision, 4);
    let request = nb::GetResourceRequest { name: "switches/web/acls/x".into() };
    assert_eq!(client.get_resource(request).await.unwrap_err().code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test]
async fn a_failing_operation_leaves_nothing_and_says_which_it_was() {
    let world = World::new().await;
    for (bad, code) in [
        (create(switch("switches/a")), Code::AlreadyExists),
        (create(port("switches/none/ports/p", "")), Code::NotFound),
        (create(acl("switches/a/acls/x", 99_999, "ip4")), Code::InvalidArgument),
        (create(acl("switches/a/acls/x", 1, "ip4 &&")), Code::InvalidArgument),
        (delete("routers/none"), Code::NotFound),
        (nb::Operation { op: None }, Code::InvalidArgument),
    ] {
        let request =
            nb::TransactRequest { operations: vec![create(switch("switches/a")), bad], ..Default::default() };
        let error = world.client().transact(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{}", error.message());
        assert!(error.message().starts_with("operation 1: "), "{}", error.message());
        let request = nb::GetResourceRequest { name: "switches/a".into() };
        assert_eq!(world.client().get_resource(request).await.unwrap_err().code(), Code::NotFound);
    }
    let too_many = vec![delete("switches/a"); 10_001];
    let request = nb::TransactRequest { operations: too_many, ..Default::default() };
    assert_eq!(world.client().transact(request).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(world.controller.state().revision().get(), 0);
    world.stop().await;
}

#[tokio::test]
async fn preconditions_and_dry_runs() {
    let world = World::new().await;
    world.transact(vec![create(switch("switches/a"))]).await;
    let run = |condition, validate_only| {
        let precondition = nb::Precondition { name: "switches/a".into(), condition: Some(condition) };
        let request = nb::TransactRequest {
            operations: vec![create(switch("switches/b"))],
            preconditions: vec![precondition],
            validate_only,
            conversations: Vec::new(),
        };
        let mut client = world.client();
        async move { client.transact(request).await }
    };
    use nb::precondition::Condition::{Exists, UpdateRevision};
    for wrong in [Exists(false), UpdateRevision(7)] {
        let error = run(wrong, false).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{}", error.message());
    }
    let dry = run(UpdateRevision(1), true).await.unwrap().into_inner();
    assert_eq!((dry.revision, dry.resources.len()), (1, 1));
    assert_eq!(world.controller.state().revision().get(), 1);
    let wet = run(Exists(true), false).await.unwrap().into_inner();
    assert_eq!(wet.revision, 2);
    assert_eq!(wet.resources[0].spec, dry.resources[0].spec, "the same key as the dry run showed");
    world.stop().await;
}

#[tokio::test]
async fn output_only_fields_are_ignored_on_writes() {
    let world = World::new().await;
    let mut forged = port("switches/a/ports/p", "");
    if let Some(Spec::LogicalSwitchPort(port)) = &mut forged.spec {
        (port.tunnel_key, port.chassis, port.up) = (77, "chassis/evil".into(), true);
    }
    world.transact(vec![create(switch("switches/a")), create(forged)]).await;
    let port = world.port("switches/a/ports/p").await;
    assert_eq!((port.tunnel_key, port.chassis.as_str(), port.up), (1, "", false));
    world.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_of_one_revision() {
    let world = World::new().await;
    let mut operations = vec![create(switch("switches/a")), create(switch("switches/b"))];
    for i in 0..7 {
        let mut port = port(&format!("switches/a/ports/p{i}"), "");
        port.labels = HashMap::from([("odd".to_owned(), (i % 2 == 1).to_string())]);
        operations.push(create(port));
    }
    operations.push(create(port("switches/b/ports/q", "")));
    world.transact(operations).await;

    let mut request = nb::ListResourcesRequest {
        kind: nb::Kind::LogicalSwitchPort.into(),
        parent: "switches/a".into(),
        page_size: 3,
        ..Default::default()
    };
    let mut names = Vec::new();
    loop {
        let page = world.client().list_resources(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.revision, 1);
        names.extend(page.resources.into_iter().map(|resource| resource.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        // Changes between pages do not show.
        let n = names.len();
        world
            .transact(vec![
                delete(&format!("switches/a/ports/p{}", 6 - n / 3)),
                create(port(&format!("switches/a/ports/p{n}x"), "")),
            ])
            .await;
    }
    let expected: Vec<_> = (0..7).map(|i| format!("switches/a/ports/p{i}")).collect();
    assert_eq!(names, expected);

    let stolen = nb::ListResourcesRequest { parent: String::new(), ..request.clone() };
    let error = world.client().list_resources(stolen).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{}", error.message());
    let odd = nb::ListResourcesRequest {
        labels: HashMap::from([("odd".to_owned(), "true".to_owned())]),
        page_token: String::new(),
        ..request
    };
    let page = world.client().list_resources(odd).await.unwrap().into_inner();
    let names: Vec<_> = page.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["switches/a/ports/p1", "switches/a/ports/p3"]);
    for wrong in [
        nb::ListResourcesRequest::default(),
        nb::ListResourcesRequest { kind: 99, ..Default::default() },
        nb::ListResourcesRequest { kind: 1, page_size: 1001, ..Default::default() },
        nb::ListResourcesRequest { kind: 1, parent: "switches".into(), ..Default::default() },
        nb::ListResourcesRequest { kind: 1, page_token: "x".into(), ..Default::default() },
    ] {
        assert_eq!(world.client().list_resources(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
    world.stop().await;
}

/// What an answer says, short.
fn said(answer: nb::WatchResponse) -> (u64, Vec<String>) {
    let events = answer.events.into_iter().map(|event| match event.event.unwrap() {
        event::Event::Put(resource) => format!("+{}", resource.name),
        event::Event::Deleted(name) => format!("-{name}"),
    });
    (answer.revision, events.collect())
}

async fn next(watch: &mut tonic::Streaming<nb::WatchResponse>) -> (u64, Vec<String>) {
    said(soon(watch.message()).await.unwrap().unwrap())
}

fn events(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn a_watch_shows_what_is_there_then_each_change() {
    let world = World::new().await;
    world.transact(vec![create(switch("switches/a")), create(port("switches/a/ports/p", ""))]).await;
    let mut all = world.watch(0, "").await;
    let mut below = world.watch(0, "switches/a").await;
    assert_eq!(next(&mut all).await, (1, events(&["+switches/a", "+switches/a/ports/p"])));
    assert_eq!(next(&mut all).await, (1, events(&[])), "caught up");
    assert_eq!(next(&mut below).await, (1, events(&["+switches/a/ports/p"])));
    assert_eq!(next(&mut below).await, (1, events(&[])));

    world.transact(vec![create(switch("switches/b"))]).await;
    world.transact(vec![delete("switches/a")]).await;
    assert_eq!(next(&mut all).await, (2, events(&["+switches/b"])));
    assert_eq!(next(&mut all).await, (3, events(&["-switches/a", "-switches/a/ports/p"])));
    loop {
        match next(&mut below).await {
            (2, none) if none.is_empty() => {}
            other => break assert_eq!(other, (3, events(&["-switches/a/ports/p"]))),
        }
    }
    let request = nb::WatchRequest { after_revision: 99, ..Default::default() };
    assert_eq!(world.client().watch(request).await.unwrap_err().code(), Code::OutOfRange);
    world.stop().await;
    assert_eq!(soon(all.message()).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_watch_resumes_after_a_restart_until_its_place_is_compacted() {
    let limits = LogLimits { n_revisions: 3, n_changes: 100 };
    let world = World::on_disk(TempDir::new().unwrap(), limits).await;
    for name in ["switches/a", "switches/b", "switches/c", "switches/d"] {
        world.transact(vec![create(switch(name))]).await;
    }
    let world = World::on_disk(world.stop().await, limits).await;
    let mut watch = world.watch(2, "").await;
    assert_eq!(next(&mut watch).await, (3, events(&["+switches/c"])));
    assert_eq!(next(&mut watch).await, (4, events(&["+switches/d"])));
    assert_eq!(next(&mut watch).await, (4, events(&[])));
    world.transact(vec![delete("switches/a")]).await;
    assert_eq!(next(&mut watch).await, (5, events(&["-switches/a"])));
    let request = nb::WatchRequest { after_revision: 1, ..Default::default() };
    let error = world.client().watch(request).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    assert!(error.message().contains("list again"), "{}", error.message());
    world.stop().await;
}

#[tokio::test]
async fn large_answers_come_in_parts_that_clients_can_take() {
    let world = World::new().await;
    let mut operations = vec![create(switch("switches/a"))];
    let long = format!("ip4.src == {{{}}}", vec!["10.0.0.1"; 1300].join(", "));
    operations.extend((0..400).map(|i| create(acl(&format!("switches/a/acls/x{i}"), 1, &long))));
    let mut client = world.client().max_decoding_message_size(usize::MAX);
    let request = nb::TransactRequest { operations, ..Default::default() };
    client.transact(request).await.unwrap();
    // These clients take 4 MiB.
    let mut watch = world.watch(0, "").await;
    let (mut revisions, mut n_events) = (Vec::new(), 0);
    loop {
        let (revision, events) = next(&mut watch).await;
        if events.is_empty() {
            break;
        }
        revisions.push(revision);
        n_events += events.len();
    }
    assert_eq!(n_events, 401);
    assert_eq!(revisions.pop(), Some(1));
    assert!(revisions.len() > 1 && revisions.iter().all(|revision| *revision == 0), "{revisions:?}");
    let request = nb::ListResourcesRequest { kind: nb::Kind::Acl.into(), ..Default::default() };
    let page = world.client().list_resources(request).await.unwrap().into_inner();
    assert!(!page.next_page_token.is_empty());
    world.stop().await;
}

/// Two workloads on a switch.
async fn with_two_workloads(world: &World) {
    let port = |octet: u8| nb::Resource {
        name: format!("switches/a/ports/p{octet}"),
        spec: Some(Spec::LogicalSwitchPort(nb::LogicalSwitchPort {
            addresses: vec![format!("0a:00:00:00:00:{octet:02x} 10.0.0.{octet}")],
            ..Default::default()
        })),
        ..Default::default()
    };
    world.transact(vec![create(switch("switches/a")), create(port(1)), create(port(2))]).await;
}

#[tokio::test]
async fn what_a_change_would_do_is_told_and_not_done() {
    let world = World::new().await;
    with_two_workloads(&world).await;
    let acl = |priority, action: nb::acl::Action| nb::Resource {
        name: "switches/a/acls/no".into(),
        spec: Some(Spec::Acl(nb::Acl {
            direction: nb::acl::Direction::ToLport.into(),
            priority,
            r#match: "outport == \"p2\" && tcp.dst == 23".into(),
            action: action.into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let run = |resource, validate_only| {
        let operations = vec![create(resource)];
        let request = nb::TransactRequest { operations, validate_only, ..Default::default() };
        let mut client = world.client();
        async move { client.transact(request).await.unwrap().into_inner() }
    };
    let answer = run(acl(7, nb::acl::Action::Drop), true).await;
    let effect = answer.effect.unwrap();
    assert!(effect.n_conversations >= 4 && effect.n_added_flows > 0, "{effect:?}");
    let [change] = &effect.reachability[..] else { panic!("{:?}", effect.reachability) };
    let conversation = change.conversation.clone().unwrap();
    assert_eq!((conversation.from.as_str(), conversation.to.as_str()), ("p1", "p2"));
    assert_eq!((conversation.protocol.as_str(), conversation.port), ("tcp", 23));
    assert_eq!((change.could_talk, change.can_talk), (true, false));
    assert_eq!(change.after, "dropped by switches/a/acls/no");
    let is_of_acl =
        |flow: &nb::FlowChange| flow.flow.as_ref().is_some_and(|flow| flow.object.ends_with("/no"));
    assert!(effect.flows.iter().any(|flow| flow.added && is_of_acl(flow)), "{:?}", effect.flows);

    // Nothing was done: the same again has the same effect, and a change that is made tells none.
    assert_eq!(run(acl(7, nb::acl::Action::Drop), true).await.effect, Some(effect));
    let answer = run(acl(7, nb::acl::Action::Allow), true).await;
    assert_eq!(answer.effect.unwrap().reachability, []);
    assert_eq!(run(acl(7, nb::acl::Action::Drop), false).await.effect, None);
    // What is asked for is looked at as well.
    let asked = nb::ExplainRequest {
        from: "switches/a/ports/p2".into(),
        to: "switches/a/ports/p1".into(),
        protocol: "udp".into(),
        port: 53,
        ..Default::default()
    };
    let delete = nb::Delete { name: "switches/a/ports/p1".into(), allow_missing: false };
    let request = nb::TransactRequest {
        operations: vec![nb::Operation { op: Some(nb::operation::Op::Delete(delete)) }],
        validate_only: true,
        conversations: vec![asked.clone()],
        ..Default::default()
    };
    let effect = world.client().transact(request).await.unwrap().into_inner().effect.unwrap();
    let lost = effect.reachability.iter().find(|change| {
        let conversation = change.conversation.clone().unwrap_or_default();
        (conversation.from.as_str(), conversation.port) == ("p2", 53)
    });
    assert!(lost.is_some_and(|lost| lost.could_talk && !lost.can_talk), "{:?}", effect.reachability);
}
