//! `router`: routers and their static routes.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use ferroflow_proto::northbound::{LogicalRouter, Resource, StaticRoute, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::{Noun, Reference},
    net::{
        command::About,
        load_balancer::{HashField, full_names},
        load_balancer_group::full_groups,
        object::{
            Object, Options, Patch, TunnelKey, enabled, is_any_key, labels_of, limited, requested_key,
            wrong_kind,
        },
    },
    output::{short, yes},
};

/// Options of a new router.
#[derive(Debug, Args)]
pub struct NewRouter {
    /// A static route, "PREFIX via ADDRESS [dev PORT] [table NAME] [hash FIELD,…]", "symmetric" at its end if answers are to be, "bfd" if it needs a session with its next hop, "override" if it goes before the network of a port; may be repeated
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<Route>,
    /// Chassis that the whole router is on; without, it is on every host
    #[arg(long, value_name = "CHASSIS")]
    chassis: Option<String>,
    #[command(flatten)]
    sources: SourceOptions,
    /// A load balancer of it; may be repeated
    #[arg(long = "load-balancer", value_name = "NAME")]
    load_balancers: Vec<String>,
    /// A group of load balancers of it; may be repeated
    #[arg(long = "load-balancer-group", value_name = "NAME")]
    load_balancer_groups: Vec<String>,
    /// Bounds on what its packets ask hosts for
    #[arg(long, value_name = "NAME")]
    limits: Option<String>,
    /// Send what is for groups on to those of its networks where somebody wants to hear it
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    mcast_relay: Option<bool>,
    /// Key that it is to have in tunnels, 1 to 16777215; 0: any
    #[arg(long, value_name = "KEY", value_parser = clap::value_parser!(u32).range(0..=0xff_ffff))]
    tunnel_key: Option<u32>,
    /// Connections that a host remembers at most of those whose destination it translates,
    /// and of those whose source; 0: any
    #[arg(long, value_name = "N")]
    ct_zone_limit: Option<u32>,
    #[command(flatten)]
    memory: MemoryOptions,
    /// Make it disabled: it drops everything
    #[arg(long)]
    disable: bool,
}

/// Changes of a router.
#[derive(Debug, Args)]
pub struct RouterChanges {
    /// The static routes instead of those before, "PREFIX via ADDRESS [dev PORT] [table NAME] [hash FIELD,…]", "symmetric" at its end if answers are to be, "bfd" if it needs a session with its next hop, "override" if it goes before the network of a port; may be repeated
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<Route>,
    /// No static routes
    #[arg(long, conflicts_with = "routes")]
    no_routes: bool,
    /// Chassis that the whole router is on
    #[arg(long, value_name = "CHASSIS")]
    chassis: Option<String>,
    /// Let it be on every host
    #[arg(long, conflicts_with = "chassis")]
    no_chassis: bool,
    #[command(flatten)]
    sources: SourceOptions,
    /// Leave sources alone
    #[arg(long, conflicts_with_all = ["lb_force_snat", "dnat_force_snat"])]
    no_force_snat: bool,
    /// A load balancer instead of those before; may be repeated
    #[arg(long = "load-balancer", value_name = "NAME")]
    load_balancers: Vec<String>,
    /// No load balancers
    #[arg(long, conflicts_with = "load_balancers")]
    no_load_balancers: bool,
    /// A group of load balancers instead of those before; may be repeated
    #[arg(long = "load-balancer-group", value_name = "NAME")]
    load_balancer_groups: Vec<String>,
    /// No groups of load balancers
    #[arg(long, conflicts_with = "load_balancer_groups")]
    no_load_balancer_groups: bool,
    /// Bounds on what its packets ask hosts for; "" for the usual ones
    #[arg(long, value_name = "NAME")]
    limits: Option<String>,
    /// Send what is for groups on to those of its networks where somebody wants to hear it
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    mcast_relay: Option<bool>,
    /// Key that it is to have in tunnels, 1 to 16777215; 0: any
    #[arg(long, value_name = "KEY", value_parser = clap::value_parser!(u32).range(0..=0xff_ffff))]
    tunnel_key: Option<u32>,
    /// Connections that a host remembers at most of those whose destination it translates,
    /// and of those whose source; 0: any
    #[arg(long, value_name = "N")]
    ct_zone_limit: Option<u32>,
    #[command(flatten)]
    memory: MemoryOptions,
    /// Give it a zone of its own again
    #[arg(long, conflicts_with = "snat_ct_zone")]
    no_snat_ct_zone: bool,
    /// Let it forward
    #[arg(long)]
    enable: bool,
    /// Let it drop everything
    #[arg(long, conflicts_with = "enable")]
    disable: bool,
}

