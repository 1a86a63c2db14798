//! Address sets.

use std::collections::BTreeSet;

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{IpNetwork, SetMember};

use super::each;
use crate::resource::{FieldError, address, limits};

pub(super) fn parse(set: &pb::AddressSet) -> Result<BTreeSet<SetMember>, FieldError> {
    let members = each("addresses", &set.addresses, limits::MAX_SET_MEMBERS, member)?;
    Ok(members.into_iter().collect())
}

fn member(text: &str) -> Result<SetMember, String> {
    if text.contains('/') {
        return address::parse_prefix(text).map(SetMember::Ip);
    }
    match text.parse() {
        Ok(addr) => {
            let addr: std::net::IpAddr = addr;
            let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
            Ok(SetMember::Ip(IpNetwork { addr, prefix_len }))
        }
        Err(_) => match text.parse() {
            Ok(mac) => Ok(SetMember::Mac(mac)),
            Err(_) => Err(format!(
                "{} is no address; write one like 10.0.0.5, 10.0.0.0/24 or 0a:00:00:00:00:01",
                crate::resource::Shown(text)
            )),
        },
    }
}
