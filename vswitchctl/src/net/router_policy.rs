//! `router-policy`: what overrules the routes of a router.

use clap::{Args, ValueEnum};
use ferroflow_proto::northbound::{Resource, RouterPolicy, resource, router_policy};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        object::{NoStatus, Object, Options, Patch, labels_of, unknown_value, wrong_kind},
    },
};

/// Options of a new policy.
#[derive(Debug, Args)]
pub struct NewPolicy {
    /// 1 to 32767; the highest that matches decides
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=32_767))]
    priority: u32,
    /// Which packets: 'ip4.src == 10.0.0.0/24'
    #[arg(long = "match", value_name = "MATCH")]
    matching: String,
    /// What becomes of them
    #[arg(long, value_enum)]
    action: Action,
    /// Where reroute sends them; may be repeated
    #[arg(long = "next-hop", value_name = "IP")]
    next_hops: Vec<String>,
}

/// Changes of a policy.
#[derive(Debug, Args)]
pub struct PolicyChanges {
    /// 1 to 32767; the highest that matches decides
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=32_767))]
    priority: Option<u32>,
    /// Which packets
    #[arg(long = "match", value_name = "MATCH")]
    matching: Option<String>,
    /// What becomes of them
    #[arg(long, value_enum)]
    action: Option<Action>,
    /// Where reroute sends them, instead of those before; may be repeated
    #[arg(long = "next-hop", value_name = "IP")]
    next_hops: Vec<String>,
    /// No next hops
    #[arg(long, conflicts_with = "next_hops")]
    no_next_hops: bool,
}

impl Options for NewPolicy {}
impl Options for PolicyChanges {}

/// What a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Leave the packet to its route
    Allow,
    /// Drop it
    Drop,
    /// Send it to one of the next hops instead
    Reroute,
}

impl Action {
    fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match router_policy::Action::try_from(value) {
            Ok(router_policy::Action::Allow) => Ok(Self::Allow),
            Ok(router_policy::Action::Drop) => Ok(Self::Drop),
            Ok(router_policy::Action::Reroute) => Ok(Self::Reroute),
            Ok(router_policy::Action::Unspecified) | Err(_) => Err(unknown_value(resource, "action", value)),
        }
    }

    fn write(self) -> router_policy::Action {
        match self {
            Self::Allow => router_policy::Action::Allow,
            Self::Drop => router_policy::Action::Drop,
            Self::Reroute => router_policy::Action::Reroute,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Drop => "drop",
            Self::Reroute => "reroute",
        }
    }
}

/// What a user sets of a policy; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterPolicySpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Precedence.
    pub priority: u32,
    /// Which packets.
    #[serde(rename = "match")]
    pub matching: String,
    /// What becomes of them.
    pub action: Action,
    /// Where reroute sends them.
    #[serde(default)]
    pub next_hops: Vec<String>,
}

impl Object for RouterPolicySpec {
    const NOUN: Noun = Noun::RouterPolicy;
    const ABOUT: About = About {
        add: "Make a policy of a router",
        set: "Change a policy",
        list: "List policies",
        show: "Show a policy",
        del: "Delete a policy",
    };
    const HEADINGS: &'static [&'static str] = &["ROUTER", "POLICY", "PRIORITY", "ACTION", "MATCH", "LABELS"];
    type New = NewPolicy;
    type Changes = PolicyChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::RouterPolicy(policy)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self {
            labels: labels_of(resource),
            priority: policy.priority,
            matching: policy.r#match.clone(),
            action: Action::read(resource, policy.action)?,
            next_hops: policy.next_hops.clone(),
        };
        Ok((spec, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::RouterPolicy(RouterPolicy {
            priority: self.priority,
            r#match: self.matching.clone(),
            action: self.action.write().into(),
            next_hops: self.next_hops.clone(),
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewPolicy, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let NewPolicy { priority, matching, action, next_hops } = new;
        Ok(Self { labels, priority, matching, action, next_hops })
    }

    fn change(given: &PolicyChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("priority", given.priority.as_ref(), |policy| &mut policy.priority);
        patch.set("match", given.matching.as_ref(), |policy| &mut policy.matching);
        patch.set("action", given.action.as_ref(), |policy| &mut policy.action);
        patch.list("next_hops", &given.next_hops, given.no_next_hops, |policy| &mut policy.next_hops);
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.priority.to_string(), self.action.word().into(), self.matching.clone()]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        vec![
            ("priority", self.priority.to_string()),
            ("match", self.matching.clone()),
            ("action", self.action.word().to_owned()),
            ("next hops", self.next_hops.join(" ")),
        ]
    }
}