/// What a router with a chassis makes of sources.
#[derive(Debug, Args)]
pub struct SourceOptions {
    /// The address that the sources of its load balancers' connections become; may be repeated,
    /// for both families
    #[arg(long, value_name = "IP")]
    lb_force_snat: Vec<String>,
    /// The address that the sources of connections become whose destination it translates; may be
    /// repeated, for both families
    #[arg(long, value_name = "IP")]
    dnat_force_snat: Vec<String>,
}

/// What a router remembers of connections and neighbours.
#[derive(Debug, Args)]
pub struct MemoryOptions {
    /// Zone of connections whose source it translates, 0 to 1023 or 64000 to 65535: routers with
    /// the same one do not give an address and port to two of them
    #[arg(long, value_name = "ZONE")]
    snat_ct_zone: Option<u32>,
    /// Remember connections that it does not translate, too
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    ct_commit_all: Option<bool>,
    /// Remember whoever asks for anybody by ARP as a neighbour, not just who asks for the router
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    always_learn_from_arp_request: Option<bool>,
    /// Seconds after which a neighbour is forgotten that it has heard of, usually 300; 0: never
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=65_535))]
    mac_binding_age: Option<u32>,
}

impl Options for NewRouter {}
impl Options for RouterChanges {}

/// Full name of a chassis that is typed by id or in full; nothing stays nothing.
///
/// # Errors
/// [`CtlError::Usage`] when the name can be none.
pub fn full_chassis(text: &str) -> Result<String, CtlError> {
    if text.is_empty() {
        return Ok(String::new());
    }
    Noun::Chassis.refer(text).map(|reference| match reference {
        Reference::Full(name) => name,
        Reference::Id(id) => Noun::Chassis.top(&id),
    })
}

/// The routes of `router` with their ports named in full.
fn placed(routes: &[Route], router: &str) -> Result<Vec<Route>, CtlError> {
    routes.iter().map(|route| route.placed(router)).collect()
}

/// A static route; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Destination.
    pub prefix: String,
    /// Address of the next hop; none with `discard`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next_hop: String,
    /// Port of the router to leave by; none: the one whose network holds the next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_port: Option<String>,
    /// Packets are dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// The prefix is that of the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_source: bool,
    /// Answers leave the way that their connections came.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ecmp_symmetric_reply: bool,
    /// Only for packets by router ports with this name; empty: by those without.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route_table: String,
    /// What decides among several routes; none: all of the connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selection_fields: Vec<HashField>,
    /// It is there while the session with its next hop is up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bfd: bool,
    /// It goes before the network of a port with the same prefix.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub override_connected: bool,
}

impl Route {
    /// The route with its port, which may be just an id, named in full.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when the port's name can be none.
    pub fn placed(&self, router: &str) -> Result<Self, CtlError> {
        let full = |port: &String| {
            Noun::RouterPort.refer(port).map(|reference| match reference {
                Reference::Full(name) => name,
                Reference::Id(id) => Noun::RouterPort.below(router, &id),
            })
        };
        let output_port = self.output_port.as_ref().map(full).transpose()?;
        Ok(Self { output_port, ..self.clone() })
    }

