//! Names of containers. What the network knows of this host's is one list for each switch:
//! what the endpoints come to, told when it has changed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use ferroflow_proto::northbound::{NameRecord, Names, Resource, resource::Spec};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::{Endpoints, Record, Stage, kept::Kept, key::stable_hash, northbound::Northbound, unsaved};

/// Seconds for which an answer holds: another container may have the name soon.
const TTL: u32 = 5;
/// How long a container waits until others find it; then they do later.
const PATIENCE: Duration = Duration::from_secs(2);

/// Addresses by name.
type Records = BTreeMap<String, BTreeSet<IpAddr>>;

/// The names of a switch's containers on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// `switches/{id}`
    switch: String,
    records: Records,
    /// The network knows them.
    is_told: bool,
}

impl Kept for List {
    type Key = String;

    fn key(&self) -> &String {
        &self.switch
    }

    fn file(key: &String) -> String {
        format!("{:016x}", stable_hash(key.bytes()))
    }
}

impl Endpoints {
    /// Tells the network the names of a container that is whole. It is there without them,
    /// too: when the network does not hear, it is told later.
    pub(super) async fn name(&self, record: &Record) {
        if !record.names.is_empty() {
            // Time is over: later.
            let _ = tokio::time::timeout(PATIENCE, self.tend_names()).await;
        }
    }

    /// Tells the network what has changed.
    pub(super) async fn tend_names(&self) {
        let Some(northbound) = &self.northbound else { return };
        let _alone = self.naming.lock().await;
        let changed = self.changed_names();
        if changed.is_empty() || !self.host.with(|host| host.is_connected()).await {
            return;
        }
        for list in changed {
            let switch = list.switch.clone();
            if let Err(status) = self.tell(northbound, list).await {
                tracing::debug!(switch, %status, "names are told later");
            }
        }
    }

    /// The lists that are not as the network knows them.
    fn changed_names(&self) -> Vec<List> {
        let mut wanted: BTreeMap<String, Records> = BTreeMap::new();
        for record in self.records().iter().filter(|record| record.stage == Stage::Attached) {
            for name in &record.names {
                let of_switch = wanted.entry(record.switch.clone()).or_default();
                let addresses = record.addresses.iter().map(|prefix| prefix.address);
                of_switch.entry(name.clone()).or_default().extend(addresses);
            }
        }
        let lists = self.lists();
        for list in lists.iter() {
            wanted.entry(list.switch.clone()).or_default();
        }
        let is_told = |switch: &String, records: &Records| {
            lists.get(switch).is_some_and(|list| list.is_told && list.records == *records)
        };
        wanted
            .into_iter()
            .filter(|(switch, records)| !is_told(switch, records))
            .map(|(switch, records)| List { switch, records, is_told: false })
            .collect()
    }

    async fn tell(&self, northbound: &Northbound, list: List) -> Result<(), Status> {
        // Before it is told: what the network knows is taken back again.
        self.lists().put(list.clone()).map_err(unsaved)?;
        let resource = self.resource(&list);
        if list.records.is_empty() {
            northbound.forget_names(&list.switch, resource.name).await?;
            return self.lists().remove(&list.switch).map_err(unsaved);
        }
        match northbound.put_names(&list.switch, resource).await {
            Ok(revision) => northbound.wait_for_others(revision).await,
            // Its switch is gone: so are its containers, and nobody asks.
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(status),
        }
        self.lists().put(List { is_told: true, ..list }).map_err(unsaved)
    }

    fn resource(&self, list: &List) -> Resource {
        let bytes = list.switch.bytes().chain([0]).chain(self.chassis.bytes());
        let record = |(name, addresses): (&String, &BTreeSet<IpAddr>)| NameRecord {
            name: name.clone(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        };
        let names = Names { records: list.records.iter().map(record).collect(), ttl: TTL };
        Resource {
            name: format!("names/containers-{:016x}", stable_hash(bytes)),
            labels: HashMap::from([("host".to_owned(), self.chassis.clone())]),
            spec: Some(Spec::Names(names)),
            ..Resource::default()
        }
    }

    fn lists(&self) -> std::sync::MutexGuard<'_, super::Files<List>> {
        self.lists.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
