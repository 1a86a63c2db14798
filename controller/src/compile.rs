//! The compiler's model of the network, kept in step with the state.

use std::collections::{BTreeMap, BTreeSet};

use ovn_northd_lite::{
    Dirty,
    key::{DatapathKey, PortKey},
    model::{
        Access, Acl, LogicalRouter, LogicalSwitch, Northbound, PortAddresses, PortGroup, RouterPort,
        SwitchPort, SwitchPortKind,
    },
    southbound::ChassisRecord,
};

use crate::{
    resource::{
        self, Attachment, ChassisSpec, Kind, Name, PortGroupSpec, RouterPortSpec, Spec, SwitchPortSpec,
    },
    state::{Change, Record, SessionState},
};

/// Checks the match of an ACL.
///
/// # Errors
/// What is wrong, and where.
pub fn check_match(text: &str) -> Result<(), String> {
    ovn_northd_lite::expr::check_match(text).map_err(|error| error.to_string())
}

/// The compiler's input.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) network: Northbound,
    pub(crate) chassis: BTreeMap<String, ChassisRecord>,
}

impl Model {
    /// Starts again from all records, parents before children; everything that was or is
    /// there is dirty.
    pub(crate) fn rebuild<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Dirty {
        let old = std::mem::take(self);
        let mut dirty = Dirty::default();
        dirty.switches.extend(old.network.switches.into_keys());
        dirty.routers.extend(old.network.routers.into_keys());
        dirty.address_sets.extend(old.network.address_sets.into_keys());
        dirty.port_groups.extend(old.network.port_groups.into_keys());
        dirty.load_balancers.extend(old.network.load_balancers.into_keys());
        dirty.balancer_groups.extend(old.network.balancer_groups.into_keys());
        dirty.ha_groups.extend(old.network.ha_groups.into_keys());
        dirty.template_variables.extend(old.network.template_variables.into_keys());
        dirty.sample_collectors.extend(old.network.sample_collectors.into_keys());
        dirty.dhcp_options.extend(old.network.dhcp_options.into_keys());
        dirty.names.extend(old.network.names.into_keys());
        dirty.limits.extend(old.network.limits.into_keys());
        dirty.chassis.extend(old.chassis.into_keys());
        dirty.heard.extend(old.network.heard.into_keys());
        for record in records {
            self.put(record, &mut dirty);
        }
        dirty
    }

    pub(crate) fn apply(&mut self, change: &Change, dirty: &mut Dirty) {
        match &change.after {
            Some(record) => self.put(record, dirty),
            None => self.remove(&change.name, dirty),
        }
    }

