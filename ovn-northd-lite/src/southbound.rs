//! What the compiler yields and a chassis is told: datapaths, bindings, groups and
//! logical flows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use flowtable::types::Priority;

use crate::key::{DatapathKey, PortKey};

/// The compiled network, or the part of it that one chassis needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Southbound {
    /// Logical switches and routers.
    pub datapaths: BTreeMap<DatapathKey, Datapath>,
    /// Logical ports by their id.
    pub bindings: BTreeMap<String, PortBinding>,
    /// Multicast groups.
    pub groups: BTreeMap<(DatapathKey, PortKey), MulticastGroup>,
    /// Hosts by their id.
    pub chassis: BTreeMap<String, ChassisRecord>,
    /// Logical flows by their id, which begins with the key of their datapath.
    pub flows: BTreeMap<u64, Arc<LogicalFlow>>,
    /// Sets by the names flows have for them: of addresses and networks (`$web`), of ids of
    /// ports (`@db`).
    pub sets: BTreeMap<String, BTreeSet<String>>,
}

/// A logical switch or router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datapath {
    /// Northbound resource name, `switches/web`.
    pub name: String,
    /// A router.
    pub is_router: bool,
    /// Names of the sets that its flows speak of.
    pub sets: BTreeSet<String>,
}

/// A logical port and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortBinding {
    /// Datapath it belongs to.
    pub datapath: DatapathKey,
    /// Key within the datapath.
    pub key: PortKey,
    /// Id of the port at the other side of a patch; `None`: a workload's port.
    pub peer: Option<String>,
    /// Id of the chassis it is bound to; of a patch, the only one that has it.
    pub chassis: Option<String>,
}

/// A set of ports of one datapath.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MulticastGroup {
    /// Name in the match language, `_MC_flood`.
    pub name: String,
    /// Ids of the ports.
    pub ports: BTreeSet<String>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChassisRecord {
    /// Address for tunnelled packets.
    pub encap_ip: IpAddr,
}

/// Which of a datapath's pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pipeline {
    /// At the source.
    Ingress,
    /// At the destination.
    Egress,
}

/// One row of a logical pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalFlow {
    /// Datapath.
    pub datapath: DatapathKey,
    /// Pipeline.
    pub pipeline: Pipeline,
    /// Number of the stage within the pipeline.
    pub stage: u8,
    /// Name of the stage, `ls_in_acl_eval`.
    pub stage_name: String,
    /// Precedence within the stage.
    pub priority: Priority,
    /// OVN match language.
    pub matching: String,
    /// OVN action language.
    pub actions: String,
    /// Northbound resource it was made for, `switches/web/acls/no-telnet`; empty: none.
    pub object: String,
    /// One sentence: why there is such a flow.
    pub why: String,
}
