//! `load-balancer-group`: load balancers that switches and routers use together.

use clap::Args;
use ferroflow_proto::northbound::{LoadBalancerGroup, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        load_balancer::full_names,
        object::{NoStatus, Object, Options, Patch, labels_of, wrong_kind},
    },
    output::short,
};

/// Options of a new group.
#[derive(Debug, Args)]
pub struct NewLoadBalancerGroup {
    /// A load balancer of it; may be repeated
    #[arg(long = "load-balancer", value_name = "NAME")]
    load_balancers: Vec<String>,
}

/// Changes of a group.
#[derive(Debug, Args)]
pub struct LoadBalancerGroupChanges {
    /// A load balancer instead of those before; may be repeated
    #[arg(long = "load-balancer", value_name = "NAME")]
    load_balancers: Vec<String>,
    /// No load balancers
    #[arg(long, conflicts_with = "load_balancers")]
    no_load_balancers: bool,
    /// One more load balancer; may be repeated
    #[arg(long, value_name = "NAME")]
    add: Vec<String>,
    /// No longer a load balancer of it; may be repeated
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
}

impl Options for NewLoadBalancerGroup {}
impl Options for LoadBalancerGroupChanges {}

/// What a user sets of a group; its form in files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadBalancerGroupSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Its load balancers.
    #[serde(default)]
    pub load_balancers: Vec<String>,
}

impl LoadBalancerGroupSpec {
    /// With its load balancers named in full.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when something can be no name.
    pub fn named(self) -> Result<Self, CtlError> {
        Ok(Self { load_balancers: full_names(&self.load_balancers)?, ..self })
    }
}

/// Full names of groups that are typed by id or in full.
///
/// # Errors
/// [`CtlError::Usage`] when a name can be none.
pub fn full_groups(names: &[String]) -> Result<Vec<String>, CtlError> {
    names.iter().map(|text| Noun::LoadBalancerGroup.full(text)).collect()
}

impl Object for LoadBalancerGroupSpec {
    const NOUN: Noun = Noun::LoadBalancerGroup;
    const ABOUT: About = About {
        add: "Make a load balancer group",
        set: "Change a load balancer group",
        list: "List load balancer groups",
        show: "Show a load balancer group",
        del: "Delete a load balancer group that nobody uses",
    };
    const HEADINGS: &'static [&'static str] = &["GROUP", "LOAD BALANCERS", "LABELS"];
    type New = NewLoadBalancerGroup;
    type Changes = LoadBalancerGroupChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::LoadBalancerGroup(group)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        Ok((Self { labels: labels_of(resource), load_balancers: group.load_balancers.clone() }, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::LoadBalancerGroup(LoadBalancerGroup { load_balancers: self.load_balancers.clone() })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewLoadBalancerGroup, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Self { labels, load_balancers: new.load_balancers }.named()
    }

    fn change(
        given: &LoadBalancerGroupChanges,
        _name: &str,
        patch: &mut Patch<'_, Self>,
    ) -> Result<(), CtlError> {
        let names = full_names(&given.load_balancers)?;
        patch.list("load_balancers", &names, given.no_load_balancers, |group| &mut group.load_balancers);
        let (added, removed) = (full_names(&given.add)?, full_names(&given.remove)?);
        patch.edit("load_balancers", (&added, &removed), |group| &mut group.load_balancers);
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.load_balancers.len().to_string()]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        self.load_balancers.iter().map(|name| ("load balancer", short(name).to_owned())).collect()
    }
}
