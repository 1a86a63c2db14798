//! Documents as API resources, and API resources as a document.

use std::collections::BTreeMap;

use ferroflow_proto::northbound::Resource;

use super::{Document, PortGroupDoc, RouterDoc, SwitchDoc};
use crate::{
    client::Labels,
    error::CtlError,
    name::{ID_RULE, Noun, Reference, is_id},
    net::{
        acl::AclSpec,
        address_set::AddressSetSpec,
        dhcp_options::DhcpOptionsSpec,
        ha_chassis_group::HaChassisGroupSpec,
        limits::LimitsSpec,
        load_balancer::{LoadBalancerSpec, full_names},
        load_balancer_group::{LoadBalancerGroupSpec, full_groups},
        names::NamesSpec,
        nat::NatSpec,
        object::Object,
        port_group::PortGroupSpec,
        qos_rule::QosRuleSpec,
        router::{Route, RouterSpec, full_chassis},
        router_policy::RouterPolicySpec,
        router_port::RouterPortSpec,
        sample_collector::SampleCollectorSpec,
        switch::SwitchSpec,
        switch_port::{PortType, SwitchPortSpec},
        template_variable::TemplateVariableSpec,
    },
    output::{parent_id, short},
};

/// The objects of a file, by their full names.
#[derive(Debug, Default)]
pub struct Objects {
    resources: BTreeMap<String, Resource>,
    /// Objects that refer to another by an id only, which the file does not have.
    unresolved: Vec<(String, (Noun, String))>,
}

impl Objects {
    /// Reads the objects of `documents`; `file` is what errors call it.
    ///
    /// # Errors
    /// [`CtlError::File`] when an object stands twice or makes no sense by itself.
    pub fn of(file: &str, documents: Vec<Document>) -> Result<Self, CtlError> {
        let ports = ports(&documents);
        let mut reader = Reader { file, ports, objects: Self::default() };
        documents.into_iter().try_for_each(|document| reader.document(document))?;
        Ok(reader.objects)
    }

    /// Kinds and ids of objects that the file refers to and does not have.
    pub fn unresolved(&self) -> impl Iterator<Item = (Noun, &str)> {
        self.unresolved.iter().map(|(_, (noun, id))| (*noun, id.as_str()))
    }

    /// Says which objects those ids are.
    pub fn resolve(&mut self, names: &BTreeMap<(Noun, String), String>) {
        use ferroflow_proto::northbound::resource::Spec;
        for (object, referred) in std::mem::take(&mut self.unresolved) {
            let spec = self.resources.get_mut(&object).and_then(|resource| resource.spec.as_mut());
            let (Some(spec), Some(name)) = (spec, names.get(&referred)) else { continue };
            match spec {
                Spec::LogicalSwitchPort(port) => port.router_port.clone_from(name),
                Spec::PortGroup(group) => {
                    let ids = group.ports.iter_mut().filter(|port| **port == referred.1);
                    ids.for_each(|port| port.clone_from(name));
                }
                Spec::LoadBalancer(balancer) => {
                    let points = balancer.probe_points.iter_mut();
                    let named = points.filter(|point| point.logical_port == referred.1);
                    named.for_each(|point| point.logical_port.clone_from(name));
                }
                _ => {}
            }
        }
    }

    /// Whether the file has the object with this full name.
    pub fn contains(&self, name: &str) -> bool {
        self.resources.contains_key(name)
    }

    /// All objects in the order in which they are applied: by kind, then by name.
    pub fn into_ordered(self) -> Vec<Resource> {
        let mut resources: Vec<Resource> = self.resources.into_values().collect();
        resources.sort_by_cached_key(|resource| (Noun::of(&resource.name), resource.name.clone()));
        resources
    }
}

/// Full names of the ports of a file, by kind and id.
fn ports(documents: &[Document]) -> BTreeMap<(Noun, String), String> {
    let of = |noun: Noun, parent: &str, port: &String| ((noun, port.clone()), noun.below(parent, port));
    let mut ports = BTreeMap::new();
    for document in documents {
        for (id, router) in &document.routers {
            ports.extend(router.ports.keys().map(|port| of(Noun::RouterPort, id, port)));
        }
        for (id, switch) in &document.switches {
            ports.extend(switch.ports.keys().map(|port| of(Noun::SwitchPort, id, port)));
        }
    }
    ports
}

