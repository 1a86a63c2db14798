//! `router-port`: interfaces of routers.

use clap::Args;
use ferroflow_proto::northbound::{LogicalRouterPort, Neighbour, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        advertisement::{Advertisement, AdvertisementOptions},
        bfd_session::{self, Session},
        command::About,
        gateway::{self, Candidate},
        object::{Object, Options, Patch, enabled, is_any_key, labels_of, requested_key, wrong_kind},
        redirect::RedirectType,
        static_mac::{self, StaticMac},
    },
    output::{short, yes},
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
    /// A group of hosts that may be the gateway, instead
    #[arg(long, value_name = "NAME", conflicts_with = "gateways")]
    ha_chassis_group: Option<String>,
    /// Who has an address without being asked, IP=MAC, or IP=MAC,override to go before what is
    /// heard; may be repeated
    #[arg(long = "static-mac", value_name = "IP=MAC")]
    static_macs: Vec<StaticMac>,
    /// Length of the largest packet that leaves by it; 0: any
    #[arg(long, value_name = "MTU", default_value_t = 0)]
    gateway_mtu: u32,
    /// Packets that may be larger, 'tcp || udp.dst == 53'; "" for none
    #[arg(long, value_name = "MATCH")]
    gateway_mtu_bypass: Option<String>,
    /// Name of the static routes that packets take which come by it, and no others
    #[arg(long, value_name = "NAME")]
    route_table: Option<String>,
    /// A next hop to ask whether it lives, `IP[,tx=MS][,rx=MS][,mult=N]`; may be repeated
    #[arg(long = "bfd", value_name = "SESSION")]
    bfd_sessions: Vec<Session>,
    /// Let what its router sends to any group leave by it, too
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    mcast_flood: Option<bool>,
    /// Key that it is to have in tunnels, 1 to 32767; 0: any
    #[arg(long, value_name = "KEY", value_parser = clap::value_parser!(u32).range(0..=0x7fff))]
    tunnel_key: Option<u32>,
    /// Let it be where the gateway of its router's one gateway port is, and nowhere else
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    reside_on_redirect_chassis: Option<bool>,
    /// A DHCP server elsewhere that serves clients on its network; "" for none
    #[arg(long, value_name = "IP")]
    dhcp_relay: Option<String>,
    /// How packets get to the host that is the gateway
    #[arg(long, value_enum, value_name = "TYPE")]
    redirect_type: Option<RedirectType>,
    /// Make it disabled
    #[arg(long)]
    disable: bool,
    #[command(flatten)]
    advertisement: AdvertisementOptions,
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
    /// A group of hosts that may be the gateway, instead; "" for none
    #[arg(long, value_name = "NAME", conflicts_with = "gateways")]
    ha_chassis_group: Option<String>,
    /// It has no gateway: it is wherever its router is
    #[arg(long, conflicts_with = "gateways")]
    no_gateways: bool,
    /// Who has which address, instead of those before, IP=MAC or IP=MAC,override; may be repeated
    #[arg(long = "static-mac", value_name = "IP=MAC")]
    static_macs: Vec<StaticMac>,
    /// Nobody's MAC address is given
    #[arg(long, conflicts_with = "static_macs")]
    no_static_macs: bool,
    /// Length of the largest packet that leaves by it; 0: any
    #[arg(long, value_name = "MTU")]
    gateway_mtu: Option<u32>,
    /// Packets that may be larger, 'tcp || udp.dst == 53'; "" for none
    #[arg(long, value_name = "MATCH")]
    gateway_mtu_bypass: Option<String>,
    /// Name of the static routes that packets take which come by it; "" for those without one
    #[arg(long, value_name = "NAME")]
    route_table: Option<String>,
    /// Next hops to ask whether they live, instead of those before, `IP[,tx=MS][,rx=MS][,mult=N]`; may be
    /// repeated
    #[arg(long = "bfd", value_name = "SESSION")]
    bfd_sessions: Vec<Session>,
    /// Ask no next hops
    #[arg(long, conflicts_with = "bfd_sessions")]
    no_bfd: bool,
    /// Let what its router sends to any group leave by it, too
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    mcast_flood: Option<bool>,
    /// Key that it is to have in tunnels, 1 to 32767; 0: any
    #[arg(long, value_name = "KEY", value_parser = clap::value_parser!(u32).range(0..=0x7fff))]
    tunnel_key: Option<u32>,
    /// Let it be where the gateway of its router's one gateway port is, and nowhere else
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    reside_on_redirect_chassis: Option<bool>,
    /// A DHCP server elsewhere that serves clients on its network; "" for none
    #[arg(long, value_name = "IP")]
    dhcp_relay: Option<String>,
    /// How packets get to the host that is the gateway
    #[arg(long, value_enum, value_name = "TYPE")]
    redirect_type: Option<RedirectType>,
    /// Let it send and receive
    #[arg(long)]
    enable: bool,
    /// Let it neither send nor receive
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
    #[command(flatten)]
    advertisement: AdvertisementOptions,
    /// Tell hosts nothing of the router
    #[arg(long, conflicts_with = "mode")]
    no_ra: bool,
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
    /// Or the group of these.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ha_chassis_group: String,
    /// Who has which address on its networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub static_mac_bindings: Vec<StaticMac>,
    /// Length of the largest packet that leaves by it; 0: any.
    #[serde(default, skip_serializing_if = "is_any")]
    pub gateway_mtu: u32,
    /// Packets that may be larger.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway_mtu_bypass: String,
    /// Name of the static routes that packets take which come by it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route_table: String,
    /// It sends and receives.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// What it says of itself.
    #[serde(default)]
    pub router_advertisement: Option<Advertisement>,
    /// Next hops that are asked whether they live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bfd_sessions: Vec<Session>,
    /// What its router sends to any group leaves by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multicast_flood: bool,
    /// Key that it is to have in tunnels; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub requested_tunnel_key: u32,
    /// It is where the gateway of its router's one gateway port is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reside_on_redirect_chassis: bool,
    /// DHCP server elsewhere that serves clients on its network.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dhcp_relay_server: String,
    /// How packets get to the host that is the gateway.
    #[serde(default, skip_serializing_if = "RedirectType::is_usual")]
    pub redirect_type: RedirectType,
}

