//! `switch-port`: where workloads and routers are attached to a switch.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::northbound::{LogicalSwitchPort, Resource, logical_switch_port::Type, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        labels::{LabelChanges, NewLabels},
        object::{self, Del, ListBelow, Show, Spec, labels_of, unknown_value, wrong_kind},
    },
    output::{Tabular, pairs, parent_id, short, write_fields, yes},
    session::Session,
};

/// Ports of logical switches.
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
    /// The switch; or SWITCH/PORT in one word
    switch: String,
    /// Id of the port
    port: Option<String>,
    /// What the workload has: "MAC [IP…]" or "unknown"; may be repeated
    #[arg(long = "address", value_name = "ADDRESSES", conflicts_with = "router_port")]
    addresses: Vec<String>,
    /// What the workload may use as a source: "MAC [IP[/LEN]…]"; may be repeated
    #[arg(long = "port-security", value_name = "ADDRESSES", conflicts_with = "router_port")]
    port_security: Vec<String>,
    /// Link the switch to this router port instead of a workload
    #[arg(long)]
    router_port: Option<String>,
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
    /// What the workload has instead of before: "MAC [IP…]" or "unknown"; may be repeated
    #[arg(long = "address", value_name = "ADDRESSES")]
    addresses: Vec<String>,
    /// The workload has no addresses
    #[arg(long, conflicts_with = "addresses")]
    no_addresses: bool,
    /// What the workload may use as a source: "MAC [IP[/LEN]…]"; may be repeated
    #[arg(long = "port-security", value_name = "ADDRESSES")]
    port_security: Vec<String>,
    /// The workload may use any source
    #[arg(long, conflicts_with = "port_security")]
    no_port_security: bool,
    /// Link it to this router port
    #[arg(long, conflicts_with_all = ["addresses", "port_security"])]
    router_port: Option<String>,
    /// Attach a workload to it, no longer a router
    #[arg(long, conflicts_with = "router_port")]
    no_router_port: bool,
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
            Self::Add(add) => add.run(session).await,
            Self::Set(set) => set.run(session).await,
            Self::List(list) => list.run::<SwitchPortSpec>(session).await,
            Self::Show(show) => run_show(session, &show.name).await,
            Self::Del(del) => del.run(session, Noun::SwitchPort).await,
        }
    }
}

impl Add {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let name = Noun::SwitchPort.new_name(&self.switch, self.port.as_deref())?;
        let router_port = match &self.router_port {
            Some(text) => Some(session.controller().await?.resolve(Noun::RouterPort, text).await?),
            None => None,
        };
        let spec = SwitchPortSpec {
            labels: self.labels.labels(),
            kind: PortType::linked_to(router_port.as_deref()),
            addresses: self.addresses,
            port_security: self.port_security,
            router_port,
            enabled: !self.disable,
        };
        object::add(session, name, &spec, self.may_exist).await
    }
}

impl Set {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let router_port = match &self.router_port {
            Some(text) => Some(session.controller().await?.resolve(Noun::RouterPort, text).await?),
            None => None,
        };
        let mask = self.mask();
        let patch = |spec: &mut SwitchPortSpec| {
            self.patch(spec, router_port.as_deref());
            Ok(())
        };
        object::set(session, &self.name, &mask, patch).await
    }

    fn mask(&self) -> Vec<&'static str> {
        let fields = [
            (!self.labels.is_empty(), "labels"),
            (!self.addresses.is_empty() || self.no_addresses, "addresses"),
            (!self.port_security.is_empty() || self.no_port_security, "port_security"),
            (self.router_port.is_some() || self.no_router_port, "type"),
            (self.router_port.is_some() || self.no_router_port, "router_port"),
            (self.enable || self.disable, "enabled"),
        ];
        fields.into_iter().filter(|(given, _)| *given).map(|(_, field)| field).collect()
    }

    fn patch(&self, spec: &mut SwitchPortSpec, router_port: Option<&str>) {
        self.labels.apply(&mut spec.labels);
        if !self.addresses.is_empty() || self.no_addresses {
            spec.addresses.clone_from(&self.addresses);
        }
        if !self.port_security.is_empty() || self.no_port_security {
            spec.port_security.clone_from(&self.port_security);
        }
        if self.router_port.is_some() || self.no_router_port {
            spec.router_port = router_port.map(str::to_owned);
            spec.kind = PortType::linked_to(router_port);
        }
        if self.enable || self.disable {
            spec.enabled = self.enable;
        }
    }
}

/// What is attached to a switch port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortType {
    /// A workload.
    #[default]
    Workload,
    /// A router.
    Router,
}

impl PortType {
    fn linked_to(router_port: Option<&str>) -> Self {
        if router_port.is_some() { Self::Router } else { Self::Workload }
    }

    fn is_workload(&self) -> bool {
        *self == Self::Workload
    }
}