struct Reader<'a> {
    file: &'a str,
    ports: BTreeMap<(Noun, String), String>,
    objects: Objects,
}

impl Reader<'_> {
    fn document(&mut self, document: Document) -> Result<(), CtlError> {
        let common = document.labels;
        for (id, switch) in document.switches {
            self.switch(&common, &id, switch)?;
        }
        for (id, router) in document.routers {
            self.router(&common, &id, router)?;
        }
        for (id, set) in document.address_sets {
            self.put(Noun::AddressSet.top(&id), &set, &common)?;
        }
        for (id, balancer) in document.load_balancers {
            let name = Noun::LoadBalancer.top(&id);
            let balancer = self.probing(&name, balancer)?;
            self.put(name, &balancer, &common)?;
        }
        for (id, group) in document.load_balancer_groups {
            let name = Noun::LoadBalancerGroup.top(&id);
            let group = group.named().map_err(|error| self.mistake(&name, &error))?;
            self.put(name, &group, &common)?;
        }
        for (id, group) in document.ha_chassis_groups {
            self.put(Noun::HaChassisGroup.top(&id), &group, &common)?;
        }
        for (id, variable) in document.template_variables {
            self.put(Noun::TemplateVariable.top(&id), &variable, &common)?;
        }
        for (id, collector) in document.sample_collectors {
            self.put(Noun::SampleCollector.top(&id), &collector, &common)?;
        }
        for (id, dhcp) in document.dhcp_options {
            self.put(Noun::DhcpOptions.top(&id), &dhcp, &common)?;
        }
        for (id, names) in document.names {
            self.put(Noun::Names.top(&id), &names, &common)?;
        }
        for (id, limits) in document.control_plane_limits {
            self.put(Noun::Limits.top(&id), &limits, &common)?;
        }
        for (id, group) in document.port_groups {
            self.group(&common, &id, group)?;
        }
        Ok(())
    }

    /// The load balancer with the ports that it probes named in full.
    fn probing(&mut self, name: &str, mut balancer: LoadBalancerSpec) -> Result<LoadBalancerSpec, CtlError> {
        for point in &mut balancer.probe_points {
            let (port, is_known) = self.named(name, Noun::SwitchPort, &point.port)?;
            if !is_known {
                self.objects.unresolved.push((name.to_owned(), (Noun::SwitchPort, port.clone())));
            }
            point.port = port;
        }
        Ok(balancer)
    }

    fn group(&mut self, common: &Labels, id: &str, group: PortGroupDoc) -> Result<(), CtlError> {
        let name = Noun::PortGroup.top(id);
        let named = |port: &String| self.named(&name, Noun::SwitchPort, port);
        let named = group.ports.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        let mut ports = Vec::with_capacity(named.len());
        for (port, is_known) in named {
            if !is_known {
                self.objects.unresolved.push((name.clone(), (Noun::SwitchPort, port.clone())));
            }
            ports.push(port);
        }
        let PortGroupDoc { labels, default_policy, acls, .. } = group;
        self.put(name, &PortGroupSpec { labels, ports, default_policy }, common)?;
        for (acl, spec) in acls {
            self.put(Noun::Acl.under(Noun::PortGroup, id, &acl), &spec, common)?;
        }
        Ok(())
    }

    /// Full name of what `text` in the object `name` refers to and true, or an id that the
    /// file does not have and false.
    fn named(&self, name: &str, noun: Noun, text: &str) -> Result<(String, bool), CtlError> {
        match noun.refer(text).map_err(|error| self.mistake(name, &error))? {
            Reference::Full(full) => Ok((full, true)),
            Reference::Id(id) => match self.ports.get(&(noun, id.clone())) {
                Some(full) => Ok((full.clone(), true)),
                None => Ok((id, false)),
            },
        }
    }

    fn switch(&mut self, common: &Labels, id: &str, switch: SwitchDoc) -> Result<(), CtlError> {
        let name = Noun::Switch.top(id);
        let spec = SwitchSpec {
            labels: switch.labels,
            default_policy: switch.default_policy,
            load_balancers: switch.load_balancers,
            load_balancer_groups: switch.load_balancer_groups,
            address_management: switch.address_management,
            dhcpv4_options: switch.dhcpv4_options,
            dhcpv6_options: switch.dhcpv6_options,
            names: switch.names,
            control_plane_limits: switch.control_plane_limits,
            fdb_age_threshold: switch.fdb_age_threshold,
            vlan_passthru: switch.vlan_passthru,
            broadcast_arps_to_all_routers: switch.broadcast_arps_to_all_routers,
            requested_tunnel_key: switch.requested_tunnel_key,
            ct_zone_limit: switch.ct_zone_limit,
            multicast_snooping: switch.multicast_snooping,
        };
        let spec = spec.named().map_err(|error| self.mistake(&name, &error))?;
        self.put(name, &spec, common)?;
        for (port, spec) in switch.ports {
            let name = Noun::SwitchPort.below(id, &port);
            let spec = self.linked(&name, spec)?;
            self.put(name, &spec, common)?;
        }
        for (acl, spec) in switch.acls {
            self.put(Noun::Acl.below(id, &acl), &spec, common)?;
        }
        for (rule, spec) in switch.qos_rules {
            self.put(Noun::QosRule.below(id, &rule), &spec, common)?;
        }
        Ok(())
    }

    fn router(&mut self, common: &Labels, id: &str, router: RouterDoc) -> Result<(), CtlError> {
        let name = Noun::Router.top(id);
        let placed = router.static_routes.iter().map(|route| route.placed(id));
        let static_routes = placed.collect::<Result<_, _>>().map_err(|error| self.mistake(&name, &error))?;
        let chassis = full_chassis(&router.chassis).map_err(|error| self.mistake(&name, &error))?;
        let load_balancers = full_names(&router.load_balancers);
        let load_balancers = load_balancers.map_err(|error| self.mistake(&name, &error))?;
        let groups = full_groups(&router.load_balancer_groups);
        let load_balancer_groups = groups.map_err(|error| self.mistake(&name, &error))?;
        let limits = Noun::Limits.full(&router.control_plane_limits);
        let control_plane_limits = limits.map_err(|error| self.mistake(&name, &error))?;
        let RouterDoc { labels, enabled, .. } = router;
        let spec = RouterSpec {
            labels,
            static_routes,
            enabled,
            chassis,
            load_balancers,
            load_balancer_groups,
            control_plane_limits,
            lb_force_snat_ips: router.lb_force_snat_ips,
            dnat_force_snat_ips: router.dnat_force_snat_ips,
            multicast_relay: router.multicast_relay,
            requested_tunnel_key: router.requested_tunnel_key,
            ct_zone_limit: router.ct_zone_limit,
            snat_ct_zone: router.snat_ct_zone,
            ct_commit_all: router.ct_commit_all,
            always_learn_from_arp_request: router.always_learn_from_arp_request,
            mac_binding_age_threshold: router.mac_binding_age_threshold,
        };
        self.put(name, &spec, common)?;
        for (nat, spec) in router.nats {
            let name = Noun::Nat.below(id, &nat);
            let spec = spec.placed(id).map_err(|error| self.mistake(&name, &error))?;
            self.put(name, &spec, common)?;
        }
        for (policy, spec) in router.policies {
            let name = Noun::RouterPolicy.below(id, &policy);
            let spec = spec.placed(id).map_err(|error| self.mistake(&name, &error))?;
            self.put(name, &spec, common)?;
        }
        for (port, mut spec) in router.ports {
            let name = Noun::RouterPort.below(id, &port);
            let group = Noun::HaChassisGroup.full(&spec.ha_chassis_group);
            spec.ha_chassis_group = group.map_err(|error| self.mistake(&name, &error))?;
            self.put(name, &spec, common)?;
        }
        Ok(())
    }

    /// The switch port with its router port, which may be just an id, named in full.
    fn linked(&mut self, name: &str, mut spec: SwitchPortSpec) -> Result<SwitchPortSpec, CtlError> {
        for text in [&mut spec.dhcpv4_options, &mut spec.dhcpv6_options] {
            *text = Noun::DhcpOptions.full(text).map_err(|error| self.mistake(name, &error))?;
        }
        let group = Noun::HaChassisGroup.full(&spec.ha_chassis_group);
        spec.ha_chassis_group = group.map_err(|error| self.mistake(name, &error))?;
        let others = &mut spec.requested_additional_chassis;
        for text in spec.requested_chassis.iter_mut().chain(others) {
            *text = full_chassis(text).map_err(|error| self.mistake(name, &error))?;
        }
        let Some(text) = &spec.router_port else {
            return match spec.kind {
                PortType::Workload
                | PortType::Localnet
                | PortType::Localport
                | PortType::L2gateway
                | PortType::External
                | PortType::Virtual
                | PortType::Switch => Ok(spec),
                PortType::Router => Err(self.mistake(name, &"a port of type router needs router_port")),
            };
        };
        let full = match self.named(name, Noun::RouterPort, text)? {
            (full, true) => Some(full),
            (id, false) => {
                self.objects.unresolved.push((name.to_owned(), (Noun::RouterPort, id)));
                None
            }
        };
        spec.kind = PortType::Router;
        spec.router_port = full;
        Ok(spec)
    }

    fn put<S: Object>(&mut self, name: String, spec: &S, common: &Labels) -> Result<(), CtlError> {
        if !is_id(short(&name)) || Noun::of(&name) != Some(<S as Object>::NOUN) {
            return Err(self.mistake(&name, &ID_RULE));
        }
        if self.objects.contains(&name) {
            return Err(self.mistake(&name, &"it stands in the file twice"));
        }
        let mut resource = spec.write(name.clone());
        for (key, value) in common {
            resource.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self.objects.resources.insert(name, resource);
        Ok(())
    }

    fn mistake(&self, name: &str, reason: &dyn std::fmt::Display) -> CtlError {
        CtlError::File { file: self.file.to_owned(), line: None, reason: format!("{name}: {reason}") }
    }
}

