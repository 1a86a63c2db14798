//! Groups and meters, as ovs-ofctl(8) writes them.

use std::fmt;

use super::{Step, step};
use crate::field::Field;

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub id: u32,
    /// How its buckets are used.
    pub kind: GroupKind,
    /// Its buckets, numbered from 0.
    pub buckets: Vec<Bucket>,
}

/// How the buckets of a group are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupKind {
    /// All of them.
    All,
    /// The only one.
    Indirect,
    /// The first that is live.
    FastFailover,
    /// One of those that are live.
    Select(Selection),
}

/// What a select group hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// What the switch likes.
    Default,
    /// The same, perhaps alike in both directions.
    DpHash {
        /// Both directions alike.
        symmetric: bool,
    },
    /// These fields.
    Fields(Vec<Field>),
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its share in a select group.
    pub weight: u16,
    /// It is live while this port is up.
    pub watch_port: Option<u32>,
    /// It is live while this group has a live bucket.
    pub watch_group: Option<u32>,
    /// An action set.
    pub steps: Vec<Step>,
}

/// A meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// Its number.
    pub id: u32,
    /// It counts packets, not thousands of bits.
    pub packets: bool,
    /// Its bands.
    pub bands: Vec<Band>,
}

/// A band of a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Levels by which the drop precedence rises; 0 drops.
    pub levels: u8,
    /// Units a second.
    pub rate: u32,
    /// Units at once; 0: a second's.
    pub burst: u32,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group_id={},type=", self.id)?;
        match &self.kind {
            GroupKind::All => f.write_str("all")?,
            GroupKind::Indirect => f.write_str("indirect")?,
            GroupKind::FastFailover => f.write_str("ff")?,
            GroupKind::Select(Selection::Default) => f.write_str("select")?,
            GroupKind::Select(Selection::DpHash { symmetric }) => {
                let param = if *symmetric { ",selection_method_param=1" } else { "" };
                write!(f, "select,selection_method=dp_hash{param}")?;
            }
            GroupKind::Select(Selection::Fields(fields)) => {
                let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
                write!(f, "select,selection_method=hash,fields({})", names.join(","))?;
            }
        }
        for (idx, bucket) in self.buckets.iter().enumerate() {
            write!(f, ",bucket=bucket_id:{idx}")?;
            if matches!(self.kind, GroupKind::Select(_)) {
                write!(f, ",weight:{}", bucket.weight)?;
            }
            if let Some(port) = bucket.watch_port {
                write!(f, ",watch_port:{port}")?;
            }
            if let Some(group) = bucket.watch_group {
                write!(f, ",watch_group:{group}")?;
            }
            f.write_str(",actions=")?;
            if bucket.steps.is_empty() {
                f.write_str("drop")?;
            }
            step::list(f, &bucket.steps)?;
        }
        Ok(())
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.packets { "pktps" } else { "kbps" };
        let burst = if self.bands.iter().any(|band| band.burst != 0) { ",burst" } else { "" };
        write!(f, "meter={},{unit}{burst},bands=", self.id)?;
        for (idx, Band { levels, rate, burst }) in self.bands.iter().enumerate() {
            let comma = if idx > 0 { "," } else { "" };
            let kind = if *levels == 0 { "drop" } else { "dscp_remark" };
            write!(f, "{comma}type={kind},rate={rate}")?;
            if *burst != 0 {
                write!(f, ",burst_size={burst}")?;
            }
            if *levels != 0 {
                write!(f, ",prec_level={levels}")?;
            }
        }
        Ok(())
    }
}
