//! `router`: routers and their static routes.

use std::{
    io::{self, Write},
    str::FromStr,
};

use clap::{Args, Subcommand};
use ferroflow_proto::northbound::{LogicalRouter, Resource, StaticRoute, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    name::{Noun, Reference},
    net::{
        labels::{LabelChanges, NewLabels},
        object::{self, Del, List, Show, Spec, labels_of, wrong_kind},
        router_port::{RouterPortSpec, RouterPortView},
    },
    output::{Table, Tabular, pairs, short, write_fields, yes},
    session::Session,
};

/// Logical routers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a router
    Add(Add),
    /// Change a router
    Set(Set),
    /// List routers
    List(List),
    /// Show a router with its ports and static routes
    Show(Show),
    /// Delete a router with its ports
    Del(Del),
}

/// A router to make.
#[derive(Debug, Args)]
pub struct Add {
    /// Its id
    name: String,
    /// A static route, "PREFIX via ADDRESS [dev PORT]"; may be repeated
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<Route>,
    /// Make it disabled: it drops everything
    #[arg(long)]
    disable: bool,
    #[command(flatten)]
    labels: NewLabels,
    /// Succeed, and leave it as it is, when there is one
    #[arg(long)]
    may_exist: bool,
}

/// A router to change.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name
    name: String,
    /// The static routes instead of those before, "PREFIX via ADDRESS [dev PORT]"; may be repeated
    #[arg(long = "route", value_name = "ROUTE")]
    routes: Vec<Route>,
    /// No static routes
    #[arg(long, conflicts_with = "routes")]
    no_routes: bool,
    /// Let it forward
    #[arg(long)]
    enable: bool,
    /// Let it drop everything
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
                let name = Noun::Router.new_name(&add.name, None)?;
                let static_routes = placed(&add.routes, short(&name))?;
                let spec = RouterSpec { labels: add.labels.labels(), static_routes, enabled: !add.disable };
                object::add(session, name, &spec, add.may_exist).await
            }
            Self::Set(set) => set.run(session).await,
            Self::List(list) => list.run::<RouterSpec>(session).await,
            Self::Show(show) => run_show(session, &show.name).await,
            Self::Del(del) => del.run(session, Noun::Router).await,
        }
    }
}

impl Set {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let fields = [
            (!self.labels.is_empty(), "labels"),
            (!self.routes.is_empty() || self.no_routes, "static_routes"),
            (self.enable || self.disable, "enabled"),
        ];
        let mask: Vec<&str> =
            fields.into_iter().filter(|(given, _)| *given).map(|(_, field)| field).collect();
        let name = Noun::Router.new_name(&self.name, None)?;
        let routes = placed(&self.routes, short(&name))?;
        let patch = |spec: &mut RouterSpec| {
            self.labels.apply(&mut spec.labels);
            if !routes.is_empty() || self.no_routes {
                spec.static_routes.clone_from(&routes);
            }
            if self.enable || self.disable {
                spec.enabled = self.enable;
            }
            Ok(())
        };
        object::set(session, &self.name, &mask, patch).await
    }
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
    /// Address of the next hop.
    pub next_hop: String,
    /// Port of the router to leave by; none: the one whose network holds the next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_port: Option<String>,
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
        let via = format!("{} via {}", self.prefix, self.next_hop);
        match &self.output_port {
            Some(port) => format!("{via} dev {}", short(port)),
            None => via,
        }
    }
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (prefix, next_hop, port) = match words.as_slice() {
            [prefix, "via", next_hop] => (*prefix, *next_hop, None),
            [prefix, "via", next_hop, "dev", port] => (*prefix, *next_hop, Some((*port).to_owned())),
            _ => return Err("a route is \"PREFIX via ADDRESS [dev PORT]\"".into()),
        };
        Ok(Self { prefix: prefix.into(), next_hop: next_hop.into(), output_port: port })
    }
}

