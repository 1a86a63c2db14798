//! What the host asks of the network's controller for its endpoints: ports of logical
//! switches, made and deleted with them.

use std::{collections::HashMap, time::Duration};

use ferroflow_proto::northbound::{
    CreateResourceRequest, Delete, GetReceiptRequest, GetResourceRequest, Kind, LogicalSwitch,
    LogicalSwitchPort, Operation, Resource, TransactRequest, Update, WatchRequest, event,
    northbound_service_client::NorthboundServiceClient, operation::Op, resource::Spec,
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

/// How long one question may take.
const CALL: Duration = Duration::from_secs(5);
/// How long other hosts may take to learn of a port before its container starts anyway: one
/// that does not answer must not keep this one from starting.
const OTHERS: Duration = Duration::from_secs(1);

/// A port to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PortWanted {
    /// `switches/{id}/ports/{id}`
    pub name: String,
    /// `MAC IP…`
    pub addresses: String,
    /// Packets from elsewhere come by it, too.
    pub is_gateway: bool,
    /// For people and selectors.
    pub labels: HashMap<String, String>,
    /// Rules of the switch that go with it.
    pub rules: Vec<Resource>,
}

/// The controller.
#[derive(Debug, Clone)]
pub(super) struct Northbound {
    client: NorthboundServiceClient<Channel>,
}

impl Northbound {
    /// Connects when there is something to ask.
    pub(super) fn new(controller: &Endpoint) -> Self {
        Self { client: NorthboundServiceClient::new(controller.connect_lazy()) }
    }

    /// Makes a port that may use just its own addresses, but for a gateway, or takes over the one that an
    /// interrupted attempt left. The revision is that of the change.
    ///
    /// # Errors
    /// NOT_FOUND without such a switch, UNAVAILABLE without a controller.
    pub(super) async fn make_port(&self, wanted: PortWanted) -> Result<u64, Status> {
        let PortWanted { name, addresses, is_gateway, labels, rules } = wanted;
        let port = LogicalSwitchPort {
            port_security: if is_gateway { Vec::new() } else { vec![addresses.clone()] },
            addresses: vec![addresses],
            ..LogicalSwitchPort::default()
        };
        let port =
            Resource { name, labels, spec: Some(Spec::LogicalSwitchPort(port)), ..Resource::default() };
        let put = |resource| {
            let update = Update { resource: Some(resource), allow_missing: true, ..Update::default() };
            Operation { op: Some(Op::Update(update)) }
        };
        self.transact([port].into_iter().chain(rules).map(put).collect()).await
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<u64, Status> {
        let request = TransactRequest { operations, ..TransactRequest::default() };
        Ok(self.client.clone().transact(timed(request)).await?.into_inner().revision)
    }

    /// Makes a switch; one that is there is left as it is.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller.
    pub(super) async fn make_switch(
        &self,
        name: String,
        labels: HashMap<String, String>,
    ) -> Result<(), Status> {
        let spec = Some(Spec::LogicalSwitch(LogicalSwitch::default()));
        let resource = Some(Resource { name, labels, spec, ..Resource::default() });
        let request = CreateResourceRequest { resource, validate_only: false };
        match self.client.clone().create_resource(timed(request)).await {
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            made => made.map(drop),
        }
    }

    /// Deletes ports, rules, or switches with all that is theirs; there may be none.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller.
    pub(super) async fn delete(&self, names: impl IntoIterator<Item = String>) -> Result<(), Status> {
        let delete = |name| Operation { op: Some(Op::Delete(Delete { name, allow_missing: true })) };
        match self.transact(names.into_iter().map(delete).collect()).await {
            // Its switch went before it.
            Err(status) if status.code() == Code::NotFound => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    /// There is such a switch.
    ///
    /// # Errors
    /// NOT_FOUND when there is none, UNAVAILABLE without a controller.
    pub(super) async fn check_switch(&self, name: &str) -> Result<(), Status> {
        let request = GetResourceRequest { name: name.to_owned() };
        self.client.clone().get_resource(timed(request)).await.map(drop)
    }

    /// Waits until this host forwards for a port, and the others do, made at `revision`.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED: it does not within `limit`.
    pub(super) async fn wait_up(
        &self,
        switch: &str,
        port: &str,
        revision: u64,
        limit: Duration,
    ) -> Result<(), Status> {
        let up = tokio::time::timeout(limit, self.see_up(switch, port, revision)).await;
        let revision = up.map_err(|_| {
            let limit = limit.as_secs();
            Status::deadline_exceeded(format!("{port} was not up within {limit} s; see: vswitchctl status"))
        })??;
        let mut client = self.client.clone();
        let receipt = client.get_receipt(GetReceiptRequest { revision, wait: true });
        // Who is late learns of it later; the container need not wait.
        let _ = tokio::time::timeout(OTHERS, receipt).await;
        Ok(())
    }

    /// The revision in which the port came up.
    async fn see_up(&self, switch: &str, port: &str, revision: u64) -> Result<u64, Status> {
        let request = WatchRequest {
            kinds: vec![Kind::LogicalSwitchPort.into()],
            parent: switch.to_owned(),
            after_revision: revision,
        };
        let mut changes = self.client.clone().watch(request).await?.into_inner();
        while let Some(change) = changes.message().await? {
            for event in change.events {
                match event.event {
                    Some(event::Event::Put(resource)) if resource.name == port && is_up(&resource) => {
                        return Ok(change.revision);
                    }
                    Some(event::Event::Deleted(name)) if name == port => {
                        return Err(Status::aborted(format!("{port} was deleted by somebody else")));
                    }
                    _ => {}
                }
            }
        }
        Err(Status::unavailable("the controller ended the watch"))
    }
}

fn is_up(resource: &Resource) -> bool {
    matches!(&resource.spec, Some(Spec::LogicalSwitchPort(port)) if port.up)
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}
