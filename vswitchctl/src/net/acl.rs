//! `acl`: what may be sent and received at the ports of a switch.

use std::cmp::Reverse;

use clap::{Args, ValueEnum};
use ferroflow_proto::northbound::{Acl, Resource, acl, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        limits::Rate,
        object::{NoStatus, Object, Options, Patch, View, labels_of, unknown_value, wrong_kind},
        sample_collector::Sample,
    },
    output::{parent_id, yes},
};

/// Options of a new ACL.
#[derive(Debug, Args)]
pub struct NewAcl {
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
    /// 0 to 3: asked when no ACL of the tiers before has decided
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=3))]
    tier: u32,
    /// Number to keep with each connection it allows
    #[arg(long, default_value_t = 0)]
    label_number: u32,
    /// Log the packets it decides about
    #[arg(long)]
    log: bool,
    /// What the log calls it
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    log_name: String,
    /// How much what is logged matters
    #[arg(long, value_enum, default_value = "info")]
    severity: Severity,
    /// Lines a second that a host writes of it, and how many at once
    #[arg(long, value_name = "RATE/BURST")]
    log_rate: Option<Rate>,
    /// Ask it when load balancers have chosen a backend
    #[arg(long)]
    apply_after_lb: bool,
    /// Let connections that it has allowed stay allowed as long as they last
    #[arg(long)]
    persist_established: bool,
    /// Log answers and errors of connections that it has allowed, too; by its label
    #[arg(long)]
    log_related: bool,
    /// Collectors to tell of packets of new connections, and the observation point: 42:all,few
    #[arg(long, value_name = "POINT:COLLECTOR,COLLECTOR")]
    sample_new: Option<Sample>,
    /// The same, of packets of connections that it has allowed
    #[arg(long, value_name = "POINT:COLLECTOR,COLLECTOR")]
    sample_established: Option<Sample>,
}

/// Changes of an ACL.
#[derive(Debug, Args)]
pub struct AclChanges {
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
    /// 0 to 3: asked when no ACL of the tiers before has decided
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=3))]
    tier: Option<u32>,
    /// Number to keep with each connection it allows
    #[arg(long)]
    label_number: Option<u32>,
    /// Log the packets it decides about
    #[arg(long)]
    log: bool,
    /// Log nothing
    #[arg(long, conflicts_with = "log")]
    no_log: bool,
    /// What the log calls it
    #[arg(long, value_name = "NAME")]
    log_name: Option<String>,
    /// How much what is logged matters
    #[arg(long, value_enum)]
    severity: Option<Severity>,
    /// Lines a second that a host writes of it, and how many at once
    #[arg(long, value_name = "RATE/BURST")]
    log_rate: Option<Rate>,
    /// Its part of what all ACLs may write
    #[arg(long, conflicts_with = "log_rate")]
    no_log_rate: bool,
    /// Whether it is asked when load balancers have chosen a backend: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    apply_after_lb: Option<bool>,
    /// Whether connections that it has allowed stay allowed as long as they last: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    persist_established: Option<bool>,
    /// Whether answers and errors of connections that it has allowed are logged too: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    log_related: Option<bool>,
    /// Collectors to tell of packets of new connections, and the observation point: 42:all,few
    #[arg(long, value_name = "POINT:COLLECTOR,COLLECTOR")]
    sample_new: Option<Sample>,
    /// The same, of packets of connections that it has allowed
    #[arg(long, value_name = "POINT:COLLECTOR,COLLECTOR")]
    sample_established: Option<Sample>,
    /// Tell no collectors
    #[arg(long, conflicts_with_all = ["sample_new", "sample_established"])]
    no_samples: bool,
}

impl Options for NewAcl {}
impl Options for AclChanges {}

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
    /// Leave it to the next tier
    Pass,
}

impl Direction {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::FromLport => "from-lport",
            Self::ToLport => "to-lport",
        }
    }

    pub(super) fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match acl::Direction::try_from(value) {
            Ok(acl::Direction::FromLport) => Ok(Self::FromLport),
            Ok(acl::Direction::ToLport) => Ok(Self::ToLport),
            Ok(acl::Direction::Unspecified) | Err(_) => Err(unknown_value(resource, "direction", value)),
        }
    }

    pub(super) fn write(self) -> acl::Direction {
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
            Self::Pass => "pass",
        }
    }

    fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match acl::Action::try_from(value) {
            Ok(acl::Action::Allow) => Ok(Self::Allow),
            Ok(acl::Action::AllowRelated) => Ok(Self::AllowRelated),
            Ok(acl::Action::AllowStateless) => Ok(Self::AllowStateless),
            Ok(acl::Action::Drop) => Ok(Self::Drop),
            Ok(acl::Action::Reject) => Ok(Self::Reject),
            Ok(acl::Action::Pass) => Ok(Self::Pass),
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
            Self::Pass => acl::Action::Pass,
        }
    }
}

