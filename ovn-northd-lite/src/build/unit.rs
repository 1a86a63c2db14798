//! The units that a network is compiled in, and what each contributes to the whole.

use std::{borrow::Cow, collections::BTreeSet, net::IpAddr, sync::Arc};

use flowtable::types::Priority;

use crate::{
    key::{DatapathKey, PortKey},
    model::{AclDirection, IpNetwork, Limits, RouteMatch, Snooping},
    southbound::{Datapath, LogicalFlow, PortBinding},
};

/// What units belong to, by its id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Owner {
    Switch(Arc<str>),
    Router(Arc<str>),
}

/// A unit of its owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    /// The switch or router itself.
    Datapath,
    /// A port of it.
    Port(String),
    /// The ACLs that apply in one place.
    Acls(AclPlace),
    /// A rule about quality of service.
    Qos(String),
    /// The static routes to one prefix, by its base.
    Route(RouteMatch, IpNetwork),
    /// A policy.
    Policy(String),
    /// An address translation.
    Nat(String),
    /// A load balancer.
    Balancer(String),
    /// A group that somebody wants to hear.
    Group(IpAddr),
    /// (router port, switch port): somebody on a network of the router's.
    Neighbour(String, String),
}

/// Which packets ACLs are for, and with which precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AclPlace {
    pub(crate) direction: AclDirection,
    pub(crate) after_lb: bool,
    pub(crate) tier: u8,
    pub(crate) priority: Priority,
    pub(crate) matching: String,
}

/// A unit.
pub(crate) type UnitId = (Owner, Arc<Item>);

/// A datapath without its sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DatapathHead {
    pub(crate) name: String,
    pub(crate) is_router: bool,
    pub(crate) limits: Limits,
    pub(crate) snooping: Option<Snooping>,
    pub(crate) max_connections: Option<u32>,
    pub(crate) snat_zone: Option<u16>,
}

impl DatapathHead {
    pub(crate) fn with_sets(self, sets: BTreeSet<String>) -> Datapath {
        let Self { name, is_router, limits, snooping, max_connections, snat_zone } = self;
        Datapath { name, is_router, sets, limits, snooping, max_connections, snat_zone }
    }
}

/// Name of a group of ports.
pub(crate) type GroupName = Cow<'static, str>;

/// What a unit contributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// The datapath that all of it belongs to; `None`: there is no such unit.
    pub(crate) key: Option<DatapathKey>,
    /// The datapath, but for its sets: from the unit that is it.
    pub(crate) datapath: Option<DatapathHead>,
    pub(crate) bindings: Vec<(String, PortBinding)>,
    /// Groups that there are, with their names.
    pub(crate) groups: Vec<(PortKey, GroupName)>,
    /// Ports in groups. A group with a port is there.
    pub(crate) members: Vec<(PortKey, GroupName, String)>,
    /// Flows, each with the rank of its feature.
    pub(crate) flows: Vec<(u16, Arc<LogicalFlow>)>,
    /// Names of sets that the flows speak of, and of the names that workloads see.
    pub(crate) named_sets: BTreeSet<String>,
}

impl Output {
    /// What a unit contributes that there is not.
    pub(crate) const NONE: Self = Self {
        key: None,
        datapath: None,
        bindings: Vec::new(),
        groups: Vec::new(),
        members: Vec::new(),
        flows: Vec::new(),
        named_sets: BTreeSet::new(),
    };

    /// Keeps those flows of the unit before that are the same, so that each is in memory
    /// once.
    pub(crate) fn share_flows(&mut self, before: &Self) {
        for (_, flow) in &mut self.flows {
            if let Some((_, same)) = before.flows.iter().find(|(_, old)| old == flow) {
                *flow = Arc::clone(same);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.datapath.is_none()
            && self.bindings.is_empty()
            && self.groups.is_empty()
            && self.members.is_empty()
            && self.flows.is_empty()
            && self.named_sets.is_empty()
    }
}
