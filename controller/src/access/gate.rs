//! The gate before all services: finds out who calls, and turns away who may not.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use credentials::Peer;
use futures::future::Either;
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

use super::{Access, Author, Caller, needs};

/// The gate.
#[derive(Clone)]
pub struct Gate {
    access: Arc<Access>,
}

impl Gate {
    /// One that puts down whom it has turned away from writing.
    pub const fn new(access: Arc<Access>) -> Self {
        Self { access }
    }

    /// Who calls, when he may.
    fn admit<T>(&self, request: &Request<T>) -> Result<Arc<Caller>, Status> {
        let peer = request.extensions().get::<Peer>();
        let caller =
            peer.map(Caller::from).ok_or_else(|| Status::unauthenticated("who calls is not known"))?;
        let path = request.uri().path();
        match needs::of(path) {
            Some(need) if caller.who.has(need) => Ok(Arc::new(caller)),
            need => {
                let method = path.rsplit_once('/').map_or(path, |(_, method)| method);
                let message = format!(
                    "{} may not {}; it takes a certificate of another role, see `vswitchctl pki issue`",
                    caller.subject,
                    method.chars().take(64).collect::<String>().escape_debug()
                );
                if need == Some(needs::Need::Write) {
                    let Caller { subject, address, .. } = caller;
                    let author = Author { who: subject, address, method: "turned away" };
                    self.access.audit.refused(&author, &[], &message);
                }
                Err(Status::permission_denied(message))
            }
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, service: S) -> Gated<S> {
        Gated { gate: self.clone(), service }
    }
}

/// Services behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    service: S,
}

impl<S, T> Service<Request<T>> for Gated<S>
where
    S: Service<Request<T>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<T>) -> Self::Future {
        match self.gate.admit(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Right(self.service.call(request))
            }
            Err(status) => Either::Left(ready(Ok(status.into_http()))),
        }
    }
}
