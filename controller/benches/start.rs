//! How long a controller takes from its start until it knows what each host has to do, with a
//! large network in its store. Run by `cargo xtask bench --compile`.
//!
//! The network is written once, as users write it; then the store is opened again, in a process
//! that has done nothing before.

use std::{
    env,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use controller::{
    access::Author,
    controller::Controller,
    network,
    store::{LogLimits, RedbStore, Revision},
};
use ferroflow_proto::northbound::{self as pb, resource::Spec};

/// Switches of a tenant, ports of a switch, ACLs of a switch, hosts.
const SWITCHES: u32 = 10;
const PORTS: u32 = 100;
const ACLS: u32 = 10;
const HOSTS: u32 = 1000;
/// Resources of a transaction.
const BATCH: usize = 5000;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let option = |name: &str| env::args().skip_while(|arg| arg != name).nth(1);
    if let Some(path) = option("--open") {
        return open(Path::new(&path));
    }
    let n_tenants = option("--tenants").and_then(|text| text.parse().ok()).unwrap_or(100);
    let folder = tempfile::tempdir().expect("a folder for the store");
    let path = folder.path().join("store.redb");
    write(&path, n_tenants);
    for _ in 0..3 {
        let mut command = Command::new(env::current_exe().expect("Linux tells it"));
        let status = command.arg("--open").arg(&path).status().expect("it runs already");
        assert!(status.success(), "{status}");
    }
}

/// Starts a controller, and tells how long it takes.
fn open(path: &Path) {
    let start = Instant::now();
    let store = RedbStore::open(path, LogLimits::default()).expect("the store was written");
    let controller =
        Controller::open(Box::new(store), LogLimits::default()).expect("what is stored is known");
    let read = start.elapsed();
    let revision = controller.state().revision();
    let n_resources = controller.state().iter().count();
    compile(&controller, revision);
    let whole = start.elapsed();
    println!("{n_resources} resources: read in {:.2?}, compiled after {:.2?}", read, whole);
}

/// Waits until a revision is compiled.
fn compile(controller: &Arc<Controller>, revision: Revision) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut progress = controller.receipts.progress();
        let compiler = tokio::spawn(network::run(Arc::clone(controller)));
        while controller.receipts.newest() < Some(revision) {
            let waited = tokio::time::timeout(Duration::from_secs(120), progress.changed()).await;
            waited.expect("it is compiled in time").expect("the controller lives");
        }
        compiler.abort();
    });
}

fn write(path: &Path, n_tenants: u32) {
    let store = RedbStore::open(path, LogLimits::default()).expect("a new store");
    let controller = Controller::open(Box::new(store), LogLimits::default()).expect("an empty store");
    let resources: Vec<_> = (0..n_tenants).flat_map(tenant).collect();
    for batch in resources.chunks(BATCH) {
        let written = controller.write(&Author::controller("bench"), false, |draft| {
            for (i, (name, spec)) in batch.iter().enumerate() {
                let (name, spec) = (name.clone(), Some(spec.clone()));
                draft.create(i, pb::Resource { name, spec, ..Default::default() })?;
            }
            Ok(())
        });
        written.expect("the resources make sense");
    }
    let register = controller.write(&Author::controller("bench"), false, |draft| {
        for host in 0..HOSTS {
            let name = controller::resource::Name::chassis(&format!("host-{host}")).expect("an id");
            let encap_ip = format!("192.0.{}.{}", host / 250, host % 250 + 1);
            draft.register(name, pb::Chassis { encap_ip, ..Default::default() })?;
        }
        Ok(())
    });
    register.expect("hosts register");
    for switch in 0..n_tenants * SWITCHES {
        let bound = controller.write(&Author::controller("bench"), false, |draft| {
            for port in 0..PORTS {
                let name = format!("switches/s{switch}/ports/p{switch}-{port}");
                let name = controller::resource::Name::parse(&name).expect("a name");
                let host = format!("host-{}", (switch + port % 20) % HOSTS);
                draft.bind(&name, Some((&host, true)));
            }
            Ok(())
        });
        bound.expect("ports are bound");
    }
}

/// What a tenant writes: a router, switches with workloads, ACLs and an address set.
fn tenant(tenant: u32) -> Vec<(String, Spec)> {
    let mut all = Vec::new();
    let mut add = |name: String, spec: Spec| all.push((name, spec));
    let addresses = (0..100).map(|n| format!("11.0.{n}.{}", tenant % 250)).collect();
    add(format!("address-sets/web{tenant}"), Spec::AddressSet(pb::AddressSet { addresses }));
    add(format!("routers/r{tenant}"), Spec::LogicalRouter(Default::default()));
    for within in 0..SWITCHES {
        let id = tenant * SWITCHES + within;
        let [a, b, c, d] = id.to_be_bytes();
        add(format!("switches/s{id}"), Spec::LogicalSwitch(Default::default()));
        let port = pb::LogicalRouterPort {
            mac: format!("0a:01:{a:02x}:{b:02x}:{c:02x}:{d:02x}"),
            networks: vec![format!("10.{within}.0.1/16")],
            ..Default::default()
        };
        let end = format!("routers/r{tenant}/ports/down{id}");
        add(end.clone(), Spec::LogicalRouterPort(port));
        let up = pb::LogicalSwitchPort {
            r#type: pb::logical_switch_port::Type::Router.into(),
            router_port: end,
            ..Default::default()
        };
        add(format!("switches/s{id}/ports/up{id}"), Spec::LogicalSwitchPort(up));
        for n in 0..PORTS {
            let entry = format!("0a:{n:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x} 10.{within}.1.{n}");
            let port = pb::LogicalSwitchPort {
                addresses: vec![entry.clone()],
                port_security: vec![entry],
                ..Default::default()
            };
            add(format!("switches/s{id}/ports/p{id}-{n}"), Spec::LogicalSwitchPort(port));
        }
        for n in 0..ACLS {
            let acl = pb::Acl {
                direction: pb::acl::Direction::ToLport.into(),
                priority: 1000 + n,
                r#match: format!("ip4.src == $web{tenant} && tcp.dst == {}", 1000 + n),
                action: pb::acl::Action::AllowRelated.into(),
                ..Default::default()
            };
            add(format!("switches/s{id}/acls/a{n}"), Spec::Acl(acl));
        }
    }
    all
}
