//! The host's daemon, behind its socket.

use std::{collections::HashMap, path::Path, time::Duration};

use ferroflow_proto::host::{
    AttachRequest, CheckEndpointRequest, DetachRequest, Endpoint, EndpointKey, GetReadinessRequest,
    KeepEndpointsRequest, MakeSwitchRequest, RemoveSwitchRequest,
    endpoint_service_client::EndpointServiceClient,
};
use tonic::{
    Request, Status,
    transport::{self, Channel},
};

/// How long the daemon may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a call may take: a runtime gives up after minutes, a person sooner.
const CALL: Duration = Duration::from_secs(30);

/// A connection to vswitchd.
#[derive(Debug, Clone)]
pub struct Daemon {
    client: EndpointServiceClient<Channel>,
}

impl Daemon {
    /// Connects.
    ///
    /// # Errors
    /// UNAVAILABLE: nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self, Status> {
        let missing = |error: transport::Error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
            }
            let socket = socket.display();
            Status::unavailable(format!("vswitchd does not answer at {socket} ({cause}); is it running?"))
        };
        let endpoint =
            transport::Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(missing)?;
        let channel = endpoint.connect_timeout(CONNECT).connect().await.map_err(missing)?;
        Ok(Self { client: EndpointServiceClient::new(channel) })
    }

    /// Makes an interface.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn attach(&mut self, wanted: AttachRequest) -> Result<Endpoint, Status> {
        let answer = self.client.attach(timed(wanted)).await.map_err(lost)?.into_inner();
        answer.endpoint.ok_or_else(|| Status::internal("vswitchd answers without an endpoint"))
    }

    /// Takes one away.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn detach(&mut self, key: EndpointKey) -> Result<(), Status> {
        self.client.detach(timed(DetachRequest { key: Some(key) })).await.map_err(lost).map(drop)
    }

    /// It is as it was made.
    ///
    /// # Errors
    /// What is different.
    pub async fn check(&mut self, key: EndpointKey, netns: &str) -> Result<(), Status> {
        let request = CheckEndpointRequest { key: Some(key), netns: netns.to_owned() };
        self.client.check_endpoint(timed(request)).await.map_err(lost).map(drop)
    }

    /// Takes all of a network away but these.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn keep(&mut self, network: &str, keep: Vec<EndpointKey>) -> Result<(), Status> {
        let request = KeepEndpointsRequest { network: network.to_owned(), keep };
        self.client.keep_endpoints(timed(request)).await.map_err(lost).map(drop)
    }

    /// Why nothing can be attached; empty: it can.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn trouble(&mut self, switch: &str) -> Result<String, Status> {
        let request = GetReadinessRequest { switch: switch.to_owned() };
        Ok(self.client.get_readiness(timed(request)).await.map_err(lost)?.into_inner().trouble)
    }

    /// Makes a switch; one that is there is left as it is.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn make_switch(&mut self, switch: &str, labels: HashMap<String, String>) -> Result<(), Status> {
        let request = MakeSwitchRequest { switch: switch.to_owned(), labels };
        self.client.make_switch(timed(request)).await.map_err(lost).map(drop)
    }

    /// Removes a switch; there may be none.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn remove_switch(&mut self, switch: &str) -> Result<(), Status> {
        let request = RemoveSwitchRequest { switch: switch.to_owned() };
        self.client.remove_switch(timed(request)).await.map_err(lost).map(drop)
    }
}

/// An answer that is none: the connection was cut, and whether the daemon has done it nobody
/// knows.
fn lost(status: Status) -> Status {
    match std::error::Error::source(&status) {
        Some(_) => Status::unavailable(format!("vswitchd has gone away meanwhile ({})", status.message())),
        None => status,
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}
