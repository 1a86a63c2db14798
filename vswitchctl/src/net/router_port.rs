//! `router-port`: interfaces of routers.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::northbound::{LogicalRouterPort, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        labels::{LabelChanges, NewLabels},
        object::{self, Del, ListBelow, Show, Spec, labels_of, wrong_kind},
        switch_port::{enabled, is_enabled},
    },
    output::{Tabular, pairs, parent_id, short, write_fields, yes},
    session::Session,
};

/// Ports of logical routers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a port
    Add(Add),
    /// Change a port
    Set(Set),
    /// List ports
    List(ListBelow),
    /// Show a port
    Show(Show),
    /// Delete a port
    Del(Del),
}

/// A port to make.
#[derive(Debug, Args)]
pub struct Add {
    /// The router; or ROUTER/PORT in one word
    router: String,
    /// Id of the port
    port: Option<String>,
    /// Its MAC address
    #[arg(long)]
    mac: String,
    /// Its address and prefix length, 10.0.0.1/24; may be repeated
    #[arg(long = "network", value_name = "ADDRESS/LEN", required = true)]
    networks: Vec<String>,
    /// Make it disabled
    #[arg(long)]
    disable: bool,
    #[command(flatten)]
    labels: NewLabels,
    /// Succeed, and leave it as it is, when there is one
    #[arg(long)]
    may_exist: bool,
}

/// A port to change.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name
    name: String,
    /// Its MAC address
    #[arg(long)]
    mac: Option<String>,
    /// Its addresses instead of those before, 10.0.0.1/24; may be repeated
    #[arg(long = "network", value_name = "ADDRESS/LEN")]
    networks: Vec<String>,
    /// Let it send and receive
    #[arg(long)]
    enable: bool,
    /// Let it neither send nor receive
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    #[command(flatten)]
    labels: LabelChanges,
}

impl Command {
    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Add(_) | Self::Set(_) | Self::Del(_))
    }

    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Add(add) => {
                let name = Noun::RouterPort.new_name(&add.router, add.port.as_deref())?;
                let (labels, enabled) = (add.labels.labels(), !add.disable);
                let spec = RouterPortSpec { labels, mac: add.mac, networks: add.networks, enabled };
                object::add(session, name, &spec, add.may_exist).await
            }
            Self::Set(set) => set.run(session).await,
            Self::List(list) => list.run::<RouterPortSpec>(session).await,
            Self::Show(show) => run_show(session, &show.name).await,
            Self::Del(del) => del.run(session, Noun::RouterPort).await,
        }
    }
}

impl Set {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let fields = [
            (!self.labels.is_empty(), "labels"),
            (self.mac.is_some(), "mac"),
            (!self.networks.is_empty(), "networks"),
            (self.enable || self.disable, "enabled"),
        ];
        let mask: Vec<&str> =
            fields.into_iter().filter(|(given, _)| *given).map(|(_, field)| field).collect();
        let patch = |spec: &mut RouterPortSpec| {
            self.labels.apply(&mut spec.labels);
            if let Some(mac) = &self.mac {
                spec.mac.clone_from(mac);
            }
            if !self.networks.is_empty() {
                spec.networks.clone_from(&self.networks);
            }
            if self.enable || self.disable {
                spec.enabled = self.enable;
            }
            Ok(())
        };
        object::set(session, &self.name, &mask, patch).await
    }
}

/// What a user sets of a router port; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterPortSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// MAC address.
    pub mac: String,
    /// Addresses with prefix length.
    pub networks: Vec<String>,
    /// It sends and receives.
    #[serde(default = "enabled", skip_serializing_if = "is_enabled")]
    pub enabled: bool,
}

/// What is shown of a router port.
#[derive(Debug, Clone, Serialize)]
pub struct RouterPortView {
    name: String,
    labels: Labels,
    mac: String,
    networks: Vec<String>,
    enabled: bool,
    tunnel_key: u32,
    create_revision: u64,
    update_revision: u64,
}

impl Spec for RouterPortSpec {
    const NOUN: Noun = Noun::RouterPort;
    type View = RouterPortView;

    fn read(resource: &Resource) -> Result<Self, CtlError> {
        let Some(resource::Spec::LogicalRouterPort(port)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        Ok(Self {
            labels: labels_of(resource),
            mac: port.mac.clone(),
            networks: port.networks.clone(),
            enabled: port.enabled.unwrap_or(true),
        })
    }

    fn view(resource: &Resource) -> Result<RouterPortView, CtlError> {
        let Some(resource::Spec::LogicalRouterPort(port)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self::read(resource)?;
        Ok(RouterPortView {
            name: resource.name.clone(),
            labels: spec.labels,
            mac: spec.mac,
            networks: spec.networks,
            enabled: spec.enabled,
            tunnel_key: port.tunnel_key,
            create_revision: resource.create_revision,
            update_revision: resource.update_revision,
        })
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::LogicalRouterPort(LogicalRouterPort {
            mac: self.mac.clone(),
            networks: self.networks.clone(),
            enabled: (!self.enabled).then_some(false),
            ..Default::default()
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Tabular for RouterPortView {
    const HEADINGS: &'static [&'static str] =
        &["ROUTER", "PORT", "KEY", "ENABLED", "MAC", "NETWORKS", "LABELS"];

    fn cells(&self) -> Vec<String> {
        vec![
            parent_id(&self.name).into(),
            short(&self.name).into(),
            self.tunnel_key.to_string(),
            yes(self.enabled),
            self.mac.clone(),
            self.networks.join(", "),
            pairs(&self.labels),
        ]
    }
}

impl RouterPortView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write_fields(
            out,
            &[
                ("name", self.name.clone()),
                ("labels", pairs(&self.labels)),
                ("mac", self.mac.clone()),
                ("networks", self.networks.join(", ")),
                ("enabled", yes(self.enabled)),
                ("tunnel key", self.tunnel_key.to_string()),
                ("created", format!("revision {}", self.create_revision)),
                ("changed", format!("revision {}", self.update_revision)),
            ],
        )
    }
}

async fn run_show(session: &mut Session<'_>, text: &str) -> Result<(), CtlError> {
    let port = session.controller().await?.find(Noun::RouterPort, text).await?;
    let view = RouterPortSpec::view(&port)?;
    session.print(&view, |out| view.write(out))
}
