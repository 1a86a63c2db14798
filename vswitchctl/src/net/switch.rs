//! `switch`: L2 networks.

use clap::Args;
use ferroflow_proto::northbound::{LogicalSwitch, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        load_balancer::full_names,
        object::{Object, Options, Patch, TunnelKey, labels_of, wrong_kind},
        policy::Policy,
    },
    output::short,
};

/// Options of a switch.
#[derive(Debug, Args)]
pub struct SwitchOptions {
    /// What becomes of its workloads' packets that no ACL decides about
    #[arg(long = "default", value_enum, value_name = "POLICY")]
    default_policy: Option<Policy>,
    /// A load balancer that its workloads use, instead of those before; may be repeated
    #[arg(long = "load-balancer", value_name = "NAME")]
    load_balancers: Vec<String>,
    /// No load balancers
    #[arg(long, conflicts_with = "load_balancers")]
    no_load_balancers: bool,
}

impl Options for SwitchOptions {}

/// What a user sets of a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// What becomes of packets that no ACL decides about.
    #[serde(default)]
    pub default_policy: Policy,
    /// Load balancers that its workloads use.
    #[serde(default)]
    pub load_balancers: Vec<String>,
}

impl Object for SwitchSpec {
    const NOUN: Noun = Noun::Switch;
    const ABOUT: About = About {
        add: "Make a switch",
        set: "Change a switch",
        list: "List switches",
        show: "Show a switch with its ports and ACLs",
        del: "Delete a switch with its ports and ACLs",
    };
    const HEADINGS: &'static [&'static str] = &["SWITCH", "KEY", "LABELS"];
    type New = SwitchOptions;
    type Changes = SwitchOptions;
    type Status = TunnelKey;

    fn read(resource: &Resource) -> Result<(Self, TunnelKey), CtlError> {
        let Some(resource::Spec::LogicalSwitch(switch)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let default_policy = Policy::read(resource, switch.default_policy)?;
        let load_balancers = switch.load_balancers.clone();
        let spec = Self { labels: labels_of(resource), default_policy, load_balancers };
        Ok((spec, TunnelKey { tunnel_key: switch.tunnel_key }))
    }

    fn spec(&self) -> resource::Spec {
        let default_policy = self.default_policy.write();
        let load_balancers = self.load_balancers.clone();
        resource::Spec::LogicalSwitch(LogicalSwitch { default_policy, load_balancers, ..Default::default() })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: SwitchOptions, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let load_balancers = full_names(&new.load_balancers)?;
        Ok(Self { labels, default_policy: new.default_policy.unwrap_or_default(), load_balancers })
    }

    fn change(given: &SwitchOptions, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("default_policy", given.default_policy.as_ref(), |switch| &mut switch.default_policy);
        let names = full_names(&given.load_balancers)?;
        patch.list("load_balancers", &names, given.no_load_balancers, |switch| &mut switch.load_balancers);
        Ok(())
    }

    fn cells(&self, status: &TunnelKey) -> Vec<String> {
        vec![status.tunnel_key.to_string()]
    }

    fn fields(&self, status: &TunnelKey) -> Vec<(&'static str, String)> {
        let default = ("default", self.default_policy.word().into());
        let key = ("tunnel key", status.tunnel_key.to_string());
        let balancers = self.load_balancers.iter().map(|name| ("load balancer", short(name).to_owned()));
        [default, key].into_iter().chain(balancers).collect()
    }
}