/// What a user sets of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterSpec {
    /// Free key-value pairs.
    pub labels: Labels,
    /// Static routes.
    pub static_routes: Vec<Route>,
    /// It forwards.
    pub enabled: bool,
}

/// What is shown of a router.
#[derive(Debug, Clone, Serialize)]
pub struct RouterView {
    name: String,
    labels: Labels,
    static_routes: Vec<Route>,
    enabled: bool,
    tunnel_key: u32,
    create_revision: u64,
    update_revision: u64,
}

impl Spec for RouterSpec {
    const NOUN: Noun = Noun::Router;
    type View = RouterView;

    fn read(resource: &Resource) -> Result<Self, CtlError> {
        let Some(resource::Spec::LogicalRouter(router)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let route = |route: &StaticRoute| Route {
            prefix: route.prefix.clone(),
            next_hop: route.next_hop.clone(),
            output_port: Some(route.output_port.clone()).filter(|name| !name.is_empty()),
        };
        Ok(Self {
            labels: labels_of(resource),
            static_routes: router.static_routes.iter().map(route).collect(),
            enabled: router.enabled.unwrap_or(true),
        })
    }

    fn view(resource: &Resource) -> Result<RouterView, CtlError> {
        let Some(resource::Spec::LogicalRouter(router)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self::read(resource)?;
        Ok(RouterView {
            name: resource.name.clone(),
            labels: spec.labels,
            static_routes: spec.static_routes,
            enabled: spec.enabled,
            tunnel_key: router.tunnel_key,
            create_revision: resource.create_revision,
            update_revision: resource.update_revision,
        })
    }

    fn spec(&self) -> resource::Spec {
        let route = |route: &Route| StaticRoute {
            prefix: route.prefix.clone(),
            next_hop: route.next_hop.clone(),
            output_port: route.output_port.clone().unwrap_or_default(),
        };
        resource::Spec::LogicalRouter(LogicalRouter {
            enabled: (!self.enabled).then_some(false),
            static_routes: self.static_routes.iter().map(route).collect(),
            ..Default::default()
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Tabular for RouterView {
    const HEADINGS: &'static [&'static str] = &["ROUTER", "KEY", "ENABLED", "ROUTES", "LABELS"];

    fn cells(&self) -> Vec<String> {
        vec![
            short(&self.name).into(),
            self.tunnel_key.to_string(),
            yes(self.enabled),
            self.static_routes.len().to_string(),
            pairs(&self.labels),
        ]
    }
}

/// A router with its ports.
#[derive(Debug, Serialize)]
struct WholeRouter {
    #[serde(flatten)]
    router: RouterView,
    ports: Vec<RouterPortView>,
}

async fn run_show(session: &mut Session<'_>, text: &str) -> Result<(), CtlError> {
    let mut nb = session.controller().await?;
    let router = RouterSpec::view(&nb.find(Noun::Router, text).await?)?;
    let parent = router.name.clone();
    let ports = object::views::<RouterPortSpec>(&mut nb, Some(&parent), &Labels::new()).await?;
    let whole = WholeRouter { router, ports };
    session.print(&whole, |out| whole.write(out))
}

impl WholeRouter {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let router = &self.router;
        let mut fields = vec![
            ("name", router.name.clone()),
            ("labels", pairs(&router.labels)),
            ("enabled", yes(router.enabled)),
            ("tunnel key", router.tunnel_key.to_string()),
            ("created", format!("revision {}", router.create_revision)),
            ("changed", format!("revision {}", router.update_revision)),
        ];
        fields.extend(router.static_routes.iter().map(|route| ("route", route.text())));
        write_fields(out, &fields)?;
        if self.ports.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        Table::of(&self.ports).write(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_written_as_they_are_read() {
        for text in ["10.1.0.0/16 via 10.0.1.254", "::/0 via fe80::1 dev r1-web"] {
            assert_eq!(text.parse::<Route>().unwrap().text(), text);
        }
        for text in ["", "10.0.0.0/8", "a via", "a via b dev", "a dev b", "a via b dev c d"] {
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
