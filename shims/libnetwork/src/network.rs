//! Networks and endpoints. A network is a logical switch, named by the user or made for it;
//! an endpoint is a port of it, with a pair of interfaces whose one end Docker moves into the
//! container.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use address_pool::Network;
use ferroflow_proto::host::{AttachRequest, EndpointKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vswitch_shim::{Daemon, departed};

use crate::{
    driver::{Driver, now},
    options::{NetworkOptions, WayOut, address_of},
    protocol::{CreateEndpoint, CreateNetwork, EndpointCall, Interface, NetworkCall},
    refusal::Refusal,
};

/// What is to be published: Docker's name for it.
const PORT_MAP: &str = "com.docker.network.portmap";
/// How soon an endpoint that was made is joined by a container, at the latest, and one that
/// was left is deleted.
const LOOSE_LIMIT: Duration = Duration::from_secs(60);
/// How much of Docker's ids tells people enough.
const SHOWN: usize = 12;
/// What Docker puts in front of the number of an interface.
const PREFIX: &str = "eth";

/// A network, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRecord {
    /// Its switch, `switches/{id}`.
    switch: String,
    /// The switch was made for it, and goes with it.
    is_made: bool,
    /// MTU; 0: what tunnels carry.
    mtu: u32,
    way_out: WayOut,
    gateways: Vec<IpAddr>,
    routes: Vec<Network>,
    /// Docker has deleted it; what is left of it is being taken away.
    is_leaving: bool,
}

/// An endpoint, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointRecord {
    network: String,
    /// The end that Docker is to move.
    interface: String,
    pub(crate) addresses: Vec<IpAddr>,
    mac: String,
    /// Its port, `switches/{id}/ports/{id}`.
    port: String,
    /// When it came to be as it is.
    since: Duration,
    /// It is in a container.
    pub(crate) is_joined: bool,
}

impl NetworkRecord {
    /// One that only has a switch, which was made for it.
    pub(crate) fn of_made(switch: String, is_leaving: bool) -> Self {
        let (gateways, routes) = (Vec::new(), Vec::new());
        Self { switch, is_made: true, mtu: 0, way_out: WayOut::Host, gateways, routes, is_leaving }
    }
}

impl Driver {
    /// Makes a network.
    pub(crate) async fn create_network(&self, call: CreateNetwork) -> Result<(), Refusal> {
        const WHAT: &str = "the network cannot be made";
        let options = NetworkOptions::read(&call.options)?;
        let subnets = || call.ipv4.iter().chain(&call.ipv6);
        let gateways: Vec<_> = subnets().filter_map(|subnet| address_of(&subnet.gateway)).collect();
        if !options.routes.is_empty() && gateways.is_empty() {
            return Err(Refusal::new(
                "-o routes: they lead by the gateway, and there is none; use --gateway",
            ));
        }
        let mut daemon = self.daemon(WHAT).await?;
        let record = NetworkRecord {
            is_made: options.switch.is_none(),
            switch: options.switch.unwrap_or_else(|| made_switch(&call.network)),
            mtu: options.mtu,
            way_out: options.way_out,
            gateways,
            routes: options.routes,
            is_leaving: false,
        };
        // Before it is made: what is known is taken away again.
        self.networks.borrow_mut().put(&call.network, record.clone())?;
        let made = if record.is_made {
            let labels = HashMap::from([("docker-network".to_owned(), call.network.clone())]);
            daemon.make_switch(&record.switch, labels).await
        } else {
            daemon.trouble(&record.switch).await.and_then(|trouble| match trouble.as_str() {
                "" => Ok(()),
                trouble => Err(tonic::Status::failed_precondition(trouble)),
            })
        };
        if let Err(status) = made {
            self.networks.borrow_mut().change(&call.network, |record| record.is_leaving = true)?;
            return Err(Refusal::daemon(WHAT, &status));
        }
        Ok(())
    }

    /// Forgets a network, and takes away what is left of it, now or later; there may be none.
    pub(crate) async fn delete_network(&self, call: NetworkCall) -> Result<(), Refusal> {
        let known = self.networks.borrow_mut().change(&call.network, |record| record.is_leaving = true)?;
        if known.is_some() {
            self.finish_network(&call.network).await?;
        }
        Ok(())
    }

    /// Does what was left to do: by calls that were cut short, and by a Docker that was.
    pub async fn tend(&self) {
        for (network, endpoint) in self.forgotten() {
            tracing::info!(endpoint, "Docker has forgotten it; taken away");
            if let Err(refusal) = self.remove_endpoint(&network, &endpoint).await {
                tracing::error!(endpoint, %refusal, "cannot be taken away");
            }
        }
        let leaving: Vec<_> = {
            let networks = self.networks.borrow();
            let leaving = networks.iter().filter(|(_, record)| record.is_leaving);
            leaving.map(|(id, _)| id.to_owned()).collect()
        };
        for id in leaving {
            if let Err(refusal) = self.finish_network(&id).await {
                tracing::error!(network = id, %refusal, "cannot be forgotten");
            }
        }
    }

