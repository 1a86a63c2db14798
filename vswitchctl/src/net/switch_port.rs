//! `switch-port`: where workloads and routers are attached to a switch.

use clap::Args;
use ferroflow_proto::northbound::{LogicalSwitchPort, Resource, logical_switch_port::Type, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        object::{Object, Options, Patch, enabled, labels_of, unknown_value, wrong_kind},
    },
    output::{short, yes},
};

/// Options of a new port.
#[derive(Debug, Args)]
pub struct NewSwitchPort {
    /// What the workload has: "MAC [IP…]", "dynamic" or "unknown"; may be repeated
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
    services: ServiceOptions,
}

/// What hosts answer for a port.
#[derive(Debug, Args)]
pub struct ServiceOptions {
    /// DHCP options for the workload, instead of the switch's; "" for those
    #[arg(long, value_name = "NAME")]
    dhcpv4: Option<String>,
    /// DHCPv6 options for the workload, instead of the switch's; "" for those
    #[arg(long, value_name = "NAME")]
    dhcpv6: Option<String>,
    /// The name that DHCP tells the workload; "" for none
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
}

impl ServiceOptions {
    /// Named in full: DHCPv4, DHCPv6.
    fn dhcp(&self) -> Result<[Option<String>; 2], CtlError> {
        let full = |text: &Option<String>| text.as_ref().map(|text| Noun::DhcpOptions.full(text)).transpose();
        Ok([full(&self.dhcpv4)?, full(&self.dhcpv6)?])
    }
}

/// Changes of a port.
#[derive(Debug, Args)]
pub struct SwitchPortChanges {
    /// What the workload has instead of before: "MAC [IP…]", "dynamic" or "unknown"; may be repeated
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
    services: ServiceOptions,
}

impl Options for NewSwitchPort {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        self.router_port.iter_mut().map(|text| (Noun::RouterPort, text)).collect()
    }
}

impl Options for SwitchPortChanges {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        self.router_port.iter_mut().map(|text| (Noun::RouterPort, text)).collect()
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
}

/// What a user sets of a switch port; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPortSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// What is attached.
    #[serde(rename = "type", default)]
    pub kind: PortType,
    /// `MAC [IP…]` of the workload, or `unknown`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Source addresses the workload may use; empty: any.
    #[serde(default)]
    pub port_security: Vec<String>,
    /// The router's side of the link.
    #[serde(default)]
    pub router_port: Option<String>,
    /// It sends and receives.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// DHCP options of the workload.
    #[serde(default)]
    pub dhcpv4_options: String,
    /// DHCPv6 options of the workload.
    #[serde(default)]
    pub dhcpv6_options: String,
    /// The name that DHCP tells it.
    #[serde(default)]
    pub hostname: String,
}

/// What the controller says of a switch port.
#[derive(Debug, Clone, Serialize)]
pub struct SwitchPortStatus {
    tunnel_key: u32,
    chassis: Option<String>,
    up: bool,
    /// What was chosen for a `dynamic` entry.
    dynamic_addresses: Option<String>,
}

