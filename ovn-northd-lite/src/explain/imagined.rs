//! The imagined host: all that two workloads can reach, and its switch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowtable::{
    build,
    conntrack::{Config, Conntrack, Storage},
    flow::Rule,
    packet::Packet,
    port::{PortInfo, PortRole, PortTable},
    snapshot::Snapshot,
    switch::{Sink, Switch, SwitchConfig},
    table::{Change, GroupChange, MeterChange, SetChange, Tables},
    types::{Epoch, PortNo, Timestamp},
};

use super::ExplainError;
use crate::{
    LocalPorts,
    build::whole::ids,
    key::{DatapathKey, PortKey},
    lower::lower,
    punt::Request,
    southbound::{ChassisRecord, LogicalFlow, Southbound},
    template,
};

/// Name of the imagined host. No chassis has it: its id would have to be one.
const HERE: &str = "(here)";
/// Largest packet of any workload: sizes are no subject here.
const MTU: u32 = 65_535;
/// Passes of one packet, and connections of both, at most.
const N_PASSES: usize = 1 << 10;
const N_CONNECTIONS: usize = 1 << 10;

/// Ports of the switch by logical port.
pub(super) type Ports = BTreeMap<String, PortNo>;

/// A flow that a packet met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the switch or router, `switches/web`.
    pub datapath: String,
    /// Stage, `ls_in_acl_eval`.
    pub stage: String,
    /// The object that the flow is for, `switches/web/acls/no-telnet`.
    pub object: String,
    /// Which packets.
    pub matching: String,
    /// What is done with them.
    pub actions: String,
    /// Why there is such a flow.
    pub why: String,
}

/// What became of a frame.
#[derive(Debug, Default)]
pub(super) struct Passage {
    pub(super) steps: Vec<Step>,
    /// Frames that left, by logical port.
    pub(super) left: Vec<(String, Vec<u8>)>,
    /// Service that a host was asked for.
    pub(super) host: Option<&'static str>,
    /// Why nothing left.
    pub(super) dropped: Option<&'static str>,
}

/// The switch of the imagined host.
pub(super) struct Imagined {
    view: Southbound,
    snapshot: Arc<Snapshot>,
    ports: Ports,
    /// Keeps the connections of the first packet for the answer.
    connections: Arc<Conntrack>,
}

impl Imagined {
    /// A host with these ports and this view, which has them [`HERE`].
    pub(super) fn new(view: Southbound, ports: Ports) -> Result<Self, ExplainError> {
        let local = LocalPorts { chassis: HERE.to_owned(), ports: ports.clone(), ..LocalPorts::default() };
        let lowered = lower(&view, &local);
        let meters = lowered.meters.into_iter().map(|meter| Change::Meter(MeterChange::Add(meter)));
        let sets = lowered.sets.into_iter().map(|set| Change::Set(SetChange::Add(set)));
        let groups = lowered.groups.into_iter().map(|group| Change::Group(GroupChange::Add(group)));
        let rules = lowered.rules.into_iter().map(Change::Add);
        let changes = meters.chain(sets).chain(groups).chain(rules).collect();
        let tables =
            Tables::default().transact(changes).map_err(|error| ExplainError::Refused(error.to_string()))?;
        let mut table = PortTable::default();
        for (id, port) in &ports {
            let role = PortRole::Workload;
            let name = id.clone();
            table.insert(*port, PortInfo { name, role, up: true, mtu: MTU, partial_checksums: false });
        }
        let snapshot = Snapshot {
            epoch: Epoch::ZERO.next(),
            tables: Arc::new(tables),
            ports: Arc::new(table),
            ..Snapshot::default()
        };
        Ok(Self { view, snapshot: Arc::new(snapshot), ports, connections: tracker() })
    }

    /// Forgets all connections.
    pub(super) fn forget(&mut self) {
        self.connections = tracker();
    }

    /// Lets a frame of a workload in.
    pub(super) fn pass(&self, from: &str, frame: &[u8]) -> Passage {
        let Some(port) = self.ports.get(from).copied() else { return Passage::default() };
        // New caches show what this packet alone has met; connections go on.
        let caches = SwitchConfig { n_sessions: 0, n_megaflows: N_PASSES };
        let mut switch = Switch::with_seed(caches, 0).with_conntrack(Arc::clone(&self.connections));
        let mut left = Left::default();
        let mut batch = vec![build::packet(frame, port)];
        switch.process(Timestamp::default(), &self.snapshot, port, &mut batch, &mut left);
        let asked = switch.take_packet_ins();
        let mut asked = asked.iter().filter_map(|asked| Request::decode(&asked.punt.to.userdata));
        let host = asked.next().map(|request| request.service.name());
        let drop = switch.drops().into_iter().next();
        let mut steps = self.steps(&switch);
        let cause = drop.as_ref().and_then(|drop| drop.rule.as_ref());
        if let Some(step) = cause.and_then(|rule| self.step(rule))
            && steps.last() != Some(&step)
        {
            steps.retain(|other| *other != step);
            steps.push(step);
        }
        let name = |port: PortNo| {
            let found = self.ports.iter().find(|(_, known)| **known == port);
            found.map_or_else(|| port.to_string(), |(id, _)| id.clone())
        };
        let left = left.0.into_iter().map(|(port, frame)| (name(port), frame)).collect();
        Passage { steps, left, host, dropped: drop.map(|drop| drop.reason.describe()) }
    }

