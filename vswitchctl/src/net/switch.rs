//! `switch`: L2 networks.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::northbound::{LogicalSwitch, Resource, resource};
use serde::Serialize;

use crate::{
    client::Labels,
    error::CtlError,
    name::Noun,
    net::{
        acl::{AclSpec, AclView, by_evaluation},
        labels::{LabelChanges, NewLabels},
        object::{self, Del, List, Show, Spec, labels_of, wrong_kind},
        switch_port::{SwitchPortSpec, SwitchPortView},
    },
    output::{Table, Tabular, pairs, short, write_fields},
    session::Session,
};

/// Logical switches.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a switch
    Add(Add),
    /// Change a switch
    Set(Set),
    /// List switches
    List(List),
    /// Show a switch with its ports and ACLs
    Show(Show),
    /// Delete a switch with its ports and ACLs
    Del(Del),
}

/// A switch to make.
#[derive(Debug, Args)]
pub struct Add {
    /// Its id
    name: String,
    #[command(flatten)]
    labels: NewLabels,
    /// Succeed, and leave it as it is, when there is one
    #[arg(long)]
    may_exist: bool,
}

/// A switch to change.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name
    name: String,
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
            Self::Add(Add { name, labels, may_exist }) => {
                let name = Noun::Switch.new_name(&name, None)?;
                object::add(session, name, &SwitchSpec { labels: labels.labels() }, may_exist).await
            }
            Self::Set(Set { name, labels }) => {
                let mask: &[&str] = if labels.is_empty() { &[] } else { &["labels"] };
                let patch = |spec: &mut SwitchSpec| {
                    labels.apply(&mut spec.labels);
                    Ok(())
                };
                object::set(session, &name, mask, patch).await
            }
            Self::List(list) => list.run::<SwitchSpec>(session).await,
            Self::Show(show) => run_show(session, &show.name).await,
            Self::Del(del) => del.run(session, Noun::Switch).await,
        }
    }
}

/// What a user sets of a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SwitchSpec {
    /// Free key-value pairs.
    pub labels: Labels,
}

/// What is shown of a switch.
#[derive(Debug, Clone, Serialize)]
pub struct SwitchView {
    name: String,
    labels: Labels,
    tunnel_key: u32,
    create_revision: u64,
    update_revision: u64,
}

impl Spec for SwitchSpec {
    const NOUN: Noun = Noun::Switch;
    type View = SwitchView;

    fn read(resource: &Resource) -> Result<Self, CtlError> {
        let Some(resource::Spec::LogicalSwitch(_)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        Ok(Self { labels: labels_of(resource) })
    }

    fn view(resource: &Resource) -> Result<SwitchView, CtlError> {
        let Some(resource::Spec::LogicalSwitch(switch)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        Ok(SwitchView {
            name: resource.name.clone(),
            labels: labels_of(resource),
            tunnel_key: switch.tunnel_key,
            create_revision: resource.create_revision,
            update_revision: resource.update_revision,
        })
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::LogicalSwitch(LogicalSwitch::default())
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Tabular for SwitchView {
    const HEADINGS: &'static [&'static str] = &["SWITCH", "KEY", "LABELS"];

    fn cells(&self) -> Vec<String> {
        vec![short(&self.name).into(), self.tunnel_key.to_string(), pairs(&self.labels)]
    }
}

/// A switch with what is below it.
#[derive(Debug, Serialize)]
struct WholeSwitch {
    #[serde(flatten)]
    switch: SwitchView,
    ports: Vec<SwitchPortView>,
    acls: Vec<AclView>,
}

async fn run_show(session: &mut Session<'_>, text: &str) -> Result<(), CtlError> {
    let mut nb = session.controller().await?;
    let switch = SwitchSpec::view(&nb.find(Noun::Switch, text).await?)?;
    let (parent, all) = (Some(switch.name.clone()), Labels::new());
    let ports = object::views::<SwitchPortSpec>(&mut nb, parent.as_deref(), &all).await?;
    let mut acls = object::views::<AclSpec>(&mut nb, parent.as_deref(), &all).await?;
    acls.sort_by(by_evaluation);
    let whole = WholeSwitch { switch, ports, acls };
    session.print(&whole, |out| whole.write(out))
}

impl WholeSwitch {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let SwitchView { name, labels, tunnel_key, create_revision, update_revision } = &self.switch;
        write_fields(
            out,
            &[
                ("name", name.clone()),
                ("labels", pairs(labels)),
                ("tunnel key", tunnel_key.to_string()),
                ("created", format!("revision {create_revision}")),
                ("changed", format!("revision {update_revision}")),
            ],
        )?;
        if !self.ports.is_empty() {
            writeln!(out)?;
            Table::of(&self.ports).write(out)?;
        }
        if !self.acls.is_empty() {
            writeln!(out)?;
            Table::of(&self.acls).write(out)?;
        }
        Ok(())
    }
}
