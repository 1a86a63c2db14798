//! What is left to do: by calls that were cut short, by a controller that was not there, by
//! shims while this daemon was not, by a crash.

use std::collections::BTreeSet;

use tonic::Status;

use super::{
    EndpointKey, Endpoints, Record, Stage, departed, gateway, link, namespace, record::is_host_interface,
    wanted_link,
};
use crate::host::Host;

impl Endpoints {
    /// Does what was left to do: by calls that were cut short, by a controller that was not
    /// there, by shims while this daemon was not.
    pub async fn tend(&self) {
        for key in departed::take(&self.departed) {
            if let Err(status) = self.detach(&key).await {
                tracing::error!(%key, %status, "cannot be detached; trying again");
                departed::put_back(&self.departed, &key);
            }
        }
        for key in self.keys(|record| record.stage == Stage::Leaving) {
            if let Err(status) = self.resume(&key).await {
                tracing::debug!(%key, %status, "cannot be taken away yet");
            }
        }
        self.tend_leases().await;
        self.tend_names().await;
    }

    /// Takes away what a crash left half-made, and what a restart of the machine left
    /// without its namespace.
    pub async fn settle(&self) {
        self.settle_leases().await;
        self.settle_ports().await;
        for key in self.keys(|record| record.stage != Stage::Leaving) {
            let Some(record) = self.get(&key) else { continue };
            if record.stage == Stage::Attached && is_there(&record).await {
                continue;
            }
            tracing::info!(%key, "left by the last run without its container; taking it away");
            if let Err(status) = self.resume(&key).await {
                tracing::error!(%key, %status, "cannot be taken away");
            }
        }
        self.settle_gateways().await;
    }

    /// Takes away ports of containers that nothing is known of any more: a loss of power has taken what was
    /// written last, and the interfaces.
    async fn settle_ports(&self) {
        // Nobody is between his record and his port.
        let _alone = self.collecting.write().await;
        let known: BTreeSet<_> = {
            let records = self.records();
            if records.has_strange() {
                return;
            }
            records.iter().map(|record| record.host_interface.clone()).collect()
        };
        let remove = move |host: &mut Host| {
            let is_lost = |name: &str| is_host_interface(name) && !known.contains(name);
            let names = host.workload_ports().map(|(name, _)| name).filter(|name| is_lost(name));
            let lost: Vec<_> = names.map(str::to_owned).collect();
            host.remove_workloads(&lost);
            lost
        };
        for interface in self.host.with(remove).await {
            tracing::warn!(interface, "a container's port of which nothing is known any more; removed");
            if let Err(error) = link::remove(&interface).await {
                tracing::error!(interface, %error, "cannot be removed");
            }
        }
    }

    /// Goes on with taking an endpoint away, if that has not been done meanwhile.
    async fn resume(&self, key: &EndpointKey) -> Result<(), Status> {
        if !gateway::is_host(key) {
            return self.detach(key).await;
        }
        let _changing = self.gateways.lock().await;
        // Made again meanwhile, it is wanted.
        if self.get(key).is_some_and(|record| record.stage == Stage::Attached) {
            return Ok(());
        }
        self.take_away(key).await
    }
}

/// What a record says can still be: its namespace, or the pair when its namespace is not
/// known, have outlived the last run.
async fn is_there(record: &Record) -> bool {
    match namespace(&record.netns) {
        Ok(Some(_)) => true,
        Ok(None) => link::check(None, &wanted_link(record)).await.is_ok(),
        Err(_) => false,
    }
}
