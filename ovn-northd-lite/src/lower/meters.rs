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
        Service::Icmp4 | Service::Icmp6 | Service::TcpReset => (200, 100),
        Service::DhcpV4 => (200, 200),
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

/// All of them.
pub(super) fn all() -> Vec<MeterConfig> {
    let meter = |service: Service| {
        let (rate, burst_size) = rate(service);
        let bands = vec![BandConfig { kind: BandKind::Drop, rate, burst_size }];
        MeterConfig { id: of(service), unit: MeterUnit::Pktps, burst: true, stats: true, bands }
    };
    Service::ALL.iter().map(|(service, _)| meter(*service)).collect()
}
