//! `group`: groups, in the syntax of `ovs-ofctl`. `dump` and `stats` print a line each.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use ferroflow_proto::host::{BucketCounters, DumpGroupsRequest, Group, rule_change::Kind};
use serde::Serialize;

use super::{
    bundle::Subject,
    features,
    item::{self, Which},
};
use crate::{
    error::CtlError,
    output::{duration, printable},
    session::{Session, host_answer},
};

/// Groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the groups
    Dump(Which),
    /// List the groups with their packets, those of each bucket, and who leads to them
    Stats(Which),
    /// Tell what groups there can be
    Features,
    /// By hand: add groups
    Add(Groups),
    /// By hand: give groups another content; buckets whose number stays keep their counters
    Mod(Mod),
    /// By hand: delete groups, and the rules that send to them
    Del(Del),
    /// By hand: put buckets into a group: group_id=1,command_bucket_id=last,bucket=output:2
    InsertBuckets(Groups),
    /// By hand: take buckets out of a group: group_id=1,command_bucket_id=7
    RemoveBuckets(Groups),
}

/// Groups.
#[derive(Debug, Args)]
pub struct Groups {
    /// `group_id=1,type=select,bucket=weight:2,actions=output:1`; @FILE: one in each line;
    /// -: from the standard input
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
}

/// Groups with another content.
#[derive(Debug, Args)]
pub struct Mod {
    /// `group_id=1,type=all,bucket=output:1`; @FILE or - for several
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Add those that are not there
    #[arg(long)]
    may_create: bool,
}

/// Groups to delete.
#[derive(Debug, Args)]
pub struct Del {
    /// `group_id=1`, or just the number
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "groups")]
    all: bool,
}

impl Command {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::Dump(Which { id }) => dump(session, id, GroupView::write).await,
            Self::Stats(Which { id }) => dump(session, id, GroupView::write_stats).await,
            Self::Features => features::groups(session).await,
            Self::Add(Groups { groups }) => change(session, &groups, Kind::GroupAdd).await,
            Self::Mod(Mod { groups, may_create }) => {
                let kind = if may_create { Kind::GroupAddOrModify } else { Kind::GroupModify };
                change(session, &groups, kind).await
            }
            Self::InsertBuckets(Groups { groups }) => {
                change(session, &groups, Kind::GroupInsertBuckets).await
            }
            Self::RemoveBuckets(Groups { groups }) => {
                change(session, &groups, Kind::GroupRemoveBuckets).await
            }
            Self::Del(Del { groups, all }) => {
                let groups = item::chosen(groups, all, "groups", "group_id")?;
                change(session, &groups, Kind::GroupDelete).await
            }
        }
    }
}

async fn dump(
    session: &mut Session<'_>,
    group_id: Option<u32>,
    write: fn(&GroupView, &mut dyn Write) -> io::Result<()>,
) -> Result<(), CtlError> {
    let mut rules = session.rules().await?;
    let answer = host_answer(
        rules.dump_groups(session.request(DumpGroupsRequest { group_id, bridge: session.bridge() })).await,
    )?;
    let groups: Vec<GroupView> = answer.groups.into_iter().map(GroupView::from).collect();
    item::print(session, &groups, write)
}

async fn change(session: &mut Session<'_>, groups: &[String], kind: Kind) -> Result<(), CtlError> {
    item::change(session, groups, (Subject::Group, kind)).await
}

/// What is shown of a group.
#[derive(Debug, Serialize)]
struct GroupView {
    group_id: u32,
    group: String,
    n_packets: u64,
    n_bytes: u64,
    /// Rules and groups that lead to it.
    n_references: u64,
    /// Nanoseconds.
    age: u64,
    buckets: Vec<BucketView>,
}

/// What is shown of a bucket.
#[derive(Debug, Serialize)]
struct BucketView {
    bucket_id: u32,
    n_packets: u64,
    n_bytes: u64,
}

impl From<Group> for GroupView {
    fn from(group: Group) -> Self {
        let bucket = |BucketCounters { bucket_id, n_packets, n_bytes }: BucketCounters| BucketView {
            bucket_id,
            n_packets,
            n_bytes,
        };
        Self {
            group_id: group.group_id,
            group: group.text,
            n_packets: group.n_packets,
            n_bytes: group.n_bytes,
            n_references: group.n_references,
            age: group.age_ns,
            buckets: group.buckets.into_iter().map(bucket).collect(),
        }
    }
}

impl GroupView {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", printable(&self.group))
    }

    fn write_stats(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { group_id, n_packets, n_bytes, n_references, age, .. } = self;
        let age = duration(*age);
        write!(
            out,
            "group_id={group_id},duration={age},ref_count={n_references},packet_count={n_packets},byte_count={n_bytes}"
        )?;
        for BucketView { bucket_id, n_packets, n_bytes } in &self.buckets {
            write!(out, ",bucket{bucket_id}:packet_count={n_packets},byte_count={n_bytes}")?;
        }
        writeln!(out)
    }
}
