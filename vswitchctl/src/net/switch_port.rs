//! `switch-port`: where workloads and routers are attached to a switch.

use clap::Args;
use ferroflow_proto::northbound::{LogicalSwitchPort, Resource, logical_switch_port::Type, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    host::rate::Rate,
    name::Noun,
    net::{
        attached::{Activation, Outside, PortOptions, TagType},
        command::About,
        gateway::{self, Candidate},
        load_balancer::online,
        object::{Object, Options, Patch, enabled, labels_of, limited, unknown_value, wrong_kind},
        port_check::PortCheck,
    },
    output::{short, yes},
};

/// Options of a new port.
#[derive(Debug, Args)]
pub struct NewSwitchPort {
    /// What the workload has: "MAC [IP…]", "dynamic" or "unknown"; may be repeated
    #[arg(long = "address", value_name = "ADDRESSES", conflicts_with = "router_port")]
    addresses: Vec<String>,
    /// What the workload may use as a source: "MAC [IP[/LEN]…]"; may be repeated
    #[arg(long = "port-security", value_name = "ADDRESSES", conflicts_with = "router_port")]
    port_security: Vec<String>,
    /// Link the switch to this router port instead of a workload
    #[arg(long)]
    router_port: Option<String>,
    #[command(flatten)]
    outside: Outside,
    /// Each host may have an interface for it, which serves that host alone
    #[arg(long, conflicts_with_all = ["router_port", "network", "parent"])]
    localport: bool,
    /// Make it disabled
    #[arg(long)]
    disable: bool,
    #[command(flatten)]
    services: ServiceOptions,
    #[command(flatten)]
    rest: PortOptions,
}

/// What hosts answer for a port.
#[derive(Debug, Args)]
pub struct ServiceOptions {
    /// DHCP options for the workload, instead of the switch's; "" for those
    #[arg(long, value_name = "NAME")]
    dhcpv4: Option<String>,
    /// DHCPv6 options for the workload, instead of the switch's; "" for those
    #[arg(long, value_name = "NAME")]
    dhcpv6: Option<String>,
    /// The name that DHCP tells the workload; "" for none
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
}

impl ServiceOptions {
    /// Named in full: DHCPv4, DHCPv6.
    fn dhcp(&self) -> Result<[Option<String>; 2], CtlError> {
        let full = |text: &Option<String>| text.as_ref().map(|text| Noun::DhcpOptions.full(text)).transpose();
        Ok([full(&self.dhcpv4)?, full(&self.dhcpv6)?])
    }
}

/// Changes of a port.
#[derive(Debug, Args)]
pub struct SwitchPortChanges {
    /// What the workload has instead of before: "MAC [IP…]", "dynamic" or "unknown"; may be repeated
    #[arg(long = "address", value_name = "ADDRESSES")]
    addresses: Vec<String>,
    /// The workload has no addresses
    #[arg(long, conflicts_with = "addresses")]
    no_addresses: bool,
    /// What the workload may use as a source: "MAC [IP[/LEN]…]"; may be repeated
    #[arg(long = "port-security", value_name = "ADDRESSES")]
    port_security: Vec<String>,
    /// The workload may use any source
    #[arg(long, conflicts_with = "port_security")]
    no_port_security: bool,
    /// Link it to this router port
    #[arg(long, conflicts_with_all = ["addresses", "port_security"])]
    router_port: Option<String>,
    /// Attach a workload to it, no longer a router
    #[arg(long, conflicts_with = "router_port")]
    no_router_port: bool,
    #[command(flatten)]
    outside: Outside,
    /// Let it send and receive
    #[arg(long)]
    enable: bool,
    /// Let it neither send nor receive
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    #[command(flatten)]
    services: ServiceOptions,
    #[command(flatten)]
    rest: PortOptions,
    /// Its router is taken to have its own addresses alone
    #[arg(long, conflicts_with = "arp_proxy")]
    no_arp_proxy: bool,
    /// Any chassis may have its interface
    #[arg(long, conflicts_with = "requested_chassis")]
    no_requested_chassis: bool,
    /// Its workload has one interface
    #[arg(long, conflicts_with = "additional_chassis")]
    no_additional_chassis: bool,
    /// Its workload is asked nothing
    #[arg(long, conflicts_with = "checks")]
    no_checks: bool,
    /// Networks outside are told of its router's own addresses alone
    #[arg(long, conflicts_with = "nat_addresses")]
    no_nat_addresses: bool,
}

