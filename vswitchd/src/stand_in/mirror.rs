//! What the stand-in has of the uplink's addresses and routes: which of them, in which form, and what is to be done
//! about those that are there.

use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo},
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType},
};

/// Whose the stand-in's routes are (rtnetlink(7), `rtm_protocol`): a number that no routing daemon has.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(0x4f);
/// Table of addresses and broadcasts of the host itself, which follows its addresses.
const TABLE_LOCAL: u32 = 255;

/// What is to be done so that what is there becomes what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference<T> {
    /// There, and not wanted.
    pub(super) gone: Vec<T>,
    /// Wanted, and not there; in the order in which they can be made.
    pub(super) new: Vec<T>,
}

impl<T: Clone + PartialEq> Difference<T> {
    pub(super) fn between(present: &[T], wanted: &[T]) -> Self {
        let only = |here: &[T], there: &[T]| here.iter().filter(|it| !there.contains(it)).cloned().collect();
        Self { gone: only(present, wanted), new: only(wanted, present) }
    }

    pub(super) fn is_none(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }
}

/// An interface's address as the interface `index` is to have it: at once, without a route that would come with it.
/// `None`: it cannot be used yet, or never.
pub(super) fn address(of: &AddressMessage, index: u32) -> Option<AddressMessage> {
    let known = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    };
    let flags = of.attributes.iter().find_map(known).unwrap_or(AddressFlags::empty());
    if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) {
        return None;
    }
    let mut copy = AddressMessage::default();
    copy.header.family = of.header.family;
    copy.header.prefix_len = of.header.prefix_len;
    copy.header.scope = of.header.scope;
    copy.header.index = index;
    copy.attributes = of.attributes.iter().filter(names_it).cloned().collect();
    copy.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
    if flags.contains(AddressFlags::Deprecated) {
        // It is valid, and not chosen for new connections.
        let mut life = CacheInfo::default();
        life.ifa_valid = u32::MAX;
        copy.attributes.push(AddressAttribute::CacheInfo(life));
    }
    Some(copy)
}

fn names_it(attribute: &&AddressAttribute) -> bool {
    matches!(
        attribute,
        AddressAttribute::Address(_) | AddressAttribute::Local(_) | AddressAttribute::Broadcast(_)
    )
}

/// A route by an interface as one by the interface `index`, which is taken instead. `None`: it is no such route.
///
/// Of two IPv4 routes to the same place and of the same metric the kernel takes the one that was put in front; of
/// such IPv6 routes it takes both, so that the metric is less by one.
pub(super) fn route(of: &RouteMessage, (from, index): (u32, u32)) -> Option<RouteMessage> {
    let is_own = of.header.protocol == PROTOCOL || of.header.flags.contains(RouteFlags::Cloned);
    if is_own || of.header.kind != RouteType::Unicast || oif(of) != Some(from) || table(of) == TABLE_LOCAL {
        return None;
    }
    let mut copy = plain(of);
    for attribute in &mut copy.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => *oif = index,
            RouteAttribute::Priority(metric) if of.header.address_family == AddressFamily::Inet6 => {
                *metric = metric.saturating_sub(1).max(1);
            }
            _ => {}
        }
    }
    Some(copy)
}

/// A route of the stand-in that was made here, in the form in which [`route`] gives it.
pub(super) fn made_here(of: &RouteMessage, index: u32) -> Option<RouteMessage> {
    let is_ours = of.header.protocol == PROTOCOL && oif(of) == Some(index);
    (is_ours && !of.header.flags.contains(RouteFlags::Cloned)).then(|| plain(of))
}

/// What says where a route leads, and nothing of what the kernel has found out about it.
fn plain(of: &RouteMessage) -> RouteMessage {
    let mut copy = RouteMessage::default();
    copy.header = of.header.clone();
    copy.header.protocol = PROTOCOL;
    copy.header.flags = of.header.flags & RouteFlags::Onlink;
    copy.attributes = of.attributes.iter().filter(leads).cloned().collect();
    copy
}

fn leads(attribute: &&RouteAttribute) -> bool {
    matches!(
        attribute,
        RouteAttribute::Destination(_)
            | RouteAttribute::Source(_)
            | RouteAttribute::Gateway(_)
            | RouteAttribute::Via(_)
            | RouteAttribute::PrefSource(_)
            | RouteAttribute::Oif(_)
            | RouteAttribute::Priority(_)
            | RouteAttribute::Table(_)
            | RouteAttribute::Metrics(_)
            | RouteAttribute::Preference(_)
    )
}

/// Routes in the order in which they can be made: a gateway has to be reached by a route that is there.
pub(super) fn in_order(routes: &mut [RouteMessage]) {
    let has_gateway = |route: &RouteMessage| {
        let is_gateway = |attribute: &RouteAttribute| {
            matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_))
        };
        route.attributes.iter().any(is_gateway)
    };
    routes.sort_by_key(has_gateway);
}

fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn table(route: &RouteMessage) -> u32 {
    let told = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    told.unwrap_or(route.header.table.into())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use netlink_packet_route::route::{RouteAddress, RouteHeader, RouteScope};

    use super::*;

    const UPLINK: u32 = 7;
    const STAND_IN: u32 = 9;

    fn a_route(family: AddressFamily, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header = RouteHeader {
            address_family: family,
            destination_prefix_length: 24,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Kernel,
            scope: RouteScope::Link,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        route.attributes = attributes;
        route
    }

    fn v4(attributes: Vec<RouteAttribute>) -> RouteMessage {
        a_route(AddressFamily::Inet, attributes)
    }

    #[test]
    fn a_copy_leads_to_the_same_place_by_the_stand_in() {
        let to = RouteAttribute::Destination(RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 0)));
        let by = |index| RouteAttribute::Oif(index);
        let mut original = v4(vec![to.clone(), RouteAttribute::Priority(100), by(UPLINK)]);
        original.header.flags = RouteFlags::Linkdown | RouteFlags::Onlink;
        original.attributes.push(RouteAttribute::Expires(5));
        let copy = route(&original, (UPLINK, STAND_IN)).unwrap();
        assert_eq!(copy.attributes, [to, RouteAttribute::Priority(100), by(STAND_IN)]);
        assert_eq!((copy.header.protocol, copy.header.flags), (PROTOCOL, RouteFlags::Onlink));
        assert_eq!(made_here(&copy, STAND_IN), Some(copy.clone()), "it is known again");
        assert_eq!(made_here(&original, UPLINK), None, "others' routes are left alone");
        assert_eq!(route(&copy, (STAND_IN, UPLINK)), None, "a copy is not copied");
    }

    #[test]
    fn over_ipv6_the_copy_has_the_lower_metric() {
        let metric = |metric| {
            let original = a_route(
                AddressFamily::Inet6,
                vec![RouteAttribute::Priority(metric), RouteAttribute::Oif(UPLINK)],
            );
            route(&original, (UPLINK, STAND_IN)).unwrap().attributes[0].clone()
        };
        assert_eq!(metric(256), RouteAttribute::Priority(255));
        assert_eq!(metric(1), RouteAttribute::Priority(1));
    }

    #[test]
    fn what_is_no_route_by_the_uplink_is_left_alone() {
        let original = v4(vec![RouteAttribute::Oif(UPLINK)]);
        assert!(route(&original, (UPLINK, STAND_IN)).is_some());
        assert!(route(&original, (STAND_IN, UPLINK)).is_none());
        let with = |change: &dyn Fn(&mut RouteMessage)| {
            let mut other = original.clone();
            change(&mut other);
            route(&other, (UPLINK, STAND_IN))
        };
        assert_eq!(with(&|other| other.header.kind = RouteType::Broadcast), None);
        assert_eq!(with(&|other| other.header.flags = RouteFlags::Cloned), None);
        assert_eq!(with(&|other| other.header.table = 255), None);
        assert_eq!(with(&|other| other.attributes.push(RouteAttribute::Table(TABLE_LOCAL))), None);
        assert!(with(&|other| other.attributes.push(RouteAttribute::Table(1000))).is_some());
    }

    #[test]
    fn gateways_come_behind_the_routes_to_them() {
        let gateway = RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(192, 0, 2, 1)));
        let mut routes =
            [v4(vec![gateway, RouteAttribute::Oif(UPLINK)]), v4(vec![RouteAttribute::Oif(UPLINK)])];
        let last = routes[0].clone();
        in_order(&mut routes);
        assert_eq!(routes[1], last);
    }

    #[test]
    fn an_address_is_usable_at_once_and_brings_no_route() {
        let ip = IpAddr::from(Ipv6Addr::LOCALHOST);
        let mut original = AddressMessage::default();
        original.header.index = UPLINK;
        original.header.prefix_len = 64;
        original.attributes =
            vec![AddressAttribute::Address(ip), AddressAttribute::Flags(AddressFlags::Permanent)];
        let copy = address(&original, STAND_IN).unwrap();
        assert_eq!((copy.header.index, copy.header.prefix_len), (STAND_IN, 64));
        let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        assert_eq!(copy.attributes, [AddressAttribute::Address(ip), AddressAttribute::Flags(flags)]);
        original.attributes[1] = AddressAttribute::Flags(AddressFlags::Tentative);
        assert_eq!(address(&original, STAND_IN), None, "whether it is free is still found out");
        original.attributes[1] = AddressAttribute::Flags(AddressFlags::Deprecated);
        let life = address(&original, STAND_IN).unwrap().attributes.pop();
        assert!(
            matches!(life, Some(AddressAttribute::CacheInfo(life)) if (life.ifa_preferred, life.ifa_valid) == (0, u32::MAX))
        );
    }

    #[test]
    fn a_difference_is_what_only_one_side_has() {
        let difference = Difference::between(&[1, 2, 3], &[3, 4]);
        assert_eq!(difference, Difference { gone: vec![1, 2], new: vec![4] });
        assert!(Difference::between(&[1], &[1]).is_none());
    }
}
