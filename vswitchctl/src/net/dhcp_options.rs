//! `dhcp-options`: what DHCP clients of a network are told.

use std::collections::BTreeMap;

use clap::Args;
use ferroflow_proto::northbound::{DhcpOptions, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        object::{NoStatus, Object, Options, Patch, labels_of, wrong_kind},
    },
};

/// Options of new DHCP options.
#[derive(Debug, Args)]
pub struct NewDhcpOptions {
    /// The network: of IPv4 for DHCPv4, of IPv6 for DHCPv6
    #[arg(long, value_name = "NETWORK")]
    cidr: String,
    /// An option, server_id=10.0.0.1 or dns_server=10.0.0.2,10.0.0.3; may be repeated
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,
}

/// Changes of DHCP options.
#[derive(Debug, Args)]
pub struct DhcpOptionsChanges {
    /// The network
    #[arg(long, value_name = "NETWORK")]
    cidr: Option<String>,
    /// An option to add or change; may be repeated
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,
    /// An option to take away; may be repeated
    #[arg(long = "no-option", value_name = "NAME")]
    no_options: Vec<String>,
}

impl Options for NewDhcpOptions {}
impl Options for DhcpOptionsChanges {}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("an option is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What a user sets of DHCP options; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhcpOptionsSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// The network.
    pub cidr: String,
    /// Options by OVN's names.
    #[serde(default, with = "section")]
    pub options: BTreeMap<String, String>,
}

impl Object for DhcpOptionsSpec {
    const NOUN: Noun = Noun::DhcpOptions;
    const ABOUT: About = About {
        add: "Make DHCP options, for switches and ports to name",
        set: "Change DHCP options",
        list: "List DHCP options",
        show: "Show DHCP options",
        del: "Delete DHCP options",
    };
    const HEADINGS: &'static [&'static str] = &["DHCP", "NETWORK", "OPTIONS", "LABELS"];
    type New = NewDhcpOptions;
    type Changes = DhcpOptionsChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::DhcpOptions(dhcp)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let options = dhcp.options.clone().into_iter().collect();
        Ok((Self { labels: labels_of(resource), cidr: dhcp.cidr.clone(), options }, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        let options = self.options.clone().into_iter().collect();
        resource::Spec::DhcpOptions(DhcpOptions { cidr: self.cidr.clone(), options })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewDhcpOptions, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Ok(Self { labels, cidr: new.cidr, options: new.options.into_iter().collect() })
    }

    fn change(given: &DhcpOptionsChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("cidr", given.cidr.as_ref(), |dhcp| &mut dhcp.cidr);
        let is_given = !given.options.is_empty() || !given.no_options.is_empty();
        patch.change("options", is_given, |dhcp| {
            dhcp.options.retain(|name, _| !given.no_options.contains(name));
            dhcp.options.extend(given.options.iter().cloned());
        });
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.cidr.clone(), self.options.len().to_string()]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        let options = self.options.iter().map(|(name, value)| ("option", format!("{name}={value}")));
        std::iter::once(("network", self.cidr.clone())).chain(options).collect()
    }
}
