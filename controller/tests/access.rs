//! Who may say what, over real TLS: every role is tried at what it may and at what it may not.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, sync::Arc, time::Duration};

use common::{create, delete, port, request, resource, soon, switch};
use controller::{
    access::{Access, Audit, quotas::Quota},
    controller::{Controller, Ending},
    server::{Listen, Listener, serve},
    store::{LogLimits, MemoryStore},
};
use credentials::{Address, Authority, Credentials, Dial};
use ferroflow_proto::{
    chassis::{self as ch, chassis_service_client::ChassisServiceClient, sync_request::Message},
    northbound::{self as nb, northbound_service_client::NorthboundServiceClient, resource::Spec},
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A controller over TLS, and an authority.
struct Guarded {
    dir: TempDir,
    address: Address,
    authority: Authority,
    controller: Arc<Controller>,
}

impl Guarded {
    async fn new(quotas: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let pki = dir.path().join("pki");
        let authority = Authority::init(&pki).unwrap();
        authority.issue(&"controller/c1".parse().unwrap(), DAY).unwrap();
        let credentials = Arc::new(Credentials::open(&pki.join("controller-c1")).unwrap());
        let access = Access {
            quotas: quotas.iter().map(|text| text.parse::<Quota>().unwrap()).collect(),
            audit: Audit::open(&dir.path().join("audit.log"), 1 << 20).unwrap(),
        };
        let store = Box::new(MemoryStore::default());
        let controller = Controller::open_with(store, LogLimits::default(), access).unwrap();
        let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = Listener::bind_with(&listen, Some(credentials)).await.unwrap();
        let Listener::Tcp(bound, _) = &listener else { unreachable!() };
        let address = format!("https://{}", bound.local_addr().unwrap()).parse().unwrap();
        let serving = Arc::clone(&controller);
        tokio::spawn(async move { serve(serving, listener).await.unwrap() });
        Self { dir, address, authority, controller }
    }

    fn credentials(&self, who: &str) -> Arc<Credentials> {
        let path = self.dir.path().join("pki").join(who.replace('/', "-"));
        if !path.exists() {
            self.authority.issue(&who.parse().unwrap(), DAY).unwrap();
        }
        Arc::new(Credentials::open(&path).unwrap())
    }

    async fn channel(&self, who: &str) -> Channel {
        let dial =
            Dial::new(std::slice::from_ref(&self.address), Some(self.credentials(who)), false).unwrap();
        dial.connect(|endpoint| endpoint).await.unwrap()
    }

    async fn client(&self, who: &str) -> Client {
        Client(NorthboundServiceClient::new(self.channel(who).await))
    }

    fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.path().join("audit.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.controller.end(Ending::Shutdown);
    }
}

struct Client(NorthboundServiceClient<Channel>);

impl Client {
    async fn transact(&mut self, operations: Vec<nb::Operation>) -> Result<nb::TransactResponse, Status> {
        let request = nb::TransactRequest { operations, ..Default::default() };
        soon(self.0.transact(request)).await.map(tonic::Response::into_inner)
    }

    /// The code of what is refused.
    async fn refused(&mut self, operation: nb::Operation) -> (Code, String) {
        let status = self.transact(vec![operation]).await.unwrap_err();
        (status.code(), status.message().to_owned())
    }

    async fn get(&mut self, name: &str) -> Result<nb::Resource, Status> {
        let request = nb::GetResourceRequest { name: name.to_owned() };
        soon(self.0.get_resource(request)).await.map(|answer| answer.into_inner().resource.unwrap())
    }

    async fn list(&mut self, kind: nb::Kind) -> Vec<String> {
        let request = nb::ListResourcesRequest { kind: kind.into(), ..Default::default() };
        let answer = soon(self.0.list_resources(request)).await.unwrap().into_inner();
        answer.resources.into_iter().map(|resource| resource.name).collect()
    }
}

fn update(resource: nb::Resource) -> nb::Operation {
    let update = nb::Update { resource: Some(resource), allow_missing: true, ..Default::default() };
    nb::Operation { op: Some(nb::operation::Op::Update(update)) }
}

fn labelled(mut resource: nb::Resource, key: &str, value: &str) -> nb::Resource {
    resource.labels.insert(key.to_owned(), value.to_owned());
    resource
}

fn switch_port(name: &str, port: nb::LogicalSwitchPort) -> nb::Resource {
    resource(name, Spec::LogicalSwitchPort(port))
}

#[tokio::test]
async fn read_only_sees_everything_and_changes_nothing() {
    let world = Guarded::new(&[]).await;
    let mut admin = world.client("admin/root").await;
    admin.transact(vec![create(switch("switches/a"))]).await.unwrap();
    let mut reader = world.client("read-only/watcher").await;
    assert_eq!(reader.list(nb::Kind::LogicalSwitch).await, ["switches/a"]);
    assert!(soon(reader.0.get_status(nb::GetStatusRequest::default())).await.is_ok());
    let (code, message) = reader.refused(delete("switches/a")).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("read-only/watcher may not Transact"), "{message}");
    let audit = world.audit();
    assert_eq!(
        (audit[0]["who"].as_str(), audit[0]["outcome"].as_str()),
        (Some("admin/root"), Some("written"))
    );
    assert_eq!(audit[0]["changes"][0], "create switches/a");
    assert_eq!(audit[0]["revision"], 1);
    assert_eq!(
        (audit[1]["who"].as_str(), audit[1]["outcome"].as_str()),
        (Some("read-only/watcher"), Some("refused"))
    );
}