    fn put(&mut self, record: &Record, dirty: &mut Dirty) {
        let name = &record.name;
        let id = name.id().to_owned();
        let key = DatapathKey::new(record.key);
        let parent = name.parent();
        let parent = parent.as_ref().map_or("", Name::id);
        let Northbound {
            switches,
            routers,
            address_sets,
            port_groups,
            load_balancers,
            balancer_groups,
            ha_groups,
            template_variables,
            sample_collectors,
            dhcp_options,
            names,
            limits,
            heard,
        } = &mut self.network;
        let is_changed = match &record.spec {
            Spec::Switch(spec) => match key {
                Ok(key) => {
                    let is_new = switches.get(&id).is_none_or(|switch| switch.key != key);
                    let switch = switches.entry(id.clone()).or_insert_with(|| new_switch(key));
                    switch.key = key;
                    let is_changed = replace(&mut switch.default_policy, spec.default_policy)
                        | replace(&mut switch.load_balancers, spec.load_balancers.clone())
                        | replace(&mut switch.balancer_groups, spec.balancer_groups.clone())
                        | replace(&mut switch.services, spec.services.clone())
                        | replace(&mut switch.options, spec.options.clone());
                    if is_changed {
                        dirty.switch_settings.insert(id);
                    }
                    is_new
                }
                Err(_) => switches.remove(&id).is_some(),
            },
            Spec::Router(spec) => match key {
                Ok(key) => {
                    let is_new = routers.get(&id).is_none_or(|router| router.key != key);
                    let router = routers.entry(id.clone()).or_insert_with(|| new_router(key));
                    router.key = key;
                    let is_changed = replace(&mut router.enabled, spec.enabled)
                        | replace(&mut router.static_routes, spec.static_routes.clone())
                        | replace(&mut router.chassis, spec.chassis.clone())
                        | replace(&mut router.load_balancers, spec.load_balancers.clone())
                        | replace(&mut router.balancer_groups, spec.balancer_groups.clone())
                        | replace(&mut router.limits, spec.limits.clone())
                        | replace(&mut router.options, spec.options.clone());
                    if is_changed {
                        dirty.router_settings.insert(id);
                    }
                    is_new
                }
                Err(_) => routers.remove(&id).is_some(),
            },
            Spec::SwitchPort(spec) => switches
                .get_mut(parent)
                .zip(switch_port(record, spec))
                .is_some_and(|(switch, port)| insert(&mut switch.ports, id, port)),
            Spec::RouterPort(spec) => {
                let news: BTreeMap<_, _> = record.heard.iter().map(|(ip, heard)| (*ip, heard.mac)).collect();
                let is_news = match news.is_empty() {
                    true => heard.remove(&id).is_some(),
                    false => insert(heard, id.clone(), news),
                };
                if is_news {
                    dirty.heard.insert(id.clone());
                }
                let router = routers.get_mut(parent).zip(router_port(record, spec));
                router.is_some_and(|(router, port)| insert(&mut router.ports, id, port))
            }
            Spec::Acl(acl) => match name.parent().map(|parent| parent.kind()) {
                Some(Kind::PortGroup) => {
                    port_groups.get_mut(parent).is_some_and(|group| insert(&mut group.acls, id, acl.clone()))
                }
                _ => switches.get_mut(parent).is_some_and(|switch| insert(&mut switch.acls, id, acl.clone())),
            },
            Spec::QosRule(rule) => {
                switches.get_mut(parent).is_some_and(|switch| insert(&mut switch.qos_rules, id, rule.clone()))
            }
            Spec::LoadBalancer(_) => {
                record.balancer().is_some_and(|balancer| insert(load_balancers, id, balancer))
            }
            Spec::LoadBalancerGroup(members) => {
                insert(balancer_groups, id, members.iter().map(|name| name.id().to_owned()).collect())
            }
            Spec::HaChassisGroup(hosts) => insert(ha_groups, id, hosts.clone()),
            Spec::TemplateVariable(values) => insert(template_variables, id, values.clone()),
            Spec::SampleCollector(collector) => insert(sample_collectors, id, collector.clone()),
            Spec::Nat(rule) => {
                routers.get_mut(parent).is_some_and(|router| insert(&mut router.nats, id, rule.clone()))
            }
            Spec::RouterPolicy(policy) => {
                routers.get_mut(parent).is_some_and(|router| insert(&mut router.policies, id, policy.clone()))
            }
            Spec::DhcpOptions(options) => insert(dhcp_options, id, options.clone()),
            Spec::Names(records) => insert(names, id, records.clone()),
            Spec::Limits(bounds) => insert(limits, id, bounds.clone()),
            Spec::AddressSet(members) => insert(address_sets, id, members.clone()),
            Spec::PortGroup(spec) => {
                let acls = port_groups.get(&id).map(|group| group.acls.clone()).unwrap_or_default();
                insert(port_groups, id, port_group(spec, acls))
            }
            Spec::Chassis(spec) => {
                let ChassisSpec { encap_ip, encap_types, .. } = spec.clone();
                insert(&mut self.chassis, id, ChassisRecord { encap_ip, encap_types })
            }
        };
        if is_changed {
            mark(name, dirty);
        }
    }