    fn text(&self) -> String {
        let from = if self.by_source { "from " } else { "" };
        let table = match self.route_table.as_str() {
            "" => String::new(),
            name => format!(" table {name}"),
        };
        let overrides = if self.override_connected { " override" } else { "" };
        if self.discard {
            return format!("{from}{} discard{table}{overrides}", self.prefix);
        }
        let via = format!("{from}{} via {}", self.prefix, self.next_hop);
        let dev = self.output_port.as_ref().map(|port| format!(" dev {}", short(port))).unwrap_or_default();
        let fields: Vec<_> = self.selection_fields.iter().map(|field| field.word()).collect();
        let hash = if fields.is_empty() { String::new() } else { format!(" hash {}", fields.join(",")) };
        let symmetric = if self.ecmp_symmetric_reply { " symmetric" } else { "" };
        let bfd = if self.bfd { " bfd" } else { "" };
        format!("{via}{dev}{table}{hash}{symmetric}{bfd}{overrides}")
    }
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "a route is \"[from] PREFIX via ADDRESS [dev PORT] [table NAME] [hash FIELD,…] [symmetric] [bfd] [override]\" or \
             \"[from] PREFIX discard [table NAME] [override]\""
                .to_owned()
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (by_source, words) = match words.as_slice() {
            ["from", words @ ..] => (true, words),
            words => (false, words),
        };
        let (prefix, next_hop, mut rest) = match words {
            [prefix, "discard", rest @ ..] => (*prefix, "", rest),
            [prefix, "via", next_hop, rest @ ..] => (*prefix, *next_hop, rest),
            _ => return Err(wrong()),
        };
        let mut route = Self {
            prefix: prefix.into(),
            next_hop: next_hop.into(),
            output_port: None,
            discard: next_hop.is_empty(),
            by_source,
            ecmp_symmetric_reply: false,
            route_table: String::new(),
            selection_fields: Vec::new(),
            bfd: false,
            override_connected: false,
        };
        while !rest.is_empty() {
            rest = match rest {
                ["table", name, rest @ ..] => {
                    route.route_table = (*name).to_owned();
                    rest
                }
                ["override", rest @ ..] => {
                    route.override_connected = true;
                    rest
                }
                _ if route.discard => return Err(wrong()),
                ["dev", port, rest @ ..] => {
                    route.output_port = Some((*port).to_owned());
                    rest
                }
                ["hash", fields, rest @ ..] => {
                    let field = |text| HashField::from_str(text, false);
                    route.selection_fields = fields.split(',').map(field).collect::<Result<_, _>>()?;
                    rest
                }
                ["symmetric", rest @ ..] => {
                    route.ecmp_symmetric_reply = true;
                    rest
                }
                ["bfd", rest @ ..] => {
                    route.bfd = true;
                    rest
                }
                _ => return Err(wrong()),
            };
        }
        Ok(route)
    }
}

/// What a user sets of a router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Static routes.
    #[serde(default)]
    pub static_routes: Vec<Route>,
    /// It forwards.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Chassis that the whole router is on; none: every host.
    #[serde(default)]
    pub chassis: String,
    /// Load balancers.
    #[serde(default)]
    pub load_balancers: Vec<String>,
    /// Groups of such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_groups: Vec<String>,
    /// Bounds on what its packets ask hosts for.
    #[serde(default)]
    pub control_plane_limits: String,
    /// Addresses that the sources of its load balancers' connections become.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lb_force_snat_ips: Vec<String>,
    /// The same, of connections whose destination it translates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dnat_force_snat_ips: Vec<String>,
    /// It sends on what is sent to groups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multicast_relay: bool,
    /// Key that it is to have in tunnels; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub requested_tunnel_key: u32,
    /// Connections that a host remembers at most; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub ct_zone_limit: u32,
    /// Zone of connections whose source it translates; none: one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snat_ct_zone: Option<u32>,
    /// Connections that it does not translate are remembered, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ct_commit_all: bool,
    /// Whoever asks for anybody by ARP is remembered as a neighbour.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always_learn_from_arp_request: bool,
    /// Seconds after which a neighbour is forgotten; none: as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_binding_age_threshold: Option<u32>,
}

