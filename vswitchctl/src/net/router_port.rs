//! `router-port`: interfaces of routers.

use clap::Args;
use ferroflow_proto::northbound::{LogicalRouterPort, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        gateway::{self, Candidate},
        object::{Object, Options, Patch, TunnelKey, enabled, labels_of, wrong_kind},
    },
    output::yes,
};

/// Options of a new port.
#[derive(Debug, Args)]
pub struct NewRouterPort {
    /// Its MAC address
    #[arg(long)]
    mac: String,
    /// Its address and prefix length, 10.0.0.1/24; may be repeated
    #[arg(long = "network", value_name = "ADDRESS/LEN", required = true)]
    networks: Vec<String>,
    /// A host that may be the gateway, CHASSIS=PRIORITY; may be repeated
    #[arg(long = "gateway", value_name = "CHASSIS=PRIORITY")]
    gateways: Vec<Candidate>,
    /// Make it disabled
    #[arg(long)]
    disable: bool,
}

/// Changes of a port.
#[derive(Debug, Args)]
pub struct RouterPortChanges {
    /// Its MAC address
    #[arg(long)]
    mac: Option<String>,
    /// Its addresses instead of those before, 10.0.0.1/24; may be repeated
    #[arg(long = "network", value_name = "ADDRESS/LEN")]
    networks: Vec<String>,
    /// Hosts that may be the gateway, instead of those before; may be repeated
    #[arg(long = "gateway", value_name = "CHASSIS=PRIORITY")]
    gateways: Vec<Candidate>,
    /// It has no gateway: it is wherever its router is
    #[arg(long, conflicts_with = "gateways")]
    no_gateways: bool,
    /// Let it send and receive
    #[arg(long)]
    enable: bool,
    /// Let it neither send nor receive
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
}

impl Options for NewRouterPort {}
impl Options for RouterPortChanges {}

/// What a user sets of a router port; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterPortSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// MAC address.
    pub mac: String,
    /// Addresses with prefix length.
    pub networks: Vec<String>,
    /// Hosts that may be the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateway_chassis: Vec<Candidate>,
    /// It sends and receives.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

impl Object for RouterPortSpec {
    const NOUN: Noun = Noun::RouterPort;
    const ABOUT: About = About {
        add: "Make a port",
        set: "Change a port",
        list: "List ports",
        show: "Show a port",
        del: "Delete a port",
    };
    const HEADINGS: &'static [&'static str] =
        &["ROUTER", "PORT", "KEY", "ENABLED", "MAC", "NETWORKS", "LABELS"];
    type New = NewRouterPort;
    type Changes = RouterPortChanges;
    type Status = TunnelKey;

    fn read(resource: &Resource) -> Result<(Self, TunnelKey), CtlError> {
        let Some(resource::Spec::LogicalRouterPort(port)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self {
            labels: labels_of(resource),
            mac: port.mac.clone(),
            networks: port.networks.clone(),
            gateway_chassis: gateway::read(&port.gateway_chassis),
            enabled: port.enabled.unwrap_or(true),
        };
        Ok((spec, TunnelKey { tunnel_key: port.tunnel_key }))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::LogicalRouterPort(LogicalRouterPort {
            mac: self.mac.clone(),
            networks: self.networks.clone(),
            gateway_chassis: gateway::write(&self.gateway_chassis),
            enabled: (!self.enabled).then_some(false),
            ..Default::default()
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewRouterPort, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let NewRouterPort { mac, networks, gateways, disable } = new;
        Ok(Self { labels, mac, networks, gateway_chassis: gateways, enabled: !disable })
    }

    fn change(given: &RouterPortChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("mac", given.mac.as_ref(), |port| &mut port.mac);
        patch.list("networks", &given.networks, false, |port| &mut port.networks);
        let gateways = &given.gateways;
        patch.list("gateway_chassis", gateways, given.no_gateways, |port| &mut port.gateway_chassis);
        patch.switch("enabled", (given.enable, given.disable), |port| &mut port.enabled);
        Ok(())
    }

    fn cells(&self, status: &TunnelKey) -> Vec<String> {
        vec![status.tunnel_key.to_string(), yes(self.enabled), self.mac.clone(), self.networks.join(", ")]
    }

    fn fields(&self, status: &TunnelKey) -> Vec<(&'static str, String)> {
        vec![
            ("mac", self.mac.clone()),
            ("networks", self.networks.join(", ")),
            ("enabled", yes(self.enabled)),
            ("gateways", gateway::print(&self.gateway_chassis)),
            ("tunnel key", status.tunnel_key.to_string()),
        ]
    }
}
