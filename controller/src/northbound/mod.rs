//! The northbound gRPC service: translates between messages and the controller.
//!
//! `transact.rs` writes, `list.rs` reads pages, `watch.rs` streams, `receipt.rs` tells how
//! far a change has got, `progress.rs` how far hosts are, `explain.rs` tells what the network does, `trace.rs` what hosts do, `effect.rs` what a change would do,
//! `status.rs` turns refusals into gRPC codes.

mod effect;
mod explain;
mod list;
mod progress;
mod receipt;
mod status;
mod trace;
mod transact;
mod watch;

use std::sync::Arc;

use ferroflow_proto::northbound::{self as pb, northbound_service_server::NorthboundService};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::{
    access::{self, Caller, Who, needs::Need},
    controller::{Controller, Written},
    resource::Name,
    state::{Reason, Record, Refusal, Resulting},
    store::Revision,
};

/// The service.
#[derive(Clone)]
pub struct Northbound {
    controller: Arc<Controller>,
}

impl Northbound {
    /// The service of a controller.
    pub fn new(controller: Arc<Controller>) -> Self {
        Self { controller }
    }

    /// Makes a transaction on the calling thread, which may block for other writes and for the store.
    ///
    /// # Errors
    /// As `Transact`.
    pub fn transact_now(
        &self,
        caller: &Caller,
        mut request: pb::TransactRequest,
    ) -> Result<pb::TransactResponse, Status> {
        let conversations = std::mem::take(&mut request.conversations);
        for conversation in &conversations {
            explain::check(&self.controller, caller, conversation)?;
        }
        let asked = effect::questions(&conversations)?;
        let written = transact::transact(&self.controller, (caller, "Transact"), request)?;
        let resources = written.results.iter().map(|result| self.resulting(result)).collect();
        let mut effect = effect::effect(&self.controller, &written, asked);
        if let Some(effect) = effect.as_mut().filter(|_| !caller.who.has(Need::Inspect)) {
            effect.chassis.clear();
        }
        Ok(pb::TransactResponse { revision: written.revision.get(), resources, effect })
    }

    /// How far a revision has got by now.
    pub fn receipt(&self, revision: Revision) -> pb::GetReceiptResponse {
        receipt::receipt(&self.controller, revision)
    }

    /// Writes on a thread that may block; what was begun is finished even when the client
    /// goes away.
    async fn write(
        &self,
        (caller, method): (Arc<Caller>, &'static str),
        request: pb::TransactRequest,
    ) -> Result<Written, Refusal> {
        let controller = Arc::clone(&self.controller);
        tokio::task::spawn_blocking(move || transact::transact(&controller, (&caller, method), request))
            .await
            .unwrap_or_else(|_| Err(Reason::Stopping.into()))
    }

    /// A transaction of one operation; errors do not count operations.
    async fn write_one(
        &self,
        by: (Arc<Caller>, &'static str),
        op: pb::operation::Op,
        validate_only: bool,
    ) -> Result<(Option<pb::Resource>, u64), Status> {
        let operations = vec![pb::Operation { op: Some(op) }];
        let request = pb::TransactRequest { operations, validate_only, ..Default::default() };
        let written =
            self.write(by, request).await.map_err(|refusal| Refusal { operation: None, ..refusal })?;
        let resource = written.results.first().map(|result| self.resulting(result));
        Ok((resource, written.revision.get()))
    }

    fn resulting(&self, result: &Resulting) -> pb::Resource {
        let gone = || pb::Resource { name: result.name.to_string(), ..Default::default() };
        result.record.as_ref().map_or_else(gone, |record| self.to_wire(record))
    }

    fn to_wire(&self, record: &Record) -> pb::Resource {
        record.to_wire(|chassis| self.controller.chassis_status(chassis))
    }
}

#[tonic::async_trait]
impl NorthboundService for Northbound {
    async fn transact(
        &self,
        request: Request<pb::TransactRequest>,
    ) -> Result<Response<pb::TransactResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        let (northbound, request) = (self.clone(), request.into_inner());
        let done = tokio::task::spawn_blocking(move || northbound.transact_now(&caller, request)).await;
        done.unwrap_or_else(|_| Err(Refusal::from(Reason::Stopping).into())).map(Response::new)
    }

    async fn get_resource(
        &self,
        request: Request<pb::GetResourceRequest>,
    ) -> Result<Response<pb::GetResourceResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        let name =
            Name::parse(&request.into_inner().name).map_err(|error| Refusal::from(Reason::from(error)))?;
        let (record, revision) = {
            let state = self.controller.state();
            let record = state.get(&name).filter(|_| access::sees(&caller.who, &state, &name));
            (record.cloned(), state.revision().get())
        };
        let record = record.ok_or_else(|| Refusal::from(Reason::NotFound(name)))?;
        Ok(Response::new(pb::GetResourceResponse { resource: Some(self.to_wire(&record)), revision }))
    }

    async fn list_resources(
        &self,
        request: Request<pb::ListResourcesRequest>,
    ) -> Result<Response<pb::ListResourcesResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        list::list(self, &caller, request.into_inner()).map(Response::new)
    }

    async fn create_resource(
        &self,
        request: Request<pb::CreateResourceRequest>,
    ) -> Result<Response<pb::CreateResourceResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        let pb::CreateResourceRequest { resource, validate_only } = request.into_inner();
        let op = pb::operation::Op::Create(pb::Create { resource });
        let (resource, revision) = self.write_one((caller, "CreateResource"), op, validate_only).await?;
        Ok(Response::new(pb::CreateResourceResponse { resource, revision }))
    }

    async fn update_resource(
        &self,
        request: Request<pb::UpdateResourceRequest>,
    ) -> Result<Response<pb::UpdateResourceResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        let pb::UpdateResourceRequest { resource, update_mask, allow_missing, validate_only } =
            request.into_inner();
        let op = pb::operation::Op::Update(pb::Update { resource, update_mask, allow_missing });
        let (resource, revision) = self.write_one((caller, "UpdateResource"), op, validate_only).await?;
        Ok(Response::new(pb::UpdateResourceResponse { resource, revision }))
    }

    async fn delete_resource(
        &self,
        request: Request<pb::DeleteResourceRequest>,
    ) -> Result<Response<pb::DeleteResourceResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        let pb::DeleteResourceRequest { name, allow_missing, validate_only } = request.into_inner();
        let op = pb::operation::Op::Delete(pb::Delete { name, allow_missing });
        let (_, revision) = self.write_one((caller, "DeleteResource"), op, validate_only).await?;
        Ok(Response::new(pb::DeleteResourceResponse { revision }))
    }

    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        watch::watch(self, caller, request.into_inner()).map(Response::new)
    }

    async fn get_receipt(
        &self,
        request: Request<pb::GetReceiptRequest>,
    ) -> Result<Response<pb::GetReceiptResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        let mut receipt = receipt::get(&self.controller, request).await?;
        if matches!(caller.who, Who::Tenant(_)) {
            receipt.chassis.clear();
        }
        Ok(Response::new(receipt))
    }

    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        progress::get(&self.controller, request.get_ref()).map(Response::new)
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let caller = Caller::of(request.extensions())?;
        explain::check(&self.controller, &caller, request.get_ref())?;
        explain::explain(&self.controller, request.into_inner()).await.map(Response::new)
    }

    async fn trace_packet(
        &self,
        request: Request<pb::TracePacketRequest>,
    ) -> Result<Response<pb::TracePacketResponse>, Status> {
        trace::trace(&self.controller, request.into_inner()).await.map(Response::new)
    }
}
