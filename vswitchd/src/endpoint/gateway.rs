//! The host as the gateway of containers: an endpoint of its own on their switch, which is
//! there as long as one of the network's containers is.

use flowtable::types::MacAddr;
use tonic::Status;

use super::{
    AttachWanted, EndpointKey, Endpoints, Limits, Namespace, Prefix, Record, Stage,
    kept::Files,
    lease, mac_of,
    nat::{self, Gateway, Target},
    northbound::Northbound,
    record, refusal, unsaved,
};

/// The container of the host's endpoints: no runtime can say so.
const HOST: &str = ".host";
/// The namespace of this process.
const OWN: &str = "/proc/self/ns/net";

/// Key of the host's endpoint in a network.
pub(super) fn host_key(network: &str) -> EndpointKey {
    let key = |interface: String| EndpointKey {
        network: network.to_owned(),
        container: HOST.to_owned(),
        interface,
    };
    let hash = record::short_hash(&key(String::new()));
    key(format!("{}{hash:012x}", nat::GATEWAYS))
}

/// The host's endpoint, with the addresses that a container's request gives it.
fn host_record(key: &EndpointKey, record: &Record) -> Option<Record> {
    let first = record.host_addresses.first()?;
    Some(Record {
        key: key.clone(),
        stage: Stage::Coming,
        netns: OWN.to_owned(),
        host_interface: record::host_interface(key),
        addresses: record.host_addresses.clone(),
        mac: mac_of(first.address),
        routes: Vec::new(),
        host_mac: MacAddr::ZERO,
        host_addresses: Vec::new(),
        published: Vec::new(),
        limits: Limits::default(),
        lease: None,
        names: [].into(),
        ..record.clone()
    })
}

/// It is the host's own.
pub(super) fn is_host(key: &EndpointKey) -> bool {
    key.container == HOST
}

impl Endpoints {
    /// Makes the host the gateway of a container that is about to be made, and leads the
    /// ports of the host to it. Answers the container, with its gateway.
    pub(super) async fn open_gateway(
        &self,
        northbound: &Northbound,
        wanted: &AttachWanted,
        record: Record,
    ) -> Result<Record, Status> {
        if !record.is_by_host() {
            return Ok(record);
        }
        let _changing = self.gateways.lock().await;
        let host = self.gateway_of(northbound, wanted, &record).await?;
        let record = if record.is_gateway_leased {
            let record = lease::by_host(record, &wanted.routes, &host);
            self.put(record.clone())?;
            record
        } else {
            record
        };
        self.translate().await?;
        Ok(record)
    }

    /// The host's endpoint in a container's network: the one that is there, or a new one.
    async fn gateway_of(
        &self,
        northbound: &Northbound,
        wanted: &AttachWanted,
        record: &Record,
    ) -> Result<Record, Status> {
        let key = host_key(&record.key.network);
        let namespace = Namespace::open(OWN).map_err(refusal)?;
        let present = self.get(&key);
        let planned = if record.is_gateway_leased {
            present.clone().filter(|present| present.lease.is_some())
        } else {
            host_record(&key, record)
        };
        if let Some(planned) = &planned
            && let Some(whole) = self.whole(Some(&namespace), planned).await
        {
            return Ok(whole);
        }
        let is_other = |other: &Record| {
            let is_leased = other.is_gateway_leased;
            is_leased != record.is_gateway_leased
                || !is_leased && other.host_addresses != record.host_addresses
        };
        if present.is_some() && self.of_network(&key.network).any(|other| is_other(&other)) {
            return Err(Status::failed_precondition(format!(
                "containers of network {} have another gateway on this host; end them first",
                key.network
            )));
        }
        self.take_away(&key).await?;
        let made = async {
            let host = if record.is_gateway_leased {
                // What containers have routes to stays the same.
                let addresses = planned.map(|planned| planned.addresses).unwrap_or_default();
                self.reserve_gateway(northbound, wanted, &key, addresses).await?
            } else {
                let host = planned.ok_or_else(|| Status::internal("a gateway without addresses"))?;
                self.put(host.clone())?;
                host
            };
            self.make(northbound, Some(&namespace), host, self.labels(&key, [].into())).await
        };
        match made.await {
            Ok(host) => Ok(host),
            Err(status) => {
                self.take_away(&key).await?;
                Err(status)
            }
        }
    }

