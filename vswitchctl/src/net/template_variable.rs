//! `template-variable`: values that are others on each chassis.

use clap::Args;
use ferroflow_proto::northbound::{ChassisValues, Resource, TemplateVariable, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section::{self, Section},
    name::Noun,
    net::{
        command::About,
        object::{NoStatus, Object, Options, Patch, labels_of, wrong_kind},
    },
    output::short,
};

/// Options of a new variable.
#[derive(Debug, Args)]
pub struct NewTemplateVariable {
    /// What it is on a chassis, h1=10.0.0.5 or h1=10.0.0.5:8080,10.0.0.6:8080; may be repeated
    #[arg(long = "value", value_name = "CHASSIS=VALUE,VALUE", value_parser = value)]
    values: Vec<(String, Vec<String>)>,
}

/// Changes of a variable.
#[derive(Debug, Args)]
pub struct TemplateVariableChanges {
    /// A chassis to add or change, with all its values; may be repeated
    #[arg(long = "value", value_name = "CHASSIS=VALUE,VALUE", value_parser = value)]
    values: Vec<(String, Vec<String>)>,
    /// A chassis that it has no value on; may be repeated
    #[arg(long = "no-value", value_name = "CHASSIS")]
    no_values: Vec<String>,
}

impl Options for NewTemplateVariable {}
impl Options for TemplateVariableChanges {}

fn value(text: &str) -> Result<(String, Vec<String>), String> {
    let (chassis, values) = text.split_once('=').ok_or("values are CHASSIS=VALUE,VALUE")?;
    Ok((short(chassis).to_owned(), values.split(',').map(str::to_owned).collect()))
}

/// What a user sets of a variable; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateVariableSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Values by chassis.
    #[serde(default, with = "section")]
    pub values: Section<Vec<String>>,
}

impl Object for TemplateVariableSpec {
    const NOUN: Noun = Noun::TemplateVariable;
    const ABOUT: About = About {
        add: "Make a variable, which matches and load balancers refer to as ^NAME",
        set: "Change what a variable is on some chassis",
        list: "List variables",
        show: "Show a variable",
        del: "Delete a variable that nobody refers to",
    };
    const HEADINGS: &'static [&'static str] = &["VARIABLE", "CHASSIS", "LABELS"];
    type New = NewTemplateVariable;
    type Changes = TemplateVariableChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::TemplateVariable(variable)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let values = variable.values.iter();
        let values = values.map(|of| (short(&of.chassis).to_owned(), of.values.clone())).collect();
        Ok((Self { labels: labels_of(resource), values }, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        let of = |(chassis, values): (&String, &Vec<String>)| ChassisValues {
            chassis: format!("chassis/{chassis}"),
            values: values.clone(),
        };
        resource::Spec::TemplateVariable(TemplateVariable { values: self.values.iter().map(of).collect() })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewTemplateVariable, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Ok(Self { labels, values: new.values.into_iter().collect() })
    }

    fn change(
        given: &TemplateVariableChanges,
        _name: &str,
        patch: &mut Patch<'_, Self>,
    ) -> Result<(), CtlError> {
        let is_given = !given.values.is_empty() || !given.no_values.is_empty();
        patch.change("values", is_given, |variable| {
            variable.values.retain(|chassis, _| !given.no_values.iter().any(|gone| short(gone) == chassis));
            variable.values.extend(given.values.iter().cloned());
        });
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.values.len().to_string()]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        let values = self.values.iter();
        values.map(|(chassis, values)| ("value", format!("{chassis} {}", values.join(" ")))).collect()
    }
}
