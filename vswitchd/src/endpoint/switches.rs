//! Switches that belong to a runtime's network: made and removed with it, when the network
//! names none that is there already.

use std::collections::HashMap;

use tonic::Status;

use super::{Endpoints, no_network};

impl Endpoints {
    /// Makes a switch; one that is there is left as it is.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller, INVALID_ARGUMENT for a name that cannot be.
    pub async fn make_switch(&self, name: String, mut labels: HashMap<String, String>) -> Result<(), Status> {
        labels.insert("host".to_owned(), self.chassis.clone());
        self.northbound.as_ref().ok_or_else(no_network)?.make_switch(name, labels).await
    }

    /// Removes a switch; there may be none.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller.
    pub async fn remove_switch(&self, name: &str) -> Result<(), Status> {
        self.northbound.as_ref().ok_or_else(no_network)?.delete([name.to_owned()]).await
    }
}
