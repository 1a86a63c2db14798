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
    /// ACLs with direction from-lport.
    AclEval = "ls_in_acl_eval",
    /// Answers to ARP and ND for known addresses.
    ArpRsp = "ls_in_arp_rsp",
    /// Output port by destination MAC address.
    L2Lkup = "ls_in_l2_lkup",
    /// Destinations nobody is known to have.
    L2Unknown = "ls_in_l2_unknown",
}

pipeline! {
    /// To a port of a switch.
    SwitchOut is Egress:
    /// ACLs with direction to-lport.
    AclEval = "ls_out_acl_eval",
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
    /// Packets to the router itself, and those it must not forward.
    IpInput = "lr_in_ip_input",
    /// Longest prefix: output port and next hop.
    IpRouting = "lr_in_ip_routing",
    /// MAC address of the next hop.
    ArpResolve = "lr_in_arp_resolve",
}

pipeline! {
    /// To a port of a router.
    RouterOut is Egress:
    /// Out.
    Delivery = "lr_out_delivery",
}
