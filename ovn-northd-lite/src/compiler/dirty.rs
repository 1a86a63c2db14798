//! What of the northbound model has changed.

use std::collections::BTreeSet;

/// Ids of the objects of the northbound model that changed, appeared or are gone. Whoever
/// cannot say it exactly may name more: a whole switch instead of one of its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Switches with all that is theirs.
    pub switches: BTreeSet<String>,
    /// Switches, but nothing that has an id within them.
    pub switch_settings: BTreeSet<String>,
    /// (switch, port)
    pub switch_ports: BTreeSet<(String, String)>,
    /// (switch, ACL)
    pub switch_acls: BTreeSet<(String, String)>,
    /// (switch, rule about quality of service)
    pub qos_rules: BTreeSet<(String, String)>,
    /// Routers with all that is theirs.
    pub routers: BTreeSet<String>,
    /// Routers and their static routes, but nothing that has an id within them.
    pub router_settings: BTreeSet<String>,
    /// (router, port)
    pub router_ports: BTreeSet<(String, String)>,
    /// (router, policy)
    pub policies: BTreeSet<(String, String)>,
    /// (router, address translation)
    pub nats: BTreeSet<(String, String)>,
    /// Load balancers.
    pub load_balancers: BTreeSet<String>,
    /// Groups of load balancers.
    pub balancer_groups: BTreeSet<String>,
    /// Groups of hosts that may be a gateway.
    pub ha_groups: BTreeSet<String>,
    /// What DHCP clients are told.
    pub dhcp_options: BTreeSet<String>,
    /// Names with their addresses.
    pub names: BTreeSet<String>,
    /// Router ports whose neighbours hosts have heard of.
    pub heard: BTreeSet<String>,
    /// Bounds on what hosts are asked for.
    pub limits: BTreeSet<String>,
    /// Address sets.
    pub address_sets: BTreeSet<String>,
    /// Variables with other values on some chassis.
    pub template_variables: BTreeSet<String>,
    /// Who is told of sampled packets.
    pub sample_collectors: BTreeSet<String>,
    /// Port groups with their ACLs.
    pub port_groups: BTreeSet<String>,
    /// (port group, ACL)
    pub group_acls: BTreeSet<(String, String)>,
    /// Hosts.
    pub chassis: BTreeSet<String>,
}
