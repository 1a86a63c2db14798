//! The gateways of leased addresses, and the routes that go by them.

use crate::endpoint::{Leased, Record, Route};

/// A container whose gateway is the host.
pub(in crate::endpoint) fn by_host(record: Record, wanted: &[Route], host: &Record) -> Record {
    let Some(lease) = record.lease.clone() else { return record };
    let of_family = |is_v4| {
        let mut addresses = host.addresses.iter().map(|prefix| prefix.address);
        addresses.find(|address| address.is_ipv4() == is_v4)
    };
    let gateways = record.addresses.iter().map(|prefix| of_family(prefix.address.is_ipv4())).collect();
    let lease = Leased { gateways, ..lease };
    let routes = routes(wanted, &record, &lease);
    Record { routes, lease: Some(lease), host_addresses: host.addresses.clone(), ..record }
}

/// Routes, those without a gateway by that of the range of their family.
pub(super) fn routes(wanted: &[Route], record: &Record, lease: &Leased) -> Vec<Route> {
    let gateway = |is_v4: bool| {
        let of_family = record.addresses.iter().zip(&lease.gateways);
        of_family.filter(|(prefix, _)| prefix.address.is_ipv4() == is_v4).find_map(|(_, gateway)| *gateway)
    };
    let by_gateway = |route: &Route| Route {
        gateway: route.gateway.or_else(|| gateway(route.destination.address.is_ipv4())),
        ..route.clone()
    };
    wanted.iter().map(by_gateway).collect()
}
