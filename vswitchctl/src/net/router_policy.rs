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
        nat::full_port,
        object::{NoStatus, Object, Options, Patch, labels_of, unknown_value, wrong_kind},
    },
    output::{parent_id, short},
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
    #[command(flatten)]
    rest: PolicyOptions,
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
    #[command(flatten)]
    rest: PolicyOptions,
}

/// Options that a policy need not have.
#[derive(Debug, Args)]
pub struct PolicyOptions {
    /// Port of the router that rerouted packets leave by; "" for the one that has the next hop
    #[arg(long, value_name = "PORT")]
    output_port: Option<String>,
    /// Mark of its packets for later matches on the host, pkt.mark; 0: none
    #[arg(long, value_name = "MARK")]
    pkt_mark: Option<u32>,
    /// The chain that it is in; "" for where packets come first
    #[arg(long, value_name = "NAME")]
    chain: Option<String>,
    /// The chain that jump leads to
    #[arg(long, value_name = "NAME")]
    jump_chain: Option<String>,
    /// Take just next hops with which there is a session that is up: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    bfd: Option<bool>,
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
    /// Ask the policies of another chain
    Jump,
}

impl Action {
    fn read(resource: &Resource, value: i32) -> Result<Self, CtlError> {
        match router_policy::Action::try_from(value) {
            Ok(router_policy::Action::Allow) => Ok(Self::Allow),
            Ok(router_policy::Action::Drop) => Ok(Self::Drop),
            Ok(router_policy::Action::Reroute) => Ok(Self::Reroute),
            Ok(router_policy::Action::Jump) => Ok(Self::Jump),
            Ok(router_policy::Action::Unspecified) | Err(_) => Err(unknown_value(resource, "action", value)),
        }
    }

    fn write(self) -> router_policy::Action {
        match self {
            Self::Allow => router_policy::Action::Allow,
            Self::Drop => router_policy::Action::Drop,
            Self::Reroute => router_policy::Action::Reroute,
            Self::Jump => router_policy::Action::Jump,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Drop => "drop",
            Self::Reroute => "reroute",
            Self::Jump => "jump",
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
    /// Full name of the port that rerouted packets leave by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output_port: String,
    /// Mark of its packets; 0: none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub pkt_mark: u32,
    /// The chain that it is in.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chain: String,
    /// The chain that jump leads to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jump_chain: String,
    /// Next hops are there while the sessions with them are up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bfd: bool,
}

fn is_none(mark: &u32) -> bool {
    *mark == 0
}

impl RouterPolicySpec {
    /// The same with its port, which may be just an id, named in full.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when the port's name can be none.
    pub fn placed(self, router: &str) -> Result<Self, CtlError> {
        let output_port = full_port(&self.output_port, router)?;
        Ok(Self { output_port, ..self })
    }
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
            output_port: policy.output_port.clone(),
            pkt_mark: policy.pkt_mark,
            chain: policy.chain.clone(),
            jump_chain: policy.jump_chain.clone(),
            bfd: policy.bfd,
        };
        Ok((spec, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::RouterPolicy(RouterPolicy {
            priority: self.priority,
            r#match: self.matching.clone(),
            action: self.action.write().into(),
            next_hops: self.next_hops.clone(),
            output_port: self.output_port.clone(),
            pkt_mark: self.pkt_mark,
            chain: self.chain.clone(),
            jump_chain: self.jump_chain.clone(),
            bfd: self.bfd,
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewPolicy, labels: Labels, name: &str) -> Result<Self, CtlError> {
        let NewPolicy { priority, matching, action, next_hops, rest } = new;
        let PolicyOptions { output_port, pkt_mark, chain, jump_chain, bfd } = rest;
        let spec = Self {
            labels,
            priority,
            matching,
            action,
            next_hops,
            output_port: output_port.unwrap_or_default(),
            pkt_mark: pkt_mark.unwrap_or_default(),
            chain: chain.unwrap_or_default(),
            jump_chain: jump_chain.unwrap_or_default(),
            bfd: bfd.unwrap_or_default(),
        };
        spec.placed(parent_id(name))
    }

    fn change(given: &PolicyChanges, name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("priority", given.priority.as_ref(), |policy| &mut policy.priority);
        patch.set("match", given.matching.as_ref(), |policy| &mut policy.matching);
        patch.set("action", given.action.as_ref(), |policy| &mut policy.action);
        patch.list("next_hops", &given.next_hops, given.no_next_hops, |policy| &mut policy.next_hops);
        let rest = &given.rest;
        let port = rest.output_port.as_deref().map(|port| full_port(port, parent_id(name))).transpose()?;
        patch.set("output_port", port.as_ref(), |policy| &mut policy.output_port);
        patch.set("pkt_mark", rest.pkt_mark.as_ref(), |policy| &mut policy.pkt_mark);
        patch.set("chain", rest.chain.as_ref(), |policy| &mut policy.chain);
        patch.set("bfd", rest.bfd.as_ref(), |policy| &mut policy.bfd);
        patch.set("jump_chain", rest.jump_chain.as_ref(), |policy| &mut policy.jump_chain);
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
            ("output port", short(&self.output_port).to_owned()),
            ("mark", if self.pkt_mark == 0 { String::new() } else { self.pkt_mark.to_string() }),
            ("chain", self.chain.clone()),
            ("jump chain", self.jump_chain.clone()),
            ("bfd", if self.bfd { "needed".to_owned() } else { String::new() }),
        ]
    }
}
