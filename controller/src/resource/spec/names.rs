//! Names with their addresses.

use std::collections::{BTreeMap, BTreeSet};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::{dhcp::domain, model::Names};

use super::{check_count, each};
use crate::resource::{FieldError, Shown, address, limits};

/// Seconds for which an answer holds if nothing is said.
const TTL: u32 = 300;
/// Most seconds for which an answer can hold (RFC 2181 §8).
const MAX_TTL: u32 = i32::MAX as u32;

pub(super) fn parse(wire: &pb::Names) -> Result<Names, FieldError> {
    check_count("records", wire.records.len(), limits::MAX_NAMES)?;
    let mut records: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    for (i, record) in wire.records.iter().enumerate() {
        let name = record.name.strip_suffix('.').unwrap_or(&record.name).to_ascii_lowercase();
        if domain(&name).is_none() {
            let reason = format!("{} is not a name; write one like web-1.example", Shown(&record.name));
            return Err(FieldError::new(format!("records[{i}].name"), reason));
        }
        let field = format!("records[{i}].addresses");
        let addresses = each(&field, &record.addresses, limits::MAX_NAME_ADDRESSES, address::parse_ip)?;
        if addresses.is_empty() {
            return Err(FieldError::new(field, "a name without an address answers nothing; write one"));
        }
        records.entry(name).or_default().extend(addresses);
    }
    match wire.ttl {
        0 => Ok(Names { records, ttl: TTL }),
        ttl if ttl <= MAX_TTL => Ok(Names { records, ttl }),
        ttl => Err(FieldError::new("ttl", format!("{ttl} is too long; keep to {MAX_TTL}"))),
    }
}
