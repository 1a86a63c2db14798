//! Who is at the other ends of a bridge's ports: discovery, continuity checks, and for which ports
//! the host has sessions that say whether somebody is there (`crate::bfd`).

use std::collections::BTreeMap;

use bridge_protocols::{
    cfm::{Ccm, EndPoint},
    lldp::{self, Agent, Counters, Neighbour, Unit},
};
use flowtable::{
    port::{Bridging, PortRole, PortTable},
    types::{MacAddr, PortNo, Timestamp},
};

use super::{
    Links,
    bonds::{id_of, number_of},
    settings::BridgeSettings,
};
use crate::{bfd::LinkPeer, host::Bridge};

/// Bit of `Bridging::listens`: nearest bridges.
const LISTENS_LLDP: u16 = 1 << 0xe;

/// Discovery and continuity checks of a bridge.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    lldp: Option<Agent>,
    /// Ends, by the name of their ports.
    ends: BTreeMap<String, (PortNo, EndPoint)>,
}

impl Neighbours {
    /// Takes over what it is told; answers with frames that say that what was told is not true any
    /// more.
    pub(super) fn set_settings(
        &mut self,
        settings: &BridgeSettings,
        (address, host): (MacAddr, &str),
    ) -> Vec<(PortNo, Vec<u8>)> {
        let told = &settings.lldp;
        let name = if told.system_name.is_empty() { host } else { &told.system_name };
        let config = lldp::Config {
            address,
            system_name: name.to_owned(),
            system_description: concat!("Ferroflow ", env!("CARGO_PKG_VERSION")).to_owned(),
            management: told.management.iter().copied().collect(),
            interval: std::time::Duration::from_secs(told.interval),
            hold: told.hold,
        };
        let last = if told.enabled { Vec::new() } else { self.end() };
        match (&mut self.lldp, told.enabled) {
            (known, false) => *known = None,
            (Some(known), true) => known.set_config(config),
            (known, true) => *known = Some(Agent::new(config)),
        }
        self.ends.retain(|name, (_, end)| {
            let wanted = settings.cfm.get(name).map(|port| port.config(address));
            wanted.as_ref() == Some(&Ok(end.config().clone()))
        });
        last
    }

    /// There is something to do from time to time.
    pub(super) fn is_on(&self, settings: &BridgeSettings) -> bool {
        self.lldp.is_some() || !settings.cfm.is_empty()
    }

    /// Takes over which links there are.
    pub(super) fn configure(
        &mut self,
        settings: &BridgeSettings,
        address: MacAddr,
        (links, now): (&Links, Timestamp),
    ) {
        if let Some(agent) = &mut self.lldp {
            for gone in agent
                .ports()
                .filter(|id| !links.values().any(|(port, _)| id_of(*port) == *id))
                .collect::<Vec<_>>()
            {
                agent.remove_port(gone);
            }
            for (name, (port, up)) in links {
                agent.set_port(id_of(*port), settings.lldp.port(name, *up));
            }
        }
        self.ends.retain(|name, (port, _)| links.get(name).is_some_and(|(known, _)| known == port));
        for (name, wanted) in &settings.cfm {
            let (Some((port, _)), Ok(config)) = (links.get(name), wanted.config(address)) else { continue };
            self.ends.entry(name.clone()).or_insert_with(|| (*port, EndPoint::new(config, now)));
        }
    }

    /// Does what is due; answers with frames to send.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<(PortNo, Vec<u8>)> {
        let mut frames = Vec::new();
        if let Some(agent) = &mut self.lldp {
            agent.tick(now);
            let taken = agent.take_frames().into_iter();
            frames.extend(taken.filter_map(|(id, frame)| Some((number_of(id)?, frame))));
        }
        for (port, end) in self.ends.values_mut() {
            frames.extend(end.tick(now).map(|frame| (*port, frame)));
        }
        frames
    }

    /// A frame has come; `true`: it was for this.
    pub(super) fn hear(&mut self, now: Timestamp, port: PortNo, frame: &[u8]) -> bool {
        if let (Some(agent), Some(unit)) = (&mut self.lldp, Unit::parse(frame)) {
            agent.receive(now, id_of(port), unit);
            return true;
        }
        let Some(ccm) = Ccm::parse(frame) else { return false };
        let end = self.ends.values_mut().find(|(known, _)| *known == port);
        end.map(|(_, end)| end.receive(now, &ccm)).is_some()
    }

    /// Frames that say that what was told is not true any more.
    pub(super) fn end(&mut self) -> Vec<(PortNo, Vec<u8>)> {
        let Some(agent) = &mut self.lldp else { return Vec::new() };
        agent.take_frames();
        agent.end();
        agent.take_frames().into_iter().filter_map(|(id, frame)| Some((number_of(id)?, frame))).collect()
    }

    /// Something is wrong at a port.
    pub(super) fn is_faulty(&self, name: &str) -> bool {
        self.ends.get(name).is_some_and(|(_, end)| !end.faults().is_empty())
    }

    /// Has ports listen.
    pub(super) fn furnish(&self, settings: &BridgeSettings, table: &mut PortTable) {
        let is_real = |port: &PortNo| table.bond(*port).is_none();
        let workloads = table.iter().filter(|(_, info)| info.role == PortRole::Workload);
        let ports: Vec<_> = workloads.map(|(port, info)| (port, info.name.clone())).collect();
        let ports: Vec<_> = ports.into_iter().filter(|(port, _)| is_real(port)).collect();
        for (port, name) in ports {
            let own = table.bridging(port).clone();
            let receives = self.lldp.is_some() && settings.lldp.port(&name, true).receives;
            let listens = own.listens | if receives { LISTENS_LLDP } else { 0 };
            let fault_level = settings.cfm.get(&name).map(|port| port.level);
            let has_bfd = settings.bfd.contains_key(&name);
            table.set_bridging(port, Bridging { listens, fault_level, has_bfd, ..own });
        }
    }
}

/// What a bridge knows of those at the other ends of its ports, for dumps.
impl Bridge {
    /// Neighbours that are told of by discovery, by port.
    pub fn neighbours(&self) -> impl Iterator<Item = (PortNo, Vec<&Neighbour>, Counters)> {
        let agent = self.protocols.neighbours.lldp.iter();
        agent.flat_map(|agent| {
            let ids = agent.ports();
            ids.filter_map(|id| {
                let (heard, counters) = agent.port(id)?;
                Some((number_of(id)?, heard, counters))
            })
        })
    }

    /// Ends of associations that watch over themselves, by the names of their ports.
    pub fn ends(&self) -> impl Iterator<Item = (&str, &EndPoint)> {
        self.protocols.neighbours.ends.iter().map(|(name, (_, end))| (name.as_str(), end))
    }

    /// Sessions that ports are told to have.
    pub(in crate::host) fn wanted_sessions(&self, links: &Links) -> BTreeMap<PortNo, LinkPeer> {
        let own = self.protocols.address;
        let wanted = self.protocols.settings.bfd.iter();
        wanted.filter_map(|(name, told)| Some((links.get(name)?.0, told.peer(own).ok()?))).collect()
    }
}
