//! What of a resource those may write who may not write everything.
//!
//! A tenant's resources refer to each other only, and to nothing that is of the hosts: which of them
//! is a gateway, which networks outside they are at, how much they answer. A chassis writes what
//! stands for its own workloads: their ports with their rates, the names they go by, and the
//! switches of its own runtimes.

use ferroflow_proto::northbound::resource::Spec as Wire;
use ovn_northd_lite::model::Gateway;

use super::{
    Who,
    quotas::Quotas,
    tenants::{OWNER, owner},
};
use crate::{
    resource::{Access, Attachment, FieldError, Kind, Name, Spec},
    state::{Draft, Reason, Record},
};

/// Labels that say of which host a workload's resources are.
const HOST: [&str; 2] = ["host", "lease"];

/// Whether somebody may make the changes of a draft, before it is finished.
///
/// # Errors
/// [`Reason`].
pub fn check(who: &Who, quotas: &Quotas, draft: &Draft<'_>) -> Result<(), Reason> {
    match who {
        Who::Master | Who::Admin => Ok(()),
        Who::Tenant(tenant) => {
            for (_, _, after) in draft.changed() {
                if let Some(record) = after {
                    check_tenant(draft, tenant, record)?;
                }
            }
            quotas.check(tenant, draft)
        }
        Who::Chassis(chassis) => draft.changed().try_for_each(|(name, before, after)| {
            check_chassis(chassis, name, before, after)?;
            after.map_or(Ok(()), |record| check_rate(draft, chassis, record))
        }),
        Who::ReadOnly | Who::Controller => Err(Reason::Denied("it may not write".to_owned())),
    }
}

/// A tenant may have this.
fn check_tenant(draft: &Draft<'_>, tenant: &str, record: &Record) -> Result<(), Reason> {
    let name = &record.name;
    let field = |field: &str, reason: &str| Reason::Field {
        name: name.clone(),
        error: FieldError::new(field, reason),
    };
    if owner(|name| draft.get(name), name) != Some(tenant) {
        let label = format!("labels[{OWNER}]");
        return Err(field(&label, "a tenant's resources stay its own; leave the label as it is"));
    }
    let is_anothers =
        |target: &Name| draft.get(target).is_some() && owner(|name| draft.get(name), target) != Some(tenant);
    // What is nowhere is refused in the same words when the draft is finished.
    let ports = record.port_references().into_iter();
    let ports = ports.filter_map(|(field, id)| Some((field, draft.state().port(id)?.name.clone())));
    let mut named = record.references().into_iter().chain(ports);
    if let Some((field, target)) = named.find(|(_, target)| is_anothers(target)) {
        return Err(Reason::Dangling { name: name.clone(), field: field.to_owned(), target });
    }
    const HOSTS: &str = "which hosts do it is an administrator's to say; leave it out";
    let is_everywhere = |gateway: &Gateway| gateway.is_empty();
    if record.wanted_key() != 0 {
        let reason = "keys in tunnels are an administrator's to choose; leave it out";
        return Err(field("requested_tunnel_key", reason));
    }
    match &record.spec {
        Spec::SwitchPort(port) => {
            if !port.requested.is_empty() {
                return Err(field("requested_chassis", HOSTS));
            }
            if !port.additional.is_empty() {
                return Err(field("requested_additional_chassis", HOSTS));
            }
            match &port.attachment {
                Attachment::Network { .. } => {
                    Err(field("type", "networks outside are an administrator's to attach"))
                }
                Attachment::Workload { access: Access::External(_), .. } => {
                    Err(field("type", "ports outside are an administrator's to make"))
                }
                Attachment::Workload { .. } | Attachment::Router(_) | Attachment::Switch(_) => Ok(()),
            }
        }
        Spec::Router(router) if router.chassis.is_some() => Err(field("chassis", HOSTS)),
        Spec::Router(router) if router.options.snat_zone.is_some() => {
            Err(field("snat_ct_zone", "a zone can be others' too; which, is an administrator's to say"))
        }
        Spec::RouterPort(port) if !is_everywhere(&port.gateway) => Err(field("gateway_chassis", HOSTS)),
        Spec::Chassis(_)
        | Spec::HaChassisGroup(_)
        | Spec::Limits(_)
        | Spec::TemplateVariable(_)
        // Hosts send to wherever it says.
        | Spec::SampleCollector(_) => {
            Err(Reason::Denied(format!("{name} is an administrator's to make")))
        }
        Spec::Switch(_)
        | Spec::Router(_)
        | Spec::RouterPort(_)
        | Spec::Acl(_)
        | Spec::LoadBalancer(_)
        | Spec::LoadBalancerGroup(_)
        | Spec::Nat(_)
        | Spec::RouterPolicy(_)
        | Spec::AddressSet(_)
        | Spec::PortGroup(_)
        | Spec::DhcpOptions(_)
        | Spec::Names(_)
        | Spec::QosRule(_) => Ok(()),
    }
}

