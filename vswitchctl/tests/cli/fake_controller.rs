//! A controller in a map: revisions, preconditions, pages and watches as the API
//! promises, without checking what the objects say.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use ferroflow_proto::host::{TraceResponse, TraceStep, TracedOutput};
use ferroflow_proto::northbound::{
    ChassisReceipt, ChassisStatus, CreateResourceRequest, CreateResourceResponse, DeleteResourceRequest,
    DeleteResourceResponse, Event, ExplainRequest, ExplainResponse, ExplainedStep, ExplainedWay,
    GetReceiptRequest, GetReceiptResponse, GetResourceRequest, GetResourceResponse, GetStatusRequest,
    GetStatusResponse, Kind, ListResourcesRequest, ListResourcesResponse, PendingRevision, Resource,
    TracePacketRequest, TracePacketResponse, TracedHost, TransactRequest, TransactResponse, Update,
    UpdateResourceRequest, UpdateResourceResponse, WatchRequest, WatchResponse, event,
    northbound_service_server::{NorthboundService, NorthboundServiceServer},
    operation::Op,
    precondition::Condition,
    resource::Spec,
};
use tokio_stream::Iter;
use tonic::{Request, Response, Status, transport::Server};

use crate::Place;

/// Resources on a page, small so that every test turns pages.
const PAGE_SIZE: usize = 2;

/// State of the store.
#[derive(Default, Clone)]
pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) resources: BTreeMap<String, Resource>,
    /// Answers of GetReceipt, the last one for ever.
    pub(crate) receipts: Vec<Vec<ChassisReceipt>>,
    /// Objects that somebody else changes when a transaction comes, once each.
    pub(crate) disturbed: Vec<String>,
    /// Every id and address is somebody else's.
    pub(crate) taken: bool,
    /// Messages that came.
    pub(crate) transactions: Vec<TransactRequest>,
}

/// The server.
#[derive(Default, Clone)]
pub(crate) struct FakeController {
    state: Arc<Mutex<State>>,
}

impl FakeController {
    /// Serves at `controller` of `place`, until the test ends.
    pub(crate) fn start(place: &Place) -> Self {
        let fake = Self::default();
        let server = Server::builder().add_service(NorthboundServiceServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(place.listen("controller")));
        fake
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.change(|state| state.resources.keys().cloned().collect())
    }

    pub(crate) fn get(&self, name: &str) -> Resource {
        self.change(|state| state.resources[name].clone())
    }
}

fn kind_of(resource: &Resource) -> Kind {
    match &resource.spec {
        Some(Spec::LogicalSwitch(_)) => Kind::LogicalSwitch,
        Some(Spec::LogicalSwitchPort(_)) => Kind::LogicalSwitchPort,
        Some(Spec::LogicalRouter(_)) => Kind::LogicalRouter,
        Some(Spec::LogicalRouterPort(_)) => Kind::LogicalRouterPort,
        Some(Spec::Acl(_)) => Kind::Acl,
        Some(Spec::Chassis(_)) => Kind::Chassis,
        Some(Spec::AddressSet(_)) => Kind::AddressSet,
        Some(Spec::PortGroup(_)) => Kind::PortGroup,
        Some(Spec::LoadBalancer(_)) => Kind::LoadBalancer,
        Some(Spec::SampleCollector(_)) => Kind::SampleCollector,
        Some(Spec::Nat(_)) => Kind::Nat,
        Some(Spec::DhcpOptions(_)) => Kind::DhcpOptions,
        Some(Spec::Names(_)) => Kind::Names,
        Some(Spec::LoadBalancerGroup(_)) => Kind::LoadBalancerGroup,
        Some(Spec::HaChassisGroup(_)) => Kind::HaChassisGroup,
        Some(Spec::TemplateVariable(_)) => Kind::TemplateVariable,
        Some(Spec::ControlPlaneLimits(_)) => Kind::ControlPlaneLimits,
        Some(Spec::RouterPolicy(_)) => Kind::RouterPolicy,
        Some(Spec::QosRule(_)) => Kind::QosRule,
        None => Kind::Unspecified,
    }
}

