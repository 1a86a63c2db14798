//! `acl`: what may be sent and received at the ports of a switch.

use std::{
    cmp::{Ordering, Reverse},
    io::{self, Write},
};

use clap::{Args, Subcommand, ValueEnum};
use ferroflow_proto::northbound::{Acl, Resource, acl, resource};
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
    output::{Tabular, pairs, parent_id, short, write_fields},
    session::Session,
};

/// Access rules of logical switches.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an ACL
    Add(Add),
    /// Change an ACL
    Set(Set),
    /// List ACLs in the order in which they are tried
    List(ListBelow),
    /// Show an ACL
    Show(Show),
    /// Delete an ACL
    Del(Del),
}

/// An ACL to make.
#[derive(Debug, Args)]
pub struct Add {
    /// The switch; or SWITCH/ACL in one word
    switch: String,
    /// Id of the ACL
    acl: Option<String>,
    /// Where it applies
    #[arg(long, value_enum)]
    direction: Direction,
    /// 0 to 32767; the highest that matches decides
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=32_767))]
    priority: u32,
    /// Which packets: 'outport == "db-1" && tcp.dst == 23'
    #[arg(long = "match", value_name = "MATCH")]
    matching: String,
    /// What becomes of them
    #[arg(long, value_enum)]
    action: Action,
    #[command(flatten)]
    labels: NewLabels,
    /// Succeed, and leave it as it is, when there is one
    #[arg(long)]
    may_exist: bool,
}

/// An ACL to change.
#[derive(Debug, Args)]
pub struct Set {
    /// Its name
    name: String,
    /// Where it applies
    #[arg(long, value_enum)]
    direction: Option<Direction>,
    /// 0 to 32767; the highest that matches decides
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=32_767))]
    priority: Option<u32>,
    /// Which packets: 'outport == "db-1" && tcp.dst == 23'
    #[arg(long = "match", value_name = "MATCH")]
    matching: Option<String>,
    /// What becomes of them
    #[arg(long, value_enum)]
    action: Option<Action>,
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
            Self::List(list) => {
                let mut acls = list.views::<AclSpec>(session).await?;
                acls.sort_by(by_evaluation);
                session.print_rows(&acls)
            }
            Self::Show(show) => run_show(session, &show.name).await,
            Self::Del(del) => del.run(session, Noun::Acl).await,
        }
    }
}

impl Add {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let name = Noun::Acl.new_name(&self.switch, self.acl.as_deref())?;
        let spec = AclSpec {
            labels: self.labels.labels(),
            direction: self.direction,
            priority: self.priority,
            matching: self.matching,
            action: self.action,
        };
        object::add(session, name, &spec, self.may_exist).await
    }
}

impl Set {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let fields = [
            (!self.labels.is_empty(), "labels"),
            (self.direction.is_some(), "direction"),
            (self.priority.is_some(), "priority"),
            (self.matching.is_some(), "match"),
            (self.action.is_some(), "action"),
        ];
        let mask: Vec<&str> =
            fields.into_iter().filter(|(given, _)| *given).map(|(_, field)| field).collect();
        let patch = |spec: &mut AclSpec| {
            self.labels.apply(&mut spec.labels);
            spec.direction = self.direction.unwrap_or(spec.direction);
            spec.priority = self.priority.unwrap_or(spec.priority);
            spec.action = self.action.unwrap_or(spec.action);
            if let Some(matching) = &self.matching {
                spec.matching.clone_from(matching);
            }
            Ok(())
        };
        object::set(session, &self.name, &mask, patch).await
    }
}

/// Where an ACL applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To what a port of the switch sends
    FromLport,
    /// To what a port of the switch receives
    ToLport,
}

/// Verdict of an ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Allow
    Allow,
    /// Allow, and the replies with it
    AllowRelated,
    /// Allow this direction only, without connection tracking
    AllowStateless,
    /// Drop silently
    Drop,
    /// Drop, and tell the sender
    Reject,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Self::FromLport => "from-lport",
            Self::ToLport => "to-lport",
        }
    }

    fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match acl::Direction::try_from(value) {
            Ok(acl::Direction::FromLport) => Ok(Self::FromLport),
            Ok(acl::Direction::ToLport) => Ok(Self::ToLport),
            Ok(acl::Direction::Unspecified) | Err(_) => Err(unknown_value(resource, "direction", value)),
        }
    }

    fn write(self) -> acl::Direction {
        match self {
            Self::FromLport => acl::Direction::FromLport,
            Self::ToLport => acl::Direction::ToLport,
        }
    }
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::AllowRelated => "allow-related",
            Self::AllowStateless => "allow-stateless",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }

    fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match acl::Action::try_from(value) {
            Ok(acl::Action::Allow) => Ok(Self::Allow),
            Ok(acl::Action::AllowRelated) => Ok(Self::AllowRelated),
            Ok(acl::Action::AllowStateless) => Ok(Self::AllowStateless),
            Ok(acl::Action::Drop) => Ok(Self::Drop),
            Ok(acl::Action::Reject) => Ok(Self::Reject),
            Ok(acl::Action::Unspecified) | Err(_) => Err(unknown_value(resource, "action", value)),
        }
    }

    fn write(self) -> acl::Action {
        match self {
            Self::Allow => acl::Action::Allow,
            Self::AllowRelated => acl::Action::AllowRelated,
            Self::AllowStateless => acl::Action::AllowStateless,
            Self::Drop => acl::Action::Drop,
            Self::Reject => acl::Action::Reject,
        }
    }
}

