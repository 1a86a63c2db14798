//! Container shims' questions, in the words of the protocol.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ferroflow_proto::host::{self as pb, endpoint_service_server::EndpointService};
use tonic::{Request, Response, Status};

use crate::endpoint::{AttachWanted, EndpointKey, Endpoints, Prefix, Record, Route, TextError};

/// Most addresses and routes of one endpoint.
const MAX_ITEMS: usize = 64;

/// The service of endpoints.
pub struct EndpointServer {
    endpoints: Arc<Endpoints>,
}

impl EndpointServer {
    /// Serves these.
    pub fn new(endpoints: Arc<Endpoints>) -> Self {
        Self { endpoints }
    }
}

#[tonic::async_trait]
impl EndpointService for EndpointServer {
    async fn attach(
        &self,
        request: Request<pb::AttachRequest>,
    ) -> Result<Response<pb::AttachResponse>, Status> {
        let wanted = attach_wanted(request.into_inner())?;
        let endpoints = Arc::clone(&self.endpoints);
        // On a task of its own: a shim that is killed does not stop it half-way.
        let attached = tokio::spawn(async move { endpoints.attach(wanted).await });
        let record = attached.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(pb::AttachResponse { endpoint: Some(endpoint(&record)) }))
    }

    async fn detach(
        &self,
        request: Request<pb::DetachRequest>,
    ) -> Result<Response<pb::DetachResponse>, Status> {
        let key = key(request.into_inner().key)?;
        let endpoints = Arc::clone(&self.endpoints);
        let detached = tokio::spawn(async move { endpoints.detach(&key).await });
        detached.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(pb::DetachResponse {}))
    }

    async fn check_endpoint(
        &self,
        request: Request<pb::CheckEndpointRequest>,
    ) -> Result<Response<pb::CheckEndpointResponse>, Status> {
        let pb::CheckEndpointRequest { key: wanted, netns } = request.into_inner();
        self.endpoints.check(&key(wanted)?, &netns).await?;
        Ok(Response::new(pb::CheckEndpointResponse {}))
    }

    async fn keep_endpoints(
        &self,
        request: Request<pb::KeepEndpointsRequest>,
    ) -> Result<Response<pb::KeepEndpointsResponse>, Status> {
        let pb::KeepEndpointsRequest { network, keep } = request.into_inner();
        let keep: BTreeSet<_> = keep.into_iter().map(|key| (key.container, key.interface)).collect();
        let detached = self.endpoints.keep(&network, &keep).await?;
        let detached = detached.iter().map(pb_key).collect();
        Ok(Response::new(pb::KeepEndpointsResponse { detached }))
    }

    async fn list_endpoints(
        &self,
        _request: Request<pb::ListEndpointsRequest>,
    ) -> Result<Response<pb::ListEndpointsResponse>, Status> {
        let endpoints = self.endpoints.list().iter().map(endpoint).collect();
        Ok(Response::new(pb::ListEndpointsResponse { endpoints }))
    }

    async fn get_readiness(
        &self,
        request: Request<pb::GetReadinessRequest>,
    ) -> Result<Response<pb::GetReadinessResponse>, Status> {
        let trouble = self.endpoints.trouble(&request.into_inner().switch).await.unwrap_or_default();
        Ok(Response::new(pb::GetReadinessResponse { trouble }))
    }
}

fn attach_wanted(request: pb::AttachRequest) -> Result<AttachWanted, Status> {
    let pb::AttachRequest { key: wanted, netns, switch, addresses, mac, mtu, routes, labels } = request;
    if addresses.len() > MAX_ITEMS || routes.len() > MAX_ITEMS {
        return Err(Status::invalid_argument(format!("at most {MAX_ITEMS} addresses and routes")));
    }
    let addresses =
        addresses.iter().map(|text| text.parse()).collect::<Result<Vec<Prefix>, _>>().map_err(invalid)?;
    let mac = if mac.is_empty() {
        None
    } else {
        Some(mac.parse().map_err(|error| Status::invalid_argument(format!("mac: {error}")))?)
    };
    Ok(AttachWanted {
        key: key(wanted)?,
        netns,
        switch,
        addresses,
        mac,
        mtu: (mtu != 0).then_some(mtu),
        routes: routes.into_iter().map(route).collect::<Result<_, _>>()?,
        labels,
    })
}

fn key(key: Option<pb::EndpointKey>) -> Result<EndpointKey, Status> {
    let pb::EndpointKey { network, container, interface } =
        key.ok_or_else(|| Status::invalid_argument("key: say which endpoint"))?;
    Ok(EndpointKey { network, container, interface })
}

fn route(route: pb::EndpointRoute) -> Result<Route, Status> {
    let destination = route.destination.parse().map_err(invalid)?;
    let gateway: Option<IpAddr> = match route.gateway.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| {
            Status::invalid_argument(format!("gateway `{}`: write an IP address", text.escape_debug()))
        })?),
    };
    Ok(Route { destination, gateway })
}

fn endpoint(record: &Record) -> pb::Endpoint {
    let route = |route: &Route| pb::EndpointRoute {
        destination: route.destination.to_string(),
        gateway: route.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
    };
    pb::Endpoint {
        key: Some(pb_key(&record.key)),
        netns: record.netns.clone(),
        switch: record.switch.clone(),
        port: record.port_name(),
        host_interface: record.host_interface.clone(),
        addresses: record.addresses.iter().map(ToString::to_string).collect(),
        mac: record.mac.to_string(),
        mtu: record.mtu,
        routes: record.routes.iter().map(route).collect(),
        host_mac: record.host_mac.to_string(),
    }
}

fn pb_key(key: &EndpointKey) -> pb::EndpointKey {
    let EndpointKey { network, container, interface } = key.clone();
    pb::EndpointKey { network, container, interface }
}

fn invalid(error: TextError) -> Status {
    Status::invalid_argument(error.to_string())
}
