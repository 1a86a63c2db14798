//! A resource as the controller holds it, and as the store keeps it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::SystemTime,
};

use ferroflow_proto::northbound::{self as pb, resource::Spec as Wire};
use flowtable::types::{MacAddr, VlanId};
use ovn_northd_lite::model::{LoadBalancer, PortAddresses};
use prost::Message;

use super::keys;
use crate::{
    resource::{
        Access, Attachment, Name, Spec, SwitchPortSpec, backend_key, parse_port_addresses, parse_spec,
    },
    store::Revision,
};

/// A resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its name.
    pub name: Name,
    /// Revision that made it.
    pub create_revision: Revision,
    /// Revision that last changed what the user wrote; a new binding does not count, so
    /// that a conditional update does not fail because a workload moved.
    pub update_revision: Revision,
    /// The user's labels.
    pub labels: HashMap<String, String>,
    /// The spec in the user's words, so that a read gives back what was written.
    pub wire: Wire,
    /// The spec, typed.
    pub spec: Spec,
    /// Key in tunnels of a datapath or port; 0 for other kinds.
    pub key: u32,
    /// Where a workload's port is.
    pub binding: Option<Binding>,
    /// Ids of the chassis that have another interface of it, while its workload moves.
    pub additional: BTreeSet<String>,
    /// What was chosen for its `dynamic` entry.
    pub chosen: Option<PortAddresses>,
    /// What was chosen of a workload behind another one's interface that asks for any tag.
    pub chosen_tag: Option<VlanId>,
    /// Which backends of a load balancer serve, of those that are asked; of a switch port, which of
    /// its own checks are answered.
    pub health: Known,
    /// Who hosts have heard of on the networks of a router port; behind a switch port, which
    /// groups somebody wants to hear.
    pub heard: BTreeMap<IpAddr, Heard>,
    /// Who has the address of a virtual port.
    pub holder: Option<Holder>,
    /// Sessions of a router port with next hops, as its host has said.
    pub sessions: BTreeMap<IpAddr, SessionState>,
}

/// State of a session with a next hop.
pub use pb::bfd_session::State as SessionState;

/// A workload that has the address of a virtual port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Id of its port.
    pub parent: String,
    /// Its MAC address.
    pub mac: MacAddr,
}

/// A neighbour that a host has heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Id of the chassis that says so.
    pub chassis: String,
}

/// Whether backends serve, by service and backend.
pub type Known = BTreeMap<(String, String), bool>;

/// Where a workload's port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Id of the chassis.
    pub chassis: String,
    /// The chassis forwards for it.
    pub up: bool,
    /// Revision that bound it there.
    pub since: Revision,
}

/// What is known of a chassis only while the controller runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChassisStatus {
    /// It holds a stream.
    pub connected: bool,
    /// Last revision it has acknowledged.
    pub applied: Revision,
    /// When it has.
    pub applied_at: Option<SystemTime>,
    /// Since when it holds a stream, or holds it no more.
    pub since: Option<SystemTime>,
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(message, optional, tag = "1")]
    resource: Option<pb::Resource>,
    #[prost(uint32, tag = "2")]
    key: u32,
    #[prost(message, optional, tag = "3")]
    binding: Option<StoredBinding>,
    #[prost(string, tag = "4")]
    chosen: String,
    #[prost(message, repeated, tag = "5")]
    health: Vec<StoredHealth>,
    #[prost(message, repeated, tag = "6")]
    heard: Vec<pb::Neighbour>,
    #[prost(message, optional, tag = "7")]
    holder: Option<StoredHolder>,
    #[prost(message, repeated, tag = "20")]
    sessions: Vec<StoredSession>,
    #[prost(string, repeated, tag = "21")]
    additional: Vec<String>,
    #[prost(uint32, tag = "22")]
    chosen_tag: u32,
}