/// What a user sets of an ACL; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section", skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Where it applies.
    pub direction: Direction,
    /// 0 to 32767.
    pub priority: u32,
    /// Which packets, in the match language.
    #[serde(rename = "match")]
    pub matching: String,
    /// What becomes of them.
    pub action: Action,
}

/// What is shown of an ACL.
#[derive(Debug, Clone, Serialize)]
pub struct AclView {
    name: String,
    labels: Labels,
    direction: Direction,
    priority: u32,
    #[serde(rename = "match")]
    matching: String,
    action: Action,
    create_revision: u64,
    update_revision: u64,
}

/// The order in which ACLs are tried: each switch and direction for itself, the
/// highest priority first.
pub fn by_evaluation(a: &AclView, b: &AclView) -> Ordering {
    let order = |view: &AclView| {
        (parent_id(&view.name).to_owned(), view.direction, Reverse(view.priority), view.name.clone())
    };
    order(a).cmp(&order(b))
}

impl Spec for AclSpec {
    const NOUN: Noun = Noun::Acl;
    type View = AclView;

    fn read(resource: &Resource) -> Result<Self, CtlError> {
        let Some(resource::Spec::Acl(acl)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        Ok(Self {
            labels: labels_of(resource),
            direction: Direction::read(resource, acl.direction)?,
            priority: acl.priority,
            matching: acl.r#match.clone(),
            action: Action::read(resource, acl.action)?,
        })
    }

    fn view(resource: &Resource) -> Result<AclView, CtlError> {
        let spec = Self::read(resource)?;
        Ok(AclView {
            name: resource.name.clone(),
            labels: spec.labels,
            direction: spec.direction,
            priority: spec.priority,
            matching: spec.matching,
            action: spec.action,
            create_revision: resource.create_revision,
            update_revision: resource.update_revision,
        })
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::Acl(Acl {
            direction: self.direction.write().into(),
            priority: self.priority,
            r#match: self.matching.clone(),
            action: self.action.write().into(),
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Tabular for AclView {
    const HEADINGS: &'static [&'static str] =
        &["SWITCH", "ACL", "DIRECTION", "PRIORITY", "ACTION", "MATCH", "LABELS"];

    fn cells(&self) -> Vec<String> {
        vec![
            parent_id(&self.name).into(),
            short(&self.name).into(),
            self.direction.word().into(),
            self.priority.to_string(),
            self.action.word().into(),
            self.matching.clone(),
            pairs(&self.labels),
        ]
    }
}

impl AclView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write_fields(
            out,
            &[
                ("name", self.name.clone()),
                ("labels", pairs(&self.labels)),
                ("direction", self.direction.word().into()),
                ("priority", self.priority.to_string()),
                ("match", self.matching.clone()),
                ("action", self.action.word().into()),
                ("created", format!("revision {}", self.create_revision)),
                ("changed", format!("revision {}", self.update_revision)),
            ],
        )
    }
}

async fn run_show(session: &mut Session<'_>, text: &str) -> Result<(), CtlError> {
    let acl = session.controller().await?.find(Noun::Acl, text).await?;
    let view = AclSpec::view(&acl)?;
    session.print(&view, |out| view.write(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(direction: i32, action: i32) -> Resource {
        let acl = Acl { direction, action, priority: 1, r#match: "ip".into() };
        Resource {
            name: "switches/db/acls/a".into(),
            spec: Some(resource::Spec::Acl(acl)),
            ..Default::default()
        }
    }

    #[test]
    fn every_direction_and_action_comes_back() {
        for direction in Direction::value_variants() {
            for action in Action::value_variants() {
                let resource = resource(direction.write().into(), action.write().into());
                let spec = AclSpec::read(&resource).unwrap();
                assert_eq!((spec.direction, spec.action), (*direction, *action));
                assert_eq!(spec.write(resource.name.clone()), resource);
                // What is printed is what the command line and files take.
                assert_eq!(Action::from_str(action.word(), false).as_ref(), Ok(action));
                assert_eq!(Direction::from_str(direction.word(), false).as_ref(), Ok(direction));
            }
        }
    }

    #[test]
    fn a_value_that_was_added_since_is_told_not_guessed() {
        let error = AclSpec::read(&resource(2, 77)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the controller sent switches/db/acls/a with action 77, which this vswitchctl does not know"
        );
        assert!(AclSpec::read(&resource(0, 1)).is_err());
    }
}
