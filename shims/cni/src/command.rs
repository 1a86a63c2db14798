//! What each verb does, in order.

use std::{collections::HashMap, ffi::OsString, path::Path};

use ferroflow_proto::host::{AttachRequest, Endpoint, EndpointKey, EndpointRoute};
use serde_json::json;
use tonic::Status;
use vswitch_shim::{
    Daemon,
    departed::{self, EndError},
};

use crate::{
    config::{self, Config, Gateway},
    environment::{Environment, Verb},
    error::{CniError, ErrorCode},
    ipam::Ipam,
    result::{CniResult, Interface, Ip, Route, Version},
};

/// What went wrong with ADD.
const CANNOT_ATTACH: &str = "the container cannot be attached";

/// What goes to stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One line.
    Json(String),
    /// Nothing: it is done.
    Nothing,
}

/// Does what the runtime asks; besides the answer, the version it is to be in.
pub async fn run(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    config: &[u8],
) -> (Result<Answer, CniError>, String) {
    let parsed = Config::read(config);
    let version = parsed.as_ref().map(|config| config.cni_version.clone()).unwrap_or_default();
    (dispatch(variables, config, parsed).await, version)
}

async fn dispatch(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    raw: &[u8],
    config: Result<Config, CniError>,
) -> Result<Answer, CniError> {
    let environment = Environment::read(variables)?;
    let verb = environment.verb()?;
    if verb == Verb::Version {
        return Ok(versions(config.map(|config| config.cni_version).unwrap_or_default()));
    }
    let call = Call::new(&environment, config?, raw)?;
    match verb {
        Verb::Add => call.add().await,
        Verb::Del => call.del().await,
        Verb::Check => call.check().await,
        Verb::Gc => call.gc().await,
        Verb::Status | Verb::Version => call.status().await,
    }
}

/// The runtime asks before it has a container, and may not even know a version.
fn versions(asked: String) -> Answer {
    let version = if asked.is_empty() { Version::V1_1_0.text().to_owned() } else { asked };
    let supported: Vec<_> = Version::ALL.iter().map(|version| version.text()).collect();
    Answer::Json(json!({ "cniVersion": version, "supportedVersions": supported }).to_string())
}

/// One call, with all that was said.
struct Call<'a> {
    environment: &'a Environment,
    config: Config,
    raw: &'a [u8],
    version: Version,
}

impl<'a> Call<'a> {
    fn new(environment: &'a Environment, config: Config, raw: &'a [u8]) -> Result<Self, CniError> {
        let version = config.version()?;
        if config.name.is_empty() {
            return Err(CniError::new(
                ErrorCode::InvalidConfig,
                "the network has no name",
                "\"name\" tells networks apart",
            ));
        }
        Ok(Self { environment, config, raw, version })
    }

    fn socket(&self) -> &Path {
        Path::new(&self.config.socket)
    }

    fn key(&self) -> Result<EndpointKey, CniError> {
        Ok(EndpointKey {
            network: self.config.name.clone(),
            container: self.environment.required("CNI_CONTAINERID")?.to_owned(),
            interface: self.environment.required("CNI_IFNAME")?.to_owned(),
        })
    }

