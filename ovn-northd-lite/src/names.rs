//! Names and their addresses as hosts are told of them: sets whose members are records, so
//! that a new record is one member and no flow.

use std::{collections::BTreeSet, net::IpAddr};

use crate::model::Names;

/// One record: `web-1.example 300 10.0.0.5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name, in small letters, without a dot at the end.
    pub name: String,
    /// Seconds for which it holds.
    pub ttl: u32,
    /// Its address.
    pub ip: IpAddr,
}

/// Name of the set with the records of this id.
pub fn set_of(id: &str) -> String {
    format!("#{id}")
}

/// The set of this name has records.
pub fn is_set(name: &str) -> bool {
    name.starts_with('#')
}

/// Records as members of a set.
pub(crate) fn members(names: &Names) -> BTreeSet<String> {
    let of = |name: &String, ip: &IpAddr| format!("{name} {} {ip}", names.ttl);
    names.records.iter().flat_map(|(name, ips)| ips.iter().map(move |ip| of(name, ip))).collect()
}

impl Record {
    /// Reads a member of a set; `None` when it is no record.
    pub fn parse(member: &str) -> Option<Self> {
        let mut words = member.split(' ');
        let (name, ttl, ip) = (words.next()?, words.next()?, words.next()?);
        let is_all = words.next().is_none() && !name.is_empty();
        is_all.then_some(())?;
        Some(Self { name: name.to_owned(), ttl: ttl.parse().ok()?, ip: ip.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let ips: BTreeSet<IpAddr> = ["10.0.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap()].into();
        let names = Names { records: [("a.b".to_owned(), ips.clone())].into(), ttl: 30 };
        let members = members(&names);
        let back: BTreeSet<_> = members.iter().map(|member| Record::parse(member).unwrap().ip).collect();
        assert_eq!(back, ips);
        for wrong in ["", "a", "a 1", "a x 10.0.0.1", "a 1 10.0.0.1 b", " 1 10.0.0.1", "a 1 b"] {
            assert_eq!(Record::parse(wrong), None, "{wrong}");
        }
    }
}