/// How much a logged packet matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// For whoever looks for a fault
    Debug,
    /// As expected
    #[default]
    Info,
    /// Worth a look
    Notice,
    /// Not as it should be
    Warning,
    /// Somebody must act
    Alert,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Alert => "alert",
        }
    }

    fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match acl::Severity::try_from(value) {
            Ok(acl::Severity::Debug) => Ok(Self::Debug),
            Ok(acl::Severity::Unspecified | acl::Severity::Info) => Ok(Self::Info),
            Ok(acl::Severity::Notice) => Ok(Self::Notice),
            Ok(acl::Severity::Warning) => Ok(Self::Warning),
            Ok(acl::Severity::Alert) => Ok(Self::Alert),
            Err(_) => Err(unknown_value(resource, "severity", value)),
        }
    }

    fn write(self) -> acl::Severity {
        match self {
            Self::Debug => acl::Severity::Debug,
            Self::Info => acl::Severity::Unspecified,
            Self::Notice => acl::Severity::Notice,
            Self::Warning => acl::Severity::Warning,
            Self::Alert => acl::Severity::Alert,
        }
    }
}

/// What is seldom said is shown when it is.
fn yes_or_nothing(is_so: bool) -> String {
    if is_so { yes(true) } else { String::new() }
}

/// What a user sets of an ACL; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
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
    /// 0 to 3.
    #[serde(default)]
    pub tier: u32,
    /// Kept with each connection it allows; 0: none.
    #[serde(default)]
    pub label_number: u32,
    /// The packets it decides about are logged.
    #[serde(default)]
    pub log: bool,
    /// What the log calls it; empty: its name.
    #[serde(default)]
    pub log_name: String,
    /// How much they matter.
    #[serde(default)]
    pub severity: Severity,
    /// Lines a second; 0: its part of what all ACLs may write.
    #[serde(default)]
    pub log_rate: u32,
    /// Lines at once; 0: as many as in a second.
    #[serde(default)]
    pub log_burst: u32,
    /// It is asked when load balancers have chosen a backend.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apply_after_lb: bool,
    /// Connections that it has allowed stay allowed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub persist_established: bool,
    /// Answers and errors of connections that it has allowed are logged too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub log_related: bool,
    /// Collectors that are told of packets of new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_new: Option<Sample>,
    /// Collectors that are told of packets of connections that it has allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_established: Option<Sample>,
}

impl AclSpec {
    fn set_log_rate(&mut self, rate: Option<Rate>) {
        (self.log_rate, self.log_burst) = rate.map_or((0, 0), Rate::parts);
    }
}