    fn remove(&mut self, name: &Name, dirty: &mut Dirty) {
        mark(name, dirty);
        let id = name.id();
        let parent = name.parent();
        let parent = parent.as_ref().map_or("", Name::id);
        let of_group = name.parent().is_some_and(|parent| parent.kind() == Kind::PortGroup);
        let Northbound {
            switches,
            routers,
            address_sets,
            port_groups,
            load_balancers,
            balancer_groups,
            ha_groups,
            template_variables,
            sample_collectors,
            dhcp_options,
            names,
            limits,
            heard,
        } = &mut self.network;
        match name.kind() {
            Kind::Acl if of_group => {
                drop(port_groups.get_mut(parent).and_then(|group| group.acls.remove(id)));
            }
            Kind::AddressSet => drop(address_sets.remove(id)),
            Kind::PortGroup => drop(port_groups.remove(id)),
            Kind::Switch => drop(switches.remove(id)),
            Kind::SwitchPort => drop(switches.get_mut(parent).and_then(|switch| switch.ports.remove(id))),
            Kind::Acl => drop(switches.get_mut(parent).and_then(|switch| switch.acls.remove(id))),
            Kind::QosRule => drop(switches.get_mut(parent).and_then(|switch| switch.qos_rules.remove(id))),
            Kind::Router => drop(routers.remove(id)),
            Kind::RouterPort => {
                if heard.remove(id).is_some() {
                    dirty.heard.insert(id.to_owned());
                }
                drop(routers.get_mut(parent).and_then(|router| router.ports.remove(id)));
            }
            Kind::LoadBalancer => drop(load_balancers.remove(id)),
            Kind::LoadBalancerGroup => drop(balancer_groups.remove(id)),
            Kind::HaChassisGroup => drop(ha_groups.remove(id)),
            Kind::TemplateVariable => drop(template_variables.remove(id)),
            Kind::SampleCollector => drop(sample_collectors.remove(id)),
            Kind::DhcpOptions => drop(dhcp_options.remove(id)),
            Kind::Names => drop(names.remove(id)),
            Kind::Limits => drop(limits.remove(id)),
            Kind::Nat => drop(routers.get_mut(parent).and_then(|router| router.nats.remove(id))),
            Kind::RouterPolicy => drop(routers.get_mut(parent).and_then(|router| router.policies.remove(id))),
            Kind::Chassis => drop(self.chassis.remove(id)),
        }
    }
}

/// Writes a value; true when it is another one than before.
fn replace<V: PartialEq>(slot: &mut V, value: V) -> bool {
    let is_changed = *slot != value;
    *slot = value;
    is_changed
}

/// Puts a value; true when it is not what was there.
fn insert<V: PartialEq>(map: &mut BTreeMap<String, V>, id: String, value: V) -> bool {
    let is_changed = map.get(&id) != Some(&value);
    map.insert(id, value);
    is_changed
}

fn mark(name: &Name, dirty: &mut Dirty) {
    let id = name.id().to_owned();
    let parent = name.parent();
    let in_parent = |id| (parent.as_ref().map_or("", Name::id).to_owned(), id);
    let is_of_group = parent.as_ref().is_some_and(|parent| parent.kind() == Kind::PortGroup);
    match name.kind() {
        Kind::Switch => drop(dirty.switches.insert(id)),
        Kind::SwitchPort => drop(dirty.switch_ports.insert(in_parent(id))),
        Kind::Acl if is_of_group => drop(dirty.group_acls.insert(in_parent(id))),
        Kind::Acl => drop(dirty.switch_acls.insert(in_parent(id))),
        Kind::QosRule => drop(dirty.qos_rules.insert(in_parent(id))),
        Kind::Router => drop(dirty.routers.insert(id)),
        Kind::RouterPort => drop(dirty.router_ports.insert(in_parent(id))),
        Kind::RouterPolicy => drop(dirty.policies.insert(in_parent(id))),
        Kind::Nat => drop(dirty.nats.insert(in_parent(id))),
        Kind::AddressSet => drop(dirty.address_sets.insert(id)),
        Kind::PortGroup => drop(dirty.port_groups.insert(id)),
        Kind::LoadBalancer => drop(dirty.load_balancers.insert(id)),
        Kind::LoadBalancerGroup => drop(dirty.balancer_groups.insert(id)),
        Kind::HaChassisGroup => drop(dirty.ha_groups.insert(id)),
        Kind::TemplateVariable => drop(dirty.template_variables.insert(id)),
        Kind::SampleCollector => drop(dirty.sample_collectors.insert(id)),
        Kind::DhcpOptions => drop(dirty.dhcp_options.insert(id)),
        Kind::Names => drop(dirty.names.insert(id)),
        Kind::Limits => drop(dirty.limits.insert(id)),
        Kind::Chassis => drop(dirty.chassis.insert(id)),
    }
}