/// What hosts read of the network by this API: what they need to give addresses to workloads.
pub(super) const fn chassis_reads(kind: Kind) -> bool {
    matches!(kind, Kind::Switch | Kind::SwitchPort | Kind::RouterPort | Kind::QosRule | Kind::Names)
}

/// A host may change this.
fn check_chassis(
    chassis: &str,
    name: &Name,
    before: Option<&Record>,
    after: Option<&Record>,
) -> Result<(), Reason> {
    let is_own = |record: &Record| is_of_host(record, chassis);
    let denied =
        |why: &str| Err(Reason::Denied(format!("{name}: chassis/{chassis} may not change it: {why}")));
    match (name.kind(), before, after) {
        // Which names its workloads go by is the one thing of others' switches that it says.
        (Kind::Switch, Some(before), Some(after)) if differ_in_names_only(before, after) => return Ok(()),
        (Kind::SwitchPort | Kind::QosRule | Kind::Names | Kind::Switch, _, _) => {}
        _ => return denied("it is not about a workload"),
    }
    if before.into_iter().chain(after).any(|record| !is_own(record)) {
        return denied("it is not labelled as this host's");
    }
    if before
        .is_some_and(|before| after.is_some_and(|after| before.labels.get(OWNER) != after.labels.get(OWNER)))
    {
        return denied("whose it is stays");
    }
    match after.map(|record| &record.spec) {
        Some(Spec::SwitchPort(port))
            if !matches!(port.attachment, Attachment::Workload { access: Access::Interface, .. }) =>
        {
            denied("it is no workload's port")
        }
        _ => Ok(()),
    }
}

/// A resource's labels name this host, and no other.
fn is_of_host(record: &Record, chassis: &str) -> bool {
    let mut hosts = HOST.iter().filter_map(|label| record.labels.get(*label)).peekable();
    hosts.peek().is_some() && hosts.all(|host| host == chassis)
}

/// A host's rule of a rate is about a port of its own, and of nobody else.
fn check_rate(draft: &Draft<'_>, chassis: &str, record: &Record) -> Result<(), Reason> {
    let Spec::QosRule(rule) = &record.spec else { return Ok(()) };
    let port = ["inport", "outport"]
        .into_iter()
        .find_map(|side| rule.matching.strip_prefix(side)?.strip_prefix(" == \"")?.strip_suffix('"'));
    let port = port
        .zip(record.name.parent())
        .and_then(|(id, switch)| Name::parse(&format!("{switch}/ports/{id}")).ok());
    if port.and_then(|port| draft.get(&port)).is_some_and(|port| is_of_host(port, chassis)) {
        return Ok(());
    }
    Err(Reason::Denied(format!("{}: chassis/{chassis} may limit only ports of its own", record.name)))
}

fn differ_in_names_only(before: &Record, after: &Record) -> bool {
    let (Wire::LogicalSwitch(old), Wire::LogicalSwitch(new)) = (&before.wire, &after.wire) else {
        return false;
    };
    let mut same = new.clone();
    same.names.clone_from(&old.names);
    before.labels == after.labels && same == *old
}
