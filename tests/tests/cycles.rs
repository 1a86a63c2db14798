//! What comes and goes leaves nothing behind: ports, ACLs, members of sets and groups, and ports of hosts, again and again, in a
//! controller and hosts of one process. `cargo xtask soak --cycles N` runs it for long and holds the memory against the goal.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ferroflow_proto::{
    host::{
        AddLabPortRequest, RemovePortRequest, host_service_client::HostServiceClient,
        lab_service_client::LabServiceClient,
    },
    northbound::{self as nb, northbound_service_client::NorthboundServiceClient, resource::Spec},
};
use ferroflow_tests::daemon::find_program;
use ferroflow_tests::scenario::{Dir, target_dir};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How many cycles; with as many as fill the controller's log first, the memory is held against the goal.
const CYCLES: &str = "FERROFLOW_CYCLES";
/// A file for what was measured.
const SAVE: &str = "FERROFLOW_CYCLES_JSON";
/// In the usual run.
const USUAL: u64 = 2500;
/// The log of the controller is full by then: a cycle is two changes, and it keeps 100 000.
const WARM_UP: u64 = 60_000;
/// What memory may differ by, in percent.
const GOAL: f64 = 2.0;
/// What comes and goes in one turn: ports of the network, ACLs, members of a set, ports of a host.
const PORTS: u64 = 100;
const ACLS: u64 = 50;
const MEMBERS: u64 = 330;
const HOST_PORTS: u64 = 20;
const PER_TURN: u64 = PORTS + ACLS + MEMBERS + HOST_PORTS;
const PATIENCE: Duration = Duration::from_secs(60);