fn new_switch(key: DatapathKey) -> LogicalSwitch {
    LogicalSwitch {
        key,
        ports: BTreeMap::new(),
        acls: BTreeMap::new(),
        qos_rules: BTreeMap::new(),
        default_policy: Default::default(),
        load_balancers: Default::default(),
        balancer_groups: Default::default(),
        services: Default::default(),
        options: Default::default(),
    }
}

fn new_router(key: DatapathKey) -> LogicalRouter {
    LogicalRouter {
        key,
        enabled: true,
        ports: BTreeMap::new(),
        static_routes: Vec::new(),
        chassis: None,
        policies: BTreeMap::new(),
        nats: BTreeMap::new(),
        load_balancers: BTreeSet::new(),
        balancer_groups: BTreeSet::new(),
        limits: None,
        options: Default::default(),
    }
}

fn port_group(spec: &PortGroupSpec, acls: BTreeMap<String, Acl>) -> PortGroup {
    let ports =
        spec.ports.iter().filter_map(|port| Some((port.id().to_owned(), port.parent()?.id().to_owned())));
    PortGroup { ports: ports.collect(), acls, default_policy: spec.default_policy }
}

fn port_key(record: &Record) -> Option<PortKey> {
    u16::try_from(record.key).ok().and_then(|raw| PortKey::new(raw).ok())
}

fn switch_port(record: &Record, spec: &SwitchPortSpec) -> Option<SwitchPort> {
    let kind = match &spec.attachment {
        Attachment::Workload { addresses, unknown, port_security, access, dynamic: _ } => {
            SwitchPortKind::Workload {
                addresses: addresses
                    .iter()
                    .chain(&record.chosen)
                    .cloned()
                    .chain(held(record, access))
                    .collect(),
                unknown: *unknown,
                port_security: port_security.clone(),
                chassis: record.binding.as_ref().map(|binding| binding.chassis.clone()),
                additional: record.additional.clone(),
                access: match access {
                    resource::Access::Interface => Access::Interface,
                    resource::Access::Nested(parent, tag) => {
                        let tag = (*tag).or(record.chosen_tag)?;
                        Access::Nested { parent: parent.id().to_owned(), tag }
                    }
                    resource::Access::EachChassis => Access::EachChassis,
                    resource::Access::External(candidates) => Access::External(candidates.clone()),
                    resource::Access::Virtual(ip, parents) => Access::Virtual {
                        ip: *ip,
                        parents: parents.iter().map(|parent| parent.id().to_owned()).collect(),
                    },
                },
            }
        }
        Attachment::Router(peer) => {
            SwitchPortKind::Router { router: peer.parent()?.id().to_owned(), port: peer.id().to_owned() }
        }
        Attachment::Switch(peer) => {
            SwitchPortKind::Switch { switch: peer.parent()?.id().to_owned(), port: peer.id().to_owned() }
        }
        Attachment::Network { network, tag, is_service, gateway } => {
            let (network, gateway) = (network.clone(), gateway.clone());
            SwitchPortKind::Network { network, tag: *tag, is_service: *is_service, gateway }
        }
    };
    let services = spec.services.clone();
    let options = spec.options.clone();
    let hears = record.heard.keys().copied().collect();
    Some(SwitchPort { key: port_key(record)?, kind, enabled: spec.enabled, services, options, hears })
}

/// The address of a virtual port, with the MAC address of who has it.
fn held(record: &Record, access: &resource::Access) -> Option<PortAddresses> {
    let resource::Access::Virtual(ip, _) = access else { return None };
    Some(PortAddresses { mac: record.holder.as_ref()?.mac, ips: vec![*ip] })
}

