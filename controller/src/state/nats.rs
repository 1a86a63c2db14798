//! What translations want of their router: a place, when they remember connections.

use ovn_northd_lite::model::{NatKind, NatRule};

use super::{Draft, Reason, Record};
use crate::resource::{FieldError, Name, RouterSpec, Spec};

/// Whether a resource fits the others of the draft.
pub(super) fn check_put(draft: &Draft<'_>, record: &Record) -> Result<(), Reason> {
    match (&record.spec, record.name.parent()) {
        (Spec::Router(RouterSpec { chassis: None, .. }), _) => check_router(draft, &record.name),
        (Spec::Nat(rule), Some(router)) => check_nat(draft, &record.name, &router, rule),
        _ => Ok(()),
    }
}

/// A router on every host has no translation that remembers connections. Those that the
/// draft writes are judged by themselves.
fn check_router(draft: &Draft<'_>, router: &Name) -> Result<(), Reason> {
    let mut present = draft.untouched_below(router);
    let nat = present.find(|record| matches!(&record.spec, Spec::Nat(rule) if remembers(rule)));
    let Some(Record { name: nat, .. }) = nat else { return Ok(()) };
    let reason = format!(
        "{nat} remembers connections, so its router needs a chassis; name one, or delete that translation first"
    );
    Err(Reason::Field { name: router.clone(), error: FieldError::new("chassis", reason) })
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
    if is_everywhere && remembers(rule) {
        let reason = format!(
            "{router} is on every host, where only a stateless dnat_and_snat can be done; set its chassis first"
        );
        return Err(Reason::Field { name: name.clone(), error: FieldError::new("type", reason) });
    }
    Ok(())
}

/// The translation is one of connections.
fn remembers(rule: &NatRule) -> bool {
    !(rule.kind == NatKind::Both && rule.stateless)
}
