//! `qos-rule`: how packets of a switch are marked, and how much there may be of them.

use std::{cmp::Reverse, fmt, str::FromStr};

use clap::Args;
use ferroflow_proto::northbound::{QosRule, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        acl::Direction,
        command::About,
        object::{NoStatus, Object, Options, Patch, View, labels_of, wrong_kind},
    },
    output::parent_id,
};

/// Options of a new rule.
#[derive(Debug, Args)]
pub struct NewQosRule {
    /// Where it applies
    #[arg(long, value_enum)]
    direction: Direction,
    /// 0 to 32767; the highest that matches counts
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=32_767))]
    priority: u32,
    /// Which packets: 'inport == "web-1" && udp'
    #[arg(long = "match", value_name = "MATCH")]
    matching: String,
    /// Code point that they leave with
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=63))]
    dscp: Option<u32>,
    /// Thousands of bits a second, and how many may come at once: 8000/800; what is beyond is dropped
    #[arg(long, value_name = "KBPS/BURST")]
    rate: Option<Bandwidth>,
}

/// Changes of a rule.
#[derive(Debug, Args)]
pub struct QosRuleChanges {
    /// Where it applies
    #[arg(long, value_enum)]
    direction: Option<Direction>,
    /// 0 to 32767; the highest that matches counts
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=32_767))]
    priority: Option<u32>,
    /// Which packets
    #[arg(long = "match", value_name = "MATCH")]
    matching: Option<String>,
    /// Code point that they leave with
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=63))]
    dscp: Option<u32>,
    /// They keep the code point that they came with
    #[arg(long, conflicts_with = "dscp")]
    no_dscp: bool,
    /// Thousands of bits a second, and how many may come at once: 8000/800
    #[arg(long, value_name = "KBPS/BURST")]
    rate: Option<Bandwidth>,
    /// As many as come
    #[arg(long, conflicts_with = "rate")]
    no_rate: bool,
}

impl Options for NewQosRule {}
impl Options for QosRuleChanges {}

/// Thousands of bits a second, and how many may come at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    kbps: u32,
    burst_kbit: u32,
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kbps, burst_kbit) = text.split_once('/').unwrap_or((text, "0"));
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number of kilobits"));
        let kbps = number(kbps)?;
        if kbps == 0 {
            return Err("a rate is at least one kilobit a second".to_owned());
        }
        Ok(Self { kbps, burst_kbit: number(burst_kbit)? })
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { kbps: 0, .. } => Ok(()),
            Self { kbps, burst_kbit: 0 } => write!(f, "{kbps}/{kbps}"),
            Self { kbps, burst_kbit } => write!(f, "{kbps}/{burst_kbit}"),
        }
    }
}

/// What a user sets of a rule; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosRuleSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// Where it applies.
    pub direction: Direction,
    /// 0 to 32767.
    pub priority: u32,
    /// Which packets, in the match language.
    #[serde(rename = "match")]
    pub matching: String,
    /// Code point that they leave with.
    #[serde(default)]
    pub dscp: Option<u32>,
    /// Thousands of bits a second; 0: as many as come.
    #[serde(default)]
    pub rate_kbps: u32,
    /// Thousands of bits that may come at once; 0: as many as in a second.
    #[serde(default)]
    pub burst_kbit: u32,
}

impl QosRuleSpec {
    fn bandwidth(&self) -> Bandwidth {
        Bandwidth { kbps: self.rate_kbps, burst_kbit: self.burst_kbit }
    }

    fn set_bandwidth(&mut self, Bandwidth { kbps, burst_kbit }: Bandwidth) {
        (self.rate_kbps, self.burst_kbit) = (kbps, burst_kbit);
    }

    fn dscp_text(&self) -> String {
        self.dscp.map(|dscp| dscp.to_string()).unwrap_or_default()
    }
}

impl Object for QosRuleSpec {
    const NOUN: Noun = Noun::QosRule;
    const ABOUT: About = About {
        add: "Make a rule that marks packets, or bounds how much there may be of them",
        set: "Change a rule",
        list: "List rules in the order in which they are tried",
        show: "Show a rule",
        del: "Delete a rule",
    };
    const HEADINGS: &'static [&'static str] =
        &["SWITCH", "RULE", "DIRECTION", "PRIORITY", "DSCP", "KBPS/BURST", "MATCH", "LABELS"];
    type New = NewQosRule;
    type Changes = QosRuleChanges;
    type Status = NoStatus;

    fn read(resource: &Resource) -> Result<(Self, NoStatus), CtlError> {
        let Some(resource::Spec::QosRule(rule)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let spec = Self {
            labels: labels_of(resource),
            direction: Direction::read(resource, rule.direction)?,
            priority: rule.priority,
            matching: rule.r#match.clone(),
            dscp: rule.dscp,
            rate_kbps: rule.rate_kbps,
            burst_kbit: rule.burst_kbit,
        };
        Ok((spec, NoStatus {}))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::QosRule(QosRule {
            direction: self.direction.write().into(),
            priority: self.priority,
            r#match: self.matching.clone(),
            dscp: self.dscp,
            rate_kbps: self.rate_kbps,
            burst_kbit: self.burst_kbit,
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: NewQosRule, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let NewQosRule { direction, priority, matching, dscp, rate } = new;
        if dscp.is_none() && rate.is_none() {
            return Err(CtlError::Usage("the rule would do nothing: give --dscp or --rate".into()));
        }
        let mut rule = Self { labels, direction, priority, matching, dscp, rate_kbps: 0, burst_kbit: 0 };
        rule.set_bandwidth(rate.unwrap_or_default());
        Ok(rule)
    }

    fn change(given: &QosRuleChanges, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("direction", given.direction.as_ref(), |rule| &mut rule.direction);
        patch.set("priority", given.priority.as_ref(), |rule| &mut rule.priority);
        patch.set("match", given.matching.as_ref(), |rule| &mut rule.matching);
        let dscp = (given.dscp.is_some() || given.no_dscp).then_some(given.dscp);
        patch.set("dscp", dscp.as_ref(), |rule| &mut rule.dscp);
        let is_given = given.rate.is_some() || given.no_rate;
        for field in ["rate_kbps", "burst_kbit"] {
            patch.change(field, is_given, |rule| rule.set_bandwidth(given.rate.unwrap_or_default()));
        }
        Ok(())
    }

    fn cells(&self, _status: &NoStatus) -> Vec<String> {
        vec![
            self.direction.word().into(),
            self.priority.to_string(),
            self.dscp_text(),
            self.bandwidth().to_string(),
            self.matching.clone(),
        ]
    }

    fn fields(&self, _status: &NoStatus) -> Vec<(&'static str, String)> {
        vec![
            ("direction", self.direction.word().into()),
            ("priority", self.priority.to_string()),
            ("match", self.matching.clone()),
            ("dscp", self.dscp_text()),
            ("kbps/burst", self.bandwidth().to_string()),
        ]
    }

    /// The order in which they are tried.
    fn arrange(views: &mut [View<Self>]) {
        views.sort_by_cached_key(|View { name, spec, .. }| {
            (parent_id(name).to_owned(), spec.direction, Reverse(spec.priority), name.clone())
        });
    }
}
