//! The YAML of `apply` and `export`: the network as one would draw it, ports and ACLs
//! below their switch or router. A file is one or more documents of this form:
//!
//! ```yaml
//! labels: {app: shop}           # given to everything in this document
//! switches:
//!   web:
//!     ports:
//!       web-1: {addresses: ["0a:00:00:00:01:0b 10.0.1.11"]}
//!       web-to-r1: {router_port: r1-web}
//! routers:
//!   r1:
//!     ports:
//!       r1-web: {mac: "0a:00:00:00:01:01", networks: [10.0.1.1/24]}
//! ```
//!
//! What an object does not mention has its default value; what the file does not
//! mention is left alone. [`parse`] reads the text, [`objects`] makes API resources of
//! it and the other way round.

pub mod objects;
pub mod parse;
pub mod section;

use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    net::{
        acl::AclSpec,
        address_management::AddressManagement,
        address_set::AddressSetSpec,
        dhcp_options::DhcpOptionsSpec,
        ha_chassis_group::HaChassisGroupSpec,
        limits::LimitsSpec,
        load_balancer::LoadBalancerSpec,
        load_balancer_group::LoadBalancerGroupSpec,
        multicast::Snooping,
        names::NamesSpec,
        nat::NatSpec,
        object::{enabled, is_any_key},
        policy::Policy,
        qos_rule::QosRuleSpec,
        router::Route,
        router_policy::RouterPolicySpec,
        router_port::RouterPortSpec,
        sample_collector::SampleCollectorSpec,
        switch_port::SwitchPortSpec,
        template_variable::TemplateVariableSpec,
    },
};
use section::Section;

/// One document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Labels for every object of the document.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub labels: Labels,
    /// Switches by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub switches: Section<SwitchDoc>,
    /// Routers by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub routers: Section<RouterDoc>,
    /// Address sets by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub address_sets: Section<AddressSetSpec>,
    /// Port groups by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub port_groups: Section<PortGroupDoc>,
    /// Load balancers by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub load_balancers: Section<LoadBalancerSpec>,
    /// Load balancers that are used together, by their groups' ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub load_balancer_groups: Section<LoadBalancerGroupSpec>,
    /// Hosts that may be a gateway, by their groups' ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub ha_chassis_groups: Section<HaChassisGroupSpec>,
    /// Values that are others on each chassis, by the ids of their variables.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub template_variables: Section<TemplateVariableSpec>,
    /// Who is told of sampled packets, by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub sample_collectors: Section<SampleCollectorSpec>,
    /// What DHCP clients are told, by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub dhcp_options: Section<DhcpOptionsSpec>,
    /// Lists of names by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub names: Section<NamesSpec>,
    /// Bounds on what packets ask hosts for, by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub control_plane_limits: Section<LimitsSpec>,
}

/// A switch with what is below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchDoc {
    /// Free key-value pairs.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub labels: Labels,
    /// What becomes of packets that no ACL decides about.
    #[serde(default)]
    pub default_policy: Policy,
    /// Load balancers that its workloads use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<String>,
    /// Groups of such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_groups: Vec<String>,
    /// What it gives its ports addresses from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_management: Option<AddressManagement>,
    /// DHCP options of its workloads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dhcpv4_options: String,
    /// DHCPv6 options of its workloads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dhcpv6_options: String,
    /// Lists of names that its workloads can resolve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Bounds on what its packets ask hosts for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub control_plane_limits: String,
    /// Seconds after which a station is forgotten that has not spoken; none: the usual time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb_age_threshold: Option<u32>,
    /// Frames with VLAN tags pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vlan_passthru: bool,
    /// Whether questions for addresses that no router has reach routers too; none: they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_arps_to_all_routers: Option<bool>,
    /// Key that it is to have in tunnels; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub requested_tunnel_key: u32,
    /// Connections that a host remembers at most; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub ct_zone_limit: u32,
    /// How it listens to who wants to hear which group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast_snooping: Option<Snooping>,
    /// Ports by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub ports: Section<SwitchPortSpec>,
    /// ACLs by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub acls: Section<AclSpec>,
    /// Rules about quality of service by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub qos_rules: Section<QosRuleSpec>,
}

/// A port group with its ACLs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortGroupDoc {
    /// Free key-value pairs.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub labels: Labels,
    /// Its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// What becomes of their packets that no ACL decides about.
    #[serde(default)]
    pub default_policy: Policy,
    /// ACLs by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub acls: Section<AclSpec>,
}

/// A router with what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterDoc {
    /// Free key-value pairs.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub labels: Labels,
    /// It forwards.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Static routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub static_routes: Vec<Route>,
    /// Ports by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub ports: Section<RouterPortSpec>,
    /// Chassis that the whole router is on; none: every host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chassis: String,
    /// Load balancers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<String>,
    /// Groups of such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_groups: Vec<String>,
    /// Bounds on what its packets ask hosts for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub control_plane_limits: String,
    /// Addresses that the sources of its load balancers' connections become.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lb_force_snat_ips: Vec<String>,
    /// The same, of connections whose destination it translates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dnat_force_snat_ips: Vec<String>,
    /// It sends on what is sent to groups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multicast_relay: bool,
    /// Key that it is to have in tunnels; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub requested_tunnel_key: u32,
    /// Connections that a host remembers at most; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub ct_zone_limit: u32,
    /// Zone of connections whose source it translates; none: one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat_ct_zone: Option<u32>,
    /// Connections that it does not translate are remembered, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ct_commit_all: bool,
    /// Whoever asks for anybody by ARP is remembered as a neighbour.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always_learn_from_arp_request: bool,
    /// Seconds after which a neighbour is forgotten; none: as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_binding_age_threshold: Option<u32>,
    /// Address translations by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub nats: Section<NatSpec>,
    /// Policies by their ids.
    #[serde(default, with = "section", skip_serializing_if = "Section::is_empty")]
    pub policies: Section<RouterPolicySpec>,
}

impl Default for RouterDoc {
    fn default() -> Self {
        Self {
            labels: Labels::new(),
            enabled: true,
            static_routes: Vec::new(),
            ports: Section::new(),
            chassis: String::new(),
            load_balancers: Vec::new(),
            load_balancer_groups: Vec::new(),
            control_plane_limits: String::new(),
            lb_force_snat_ips: Vec::new(),
            dnat_force_snat_ips: Vec::new(),
            multicast_relay: false,
            requested_tunnel_key: 0,
            ct_zone_limit: 0,
            snat_ct_zone: None,
            ct_commit_all: false,
            always_learn_from_arp_request: false,
            mac_binding_age_threshold: None,
            nats: Section::new(),
            policies: Section::new(),
        }
    }
}
