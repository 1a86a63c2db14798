//! The stages of the logical pipelines. Each is declared once, in the order packets pass
//! them; number and name follow from the declaration. Names are OVN's.

use crate::southbound::Pipeline;

/// A stage as logical flows name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stage {
    /// Pipeline it is in.
    pub(crate) pipeline: Pipeline,
    /// Its number there.
    pub(crate) number: u8,
    /// Its name.
    pub(crate) name: &'static str,
}

/// Declares one pipeline.
macro_rules! pipeline {
    ($(#[$doc:meta])* $enum:ident is $pipeline:ident: $($(#[$each:meta])* $variant:ident = $name:literal,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum $enum { $($(#[$each])* $variant,)* }

        impl From<$enum> for Stage {
            fn from(stage: $enum) -> Self {
                let name = match stage { $($enum::$variant => $name,)* };
                Self { pipeline: Pipeline::$pipeline, number: stage as u8, name }
            }
        }
    };
}

pipeline! {
    /// From a port of a switch to the choice of the output port.
    SwitchIn is Ingress:
    /// Frames that cannot be, ports that are off, source MAC addresses.
    PortSecL2 = "ls_in_port_sec_l2",
    /// Source IP addresses.
    PortSecIp = "ls_in_port_sec_ip",
    /// Addresses within ARP and ND.
    PortSecNd = "ls_in_port_sec_nd",
    /// Where stations are is remembered.
    PutFdb = "ls_in_put_fdb",
    /// Packets that ACLs need the connection of.
    PreAcl = "ls_in_pre_acl",
    /// Packets to services of load balancers.
    PreLb = "ls_in_pre_lb",
    /// What is known of the packet's connection.
    PreStateful = "ls_in_pre_stateful",
    /// What the connection's state means for ACLs.
    AclHint = "ls_in_acl_hint",
    /// ACLs with direction from-lport.
    AclEval = "ls_in_acl_eval",
    /// What they decided: on, the next tier, or the default.
    AclAction = "ls_in_acl_action",
    /// Marks and rates.
    Qos = "ls_in_qos",
    /// Clients that had a backend before.
    LbAffCheck = "ls_in_lb_aff_check",
    /// New connections to services get a backend.
    Lb = "ls_in_lb",
    /// Backends that clients shall come back to.
    LbAffLearn = "ls_in_lb_aff_learn",
    /// Sources of clients that are their own backend.
    NatHairpin = "ls_in_nat_hairpin",
    /// Clients that are their own backend.
    Hairpin = "ls_in_hairpin",
    /// ACLs with direction from-lport that see the backend which a service stands for.
    AclAfterLbEval = "ls_in_acl_after_lb_eval",
    /// What they decided: on, or the next tier.
    AclAfterLbAction = "ls_in_acl_after_lb_action",
    /// Connections that were allowed are remembered.
    Stateful = "ls_in_stateful",
    /// Answers to ARP and ND for known addresses.
    ArpRsp = "ls_in_arp_rsp",
    /// Questions of DHCP clients.
    DhcpOptions = "ls_in_dhcp_options",
    /// Answers to them.
    DhcpResponse = "ls_in_dhcp_response",
    /// Questions for names.
    DnsLookup = "ls_in_dns_lookup",
    /// Answers to them.
    DnsResponse = "ls_in_dns_response",
    /// What is said about groups.
    McastSnoop = "ls_in_mcast_snoop",
    /// Output port by destination MAC address.
    L2Lkup = "ls_in_l2_lkup",
    /// Destinations nobody is known to have.
    L2Unknown = "ls_in_l2_unknown",
}

pipeline! {
    /// To a port of a switch.
    SwitchOut is Egress:
    /// Where stations on other hosts are is remembered.
    PutFdb = "ls_out_put_fdb",
    /// Packets that ACLs need the connection of.
    PreAcl = "ls_out_pre_acl",
    /// Answers of services of load balancers.
    PreLb = "ls_out_pre_lb",
    /// What is known of the packet's connection.
    PreStateful = "ls_out_pre_stateful",
    /// What the connection's state means for ACLs.
    AclHint = "ls_out_acl_hint",
    /// ACLs with direction to-lport.
    AclEval = "ls_out_acl_eval",
    /// What they decided: on, the next tier, or the default.
    AclAction = "ls_out_acl_action",
    /// Marks and rates.
    Qos = "ls_out_qos",
    /// Connections that were allowed are remembered.
    Stateful = "ls_out_stateful",
    /// Destination IP addresses.
    PortSecIp = "ls_out_port_sec_ip",
    /// Destination MAC addresses, ports that are off.
    PortSecL2 = "ls_out_port_sec_l2",
}

pipeline! {
    /// From a port of a router to the choice of output port and next hop.
    RouterIn is Ingress:
    /// Frames for the router.
    Admission = "lr_in_admission",
    /// Whether the sender of an ARP or ND packet is known.
    LookupNeighbor = "lr_in_lookup_neighbor",
    /// Senders of ARP and ND packets are remembered.
    LearnNeighbor = "lr_in_learn_neighbor",
    /// Packets to the router itself, and those it must not forward.
    IpInput = "lr_in_ip_input",
    /// Answers to translated sources.
    UnSnat = "lr_in_unsnat",
    /// What is known of connections to translated destinations.
    Defrag = "lr_in_defrag",
    /// Clients that had a backend before.
    LbAffCheck = "lr_in_lb_aff_check",
    /// New connections to translated destinations.
    Dnat = "lr_in_dnat",
    /// Backends that clients shall come back to.
    LbAffLearn = "lr_in_lb_aff_learn",
    /// Connections whose answers go back the way that they came.
    EcmpStateful = "lr_in_ecmp_stateful",
    /// Hosts that ask for routers.
    NdRaOptions = "lr_in_nd_ra_options",
    /// Answers to them.
    NdRaResponse = "lr_in_nd_ra_response",
    /// Which static routes there are for packets of a port.
    IpRoutingPre = "lr_in_ip_routing_pre",
    /// Longest prefix: output port and next hop.
    IpRouting = "lr_in_ip_routing",
    /// One of several next hops of a route.
    IpRoutingEcmp = "lr_in_ip_routing_ecmp",
    /// The chain of policies that packets come to first.
    PolicyPre = "lr_in_policy_pre",
    /// Policies, which overrule the routes.
    Policy = "lr_in_policy",
    /// One of several next hops of a policy.
    PolicyEcmp = "lr_in_policy_ecmp",
    /// Whether packets fit into the network that they leave to.
    ChkPktLen = "lr_in_chk_pkt_len",
    /// Those that do not.
    LargerPkts = "lr_in_larger_pkts",
    /// Packets that leave by a port whose gateway is another chassis.
    GwRedirect = "lr_in_gw_redirect",
    /// Connections that leave by a port whose answers go back the way that they came.
    EcmpStatefulEgr = "lr_in_ecmp_stateful_egr",
    /// MAC address of the next hop.
    ArpResolve = "lr_in_arp_resolve",
    /// Questions for MAC addresses that nobody knows.
    ArpRequest = "lr_in_arp_request",
}

pipeline! {
    /// To a port of a router.
    RouterOut is Egress:
    /// Answers of translated destinations.
    UnDnat = "lr_out_undnat",
    /// Translated sources.
    Snat = "lr_out_snat",
    /// Packets to a translated destination of the router they have just left.
    EgrLoop = "lr_out_egr_loop",
    /// Out.
    Delivery = "lr_out_delivery",
}