#[derive(Clone, PartialEq, Message)]
struct StoredSession {
    #[prost(string, tag = "1")]
    peer: String,
    #[prost(enumeration = "SessionState", tag = "2")]
    state: i32,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHolder {
    #[prost(string, tag = "1")]
    parent: String,
    #[prost(string, tag = "2")]
    mac: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredHealth {
    #[prost(string, tag = "1")]
    vip: String,
    #[prost(string, tag = "2")]
    backend: String,
    #[prost(bool, tag = "3")]
    online: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StoredBinding {
    #[prost(string, tag = "1")]
    chassis: String,
    #[prost(bool, tag = "2")]
    up: bool,
    #[prost(uint64, tag = "3")]
    since: u64,
}

impl Record {
    /// It is a port that a workload can be behind.
    pub fn is_workload(&self) -> bool {
        let Spec::SwitchPort(port) = &self.spec else { return false };
        match &port.attachment {
            Attachment::Workload { access, .. } => match access {
                Access::Interface | Access::Nested(..) => true,
                // Of the one each chassis has one, the other is where no chassis is.
                Access::EachChassis | Access::External(_) => false,
                Access::Virtual(..) => self.holder.is_some(),
            },
            Attachment::Router(_) | Attachment::Switch(_) | Attachment::Network { .. } => false,
        }
    }

    /// A chassis may have its interface.
    pub fn may_be_on(&self, chassis: &str) -> bool {
        match &self.spec {
            Spec::SwitchPort(port) if port.requested.is_empty() => !port.additional.contains(chassis),
            Spec::SwitchPort(port) => port.requested.contains(chassis),
            _ => true,
        }
    }

    /// Ids of the chassis that may have another interface of it.
    pub fn wanted_additional(&self) -> impl Iterator<Item = &String> {
        let port = match &self.spec {
            Spec::SwitchPort(port) => Some(port),
            _ => None,
        };
        port.into_iter().flat_map(|port| &port.additional)
    }

    /// The key that it is to have; 0: any.
    pub fn wanted_key(&self) -> u32 {
        match &self.spec {
            Spec::Switch(switch) => switch.key,
            Spec::SwitchPort(port) => port.key,
            Spec::Router(router) => router.key,
            Spec::RouterPort(port) => port.key,
            _ => 0,
        }
    }

    /// The port behind whose interface the workload is, or that has its address.
    pub fn parent_port(&self) -> Option<&Name> {
        match &self.spec {
            Spec::SwitchPort(SwitchPortSpec {
                attachment: Attachment::Workload { access: Access::Nested(parent, _), .. },
                ..
            }) => Some(parent),
            Spec::SwitchPort(SwitchPortSpec {
                attachment: Attachment::Workload { access: Access::Virtual(_, parents), .. },
                ..
            }) => {
                let holder = self.holder.as_ref()?;
                parents.iter().find(|parent| parent.id() == holder.parent)
            }
            _ => None,
        }
    }

    /// Id of the port that a chassis claims when this port is there.
    pub fn claimed_as(&self) -> &str {
        self.parent_port().unwrap_or(&self.name).id()
    }

    /// The backends of a load balancer that are asked whether they serve, or the checks of a switch
    /// port, with the ids of the ports.
    pub fn checked(&self) -> BTreeMap<(String, String), String> {
        if let Spec::SwitchPort(port) = &self.spec {
            return port
                .options
                .checks
                .iter()
                .map(|check| (check.key(), self.name.id().to_owned()))
                .collect();
        }
        let Spec::LoadBalancer(balancer) = &self.spec else { return BTreeMap::new() };
        let services = balancer.vips.iter();
        let backends = services.flat_map(|(vip, service)| service.backends.iter().map(move |one| (vip, one)));
        let checked = backends.filter_map(|(vip, backend)| {
            let (point, _) = balancer.probed(backend)?;
            Some(((vip.to_string(), backend.to_string()), point.port.clone()))
        });
        checked.collect()
    }

    /// A load balancer as it is for new connections: what is asked and does not say that it
    /// serves is offline.
    pub fn balancer(&self) -> Option<LoadBalancer> {
        let Spec::LoadBalancer(balancer) = &self.spec else { return None };
        let mut known = balancer.clone();
        for (vip, service) in &mut known.vips {
            for backend in service.backends.iter_mut().filter(|backend| balancer.probed(backend).is_some()) {
                let key = (vip.to_string(), backend.to_string());
                backend.online &= self.health.get(&key) == Some(&true);
            }
        }
        Some(known)
    }

    /// The users' and the controller's part are the same; revisions may differ.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        self.labels == other.labels
            && self.wire == other.wire
            && self.binding == other.binding
            && self.additional == other.additional
            && self.key == other.key
            && self.chosen == other.chosen
            && self.chosen_tag == other.chosen_tag
            && self.health == other.health
            && self.heard == other.heard
            && self.holder == other.holder
            && self.sessions == other.sessions
    }

    /// The resource as the API shows it.
    pub fn to_wire(&self, status: impl Fn(&str) -> ChassisStatus) -> pb::Resource {
        let mut spec = self.wire.clone();
        match &mut spec {
            Wire::LogicalSwitch(switch) => switch.tunnel_key = self.key,
            Wire::LogicalRouter(router) => router.tunnel_key = self.key,
            Wire::LogicalRouterPort(port) => {
                port.tunnel_key = self.key;
                port.neighbours = self.neighbours().collect();
                for session in &mut port.bfd_sessions {
                    let known = session.peer.parse().ok().and_then(|peer| self.sessions.get(&peer));
                    session.state = known.copied().unwrap_or_default().into();
                }
            }
            Wire::LogicalSwitchPort(port) => {
                port.tunnel_key = self.key;
                if let Some(binding) = &self.binding {
                    port.chassis = format!("chassis/{}", binding.chassis);
                    port.up = binding.up;
                }
                port.additional_chassis = self.additional.iter().map(|id| format!("chassis/{id}")).collect();
                port.virtual_parent = self
                    .parent_port()
                    .filter(|_| self.holder.is_some())
                    .map(Name::to_string)
                    .unwrap_or_default();
                port.multicast_groups = self.heard.keys().map(IpAddr::to_string).collect();
                port.dynamic_addresses = self.chosen.as_ref().map(text_of).unwrap_or_default();
                port.chosen_tag = self.chosen_tag.map_or(0, |tag| tag.get().into());
                if let Spec::SwitchPort(spec) = &self.spec {
                    for (check, typed) in port.health_checks.iter_mut().zip(&spec.options.checks) {
                        check.health = told(self.health.get(&typed.key()));
                    }
                }
            }
            Wire::Acl(_)
            | Wire::AddressSet(_)
            | Wire::PortGroup(_)
            | Wire::LoadBalancerGroup(_)
            | Wire::HaChassisGroup(_)
            | Wire::TemplateVariable(_)
            | Wire::SampleCollector(_)
            | Wire::Nat(_)
            | Wire::RouterPolicy(_)
            | Wire::DhcpOptions(_)
            | Wire::Names(_)
            | Wire::ControlPlaneLimits(_)
            | Wire::QosRule(_) => {}
            Wire::LoadBalancer(balancer) => {
                for vip in balancer.vips.iter_mut().filter(|_| !self.health.is_empty()) {
                    for backend in &mut vip.backends {
                        let key = backend_key(&vip.address, &backend.address);
                        backend.health = told(key.and_then(|key| self.health.get(&key)));
                    }
                }
            }
            Wire::Chassis(chassis) => {
                let status = status(self.name.id());
                chassis.connected = status.connected;
                chassis.applied_revision = status.applied.get();
            }
        }
        self.with_spec(spec)
    }

    fn neighbours(&self) -> impl Iterator<Item = pb::Neighbour> {
        self.heard.iter().map(|(ip, heard)| pb::Neighbour {
            ip: ip.to_string(),
            mac: heard.mac.to_string(),
            chassis: format!("chassis/{}", heard.chassis),
        })
    }

    fn with_spec(&self, spec: Wire) -> pb::Resource {
        pb::Resource {
            name: self.name.to_string(),
            create_revision: self.create_revision.get(),
            update_revision: self.update_revision.get(),
            labels: self.labels.clone(),
            spec: Some(spec),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let binding = self.binding.as_ref().map(|binding| StoredBinding {
            chassis: binding.chassis.clone(),
            up: binding.up,
            since: binding.since.get(),
        });
        let chosen = self.chosen.as_ref().map(text_of).unwrap_or_default();
        let resource = Some(self.with_spec(self.wire.clone()));
        let health = self.health.iter().map(|((vip, backend), online)| StoredHealth {
            vip: vip.clone(),
            backend: backend.clone(),
            online: *online,
        });
        let heard = self.neighbours().collect();
        let holder = self
            .holder
            .as_ref()
            .map(|holder| StoredHolder { parent: holder.parent.clone(), mac: holder.mac.to_string() });
        let session = |(peer, state): (&IpAddr, &SessionState)| StoredSession {
            peer: peer.to_string(),
            state: (*state).into(),
        };
        let sessions = self.sessions.iter().map(session).collect();
        let (key, health) = (self.key, health.collect());
        let additional = self.additional.iter().cloned().collect();
        let chosen_tag = self.chosen_tag.map_or(0, |tag| tag.get().into());
        Stored { resource, key, binding, chosen, health, heard, holder, sessions, additional, chosen_tag }
            .encode_to_vec()
    }

    pub(super) fn decode(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let name = Name::parse(name).map_err(|error| error.to_string())?;
        let stored = Stored::decode(bytes).map_err(|error| error.to_string())?;
        let resource = stored.resource.ok_or("it has no resource")?;
        let spec = parse_spec(&name, resource.spec.as_ref()).map_err(|error| error.to_string())?;
        let binding = stored.binding.map(|binding| Binding {
            chassis: binding.chassis,
            up: binding.up,
            since: Revision::new(binding.since),
        });
        let chosen = Some(stored.chosen.as_str()).filter(|text| !text.is_empty());
        let chosen = chosen.map(parse_port_addresses).transpose()?;
        let chosen_tag = match stored.chosen_tag {
            0 => None,
            raw => {
                let tag = u16::try_from(raw).ok().and_then(|raw| VlanId::new(raw).ok());
                Some(tag.ok_or_else(|| format!("{raw} is not a VLAN that can be chosen for it"))?)
            }
        };
        let health = stored.health.into_iter().map(|known| ((known.vip, known.backend), known.online));
        let session = |stored: &StoredSession| Some((stored.peer.parse().ok()?, stored.state()));
        let sessions = stored.sessions.iter().filter_map(session).collect();
        let heard = stored.heard.iter().map(heard).collect::<Option<_>>();
        let heard = heard.ok_or("one of its neighbours is none")?;
        let holder = stored.holder.map(|StoredHolder { parent, mac }| {
            let mac = mac.parse().map_err(|_| format!("`{mac}` is not the MAC address of its holder"))?;
            Ok::<_, String>(Holder { parent, mac })
        });
        let holder = holder.transpose()?;
        if !keys::is_valid(&name, stored.key) {
            return Err(format!("its tunnel key is {}", stored.key));
        }
        Ok(Self {
            name,
            create_revision: Revision::new(resource.create_revision),
            update_revision: Revision::new(resource.update_revision),
            labels: resource.labels,
            wire: resource.spec.ok_or("it has no spec")?,
            spec,
            key: stored.key,
            binding,
            additional: stored.additional.into_iter().collect(),
            chosen,
            chosen_tag,
            health: health.collect(),
            heard,
            holder,
            sessions,
        })
    }
}

/// A neighbour as it is kept.
fn heard(stored: &pb::Neighbour) -> Option<(IpAddr, Heard)> {
    let chassis = stored.chassis.strip_prefix("chassis/")?.to_owned();
    Some((stored.ip.parse().ok()?, Heard { mac: stored.mac.parse().ok()?, chassis }))
}

/// `MAC [IP…]`.
fn text_of(chosen: &PortAddresses) -> String {
    let ips = chosen.ips.iter().map(ToString::to_string);
    std::iter::once(chosen.mac.to_string()).chain(ips).collect::<Vec<_>>().join(" ")
}

/// What a host has found out, for the API.
fn told(online: Option<&bool>) -> i32 {
    match online {
        None => pb::backend::Health::Unspecified,
        Some(true) => pb::backend::Health::Online,
        Some(false) => pb::backend::Health::Offline,
    }
    .into()
}