    /// The IPAM plugin; `None`: addresses are leased by the host.
    fn ipam(&self) -> Result<Option<Ipam<'_>>, CniError> {
        let ipam = self.config.ipam.as_ref().filter(|ipam| !ipam.is_own() && !ipam.kind.is_empty());
        ipam.map(|ipam| Ipam::find(&ipam.kind, self.environment, self.raw)).transpose()
    }

    async fn daemon(&self, what: &str) -> Result<Daemon, CniError> {
        Daemon::connect(self.socket()).await.map_err(|status| CniError::daemon(what, &status))
    }

    /// Refuses what this version of the runtime cannot have meant.
    fn since(&self, first: Version, verb: &str) -> Result<(), CniError> {
        if self.version >= first {
            return Ok(());
        }
        Err(CniError::new(
            ErrorCode::IncompatibleVersion,
            format!("{verb} is not of version {}", self.version),
            format!("it came with {first}"),
        ))
    }

    async fn add(&self) -> Result<Answer, CniError> {
        let (key, switch) = (self.key()?, self.config.switch()?);
        let netns = self.environment.required("CNI_NETNS")?.to_owned();
        let published_ports = self.config.published()?;
        // Before an address is taken: who cannot attach needs none.
        let mut daemon = self.daemon(CANNOT_ATTACH).await?;
        self.config.check_ipam()?;
        let wanted = AttachRequest { published_ports, ..self.wanted(key, switch, netns) };
        let (endpoint, given) = match self.ipam()? {
            Some(ipam) => self.add_given(&mut daemon, &ipam, wanted).await?,
            None => self.add_leased(&mut daemon, wanted).await?,
        };
        let result = self.result(&endpoint, &given).in_version(self.version);
        Ok(Answer::Json(to_json(&result)?))
    }

    /// Attaches with addresses that another plugin gives.
    async fn add_given(
        &self,
        daemon: &mut Daemon,
        ipam: &Ipam<'_>,
        wanted: AttachRequest,
    ) -> Result<(Endpoint, CniResult), CniError> {
        let given = ipam.add(self.version).await?;
        let attached = match self.host_addresses(&given) {
            Ok(host_addresses) => {
                let wanted = AttachRequest {
                    addresses: given.ips.iter().map(|ip| ip.address.clone()).collect(),
                    routes: given.routes.iter().map(|route| endpoint_route(route, &given.ips)).collect(),
                    host_addresses,
                    ..wanted
                };
                daemon.attach(wanted).await
            }
            Err(status) => Err(status),
        };
        match attached {
            Ok(endpoint) => Ok((endpoint, given)),
            Err(status) => {
                // The address goes back; what is wrong with that matters less than why.
                let _ = ipam.del(self.version).await;
                Err(CniError::daemon(CANNOT_ATTACH, &status))
            }
        }
    }

    /// Attaches with addresses that the host has leased.
    async fn add_leased(
        &self,
        daemon: &mut Daemon,
        wanted: AttachRequest,
    ) -> Result<(Endpoint, CniResult), CniError> {
        let ipam = self.config.ipam.as_ref();
        let routes = ipam.map(|ipam| ipam.routes.clone()).unwrap_or_default();
        let wanted = AttachRequest {
            addresses: self.config.addresses(self.environment).iter().map(with_len).collect(),
            routes: routes.iter().map(|route| endpoint_route(route, &[])).collect(),
            lease: Some(ipam.map(config::Ipam::lease).unwrap_or_default()),
            host_gateway: self.config.gateway == Gateway::Host,
            ..wanted
        };
        let attached = daemon.attach(wanted).await;
        let endpoint = attached.map_err(|status| CniError::daemon(CANNOT_ATTACH, &status))?;
        let gateways =
            endpoint.gateways.iter().map(|gateway| Some(gateway.clone()).filter(|g| !g.is_empty()));
        let ips = endpoint.addresses.iter().zip(gateways);
        let ips =
            ips.map(|(address, gateway)| Ip { address: address.clone(), gateway, ..Ip::default() }).collect();
        Ok((endpoint, CniResult { ips, routes, ..CniResult::default() }))
    }

    fn wanted(&self, key: EndpointKey, switch: String, netns: String) -> AttachRequest {
        let labels = [("K8S_POD_NAMESPACE", "namespace"), ("K8S_POD_NAME", "pod")];
        let labels: HashMap<_, _> = labels
            .into_iter()
            .filter_map(|(argument, label)| {
                Some((label.to_owned(), self.environment.argument(argument)?.to_owned()))
            })
            .collect();
        let [receive_limit, send_limit] = self.config.limits();
        AttachRequest {
            key: Some(key),
            netns,
            switch,
            mac: self.config.mac(self.environment).unwrap_or_default(),
            mtu: self.config.mtu,
            labels,
            names: self.config.names(self.environment),
            receive_limit,
            send_limit,
            ..AttachRequest::default()
        }
    }

    /// The gateways' addresses, when the host is to have them.
    fn host_addresses(&self, given: &CniResult) -> Result<Vec<String>, Status> {
        if self.config.gateway == Gateway::Router {
            return Ok(Vec::new());
        }
        given
            .ips
            .iter()
            .map(|ip| {
                let gateway = ip.gateway.as_ref().filter(|gateway| !gateway.is_empty()).ok_or_else(|| {
                    Status::invalid_argument(format!(
                        "the host is to be the gateway, but IPAM names none for {}; say it, as in \"gateway\" of a range",
                        ip.address
                    ))
                })?;
                let len = ip.address.split_once('/').map_or("", |(_, len)| len);
                Ok(format!("{gateway}/{len}"))
            })
            .collect()
    }

    fn result(&self, endpoint: &Endpoint, given: &CniResult) -> CniResult {
        let container = endpoint.key.as_ref().map(|key| key.interface.clone()).unwrap_or_default();
        let host = Interface {
            name: endpoint.host_interface.clone(),
            mac: endpoint.host_mac.clone(),
            mtu: Some(endpoint.mtu),
            sandbox: String::new(),
        };
        let inside = Interface {
            name: container,
            mac: endpoint.mac.clone(),
            mtu: Some(endpoint.mtu),
            sandbox: endpoint.netns.clone(),
        };
        CniResult {
            interfaces: vec![host, inside],
            // The second interface is the container's.
            ips: given.ips.iter().map(|ip| Ip { interface: Some(1), ..ip.clone() }).collect(),
            routes: given.routes.clone(),
            dns: self.config.dns(&given.dns),
            cni_version: String::new(),
        }
    }

    async fn del(&self) -> Result<Answer, CniError> {
        let key = self.key()?;
        departed::end(self.socket(), &key).await.map_err(|error| match error {
            EndError::Refused(status) => CniError::daemon("the container cannot be detached", &status),
            EndError::Unwritten(_) => CniError::new(ErrorCode::Io, "the container cannot be detached", error),
        })?;
        // After the interface: nobody else may have the address while it is in use.
        if let Some(ipam) = self.ipam()? {
            ipam.del(self.version).await?;
        }
        Ok(Answer::Nothing)
    }

    async fn check(&self) -> Result<Answer, CniError> {
        self.since(Version::V0_4_0, "CHECK")?;
        let key = self.key()?;
        let netns = self.environment.required("CNI_NETNS")?;
        if let Some(ipam) = self.ipam()? {
            ipam.check(self.version).await?;
        }
        let previous = self.config.previous()?.ok_or_else(|| {
            CniError::new(ErrorCode::InvalidConfig, "there is no prevResult", "CHECK compares with it")
        })?;
        let is_ours =
            |interface: &Interface| interface.name == key.interface && !interface.sandbox.is_empty();
        if !previous.interfaces.iter().any(is_ours) {
            return Err(CniError::new(
                ErrorCode::InvalidConfig,
                format!("prevResult has no interface {}", key.interface),
                "it is not what ADD answered",
            ));
        }
        let mut daemon = self.daemon("the container cannot be checked").await?;
        let checked = daemon.check(key, netns).await;
        checked
            .map_err(|status| CniError::daemon("the container's network is not as it was made", &status))?;
        Ok(Answer::Nothing)
    }

    async fn gc(&self) -> Result<Answer, CniError> {
        self.since(Version::V1_1_0, "GC")?;
        let valid = self.config.valid_attachments.clone().ok_or_else(|| {
            CniError::new(
                ErrorCode::InvalidConfig,
                "there is no cni.dev/valid-attachments",
                "GC takes everything else away, so it has to say what is to stay",
            )
        })?;
        let keep = valid.into_iter().map(|attachment| EndpointKey {
            network: self.config.name.clone(),
            container: attachment.container,
            interface: attachment.interface,
        });
        let mut daemon = self.daemon("nothing can be collected").await?;
        let kept = daemon.keep(&self.config.name, keep.collect()).await;
        kept.map_err(|status| CniError::daemon("not everything could be collected", &status))?;
        if let Some(ipam) = self.ipam()? {
            ipam.pass_on("GC").await?;
        }
        Ok(Answer::Nothing)
    }

    async fn status(&self) -> Result<Answer, CniError> {
        self.since(Version::V1_1_0, "STATUS")?;
        let not_ready =
            |details: &str| CniError::new(ErrorCode::NotReady, "no container can be attached now", details);
        let mut daemon =
            Daemon::connect(self.socket()).await.map_err(|status| not_ready(status.message()))?;
        let trouble = daemon.trouble(&self.config.switch()?).await;
        let trouble = trouble.map_err(|status| not_ready(status.message()))?;
        if !trouble.is_empty() {
            return Err(not_ready(&trouble));
        }
        if let Some(ipam) = self.ipam()? {
            ipam.pass_on("STATUS").await?;
        }
        Ok(Answer::Nothing)
    }
}

/// An address as the daemon reads it; how long its network's prefix is the ranges say.
fn with_len(address: &String) -> String {
    format!("{address}/{}", if address.contains(':') { 128 } else { 32 })
}

/// A route for the daemon: one without a router goes by that of the first address of its
/// family, as the specification has it.
fn endpoint_route(route: &Route, ips: &[Ip]) -> EndpointRoute {
    let is_v6 = route.dst.contains(':');
    let default =
        || ips.iter().filter(|ip| ip.address.contains(':') == is_v6).find_map(|ip| ip.gateway.clone());
    let gateway = route.gw.clone().filter(|gw| !gw.is_empty()).or_else(default);
    EndpointRoute { destination: route.dst.clone(), gateway: gateway.unwrap_or_default() }
}

fn to_json(result: &CniResult) -> Result<String, CniError> {
    serde_json::to_string(result)
        .map_err(|error| CniError::new(ErrorCode::Io, "the result cannot be written", error))
}