    /// Takes a network away that Docker has deleted. When the daemon or the controller does
    /// not answer, that is done later.
    async fn finish_network(&self, id: &str) -> Result<(), Refusal> {
        let record = self.networks.borrow().get(id).cloned();
        let Some(record) = record else { return Ok(()) };
        let taken = async {
            let mut daemon = Daemon::connect(&self.vswitchd).await?;
            daemon.keep(id, Vec::new()).await?;
            if record.is_made { daemon.remove_switch(&record.switch).await } else { Ok(()) }
        };
        if let Err(status) = taken.await {
            tracing::debug!(network = id, %status, "taken away later");
            return Ok(());
        }
        let stale: Vec<_> = {
            let endpoints = self.endpoints.borrow();
            let of_it = endpoints.iter().filter(|(_, endpoint)| endpoint.network == id);
            of_it.map(|(id, _)| id.to_owned()).collect()
        };
        for endpoint in stale {
            self.endpoints.borrow_mut().remove(&endpoint)?;
        }
        self.networks.borrow_mut().remove(id)?;
        Ok(())
    }

    /// Makes an endpoint; packets pass as soon as its container has it.
    pub(crate) async fn create_endpoint(&self, call: CreateEndpoint) -> Result<Value, Refusal> {
        const WHAT: &str = "the container cannot be attached";
        let network = self.network(&call.network)?;
        let Interface { address, address_ipv6, mac } = call.interface;
        let addresses: Vec<_> = [address, address_ipv6].into_iter().filter(|text| !text.is_empty()).collect();
        let labels = HashMap::from([("runtime".to_owned(), "docker".to_owned())]);
        let wanted = AttachRequest {
            key: Some(key(&call.network, &call.endpoint)),
            switch: network.switch,
            addresses: addresses.clone(),
            mac: mac.clone(),
            mtu: network.mtu,
            labels,
            ..AttachRequest::default()
        };
        let mut daemon = self.daemon(WHAT).await?;
        let coming = EndpointRecord {
            network: call.network.clone(),
            interface: String::new(),
            addresses: addresses.iter().filter_map(|text| address_of(text)).collect(),
            mac: String::new(),
            port: String::new(),
            since: now(),
            is_joined: false,
        };
        self.replace_lost(&call.network, &call.endpoint, &coming.addresses).await?;
        // Before it is made: what is known is taken away again.
        self.endpoints.borrow_mut().put(&call.endpoint, coming.clone())?;
        let attached = match daemon.attach(wanted).await {
            Ok(attached) => attached,
            Err(status) => {
                // Docker asks for no end of what has not begun.
                self.remove_endpoint(&call.network, &call.endpoint).await?;
                return Err(Refusal::daemon(WHAT, &status));
            }
        };
        let record = EndpointRecord {
            interface: attached.loose_interface,
            mac: attached.mac.clone(),
            port: attached.port,
            ..coming
        };
        self.endpoints.borrow_mut().put(&call.endpoint, record)?;
        // What the question has said, the answer must not.
        let chosen = if mac.is_empty() { json!({ "MacAddress": attached.mac }) } else { json!({}) };
        Ok(json!({ "Interface": chosen }))
    }

    /// Takes away what has an address that Docker gives to another now: what it asked for
    /// when an answer got lost.
    pub(crate) async fn replace_lost(
        &self,
        network: &str,
        by: &str,
        addresses: &[IpAddr],
    ) -> Result<(), Refusal> {
        let lost: Vec<_> = {
            let endpoints = self.endpoints.borrow();
            let is_lost = |id: &str, record: &EndpointRecord| {
                let has_one = record.addresses.iter().any(|address| addresses.contains(address));
                id != by && record.network == network && !record.is_joined && has_one
            };
            let lost = endpoints.iter().filter(|(id, record)| is_lost(id, record));
            lost.map(|(id, _)| id.to_owned()).collect()
        };
        for endpoint in lost {
            self.remove_endpoint(network, &endpoint).await?;
        }
        Ok(())
    }

    /// What `docker inspect` is to know.
    pub(crate) fn endpoint_info(&self, call: &EndpointCall) -> Value {
        match self.endpoints.borrow().get(&call.endpoint) {
            Some(EndpointRecord { port, mac, .. }) => json!({ "Value": { "port": port, "mac": mac } }),
            None => json!({ "Value": {} }),
        }
    }