impl Object for SwitchPortSpec {
    const NOUN: Noun = Noun::SwitchPort;
    const ABOUT: About = About {
        add: "Make a port",
        set: "Change a port",
        list: "List ports",
        show: "Show a port",
        del: "Delete a port",
    };
    const HEADINGS: &'static [&'static str] =
        &["SWITCH", "PORT", "KEY", "STATE", "CHASSIS", "ADDRESSES", "LABELS"];
    type New = NewSwitchPort;
    type Changes = SwitchPortChanges;
    type Status = SwitchPortStatus;

    fn read(resource: &Resource) -> Result<(Self, SwitchPortStatus), CtlError> {
        let Some(resource::Spec::LogicalSwitchPort(port)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let kind = match Type::try_from(port.r#type) {
            Ok(Type::Unspecified) => PortType::Workload,
            Ok(Type::Router) => PortType::Router,
            Err(_) => return Err(unknown_value(resource, "type", port.r#type)),
        };
        let given = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
        let spec = Self {
            labels: labels_of(resource),
            kind,
            addresses: port.addresses.clone(),
            port_security: port.port_security.clone(),
            router_port: given(&port.router_port),
            enabled: port.enabled.unwrap_or(true),
            dhcpv4_options: port.dhcpv4_options.clone(),
            dhcpv6_options: port.dhcpv6_options.clone(),
            hostname: port.hostname.clone(),
        };
        let status = SwitchPortStatus {
            tunnel_key: port.tunnel_key,
            chassis: given(&port.chassis),
            up: port.up,
            dynamic_addresses: given(&port.dynamic_addresses),
        };
        Ok((spec, status))
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
            dhcpv4_options: self.dhcpv4_options.clone(),
            dhcpv6_options: self.dhcpv6_options.clone(),
            hostname: self.hostname.clone(),
            ..Default::default()
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewSwitchPort, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let NewSwitchPort { addresses, port_security, router_port, disable, services } = new;
        let [dhcpv4, dhcpv6] = services.dhcp()?;
        Ok(Self {
            labels,
            kind: PortType::linked_to(router_port.as_deref()),
            addresses,
            port_security,
            router_port,
            enabled: !disable,
            dhcpv4_options: dhcpv4.unwrap_or_default(),
            dhcpv6_options: dhcpv6.unwrap_or_default(),
            hostname: services.hostname.unwrap_or_default(),
        })
    }

    fn change(given: &SwitchPortChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.list("addresses", &given.addresses, given.no_addresses, |port| &mut port.addresses);
        let entries = &given.port_security;
        patch.list("port_security", entries, given.no_port_security, |port| &mut port.port_security);
        if given.router_port.is_some() || given.no_router_port {
            let kind = PortType::linked_to(given.router_port.as_deref());
            patch.set("type", Some(&kind), |port| &mut port.kind);
            patch.set("router_port", Some(&given.router_port), |port| &mut port.router_port);
        }
        patch.switch("enabled", (given.enable, given.disable), |port| &mut port.enabled);
        let [dhcpv4, dhcpv6] = given.services.dhcp()?;
        patch.set("dhcpv4_options", dhcpv4.as_ref(), |port| &mut port.dhcpv4_options);
        patch.set("dhcpv6_options", dhcpv6.as_ref(), |port| &mut port.dhcpv6_options);
        patch.set("hostname", given.services.hostname.as_ref(), |port| &mut port.hostname);
        Ok(())
    }

    fn cells(&self, status: &SwitchPortStatus) -> Vec<String> {
        vec![
            status.tunnel_key.to_string(),
            self.state(status).into(),
            status.chassis.as_deref().map(short).unwrap_or_default().into(),
            self.attached(status),
        ]
    }

    fn fields(&self, status: &SwitchPortStatus) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("addresses", self.attached(status)),
            ("port security", self.port_security.join(", ")),
            ("enabled", yes(self.enabled)),
            ("tunnel key", status.tunnel_key.to_string()),
            ("chassis", status.chassis.clone().unwrap_or_default()),
            ("up", yes(status.up)),
        ];
        for (title, text) in [
            ("DHCPv4", short(&self.dhcpv4_options)),
            ("DHCPv6", short(&self.dhcpv6_options)),
            ("hostname", self.hostname.as_str()),
        ] {
            fields.extend((!text.is_empty()).then(|| (title, text.to_owned())));
        }
        fields
    }
}

impl SwitchPortSpec {
    fn state(&self, status: &SwitchPortStatus) -> &'static str {
        match (self.enabled, self.kind, status.up) {
            (false, _, _) => "disabled",
            (true, PortType::Router, _) => "router",
            (true, PortType::Workload, true) => "up",
            (true, PortType::Workload, false) => "down",
        }
    }

    fn attached(&self, status: &SwitchPortStatus) -> String {
        match (&self.router_port, &status.dynamic_addresses) {
            (Some(name), _) => format!("router port {}", short(name)),
            (None, None) => self.addresses.join(", "),
            (None, Some(chosen)) => format!("{} ({chosen})", self.addresses.join(", ")),
        }
    }
}
