//! `control-plane-limits`: bounds on what packets ask hosts for.

use std::{fmt, str::FromStr};

use clap::Args;
use ferroflow_proto::northbound::{ControlPlaneLimit, ControlPlaneLimits, Resource, resource};
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

/// Options of new limits.
#[derive(Debug, Args)]
pub struct NewLimits {
    /// Packets per second of a class, and how many may come at once: dns=100/200; may be repeated
    #[arg(long = "limit", value_name = "CLASS=RATE/BURST", value_parser = limit)]
    limits: Vec<(String, Rate)>,
}

/// Changes of limits.
#[derive(Debug, Args)]
pub struct LimitsChanges {
    /// A limit to add or change: dns=100/200; may be repeated
    #[arg(long = "limit", value_name = "CLASS=RATE/BURST", value_parser = limit)]
    limits: Vec<(String, Rate)>,
    /// A class that has its usual limit again; may be repeated
    #[arg(long = "no-limit", value_name = "CLASS")]
    no_limits: Vec<String>,
}

impl Options for NewLimits {}
impl Options for LimitsChanges {}

fn limit(text: &str) -> Result<(String, Rate), String> {
    let (class, rate) = text.split_once('=').ok_or("a limit is CLASS=RATE or CLASS=RATE/BURST")?;
    Ok((class.to_owned(), rate.parse()?))
}

/// Packets per second, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    rate: u32,
    /// 0: as many as in a second.
    #[serde(default)]
    burst: u32,
}

impl Rate {
    /// Packets per second, and how many may come at once; 0: as many as in a second.
    pub(super) fn parts(self) -> (u32, u32) {
        (self.rate, self.burst)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rate, burst) = text.split_once('/').unwrap_or((text, "0"));
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number of packets"));
        Ok(Self { rate: number(rate)?, burst: number(burst)? })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let burst = if self.burst == 0 { self.rate } else { self.burst };
        write!(f, "{}/{burst}", self.rate)
    }
}

/// What a user sets of limits; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Limits by class.
    #[serde(default, with = "section")]
    pub limits: Section<Rate>,
}

impl Object for LimitsSpec {
    const NOUN: Noun = Noun::Limits;
    const ABOUT: About = About {
        add: "Make limits, for switches and routers to name",
        set: "Change limits",
        list: "List limits",
        show: "Show limits",
        del: "Delete limits",
    };
    const HEADINGS: &'static [&'static str] = &["LIMITS", "CLASSES", "LABELS"];
    type New = NewLimits;
    type Changes = LimitsChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::ControlPlaneLimits(bounds)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let limit =
            |limit: &ControlPlaneLimit| (limit.class.clone(), Rate { rate: limit.rate, burst: limit.burst });
        let limits = bounds.limits.iter().map(limit).collect();
        Ok((Self { labels: labels_of(resource), limits }, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        let limit = |(class, rate): (&String, &Rate)| ControlPlaneLimit {
            class: class.clone(),
            rate: rate.rate,
            burst: rate.burst,
        };
        resource::Spec::ControlPlaneLimits(ControlPlaneLimits {
            limits: self.limits.iter().map(limit).collect(),
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewLimits, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        Ok(Self { labels, limits: new.limits.into_iter().collect() })
    }

    fn change(given: &LimitsChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        let is_given = !given.limits.is_empty() || !given.no_limits.is_empty();
        patch.change("limits", is_given, |bounds| {
            bounds.limits.retain(|class, _| !given.no_limits.contains(class));
            bounds.limits.extend(given.limits.iter().cloned());
        });
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![self.limits.keys().cloned().collect::<Vec<_>>().join(" ")]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        self.limits.iter().map(|(class, rate)| ("limit", format!("{class} {rate}"))).collect()
    }
}