    /// Steps of all passes in their order: later ones have larger numbers.
    fn steps(&self, switch: &Switch) -> Vec<Step> {
        let mut passes = switch.megaflows();
        passes.sort_by_key(|pass| pass.key.recirc_id.get());
        let rules = passes.iter().flat_map(|pass| &pass.rules);
        rules.filter_map(|rule| self.step(rule)).collect()
    }

    /// A rule as a step, where an object had a say that is not just the switch or router.
    fn step(&self, rule: &Arc<Rule>) -> Option<Step> {
        let flow: &LogicalFlow = self.view.flows.get(&rule.origin.logical_flow)?;
        let datapath = self.view.datapaths.get(&flow.datapath)?.name.clone();
        (*flow.object != *datapath && !flow.object.is_empty()).then(|| Step {
            datapath,
            stage: flow.stage_name.to_string(),
            object: flow.object.to_string(),
            matching: flow.matching.clone(),
            actions: flow.actions.clone(),
            why: flow.why.to_string(),
        })
    }
}

fn tracker() -> Arc<Conntrack> {
    let config = Config { seed: 0, ..Config::default() };
    Arc::new(Conntrack::new(config, Storage::on_heap(N_CONNECTIONS)))
}

/// All that can be reached from these ports, with them, and no other workload, on this host.
/// Variables have the values of a chassis.
pub(super) fn view(sb: &Southbound, ports: &Ports, chassis: &str) -> Southbound {
    let mut links: BTreeMap<DatapathKey, Vec<DatapathKey>> = BTreeMap::new();
    for binding in sb.bindings.values() {
        let peer = binding.peer.as_ref().and_then(|peer| sb.bindings.get(peer));
        links.entry(binding.datapath).or_default().extend(peer.map(|peer| peer.datapath));
    }
    let mut frontier: Vec<_> =
        ports.keys().filter_map(|id| sb.bindings.get(id)).map(|binding| binding.datapath).collect();
    let mut needed = BTreeSet::new();
    while let Some(key) = frontier.pop() {
        if needed.insert(key) {
            frontier.extend(links.get(&key).into_iter().flatten());
        }
    }
    let mut view = Southbound::default();
    for (id, binding) in sb.bindings.iter().filter(|(_, binding)| needed.contains(&binding.datapath)) {
        let is_here = ports.contains_key(id) || binding.peer.is_some() && binding.chassis.is_some();
        let mut binding = binding.clone();
        binding.chassis = is_here.then(|| HERE.to_owned());
        binding.gateway.truncate(1);
        binding.gateway.iter_mut().for_each(|candidate| candidate.chassis = HERE.to_owned());
        view.bindings.insert(id.clone(), binding);
    }
    for key in &needed {
        view.datapaths.extend(sb.datapaths.get(key).map(|datapath| (*key, datapath.clone())));
        view.flows.extend(sb.flows.range(ids(*key)).map(|(id, flow)| (*id, Arc::clone(flow))));
        let groups = PortKey::new(1).into_iter().flat_map(|first| sb.groups.range((*key, first)..));
        let groups = groups.take_while(|((of, _), _)| of == key);
        view.groups.extend(groups.map(|(id, group)| (*id, group.clone())));
    }
    let named: BTreeSet<_> = view.datapaths.values().flat_map(|datapath| &datapath.sets).collect();
    view.sets = sb
        .sets
        .iter()
        .filter(|(name, _)| named.contains(name))
        .map(|(name, set)| (name.clone(), template::seen_by(chassis, name, set).into_owned()))
        .collect();
    let record = ChassisRecord::at([192, 0, 2, 1]);
    view.chassis.insert(HERE.to_owned(), record);
    view
}

/// What left.
#[derive(Default)]
struct Left(Vec<(PortNo, Vec<u8>)>);

impl Sink<Vec<u8>> for Left {
    fn output(&mut self, port: PortNo, packet: Packet<Vec<u8>>) {
        self.0.push((port, packet.bytes().to_vec()));
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        let mut copy = build::packet(packet.bytes(), packet.in_port);
        (copy.layout, copy.offload) = (packet.layout, packet.offload);
        Some(copy)
    }

    fn release(&mut self, _packet: Packet<Vec<u8>>) {}
}