impl Object for RouterSpec {
    const NOUN: Noun = Noun::Router;
    const ABOUT: About = About {
        add: "Make a router",
        set: "Change a router",
        list: "List routers",
        show: "Show a router with its ports and static routes",
        del: "Delete a router with its ports",
    };
    const HEADINGS: &'static [&'static str] = &["ROUTER", "KEY", "ENABLED", "ROUTES", "LABELS"];
    type New = NewRouter;
    type Changes = RouterChanges;
    type Status = TunnelKey;

    fn read(resource: &Resource) -> Result<(Self, TunnelKey), CtlError> {
        let Some(resource::Spec::LogicalRouter(router)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let route = |route: &StaticRoute| -> Result<Route, CtlError> {
            let fields = route.selection_fields.iter().map(|field| HashField::read(resource, *field));
            Ok(Route {
                prefix: route.prefix.clone(),
                next_hop: route.next_hop.clone(),
                output_port: Some(route.output_port.clone()).filter(|name| !name.is_empty()),
                discard: route.discard,
                by_source: route.by_source,
                ecmp_symmetric_reply: route.ecmp_symmetric_reply,
                route_table: route.route_table.clone(),
                selection_fields: fields.collect::<Result<_, _>>()?,
                bfd: route.bfd,
                override_connected: route.override_connected,
            })
        };
        let spec = Self {
            labels: labels_of(resource),
            static_routes: router.static_routes.iter().map(route).collect::<Result<_, _>>()?,
            enabled: router.enabled.unwrap_or(true),
            chassis: router.chassis.clone(),
            load_balancers: router.load_balancers.clone(),
            load_balancer_groups: router.load_balancer_groups.clone(),
            control_plane_limits: router.control_plane_limits.clone(),
            lb_force_snat_ips: router.lb_force_snat_ips.clone(),
            dnat_force_snat_ips: router.dnat_force_snat_ips.clone(),
            multicast_relay: router.multicast_relay,
            requested_tunnel_key: router.requested_tunnel_key,
            ct_zone_limit: router.ct_zone_limit,
            snat_ct_zone: router.snat_ct_zone,
            ct_commit_all: router.ct_commit_all,
            always_learn_from_arp_request: router.always_learn_from_arp_request,
            mac_binding_age_threshold: router.mac_binding_age_threshold,
        };
        Ok((spec, TunnelKey { tunnel_key: router.tunnel_key }))
    }

    fn spec(&self) -> resource::Spec {
        let route = |route: &Route| StaticRoute {
            prefix: route.prefix.clone(),
            next_hop: route.next_hop.clone(),
            output_port: route.output_port.clone().unwrap_or_default(),
            discard: route.discard,
            by_source: route.by_source,
            ecmp_symmetric_reply: route.ecmp_symmetric_reply,
            route_table: route.route_table.clone(),
            selection_fields: route.selection_fields.iter().map(|field| field.write()).collect(),
            bfd: route.bfd,
            override_connected: route.override_connected,
        };
        resource::Spec::LogicalRouter(LogicalRouter {
            enabled: (!self.enabled).then_some(false),
            static_routes: self.static_routes.iter().map(route).collect(),
            chassis: self.chassis.clone(),
            load_balancers: self.load_balancers.clone(),
            load_balancer_groups: self.load_balancer_groups.clone(),
            control_plane_limits: self.control_plane_limits.clone(),
            lb_force_snat_ips: self.lb_force_snat_ips.clone(),
            dnat_force_snat_ips: self.dnat_force_snat_ips.clone(),
            multicast_relay: self.multicast_relay,
            requested_tunnel_key: self.requested_tunnel_key,
            ct_zone_limit: self.ct_zone_limit,
            snat_ct_zone: self.snat_ct_zone,
            ct_commit_all: self.ct_commit_all,
            always_learn_from_arp_request: self.always_learn_from_arp_request,
            mac_binding_age_threshold: self.mac_binding_age_threshold,
            ..Default::default()
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewRouter, labels: Labels, name: &str) -> Result<Self, CtlError> {
        let static_routes = placed(&new.routes, short(name))?;
        let chassis = full_chassis(new.chassis.as_deref().unwrap_or_default())?;
        let load_balancers = full_names(&new.load_balancers)?;
        let control_plane_limits = Noun::Limits.full(new.limits.as_deref().unwrap_or_default())?;
        let enabled = !new.disable;
        let SourceOptions { lb_force_snat: lb_force_snat_ips, dnat_force_snat: dnat_force_snat_ips } =
            new.sources;
        Ok(Self {
            labels,
            static_routes,
            enabled,
            chassis,
            load_balancers,
            load_balancer_groups: full_groups(&new.load_balancer_groups)?,
            control_plane_limits,
            lb_force_snat_ips,
            dnat_force_snat_ips,
            multicast_relay: new.mcast_relay.unwrap_or_default(),
            requested_tunnel_key: new.tunnel_key.unwrap_or_default(),
            ct_zone_limit: new.ct_zone_limit.unwrap_or_default(),
            snat_ct_zone: new.memory.snat_ct_zone,
            ct_commit_all: new.memory.ct_commit_all.unwrap_or_default(),
            always_learn_from_arp_request: new.memory.always_learn_from_arp_request.unwrap_or_default(),
            mac_binding_age_threshold: new.memory.mac_binding_age,
        })
    }

    fn change(given: &RouterChanges, name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        let routes = placed(&given.routes, short(name))?;
        patch.list("static_routes", &routes, given.no_routes, |router| &mut router.static_routes);
        let chassis = given.chassis.as_deref().or(given.no_chassis.then_some(""));
        let chassis = chassis.map(full_chassis).transpose()?;
        patch.set("chassis", chassis.as_ref(), |router| &mut router.chassis);
        let SourceOptions { lb_force_snat, dnat_force_snat } = &given.sources;
        let none = given.no_force_snat;
        patch.list("lb_force_snat_ips", lb_force_snat, none, |router| &mut router.lb_force_snat_ips);
        patch.list("dnat_force_snat_ips", dnat_force_snat, none, |router| &mut router.dnat_force_snat_ips);
        let names = full_names(&given.load_balancers)?;
        patch.list("load_balancers", &names, given.no_load_balancers, |router| &mut router.load_balancers);
        let (groups, none) = (full_groups(&given.load_balancer_groups)?, given.no_load_balancer_groups);
        patch.list("load_balancer_groups", &groups, none, |router| &mut router.load_balancer_groups);
        let limits = given.limits.as_ref().map(|text| Noun::Limits.full(text)).transpose()?;
        patch.set("control_plane_limits", limits.as_ref(), |router| &mut router.control_plane_limits);
        patch.set("multicast_relay", given.mcast_relay.as_ref(), |router| &mut router.multicast_relay);
        let key = given.tunnel_key.as_ref();
        patch.set("requested_tunnel_key", key, |router| &mut router.requested_tunnel_key);
        patch.set("ct_zone_limit", given.ct_zone_limit.as_ref(), |router| &mut router.ct_zone_limit);
        let zone = given.memory.snat_ct_zone.map(Some).or(given.no_snat_ct_zone.then_some(None));
        patch.set("snat_ct_zone", zone.as_ref(), |router| &mut router.snat_ct_zone);
        patch.set("ct_commit_all", given.memory.ct_commit_all.as_ref(), |router| &mut router.ct_commit_all);
        let learns = given.memory.always_learn_from_arp_request.as_ref();
        let field = "always_learn_from_arp_request";
        patch.set(field, learns, |router| &mut router.always_learn_from_arp_request);
        let age = given.memory.mac_binding_age.map(Some);
        patch.set("mac_binding_age_threshold", age.as_ref(), |router| &mut router.mac_binding_age_threshold);
        patch.switch("enabled", (given.enable, given.disable), |router| &mut router.enabled);
        Ok(())
    }

    fn cells(&self, status: &TunnelKey) -> Vec<String> {
        vec![status.tunnel_key.to_string(), yes(self.enabled), self.static_routes.len().to_string()]
    }

    fn fields(&self, status: &TunnelKey) -> Vec<(&'static str, String)> {
        let routes = self.static_routes.iter().map(|route| ("route", route.text()));
        let own = [
            ("enabled", yes(self.enabled)),
            ("chassis", short(&self.chassis).to_owned()),
            ("tunnel key", status.tunnel_key.to_string()),
        ];
        let balancers = self.load_balancers.iter().map(|name| ("load balancer", short(name).to_owned()));
        let groups = self.load_balancer_groups.iter();
        let balancers = balancers.chain(groups.map(|name| ("load balancer group", short(name).to_owned())));
        let limits = Some(&self.control_plane_limits).filter(|name| !name.is_empty());
        let limits = limits.map(|name| ("limits", short(name).to_owned()));
        let forced =
            [("lb force SNAT", &self.lb_force_snat_ips), ("dnat force SNAT", &self.dnat_force_snat_ips)];
        let forced = forced.into_iter().filter(|(_, ips)| !ips.is_empty());
        let forced = forced.map(|(title, ips)| (title, ips.join(" ")));
        let relay = self.multicast_relay.then(|| ("multicast", "relayed".to_owned()));
        let key = requested_key(self.requested_tunnel_key).into_iter().chain(limited(self.ct_zone_limit));
        let zone = self.snat_ct_zone.map(|zone| ("SNAT zone", zone.to_string()));
        let all = self.ct_commit_all.then(|| ("remembers", "all connections".to_owned()));
        let learns = self.always_learn_from_arp_request;
        let learns = learns.then(|| ("neighbours", "whoever asks for anybody".to_owned()));
        let age = self.mac_binding_age_threshold.map(|seconds| ("neighbour age", format!("{seconds} s")));
        let rest = limits.into_iter().chain(forced).chain(relay).chain(key).chain(zone).chain(all);
        let rest = rest.chain(learns).chain(age);
        own.into_iter().chain(routes).chain(balancers).chain(rest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_written_as_they_are_read() {
        for text in [
            "10.1.0.0/16 via 10.0.1.254",
            "::/0 via fe80::1 dev r1-web",
            "10.2.0.0/16 discard",
            "from 10.3.0.0/16 via 10.0.1.1",
            "0.0.0.0/0 via 10.0.1.1 symmetric",
            "0.0.0.0/0 via 10.0.1.1 dev r1-out symmetric",
            "10.2.0.0/16 discard table red",
            "0.0.0.0/0 via 10.0.1.1 bfd",
            "10.0.1.0/24 discard override",
            "10.0.1.0/24 via 10.0.1.9 symmetric override",
            "0.0.0.0/0 via 10.0.1.1 dev r1-out table red hash ip-src,tp-dst symmetric bfd",
        ] {
            assert_eq!(text.parse::<Route>().unwrap().text(), text);
        }
        for text in [
            "",
            "10.0.0.0/8",
            "a via",
            "a via b dev",
            "a dev b",
            "a via b dev c d",
            "a discard dev b",
            "a via b hash eth",
        ] {
            assert!(text.parse::<Route>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn the_port_of_a_route_is_one_of_its_router() {
        let route: Route = "::/0 via fe80::1 dev r1-web".parse().unwrap();
        assert_eq!(route.placed("r1").unwrap().output_port.unwrap(), "routers/r1/ports/r1-web");
        let route: Route = "::/0 via fe80::1 dev a/b/c".parse().unwrap();
        assert!(route.placed("r1").is_err());
    }
}
