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
        object::{Object, Options, Patch, TunnelKey, labels_of, wrong_kind},
    },
};

/// Options of a switch: so far its labels, which every object has.
#[derive(Debug, Args)]
pub struct SwitchOptions {}

impl Options for SwitchOptions {}

/// What a user sets of a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
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
        Ok((Self { labels: labels_of(resource) }, TunnelKey { tunnel_key: switch.tunnel_key }))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::LogicalSwitch(LogicalSwitch::default())
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(_new: SwitchOptions, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Ok(Self { labels })
    }

    fn change(_given: &SwitchOptions, _name: &str, _patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        Ok(())
    }

    fn cells(&self, status: &TunnelKey) -> Vec<String> {
        vec![status.tunnel_key.to_string()]
    }

    fn fields(&self, status: &TunnelKey) -> Vec<(&'static str, String)> {
        vec![("tunnel key", status.tunnel_key.to_string())]
    }
}