    /// Endpoints that are in no container, and for too long.
    fn forgotten(&self) -> Vec<(String, String)> {
        let now = now();
        let endpoints = self.endpoints.borrow();
        let is_forgotten =
            |record: &EndpointRecord| !record.is_joined && now.saturating_sub(record.since) > LOOSE_LIMIT;
        let forgotten = endpoints.iter().filter(|(_, record)| is_forgotten(record));
        forgotten.map(|(id, record)| (record.network.clone(), id.to_owned())).collect()
    }

    /// Takes an endpoint away; there may be none. Without the daemon that is left for it.
    pub(crate) async fn delete_endpoint(&self, call: EndpointCall) -> Result<(), Refusal> {
        self.remove_endpoint(&call.network, &call.endpoint).await
    }

    async fn remove_endpoint(&self, network: &str, endpoint: &str) -> Result<(), Refusal> {
        let key = key(network, endpoint);
        let ended = departed::end(&self.vswitchd, &key).await;
        ended.map_err(|error| Refusal::new(format!("the container cannot be detached: {error}")))?;
        self.endpoints.borrow_mut().remove(endpoint)?;
        Ok(())
    }

    /// Says which interface the container gets, and its routes.
    pub(crate) fn join(&self, call: &EndpointCall) -> Result<Value, Refusal> {
        let network = self.network(&call.network)?;
        let joined = self.endpoints.borrow_mut().change(&call.endpoint, |endpoint| {
            endpoint.is_joined = !endpoint.interface.is_empty();
            endpoint.interface.clone()
        })?;
        // One without an interface was never whole.
        let joined = joined.filter(|interface| !interface.is_empty());
        let interface =
            joined.ok_or_else(|| Refusal::new(format!("there is no endpoint {}", shown(&call.endpoint))))?;
        let gateway = |is_v4: bool| {
            let found = network.gateways.iter().find(|gateway| gateway.is_ipv4() == is_v4);
            found.map(ToString::to_string).unwrap_or_default()
        };
        let by_router =
            |is_v4| if network.way_out == WayOut::Router { gateway(is_v4) } else { String::new() };
        let routes: Vec<_> = network
            .routes
            .iter()
            .map(|route| {
                let next_hop = gateway(route.address().is_ipv4());
                json!({ "Destination": route.to_string(), "RouteType": 0, "NextHop": next_hop })
            })
            .collect();
        Ok(json!({
            "InterfaceName": { "SrcName": interface, "DstPrefix": PREFIX },
            "Gateway": by_router(true),
            "GatewayIPv6": by_router(false),
            "StaticRoutes": routes,
            // Docker's bridge is the way out only where this network has none of its own.
            "DisableGatewayService": network.way_out != WayOut::Host,
        }))
    }

    /// The container is about to end, and its endpoint with it.
    pub(crate) fn leave(&self, call: &EndpointCall) -> Result<(), Refusal> {
        self.endpoints.borrow_mut().change(&call.endpoint, |endpoint| {
            (endpoint.is_joined, endpoint.since) = (false, now());
        })?;
        Ok(())
    }

    /// Ports of the host for a container: Docker itself does that on its gateway bridge, so
    /// who is asked here has no way from the host.
    pub(crate) fn publish(&self, call: &EndpointCall) -> Result<(), Refusal> {
        let is_asked =
            call.options.get(PORT_MAP).and_then(Value::as_array).is_some_and(|map| !map.is_empty());
        if !is_asked {
            return Ok(());
        }
        let way_out = self.network(&call.network)?.way_out;
        let hint = match way_out {
            WayOut::None => "an internal network has no way in either",
            WayOut::Router | WayOut::Host => {
                "packets leave this network by its router: publish there, by a load balancer or NAT, or make the network with -o gateway=host"
            }
        };
        Err(Refusal::new(format!("ports cannot be published (-p): {hint}")))
    }

    fn network(&self, id: &str) -> Result<NetworkRecord, Refusal> {
        let networks = self.networks.borrow();
        let known = networks.get(id).filter(|record| !record.is_leaving);
        known.cloned().ok_or_else(|| {
            Refusal::new(format!(
                "network {} is not known to this driver: it was made with another --state-dir; remove it and make it again",
                shown(id)
            ))
        })
    }
}

/// The switch that is made for a network.
pub(crate) fn made_switch(network: &str) -> String {
    format!("switches/docker-{}", shown(network))
}

fn shown(id: &str) -> String {
    id.chars().take(SHOWN).filter(char::is_ascii_alphanumeric).collect()
}

fn key(network: &str, endpoint: &str) -> EndpointKey {
    EndpointKey { network: network.to_owned(), container: endpoint.to_owned(), interface: PREFIX.to_owned() }
}
