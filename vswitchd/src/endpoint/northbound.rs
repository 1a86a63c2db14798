//! What the host asks of the network's controller for its endpoints: ports of logical
//! switches, made and deleted with them.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use credentials::Dial;
use ferroflow_proto::northbound::{
    Create, CreateResourceRequest, Delete, GetReceiptRequest, GetResourceRequest, Kind, ListResourcesRequest,
    LogicalSwitch, LogicalSwitchPort, Operation, Precondition, Resource, TransactRequest, Update,
    WatchRequest, event::Event, northbound_service_client::NorthboundServiceClient, operation::Op,
    precondition::Condition, resource::Spec,
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

/// A controller that does not answer pings for this long while it is asked is gone.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// How often others may change a switch while it is being changed.
const MAX_TRIES: usize = 8;

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
    pub(super) fn new(controller: &Dial) -> Self {
        let keep =
            |endpoint: Endpoint| endpoint.http2_keep_alive_interval(KEEPALIVE).keep_alive_timeout(KEEPALIVE);
        Self { client: NorthboundServiceClient::new(controller.connect_lazy(keep)) }
    }

    /// Makes a port that may use just its own addresses, but for a gateway, or takes over the one that an
    /// interrupted attempt left. The revision is that of the change.
    ///
    /// # Errors
    /// NOT_FOUND without such a switch, UNAVAILABLE without a controller.
    pub(super) async fn make_port(&self, wanted: PortWanted) -> Result<u64, Status> {
        self.make_ports([wanted].into_iter()).await
    }

    /// The same with several ports, all or none.
    ///
    /// # Errors
    /// NOT_FOUND without one of their switches, UNAVAILABLE without a controller.
    pub(super) async fn make_ports(&self, wanted: impl Iterator<Item = PortWanted>) -> Result<u64, Status> {
        self.put(wanted.flat_map(|wanted| {
            let rules = wanted.rules.clone();
            [port(wanted)].into_iter().chain(rules)
        }))
        .await
    }

    /// Makes resources what they are to be, all or none.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller, or why not.
    pub(super) async fn put(&self, resources: impl IntoIterator<Item = Resource>) -> Result<u64, Status> {
        self.transact(resources.into_iter().map(put).collect()).await
    }

    /// Makes ports that nobody has made, all or none.
    ///
    /// # Errors
    /// ALREADY_EXISTS when somebody has made one of them.
    pub(super) async fn create_ports(&self, wanted: impl Iterator<Item = PortWanted>) -> Result<u64, Status> {
        let create = |wanted| {
            let create = Create { resource: Some(port(wanted)) };
            Operation { op: Some(Op::Create(create)) }
        };
        self.transact(wanted.map(create).collect()).await
    }

    /// All addresses that ports of a switch have, those of its routers among them.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller.
    pub(super) async fn addresses(&self, switch: &str) -> Result<BTreeSet<IpAddr>, Status> {
        let mut addresses = BTreeSet::new();
        let mut page_token = String::new();
        loop {
            let request = ListResourcesRequest {
                kind: Kind::LogicalSwitchPort.into(),
                parent: switch.to_owned(),
                page_token,
                ..ListResourcesRequest::default()
            };
            let page = self.client.clone().list_resources(timed(request)).await?.into_inner();
            for resource in page.resources {
                let Some(Spec::LogicalSwitchPort(port)) = resource.spec else { continue };
                let texts = port.addresses.iter().chain([&port.dynamic_addresses]);
                addresses.extend(
                    texts
                        .flat_map(|text| text.split_whitespace())
                        .filter_map(|word| word.parse::<IpAddr>().ok()),
                );
                if !port.router_port.is_empty() {
                    addresses.extend(self.router_addresses(&port.router_port).await?);
                }
            }
            if page.next_page_token.is_empty() {
                return Ok(addresses);
            }
            page_token = page.next_page_token;
        }
    }

    async fn router_addresses(&self, port: &str) -> Result<Vec<IpAddr>, Status> {
        let request = GetResourceRequest { name: port.to_owned() };
        let found = self.client.clone().get_resource(timed(request)).await?.into_inner().resource;
        let Some(Spec::LogicalRouterPort(port)) = found.and_then(|resource| resource.spec) else {
            return Ok(Vec::new());
        };
        let addresses = port.networks.iter().filter_map(|network| network.split('/').next()?.parse().ok());
        Ok(addresses.collect())
    }

    /// Names of the ports of all switches that have a label.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller.
    pub(super) async fn labelled(&self, label: &str, value: &str) -> Result<Vec<String>, Status> {
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListResourcesRequest {
                kind: Kind::LogicalSwitchPort.into(),
                page_token,
                labels: HashMap::from([(label.to_owned(), value.to_owned())]),
                ..ListResourcesRequest::default()
            };
            let page = self.client.clone().list_resources(timed(request)).await?.into_inner();
            names.extend(page.resources.into_iter().map(|resource| resource.name));
            if page.next_page_token.is_empty() {
                return Ok(names);
            }
            page_token = page.next_page_token;
        }
    }

    /// A label of a resource; `None`: it has none, or is not there.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller.
    pub(super) async fn label(&self, name: &str, label: &str) -> Result<Option<String>, Status> {
        let request = GetResourceRequest { name: name.to_owned() };
        match self.client.clone().get_resource(timed(request)).await {
            Ok(found) => {
                Ok(found.into_inner().resource.and_then(|mut resource| resource.labels.remove(label)))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Waits until ports made at `revision` are bound to a chassis, and other hosts know.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED: they are not within `limit`.
    pub(super) async fn wait_bound(
        &self,
        switch: &str,
        ids: &BTreeSet<String>,
        chassis: &str,
        revision: u64,
        limit: Duration,
    ) -> Result<(), Status> {
        let chassis = format!("chassis/{chassis}");
        let mut missing: BTreeSet<_> = ids.iter().map(|id| format!("{switch}/ports/{id}")).collect();
        let is_last = |event: &Event| {
            let resource = match event {
                Event::Deleted(name) if missing.contains(name) => return Err(deleted(name)),
                Event::Deleted(_) => return Ok(false),
                Event::Put(resource) => resource,
            };
            if matches!(&resource.spec, Some(Spec::LogicalSwitchPort(port)) if port.chassis == chassis) {
                missing.remove(&resource.name);
            }
            Ok(missing.is_empty())
        };
        let bound = tokio::time::timeout(limit, self.see(switch, revision, is_last)).await;
        let revision = bound.map_err(|_| {
            Status::deadline_exceeded("leased ports were not bound to this host; see: vswitchctl status")
        })??;
        self.wait_for_others(revision).await;
        Ok(())
    }

    pub(super) async fn wait_for_others(&self, revision: u64) {
        let mut client = self.client.clone();
        let receipt = client.get_receipt(GetReceiptRequest { revision, wait: true });
        // Who is late learns of it later; the container need not wait.
        let _ = tokio::time::timeout(OTHERS, receipt).await;
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<u64, Status> {
        self.transact_if(operations, Vec::new()).await
    }

    /// Does it all if the conditions hold, else nothing.
    async fn transact_if(
        &self,
        operations: Vec<Operation>,
        preconditions: Vec<Precondition>,
    ) -> Result<u64, Status> {
        let request = TransactRequest { operations, preconditions, ..TransactRequest::default() };
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
        match self.transact(names.into_iter().map(delete).collect()).await {
            // Its switch went before it.
            Err(status) if status.code() == Code::NotFound => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    /// Makes a list of names what it is to be, and known to the workloads of a switch.
    ///
    /// # Errors
    /// NOT_FOUND without such a switch, UNAVAILABLE without a controller.
    pub(super) async fn put_names(&self, switch: &str, names: Resource) -> Result<u64, Status> {
        let name = names.name.clone();
        let put = put(names);
        self.change_switch(switch, |known| {
            let add = !known.contains(&name);
            let known = add.then(|| known.into_iter().chain([name.clone()]).collect());
            (vec![put.clone()], known, Vec::new())
        })
        .await
    }

    /// Deletes a list of names; there may be none.
    ///
    /// # Errors
    /// UNAVAILABLE without a controller.
    pub(super) async fn forget_names(&self, switch: &str, name: String) -> Result<(), Status> {
        let forgotten = self
            .change_switch(switch, |known| {
                let is_known = known.contains(&name);
                let known = is_known.then(|| known.into_iter().filter(|other| *other != name).collect());
                (Vec::new(), known, vec![delete(name.clone())])
            })
            .await;
        match forgotten {
            Err(status) if status.code() == Code::NotFound => self.delete([name.clone()]).await,
            forgotten => forgotten.map(drop),
        }
    }

    /// Changes which names a switch knows, between other changes, however many change it at
    /// the same time.
    async fn change_switch(
        &self,
        switch: &str,
        change: impl Fn(Vec<String>) -> (Vec<Operation>, Option<Vec<String>>, Vec<Operation>),
    ) -> Result<u64, Status> {
        let mut tries_left = MAX_TRIES;
        loop {
            let request = GetResourceRequest { name: switch.to_owned() };
            let found = self.client.clone().get_resource(timed(request)).await?.into_inner().resource;
            let Some(Resource { update_revision, spec: Some(Spec::LogicalSwitch(spec)), .. }) = found else {
                return Err(Status::internal(format!("{switch} is no switch")));
            };
            let (mut operations, known, after) = change(spec.names.clone());
            let mut preconditions = Vec::new();
            if let Some(names) = known {
                let condition = Some(Condition::UpdateRevision(update_revision));
                preconditions.push(Precondition { name: switch.to_owned(), condition });
                operations.push(update_names(switch, LogicalSwitch { names, ..spec }));
            }
            operations.extend(after);
            match self.transact_if(operations, preconditions).await {
                // Somebody else has changed it meanwhile.
                Err(status) if is_outrun(&status) && tries_left > 0 => tries_left -= 1,
                done => return done,
            }
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
        let is_ours = |event: &Event| match event {
            Event::Put(resource) => Ok(resource.name == port && is_up(resource)),
            Event::Deleted(name) if name == port => Err(deleted(port)),
            Event::Deleted(_) => Ok(false),
        };
        let up = tokio::time::timeout(limit, self.see(switch, revision, is_ours)).await;
        let revision = up.map_err(|_| {
            let limit = limit.as_secs();
            Status::deadline_exceeded(format!("{port} was not up within {limit} s; see: vswitchctl status"))
        })??;
        self.wait_for_others(revision).await;
        Ok(())
    }

    /// The revision with the first change of a switch's ports that is looked for.
    async fn see(
        &self,
        switch: &str,
        revision: u64,
        mut is_it: impl FnMut(&Event) -> Result<bool, Status>,
    ) -> Result<u64, Status> {
        let request = WatchRequest {
            kinds: vec![Kind::LogicalSwitchPort.into()],
            parent: switch.to_owned(),
            after_revision: revision,
        };
        let mut changes = self.client.clone().watch(request).await?.into_inner();
        while let Some(change) = changes.message().await? {
            for event in change.events.iter().filter_map(|event| event.event.as_ref()) {
                if is_it(event)? {
                    return Ok(change.revision);
                }
            }
        }
        Err(Status::unavailable("the controller ended the watch"))
    }
}

fn put(resource: Resource) -> Operation {
    let update = Update { resource: Some(resource), allow_missing: true, ..Update::default() };
    Operation { op: Some(Op::Update(update)) }
}

fn delete(name: String) -> Operation {
    Operation { op: Some(Op::Delete(Delete { name, allow_missing: true })) }
}

fn update_names(name: &str, spec: LogicalSwitch) -> Operation {
    let resource =
        Resource { name: name.to_owned(), spec: Some(Spec::LogicalSwitch(spec)), ..Resource::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["names".to_owned()] });
    let update = Update { resource: Some(resource), update_mask, allow_missing: false };
    Operation { op: Some(Op::Update(update)) }
}

/// A condition did not hold.
fn is_outrun(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::Aborted)
}

fn deleted(port: &str) -> Status {
    Status::aborted(format!("{port} was deleted by somebody else"))
}

/// A port as the network has it.
fn port(wanted: PortWanted) -> Resource {
    let PortWanted { name, addresses, is_gateway, labels, rules: _ } = wanted;
    let port = LogicalSwitchPort {
        port_security: if is_gateway { Vec::new() } else { vec![addresses.clone()] },
        addresses: vec![addresses],
        ..LogicalSwitchPort::default()
    };
    Resource { name, labels, spec: Some(Spec::LogicalSwitchPort(port)), ..Resource::default() }
}

fn is_up(resource: &Resource) -> bool {
    matches!(&resource.spec, Some(Spec::LogicalSwitchPort(port)) if port.up)
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}