impl Options for NewSwitchPort {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        let router_port = self.router_port.iter_mut().map(|text| (Noun::RouterPort, text));
        router_port.chain(self.outside.references()).collect()
    }
}

impl Options for SwitchPortChanges {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        let router_port = self.router_port.iter_mut().map(|text| (Noun::RouterPort, text));
        router_port.chain(self.outside.references()).collect()
    }
}

/// What is attached to a switch port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortType {
    /// A workload.
    #[default]
    Workload,
    /// A router.
    Router,
    /// A network outside that every host has.
    Localnet,
    /// A workload's interface that each host may have for itself.
    Localport,
    /// A network outside that one of some hosts connects to.
    L2gateway,
    /// A workload in the network outside.
    External,
    /// An address that one of some workloads has.
    Virtual,
    /// Another switch.
    Switch,
}

impl PortType {
    fn linked_to(router_port: Option<&str>) -> Self {
        if router_port.is_some() { Self::Router } else { Self::Workload }
    }
}

/// What a user sets of a switch port; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPortSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// What is attached.
    #[serde(rename = "type", default)]
    pub kind: PortType,
    /// `MAC [IP…]` of the workload, or `unknown`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Source addresses the workload may use; empty: any.
    #[serde(default)]
    pub port_security: Vec<String>,
    /// The router's side of the link.
    #[serde(default)]
    pub router_port: Option<String>,
    /// Network outside.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// VLAN tag; 0: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tag: u32,
    /// What marks the tag.
    #[serde(default, skip_serializing_if = "TagType::is_usual")]
    pub tag_type: TagType,
    /// Full name of the port behind whose interface the workload is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// Its tag there is chosen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tag_request: bool,
    /// Hosts that may connect to the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateway_chassis: Vec<Candidate>,
    /// Or the group of these.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ha_chassis_group: String,
    /// Address of a virtual port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub virtual_ip: String,
    /// Full names of the ports that may have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_parents: Vec<String>,
    /// Full name of the other switch's port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// It sends and receives.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// DHCP options of the workload.
    #[serde(default)]
    pub dhcpv4_options: String,
    /// DHCPv6 options of the workload.
    #[serde(default)]
    pub dhcpv6_options: String,
    /// The name that DHCP tells it.
    #[serde(default)]
    pub hostname: String,
    /// Stations behind it are remembered; none: it depends on its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learn_fdb: Option<bool>,
    /// What is for its MAC addresses goes where these were seen last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_fdb_lookup: bool,
    /// Nobody answers for its addresses but the workload.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable_arp_nd_rsp: bool,
    /// It gets frames for groups; none: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_multicast: Option<bool>,
    /// Networks outside are not told where its addresses are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable_garp_rarp: bool,
    /// What its router is taken to have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arp_proxy: Vec<String>,
    /// Full names of the chassis that may have its interface; none: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested_chassis: Vec<String>,
    /// It gets what is sent to any group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multicast_flood: bool,
    /// It gets what workloads say about groups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multicast_flood_reports: bool,
    /// Bits per second that what the workload sends to other hosts gets before others get more.
    #[serde(default, skip_serializing_if = "is_none")]
    pub qos_min_rate: u64,
    /// Bits per second that it gets at most.
    #[serde(default, skip_serializing_if = "is_none")]
    pub qos_max_rate: u64,
    /// Bits that may leave at once.
    #[serde(default, skip_serializing_if = "is_none")]
    pub qos_burst: u64,
    /// Addresses that networks outside are told to be at its router's port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nat_addresses: Vec<String>,
    /// Full names of the chassis where its workload may have a second interface while it moves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested_additional_chassis: Vec<String>,
    /// From when on such an interface sends and receives.
    #[serde(default, skip_serializing_if = "Activation::is_usual")]
    pub activation_strategy: Activation,
    /// What is sent to its addresses also goes to the ports that take unknown ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clone_to_unknown: bool,
    /// ACLs with connections apply to what passes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_router_port_acl: bool,
    /// Key that it is to have in tunnels; 0: any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requested_tunnel_key: u32,
    /// Connections of its workload that its host remembers at most; 0: as many as the switch says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ct_zone_limit: u32,
    /// What its workload is asked by its host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health_checks: Vec<PortCheck>,
}