    /// Writes the host's endpoint down, with addresses that the host leases for it.
    async fn reserve_gateway(
        &self,
        northbound: &Northbound,
        wanted: &AttachWanted,
        key: &EndpointKey,
        addresses: Vec<Prefix>,
    ) -> Result<Record, Status> {
        let ranges = wanted.lease.as_ref().ok_or_else(|| Status::internal("no addresses"))?;
        let host = AttachWanted {
            key: key.clone(),
            netns: OWN.to_owned(),
            addresses,
            mac: None,
            routes: Vec::new(),
            labels: [].into(),
            published: Vec::new(),
            limits: Limits::default(),
            is_gateway_leased: false,
            names: [].into(),
            ..wanted.clone()
        };
        let record = self.reserve(northbound, &host, ranges).await?;
        self.open_port(northbound, &record).await?;
        Ok(record)
    }

    /// Ends what the host did for a container that is gone.
    pub(super) async fn close_gateway(&self, record: &Record) -> Result<(), Status> {
        if !record.is_by_host() {
            return Ok(());
        }
        let _changing = self.gateways.lock().await;
        let network = &record.key.network;
        let is_needed = self.of_network(network).any(|other| other.is_by_host());
        if !is_needed {
            self.take_away(&host_key(network)).await?;
        }
        if is_needed && record.published.is_empty() {
            return Ok(());
        }
        self.translate().await
    }

    /// The kernel does again what it did for the last run.
    pub(super) async fn settle_gateways(&self) {
        let _changing = self.gateways.lock().await;
        if self.list().iter().all(|record| !is_host(&record.key)) {
            return;
        }
        if let Err(status) = self.translate().await {
            tracing::error!(%status, "ports of the host do not lead to containers");
        }
    }

    /// Writes down what is about to be made, if its ports of the host lead nowhere else.
    pub(super) fn put_coming(&self, wanted: Record) -> Result<Record, Status> {
        // One lock for both: two that ask at once do not both get it.
        let mut records = self.records();
        check_published(&records, &wanted)?;
        records.put(wanted.clone()).map_err(unsaved)?;
        Ok(wanted)
    }

    /// Containers of a network that are there or coming.
    fn of_network(&self, network: &str) -> impl Iterator<Item = Record> {
        let is_wanted = |record: &&Record| {
            record.key.network == network && !is_host(&record.key) && record.stage != Stage::Leaving
        };
        let found: Vec<_> = self.records().iter().filter(is_wanted).cloned().collect();
        found.into_iter()
    }

    /// Tells the kernel what it has to do for all of them.
    async fn translate(&self) -> Result<(), Status> {
        let (hosts, containers): (Vec<Record>, Vec<Record>) = {
            let records = self.records();
            let there = records.iter().filter(|record| record.stage != Stage::Leaving).cloned();
            there.partition(|record| is_host(&record.key))
        };
        let gateways: Vec<_> = hosts
            .into_iter()
            .map(|host| Gateway { interface: host.key.interface, addresses: host.addresses })
            .collect();
        let targets: Vec<_> = containers
            .into_iter()
            .filter(|container| !container.published.is_empty())
            .map(|container| Target {
                addresses: container.addresses.iter().map(|prefix| prefix.address).collect(),
                published: container.published,
            })
            .collect();
        let refused = |error: std::io::Error| {
            Status::failed_precondition(format!("this host cannot be a gateway: {error}"))
        };
        gateways.iter().try_for_each(nat::allow_forwarding).map_err(refused)?;
        let none = || refused(std::io::Error::other("it is a lab's, or has no network"));
        let translator = self.translator.as_ref().ok_or_else(none)?;
        nat::apply(translator, &gateways, &targets).await.map_err(refused)
    }
}

/// A port of the host leads to one container.
pub(super) fn check_published(records: &Files<Record>, wanted: &Record) -> Result<(), Status> {
    if !wanted.published.is_empty() && !wanted.is_by_host() {
        return Err(Status::invalid_argument(
            "ports can be published only where the host is the gateway (\"gateway\": \"host\")",
        ));
    }
    for other in records.iter().filter(|other| other.key != wanted.key && other.stage != Stage::Leaving) {
        for published in &wanted.published {
            if other.published.iter().any(|theirs| theirs.collides(published)) {
                return Err(Status::failed_precondition(format!(
                    "port {published} of the host leads to {} already",
                    other.key
                )));
            }
        }
    }
    Ok(())
}