#[tokio::test]
async fn a_tenant_sees_and_touches_only_its_own() {
    let world = Guarded::new(&[]).await;
    let mut admin = world.client("admin/root").await;
    let mut acme = world.client("tenant/acme").await;
    let mut other = world.client("tenant/other").await;
    admin.transact(vec![create(switch("switches/shared"))]).await.unwrap();
    acme.transact(vec![
        create(switch("switches/a")),
        create(port("switches/a/ports/p", "0a:00:00:00:00:01 10.0.0.1")),
    ])
    .await
    .unwrap();
    assert_eq!(acme.get("switches/a").await.unwrap().labels["tenant"], "acme");
    let revision = other.transact(vec![create(switch("switches/b"))]).await.unwrap().revision;

    assert_eq!(acme.list(nb::Kind::LogicalSwitch).await, ["switches/a"]);
    assert_eq!(admin.list(nb::Kind::LogicalSwitch).await.len(), 3);
    for hidden in ["switches/a", "switches/a/ports/p", "switches/shared"] {
        // In the same words as what is nowhere.
        let told = other.get(hidden).await.unwrap_err();
        assert_eq!((told.code(), told.message()), (Code::NotFound, &*format!("there is no {hidden}")));
        let (code, message) = other.refused(delete(hidden)).await;
        assert_eq!((code, &*message), (Code::NotFound, &*format!("operation 0: there is no {hidden}")));
    }
    let (code, _) = other.refused(create(port("switches/a/ports/q", ""))).await;
    assert_eq!(code, Code::NotFound, "below another's switch");
    let (code, message) = other.refused(create(switch("switches/a"))).await;
    assert_eq!(code, Code::AlreadyExists);
    assert!(!message.contains("acme"), "{message}");
    let (code, message) = other.refused(update(switch("switches/a"))).await;
    assert_eq!(code, Code::AlreadyExists, "{message}");
    let (code, message) = other.refused(create(port("switches/b/ports/p", ""))).await;
    assert_eq!(code, Code::AlreadyExists);
    assert!(!message.contains("switches/a"), "{message}");
    let (code, _) = other.refused(update(labelled(switch("switches/b"), "tenant", "acme"))).await;
    assert_eq!(code, Code::InvalidArgument, "it is not given away");

    // Nor is it reached by reference.
    let group = |id: &str| {
        let group = nb::PortGroup { ports: vec!["switches/a/ports/p".to_owned()], ..Default::default() };
        resource(&format!("port-groups/{id}"), Spec::PortGroup(group))
    };
    let (code, message) = other.refused(create(group("g"))).await;
    assert_eq!(code, Code::FailedPrecondition, "{message}");
    assert!(message.contains("does not exist"), "{message}");
    acme.transact(vec![create(group("g"))]).await.unwrap();
    let (code, message) =
        other.refused(create(common::acl("switches/b/acls/x", 1, "ip4.src == $g_ip4"))).await;
    assert_eq!(code, Code::FailedPrecondition, "{message}");

    // Nor watched.
    let watch = nb::WatchRequest { after_revision: revision, ..Default::default() };
    let mut stream = soon(other.0.watch(watch)).await.unwrap().into_inner();
    acme.transact(vec![delete("port-groups/g")]).await.unwrap();
    other.transact(vec![create(switch("switches/c"))]).await.unwrap();
    let mut seen = Vec::new();
    while seen.is_empty() {
        let answer = soon(stream.message()).await.unwrap().unwrap();
        seen.extend(answer.events.into_iter().map(|event| match event.event.unwrap() {
            nb::event::Event::Put(resource) => resource.name,
            nb::event::Event::Deleted(name) => name,
        }));
    }
    assert_eq!(seen, ["switches/c"]);

    // Hosts are not its business.
    for status in [
        soon(other.0.get_status(nb::GetStatusRequest::default())).await.unwrap_err(),
        soon(other.0.trace_packet(nb::TracePacketRequest::default())).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    assert!(other.list(nb::Kind::Chassis).await.is_empty());
    let explain = nb::ExplainRequest {
        from: "switches/a/ports/p".to_owned(),
        to: "switches/a/ports/p".to_owned(),
        ..Default::default()
    };
    assert_eq!(soon(other.0.explain(explain)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_tenants_fields_do_not_reach_the_hosts_and_its_quota_holds() {
    let world = Guarded::new(&["logical_switch_port=2", "big:logical_switch_port=3"]).await;
    let mut acme = world.client("tenant/acme").await;
    acme.transact(vec![create(switch("switches/a"))]).await.unwrap();
    let localnet = nb::LogicalSwitchPort {
        r#type: nb::logical_switch_port::Type::Localnet.into(),
        network_name: "physnet".to_owned(),
        ..Default::default()
    };
    let (code, message) = acme.refused(create(switch_port("switches/a/ports/n", localnet))).await;
    assert_eq!(code, Code::InvalidArgument, "{message}");
    let limits = resource("control-plane-limits/l", Spec::ControlPlaneLimits(Default::default()));
    assert_eq!(acme.refused(create(limits)).await.0, Code::PermissionDenied);
    let ports = |n: usize, at: &str| -> Vec<_> {
        (0..n).map(|i| create(port(&format!("switches/{at}/ports/{at}{i}"), ""))).collect()
    };
    let status = acme.transact(ports(3, "a")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("may have 2"), "{}", status.message());
    acme.transact(ports(2, "a")).await.unwrap();
    assert_eq!(acme.refused(create(port("switches/a/ports/x", ""))).await.0, Code::ResourceExhausted);
    acme.transact(vec![delete("switches/a/ports/a0"), create(port("switches/a/ports/x", ""))]).await.unwrap();
    let mut big = world.client("tenant/big").await;
    big.transact(vec![create(switch("switches/b"))]).await.unwrap();
    big.transact(ports(3, "b")).await.unwrap();
}

#[tokio::test]
async fn a_chassis_speaks_only_for_itself() {
    let world = Guarded::new(&[]).await;
    let hello = |id: &str| ch::Hello {
        chassis: id.to_owned(),
        hostname: id.to_owned(),
        encap_ip: "192.0.2.1".to_owned(),
        incarnation: 1,
        ..Default::default()
    };
    let sync = async |who: &str, id: &str| {
        let (sender, receiver) = mpsc::channel(4);
        sender.send(request(Message::Hello(hello(id)))).await.unwrap();
        let mut client = ChassisServiceClient::new(world.channel(who).await);
        soon(client.sync(ReceiverStream::new(receiver))).await.map(|_| sender).map_err(|status| status.code())
    };
    assert!(sync("chassis/h1", "h1").await.is_ok());
    for (who, id) in [
        ("chassis/h1", "h2"),
        ("admin/root", "h1"),
        ("tenant/acme", "h1"),
        ("read-only/r", "h1"),
        ("controller/c1", "h1"),
    ] {
        assert_eq!(sync(who, id).await.unwrap_err(), Code::PermissionDenied, "{who} for {id}");
    }
    let (sender, receiver) = mpsc::channel(4);
    let message = Some(ch::assist_request::Message::Hello(hello("h2")));
    sender.send(ch::AssistRequest { message }).await.unwrap();
    let mut client = ChassisServiceClient::new(world.channel("chassis/h1").await);
    let status = soon(client.assist(ReceiverStream::new(receiver))).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_chassis_writes_only_what_stands_for_its_workloads() {
    let world = Guarded::new(&[]).await;
    let mut admin = world.client("admin/root").await;
    admin
        .transact(vec![create(switch("switches/a")), create(port("switches/a/ports/vm", ""))])
        .await
        .unwrap();
    let mut h1 = world.client("chassis/h1").await;
    let mut h2 = world.client("chassis/h2").await;
    let own = |id: &str, host: &str| labelled(port(&format!("switches/a/ports/{id}"), ""), "host", host);
    h1.transact(vec![create(own("c1", "h1"))]).await.unwrap();
    for (operation, what) in [
        (create(own("c2", "h1")), "in another's name"),
        (update(own("c1", "h2")), "another's port"),
        (delete("switches/a/ports/c1"), "another's port goes"),
        (delete("switches/a/ports/vm"), "a port of nobody"),
        (create(port("switches/a/ports/c3", "")), "without a label"),
        (create(common::acl("switches/a/acls/x", 1, "ip4")), "a rule"),
        (update(labelled(switch("switches/a"), "host", "h2")), "a switch becomes its own"),
        (delete("switches/a"), "a switch goes"),
    ] {
        assert_eq!(h2.refused(operation).await.0, Code::PermissionDenied, "{what}");
    }
    let rate = |on: &str| {
        let rule = nb::QosRule {
            direction: nb::acl::Direction::ToLport.into(),
            priority: 1,
            r#match: format!("outport == \"{on}\""),
            rate_kbps: 1000,
            ..Default::default()
        };
        labelled(resource(&format!("switches/a/qos-rules/{on}-receive"), Spec::QosRule(rule)), "host", "h1")
    };
    h1.transact(vec![create(rate("c1"))]).await.unwrap();
    assert_eq!(h1.refused(create(rate("vm"))).await.0, Code::PermissionDenied);
    assert!(h2.get("switches/a/ports/c1").await.is_ok(), "hosts see which addresses are taken");
    assert!(h2.list(nb::Kind::Acl).await.is_empty());
    h1.transact(vec![delete("switches/a/qos-rules/c1-receive"), delete("switches/a/ports/c1")])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let world = Guarded::new(&[]).await;
    let mut admin = world.client("admin/root").await;
    admin.transact(vec![create(switch("switches/a"))]).await.unwrap();
    let watch = nb::WatchRequest::default();
    let mut stream = soon(admin.0.watch(watch)).await.unwrap().into_inner();
    assert!(soon(stream.message()).await.unwrap().is_some());
    world.authority.revoke(&"admin/root".parse().unwrap()).unwrap();
    soon(async { while let Ok(Some(_)) = stream.message().await {} }).await;
    assert!(soon(admin.0.get_status(nb::GetStatusRequest::default())).await.is_err());
}

#[test]
fn a_port_for_everybody_is_refused_unless_that_is_said() {
    let check =
        |listen: &str, credentials, insecure| listen.parse::<Listen>().unwrap().check(credentials, insecure);
    assert!(check("127.0.0.1:1", false, false).is_ok());
    assert!(check("unix:///x", false, false).is_ok());
    assert!(check("0.0.0.0:1", true, false).is_ok());
    assert!(check("0.0.0.0:1", false, true).is_ok());
    for exposed in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
        let error = check(exposed, false, false).unwrap_err();
        assert!(error.to_string().contains("--credentials"), "{error}");
    }
}
