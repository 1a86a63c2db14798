//! Networks of a swarm. A manager allocates one, which here is to make its switch, and tells
//! all hosts what it was given back; each makes the network for itself when a container there
//! needs it. The manager frees it when nobody wants it any more, which hosts may hear later.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::{
    cli::Scope,
    driver::Driver,
    network::{NetworkRecord, made_switch},
    options::{GENERIC, NetworkOptions, SWARM_SWITCH},
    protocol::{AllocateNetwork, NetworkCall},
    refusal::Refusal,
};

impl Driver {
    /// Checks the options of a network of a swarm, and makes its switch unless they name one.
    pub(crate) async fn allocate_network(&self, call: AllocateNetwork) -> Result<Value, Refusal> {
        const WHAT: &str = "the network cannot be made";
        let mut options = call.options;
        let written: Map<String, Value> =
            options.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let read = NetworkOptions::read(&[(GENERIC.to_owned(), Value::Object(written))].into())?;
        if read.switch.is_none() {
            let (id, switch) = (allocated(&call.network), made_switch(&call.network));
            // Before it is made: what is known is taken away again.
            self.networks.borrow_mut().put(&id, NetworkRecord::of_made(switch.clone(), false))?;
            let labels = HashMap::from([("docker-network".to_owned(), call.network.clone())]);
            let made = match self.daemon(WHAT).await {
                Ok(mut daemon) => {
                    let made = daemon.make_switch(&switch, labels).await;
                    made.map_err(|status| Refusal::daemon(WHAT, &status))
                }
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = made {
                self.free_network(NetworkCall { network: call.network }).await?;
                return Err(refusal);
            }
            options.insert(SWARM_SWITCH.to_owned(), switch);
        }
        Ok(json!({ "Options": options }))
    }

    /// Takes the switch of a network away, now or later; it may be one that another manager has
    /// made, or none.
    pub(crate) async fn free_network(&self, call: NetworkCall) -> Result<(), Refusal> {
        if self.scope == Scope::Local {
            return Ok(());
        }
        let id = allocated(&call.network);
        if self.networks.borrow().get(&id).is_none() {
            let record = NetworkRecord::of_made(made_switch(&call.network), true);
            self.networks.borrow_mut().put(&id, record)?;
        }
        self.delete_network(NetworkCall { network: id }).await
    }
}

/// What a manager keeps of a network, beside the network itself.
fn allocated(network: &str) -> String {
    format!("swarm-{network}")
}
