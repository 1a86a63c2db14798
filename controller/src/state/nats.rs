//! What translations want of their router: a place, when they remember connections.

use ovn_northd_lite::model::{NatKind, NatRule};

use super::{Draft, Reason, Record};
use crate::resource::{FieldError, Name, RouterPortSpec, RouterSpec, Spec};

/// Whether a resource fits the others of the draft.
pub(super) fn check_put(draft: &Draft<'_>, record: &Record) -> Result<(), Reason> {
    match (&record.spec, record.name.parent()) {
        (Spec::Router(RouterSpec { chassis: None, .. }), _) => check_router(draft, &record.name),
        (Spec::RouterPort(RouterPortSpec { gateway, .. }), Some(router)) if gateway.is_empty() => {
            match draft.get(&router).map(|router| &router.spec) {
                Some(Spec::Router(RouterSpec { chassis: None, .. })) => check_router(draft, &router),
                _ => Ok(()),
            }
        }
        (Spec::Nat(rule), Some(router)) => check_nat(draft, &record.name, &router, rule),
        _ => Ok(()),
    }
}

/// A router port that goes takes no translation's gateway with it.
pub(super) fn check_deleted(draft: &Draft<'_>, port: &Name) -> Result<(), Reason> {
    let router = port.parent().and_then(|router| draft.get(&router));
    match router.map(|router| (&router.name, &router.spec)) {
        Some((router, Spec::Router(RouterSpec { chassis: None, .. }))) => check_router(draft, router),
        _ => Ok(()),
    }
}

/// A router on every host without a gateway port has no translation that remembers
/// connections. Those that the draft writes are judged by themselves.
fn check_router(draft: &Draft<'_>, router: &Name) -> Result<(), Reason> {
    if has_gateway(draft, router) {
        return Ok(());
    }
    let mut present = draft.untouched_below(router);
    let nat = present.find(|record| matches!(&record.spec, Spec::Nat(rule) if remembers(rule)));
    let Some(Record { name: nat, .. }) = nat else { return Ok(()) };
    let reason = format!(
        "{nat} remembers connections, so its router needs a chassis, or a port with gateway chassis; name one, \
         or delete that translation first"
    );
    Err(Reason::Field { name: router.clone(), error: FieldError::new("chassis", reason) })
}

/// Some port of the router has gateways.
fn has_gateway(draft: &Draft<'_>, router: &Name) -> bool {
    let written = draft
        .written()
        .map(|(record, _)| record)
        .filter(|record| record.name.parent().as_ref() == Some(router));
    let mut all = draft.untouched_below(router).chain(written);
    all.any(|record| matches!(&record.spec, Spec::RouterPort(port) if !port.gateway.is_empty()))
}

/// The router can do the translation, and the port it names is there.
fn check_nat(draft: &Draft<'_>, name: &Name, router: &Name, rule: &NatRule) -> Result<(), Reason> {
    if let Some(port) = &rule.gateway_port {
        let target = Name::parse(&format!("{router}/ports/{port}"))?;
        if draft.get(&target).is_none() {
            let (name, field) = (name.clone(), "gateway_port".to_owned());
            return Err(Reason::Dangling { name, field, target });
        }
    }
    let is_everywhere = matches!(
        draft.get(router).map(|router| &router.spec),
        Some(Spec::Router(RouterSpec { chassis: None, .. }))
    );
    if is_everywhere && remembers(rule) && !has_gateway(draft, router) {
        let reason = format!(
            "{router} is on every host, where only a stateless dnat_and_snat can be done; set its chassis, or \
             gateway chassis of a port of it, first"
        );
        return Err(Reason::Field { name: name.clone(), error: FieldError::new("type", reason) });
    }
    Ok(())
}

/// The translation is one of connections.
fn remembers(rule: &NatRule) -> bool {
    !(rule.kind == NatKind::Both && rule.stateless)
}
