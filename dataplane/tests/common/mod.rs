//! What the tests of this crate share: rules, snapshots, the conservation check.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dataplane::{Dataplane, Device, MemoryPort, PortSpec, PortStatus};
use flowtable::{
    field::Field,
    flow::{Action, Match, Origin, Rule, RuleStats},
    port::{PortInfo, PortRole, PortTable},
    snapshot::Snapshot,
    table::{Change, Tables},
    types::{Epoch, PortNo, Priority, TableId},
};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn port(n: u32) -> PortNo {
    PortNo::new(n).unwrap()
}

/// A rule: packets from `in_port` go to `outputs`.
pub fn rule(in_port: u32, outputs: &[u32]) -> Rule {
    Rule {
        table: TableId::new(0).unwrap(),
        priority: Priority::new(100).unwrap(),
        matching: Match::any().with(Field::InPort, in_port.into()),
        actions: outputs.iter().map(|output| Action::Output(port(*output))).collect(),
        cookie: 0,
        origin: Arc::new(Origin::default()),
        life: Default::default(),
        stats: Arc::new(RuleStats::default()),
    }
}

/// A version of the rules over some ports of a container's kind.
pub fn snapshot(epoch: u64, ports: &[u32], rules: Vec<Rule>) -> Arc<Snapshot> {
    let mut table = PortTable::default();
    for number in ports {
        let info = PortInfo {
            name: format!("p{number}"),
            role: PortRole::Workload,
            up: true,
            mtu: 1500,
            partial_checksums: true,
        };
        table.insert(port(*number), info);
    }
    let tables = Tables::default().transact(rules.into_iter().map(Change::Add).collect()).unwrap();
    Arc::new(Snapshot {
        epoch: Epoch::new(epoch).unwrap(),
        tables: Arc::new(tables),
        ports: Arc::new(table),
        ..Snapshot::default()
    })
}

/// The same, with what each port says of partial checksums: nothing, though they may be, or all.
pub fn with_silent(snapshot: Arc<Snapshot>, silent: &[(u32, bool)]) -> Arc<Snapshot> {
    let mut snapshot = Arc::unwrap_or_clone(snapshot);
    let ports = Arc::make_mut(&mut snapshot.ports);
    for (number, is_silent) in silent {
        let mut info = ports.get(port(*number)).unwrap().clone();
        info.partial_checksums = *is_silent;
        ports.insert(port(*number), info);
    }
    Arc::new(snapshot)
}

/// Publishes and waits until all workers have it.
pub fn publish(dataplane: &Dataplane, snapshot: Arc<Snapshot>) {
    let epoch = snapshot.epoch;
    dataplane.publish(snapshot);
    assert!(dataplane.wait_applied(epoch, PATIENCE), "epoch {epoch} was not applied");
}

pub fn attach_memory(dataplane: &Dataplane, number: u32, memory: &MemoryPort) {
    let spec = PortSpec {
        port: port(number).into(),
        name: format!("p{number}"),
        device: Device::Memory(memory.clone()),
    };
    assert_eq!(dataplane.attach(spec).unwrap().mode, "memory");
}

/// Waits until something holds; panics with `what` when it does not in time.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Checks conservation on all ports at rest, and returns their status.
pub fn check_conservation(dataplane: &Dataplane) -> Vec<PortStatus> {
    let (ports, drops) = (dataplane.ports(), dataplane.drops());
    for status in &ports {
        let counters = &status.counters;
        assert_eq!(
            counters.rx_packets,
            counters.rx_forwarded + counters.rx_dropped,
            "received = forwarded + dropped at {status:?}"
        );
        let named: u64 =
            drops.iter().filter(|drop| drop.in_port == status.port).map(|drop| drop.n_packets).sum();
        assert_eq!(counters.rx_dropped, named, "each drop has a name at {status:?}: {drops:?}");
    }
    for worker in dataplane.workers() {
        assert!(worker.running);
        assert_eq!(worker.n_free_frames, worker.n_frames, "no buffer is lost");
        let counters = worker.counters;
        assert_eq!(counters.n_packets, counters.n_forwarded + counters.n_dropped);
    }
    ports
}

/// The status of one port.
pub fn status(ports: &[PortStatus], number: u32) -> &PortStatus {
    ports.iter().find(|status| status.port == port(number)).unwrap()
}
