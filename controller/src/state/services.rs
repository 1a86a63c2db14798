//! What switches and ports have answered by hosts, among the other resources: DHCP options
//! are of the family they are named for, and stay of it.

use ovn_northd_lite::model::DhcpOptions;

use super::{Draft, Reason, Record};
use crate::resource::{Attachment, FieldError, Name, Spec};

/// The fields that name DHCP options, and whether they are of IPv4.
const FIELDS: [(&str, bool); 2] = [("dhcpv4_options", true), ("dhcpv6_options", false)];

/// Whether a resource fits the others of the draft.
pub(super) fn check_put(draft: &Draft<'_>, record: &Record) -> Result<(), Reason> {
    match &record.spec {
        Spec::Switch(switch) => check_dhcp(draft, &record.name, &switch.services.dhcp),
        Spec::SwitchPort(port) => {
            check_dynamic(draft, record, &port.attachment)?;
            check_dhcp(draft, &record.name, &port.services.dhcp)
        }
        Spec::DhcpOptions(options) => check_family(draft, &record.name, options),
        _ => Ok(()),
    }
}

fn check_dhcp(draft: &Draft<'_>, name: &Name, ids: &[Option<String>; 2]) -> Result<(), Reason> {
    for ((field, wanted), id) in FIELDS.into_iter().zip(ids) {
        let Some(target) = id.as_ref().and_then(|id| Name::parse(&format!("dhcp-options/{id}")).ok()) else {
            continue;
        };
        let Some(Record { spec: Spec::DhcpOptions(options), .. }) = draft.get(&target) else {
            return Err(Reason::Dangling { name: name.clone(), field: field.to_owned(), target });
        };
        if is_v4(options) != wanted {
            let reason = format!("{target} is for the other family; name it in the other field");
            return Err(Reason::Field { name: name.clone(), error: FieldError::new(field, reason) });
        }
    }
    Ok(())
}

/// Who names it has named it for its family.
fn check_family(draft: &Draft<'_>, name: &Name, options: &DhcpOptions) -> Result<(), Reason> {
    let Some(Spec::DhcpOptions(before)) = draft.state().get(name).map(|record| &record.spec) else {
        return Ok(());
    };
    if is_v4(before) == is_v4(options) {
        return Ok(());
    }
    match draft.untouched_mentions(name.as_str()).next() {
        None => Ok(()),
        Some(by) => {
            let reason = format!("{by} uses it for the other family; make another, or change that first");
            Err(Reason::Field { name: name.clone(), error: FieldError::new("cidr", reason) })
        }
    }
}

fn is_v4(options: &DhcpOptions) -> bool {
    matches!(options, DhcpOptions::V4(_))
}

/// A port asks for addresses where some are given.
fn check_dynamic(draft: &Draft<'_>, record: &Record, attachment: &Attachment) -> Result<(), Reason> {
    let is_dynamic = matches!(attachment, Attachment::Workload { dynamic: Some(_), .. });
    let switch = record.name.parent().filter(|_| is_dynamic);
    let Some(Spec::Switch(switch)) = switch.and_then(|name| draft.get(&name)).map(|switch| &switch.spec)
    else {
        return Ok(());
    };
    if switch.address_management.is_some() {
        return Ok(());
    }
    let reason = "the switch gives no addresses; set its address_management";
    Err(Reason::Field { name: record.name.clone(), error: FieldError::new("addresses", reason) })
}