/// A lab of two hosts.
struct Lab {
    process: Child,
    northbound: NorthboundServiceClient<Channel>,
    ports: HostServiceClient<Channel>,
    lab: LabServiceClient<Channel>,
    _dir: Dir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nobody is told: the test has failed or is done.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn channel(path: PathBuf) -> Channel {
    let begun = Instant::now();
    loop {
        let path = path.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        match Endpoint::from_static("http://lab").connect_with_connector(connector).await {
            Ok(channel) => return channel,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn resource(name: impl Into<String>, spec: Spec) -> nb::Resource {
    nb::Resource { name: name.into(), spec: Some(spec), ..Default::default() }
}

fn create(resource: nb::Resource) -> nb::Operation {
    nb::Operation { op: Some(nb::operation::Op::Create(nb::Create { resource: Some(resource) })) }
}

fn delete(name: String) -> nb::Operation {
    nb::Operation { op: Some(nb::operation::Op::Delete(nb::Delete { name, ..Default::default() })) }
}

fn port(id: &str, address: String) -> nb::Resource {
    let port = nb::LogicalSwitchPort { addresses: vec![address], ..Default::default() };
    resource(format!("switches/s/ports/{id}"), Spec::LogicalSwitchPort(port))
}

fn set(addresses: Vec<String>) -> nb::Operation {
    let set = resource("address-sets/clients", Spec::AddressSet(nb::AddressSet { addresses }));
    let update = nb::Update { resource: Some(set), update_mask: None, allow_missing: true };
    nb::Operation { op: Some(nb::operation::Op::Update(update)) }
}

fn group(ports: Vec<String>) -> nb::Operation {
    let group = nb::PortGroup { ports, ..Default::default() };
    let group = resource("port-groups/members", Spec::PortGroup(group));
    let update = nb::Update { resource: Some(group), update_mask: None, allow_missing: true };
    nb::Operation { op: Some(nb::operation::Op::Update(update)) }
}

fn acl(id: &str, matching: String) -> nb::Resource {
    let acl = nb::Acl {
        direction: nb::acl::Direction::ToLport.into(),
        priority: 100,
        r#match: matching,
        action: nb::acl::Action::AllowRelated.into(),
        ..Default::default()
    };
    resource(format!("switches/s/acls/{id}"), Spec::Acl(acl))
}

impl Lab {
    async fn start() -> Self {
        let path = env::temp_dir().join(format!("ff-cycles-{}", std::process::id()));
        let dir = Dir::create(&path).unwrap();
        let process = Command::new(find_program(&target_dir().unwrap(), "vswitch-lab").unwrap())
            .args(["--hosts", "2", "--dir"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let controller = channel(path.join("controller.sock")).await;
        let host = channel(path.join("h1.sock")).await;
        let mut lab = Self {
            process,
            northbound: NorthboundServiceClient::new(controller),
            ports: HostServiceClient::new(host.clone()),
            lab: LabServiceClient::new(host),
            _dir: dir,
        };
        // What stays: a switch with a workload on the host, which therefore hears of all that changes there.
        lab.change(vec![
            create(resource("switches/s", Spec::LogicalSwitch(nb::LogicalSwitch::default()))),
            create(port("stays", "0a:00:00:00:00:01 10.0.0.1".to_owned())),
            set(vec!["10.255.0.1".to_owned()]),
            group(vec!["switches/s/ports/stays".to_owned()]),
            create(acl("by-set", "ip4.src == $clients && tcp.dst == 80".to_owned())),
            create(acl("by-group", "outport == @members && udp.dst == 53".to_owned())),
        ])
        .await;
        lab.attach("stays", "stays").await;
        lab
    }

    /// Changes the network, and waits until all hosts that it concerns have applied it.
    async fn change(&mut self, operations: Vec<nb::Operation>) {
        let request = nb::TransactRequest { operations, ..Default::default() };
        let revision = self.northbound.transact(request).await.unwrap().into_inner().revision;
        let asked = nb::GetReceiptRequest { revision, wait: true };
        let receipt = tokio::time::timeout(PATIENCE, self.northbound.get_receipt(asked)).await;
        let receipt = receipt.expect("hosts apply it soon").unwrap().into_inner();
        assert!(receipt.complete, "{receipt:?}");
    }

    async fn attach(&mut self, name: &str, logical_port: &str) {
        let request = AddLabPortRequest {
            name: name.to_owned(),
            logical_port: logical_port.to_owned(),
            ..Default::default()
        };
        self.lab.add_lab_port(request).await.unwrap();
    }

    /// Everything comes, and goes again.
    async fn turn(&mut self) {
        let ids: Vec<String> = (0..PORTS).map(|n| format!("p{n}")).collect();
        let mac = |n: usize| format!("0a:00:00:01:{:02x}:{:02x}", n >> 8, n & 0xff);
        let mut coming: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| create(port(id, format!("{} 10.0.1.{n}", mac(n)))))
            .collect();
        coming.extend((0..ACLS).map(|n| {
            let matching =
                format!("outport == \"p{n}\" && tcp.dst >= {} && tcp.dst < {}", 1000 + n, 2000 + n);
            create(acl(&format!("a{n}"), matching))
        }));
        let members = (0..MEMBERS).map(|n| format!("10.200.{}.{}", n >> 8, n & 0xff));
        coming.push(set(members.chain(["10.255.0.1".to_owned()]).collect()));
        let names = ids.iter().map(|id| format!("switches/s/ports/{id}"));
        coming.push(group(names.chain(["switches/s/ports/stays".to_owned()]).collect()));
        self.change(coming).await;
        for id in &ids[..HOST_PORTS as usize] {
            self.attach(id, id).await;
        }
        for id in &ids[..HOST_PORTS as usize] {
            let request = RemovePortRequest { interface: id.clone(), ..Default::default() };
            self.ports.remove_port(request).await.unwrap();
        }
        let mut going: Vec<_> = (0..ACLS).map(|n| delete(format!("switches/s/acls/a{n}"))).collect();
        going.push(set(vec!["10.255.0.1".to_owned()]));
        going.push(group(vec!["switches/s/ports/stays".to_owned()]));
        going.extend(ids.iter().map(|id| delete(format!("switches/s/ports/{id}"))));
        self.change(going).await;
    }

    /// Resident memory and open files.
    fn size(&self) -> (u64, usize) {
        let folder = Path::new("/proc").join(self.process.id().to_string());
        let status = fs::read_to_string(folder.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib = line.trim().trim_end_matches(" kB").parse().unwrap();
        (kib, fs::read_dir(folder.join("fd")).unwrap().count())
    }

    async fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for kind in [nb::Kind::LogicalSwitchPort, nb::Kind::Acl] {
            let request = nb::ListResourcesRequest {
                kind: kind.into(),
                parent: "switches/s".to_owned(),
                ..Default::default()
            };
            let listed = self.northbound.list_resources(request).await.unwrap().into_inner();
            names.extend(listed.resources.into_iter().map(|resource| resource.name));
        }
        names
    }
}

#[tokio::test]
async fn what_comes_and_goes_leaves_nothing_behind() {
    let n_cycles = env::var(CYCLES).map_or(USUAL, |text| text.parse().expect("FERROFLOW_CYCLES is a number"));
    let mut lab = Lab::start().await;
    let stays = lab.names().await;
    let begun = Instant::now();
    let is_long = n_cycles > WARM_UP;
    let n_turns = n_cycles.div_ceil(PER_TURN).max(2);
    let warm = if is_long { WARM_UP.div_ceil(PER_TURN) } else { 1 };
    let (mut first, mut samples) = ((0, 0), Vec::new());
    for turn in 1..=n_turns {
        lab.turn().await;
        let size = lab.size();
        if turn == warm {
            first = size;
        }
        if turn.is_multiple_of((n_turns / 50).max(1)) {
            samples.push(size.0);
        }
    }
    assert_eq!(lab.names().await, stays, "what is there is what stays");
    let last = lab.size();
    let percent = (last.0 as f64 / first.0 as f64 - 1.0) * 100.0;
    let took = begun.elapsed();
    println!(
        "{} cycles in {took:.0?}: {} KiB after {} of them, {} KiB at the end: {percent:+.2} %; files {} and {}",
        n_turns * PER_TURN,
        first.0,
        warm * PER_TURN,
        last.0,
        first.1,
        last.1,
    );
    if let Ok(file) = env::var(SAVE) {
        let measured = serde_json::json!({
            "cycles": n_turns * PER_TURN,
            "seconds": took.as_secs_f64(),
            "warm_up_cycles": warm * PER_TURN,
            "memory_kib": { "warm": first.0, "end": last.0, "percent": percent, "samples": samples },
            "files": { "warm": first.1, "end": last.1 },
        });
        fs::write(file, serde_json::to_string_pretty(&measured).unwrap() + "\n").unwrap();
    }
    assert!(last.1 <= first.1 + 2, "files stay open: {} became {}", first.1, last.1);
    if is_long {
        assert!(percent.abs() <= GOAL, "memory differs by {percent:.2} %, {GOAL} is the most");
    }
}