impl Object for AclSpec {
    const NOUN: Noun = Noun::Acl;
    const ABOUT: About = About {
        add: "Make an ACL",
        set: "Change an ACL",
        list: "List ACLs in the order in which they are tried",
        show: "Show an ACL",
        del: "Delete an ACL",
    };
    const HEADINGS: &'static [&'static str] =
        &["SWITCH", "ACL", "DIRECTION", "TIER", "PRIORITY", "ACTION", "MATCH", "LABELS"];
    type New = NewAcl;
    type Changes = AclChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::Acl(acl)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self {
            labels: labels_of(resource),
            direction: Direction::read(resource, acl.direction)?,
            priority: acl.priority,
            matching: acl.r#match.clone(),
            action: Action::read(resource, acl.action)?,
            tier: acl.tier,
            label_number: acl.label,
            log: acl.log,
            log_name: acl.log_name.clone(),
            severity: Severity::read(resource, acl.severity)?,
            log_rate: acl.log_rate,
            log_burst: acl.log_burst,
            apply_after_lb: acl.apply_after_lb,
            persist_established: acl.persist_established,
            log_related: acl.log_related,
            sample_new: acl.sample_new.as_ref().map(Sample::read),
            sample_established: acl.sample_established.as_ref().map(Sample::read),
        };
        Ok((spec, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::Acl(Acl {
            direction: self.direction.write().into(),
            priority: self.priority,
            r#match: self.matching.clone(),
            action: self.action.write().into(),
            tier: self.tier,
            label: self.label_number,
            log: self.log,
            log_name: self.log_name.clone(),
            severity: self.severity.write().into(),
            log_rate: self.log_rate,
            log_burst: self.log_burst,
            apply_after_lb: self.apply_after_lb,
            persist_established: self.persist_established,
            log_related: self.log_related,
            sample_new: self.sample_new.as_ref().map(Sample::write),
            sample_established: self.sample_established.as_ref().map(Sample::write),
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewAcl, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let NewAcl { direction, priority, matching, action, .. } = new;
        let NewAcl { tier, label_number, log, log_name, severity, log_rate, .. } = new;
        let mut acl = Self {
            labels,
            direction,
            priority,
            matching,
            action,
            tier,
            label_number,
            log,
            log_name,
            severity,
            log_rate: 0,
            log_burst: 0,
            apply_after_lb: new.apply_after_lb,
            persist_established: new.persist_established,
            log_related: new.log_related,
            sample_new: new.sample_new,
            sample_established: new.sample_established,
        };
        acl.set_log_rate(log_rate);
        Ok(acl)
    }

    fn change(given: &AclChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("direction", given.direction.as_ref(), |acl| &mut acl.direction);
        patch.set("priority", given.priority.as_ref(), |acl| &mut acl.priority);
        patch.set("match", given.matching.as_ref(), |acl| &mut acl.matching);
        patch.set("action", given.action.as_ref(), |acl| &mut acl.action);
        patch.set("tier", given.tier.as_ref(), |acl| &mut acl.tier);
        patch.set("label", given.label_number.as_ref(), |acl| &mut acl.label_number);
        patch.switch("log", (given.log, given.no_log), |acl| &mut acl.log);
        patch.set("log_name", given.log_name.as_ref(), |acl| &mut acl.log_name);
        patch.set("severity", given.severity.as_ref(), |acl| &mut acl.severity);
        let is_given = given.log_rate.is_some() || given.no_log_rate;
        for field in ["log_rate", "log_burst"] {
            patch.change(field, is_given, |acl| acl.set_log_rate(given.log_rate));
        }
        patch.set("apply_after_lb", given.apply_after_lb.as_ref(), |acl| &mut acl.apply_after_lb);
        let lasts = given.persist_established.as_ref();
        patch.set("persist_established", lasts, |acl| &mut acl.persist_established);
        patch.set("log_related", given.log_related.as_ref(), |acl| &mut acl.log_related);
        patch.change("sample_new", given.sample_new.is_some() || given.no_samples, |acl| {
            acl.sample_new.clone_from(&given.sample_new);
        });
        patch.change("sample_established", given.sample_established.is_some() || given.no_samples, |acl| {
            acl.sample_established.clone_from(&given.sample_established);
        });
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![
            self.direction.word().into(),
            self.tier.to_string(),
            self.priority.to_string(),
            self.action.word().into(),
            self.matching.clone(),
        ]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        let log = match (self.log, self.log_name.is_empty()) {
            (false, _) => String::new(),
            (true, true) => self.severity.word().into(),
            (true, false) => format!("{} as {}", self.severity.word(), self.log_name),
        };
        let log_rate = if self.log_rate == 0 { String::new() } else { self.log_rate.to_string() };
        let label = if self.label_number == 0 { String::new() } else { self.label_number.to_string() };
        vec![
            ("direction", self.direction.word().into()),
            ("tier", self.tier.to_string()),
            ("priority", self.priority.to_string()),
            ("match", self.matching.clone()),
            ("action", self.action.word().into()),
            ("label number", label),
            ("log", log),
            ("log rate", log_rate),
            ("after LB", yes_or_nothing(self.apply_after_lb)),
            ("persists", yes_or_nothing(self.persist_established)),
            ("logs answers", yes_or_nothing(self.log_related)),
            ("samples new", self.sample_new.as_ref().map(ToString::to_string).unwrap_or_default()),
            (
                "samples established",
                self.sample_established.as_ref().map(ToString::to_string).unwrap_or_default(),
            ),
        ]
    }

    /// The order in which they are tried: each switch and direction for itself, the
    /// highest priority first.
    fn arrange(views: &mut [View<Self>]) {
        views.sort_by_cached_key(|View { name, spec, .. }| {
            (parent_id(name).to_owned(), spec.direction, spec.tier, Reverse(spec.priority), name.clone())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(direction: i32, action: i32) -> Resource {
        let acl = Acl { direction, action, priority: 1, r#match: "ip".into(), ..Default::default() };
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
                let spec = AclSpec::read(&resource).unwrap().0;
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
