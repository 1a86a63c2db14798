//! Where leased addresses come from.

use std::net::IpAddr;

use address_pool::{Network, Span};
use ferroflow_proto::host as pb;

use crate::endpoint::{Prefix, key::stable_hash};

/// Most sets, and ranges of one.
const MAX_SETS: usize = 4;
const MAX_RANGES: usize = 32;

/// A part of a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    subnet: Network,
    span: Span,
    gateway: Option<IpAddr>,
}

/// What addresses are chosen from: of each set one, of all sets those of the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges(Vec<Vec<Range>>);

/// The addresses of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// With their prefix lengths.
    pub addresses: Vec<Prefix>,
    /// Gateways of their ranges.
    pub gateways: Vec<Option<IpAddr>>,
}

impl Ranges {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn read(lease: &pb::Lease) -> Result<Self, String> {
        if !(1..=MAX_SETS).contains(&lease.sets.len()) {
            return Err(format!("addresses come from 1 to {MAX_SETS} sets of ranges"));
        }
        let sets = lease.sets.iter().map(|set| {
            if !(1..=MAX_RANGES).contains(&set.ranges.len()) {
                return Err(format!("a set has 1 to {MAX_RANGES} ranges"));
            }
            set.ranges.iter().map(range).collect()
        });
        sets.collect::<Result<_, _>>().map(Self)
    }

    /// A number for them on a switch, the same on each host.
    pub(super) fn pool(&self, switch: &str) -> String {
        format!("{:016x}", stable_hash(format!("{switch} {:?}", self.0).bytes()))
    }

    /// How many places there are.
    pub(super) fn n_places(&self) -> u64 {
        let of_set =
            |set: &Vec<Range>| set.iter().fold(0, |sum: u64, range| sum.saturating_add(len(&range.span)));
        self.0.iter().map(of_set).min().unwrap_or(0)
    }

    /// The addresses of a place; `None`: there is no such place, or a gateway is there.
    pub(super) fn place(&self, at: u64) -> Option<Place> {
        let found: Option<Vec<_>> = self.0.iter().map(|set| nth(set, at)).collect();
        let found = found?;
        let is_gateway =
            |address: IpAddr| self.0.iter().flatten().any(|range| range.gateway == Some(address));
        if found.iter().any(|(prefix, _)| is_gateway(prefix.address)) {
            return None;
        }
        let (addresses, gateways) = found.into_iter().unzip();
        Some(Place { addresses, gateways })
    }

    /// The place of an address.
    pub(super) fn place_of(&self, address: IpAddr) -> Option<u64> {
        self.0.iter().find_map(|set| {
            let mut before = 0_u64;
            for range in set {
                if range.span.contains(address) {
                    return Some(before.saturating_add(distance(range.span.first, address)));
                }
                before = before.saturating_add(len(&range.span));
            }
            None
        })
    }
}

fn range(range: &pb::AddressRange) -> Result<Range, String> {
    let subnet: Network = range.subnet.parse().map_err(|error| format!("subnet: {error}"))?;
    let address = |what: &str, text: &str, otherwise: IpAddr| {
        if text.is_empty() {
            return Ok(otherwise);
        }
        let address = text.parse().ok().filter(|address| subnet.contains(*address));
        address.ok_or_else(|| format!("{what} `{}` is not an address of {subnet}", text.escape_debug()))
    };
    let hosts = subnet.hosts();
    let first = address("first", &range.first, hosts.first)?;
    let last = address("last", &range.last, hosts.last)?;
    let span = Span::new(first, last).ok_or_else(|| format!("the range {first} to {last} is backwards"))?;
    let gateway = match range.gateway.as_str() {
        "" => None,
        text => Some(address("gateway", text, hosts.first)?),
    };
    Ok(Range { subnet, span, gateway })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn distance(from: IpAddr, to: IpAddr) -> u64 {
    u64::try_from(number(to).saturating_sub(number(from))).unwrap_or(u64::MAX)
}

fn len(span: &Span) -> u64 {
    distance(span.first, span.last).saturating_add(1)
}

fn nth(set: &[Range], mut at: u64) -> Option<(Prefix, Option<IpAddr>)> {
    for range in set {
        let n_here = len(&range.span);
        if at < n_here {
            let found = number(range.span.first) + u128::from(at);
            let address = match range.span.first {
                IpAddr::V4(_) => IpAddr::V4(u32::try_from(found).ok()?.into()),
                IpAddr::V6(_) => IpAddr::V6(found.into()),
            };
            return Some((Prefix { address, len: range.subnet.len() }, range.gateway));
        }
        at -= n_here;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(sets: &[&[(&str, &str, &str, &str)]]) -> Result<Ranges, String> {
        let range = |(subnet, first, last, gateway): &(&str, &str, &str, &str)| pb::AddressRange {
            subnet: (*subnet).to_owned(),
            first: (*first).to_owned(),
            last: (*last).to_owned(),
            gateway: (*gateway).to_owned(),
        };
        let set =
            |set: &&[(&str, &str, &str, &str)]| pb::RangeSet { ranges: set.iter().map(range).collect() };
        Ranges::read(&pb::Lease { sets: sets.iter().map(set).collect() })
    }

    #[test]
    fn places_go_through_all_ranges_and_pair_families() {
        let ranges = ranges(&[
            &[("10.0.0.0/30", "", "", "10.0.0.1"), ("10.1.0.0/24", "10.1.0.9", "10.1.0.10", "")],
            &[("fd00::/64", "fd00::a", "", "")],
        ])
        .unwrap();
        assert_eq!(ranges.n_places(), 4);
        let texts = |at| {
            let place = ranges.place(at)?;
            Some(place.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(texts(0), None, "a gateway is there");
        assert_eq!(texts(1).unwrap(), "10.0.0.2/30 fd00::b/64");
        assert_eq!(texts(2).unwrap(), "10.1.0.9/24 fd00::c/64");
        assert_eq!(texts(3).unwrap(), "10.1.0.10/24 fd00::d/64");
        assert_eq!(texts(4), None);
        for at in 1..4 {
            for prefix in ranges.place(at).unwrap().addresses {
                assert_eq!(ranges.place_of(prefix.address), Some(at));
            }
        }
        assert_eq!(ranges.place_of("10.0.0.77".parse().unwrap()), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (sets, word) in [
            (&[][..], "sets"),
            (&[&[][..]][..], "ranges"),
            (&[&[("10.0.0.1/24", "", "", "")][..]][..], "10.0.0.1/24"),
            (&[&[("10.0.0.0/24", "10.0.1.1", "", "")][..]][..], "first"),
            (&[&[("10.0.0.0/24", "10.0.0.9", "10.0.0.8", "")][..]][..], "backwards"),
            (&[&[("10.0.0.0/24", "", "", "fd00::1")][..]][..], "gateway"),
        ] {
            let text = ranges(sets).unwrap_err();
            assert!(text.contains(word), "{text}");
        }
        let all = ranges(&[&[("::/0", "", "", "")]]).unwrap();
        assert_eq!(all.n_places(), u64::MAX);
        assert!(all.place(u64::MAX - 1).is_some());
    }
}
