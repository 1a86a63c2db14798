//! `sample-collector`: who is told of sampled packets.

use clap::Args;
use ferroflow_proto::northbound::{AclSample, Resource, SampleCollector, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        command::About,
        object::{NoStatus, Object, Options, Patch, is_any_key, labels_of, wrong_kind},
    },
    output::short,
};

/// Largest number of an application.
const MAX_APPLICATION: i64 = 255;

/// Options of a new collector.
#[derive(Debug, Args)]
pub struct NewSampleCollector {
    /// Number of the set on hosts
    #[arg(long = "set", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=0x7fff_ffff))]
    set_id: u32,
    /// How many of 65535 packets are told of; all, if not given
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    probability: Option<u32>,
    /// Where IPFIX is taken, 192.0.2.9:4739; may be repeated
    #[arg(long = "target", value_name = "ADDRESS:PORT", required = true)]
    targets: Vec<String>,
    /// Upper 8 bits of the observation domain of what belongs to no connection yet
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=MAX_APPLICATION))]
    new_application: u32,
    /// The same, of what belongs to a connection
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=MAX_APPLICATION))]
    established_application: u32,
}

/// Changes of a collector.
#[derive(Debug, Args)]
pub struct SampleCollectorChanges {
    /// Number of the set on hosts
    #[arg(long = "set", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=0x7fff_ffff))]
    set_id: Option<u32>,
    /// How many of 65535 packets are told of
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    probability: Option<u32>,
    /// Where IPFIX is taken instead, 192.0.2.9:4739; may be repeated
    #[arg(long = "target", value_name = "ADDRESS:PORT")]
    targets: Vec<String>,
    /// Upper 8 bits of the observation domain of what belongs to no connection yet
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=MAX_APPLICATION))]
    new_application: Option<u32>,
    /// The same, of what belongs to a connection
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=MAX_APPLICATION))]
    established_application: Option<u32>,
}

impl Options for NewSampleCollector {}
impl Options for SampleCollectorChanges {}

/// What a user sets of a collector; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleCollectorSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Number of the set on hosts.
    pub set_id: u32,
    /// How many of 65535 packets; 0: all.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub probability: u32,
    /// Where IPFIX is taken.
    pub targets: Vec<String>,
    /// Upper 8 bits of the observation domain of what belongs to no connection yet.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub new_application: u32,
    /// The same, of what belongs to a connection.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub established_application: u32,
}

impl Object for SampleCollectorSpec {
    const NOUN: Noun = Noun::SampleCollector;
    const ABOUT: About = About {
        add: "Make a collector of sampled packets",
        set: "Change a collector of sampled packets",
        list: "List collectors of sampled packets",
        show: "Show a collector of sampled packets",
        del: "Delete a collector that no ACL tells of packets",
    };
    const HEADINGS: &'static [&'static str] = &["COLLECTOR", "SET", "PROBABILITY", "TARGETS", "LABELS"];
    type New = NewSampleCollector;
    type Changes = SampleCollectorChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::SampleCollector(collector)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let SampleCollector { set_id, probability, targets, new_application, established_application } =
            collector.clone();
        let labels = labels_of(resource);
        let spec = Self { labels, set_id, probability, targets, new_application, established_application };
        Ok((spec, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        let Self { labels: _, set_id, probability, targets, new_application, established_application } =
            self.clone();
        resource::Spec::SampleCollector(SampleCollector {
            set_id,
            probability,
            targets,
            new_application,
            established_application,
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewSampleCollector, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let NewSampleCollector { set_id, probability, targets, new_application, established_application } =
            new;
        let probability = probability.unwrap_or_default();
        Ok(Self { labels, set_id, probability, targets, new_application, established_application })
    }

    fn change(
        given: &SampleCollectorChanges,
        _name: &str,
        patch: &mut Patch<'_, Self>,
    ) -> Result<(), CtlError> {
        patch.set("set_id", given.set_id.as_ref(), |collector| &mut collector.set_id);
        patch.set("probability", given.probability.as_ref(), |collector| &mut collector.probability);
        let targets = Some(&given.targets).filter(|targets| !targets.is_empty());
        patch.set("targets", targets, |collector| &mut collector.targets);
        let (new, established) = (given.new_application.as_ref(), given.established_application.as_ref());
        patch.set("new_application", new, |collector| &mut collector.new_application);
        patch.set("established_application", established, |collector| &mut collector.established_application);
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.set_id.to_string(), self.probability_text(), self.targets.join(" ")]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        let mut fields = vec![("set", self.set_id.to_string()), ("probability", self.probability_text())];
        fields.extend(self.targets.iter().map(|target| ("target", target.clone())));
        fields.push(("new application", self.new_application.to_string()));
        fields.push(("established application", self.established_application.to_string()));
        fields
    }
}

impl SampleCollectorSpec {
    fn probability_text(&self) -> String {
        if self.probability == 0 { "all".to_owned() } else { format!("{} of 65535", self.probability) }
    }
}

/// Whom an ACL tells of packets, and by which observation point: `42:all,few`; its form in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    point: u32,
    /// Full names.
    collectors: Vec<String>,
}

impl Sample {
    /// From the API.
    pub(super) fn read(wire: &AclSample) -> Self {
        Self { point: wire.observation_point, collectors: wire.collectors.clone() }
    }

    /// To the API.
    pub(super) fn write(&self) -> AclSample {
        AclSample { observation_point: self.point, collectors: self.collectors.clone() }
    }
}

impl std::str::FromStr for Sample {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WRONG: &str = "samples are POINT:COLLECTOR,COLLECTOR, for example 42:all";
        let (point, collectors) = text.split_once(':').ok_or(WRONG)?;
        let point = point.parse().map_err(|_| WRONG)?;
        let full = |text: &str| match Noun::SampleCollector.full(text) {
            Ok(name) if !name.is_empty() => Ok(name),
            Ok(_) => Err(WRONG.to_owned()),
            Err(error) => Err(error.to_string()),
        };
        Ok(Self { point, collectors: collectors.split(',').map(full).collect::<Result<_, _>>()? })
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let collectors: Vec<_> = self.collectors.iter().map(|name| short(name)).collect();
        write!(f, "{}:{}", self.point, collectors.join(","))
    }
}

impl Serialize for Sample {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_back() {
        let sample: Sample = "42:all,sample-collectors/few".parse().unwrap();
        assert_eq!(sample.collectors, ["sample-collectors/all", "sample-collectors/few"]);
        assert_eq!(sample.to_string(), "42:all,few");
        for wrong in ["", "42", "42:", "x:all", "42:a b", "42:switches/a", ":all"] {
            assert!(wrong.parse::<Sample>().is_err(), "{wrong}");
        }
    }
}