fn router_port(record: &Record, spec: &RouterPortSpec) -> Option<RouterPort> {
    let spec = spec.clone();
    let mut monitored = spec.monitored;
    for (peer, session) in &mut monitored {
        session.is_up = record.sessions.get(peer) == Some(&SessionState::Up);
    }
    Some(RouterPort {
        key: port_key(record)?,
        mac: spec.mac,
        networks: spec.networks,
        enabled: spec.enabled,
        gateway: spec.gateway,
        advertisement: spec.advertisement,
        static_macs: spec.static_macs,
        mtu: spec.mtu,
        mtu_bypass: spec.mtu_bypass,
        route_table: spec.route_table,
        hears_all: spec.hears_all,
        resides: spec.resides,
        bridges: spec.bridges,
        dhcp_server: spec.dhcp_server,
        monitored,
    })
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::{self as pb, resource::Spec as Wire};
    use proptest::prelude::*;
    use std::sync::Arc;

    use ovn_northd_lite::{chassis_view, southbound::Southbound};

    use super::*;
    use crate::{
        access::Author,
        controller::{Controller, Written},
        network::Network,
        state,
        store::{LogLimits, MemoryStore},
    };

    /// One step of a network's life.
    #[derive(Debug, Clone)]
    #[expect(clippy::large_enum_variant, reason = "a handful of them, in a test")]
    enum Step {
        Write(&'static str, Wire),
        Delete(&'static str),
        Bind(&'static str, Option<&'static str>),
        Register(&'static str, u8),
        /// All backends that are checked.
        Health(bool),
        /// A host hears of so many neighbours of a router port.
        Heard(&'static str, u8),
    }

    fn switch_port(octet: u8, router_port: &str) -> Wire {
        use pb::logical_switch_port::Type;
        let workload = router_port.is_empty();
        Wire::LogicalSwitchPort(pb::LogicalSwitchPort {
            r#type: if workload { Type::Unspecified } else { Type::Router }.into(),
            addresses: if workload {
                vec![format!("0a:00:00:00:00:{octet:02x} 10.0.0.{octet}")]
            } else {
                Vec::new()
            },
            router_port: router_port.to_owned(),
            ..Default::default()
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        let switch = || Wire::LogicalSwitch(Default::default());
        let router =
            |enabled| Wire::LogicalRouter(pb::LogicalRouter { enabled: Some(enabled), ..Default::default() });
        let router_port = |mac: &str, network: &str| {
            Wire::LogicalRouterPort(pb::LogicalRouterPort {
                mac: mac.to_owned(),
                networks: vec![network.to_owned()],
                ..Default::default()
            })
        };
        let acl = |priority| {
            Wire::Acl(pb::Acl {
                direction: pb::acl::Direction::ToLport.into(),
                priority,
                r#match: "ip4".to_owned(),
                action: pb::acl::Action::Drop.into(),
                ..Default::default()
            })
        };
        let of_sets = || {
            Wire::Acl(pb::Acl {
                direction: pb::acl::Direction::FromLport.into(),
                priority: 5,
                r#match: "inport == @g && ip4.dst == {$set, $g_ip4}".to_owned(),
                action: pb::acl::Action::AllowRelated.into(),
                ..Default::default()
            })
        };
        let set = |members: &[&str]| {
            let addresses = members.iter().map(|text| (*text).to_owned()).collect();
            Wire::AddressSet(pb::AddressSet { addresses })
        };
        let group = |ports: &[&str], default_policy| {
            let ports = ports.iter().map(|text| (*text).to_owned()).collect();
            Wire::PortGroup(pb::PortGroup { ports, default_policy })
        };
        let lb = || vec!["load-balancers/lb".to_owned()];
        let gateway = Wire::LogicalRouter(pb::LogicalRouter {
            chassis: "chassis/h1".to_owned(),
            load_balancers: lb(),
            ..Default::default()
        });
        let balanced = Wire::LogicalSwitch(pb::LogicalSwitch { load_balancers: lb(), ..Default::default() });
        let balancer = |last: u8| {
            let backend =
                pb::Backend { address: format!("10.0.0.{last}:80"), offline: false, ..Default::default() };
            let vip = pb::Vip { address: "192.0.2.1:80".to_owned(), backends: vec![backend] };
            Wire::LoadBalancer(pb::LoadBalancer { vips: vec![vip], ..Default::default() })
        };
        let checked = |last: u8| {
            let Wire::LoadBalancer(mut checked) = balancer(last) else { panic!("no load balancer") };
            checked.health_check = Some(pb::HealthCheck::default());
            checked.probe_points.push(pb::ProbePoint {
                backend_ip: format!("10.0.0.{last}"),
                logical_port: "switches/s/ports/a".to_owned(),
                source_ip: "10.0.0.250".to_owned(),
            });
            Wire::LoadBalancer(checked)
        };
        let qos = |dscp| {
            Wire::QosRule(pb::QosRule {
                direction: pb::acl::Direction::FromLport.into(),
                r#match: "ip4".to_owned(),
                dscp: Some(dscp),
                ..Default::default()
            })
        };
        let nat = |last: u8| {
            Wire::Nat(pb::Nat {
                r#type: pb::nat::Type::DnatAndSnat.into(),
                external_ip: "10.0.1.200".to_owned(),
                logical_ip: format!("10.0.0.{last}"),
                stateless: true,
                ..Default::default()
            })
        };
        let policy = |priority| {
            Wire::RouterPolicy(pb::RouterPolicy {
                priority,
                r#match: "ip4".to_owned(),
                action: pb::router_policy::Action::Drop.into(),
                ..Default::default()
            })
        };
        let dhcp = |server: &str| {
            let options = [("server_id".to_owned(), server.to_owned())].into();
            Wire::DhcpOptions(pb::DhcpOptions { cidr: "10.0.0.0/24".to_owned(), options })
        };
        let names = |last: u8| {
            let addresses = vec![format!("10.0.0.{last}")];
            let records = vec![pb::NameRecord { name: "a.example".to_owned(), addresses }];
            Wire::Names(pb::Names { records, ttl: 0 })
        };
        let limits = |rate| {
            let limits = vec![pb::ControlPlaneLimit { class: "dns".to_owned(), rate, burst: 0 }];
            Wire::ControlPlaneLimits(pb::ControlPlaneLimits { limits })
        };
        let served = Wire::LogicalSwitch(pb::LogicalSwitch {
            dhcpv4_options: "dhcp-options/d".to_owned(),
            names: vec!["names/n".to_owned()],
            control_plane_limits: "control-plane-limits/l".to_owned(),
            ..Default::default()
        });
        let grouped = Wire::LogicalSwitch(pb::LogicalSwitch {
            load_balancer_groups: vec!["load-balancer-groups/lg".to_owned()],
            ..Default::default()
        });
        let balancer_group = |members: &[&str]| {
            let load_balancers = members.iter().map(|text| (*text).to_owned()).collect();
            Wire::LoadBalancerGroup(pb::LoadBalancerGroup { load_balancers })
        };
        let ha_group = |chassis: &str| {
            let chassis = vec![pb::GatewayChassis { chassis: chassis.to_owned(), priority: 1 }];
            Wire::HaChassisGroup(pb::HaChassisGroup { chassis })
        };
        let variable = |values: &[(&str, &str)]| {
            let value = |(chassis, value): &(&str, &str)| pb::ChassisValues {
                chassis: format!("chassis/{chassis}"),
                values: vec![(*value).to_owned()],
            };
            Wire::TemplateVariable(pb::TemplateVariable { values: values.iter().map(value).collect() })
        };
        let templated = Wire::LoadBalancer(pb::LoadBalancer {
            templates: vec![pb::TemplateService {
                address: "^v".to_owned(),
                port: "80".to_owned(),
                backends: vec!["^v".to_owned()],
                ipv6: false,
            }],
            ..Default::default()
        });
        let of_variable = Wire::Acl(pb::Acl {
            direction: pb::acl::Direction::ToLport.into(),
            priority: 3,
            r#match: "ip4.dst == ^v".to_owned(),
            action: pb::acl::Action::Drop.into(),
            ..Default::default()
        });
        let collector = |set_id| {
            let targets = vec!["192.0.2.9:4739".to_owned()];
            Wire::SampleCollector(pb::SampleCollector { set_id, targets, ..Default::default() })
        };
        let sampled = Wire::Acl(pb::Acl {
            direction: pb::acl::Direction::ToLport.into(),
            priority: 4,
            r#match: "ip4".to_owned(),
            action: pb::acl::Action::AllowRelated.into(),
            sample_new: Some(pb::AclSample {
                observation_point: 7,
                collectors: vec!["sample-collectors/c".to_owned()],
            }),
            ..Default::default()
        });
        let at_gateway = Wire::LogicalRouterPort(pb::LogicalRouterPort {
            mac: "0a:00:00:00:01:02".to_owned(),
            networks: vec!["10.0.1.254/24".to_owned()],
            ha_chassis_group: "ha-chassis-groups/hg".to_owned(),
            ..Default::default()
        });
        use Step::{Bind, Delete, Health, Heard, Register, Write};
        prop::sample::select(vec![
            Write("address-sets/set", set(&["10.0.0.1"])),
            Write("address-sets/set", set(&["10.0.0.1", "10.9.0.0/16"])),
            Write("address-sets/set", set(&[])),
            Write("port-groups/g", group(&[], 0)),
            Write("port-groups/g", group(&["switches/s/ports/a"], 1)),
            Write("port-groups/g", group(&["switches/s/ports/a", "switches/t/ports/b"], 0)),
            Write("port-groups/g/acls/y", of_sets()),
            Write("switches/t/acls/z", of_sets()),
            Delete("port-groups/g/acls/y"),
            Delete("port-groups/g"),
            Delete("address-sets/set"),
            Delete("switches/t/acls/z"),
            Delete("switches/s/ports/a"),
            Write("switches/s", switch()),
            Write("switches/t", switch()),
            Write("switches/s/ports/a", switch_port(1, "")),
            Write("switches/s/ports/a", switch_port(2, "")),
            Write("switches/t/ports/b", switch_port(3, "")),
            Write("switches/s/ports/up-s", switch_port(0, "routers/r/ports/s")),
            Write("switches/t/ports/up-t", switch_port(0, "routers/r/ports/t")),
            Write("routers/r", router(true)),
            Write("routers/r", router(false)),
            Write("routers/r/ports/s", router_port("0a:00:00:00:01:01", "10.0.0.254/24")),
            Write("routers/r/ports/t", router_port("0a:00:00:00:01:02", "10.0.1.254/24")),
            Write("load-balancers/lb", balancer(5)),
            Write("load-balancers/lb", balancer(6)),
            Write("load-balancers/lb", checked(5)),
            Write("load-balancers/lb", checked(6)),
            Health(true),
            Health(false),
            Heard("routers/r/ports/s", 0),
            Heard("routers/r/ports/s", 2),
            Heard("routers/r/ports/t", 3),
            Write("switches/s/qos-rules/q", qos(1)),
            Write("switches/s/qos-rules/q", qos(2)),
            Delete("switches/s/qos-rules/q"),
            Write("routers/r/nats/n", nat(7)),
            Write("routers/r/nats/n", nat(8)),
            Write("routers/r/policies/p", policy(9)),
            Write("routers/r", gateway.clone()),
            Write("switches/s", balanced.clone()),
            Write("switches/s", grouped.clone()),
            Write("load-balancer-groups/lg", balancer_group(&[])),
            Write("load-balancer-groups/lg", balancer_group(&["load-balancers/lb"])),
            Delete("load-balancer-groups/lg"),
            Write("ha-chassis-groups/hg", ha_group("chassis/h1")),
            Write("ha-chassis-groups/hg", ha_group("chassis/h2")),
            Delete("ha-chassis-groups/hg"),
            Write("template-variables/v", variable(&[("h1", "10.0.0.1"), ("h2", "10.0.0.2")])),
            Write("template-variables/v", variable(&[("h2", "10.0.0.3")])),
            Write("template-variables/v", variable(&[])),
            Write("sample-collectors/c", collector(1)),
            Write("sample-collectors/c", collector(2)),
            Write("switches/t/acls/z", sampled.clone()),
            Write("port-groups/g/acls/y", sampled.clone()),
            Delete("sample-collectors/c"),
            Write("load-balancers/lb", templated.clone()),
            Write("switches/t/acls/z", of_variable.clone()),
            Delete("template-variables/v"),
            Write("routers/r/ports/t", at_gateway.clone()),
            Delete("load-balancers/lb"),
            Delete("routers/r/nats/n"),
            Delete("routers/r/policies/p"),
            Write("dhcp-options/d", dhcp("10.0.0.1")),
            Write("dhcp-options/d", dhcp("10.0.0.2")),
            Delete("dhcp-options/d"),
            Write("names/n", names(5)),
            Write("names/n", names(6)),
            Delete("names/n"),
            Write("control-plane-limits/l", limits(5)),
            Write("control-plane-limits/l", limits(6)),
            Delete("control-plane-limits/l"),
            Write("switches/s", served.clone()),
            Write("switches/s/acls/x", acl(1)),
            Write("switches/s/acls/x", acl(2)),
            Delete("switches/s"),
            Delete("switches/t/ports/up-t"),
            Delete("switches/s/acls/x"),
            Delete("routers/r"),
            Bind("switches/s/ports/a", Some("h1")),
            Bind("switches/s/ports/a", None),
            Bind("switches/t/ports/b", Some("h2")),
            Register("h1", 1),
            Register("h2", 2),
            Register("h2", 3),
            Delete("chassis/h1"),
        ])
    }

    fn run(controller: &Controller, step: Step, validate_only: bool) -> Option<Written> {
        // Many steps make no sense in the present network; then nothing happens.
        let written = controller.write(&Author::controller("test"), validate_only, |draft| {
            match step.clone() {
                Step::Write(name, spec) => {
                    let resource =
                        pb::Resource { name: name.to_owned(), spec: Some(spec), ..Default::default() };
                    draft.update(0, resource, &[], true)?;
                }
                Step::Delete(name) => draft.delete(0, name, true)?,
                Step::Bind(port, chassis) => {
                    let name = Name::parse(port).unwrap();
                    let known = chassis.filter(|id| draft.get(&Name::chassis(id).unwrap()).is_some());
                    draft.bind(&name, known.map(|chassis| (chassis, true)));
                }
                Step::Health(online) => {
                    let name = Name::parse("load-balancers/lb").unwrap();
                    let checked = draft.get(&name).map(Record::checked).unwrap_or_default();
                    draft.set_health(&name, checked.into_keys().map(|backend| (backend, online)).collect());
                }
                Step::Heard(port, n) => {
                    let heard = |last| {
                        let chassis = format!("h{}", last % 2 + 1);
                        state::Heard {
                            mac: flowtable::types::MacAddr::new([0x0a, 0, 0, 0, n, last]),
                            chassis,
                        }
                    };
                    let all = (0..4).map(|last| ([10, 0, 0, last].into(), (last < n).then(|| heard(last))));
                    draft.set_heard(&Name::parse(port).unwrap(), all.collect());
                }
                Step::Register(id, octet) => {
                    let encap_ip = format!("192.0.2.{octet}");
                    let chassis = pb::Chassis { encap_ip, ..Default::default() };
                    draft.register(Name::chassis(id).unwrap(), chassis)?;
                }
            }
            Ok(())
        });
        written.ok()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn step_by_step_is_the_same_as_all_at_once(
            batches in prop::collection::vec((step(), prop::collection::vec(step(), 1..4)), 1..24)
        ) {
            let store = Box::new(MemoryStore::default());
            let controller = Controller::open(store, LogLimits::default()).unwrap();
            let mut network = Network::default();
            let mut hosts: BTreeMap<String, Southbound> = BTreeMap::new();
            for (tried, batch) in batches {
                // What is only tried leaves nothing behind.
                if let Some(Written { revision, would_change, .. }) = run(&controller, tried, true) {
                    let before = network.southbound().clone();
                    let rehearsal = network.rehearse(revision, &would_change, &[]);
                    prop_assert_eq!(network.southbound(), &before);
                    let gone = rehearsal.into_iter().flat_map(|rehearsal| rehearsal.removed);
                    for (id, flow) in gone {
                        prop_assert_eq!(before.flows.get(&id), Some(&flow));
                    }
                }
                for step in batch {
                    run(&controller, step, false);
                }
                let (_, told) = network.step(&controller.state(), 1, |_| true);

                let mut fresh = Model::default();
                fresh.rebuild(controller.state().iter().map(|record| &**record));
                prop_assert_eq!(network.model(), &fresh);
                let southbound = ovn_northd_lite::compile(&fresh.network, &fresh.chassis);
                hosts.retain(|id, _| fresh.chassis.contains_key(id));
                for id in fresh.chassis.keys() {
                    let host = hosts.entry(id.clone()).or_default();
                    let wanted = chassis_view(&southbound, id);
                    let news = told.get(id).cloned().flatten().map(Arc::unwrap_or_clone).unwrap_or_default();
                    prop_assert_eq!(!news.is_empty(), *host != wanted, "{} is told what it knows", id);
                    news.apply(host);
                    prop_assert_eq!(&*host, &wanted);
                    prop_assert_eq!(&network.view(id).1, &wanted);
                }
            }
        }
    }
}