/// The document that, applied to an empty store, makes these objects. Chassis are no
/// part of it: they register themselves.
///
/// # Errors
/// [`CtlError::Newer`] when something of an object is not known here.
pub fn document(resources: &[Resource]) -> Result<Document, CtlError> {
    let mut document = Document::default();
    for resource in resources {
        let (id, parent) = (short(&resource.name).to_owned(), parent_id(&resource.name).to_owned());
        match Noun::of(&resource.name) {
            Some(Noun::Switch) => {
                fill_switch(document.switches.entry(id).or_default(), SwitchSpec::read(resource)?.0);
            }
            Some(Noun::SwitchPort) => {
                let mut port = SwitchPortSpec::read(resource)?.0;
                port.router_port = port.router_port.as_deref().map(|name| short(name).to_owned());
                port.dhcpv4_options = short(&port.dhcpv4_options).to_owned();
                port.dhcpv6_options = short(&port.dhcpv6_options).to_owned();
                port.requested_chassis = shorts(&port.requested_chassis);
                port.requested_additional_chassis = shorts(&port.requested_additional_chassis);
                port.ha_chassis_group = short(&port.ha_chassis_group).to_owned();
                document.switches.entry(parent).or_default().ports.insert(id, port);
            }
            Some(Noun::Acl) => {
                let acl = AclSpec::read(resource)?.0;
                let acls = match resource.name.starts_with("port-groups/") {
                    true => &mut document.port_groups.entry(parent).or_default().acls,
                    false => &mut document.switches.entry(parent).or_default().acls,
                };
                acls.insert(id, acl);
            }
            Some(Noun::QosRule) => {
                let rule = QosRuleSpec::read(resource)?.0;
                document.switches.entry(parent).or_default().qos_rules.insert(id, rule);
            }
            Some(Noun::AddressSet) => {
                document.address_sets.insert(id, AddressSetSpec::read(resource)?.0);
            }
            Some(Noun::PortGroup) => {
                let PortGroupSpec { labels, ports, default_policy } = PortGroupSpec::read(resource)?.0;
                let group = document.port_groups.entry(id).or_default();
                group.ports = ports.iter().map(|port| short(port).to_owned()).collect();
                (group.labels, group.default_policy) = (labels, default_policy);
            }
            Some(Noun::LoadBalancer) => {
                document.load_balancers.insert(id, LoadBalancerSpec::read(resource)?.0);
            }
            Some(Noun::LoadBalancerGroup) => {
                let mut group = LoadBalancerGroupSpec::read(resource)?.0;
                group.load_balancers = shorts(&group.load_balancers);
                document.load_balancer_groups.insert(id, group);
            }
            Some(Noun::HaChassisGroup) => {
                document.ha_chassis_groups.insert(id, HaChassisGroupSpec::read(resource)?.0);
            }
            Some(Noun::TemplateVariable) => {
                document.template_variables.insert(id, TemplateVariableSpec::read(resource)?.0);
            }
            Some(Noun::SampleCollector) => {
                document.sample_collectors.insert(id, SampleCollectorSpec::read(resource)?.0);
            }
            Some(Noun::DhcpOptions) => {
                document.dhcp_options.insert(id, DhcpOptionsSpec::read(resource)?.0);
            }
            Some(Noun::Names) => {
                document.names.insert(id, NamesSpec::read(resource)?.0);
            }
            Some(Noun::Limits) => {
                document.control_plane_limits.insert(id, LimitsSpec::read(resource)?.0);
            }
            Some(Noun::Nat) => {
                let mut nat = NatSpec::read(resource)?.0;
                nat.gateway_port = short(&nat.gateway_port).to_owned();
                document.routers.entry(parent).or_default().nats.insert(id, nat);
            }
            Some(Noun::RouterPolicy) => {
                let mut policy = RouterPolicySpec::read(resource)?.0;
                policy.output_port = short(&policy.output_port).to_owned();
                document.routers.entry(parent).or_default().policies.insert(id, policy);
            }
            Some(Noun::Router) => {
                fill(document.routers.entry(id).or_default(), RouterSpec::read(resource)?.0);
            }
            Some(Noun::RouterPort) => {
                let mut port = RouterPortSpec::read(resource)?.0;
                port.ha_chassis_group = short(&port.ha_chassis_group).to_owned();
                document.routers.entry(parent).or_default().ports.insert(id, port);
            }
            Some(Noun::Chassis) | None => {}
        }
    }
    Ok(document)
}