fn is_below(name: &str, parent: &str) -> bool {
    parent.is_empty() || name.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

impl State {
    fn put(&mut self, mut resource: Resource) -> Resource {
        let before = self.resources.get(&resource.name);
        (resource.create_revision, resource.update_revision) =
            before.map_or((0, 0), |before| (before.create_revision, before.update_revision));
        if before == Some(&resource) {
            return resource;
        }
        if before.is_none() {
            resource.create_revision = self.revision;
        }
        resource.update_revision = self.revision;
        self.resources.insert(resource.name.clone(), resource.clone());
        resource
    }

    fn update(&mut self, update: Update) -> Result<Resource, Status> {
        let resource = update.resource.ok_or_else(|| Status::invalid_argument("no resource"))?;
        let missing = || Status::not_found(format!("{} does not exist", resource.name));
        let Some(mask) = update.update_mask else {
            if !update.allow_missing && !self.resources.contains_key(&resource.name) {
                return Err(missing());
            }
            return Ok(self.put(resource));
        };
        let mut merged = self.resources.get(&resource.name).cloned().ok_or_else(missing)?;
        for path in mask.paths {
            match (path.as_str(), &mut merged.spec, &resource.spec) {
                ("labels", _, _) => merged.labels = resource.labels.clone(),
                ("priority", Some(Spec::Acl(to)), Some(Spec::Acl(from))) => to.priority = from.priority,
                ("match", Some(Spec::Acl(to)), Some(Spec::Acl(from))) => to.r#match = from.r#match.clone(),
                ("enabled", Some(Spec::LogicalSwitchPort(to)), Some(Spec::LogicalSwitchPort(from))) => {
                    to.enabled = from.enabled;
                }
                ("label", Some(Spec::Acl(to)), Some(Spec::Acl(from))) => to.label = from.label,
                ("log_name", Some(Spec::Acl(to)), Some(Spec::Acl(from))) => {
                    to.log_name.clone_from(&from.log_name);
                }
                ("addresses", Some(Spec::AddressSet(to)), Some(Spec::AddressSet(from))) => {
                    to.addresses.clone_from(&from.addresses);
                }
                (
                    "load_balancers",
                    Some(Spec::LoadBalancerGroup(to)),
                    Some(Spec::LoadBalancerGroup(from)),
                ) => {
                    to.load_balancers.clone_from(&from.load_balancers);
                }
                ("load_balancer_groups", Some(Spec::LogicalSwitch(to)), Some(Spec::LogicalSwitch(from))) => {
                    to.load_balancer_groups.clone_from(&from.load_balancer_groups);
                }
                (
                    "gateway_chassis",
                    Some(Spec::LogicalRouterPort(to)),
                    Some(Spec::LogicalRouterPort(from)),
                ) => {
                    to.gateway_chassis.clone_from(&from.gateway_chassis);
                }
                (
                    "ha_chassis_group",
                    Some(Spec::LogicalRouterPort(to)),
                    Some(Spec::LogicalRouterPort(from)),
                ) => {
                    to.ha_chassis_group.clone_from(&from.ha_chassis_group);
                }
                ("values", Some(Spec::TemplateVariable(to)), Some(Spec::TemplateVariable(from))) => {
                    to.values.clone_from(&from.values);
                }
                ("ports", Some(Spec::PortGroup(to)), Some(Spec::PortGroup(from))) => {
                    to.ports.clone_from(&from.ports);
                }
                (path, _, _) => return Err(Status::invalid_argument(format!("no field {path}"))),
            }
        }
        Ok(self.put(merged))
    }

    fn apply(&mut self, request: TransactRequest) -> Result<TransactResponse, Status> {
        for condition in &request.preconditions {
            let now = self.resources.get(&condition.name).map(|resource| resource.update_revision);
            let holds = match condition.condition {
                Some(Condition::Exists(exists)) => now.is_some() == exists,
                Some(Condition::UpdateRevision(revision)) => now == Some(revision),
                None => false,
            };
            if !holds {
                return Err(Status::failed_precondition(format!("{} has changed", condition.name)));
            }
        }
        if self.taken {
            return Err(Status::already_exists("operation 0: it is another's"));
        }
        let before = self.resources.clone();
        self.revision += 1;
        let mut resources = Vec::new();
        for operation in request.operations {
            match operation.op {
                Some(Op::Create(create)) => {
                    let resource = create.resource.unwrap();
                    if self.resources.contains_key(&resource.name) {
                        return Err(Status::already_exists(format!("{} already exists", resource.name)));
                    }
                    resources.push(self.put(resource));
                }
                Some(Op::Update(update)) => resources.push(self.update(update)?),
                Some(Op::Delete(delete)) => {
                    if self.resources.remove(&delete.name).is_none() && !delete.allow_missing {
                        return Err(Status::not_found(format!("{} does not exist", delete.name)));
                    }
                    self.resources.retain(|name, _| !is_below(name, &delete.name));
                }
                None => return Err(Status::invalid_argument("an operation that is none")),
            }
        }
        if self.resources == before {
            self.revision -= 1;
        }
        Ok(TransactResponse { revision: self.revision, resources, effect: None })
    }
}

#[tonic::async_trait]
impl NorthboundService for FakeController {
    async fn transact(
        &self,
        request: Request<TransactRequest>,
    ) -> Result<Response<TransactResponse>, Status> {
        let request = request.into_inner();
        self.change(|state| {
            state.transactions.push(request.clone());
            if let Some(mut resource) = state.disturbed.pop().map(|name| state.resources[&name].clone()) {
                state.revision += 1;
                resource.labels.insert("by".into(), state.revision.to_string());
                state.put(resource);
            }
            let mut after = state.clone();
            let validate_only = request.validate_only;
            let answer = after.apply(request)?;
            if !validate_only {
                *state = after;
            }
            Ok(Response::new(answer))
        })
    }

    async fn get_resource(
        &self,
        request: Request<GetResourceRequest>,
    ) -> Result<Response<GetResourceResponse>, Status> {
        let name = request.into_inner().name;
        self.change(|state| match state.resources.get(&name) {
            Some(resource) => {
                let answer =
                    GetResourceResponse { resource: Some(resource.clone()), revision: state.revision };
                Ok(Response::new(answer))
            }
            None => Err(Status::not_found(format!("{name} does not exist"))),
        })
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let request = request.into_inner();
        let asked = |resource: &&Resource| {
            kind_of(resource) as i32 == request.kind
                && is_below(&resource.name, &request.parent)
                && resource.name > request.page_token
                && request.labels.iter().all(|(key, value)| resource.labels.get(key) == Some(value))
        };
        self.change(|state| {
            let mut resources: Vec<Resource> = state.resources.values().filter(asked).cloned().collect();
            let more = resources.len() > PAGE_SIZE;
            resources.truncate(PAGE_SIZE);
            let last = resources.last().filter(|_| more).map(|resource| resource.name.clone());
            let next_page_token = last.unwrap_or_default();
            Ok(Response::new(ListResourcesResponse { resources, next_page_token, revision: state.revision }))
        })
    }

    async fn get_receipt(
        &self,
        request: Request<GetReceiptRequest>,
    ) -> Result<Response<GetReceiptResponse>, Status> {
        let revision = request.into_inner().revision;
        self.change(|state| {
            if revision > state.revision {
                return Err(Status::out_of_range(format!("revision {revision} is yet to come")));
            }
            let chassis = match state.receipts.len() {
                0 => Vec::new(),
                1 => state.receipts[0].clone(),
                _ => state.receipts.remove(0),
            };
            let complete = chassis.iter().all(|chassis| chassis.applied);
            Ok(Response::new(GetReceiptResponse { revision, complete, chassis }))
        })
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.change(|state| {
            let pending =
                PendingRevision { revision: 9, resources: vec!["switches/web".into()], n_resources: 1 };
            let behind = ChassisStatus {
                chassis: "chassis/h2".into(),
                applied_revision: 7,
                wanted_revision: 9,
                pending: vec![pending],
                ..Default::default()
            };
            let (revision, compiled_revision) = (state.revision, state.revision);
            Ok(Response::new(GetStatusResponse { revision, compiled_revision, chassis: vec![behind] }))
        })
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let ExplainRequest { from, port, .. } = request.into_inner();
        let step = ExplainedStep { object: "switches/db/acls/no-telnet".into(), ..Default::default() };
        let way = ExplainedWay { source: from, outcome: "arrives".into(), ..Default::default() };
        let refused = ExplainedWay { outcome: "dropped".into(), steps: vec![step], ..way.clone() };
        let can_talk = port != 23;
        let there = Some(if can_talk { way } else { refused });
        Ok(Response::new(ExplainResponse { revision: 1, can_talk, there, back: None }))
    }

    async fn trace_packet(
        &self,
        request: Request<TracePacketRequest>,
    ) -> Result<Response<TracePacketResponse>, Status> {
        let request = request.into_inner();
        let output = TracedOutput { port: "veth7".into(), logical_port: "db-1".into() };
        let far = TraceResponse { outputs: vec![output], verdict: "forwarded".into(), ..Default::default() };
        let note = TraceStep { note: request.port, ..Default::default() };
        let near = TraceResponse { steps: vec![note], verdict: "forwarded".into(), ..Default::default() };
        let host = |chassis: &str, from: &str| TracedHost {
            chassis: chassis.to_owned(),
            from: from.to_owned(),
            ..TracedHost::default()
        };
        let hosts = vec![
            TracedHost { trace: Some(near), ..host("chassis/h1", "") },
            TracedHost { trace: Some(far), ..host("chassis/h2", "chassis/h1") },
            TracedHost { error: "it is not connected".into(), ..host("chassis/h3", "chassis/h1") },
        ];
        Ok(Response::new(TracePacketResponse { hosts, n_omitted: 0 }))
    }

    type WatchStream = Iter<std::vec::IntoIter<Result<WatchResponse, Status>>>;

    /// Everything present, a word that this was all, and the end.
    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let kinds = request.into_inner().kinds;
        self.change(|state| {
            let asked =
                |resource: &&Resource| kinds.is_empty() || kinds.contains(&(kind_of(resource) as i32));
            let put = |resource: &Resource| WatchResponse {
                revision: state.revision,
                events: vec![Event { event: Some(event::Event::Put(resource.clone())) }],
            };
            let mut answers: Vec<_> = state.resources.values().filter(asked).map(put).map(Ok).collect();
            answers.push(Ok(WatchResponse { revision: state.revision, events: Vec::new() }));
            Ok(Response::new(tokio_stream::iter(answers)))
        })
    }

    async fn create_resource(
        &self,
        _: Request<CreateResourceRequest>,
    ) -> Result<Response<CreateResourceResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn update_resource(
        &self,
        _: Request<UpdateResourceRequest>,
    ) -> Result<Response<UpdateResourceResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn delete_resource(
        &self,
        _: Request<DeleteResourceRequest>,
    ) -> Result<Response<DeleteResourceResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }
}
