//! `nat`: address translation by routers.

use clap::{Args, ValueEnum};
use ferroflow_proto::northbound::{Nat, Resource, nat, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::{Noun, Reference},
    net::{
        command::About,
        object::{NoStatus, Object, Options, Patch, labels_of, unknown_value, wrong_kind},
    },
    output::{parent_id, short, yes},
};

/// Options of a new translation.
#[derive(Debug, Args)]
pub struct NewNat {
    /// Which addresses it changes
    #[arg(long = "type", value_enum)]
    kind: Type,
    /// Address outside
    #[arg(long, value_name = "IP")]
    external: String,
    /// Address inside; for snat also a network
    #[arg(long, value_name = "IP")]
    logical: String,
    #[command(flatten)]
    rest: NatOptions,
    /// Rewrite addresses without remembering connections; for dnat-and-snat
    #[arg(long)]
    stateless: bool,
}

/// Changes of a translation.
#[derive(Debug, Args)]
pub struct NatChanges {
    /// Which addresses it changes
    #[arg(long = "type", value_enum)]
    kind: Option<Type>,
    /// Address outside
    #[arg(long, value_name = "IP")]
    external: Option<String>,
    /// Address inside; for snat also a network
    #[arg(long, value_name = "IP")]
    logical: Option<String>,
    #[command(flatten)]
    rest: NatOptions,
    /// Rewrite addresses without remembering connections; for dnat-and-snat
    #[arg(long)]
    stateless: bool,
    /// Remember connections
    #[arg(long, conflicts_with = "stateless")]
    stateful: bool,
}

/// Options that a translation need not have.
#[derive(Debug, Args)]
pub struct NatOptions {
    /// Ports for translated sources, FIRST-LAST
    #[arg(long, value_name = "RANGE")]
    ports: Option<String>,
    /// Port of the router towards the outside
    #[arg(long, value_name = "PORT")]
    gateway_port: Option<String>,
    /// Only for peers outside with this address or network; may be repeated
    #[arg(long = "allow", value_name = "NETWORK")]
    allowed: Vec<String>,
    /// Not for peers outside with this address or network; may be repeated
    #[arg(long = "exempt", value_name = "NETWORK")]
    exempted: Vec<String>,
    /// MAC address outside of a floating address that is on its workload's host
    #[arg(long, value_name = "MAC")]
    external_mac: Option<String>,
    /// Port of that workload
    #[arg(long, value_name = "PORT")]
    logical_port: Option<String>,
    /// Only packets that match besides: 'tcp.dst == 80'; "" for all
    #[arg(long = "match", value_name = "MATCH")]
    matching: Option<String>,
    /// 0 to 8191; of several with --match the highest that matches decides
    #[arg(long)]
    priority: Option<u32>,
    /// Whether other routers have a route to the address outside by this one: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    add_route: Option<bool>,
}

impl Options for NewNat {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        self.rest.logical_port.iter_mut().map(|text| (Noun::SwitchPort, text)).collect()
    }
}

impl Options for NatChanges {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        self.rest.logical_port.iter_mut().map(|text| (Noun::SwitchPort, text)).collect()
    }
}

/// Which addresses a translation changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Type {
    /// Sources inside become the address outside
    Snat,
    /// The destination outside becomes the address inside
    Dnat,
    /// Both: a floating address
    DnatAndSnat,
}

impl Type {
    fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match nat::Type::try_from(value) {
            Ok(nat::Type::Snat) => Ok(Self::Snat),
            Ok(nat::Type::Dnat) => Ok(Self::Dnat),
            Ok(nat::Type::DnatAndSnat) => Ok(Self::DnatAndSnat),
            Ok(nat::Type::Unspecified) | Err(_) => Err(unknown_value(resource, "type", value)),
        }
    }

    fn write(self) -> nat::Type {
        match self {
            Self::Snat => nat::Type::Snat,
            Self::Dnat => nat::Type::Dnat,
            Self::DnatAndSnat => nat::Type::DnatAndSnat,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Snat => "snat",
            Self::Dnat => "dnat",
            Self::DnatAndSnat => "dnat-and-snat",
        }
    }
}

/// What a user sets of a translation; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Which addresses it changes.
    #[serde(rename = "type")]
    pub kind: Type,
    /// Address outside.
    pub external: String,
    /// Address or network inside.
    pub logical: String,
    /// Ports for translated sources.
    #[serde(default)]
    pub ports: String,
    /// Port of the router towards the outside.
    #[serde(default)]
    pub gateway_port: String,
    /// It remembers no connections.
    #[serde(default)]
    pub stateless: bool,
    /// Networks outside that it is for; none: all.
    #[serde(default)]
    pub allowed: Vec<String>,
    /// Networks outside that it is not for.
    #[serde(default)]
    pub exempted: Vec<String>,
    /// MAC address outside of a floating address that is on its workload's host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub external_mac: String,
    /// Full name of that workload's port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub logical_port: String,
    /// Which packets besides; empty: all.
    #[serde(rename = "match", default, skip_serializing_if = "String::is_empty")]
    pub matching: String,
    /// Precedence among those with a match.
    #[serde(default, skip_serializing_if = "is_lowest")]
    pub priority: u32,
    /// Other routers have a route to the address outside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub add_route: bool,
}

fn is_lowest(priority: &u32) -> bool {
    *priority == 0
}

