//! Bounds on what the host's responder is asked to do. Each service has a meter of its
//! own, so that none can starve another, and no port of the switch gets more than a part
//! of it, so that none can starve its neighbours. Datapaths with bounds of their own have
//! meters of their own.

use std::collections::BTreeMap;

use flowtable::{
    meter::{BandConfig, BandKind, MeterConfig, MeterUnit},
    types::MeterId,
};

use crate::{
    key::DatapathKey,
    model::Rate,
    punt::Service,
    southbound::{Datapath, Southbound},
};

/// Number before the first meter; others may use those below.
const BASE: u32 = 0x00ff_0000;
/// Number before the first meter of a datapath: its key and the service follow.
const BASE_OF_DATAPATHS: u32 = 0x4000_0000;
/// Bits of a service's number.
const SERVICE_BITS: u32 = 6;
/// One port of the switch has at most this part of a service's rate.
const PORT_SHARE: u32 = 4;

/// Packets per second, and how many may come at once.
fn rate(service: Service) -> Rate {
    let (pps, burst) = match service {
        Service::Arp | Service::Solicitation | Service::LearnArp | Service::LearnNd => (500, 250),
        Service::BindVirtual => (200, 100),
        Service::Icmp4 | Service::Icmp6 | Service::TcpReset | Service::Reject => (200, 100),
        Service::DhcpV4 | Service::DhcpV6 | Service::DhcpRelay | Service::Advertise => (200, 200),
        // A host asks as often as its backends together want to be asked.
        Service::HealthCheck => (2000, 1000),
        // Beyond it, names that the network does not know are not resolved either.
        Service::Dns => (2000, 1000),
        // A workload that joins many groups says so at once, and more than once.
        Service::Igmp => (1000, 500),
        // Each workload says it a few times, when it has moved.
        Service::Activation => (200, 100),
        // Every 10 ms from a hundred chassis or next hops.
        Service::Bfd | Service::BfdMessage => (10_000, 1_000),
    };
    Rate { pps, burst }
}

/// The meter of a service for a datapath's packets.
pub(crate) fn of(key: DatapathKey, datapath: Option<&Datapath>, service: Service) -> MeterId {
    let is_own = datapath.is_some_and(|datapath| datapath.limits.contains_key(&service));
    if is_own { MeterId::new(of_datapath(key, service)).unwrap_or(FIRST) } else { shared(service) }
}

/// The meter of a service for everything that has no other.
pub(super) fn shared(service: Service) -> MeterId {
    MeterId::new(BASE + service as u32).unwrap_or(FIRST)
}

fn of_datapath(key: DatapathKey, service: Service) -> u32 {
    BASE_OF_DATAPATHS + (key.get() << SERVICE_BITS) + service as u32
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
const LOG_RATE: Rate = Rate { pps: 100, burst: 50 };

/// Number before the meter of the first flow that has one for itself: the flow's number follows.
const BASE_OF_FLOWS: u32 = 0x8000_0000;

/// The meter that a flow has for itself: units per second, and how many may come at once.
///
/// # Errors
/// The flow has no number.
pub(crate) fn of_flow(number: u32, unit: MeterUnit, rate: (u32, u32)) -> Result<MeterConfig, String> {
    let id = BASE_OF_FLOWS.checked_add(number).filter(|_| number > 0).and_then(|id| MeterId::new(id).ok());
    let id = id.ok_or("no meter is left for the flow")?;
    let bands = vec![BandConfig { kind: BandKind::Drop, rate: rate.0, burst_size: rate.1 }];
    Ok(MeterConfig { id, unit, burst: true, stats: true, bands, port_share: 0 })
}

/// All that no flow has for itself.
pub(super) fn all(view: &Southbound) -> BTreeMap<MeterId, MeterConfig> {
    let services = Service::ALL.iter().map(|(service, _)| meter(shared(*service), rate(*service)));
    let services = services.chain([meter(LOG, LOG_RATE)]).map(|meter| (meter.id, meter));
    services.chain(own(view)).collect()
}

/// Those of datapaths with bounds of their own.
pub(super) fn own(view: &Southbound) -> BTreeMap<MeterId, MeterConfig> {
    let of = |(key, datapath): (&DatapathKey, &Datapath)| {
        let of_service = |(service, rate): (&Service, &Rate)| {
            let id = MeterId::new(of_datapath(*key, *service)).ok()?;
            Some((id, meter(id, *rate)))
        };
        datapath.limits.iter().filter_map(of_service).collect::<Vec<_>>()
    };
    view.datapaths.iter().flat_map(of).collect()
}

fn meter(id: MeterId, Rate { pps, burst }: Rate) -> MeterConfig {
    let bands = vec![BandConfig { kind: BandKind::Drop, rate: pps, burst_size: burst }];
    MeterConfig { id, unit: MeterUnit::Pktps, burst: true, stats: true, bands, port_share: PORT_SHARE }
}
