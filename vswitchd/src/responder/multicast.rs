//! What workloads say they want to hear (IGMP, MLD), for each switch that listens; and the
//! questions that this host asks its workloads, where the switch is a querier.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use bridge_protocols::multicast::{Config, Groups, Interest, Message, Querier};
use flowtable::{
    field::Field,
    types::{PortNo, Timestamp, VlanId},
};
use ovn_northd_lite::{
    key::{DatapathKey, PortKey},
    model::Snooping,
    sent_to_workload,
};

use super::{Effect, PacketOut, Reply, packet::Context};

/// A switch that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// How.
    pub snooping: Snooping,
    /// Workloads of this host, which are listened to and asked.
    pub ports: BTreeSet<PortKey>,
    /// What they were known to hear before this host has listened.
    pub known: Vec<(PortKey, IpAddr)>,
}

/// Switches that listen.
pub type Listeners = BTreeMap<DatapathKey, Listener>;

/// Who of this host's workloads hears a group from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hearers {
    /// The switch.
    pub datapath: DatapathKey,
    /// The group; unspecified: all, for routers.
    pub group: IpAddr,
    /// The ports.
    pub ports: BTreeSet<PortKey>,
}

/// What is known of all switches.
#[derive(Debug, Default)]
pub(super) struct Multicast(BTreeMap<DatapathKey, Switch>);

#[derive(Debug)]
struct Switch {
    groups: Groups,
    ports: BTreeSet<PortKey>,
}

impl Multicast {
    /// Listens to these, and to no others. What changes by that.
    pub(super) fn set(&mut self, now: Timestamp, listeners: Listeners) -> Vec<Effect> {
        let mut effects = Vec::new();
        let gone: Vec<_> = self.0.keys().filter(|key| !listeners.contains_key(key)).copied().collect();
        for key in gone {
            let Some(mut switch) = self.0.remove(&key) else { continue };
            switch.groups.clear();
            effects.extend(switch.effects(key));
        }
        for (key, listener) in listeners {
            let config = config(&listener.snooping);
            let switch = self.0.entry(key).or_insert_with(|| {
                let mut groups = Groups::new(config.clone());
                for (port, group) in &listener.known {
                    let report = Message::Report(vec![(*group, Interest::Joins)]);
                    port_no(*port)
                        .into_iter()
                        .for_each(|port| groups.hear(now, (VlanId::NONE, port), &report));
                }
                Switch { groups, ports: BTreeSet::new() }
            });
            if *switch.groups.config() != config {
                switch.groups.set_config(config);
            }
            let left = switch.ports.difference(&listener.ports).filter_map(|port| port_no(*port));
            left.for_each(|port| switch.groups.forget_port(port));
            switch.ports = listener.ports;
            effects.extend(switch.effects(key));
        }
        effects
    }

    /// Takes in what a packet says. It goes on, marked when somebody asks by it.
    pub(super) fn hear(&mut self, now: Timestamp, context: &Context<'_>) -> Vec<Effect> {
        let message = Message::parse(context.frame());
        let is_query = matches!(message, Some(Message::Query { .. }));
        let reply = if is_query { Reply::Made(context.frame().to_vec()) } else { Reply::Pass };
        let mut effects = context.replied(reply);
        let port = u16::try_from(context.value(Field::Reg14)).ok().and_then(|raw| PortKey::new(raw).ok());
        let (Some(datapath), Some(port), Some(message)) = (context.datapath(), port, message) else {
            return effects;
        };
        if let Some(switch) = self.0.get_mut(&datapath).filter(|switch| switch.ports.contains(&port)) {
            if let Some(port) = port_no(port) {
                switch.groups.hear(now, (VlanId::NONE, port), &message);
            }
            effects.extend(switch.effects(datapath));
        }
        effects
    }

    /// Forgets who has said nothing for too long, and asks when it is time to.
    pub(super) fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let switches = self.0.iter_mut();
        let effects = switches.flat_map(|(key, switch)| {
            switch.groups.tick(now);
            switch.effects(*key)
        });
        effects.collect()
    }
}

impl Switch {
    /// What has changed since, and questions to all workloads.
    fn effects(&mut self, datapath: DatapathKey) -> Vec<Effect> {
        let changes = self.groups.take_changes().into_iter().map(|change| {
            let ports = change.ports.into_iter().flatten().filter_map(port_key);
            let group = change.group.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            Effect::Hears(Hearers { datapath, group, ports: ports.collect() })
        });
        let mut effects: Vec<_> = changes.collect();
        for (_, frame) in self.groups.take_queries() {
            effects.extend(self.ports.iter().map(|port| {
                let actions = sent_to_workload(datapath, *port);
                Effect::Send(PacketOut { in_port: PortNo::CONTROLLER, actions, frame: frame.clone() })
            }));
        }
        effects
    }
}

fn config(snooping: &Snooping) -> Config {
    let querier = snooping.querier.as_ref().map(|querier| Querier {
        mac: querier.mac,
        address: querier.v4.unwrap_or(Ipv4Addr::UNSPECIFIED),
        vlans: [VlanId::NONE].into(),
        address_v6: querier.v6,
        interval: Duration::from_secs(querier.interval.into()),
        max_response: Duration::from_secs(querier.max_response.into()),
    });
    Config {
        max_groups: usize::try_from(snooping.max_groups).unwrap_or(usize::MAX),
        max_age: Duration::from_secs(snooping.max_age.into()),
        fast_leave: false,
        querier,
    }
}

fn port_no(key: PortKey) -> Option<PortNo> {
    PortNo::new(key.get().into()).ok()
}

fn port_key(port: PortNo) -> Option<PortKey> {
    u16::try_from(port.get()).ok().and_then(|raw| PortKey::new(raw).ok())
}