impl NatSpec {
    /// The same with its port, which may be just an id, named in full.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when the port's name can be none.
    pub fn placed(self, router: &str) -> Result<Self, CtlError> {
        let gateway_port = full_port(&self.gateway_port, router)?;
        Ok(Self { gateway_port, ..self })
    }
}

/// Full name of a router's port that is typed by id or in full; nothing stays nothing.
///
/// # Errors
/// [`CtlError::Usage`] when it can be none.
pub fn full_port(text: &str, router: &str) -> Result<String, CtlError> {
    if text.is_empty() {
        return Ok(String::new());
    }
    Noun::RouterPort.refer(text).map(|reference| match reference {
        Reference::Full(name) => name,
        Reference::Id(id) => Noun::RouterPort.below(router, &id),
    })
}

impl Object for NatSpec {
    const NOUN: Noun = Noun::Nat;
    const ABOUT: About = About {
        add: "Make a translation of a router",
        set: "Change a translation",
        list: "List translations",
        show: "Show a translation",
        del: "Delete a translation",
    };
    const HEADINGS: &'static [&'static str] = &["ROUTER", "NAT", "TYPE", "EXTERNAL", "LOGICAL", "LABELS"];
    type New = NewNat;
    type Changes = NatChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::Nat(nat)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self {
            labels: labels_of(resource),
            kind: Type::read(resource, nat.r#type)?,
            external: nat.external_ip.clone(),
            logical: nat.logical_ip.clone(),
            ports: nat.external_port_range.clone(),
            gateway_port: nat.gateway_port.clone(),
            stateless: nat.stateless,
            allowed: nat.allowed_external_ips.clone(),
            exempted: nat.exempted_external_ips.clone(),
            external_mac: nat.external_mac.clone(),
            logical_port: nat.logical_port.clone(),
            matching: nat.r#match.clone(),
            priority: nat.priority,
            add_route: nat.add_route,
        };
        Ok((spec, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::Nat(Nat {
            r#type: self.kind.write().into(),
            external_ip: self.external.clone(),
            logical_ip: self.logical.clone(),
            external_port_range: self.ports.clone(),
            gateway_port: self.gateway_port.clone(),
            stateless: self.stateless,
            allowed_external_ips: self.allowed.clone(),
            exempted_external_ips: self.exempted.clone(),
            external_mac: self.external_mac.clone(),
            logical_port: self.logical_port.clone(),
            r#match: self.matching.clone(),
            priority: self.priority,
            add_route: self.add_route,
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewNat, labels: Labels, name: &str) -> Result<Self, CtlError> {
        let NatOptions { ports, gateway_port, allowed, exempted, external_mac, .. } = new.rest;
        let NatOptions { logical_port, matching, priority, add_route, .. } = new.rest;
        let spec = Self {
            labels,
            kind: new.kind,
            external: new.external,
            logical: new.logical,
            ports: ports.unwrap_or_default(),
            gateway_port: gateway_port.unwrap_or_default(),
            stateless: new.stateless,
            allowed,
            exempted,
            external_mac: external_mac.unwrap_or_default(),
            logical_port: logical_port.unwrap_or_default(),
            matching: matching.unwrap_or_default(),
            priority: priority.unwrap_or_default(),
            add_route: add_route.unwrap_or_default(),
        };
        spec.placed(parent_id(name))
    }

    fn change(given: &NatChanges, name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        let gateway_port = given.rest.gateway_port.as_deref();
        let gateway_port = gateway_port.map(|port| full_port(port, parent_id(name))).transpose()?;
        patch.set("type", given.kind.as_ref(), |nat| &mut nat.kind);
        patch.set("external_ip", given.external.as_ref(), |nat| &mut nat.external);
        patch.set("logical_ip", given.logical.as_ref(), |nat| &mut nat.logical);
        patch.set("external_port_range", given.rest.ports.as_ref(), |nat| &mut nat.ports);
        patch.set("gateway_port", gateway_port.as_ref(), |nat| &mut nat.gateway_port);
        patch.list("allowed_external_ips", &given.rest.allowed, false, |nat| &mut nat.allowed);
        patch.list("exempted_external_ips", &given.rest.exempted, false, |nat| &mut nat.exempted);
        patch.set("external_mac", given.rest.external_mac.as_ref(), |nat| &mut nat.external_mac);
        patch.set("logical_port", given.rest.logical_port.as_ref(), |nat| &mut nat.logical_port);
        patch.set("match", given.rest.matching.as_ref(), |nat| &mut nat.matching);
        patch.set("priority", given.rest.priority.as_ref(), |nat| &mut nat.priority);
        patch.set("add_route", given.rest.add_route.as_ref(), |nat| &mut nat.add_route);
        patch.switch("stateless", (given.stateless, given.stateful), |nat| &mut nat.stateless);
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.kind.word().into(), self.external.clone(), self.logical.clone()]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        vec![
            ("type", self.kind.word().to_owned()),
            ("external", self.external.clone()),
            ("logical", self.logical.clone()),
            ("ports", self.ports.clone()),
            ("gateway port", short(&self.gateway_port).to_owned()),
            ("stateless", yes(self.stateless)),
            ("allowed", self.allowed.join(" ")),
            ("exempted", self.exempted.join(" ")),
            ("external MAC", self.external_mac.clone()),
            ("logical port", self.logical_port.clone()),
            ("match", self.matching.clone()),
            ("priority", if self.matching.is_empty() { String::new() } else { self.priority.to_string() }),
            ("adds a route", if self.add_route { "yes".into() } else { String::new() }),
        ]
    }
}
