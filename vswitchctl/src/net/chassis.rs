//! `chassis`: the hosts, which register themselves.

use std::io::{self, Write};

use clap::Subcommand;
use ferroflow_proto::northbound::{Chassis, Resource, resource};
use serde::Serialize;

use crate::{
    client::Labels,
    error::CtlError,
    name::Noun,
    net::{
        command::{Del, List, Show},
        object::{Shown, labels_of, wrong_kind},
    },
    output::{Table, Tabular, pairs, short, write_fields, yes},
    session::Session,
};

/// Hosts that run vswitchd.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List chassis
    List(List<ChassisSpec>),
    /// Show a chassis with the workloads on it
    Show(Show),
    /// Forget a chassis that is not connected, and free the ports on it
    Del(Del),
}

impl Command {
    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        matches!(self, Self::Del(_))
    }

    /// Does it.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::List(list) => list.run(session).await,
            Self::Show(show) => run_show(session, &show.name).await,
            Self::Del(del) => del.run(session, Noun::Chassis).await,
        }
    }
}

/// Chassis as something to list: a user sets nothing of them.
#[derive(Debug, Clone)]
pub struct ChassisSpec {}

/// What is shown of a chassis.
#[derive(Debug, Clone, Serialize)]
pub struct ChassisView {
    name: String,
    labels: Labels,
    hostname: String,
    encap_ip: String,
    encap_types: Vec<String>,
    connected: bool,
    applied_revision: u64,
}

impl Shown for ChassisSpec {
    const NOUN: Noun = Noun::Chassis;
    type View = ChassisView;

    fn view(resource: &Resource) -> Result<ChassisView, CtlError> {
        let Some(resource::Spec::Chassis(chassis)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let Chassis { hostname, encap_ip, encap_types, connected, applied_revision } = chassis.clone();
        let (name, labels) = (resource.name.clone(), labels_of(resource));
        Ok(ChassisView { name, labels, hostname, encap_ip, encap_types, connected, applied_revision })
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

/// The best first.
fn encapsulations(types: &[String]) -> String {
    if types.is_empty() { "geneve".to_owned() } else { types.join(", ") }
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
                ("encapsulations", encapsulations(&chassis.encap_types)),
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