/// What a user sets of a switch port; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPortSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// What is attached.
    #[serde(rename = "type", default, skip_serializing_if = "PortType::is_workload")]
    pub kind: PortType,
    /// `MAC [IP…]` of the workload, or `unknown`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Source addresses the workload may use; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_security: Vec<String>,
    /// The router's side of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_port: Option<String>,
    /// It sends and receives.
    #[serde(default = "enabled", skip_serializing_if = "is_enabled")]
    pub enabled: bool,
}

/// Objects are enabled unless said otherwise.
pub(crate) fn enabled() -> bool {
    true
}

pub(crate) fn is_enabled(enabled: &bool) -> bool {
    *enabled
}

/// What is shown of a switch port.
#[derive(Debug, Clone, Serialize)]
pub struct SwitchPortView {
    name: String,
    labels: Labels,
    #[serde(rename = "type")]
    kind: PortType,
    addresses: Vec<String>,
    port_security: Vec<String>,
    router_port: Option<String>,
    enabled: bool,
    tunnel_key: u32,
    chassis: Option<String>,
    up: bool,
    create_revision: u64,
    update_revision: u64,
}

impl Spec for SwitchPortSpec {
    const NOUN: Noun = Noun::SwitchPort;
    type View = SwitchPortView;

    fn read(resource: &Resource) -> Result<Self, CtlError> {
        let Some(resource::Spec::LogicalSwitchPort(port)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let kind = match Type::try_from(port.r#type) {
            Ok(Type::Unspecified) => PortType::Workload,
            Ok(Type::Router) => PortType::Router,
            Err(_) => return Err(unknown_value(resource, "type", port.r#type)),
        };
        Ok(Self {
            labels: labels_of(resource),
            kind,
            addresses: port.addresses.clone(),
            port_security: port.port_security.clone(),
            router_port: Some(port.router_port.clone()).filter(|name| !name.is_empty()),
            enabled: port.enabled.unwrap_or(true),
        })
    }

    fn view(resource: &Resource) -> Result<SwitchPortView, CtlError> {
        let Some(resource::Spec::LogicalSwitchPort(port)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self::read(resource)?;
        Ok(SwitchPortView {
            name: resource.name.clone(),
            labels: spec.labels,
            kind: spec.kind,
            addresses: spec.addresses,
            port_security: spec.port_security,
            router_port: spec.router_port,
            enabled: spec.enabled,
            tunnel_key: port.tunnel_key,
            chassis: Some(port.chassis.clone()).filter(|name| !name.is_empty()),
            up: port.up,
            create_revision: resource.create_revision,
            update_revision: resource.update_revision,
        })
    }

    fn spec(&self) -> resource::Spec {
        let kind = match self.kind {
            PortType::Workload => Type::Unspecified,
            PortType::Router => Type::Router,
        };
        resource::Spec::LogicalSwitchPort(LogicalSwitchPort {
            r#type: kind.into(),
            addresses: self.addresses.clone(),
            port_security: self.port_security.clone(),
            router_port: self.router_port.clone().unwrap_or_default(),
            enabled: (!self.enabled).then_some(false),
            ..Default::default()
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Tabular for SwitchPortView {
    const HEADINGS: &'static [&'static str] =
        &["SWITCH", "PORT", "KEY", "STATE", "CHASSIS", "ADDRESSES", "LABELS"];

    fn cells(&self) -> Vec<String> {
        vec![
            parent_id(&self.name).into(),
            short(&self.name).into(),
            self.tunnel_key.to_string(),
            self.state().into(),
            self.chassis.as_deref().map(short).unwrap_or_default().into(),
            self.attached(),
            pairs(&self.labels),
        ]
    }
}

impl SwitchPortView {
    fn state(&self) -> &'static str {
        match (self.enabled, self.kind, self.up) {
            (false, _, _) => "disabled",
            (true, PortType::Router, _) => "router",
            (true, PortType::Workload, true) => "up",
            (true, PortType::Workload, false) => "down",
        }
    }

    fn attached(&self) -> String {
        match &self.router_port {
            Some(name) => format!("router port {}", short(name)),
            None => self.addresses.join(", "),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write_fields(
            out,
            &[
                ("name", self.name.clone()),
                ("labels", pairs(&self.labels)),
                ("addresses", self.attached()),
                ("port security", self.port_security.join(", ")),
                ("enabled", yes(self.enabled)),
                ("tunnel key", self.tunnel_key.to_string()),
                ("chassis", self.chassis.clone().unwrap_or_default()),
                ("up", yes(self.up)),
                ("created", format!("revision {}", self.create_revision)),
                ("changed", format!("revision {}", self.update_revision)),
            ],
        )
    }
}

async fn run_show(session: &mut Session<'_>, text: &str) -> Result<(), CtlError> {
    let port = session.controller().await?.find(Noun::SwitchPort, text).await?;
    let view = SwitchPortSpec::view(&port)?;
    session.print(&view, |out| view.write(out))
}
