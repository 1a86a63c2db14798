//! `ha-chassis-group`: hosts that may be a gateway, for several ports to name.

use clap::Args;
use ferroflow_proto::northbound::{HaChassisGroup, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        gateway::{self, Candidate},
        object::{NoStatus, Object, Options, Patch, labels_of, wrong_kind},
    },
};

/// Options of a new group.
#[derive(Debug, Args)]
pub struct NewHaChassisGroup {
    /// A host, CHASSIS=PRIORITY; may be repeated
    #[arg(long = "chassis", value_name = "CHASSIS=PRIORITY")]
    chassis: Vec<Candidate>,
}

/// Changes of a group.
#[derive(Debug, Args)]
pub struct HaChassisGroupChanges {
    /// A host instead of those before; may be repeated
    #[arg(long = "chassis", value_name = "CHASSIS=PRIORITY")]
    chassis: Vec<Candidate>,
}

impl Options for NewHaChassisGroup {}
impl Options for HaChassisGroupChanges {}

/// What a user sets of a group; its form in files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HaChassisGroupSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Its hosts.
    #[serde(default)]
    pub chassis: Vec<Candidate>,
}

impl Object for HaChassisGroupSpec {
    const NOUN: Noun = Noun::HaChassisGroup;
    const ABOUT: About = About {
        add: "Make an HA chassis group",
        set: "Change an HA chassis group",
        list: "List HA chassis groups",
        show: "Show an HA chassis group",
        del: "Delete an HA chassis group that nobody uses",
    };
    const HEADINGS: &'static [&'static str] = &["GROUP", "CHASSIS", "LABELS"];
    type New = NewHaChassisGroup;
    type Changes = HaChassisGroupChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::HaChassisGroup(group)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        Ok((Self { labels: labels_of(resource), chassis: gateway::read(&group.chassis) }, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::HaChassisGroup(HaChassisGroup { chassis: gateway::write(&self.chassis) })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewHaChassisGroup, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Ok(Self { labels, chassis: new.chassis })
    }

    fn change(
        given: &HaChassisGroupChanges,
        _name: &str,
        patch: &mut Patch<'_, Self>,
    ) -> Result<(), CtlError> {
        patch.list("chassis", &given.chassis, false, |group| &mut group.chassis);
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![gateway::print(&self.chassis)]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        self.chassis.iter().map(|host| ("chassis", host.to_string())).collect()
    }
}