fn is_none(bits: &u64) -> bool {
    *bits == 0
}

fn is_zero(tag: &u32) -> bool {
    *tag == 0
}

/// What the controller says of a switch port.
#[derive(Debug, Clone, Serialize)]
pub struct SwitchPortStatus {
    tunnel_key: u32,
    chassis: Option<String>,
    up: bool,
    /// What was chosen for a `dynamic` entry.
    dynamic_addresses: Option<String>,
    /// The tag that was chosen for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen_tag: Option<u32>,
    /// Who has the address of a virtual port.
    virtual_parent: Option<String>,
    /// Groups that somebody behind it wants to hear.
    multicast_groups: Vec<String>,
    /// Where its workload has another interface while it moves.
    additional_chassis: Vec<String>,
    /// What its workload was asked, and whether it answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    health: Vec<(String, bool)>,
}

impl Object for SwitchPortSpec {
    const NOUN: Noun = Noun::SwitchPort;
    const ABOUT: About = About {
        add: "Make a port",
        set: "Change a port",
        list: "List ports",
        show: "Show a port",
        del: "Delete a port",
    };
    const HEADINGS: &'static [&'static str] =
        &["SWITCH", "PORT", "KEY", "STATE", "CHASSIS", "ADDRESSES", "LABELS"];
    type New = NewSwitchPort;
    type Changes = SwitchPortChanges;
    type Status = SwitchPortStatus;

    fn read(resource: &Resource) -> Result<(Self, SwitchPortStatus), CtlError> {
        let Some(resource::Spec::LogicalSwitchPort(port)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let kind = match Type::try_from(port.r#type) {
            Ok(Type::Unspecified) => PortType::Workload,
            Ok(Type::Router) => PortType::Router,
            Ok(Type::Localnet) => PortType::Localnet,
            Ok(Type::Localport) => PortType::Localport,
            Ok(Type::L2gateway) => PortType::L2gateway,
            Ok(Type::External) => PortType::External,
            Ok(Type::Virtual) => PortType::Virtual,
            Ok(Type::Switch) => PortType::Switch,
            Err(_) => return Err(unknown_value(resource, "type", port.r#type)),
        };
        let checks = port.health_checks.iter().map(|check| PortCheck::read(resource, check));
        let checks = checks.collect::<Result<Vec<_>, _>>()?;
        let mut health = Vec::new();
        for (said, check) in port.health_checks.iter().zip(&checks) {
            health.extend(online(resource, said.health)?.map(|online| (check.asked(" "), online)));
        }
        let given = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
        let spec = Self {
            labels: labels_of(resource),
            kind,
            addresses: port.addresses.clone(),
            port_security: port.port_security.clone(),
            router_port: given(&port.router_port),
            network: port.network_name.clone(),
            tag: port.tag,
            tag_type: TagType::read(resource, port.tag_type)?,
            parent: port.parent.clone(),
            tag_request: port.tag_request,
            gateway_chassis: gateway::read(&port.gateway_chassis),
            ha_chassis_group: port.ha_chassis_group.clone(),
            virtual_ip: port.virtual_ip.clone(),
            virtual_parents: port.virtual_parents.clone(),
            peer: port.peer.clone(),
            enabled: port.enabled.unwrap_or(true),
            dhcpv4_options: port.dhcpv4_options.clone(),
            dhcpv6_options: port.dhcpv6_options.clone(),
            hostname: port.hostname.clone(),
            learn_fdb: port.learn_fdb,
            force_fdb_lookup: port.force_fdb_lookup,
            disable_arp_nd_rsp: port.disable_arp_nd_rsp,
            receive_multicast: port.receive_multicast,
            disable_garp_rarp: port.disable_garp_rarp,
            arp_proxy: port.arp_proxy.clone(),
            requested_chassis: port.requested_chassis.clone(),
            multicast_flood: port.multicast_flood,
            multicast_flood_reports: port.multicast_flood_reports,
            qos_min_rate: port.qos_min_rate,
            qos_max_rate: port.qos_max_rate,
            qos_burst: port.qos_burst,
            nat_addresses: port.nat_addresses.clone(),
            requested_additional_chassis: port.requested_additional_chassis.clone(),
            activation_strategy: Activation::read(resource, port.activation_strategy)?,
            clone_to_unknown: port.clone_to_unknown,
            enable_router_port_acl: port.enable_router_port_acl,
            requested_tunnel_key: port.requested_tunnel_key,
            ct_zone_limit: port.ct_zone_limit,
            health_checks: checks,
        };
        let status = SwitchPortStatus {
            tunnel_key: port.tunnel_key,
            chassis: given(&port.chassis),
            up: port.up,
            dynamic_addresses: given(&port.dynamic_addresses),
            chosen_tag: Some(port.chosen_tag).filter(|tag| *tag > 0),
            virtual_parent: given(&port.virtual_parent),
            multicast_groups: port.multicast_groups.clone(),
            additional_chassis: port.additional_chassis.clone(),
            health,
        };
        Ok((spec, status))
    }

    fn spec(&self) -> resource::Spec {
        let kind = match self.kind {
            PortType::Workload => Type::Unspecified,
            PortType::Router => Type::Router,
            PortType::Localnet => Type::Localnet,
            PortType::Localport => Type::Localport,
            PortType::L2gateway => Type::L2gateway,
            PortType::External => Type::External,
            PortType::Virtual => Type::Virtual,
            PortType::Switch => Type::Switch,
        };
        resource::Spec::LogicalSwitchPort(LogicalSwitchPort {
            r#type: kind.into(),
            addresses: self.addresses.clone(),
            port_security: self.port_security.clone(),
            router_port: self.router_port.clone().unwrap_or_default(),
            network_name: self.network.clone(),
            tag: self.tag,
            tag_type: self.tag_type.write(),
            parent: self.parent.clone(),
            tag_request: self.tag_request,
            gateway_chassis: gateway::write(&self.gateway_chassis),
            ha_chassis_group: self.ha_chassis_group.clone(),
            virtual_ip: self.virtual_ip.clone(),
            virtual_parents: self.virtual_parents.clone(),
            peer: self.peer.clone(),
            enabled: (!self.enabled).then_some(false),
            dhcpv4_options: self.dhcpv4_options.clone(),
            dhcpv6_options: self.dhcpv6_options.clone(),
            hostname: self.hostname.clone(),
            learn_fdb: self.learn_fdb,
            force_fdb_lookup: self.force_fdb_lookup,
            disable_arp_nd_rsp: self.disable_arp_nd_rsp,
            receive_multicast: self.receive_multicast,
            disable_garp_rarp: self.disable_garp_rarp,
            arp_proxy: self.arp_proxy.clone(),
            requested_chassis: self.requested_chassis.clone(),
            multicast_flood: self.multicast_flood,
            multicast_flood_reports: self.multicast_flood_reports,
            qos_min_rate: self.qos_min_rate,
            qos_max_rate: self.qos_max_rate,
            qos_burst: self.qos_burst,
            nat_addresses: self.nat_addresses.clone(),
            requested_additional_chassis: self.requested_additional_chassis.clone(),
            activation_strategy: self.activation_strategy.write(),
            clone_to_unknown: self.clone_to_unknown,
            enable_router_port_acl: self.enable_router_port_acl,
            requested_tunnel_key: self.requested_tunnel_key,
            ct_zone_limit: self.ct_zone_limit,
            health_checks: self.health_checks.iter().map(PortCheck::write).collect(),
            ..Default::default()
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewSwitchPort, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let NewSwitchPort { addresses, port_security, router_port, outside, localport, disable, .. } = new;
        let NewSwitchPort { services, rest, .. } = new;
        let (requested_chassis, requested_additional_chassis) = (rest.chassis()?, rest.others()?);
        let kind = match (&outside.network, localport) {
            _ if outside.is_own_kind() => outside.kind(),
            (Some(_), _) => outside.kind(),
            (None, true) => PortType::Localport,
            (None, false) => PortType::linked_to(router_port.as_deref()),
        };
        let ha_chassis_group = outside.group()?.unwrap_or_default();
        let Outside { network, gateways, parent, tag, virtual_ip, virtual_parents, peer, .. } = outside;
        let [dhcpv4, dhcpv6] = services.dhcp()?;
        let [min, max] = [rest.qos_min, rest.qos_max].map(|rate| rate.map_or((0, 0), Rate::bits));
        Ok(Self {
            labels,
            kind,
            addresses,
            port_security,
            router_port,
            network: network.unwrap_or_default(),
            tag: tag.unwrap_or_default(),
            tag_type: outside.ethtype.unwrap_or_default(),
            parent: parent.unwrap_or_default(),
            tag_request: outside.tag_request,
            gateway_chassis: gateways,
            ha_chassis_group,
            virtual_ip: virtual_ip.unwrap_or_default(),
            virtual_parents,
            peer: peer.unwrap_or_default(),
            enabled: !disable,
            dhcpv4_options: dhcpv4.unwrap_or_default(),
            dhcpv6_options: dhcpv6.unwrap_or_default(),
            hostname: services.hostname.unwrap_or_default(),
            learn_fdb: rest.learn_fdb,
            force_fdb_lookup: rest.force_fdb_lookup.unwrap_or_default(),
            disable_arp_nd_rsp: rest.disable_arp_nd_rsp.unwrap_or_default(),
            receive_multicast: rest.receive_multicast,
            disable_garp_rarp: rest.disable_garp_rarp.unwrap_or_default(),
            arp_proxy: rest.arp_proxy,
            requested_chassis,
            multicast_flood: rest.mcast_flood.unwrap_or_default(),
            multicast_flood_reports: rest.mcast_flood_reports.unwrap_or_default(),
            qos_min_rate: min.0,
            qos_max_rate: max.0,
            qos_burst: if max.1 > 0 { max.1 } else { min.1 },
            nat_addresses: rest.nat_addresses,
            requested_additional_chassis,
            activation_strategy: rest.activation.unwrap_or_default(),
            clone_to_unknown: rest.clone_to_unknown.unwrap_or_default(),
            enable_router_port_acl: rest.router_port_acl.unwrap_or_default(),
            requested_tunnel_key: rest.tunnel_key.unwrap_or_default(),
            ct_zone_limit: rest.ct_zone_limit.unwrap_or_default(),
            health_checks: rest.checks,
        })
    }

    fn change(given: &SwitchPortChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.list("addresses", &given.addresses, given.no_addresses, |port| &mut port.addresses);
        let entries = &given.port_security;
        patch.list("port_security", entries, given.no_port_security, |port| &mut port.port_security);
        if given.router_port.is_some() || given.no_router_port {
            let kind = PortType::linked_to(given.router_port.as_deref());
            patch.set("type", Some(&kind), |port| &mut port.kind);
            patch.set("router_port", Some(&given.router_port), |port| &mut port.router_port);
        }
        let Outside { network, gateways, parent, tag, virtual_ip, virtual_parents, .. } = &given.outside;
        if network.is_some() || given.outside.is_own_kind() {
            patch.set("type", Some(&given.outside.kind()), |port| &mut port.kind);
        }
        patch.set("network_name", network.as_ref(), |port| &mut port.network);
        let group = given.outside.group()?;
        let by_group = given.outside.ha_chassis_group.is_some();
        patch.list("gateway_chassis", gateways, by_group, |port| &mut port.gateway_chassis);
        patch.set("ha_chassis_group", group.as_ref(), |port| &mut port.ha_chassis_group);
        patch.set("virtual_ip", virtual_ip.as_ref(), |port| &mut port.virtual_ip);
        patch.list("virtual_parents", virtual_parents, false, |port| &mut port.virtual_parents);
        patch.set("peer", given.outside.peer.as_ref(), |port| &mut port.peer);
        patch.set("parent", parent.as_ref(), |port| &mut port.parent);
        let (asks, has) = (given.outside.tag_request, tag.is_some());
        patch.set("tag", tag.or(asks.then_some(0)).as_ref(), |port| &mut port.tag);
        patch.set("tag_request", (asks || has).then_some(&asks), |port| &mut port.tag_request);
        patch.set("tag_type", given.outside.ethtype.as_ref(), |port| &mut port.tag_type);
        patch.switch("enabled", (given.enable, given.disable), |port| &mut port.enabled);
        let [dhcpv4, dhcpv6] = given.services.dhcp()?;
        patch.set("dhcpv4_options", dhcpv4.as_ref(), |port| &mut port.dhcpv4_options);
        patch.set("dhcpv6_options", dhcpv6.as_ref(), |port| &mut port.dhcpv6_options);
        patch.set("hostname", given.services.hostname.as_ref(), |port| &mut port.hostname);
        let rest = &given.rest;
        let (learns, takes) = (rest.learn_fdb.map(Some), rest.receive_multicast.map(Some));
        patch.set("learn_fdb", learns.as_ref(), |port| &mut port.learn_fdb);
        patch.set("force_fdb_lookup", rest.force_fdb_lookup.as_ref(), |port| &mut port.force_fdb_lookup);
        patch.set("receive_multicast", takes.as_ref(), |port| &mut port.receive_multicast);
        patch
            .set("disable_arp_nd_rsp", rest.disable_arp_nd_rsp.as_ref(), |port| &mut port.disable_arp_nd_rsp);
        patch.set("disable_garp_rarp", rest.disable_garp_rarp.as_ref(), |port| &mut port.disable_garp_rarp);
        patch.set("multicast_flood", rest.mcast_flood.as_ref(), |port| &mut port.multicast_flood);
        let reports = rest.mcast_flood_reports.as_ref();
        patch.set("multicast_flood_reports", reports, |port| &mut port.multicast_flood_reports);
        patch.list("arp_proxy", &rest.arp_proxy, given.no_arp_proxy, |port| &mut port.arp_proxy);
        let chassis = rest.chassis()?;
        let any = given.no_requested_chassis;
        patch.list("requested_chassis", &chassis, any, |port| &mut port.requested_chassis);
        let (others, none) = (rest.others()?, given.no_additional_chassis);
        patch.list("requested_additional_chassis", &others, none, |port| {
            &mut port.requested_additional_chassis
        });
        patch.set("activation_strategy", rest.activation.as_ref(), |port| &mut port.activation_strategy);
        patch.set("clone_to_unknown", rest.clone_to_unknown.as_ref(), |port| &mut port.clone_to_unknown);
        let acls = rest.router_port_acl.as_ref();
        patch.set("enable_router_port_acl", acls, |port| &mut port.enable_router_port_acl);
        patch.set("requested_tunnel_key", rest.tunnel_key.as_ref(), |port| &mut port.requested_tunnel_key);
        patch.set("ct_zone_limit", rest.ct_zone_limit.as_ref(), |port| &mut port.ct_zone_limit);
        patch.list("health_checks", &rest.checks, given.no_checks, |port| &mut port.health_checks);
        let [min, max] = [rest.qos_min, rest.qos_max].map(|rate| rate.map(Rate::bits));
        patch.set("qos_min_rate", min.map(|(bits, _)| bits).as_ref(), |port| &mut port.qos_min_rate);
        patch.set("qos_max_rate", max.map(|(bits, _)| bits).as_ref(), |port| &mut port.qos_max_rate);
        let burst = max.or(min).map(|(_, burst)| burst);
        patch.set("qos_burst", burst.as_ref(), |port| &mut port.qos_burst);
        let (told, own) = (&rest.nat_addresses, given.no_nat_addresses);
        patch.list("nat_addresses", told, own, |port| &mut port.nat_addresses);
        Ok(())
    }

    fn cells(&self, status: &SwitchPortStatus) -> Vec<String> {
        vec![
            status.tunnel_key.to_string(),
            self.state(status).into(),
            status.chassis.as_deref().map(short).unwrap_or_default().into(),
            self.attached(status),
        ]
    }

    fn fields(&self, status: &SwitchPortStatus) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("addresses", self.attached(status)),
            ("port security", self.port_security.join(", ")),
            ("enabled", yes(self.enabled)),
            ("network", self.network.clone()),
            ("tag", self.tag_text(status)),
            ("parent", self.parent.clone()),
            ("gateways", gateway::print(&self.gateway_chassis)),
            ("HA chassis group", short(&self.ha_chassis_group).to_owned()),
            ("tunnel key", status.tunnel_key.to_string()),
            ("chassis", status.chassis.clone().unwrap_or_default()),
            ("up", yes(status.up)),
        ];
        for (title, text) in [
            ("DHCPv4", short(&self.dhcpv4_options)),
            ("DHCPv6", short(&self.dhcpv6_options)),
            ("hostname", self.hostname.as_str()),
        ] {
            fields.extend((!text.is_empty()).then(|| (title, text.to_owned())));
        }
        let shorts = |names: &[String]| names.iter().map(|name| short(name)).collect::<Vec<_>>().join(" ");
        let key = Some(self.requested_tunnel_key).filter(|key| *key > 0);
        for (title, text) in [
            ("learns stations", self.learn_fdb.map(yes).unwrap_or_default()),
            ("looked up", if self.force_fdb_lookup { yes(true) } else { String::new() }),
            ("gets multicast", self.receive_multicast.map(yes).unwrap_or_default()),
            ("answered for", if self.disable_arp_nd_rsp { yes(false) } else { String::new() }),
            ("announced", if self.disable_garp_rarp { yes(false) } else { String::new() }),
            ("stands for", self.arp_proxy.join(" ")),
            ("requested chassis", shorts(&self.requested_chassis)),
            ("requested additional", shorts(&self.requested_additional_chassis)),
            ("additional chassis", shorts(&status.additional_chassis)),
            (
                "activation",
                if self.activation_strategy.is_usual() { String::new() } else { "rarp".to_owned() },
            ),
            ("cloned to unknown", if self.clone_to_unknown { yes(true) } else { String::new() }),
            ("router port ACLs", if self.enable_router_port_acl { yes(true) } else { String::new() }),
            ("requested key", key.map(|key| key.to_string()).unwrap_or_default()),
            ("connections", limited(self.ct_zone_limit).map(|(_, n)| n).unwrap_or_default()),
            ("gets all multicast", if self.multicast_flood { yes(true) } else { String::new() }),
            ("gets reports", if self.multicast_flood_reports { yes(true) } else { String::new() }),
            ("hears", status.multicast_groups.join(" ")),
            ("least rate", bits(self.qos_min_rate)),
            ("most rate", bits(self.qos_max_rate)),
            ("burst", bits(self.qos_burst)),
            ("told to be there", self.nat_addresses.join(", ")),
        ] {
            fields.extend((!text.is_empty()).then_some((title, text)));
        }
        fields.extend(self.health_checks.iter().map(|check| ("check", check.to_string())));
        let word = |online: &bool| if *online { "online" } else { "offline" };
        fields.extend(
            status.health.iter().map(|(asked, online)| ("health", format!("{asked} {}", word(online)))),
        );
        fields
    }
}

/// Bits, or bits per second; nothing if there is no such bound.
fn bits(bits: u64) -> String {
    if bits == 0 { String::new() } else { format!("{bits} bit") }
}

impl SwitchPortSpec {
    fn tag_text(&self, status: &SwitchPortStatus) -> String {
        match (self.tag, status.chosen_tag) {
            (0, None) => String::new(),
            (0, Some(chosen)) => format!("{chosen} (chosen)"),
            (tag, _) if self.tag_type.is_usual() => tag.to_string(),
            (tag, _) => format!("{tag} (802.1ad)"),
        }
    }

    fn state(&self, status: &SwitchPortStatus) -> &'static str {
        match (self.enabled, self.kind, status.up) {
            (false, _, _) => "disabled",
            (true, PortType::Router, _) => "router",
            (true, PortType::Switch, _) => "switch",
            (true, PortType::Localnet, _) => "localnet",
            (true, PortType::Localport, _) => "localport",
            (true, PortType::L2gateway, _) => "l2gateway",
            (true, PortType::External, _) => "external",
            (true, PortType::Virtual, true) => "up",
            (true, PortType::Virtual, false) => "virtual",
            (true, PortType::Workload, true) => "up",
            (true, PortType::Workload, false) => "down",
        }
    }

    fn attached(&self, status: &SwitchPortStatus) -> String {
        let tag = if self.tag == 0 { String::new() } else { format!(" VLAN {}", self.tag) };
        match (&self.router_port, self.kind, &status.dynamic_addresses) {
            (Some(name), _, _) => format!("router port {}", short(name)),
            (None, PortType::Localnet | PortType::L2gateway, _) => format!("network {}{tag}", self.network),
            (None, PortType::Switch, _) => format!("switch port {}", self.peer),
            (None, PortType::Virtual, _) => match &status.virtual_parent {
                Some(parent) => format!("{} at {}", self.virtual_ip, short(parent)),
                None => self.virtual_ip.clone(),
            },
            (None, _, None) => self.addresses.join(", "),
            (None, _, Some(chosen)) => format!("{} ({chosen})", self.addresses.join(", ")),
        }
    }
}
