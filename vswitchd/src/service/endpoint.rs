//! Container shims' questions, in the words of the protocol.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ferroflow_proto::host::{self as pb, endpoint_service_server::EndpointService};
use ovn_northd_lite::dhcp::domain;
use tonic::{Request, Response, Status};

use crate::endpoint::{
    AttachWanted, EndpointKey, Endpoints, Limit, Limits, Prefix, Published, Ranges, Record, Route, TextError,
};

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

    async fn make_switch(
        &self,
        request: Request<pb::MakeSwitchRequest>,
    ) -> Result<Response<pb::MakeSwitchResponse>, Status> {
        let pb::MakeSwitchRequest { switch, labels } = request.into_inner();
        self.endpoints.make_switch(switch_name(switch)?, labels).await?;
        Ok(Response::new(pb::MakeSwitchResponse {}))
    }

    async fn remove_switch(
        &self,
        request: Request<pb::RemoveSwitchRequest>,
    ) -> Result<Response<pb::RemoveSwitchResponse>, Status> {
        self.endpoints.remove_switch(&switch_name(request.into_inner().switch)?).await?;
        Ok(Response::new(pb::RemoveSwitchResponse {}))
    }

    async fn release_addresses(
        &self,
        _request: Request<pb::ReleaseAddressesRequest>,
    ) -> Result<Response<pb::ReleaseAddressesResponse>, Status> {
        let released = self.endpoints.release_addresses().await?;
        let addresses = released.iter().map(ToString::to_string).collect();
        Ok(Response::new(pb::ReleaseAddressesResponse { addresses }))
    }
}

fn attach_wanted(request: pb::AttachRequest) -> Result<AttachWanted, Status> {
    let pb::AttachRequest {
        key: wanted,
        netns,
        switch,
        addresses,
        mac,
        mtu,
        routes,
        labels,
        host_addresses,
        published_ports,
        receive_limit,
        send_limit,
        lease,
        host_gateway,
        names,
    } = request;
    let lens = [addresses.len(), routes.len(), host_addresses.len(), published_ports.len(), names.len()];
    if lens.into_iter().any(|len| len > MAX_ITEMS) {
        return Err(Status::invalid_argument(format!(
            "at most {MAX_ITEMS} addresses, routes, ports and names"
        )));
    }
    let prefixes = |texts: &[String]| {
        texts.iter().map(|text| text.parse()).collect::<Result<Vec<Prefix>, _>>().map_err(invalid)
    };
    let mac = if mac.is_empty() {
        None
    } else {
        Some(mac.parse().map_err(|error| Status::invalid_argument(format!("mac: {error}")))?)
    };
    Ok(AttachWanted {
        key: key(wanted)?,
        netns,
        switch,
        addresses: prefixes(&addresses)?,
        mac,
        mtu: (mtu != 0).then_some(mtu),
        routes: routes.into_iter().map(route).collect::<Result<_, _>>()?,
        labels,
        host_addresses: prefixes(&host_addresses)?,
        published: published_ports.into_iter().map(published).collect::<Result<_, _>>()?,
        limits: Limits {
            receive: receive_limit.map(limit).transpose()?,
            send: send_limit.map(limit).transpose()?,
        },
        lease: lease.map(|lease| Ranges::read(&lease)).transpose().map_err(Status::invalid_argument)?,
        is_gateway_leased: host_gateway,
        names: names.iter().map(|text| name(text)).collect::<Result<_, _>>()?,
    })
}

/// A name of a container, as names are kept.
fn name(text: &str) -> Result<String, Status> {
    match domain(text) {
        Some(_) => Ok(text.trim_end_matches('.').to_ascii_lowercase()),
        None => Err(Status::invalid_argument(format!(
            "name `{}`: its parts have 1 to 63 letters, digits, - or _",
            text.escape_debug()
        ))),
    }
}

/// The name of a switch and of nothing else, so that nothing else is removed.
fn switch_name(name: String) -> Result<String, Status> {
    match name.strip_prefix("switches/") {
        Some(id) if !id.is_empty() && !id.contains('/') => Ok(name),
        _ => Err(Status::invalid_argument(format!("switch `{}`: write switches/ID", name.escape_debug()))),
    }
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

fn limit(limit: pb::RateLimit) -> Result<Limit, Status> {
    Limit::new(limit.rate_bps, limit.burst_bits).map_err(Status::invalid_argument)
}

fn published(port: pb::PublishedPort) -> Result<Published, Status> {
    let number = |what: &str, number: u32| match u16::try_from(number) {
        Ok(number) if number != 0 => Ok(number),
        _ => Err(Status::invalid_argument(format!("{what} {number}: write 1 to 65535"))),
    };
    let host_ip = match port.host_ip.as_str() {
        "" => None,
        text => {
            let ip: IpAddr = text.parse().map_err(|_| {
                Status::invalid_argument(format!("host IP `{}`: write an IP address", text.escape_debug()))
            })?;
            // `0.0.0.0` and `::` are all of them, too.
            Some(ip).filter(|ip| !ip.is_unspecified())
        }
    };
    Ok(Published {
        transport: port.protocol.parse().map_err(Status::invalid_argument)?,
        host_ip,
        host_port: number("host port", port.host_port)?,
        port: number("port", port.port)?,
    })
}

fn endpoint(record: &Record) -> pb::Endpoint {
    let published = |port: &Published| pb::PublishedPort {
        protocol: port.transport.text().to_owned(),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        host_port: port.host_port.into(),
        port: port.port.into(),
    };
    let route = |route: &Route| pb::EndpointRoute {
        destination: route.destination.to_string(),
        gateway: text_of(&route.gateway),
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
        gateways: record.lease.iter().flat_map(|lease| &lease.gateways).map(text_of).collect(),
        published_ports: record.published.iter().map(published).collect(),
        loose_interface: record.loose_interface().unwrap_or_default(),
    }
}

fn text_of(address: &Option<IpAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

fn pb_key(key: &EndpointKey) -> pb::EndpointKey {
    let EndpointKey { network, container, interface } = key.clone();
    pb::EndpointKey { network, container, interface }
}

fn invalid(error: TextError) -> Status {
    Status::invalid_argument(error.to_string())
}
