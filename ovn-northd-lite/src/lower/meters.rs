//! Bounds on what the host's responder is asked to do. Each service has a meter of its
//! own, so that none can starve another.

use flowtable::{
    meter::{BandConfig, BandKind, MeterConfig, MeterUnit},
    types::MeterId,
};

use crate::punt::Service;

/// Number before the first meter; others may use those below.
const BASE: u32 = 0x00ff_0000;

/// Packets per second, and how many may come at once.
fn rate(service: Service) -> (u32, u32) {
    match service {
        Service::Arp | Service::Solicitation | Service::LearnArp | Service::LearnNd => (500, 250),
        Service::Icmp4 | Service::Icmp6 | Service::TcpReset | Service::Reject => (200, 100),
        Service::DhcpV4 => (200, 200),
        // Every 10 ms from a hundred chassis.
        Service::Bfd => (10_000, 1_000),
    }
}

/// The meter of a service.
pub(crate) fn of(service: Service) -> MeterId {
    match MeterId::new(BASE + service as u32) {
        Ok(id) => id,
        Err(_) => FIRST,
    }
}

const FIRST: MeterId = match MeterId::new(BASE) {
    Ok(id) => id,
    Err(_) => panic!("not a meter"),
};

/// The meter of what ACLs log: behind those of all services.
pub(crate) const LOG: MeterId = match MeterId::new(BASE + 0x1000) {
    Ok(id) => id,
    Err(_) => panic!("not a meter"),
};
/// Packets per second that are logged, and how many may come at once.
const LOG_RATE: (u32, u32) = (100, 50);

/// All of them.
pub(super) fn all() -> Vec<MeterConfig> {
    let meter = |id: MeterId, (rate, burst_size): (u32, u32)| {
        let bands = vec![BandConfig { kind: BandKind::Drop, rate, burst_size }];
        MeterConfig { id, unit: MeterUnit::Pktps, burst: true, stats: true, bands }
    };
    let services = Service::ALL.iter().map(|(service, _)| meter(of(*service), rate(*service)));
    services.chain([meter(LOG, LOG_RATE)]).collect()
}
