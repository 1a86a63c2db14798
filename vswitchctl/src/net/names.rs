//! `names`: names with their addresses, which workloads can resolve.

use clap::Args;
use ferroflow_proto::northbound::{self as pb, NameRecord, Resource, resource};
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
};

/// Options of new names.
#[derive(Debug, Args)]
pub struct NewNames {
    /// A name with its addresses, web-1.example=10.0.0.5,2001:db8::5; may be repeated
    #[arg(long = "record", value_name = "NAME=IP,IP", value_parser = record)]
    records: Vec<(String, Vec<String>)>,
    /// Seconds for which an answer holds
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
}

/// Changes of names.
#[derive(Debug, Args)]
pub struct NamesChanges {
    /// A name to add or change, with all its addresses; may be repeated
    #[arg(long = "record", value_name = "NAME=IP,IP", value_parser = record)]
    records: Vec<(String, Vec<String>)>,
    /// A name to take away; may be repeated
    #[arg(long = "no-record", value_name = "NAME")]
    no_records: Vec<String>,
    /// Seconds for which an answer holds
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
}

impl Options for NewNames {}
impl Options for NamesChanges {}

fn record(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, addresses) = text.split_once('=').ok_or("a record is NAME=IP,IP")?;
    Ok((name.to_owned(), addresses.split(',').map(str::to_owned).collect()))
}

/// What a user sets of names; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamesSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Addresses by name.
    #[serde(default, with = "section")]
    pub records: Section<Vec<String>>,
    /// Seconds for which an answer holds; 0: as usual.
    #[serde(default)]
    pub ttl: u32,
}

impl Object for NamesSpec {
    const NOUN: Noun = Noun::Names;
    const ABOUT: About = About {
        add: "Make a list of names, for switches to name",
        set: "Change a list of names",
        list: "List lists of names",
        show: "Show a list of names",
        del: "Delete a list of names",
    };
    const HEADINGS: &'static [&'static str] = &["NAMES", "RECORDS", "LABELS"];
    type New = NewNames;
    type Changes = NamesChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::Names(names)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let mut records = Section::<Vec<String>>::new();
        for record in &names.records {
            records.entry(record.name.clone()).or_default().extend(record.addresses.iter().cloned());
        }
        Ok((Self { labels: labels_of(resource), records, ttl: names.ttl }, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        let record = |(name, addresses): (&String, &Vec<String>)| NameRecord {
            name: name.clone(),
            addresses: addresses.clone(),
        };
        resource::Spec::Names(pb::Names { records: self.records.iter().map(record).collect(), ttl: self.ttl })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewNames, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Ok(Self { labels, records: new.records.into_iter().collect(), ttl: new.ttl.unwrap_or(0) })
    }

    fn change(given: &NamesChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        let is_given = !given.records.is_empty() || !given.no_records.is_empty();
        patch.change("records", is_given, |names| {
            names.records.retain(|name, _| !given.no_records.contains(name));
            names.records.extend(given.records.iter().cloned());
        });
        patch.set("ttl", given.ttl.as_ref(), |names| &mut names.ttl);
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.records.len().to_string()]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        let ttl = if self.ttl == 0 { 300 } else { self.ttl };
        let records = self.records.iter();
        let records = records.map(|(name, addresses)| ("record", format!("{name} {}", addresses.join(" "))));
        std::iter::once(("ttl", format!("{ttl} s"))).chain(records).collect()
    }
}
