//! The host as the gateway of containers: an endpoint of its own on their switch, which is
//! there as long as one of the network's containers is.

use flowtable::types::MacAddr;
use tonic::Status;

use super::{
    EndpointKey, Endpoints, Limits, Namespace, Record, Stage,
    kept::Files,
    mac_of,
    nat::{self, Gateway, Target},
    northbound::Northbound,
    record, refusal, unsaved,
};

/// The container of the host's endpoints: no runtime can say so.
const HOST: &str = ".host";
/// The namespace of this process.
const OWN: &str = "/proc/self/ns/net";

/// Key of the host's endpoint in a network.
fn host_key(network: &str) -> EndpointKey {
    let key = |interface: String| EndpointKey {
        network: network.to_owned(),
        container: HOST.to_owned(),
        interface,
    };
    let hash = record::short_hash(&key(String::new()));
    key(format!("{}{hash:012x}", nat::GATEWAYS))
}

/// It is the host's own.
pub(super) fn is_host(key: &EndpointKey) -> bool {
    key.container == HOST
}

impl Endpoints {
    /// Makes the host the gateway of a container that is about to be made, and leads the
    /// ports of the host to it.
    pub(super) async fn open_gateway(&self, northbound: &Northbound, record: &Record) -> Result<(), Status> {
        let Some(first) = record.host_addresses.first() else { return Ok(()) };
        let _changing = self.gateways.lock().await;
        let key = host_key(&record.key.network);
        let host = Record {
            stage: Stage::Coming,
            netns: OWN.to_owned(),
            host_interface: record::host_interface(&key),
            addresses: record.host_addresses.clone(),
            mac: mac_of(first.address),
            routes: Vec::new(),
            host_mac: MacAddr::ZERO,
            host_addresses: Vec::new(),
            published: Vec::new(),
            limits: Limits::default(),
            lease: None,
            key: key.clone(),
            ..record.clone()
        };
        let namespace = Namespace::open(OWN).map_err(refusal)?;
        if self.whole(Some(&namespace), &host).await.is_none() {
            let is_other = |other: &Record| other.host_addresses != record.host_addresses;
            if self.get(&key).is_some() && self.of_network(&key.network).any(|other| is_other(&other)) {
                return Err(Status::failed_precondition(format!(
                    "containers of network {} have another gateway on this host; end them first",
                    key.network
                )));
            }
            self.take_away(&key).await?;
            self.put(host.clone())?;
            let labels = self.labels(&key, [].into());
            if let Err(status) = self.make(northbound, Some(&namespace), host, labels).await {
                self.take_away(&key).await?;
                return Err(status);
            }
        }
        self.translate().await
    }

    /// Ends what the host did for a container that is gone.
    pub(super) async fn close_gateway(&self, record: &Record) -> Result<(), Status> {
        if record.host_addresses.is_empty() {
            return Ok(());
        }
        let _changing = self.gateways.lock().await;
        let network = &record.key.network;
        let is_needed = self.of_network(network).any(|other| !other.host_addresses.is_empty());
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
        nat::apply(&gateways, &targets).await.map_err(refused)
    }
}

/// A port of the host leads to one container.
pub(super) fn check_published(records: &Files<Record>, wanted: &Record) -> Result<(), Status> {
    if !wanted.published.is_empty() && wanted.host_addresses.is_empty() {
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