fn shorts(names: &[String]) -> Vec<String> {
    names.iter().map(|name| short(name).to_owned()).collect()
}

fn fill_switch(doc: &mut SwitchDoc, spec: SwitchSpec) {
    doc.labels = spec.labels;
    doc.default_policy = spec.default_policy;
    doc.load_balancers = shorts(&spec.load_balancers);
    doc.load_balancer_groups = shorts(&spec.load_balancer_groups);
    doc.address_management = spec.address_management;
    doc.dhcpv4_options = short(&spec.dhcpv4_options).to_owned();
    doc.dhcpv6_options = short(&spec.dhcpv6_options).to_owned();
    doc.names = shorts(&spec.names);
    doc.control_plane_limits = short(&spec.control_plane_limits).to_owned();
    doc.fdb_age_threshold = spec.fdb_age_threshold;
    doc.vlan_passthru = spec.vlan_passthru;
    doc.broadcast_arps_to_all_routers = spec.broadcast_arps_to_all_routers;
    doc.requested_tunnel_key = spec.requested_tunnel_key;
    doc.ct_zone_limit = spec.ct_zone_limit;
    doc.multicast_snooping = spec.multicast_snooping;
}

fn fill(doc: &mut RouterDoc, spec: RouterSpec) {
    let named = |route: Route| Route {
        output_port: route.output_port.as_deref().map(|name| short(name).to_owned()),
        ..route
    };
    doc.labels = spec.labels;
    doc.enabled = spec.enabled;
    doc.chassis = short(&spec.chassis).to_owned();
    doc.load_balancers = shorts(&spec.load_balancers);
    doc.load_balancer_groups = shorts(&spec.load_balancer_groups);
    doc.control_plane_limits = short(&spec.control_plane_limits).to_owned();
    doc.lb_force_snat_ips = spec.lb_force_snat_ips;
    doc.dnat_force_snat_ips = spec.dnat_force_snat_ips;
    doc.multicast_relay = spec.multicast_relay;
    doc.requested_tunnel_key = spec.requested_tunnel_key;
    doc.ct_zone_limit = spec.ct_zone_limit;
    doc.snat_ct_zone = spec.snat_ct_zone;
    doc.ct_commit_all = spec.ct_commit_all;
    doc.always_learn_from_arp_request = spec.always_learn_from_arp_request;
    doc.mac_binding_age_threshold = spec.mac_binding_age_threshold;
    doc.static_routes = spec.static_routes.into_iter().map(named).collect();
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::resource;

    use super::*;
    use crate::file::parse::parse;

    fn objects(text: &str) -> Result<Objects, CtlError> {
        Objects::of("x", parse("x", text)?)
    }

    #[test]
    fn the_example_names_what_it_promises() {
        let resources = objects(include_str!("../../../examples/two-switches.yaml")).unwrap().into_ordered();
        let names: Vec<&str> = resources.iter().map(|resource| resource.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "switches/db",
                "switches/web",
                "routers/r1",
                "routers/r1/ports/r1-db",
                "routers/r1/ports/r1-web",
                "switches/db/ports/db-1",
                "switches/db/ports/db-2",
                "switches/db/ports/db-to-r1",
                "switches/web/ports/web-1",
                "switches/web/ports/web-2",
                "switches/web/ports/web-to-r1",
                "switches/db/acls/no-telnet",
            ]
        );
        let Some(resource::Spec::LogicalSwitchPort(port)) = &resources[7].spec else { panic!("no port") };
        assert_eq!(port.router_port, "routers/r1/ports/r1-db");
        let Some(resource::Spec::LogicalSwitchPort(port)) = &resources[8].spec else { panic!("no port") };
        assert_eq!(port.addresses, ["0a:00:00:00:01:0b 10.0.1.11"]);
        assert_eq!(port.port_security, ["0a:00:00:00:01:0b 10.0.1.11"]);
    }

    #[test]
    fn what_is_exported_applies_to_the_same() {
        let text = "
switches:
  a: {labels: {x: 1}}
  b:
    load_balancers: [lb]
    load_balancer_groups: [lg]
    address_management: {subnet: 10.0.0.0/24, exclude_ips: [10.0.0.9], ipv6_prefix: '2001:db8::/64'}
    dhcpv4_options: d4
    dhcpv6_options: d6
    names: [zone]
    control_plane_limits: tight
    fdb_age_threshold: 60
    vlan_passthru: true
    requested_tunnel_key: 77
    ct_zone_limit: 1000
    broadcast_arps_to_all_routers: false
    ports:
      b1: {addresses: [unknown], port_security: ['0a:00:00:00:00:01 10.0.0.0/24'], enabled: false}
      b6: {type: external, addresses: ['0a:00:00:00:00:06 10.0.0.6'], ha_chassis_group: hg}
      b5: {type: switch, peer: switches/a/ports/a-b}
      b7: {type: localnet, network: n, tag: 9, tag_type: 802.1ad}
      b8: {parent: switches/b/ports/b1, tag_request: true}
      b4: {addresses: [unknown], learn_fdb: false, force_fdb_lookup: true, disable_arp_nd_rsp: true, receive_multicast: false, requested_chassis: [h1, h2], requested_additional_chassis: [h3], activation_strategy: rarp, clone_to_unknown: true, requested_tunnel_key: 9, ct_zone_limit: 5, health_checks: ['icmp:10.0.0.9@10.0.0.250', 'tcp:[2001:db8::5]:80@2001:db8::9,1/2/3/4'], qos_min_rate: 1000000, qos_max_rate: 2000000, qos_burst: 500000}
      b3: {addresses: [dynamic], dhcpv4_options: d4, hostname: b3}
      b2: {router_port: r1-b, labels: {y: ''}, arp_proxy: ['0a:00:00:00:00:09', 10.9.0.0/16], disable_garp_rarp: true, enable_router_port_acl: true, nat_addresses: ['0a:00:00:00:00:07 192.0.2.7']}
    acls:
      no: {direction: from-lport, priority: 0, match: 'ip4 && \"x\" == 1', action: reject}
      log: {direction: to-lport, priority: 1, match: ip4, action: pass, tier: 2, log: true, severity: alert, log_rate: 5}
      told: {direction: to-lport, priority: 1, match: ip4, action: allow-related, log: true, label_number: 9, log_related: true}
      seen: {direction: to-lport, priority: 1, match: ip4, action: allow, sample_new: '5:all', sample_established: '6:all'}
      late: {direction: from-lport, priority: 1, match: ip4, action: allow, apply_after_lb: true, persist_established: true}
    qos_rules:
      q: {direction: from-lport, priority: 9, match: ip4, dscp: 46, rate_kbps: 8000, burst_kbit: 80}
      z: {direction: to-lport, priority: 9, match: ip4, dscp: 0}
    default_policy: drop
load_balancers:
  lb:
    vips:
      - {address: '192.0.2.9:80', backends: ['10.0.0.5:80', '-10.0.0.6:80']}
    protocol: udp
    hash_fields: [ip-src]
    reject: true
    affinity_timeout: 60
    skip_snat: true
    neighbor_responder: all
    add_route: true
    event: true
    hairpin_snat_ips: [192.0.2.200]
    ct_flush: true
    use_stateless_nat: true
    health_check: 1/2/3/4
    probe_points: ['10.0.0.5=b1@10.0.0.254']
    templates:
      - {address: ^node, port: ^port, backends: ['10.0.0.5:80', ^more]}
      - {address: ^node, backends: [^more], ipv6: true}
sample_collectors:
  all: {set_id: 7, targets: ['192.0.2.9:4739'], probability: 100, new_application: 3, established_application: 4}
template_variables:
  node: {values: {h1: [10.0.0.1], h2: [10.0.0.2, '2001:db8::2']}}
load_balancer_groups:
  lg: {load_balancers: [lb]}
ha_chassis_groups:
  hg: {chassis: [h1=20, h2=10]}
dhcp_options:
  d4: {cidr: 10.0.0.0/24, options: {server_id: 10.0.0.1, router: 10.0.0.1}}
  d6: {cidr: '2001:db8::/64'}
names:
  zone: {records: {b3.example: [10.0.0.7, '2001:db8::7']}, ttl: 60}
control_plane_limits:
  tight: {limits: {dns: {rate: 10}, arp: {rate: 5, burst: 20}}}
address_sets:
  web: {addresses: [10.0.0.0/8, '2001:db8::5'], labels: {x: 1}}
  none: {}
port_groups:
  g:
    ports: [b1]
    default_policy: drop
    acls:
      x: {direction: to-lport, priority: 5, match: 'outport == @g', action: allow-related, label_number: 7}
routers:
  r1:
    enabled: false
    static_routes:
      - {prefix: 0.0.0.0/0, next_hop: 10.0.0.9, output_port: r1-b}
      - {prefix: 10.1.0.0/16, next_hop: 10.0.0.8}
      - {prefix: 10.2.0.0/16, discard: true, override_connected: true}
      - {prefix: 10.3.0.0/16, next_hop: 10.0.0.8, by_source: true, route_table: red, selection_fields: [ip-src]}
    chassis: h1
    load_balancers: [lb]
    load_balancer_groups: [lg]
    lb_force_snat_ips: [10.0.0.1]
    dnat_force_snat_ips: ['2001:db8::1']
    snat_ct_zone: 0
    ct_commit_all: true
    always_learn_from_arp_request: true
    mac_binding_age_threshold: 60
    nats:
      out: {type: snat, external: 192.0.2.1, logical: 10.0.0.0/16, ports: 5000-6000, gateway_port: r1-b}
      in: {type: dnat-and-snat, external: 192.0.2.2, logical: 10.0.0.5, stateless: true, exempted: [8.8.8.8], match: tcp, priority: 7, add_route: true}
    policies:
      p: {priority: 5, match: ip4, action: reroute, next_hops: [10.0.0.8, 10.0.0.9], output_port: r1-b, pkt_mark: 5, chain: x}
      q: {priority: 5, match: ip4, action: jump, jump_chain: x}
    ports:
      r1-b:
        mac: '0a:00:00:00:01:01'
        networks: [10.0.0.1/24, '2001:db8::1/64']
        gateway_mtu: 1400
        gateway_mtu_bypass: tcp
        ha_chassis_group: hg
        redirect_type: bridged
        route_table: red
        static_mac_bindings: ['10.0.0.9=0a:00:00:00:00:09,override']
        router_advertisement: {mtu: 1442, rdnss: ['2001:db8::53'], periodic: true, routes: [{prefix: '2001:db8:7::/48', preference: low}]}
";
        let first = objects(text).unwrap().into_ordered();
        let exported = serde_norway::to_string(&document(&first).unwrap()).unwrap();
        assert_eq!(objects(&exported).unwrap().into_ordered(), first);
        assert_eq!(first.len(), 36);
        // What need not be said is not said.
        assert!(!exported.contains("log_name") && !exported.contains("enabled: true"), "{exported}");
        assert_eq!(exported.matches("default_policy").count(), 2, "{exported}");
    }

    #[test]
    fn labels_of_the_document_go_to_all_and_yield_to_the_objects() {
        let text = "labels: {app: shop, tier: x}\nswitches: {a: {labels: {tier: y}, ports: {p: }}}\n";
        let resources = objects(text).unwrap().into_ordered();
        assert!(resources.iter().all(|resource| resource.labels["app"] == "shop"));
        assert_eq!(resources[0].labels["tier"], "y");
        assert_eq!(resources[1].labels["tier"], "x");
    }

    #[test]
    fn mistakes_name_the_object() {
        let error = |text: &str| objects(text).unwrap_err().to_string();
        assert_eq!(
            error("switches: {a: }\n---\nswitches: {a: }\n"),
            "x: switches/a: it stands in the file twice"
        );
        assert_eq!(
            error("switches: {a: {ports: {p: {type: router}}}}"),
            "x: switches/a/ports/p: a port of type router needs router_port"
        );
        assert!(error("switches: {'a/b': }").starts_with("x: switches/a/b: an id is 1 to 63"));
        assert!(error("switches: {'': }").contains("an id is"));
        assert!(
            error("routers: {r: {static_routes: [{prefix: a, next_hop: b, output_port: ''}]}}")
                .contains("r: ")
        );
    }

    #[test]
    fn router_ports_outside_the_file_are_asked_for() {
        let mut found = objects("switches: {a: {ports: {p: {router_port: r9-a}}}}").unwrap();
        assert_eq!(found.unresolved().collect::<Vec<_>>(), [(Noun::RouterPort, "r9-a")]);
        let names = [((Noun::RouterPort, "r9-a".into()), "routers/r9/ports/r9-a".into())];
        found.resolve(&BTreeMap::from(names));
        let resources = found.into_ordered();
        let Some(resource::Spec::LogicalSwitchPort(port)) = &resources[1].spec else { panic!("no port") };
        assert_eq!(port.router_port, "routers/r9/ports/r9-a");
        assert_eq!(port.r#type, 1);
        let mut found = objects("port_groups: {g: {ports: [p9, s/p, switches/s/ports/q]}}").unwrap();
        assert_eq!(found.unresolved().collect::<Vec<_>>(), [(Noun::SwitchPort, "p9")]);
        let names = [((Noun::SwitchPort, "p9".into()), "switches/x/ports/p9".into())];
        found.resolve(&BTreeMap::from(names));
        let resources = found.into_ordered();
        let Some(resource::Spec::PortGroup(group)) = &resources[0].spec else { panic!("no group") };
        assert_eq!(group.ports, ["switches/x/ports/p9", "switches/s/ports/p", "switches/s/ports/q"]);
    }
}
