//! `chassis`: the hosts, which register themselves.

use std::io::{self, Write};

use clap::Subcommand;
use ferroflow_proto::northbound::{Chassis, Resource, resource};
use serde::Serialize;

use crate::{
    client::Labels,
    error::CtlError,
    name::Noun,
    net::object::{List, Show, Spec, labels_of, wrong_kind},
    output::{Table, Tabular, pairs, short, write_fields, yes},
    session::Session,
};

/// Hosts that run vswitchd.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List chassis
    List(List),
    /// Show a chassis with the workloads on it
    Show(Show),
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::List(list) => list.run::<ChassisSpec>(session).await,
            Self::Show(show) => run_show(session, &show.name).await,
        }
    }
}

/// A user sets nothing of a chassis; this is what it says of itself.
#[derive(Debug, Clone)]
pub struct ChassisSpec {
    labels: Labels,
    chassis: Chassis,
}

/// What is shown of a chassis.
#[derive(Debug, Clone, Serialize)]
pub struct ChassisView {
    name: String,
    labels: Labels,
    hostname: String,
    encap_ip: String,
    connected: bool,
    applied_revision: u64,
}

impl Spec for ChassisSpec {
    const NOUN: Noun = Noun::Chassis;
    type View = ChassisView;

    fn read(resource: &Resource) -> Result<Self, CtlError> {
        let Some(resource::Spec::Chassis(chassis)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        Ok(Self { labels: labels_of(resource), chassis: chassis.clone() })
    }

    fn view(resource: &Resource) -> Result<ChassisView, CtlError> {
        let Self { labels, chassis } = Self::read(resource)?;
        Ok(ChassisView {
            name: resource.name.clone(),
            labels,
            hostname: chassis.hostname,
            encap_ip: chassis.encap_ip,
            connected: chassis.connected,
            applied_revision: chassis.applied_revision,
        })
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::Chassis(self.chassis.clone())
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Tabular for ChassisView {
    const HEADINGS: &'static [&'static str] =
        &["CHASSIS", "HOSTNAME", "ADDRESS", "CONNECTED", "REVISION", "LABELS"];

    fn cells(&self) -> Vec<String> {
        vec![
            short(&self.name).into(),
            self.hostname.clone(),
            self.encap_ip.clone(),
            yes(self.connected),
            self.applied_revision.to_string(),
            pairs(&self.labels),
        ]
    }
}

/// A switch port that is on a chassis.
#[derive(Debug, Serialize)]
struct BoundPort {
    name: String,
    up: bool,
}

impl Tabular for BoundPort {
    const HEADINGS: &'static [&'static str] = &["PORT", "UP"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), yes(self.up)]
    }
}

/// A chassis with the ports on it.
#[derive(Debug, Serialize)]
struct WholeChassis {
    #[serde(flatten)]
    chassis: ChassisView,
    ports: Vec<BoundPort>,
}

async fn run_show(session: &mut Session<'_>, text: &str) -> Result<(), CtlError> {
    let mut nb = session.controller().await?;
    let chassis = ChassisSpec::view(&nb.find(Noun::Chassis, text).await?)?;
    let ports = nb.list(Noun::SwitchPort, None, &Labels::new()).await?;
    let ports = ports.into_iter().filter_map(|port| bound_to(port, &chassis.name)).collect();
    let whole = WholeChassis { chassis, ports };
    session.print(&whole, |out| whole.write(out))
}

fn bound_to(port: Resource, chassis: &str) -> Option<BoundPort> {
    match port.spec {
        Some(resource::Spec::LogicalSwitchPort(spec)) if spec.chassis == chassis => {
            Some(BoundPort { name: port.name, up: spec.up })
        }
        _ => None,
    }
}

impl WholeChassis {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let chassis = &self.chassis;
        write_fields(
            out,
            &[
                ("name", chassis.name.clone()),
                ("labels", pairs(&chassis.labels)),
                ("hostname", chassis.hostname.clone()),
                ("tunnel address", chassis.encap_ip.clone()),
                ("connected", yes(chassis.connected)),
                ("applied", format!("revision {}", chassis.applied_revision)),
            ],
        )?;
        if self.ports.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        Table::of(&self.ports).write(out)
    }
}