/// No length is said.
fn is_any(mtu: &u32) -> bool {
    *mtu == 0
}

/// What the controller says of a router port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouterPortStatus {
    /// The key that it has in tunnels.
    pub tunnel_key: u32,
    /// Who hosts have heard of on its networks.
    pub neighbours: Vec<HeardOf>,
    /// Next hops that are asked, with how the session is.
    pub bfd: Vec<(String, &'static str)>,
}

/// A neighbour that a host has heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeardOf {
    /// Address.
    pub ip: String,
    /// MAC address.
    pub mac: String,
    /// The host.
    pub chassis: String,
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
    type Status = RouterPortStatus;

    fn read(resource: &Resource) -> Result<(Self, RouterPortStatus), CtlError> {
        let Some(resource::Spec::LogicalRouterPort(port)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self {
            labels: labels_of(resource),
            mac: port.mac.clone(),
            networks: port.networks.clone(),
            gateway_chassis: gateway::read(&port.gateway_chassis),
            ha_chassis_group: port.ha_chassis_group.clone(),
            static_mac_bindings: static_mac::read(&port.static_mac_bindings),
            gateway_mtu: port.gateway_mtu,
            gateway_mtu_bypass: port.gateway_mtu_bypass.clone(),
            route_table: port.route_table.clone(),
            enabled: port.enabled.unwrap_or(true),
            router_advertisement: port
                .router_advertisement
                .as_ref()
                .map(|ra| Advertisement::read(resource, ra))
                .transpose()?,
            bfd_sessions: bfd_session::read(&port.bfd_sessions),
            multicast_flood: port.multicast_flood,
            requested_tunnel_key: port.requested_tunnel_key,
            reside_on_redirect_chassis: port.reside_on_redirect_chassis,
            dhcp_relay_server: port.dhcp_relay_server.clone(),
            redirect_type: RedirectType::read(resource, port.redirect_type)?,
        };
        let neighbour = |one: &Neighbour| HeardOf {
            ip: one.ip.clone(),
            mac: one.mac.clone(),
            chassis: one.chassis.clone(),
        };
        let neighbours = port.neighbours.iter().map(neighbour).collect();
        let sessions = port.bfd_sessions.iter();
        let bfd = sessions.map(|one| (one.peer.clone(), bfd_session::state(one))).collect();
        Ok((spec, RouterPortStatus { tunnel_key: port.tunnel_key, neighbours, bfd }))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::LogicalRouterPort(LogicalRouterPort {
            mac: self.mac.clone(),
            networks: self.networks.clone(),
            gateway_chassis: gateway::write(&self.gateway_chassis),
            ha_chassis_group: self.ha_chassis_group.clone(),
            static_mac_bindings: static_mac::write(&self.static_mac_bindings),
            gateway_mtu: self.gateway_mtu,
            gateway_mtu_bypass: self.gateway_mtu_bypass.clone(),
            route_table: self.route_table.clone(),
            enabled: (!self.enabled).then_some(false),
            router_advertisement: self.router_advertisement.as_ref().map(Advertisement::write),
            bfd_sessions: bfd_session::write(&self.bfd_sessions),
            multicast_flood: self.multicast_flood,
            requested_tunnel_key: self.requested_tunnel_key,
            reside_on_redirect_chassis: self.reside_on_redirect_chassis,
            dhcp_relay_server: self.dhcp_relay_server.clone(),
            redirect_type: self.redirect_type.write(),
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
        let group = Noun::HaChassisGroup.full(new.ha_chassis_group.as_deref().unwrap_or_default())?;
        let NewRouterPort { mac, networks, gateways, static_macs, gateway_mtu, .. } = new;
        let (requested_tunnel_key, resides) =
            (new.tunnel_key.unwrap_or_default(), new.reside_on_redirect_chassis);
        let (redirect_type, gateway_mtu_bypass) =
            (new.redirect_type.unwrap_or_default(), new.gateway_mtu_bypass);
        let NewRouterPort {
            disable, advertisement, route_table, bfd_sessions, mcast_flood, dhcp_relay, ..
        } = new;
        let mut router_advertisement = None;
        advertisement.apply(&mut router_advertisement);
        let enabled = !disable;
        Ok(Self {
            labels,
            mac,
            networks,
            gateway_chassis: gateways,
            ha_chassis_group: group,
            static_mac_bindings: static_macs,
            gateway_mtu,
            gateway_mtu_bypass: gateway_mtu_bypass.unwrap_or_default(),
            route_table: route_table.unwrap_or_default(),
            enabled,
            router_advertisement,
            bfd_sessions,
            multicast_flood: mcast_flood.unwrap_or_default(),
            requested_tunnel_key,
            reside_on_redirect_chassis: resides.unwrap_or_default(),
            dhcp_relay_server: dhcp_relay.unwrap_or_default(),
            redirect_type,
        })
    }

    fn change(given: &RouterPortChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("mac", given.mac.as_ref(), |port| &mut port.mac);
        patch.list("networks", &given.networks, false, |port| &mut port.networks);
        let gateways = &given.gateways;
        let group =
            given.ha_chassis_group.as_ref().map(|text| Noun::HaChassisGroup.full(text)).transpose()?;
        // The one takes the place of the other.
        let (by_list, by_group) = (!gateways.is_empty(), group.as_ref().is_some_and(|name| !name.is_empty()));
        patch.list("gateway_chassis", gateways, given.no_gateways || by_group, |port| {
            &mut port.gateway_chassis
        });
        let group = group.or_else(|| (by_list || given.no_gateways).then(String::new));
        patch.set("ha_chassis_group", group.as_ref(), |port| &mut port.ha_chassis_group);
        let macs = &given.static_macs;
        patch.list("static_mac_bindings", macs, given.no_static_macs, |port| &mut port.static_mac_bindings);
        patch.set("gateway_mtu", given.gateway_mtu.as_ref(), |port| &mut port.gateway_mtu);
        let bypass = given.gateway_mtu_bypass.as_ref();
        patch.set("gateway_mtu_bypass", bypass, |port| &mut port.gateway_mtu_bypass);
        patch.set("route_table", given.route_table.as_ref(), |port| &mut port.route_table);
        patch.list("bfd_sessions", &given.bfd_sessions, given.no_bfd, |port| &mut port.bfd_sessions);
        patch.set("multicast_flood", given.mcast_flood.as_ref(), |port| &mut port.multicast_flood);
        let resides = given.reside_on_redirect_chassis.as_ref();
        patch.set("reside_on_redirect_chassis", resides, |port| &mut port.reside_on_redirect_chassis);
        patch.set("dhcp_relay_server", given.dhcp_relay.as_ref(), |port| &mut port.dhcp_relay_server);
        patch.set("redirect_type", given.redirect_type.as_ref(), |port| &mut port.redirect_type);
        let key = given.tunnel_key.as_ref();
        patch.set("requested_tunnel_key", key, |port| &mut port.requested_tunnel_key);
        patch.switch("enabled", (given.enable, given.disable), |port| &mut port.enabled);
        let is_given = given.advertisement.is_given() || given.no_ra;
        patch.change("router_advertisement", is_given, |port| {
            if given.no_ra {
                port.router_advertisement = None;
            }
            given.advertisement.apply(&mut port.router_advertisement);
        });
        Ok(())
    }

    fn cells(&self, status: &RouterPortStatus) -> Vec<String> {
        vec![status.tunnel_key.to_string(), yes(self.enabled), self.mac.clone(), self.networks.join(", ")]
    }

    fn fields(&self, status: &RouterPortStatus) -> Vec<(&'static str, String)> {
        let mtu = if self.gateway_mtu == 0 { String::new() } else { self.gateway_mtu.to_string() };
        let mut fields = vec![
            ("mac", self.mac.clone()),
            ("networks", self.networks.join(", ")),
            ("enabled", yes(self.enabled)),
            ("gateways", gateway::print(&self.gateway_chassis)),
            ("HA chassis group", short(&self.ha_chassis_group).to_owned()),
            ("gateway mtu", mtu),
            ("not for", self.gateway_mtu_bypass.clone()),
            ("route table", self.route_table.clone()),
            ("static macs", static_mac::print(&self.static_mac_bindings)),
            ("tunnel key", status.tunnel_key.to_string()),
        ];
        fields.extend(self.router_advertisement.iter().flat_map(Advertisement::fields));
        let neighbour = |HeardOf { ip, mac, chassis }: &HeardOf| {
            ("neighbour", format!("{ip} {mac}, heard by {}", short(chassis)))
        };
        fields.extend(status.neighbours.iter().map(neighbour));
        fields.extend(requested_key(self.requested_tunnel_key));
        let relay = Some(&self.dhcp_relay_server).filter(|ip| !ip.is_empty());
        fields.extend(relay.map(|ip| ("DHCP relay to", ip.clone())));
        fields
            .extend(self.reside_on_redirect_chassis.then(|| ("resides", "where the gateway is".to_owned())));
        let redirect = Some(self.redirect_type).filter(|redirect| !redirect.is_usual());
        fields.extend(redirect.map(|redirect| ("redirect", redirect.word().to_owned())));
        fields.extend(self.multicast_flood.then(|| ("gets all multicast", yes(true))));
        fields.extend(status.bfd.iter().map(|(peer, state)| ("bfd", format!("{peer} {state}"))));
        fields
    }
}
