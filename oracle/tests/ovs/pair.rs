//! Open vSwitch and ours, with the same rules.

use std::sync::Arc;

use flowtable::{
    conntrack::{Config, Conntrack, Storage},
    port::{PortInfo, PortRole, PortTable},
    snapshot::Snapshot,
    switch::{Switch, SwitchConfig},
    table::{Change, FragmentMode, GroupChange, MeterChange, Tables},
    text,
    types::{Epoch, PortNo, Timestamp},
};
use oracle::{
    compare::{
        harness::{Collector, numbered},
        hex,
    },
    ovs::{Ovs, Protocol},
    traffic::Arrival,
};

use super::PORTS;

/// Connections that ours has room for.
const N_CONNECTIONS: usize = 4096;

/// The ports, as ours knows them.
pub(crate) fn ports() -> PortTable {
    let mut ports = PortTable::default();
    for number in PORTS {
        let (name, role) = (format!("p{number}"), PortRole::Workload);
        let info = PortInfo { name, role, up: true, mtu: 1500, partial_checksums: false };
        ports.insert(PortNo::new(*number).unwrap(), info);
    }
    ports
}

/// A switch of ours with its rules.
pub(crate) struct Ours {
    switch: Switch,
    snapshot: Arc<Snapshot>,
    now: Timestamp,
}

impl Ours {
    /// Reads the rules, a line each; groups and meters as well.
    pub(crate) fn new(lines: &str) -> Self {
        let ports = ports();
        let mut changes = Vec::new();
        for line in lines.lines().filter(|line| !line.is_empty()) {
            let wrong = |error: text::TextError| panic!("{line}: {error}");
            changes.push(if line.starts_with("group_id") {
                Change::Group(GroupChange::Set(text::parse_group(line, &ports).unwrap_or_else(wrong)))
            } else if line.starts_with("meter=") {
                Change::Meter(MeterChange::Set(text::parse_meter(line).unwrap_or_else(|error| {
                    panic!("{line}: {error}");
                })))
            } else {
                Change::Add(text::parse_flow(line, &ports).unwrap_or_else(|error| panic!("{line}: {error}")))
            });
        }
        // Groups that others lead to come first, after meters.
        changes.sort_by_key(|change| match change {
            Change::Meter(_) => (0, std::cmp::Reverse(0)),
            Change::Group(GroupChange::Set(group)) => (1, std::cmp::Reverse(group.id.get())),
            _ => (2, std::cmp::Reverse(0)),
        });
        let tables = Tables::default().transact(changes).unwrap_or_else(|error| panic!("{error}\n{lines}"));
        let snapshot = Snapshot {
            epoch: Epoch::new(1).unwrap(),
            tables: Arc::new(tables),
            ports: Arc::new(ports),
            ..Snapshot::default()
        };
        let tracker = Conntrack::new(Config::default(), Storage::on_heap(N_CONNECTIONS));
        let switch = Switch::with_seed(SwitchConfig::default(), 1).with_conntrack(Arc::new(tracker));
        Self { switch, snapshot: Arc::new(snapshot), now: Timestamp::from_nanos(0) }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, millis: u64) {
        self.now = Timestamp::from_nanos(self.now.nanos() + millis * 1_000_000);
    }

    /// How rules see fragments.
    pub(crate) fn set_fragments(&mut self, mode: FragmentMode) {
        let tables = (*self.snapshot.tables).clone().transact(vec![Change::Fragments(mode)]).unwrap();
        self.publish(tables);
    }

    /// Takes what packets have learned into the tables.
    pub(crate) fn settle(&mut self) {
        let learning = self.snapshot.tables.learn(&self.switch.take_learned(), self.now);
        if let Some(commit) = learning.commit {
            self.publish(commit.tables);
        }
    }

    fn publish(&mut self, tables: Tables) {
        let epoch = Epoch::new(self.snapshot.epoch.get() + 1).unwrap();
        self.snapshot = Arc::new(Snapshot { epoch, tables: Arc::new(tables), ..(*self.snapshot).clone() });
    }

    /// What leaves, sorted.
    pub(crate) fn send(&mut self, port: u32, frame: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let port = PortNo::new(port).unwrap();
        let (mut batch, mut sink) = (vec![numbered(frame, port, 0)], Collector { sent: vec![Vec::new()] });
        self.switch.process(self.now, &self.snapshot, port, &mut batch, &mut sink);
        let mut sent = sink.sent.remove(0);
        sent.sort();
        sent
    }

    /// Copies for controllers since the last time. Open vSwitch has none connected, and drops them.
    pub(crate) fn n_told(&mut self) -> usize {
        self.switch.take_packet_ins().len()
    }
}

/// Both, with the same rules.
pub(crate) struct Pair<'a> {
    ovs: &'a mut Ovs,
    /// Ours.
    pub(crate) ours: Ours,
    rules: String,
}

impl<'a> Pair<'a> {
    /// Hands the same lines to both: rules, and groups with those that others lead to first.
    pub(crate) fn new(ovs: &'a mut Ovs, protocol: Protocol, lines: &str) -> Self {
        let ours = Ours::new(lines);
        let (groups, flows): (Vec<&str>, Vec<&str>) =
            lines.lines().partition(|line| line.starts_with("group_id"));
        ovs.set_rules(protocol, &groups.join("\n"), &flows.join("\n"))
            .unwrap_or_else(|error| panic!("{error:#}\n{lines}"));
        Self { ovs, ours, rules: lines.to_owned() }
    }

    /// Both know what packets have taught.
    pub(crate) fn settle(&mut self) {
        self.ovs.settle().unwrap();
        self.ours.settle();
    }

    /// Both do the same with one packet; what that is.
    pub(crate) fn send(&mut self, arrival: &Arrival) -> Vec<(u32, Vec<u8>)> {
        check(self.ovs, &mut self.ours, &self.rules, arrival)
    }
}

/// Both switches do the same with one packet; what that is.
pub(crate) fn check(
    ovs: &mut Ovs,
    ours: &mut Ours,
    rules: &str,
    Arrival { port, frame }: &Arrival,
) -> Vec<(u32, Vec<u8>)> {
    let (theirs, ours) = (ovs.send(*port, frame).unwrap(), ours.send(*port, frame));
    if theirs != ours {
        differ(ovs, rules, &Arrival { port: *port, frame: frame.clone() }, [&theirs, &ours]);
    }
    theirs
}

/// Frames that left, and by which port.
pub(crate) type Sent = Vec<(u32, Vec<u8>)>;

/// Says what differs.
pub(crate) fn differ(ovs: &mut Ovs, rules: &str, Arrival { port, frame }: &Arrival, sent: [&Sent; 2]) -> ! {
    let [theirs, ours] = sent.map(|sent| -> String {
        sent.iter().map(|(port, frame)| format!("\n  {port} {}", hex(frame))).collect()
    });
    let trace = ovs.call("ofproto/trace", &["br0", &format!("in_port={port}"), &hex(frame)]);
    panic!(
        "port {port} {}\nOpen vSwitch sends{theirs}\nwe send{ours}\n{rules}\n{}",
        hex(frame),
        trace.unwrap_or_default()
    );
}
