//! `port-group`: switch ports that matches refer to as `@NAME`, and that ACLs can be for.

use clap::Args;
use ferroflow_proto::northbound::{PortGroup, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        object::{NoStatus, Object, Options, Patch, labels_of, wrong_kind},
        policy::Policy,
    },
};

/// Options of a new port group.
#[derive(Debug, Args)]
pub struct NewPortGroup {
    /// A port of it; may be repeated
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<String>,
    /// What becomes of its ports' packets that no ACL decides about
    #[arg(long = "default", value_enum, default_value = "allow", value_name = "POLICY")]
    default_policy: Policy,
}

/// Changes of a port group.
#[derive(Debug, Args)]
pub struct PortGroupChanges {
    /// A port instead of those before; may be repeated
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<String>,
    /// No ports
    #[arg(long, conflicts_with = "ports")]
    no_ports: bool,
    /// One more port; may be repeated
    #[arg(long, value_name = "PORT")]
    add: Vec<String>,
    /// No longer a port of it; may be repeated
    #[arg(long, value_name = "PORT")]
    remove: Vec<String>,
    /// What becomes of its ports' packets that no ACL decides about
    #[arg(long = "default", value_enum, value_name = "POLICY")]
    default_policy: Option<Policy>,
}

impl Options for NewPortGroup {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        self.ports.iter_mut().map(|port| (Noun::SwitchPort, port)).collect()
    }
}

impl Options for PortGroupChanges {
    fn references(&mut self) -> Vec<(Noun, &mut String)> {
        let all = self.ports.iter_mut().chain(&mut self.add).chain(&mut self.remove);
        all.map(|port| (Noun::SwitchPort, port)).collect()
    }
}

/// What a user sets of a port group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortGroupSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Its ports.
    #[serde(default)]
    pub ports: Vec<String>,
    /// What becomes of their packets that no ACL decides about.
    #[serde(default)]
    pub default_policy: Policy,
}

impl Object for PortGroupSpec {
    const NOUN: Noun = Noun::PortGroup;
    const ABOUT: About = About {
        add: "Make a port group",
        set: "Change a port group",
        list: "List port groups",
        show: "Show a port group with its ACLs",
        del: "Delete a port group with its ACLs",
    };
    const HEADINGS: &'static [&'static str] = &["GROUP", "PORTS", "DEFAULT", "LABELS"];
    type New = NewPortGroup;
    type Changes = PortGroupChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::PortGroup(group)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let default_policy = Policy::read(resource, group.default_policy)?;
        Ok((Self { labels: labels_of(resource), ports: group.ports.clone(), default_policy }, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        let default_policy = self.default_policy.write();
        resource::Spec::PortGroup(PortGroup { ports: self.ports.clone(), default_policy })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewPortGroup, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Ok(Self { labels, ports: new.ports, default_policy: new.default_policy })
    }

    fn change(given: &PortGroupChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.list("ports", &given.ports, given.no_ports, |group| &mut group.ports);
        patch.edit("ports", (&given.add, &given.remove), |group| &mut group.ports);
        patch.set("default_policy", given.default_policy.as_ref(), |group| &mut group.default_policy);
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.ports.len().to_string(), self.default_policy.word().into()]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        let ports = self.ports.iter().map(|port| ("port", port.clone()));
        [("default", self.default_policy.word().into())].into_iter().chain(ports).collect()
    }
}
