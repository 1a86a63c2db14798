//! The chassis gRPC service: hosts say what is on them and how far they are; the
//! controller sends each what it needs.
//!
//! `registry.rs` knows who is connected, `bindings.rs` decides which chassis a port is on,
//! `health.rs` takes note of which backends serve, `neighbours.rs` of whom hosts have heard
//! (`moderation.rs`: how often that is written),
//! `holders.rs` of who has the addresses of virtual ports, `sessions.rs` of which next hops of
//! routers live, `dialogue.rs` is what is said on one stream, `session.rs` the stream, `encode.rs` turns views into messages.
//! `assist.rs` asks chassis what somebody else wants to know.

mod assist;
mod bindings;
mod dialogue;
mod encode;
mod health;
mod holders;
mod moderation;
mod neighbours;
mod registry;
mod session;
mod sessions;

use std::sync::Arc;

use ferroflow_proto::chassis::{self as pb, chassis_service_server::ChassisService};
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::bindings::settle_claims;
pub use self::{
    assist::{AskError, Assistants},
    dialogue::Dialogue,
    encode::delta as encode_change,
    moderation::Moderation,
    registry::{Elsewhere, Registry, Turn},
};
use crate::{access::Caller, controller::Controller};

/// The service.
#[derive(Clone)]
pub struct Chassis {
    controller: Arc<Controller>,
}

impl Chassis {
    /// The service of a controller.
    pub fn new(controller: Arc<Controller>) -> Self {
        Self { controller }
    }
}

#[tonic::async_trait]
impl ChassisService for Chassis {
    type SyncStream = BoxStream<'static, Result<pb::SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<pb::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        session::start(Arc::clone(&self.controller), caller, request.into_inner()).await.map(Response::new)
    }

    type AssistStream = BoxStream<'static, Result<pb::AssistResponse, Status>>;

    async fn assist(
        &self,
        request: Request<Streaming<pb::AssistRequest>>,
    ) -> Result<Response<Self::AssistStream>, Status> {
        let caller = Caller::of(request.extensions())?;
        assist::start(Arc::clone(&self.controller), &caller, request.into_inner()).await.map(Response::new)
    }
}
