//! What a resource refers to, all of it, by whole names: for those who may refer to their own
//! only. What is below the same root is no reference.

use ovn_northd_lite::model::{Candidate, Gateway};

use super::{
    Record,
    index::{members_of, peer_of, sets_of},
};
use crate::resource::{Access, Attachment, Name, Spec};

impl Record {
    /// The resources that it names, each with the field that does. Whether they are there
    /// is another question.
    pub fn references(&self) -> Vec<(&'static str, Name)> {
        let mut found: Vec<(&'static str, Name)> = Vec::new();
        for set in sets_of(self) {
            found.extend(named(&set).into_iter().map(|name| ("match, or a list of names", name)));
        }
        found.extend(members_of(self).iter().map(|member| ("members", member.clone())));
        found.extend(peer_of(self).map(|peer| ("router_port", peer.clone())));
        match &self.spec {
            Spec::SwitchPort(port) => {
                found.extend(port.requested.iter().filter_map(|id| chassis("requested_chassis", id)));
                let others = port.additional.iter();
                found.extend(others.filter_map(|id| chassis("requested_additional_chassis", id)));
                match &port.attachment {
                    Attachment::Switch(peer) => found.push(("peer", peer.clone())),
                    Attachment::Network { gateway, .. } => found.extend(hosts(gateway)),
                    Attachment::Workload { access, .. } => match access {
                        Access::Nested(parent, _) => found.push(("parent", parent.clone())),
                        Access::Virtual(_, parents) => {
                            found.extend(parents.iter().map(|parent| ("virtual_parents", parent.clone())));
                        }
                        Access::External(gateway) => found.extend(hosts(gateway)),
                        Access::Interface | Access::EachChassis => {}
                    },
                    // Told above.
                    Attachment::Router(_) => {}
                }
            }
            Spec::Router(router) => {
                found.extend(router.chassis.iter().filter_map(|id| chassis("chassis", id)))
            }
            Spec::RouterPort(port) => found.extend(hosts(&port.gateway)),
            Spec::HaChassisGroup(candidates) => found.extend(candidates.iter().filter_map(candidate)),
            Spec::Nat(rule) => {
                let sets =
                    rule.condition.iter().flat_map(|condition| ovn_northd_lite::sets_of(&condition.matching));
                found.extend(sets.flat_map(|set| named(&set)).map(|name| ("match", name)));
            }
            Spec::RouterPolicy(policy) => {
                let sets = ovn_northd_lite::sets_of(&policy.matching).into_iter();
                found.extend(sets.flat_map(|set| named(&set)).map(|name| ("match", name)));
            }
            Spec::Switch(_)
            | Spec::Acl(_)
            | Spec::Chassis(_)
            | Spec::LoadBalancer(_)
            | Spec::LoadBalancerGroup(_)
            | Spec::AddressSet(_)
            | Spec::PortGroup(_)
            | Spec::DhcpOptions(_)
            | Spec::Names(_)
            | Spec::Limits(_)
            | Spec::TemplateVariable(_)
            | Spec::SampleCollector(_)
            | Spec::QosRule(_) => {}
        }
        found
    }

    /// Ids of switch ports that it names without their switches, each with the field.
    pub fn port_references(&self) -> Vec<(&'static str, &str)> {
        match &self.spec {
            Spec::Nat(rule) => {
                rule.distributed.iter().map(|place| ("logical_port", place.port.as_str())).collect()
            }
            Spec::LoadBalancer(balancer) => {
                let points = balancer.probe_points.values();
                points.map(|point| ("health_check", point.port.as_str())).collect()
            }
            Spec::Switch(_)
            | Spec::SwitchPort(_)
            | Spec::Router(_)
            | Spec::RouterPort(_)
            | Spec::Acl(_)
            | Spec::Chassis(_)
            | Spec::LoadBalancerGroup(_)
            | Spec::HaChassisGroup(_)
            | Spec::RouterPolicy(_)
            | Spec::AddressSet(_)
            | Spec::PortGroup(_)
            | Spec::DhcpOptions(_)
            | Spec::Names(_)
            | Spec::Limits(_)
            | Spec::TemplateVariable(_)
            | Spec::SampleCollector(_)
            | Spec::QosRule(_) => Vec::new(),
        }
    }
}

/// What the text in a match, or a whole name, may refer to. The addresses of a port group go by
/// its name with an ending, which that of an address set can have as well.
fn named(text: &str) -> Vec<Name> {
    if text.contains('/') {
        return Name::parse(text).into_iter().collect();
    }
    let id = text.get(1..).unwrap_or_default();
    if text.starts_with('@') {
        return Name::parse(&format!("port-groups/{id}")).into_iter().collect();
    }
    let group = ovn_northd_lite::group_of(id).map(|group| format!("port-groups/{group}"));
    let all = [Some(format!("address-sets/{id}")), group];
    all.into_iter().flatten().filter_map(|name| Name::parse(&name).ok()).collect()
}

fn hosts(gateway: &Gateway) -> Vec<(&'static str, Name)> {
    match gateway {
        Gateway::Hosts(candidates) => candidates.iter().filter_map(candidate).collect(),
        // Among the sets.
        Gateway::Group(_) => Vec::new(),
    }
}

fn candidate(candidate: &Candidate) -> Option<(&'static str, Name)> {
    chassis("gateway_chassis", &candidate.chassis)
}

fn chassis(field: &'static str, id: &str) -> Option<(&'static str, Name)> {
    Name::chassis(id).ok().map(|name| (field, name))
}
