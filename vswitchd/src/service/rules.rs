//! Changes of rules, groups and meters by hand, and what there is of them.

use std::sync::Arc;

use ferroflow_proto::host::{self as pb, rule_change::Kind, rule_service_server::RuleService};
use flowtable::{
    flow::RuleStats,
    group::Group,
    meter::Meter,
    pipeline::MAX_METERS,
    set::NamedSet,
    table::{MAX_BANDS, MAX_BUCKETS, MAX_GROUP_CHAIN, TableSettings, Tables},
    text::{ChangeKind, SetChangeKind, print_group, print_member, print_meter},
    types::{GroupId, MeterId, TableId, Timestamp},
};
use tonic::{Code, Request, Response, Status};

use super::{Service, bridges};
use crate::host::{ChangeError, Host, Verb, WrittenChange};

/// Largest number of a group (OpenFlow 1.5 §6.7).
const MAX_GROUP: u32 = 0xffff_ff00;
/// Largest number of a meter (OpenFlow 1.5 §6.8).
const MAX_METER: u32 = 0xffff_0000;

#[tonic::async_trait]
impl RuleService for Service {
    async fn change_rules(
        &self,
        request: Request<pb::ChangeRulesRequest>,
    ) -> Result<Response<pb::ChangeRulesResponse>, Status> {
        let pb::ChangeRulesRequest { changes, replace, bridge } = request.into_inner();
        let changes = changes.into_iter().enumerate().map(|(index, change)| written(index, change));
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        self.host
            .with(move |host| {
                let id = host.bridge(&bridge).map_err(bridges::refusal)?.id();
                let changed = host.change_rules(id, &changes, replace);
                let epoch = changed.map_err(|error| change_refusal(&error))?;
                let tables = host.bridge(&bridge).map_err(bridges::refusal)?.tables();
                Ok(Response::new(pb::ChangeRulesResponse {
                    n_rules: tables.len() as u64,
                    epoch: epoch.get(),
                    n_groups: tables.groups().count() as u64,
                    n_meters: tables.meters().count() as u64,
                }))
            })
            .await
    }

    async fn compare_rules(
        &self,
        request: Request<pb::ChangeRulesRequest>,
    ) -> Result<Response<pb::CompareRulesResponse>, Status> {
        let pb::ChangeRulesRequest { changes, bridge, .. } = request.into_inner();
        let changes = changes.into_iter().enumerate().map(|(index, change)| written(index, change));
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        let compare = move |host: &mut Host| {
            let bridge = host.bridge(&bridge).map_err(bridges::refusal)?;
            host.compare_rules(bridge, &changes).map_err(|error| change_refusal(&error))
        };
        let (gone, fresh) = self.host.with(compare).await?;
        Ok(Response::new(pb::CompareRulesResponse { gone, fresh }))
    }

    async fn list_tables(
        &self,
        request: Request<pb::ListTablesRequest>,
    ) -> Result<Response<pb::ListTablesResponse>, Status> {
        let (tables, _) = self.tables_with_stats(request.into_inner().bridge).await?;
        let all = (0..=u8::MAX).filter_map(|raw| TableId::new(raw).ok());
        let listed = all.filter_map(|id| table(&tables, id)).collect();
        let fragments = tables.fragments().name().to_owned();
        let options = tables.options().iter().map(|option| option.to_string()).collect();
        Ok(Response::new(pb::ListTablesResponse { tables: listed, fragments, options }))
    }

    async fn list_sets(
        &self,
        request: Request<pb::ListSetsRequest>,
    ) -> Result<Response<pb::ListSetsResponse>, Status> {
        let pb::ListSetsRequest { name: wanted, bridge } = request.into_inner();
        let (tables, _) = self.tables_with_stats(bridge).await?;
        let sets: Vec<_> = tables
            .sets()
            .iter()
            .filter(|set| wanted.is_empty() || set.name().as_str() == wanted)
            .map(|set| named_set(&tables, set))
            .collect();
        if sets.is_empty() && !wanted.is_empty() {
            return Err(missing("set", wanted.escape_debug()));
        }
        Ok(Response::new(pb::ListSetsResponse { sets }))
    }

    async fn dump_groups(
        &self,
        request: Request<pb::DumpGroupsRequest>,
    ) -> Result<Response<pb::DumpGroupsResponse>, Status> {
        let pb::DumpGroupsRequest { group_id: wanted, bridge } = request.into_inner();
        let wanted = wanted.map(group_id).transpose()?;
        let (tables, now) = self.tables_with_stats(bridge).await?;
        let groups = match wanted {
            Some(id) => vec![tables.group(id).ok_or_else(|| missing("group", id))?],
            None => tables.groups().collect(),
        };
        let groups = groups.into_iter().map(|found| group(&tables, found, now)).collect();
        Ok(Response::new(pb::DumpGroupsResponse { groups }))
    }

    async fn dump_meters(
        &self,
        request: Request<pb::DumpMetersRequest>,
    ) -> Result<Response<pb::DumpMetersResponse>, Status> {
        let pb::DumpMetersRequest { meter_id: wanted, bridge } = request.into_inner();
        let wanted = wanted.map(meter_id).transpose()?;
        let (tables, now) = self.tables_with_stats(bridge).await?;
        let meters = match wanted {
            Some(id) => vec![tables.meter(id).ok_or_else(|| missing("meter", id))?],
            None => tables.meters().collect(),
        };
        let meters = meters.into_iter().map(|found| meter(&tables, found, now)).collect();
        Ok(Response::new(pb::DumpMetersResponse { meters }))
    }

    async fn get_features(
        &self,
        _request: Request<pb::GetFeaturesRequest>,
    ) -> Result<Response<pb::GetFeaturesResponse>, Status> {
        Ok(Response::new(features()))
    }
}

/// What groups and meters there can be.
fn features() -> pb::GetFeaturesResponse {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let groups = pb::GroupFeatures {
        types: words(&["all", "select", "indirect", "ff"]),
        selection_methods: words(&["dp_hash", "hash"]),
        capabilities: words(&["select_weight", "select_liveness", "chaining", "chaining_checks"]),
        max_group: MAX_GROUP.into(),
        max_buckets: MAX_BUCKETS as u64,
        max_chain: MAX_GROUP_CHAIN as u64,
    };
    let meters = pb::MeterFeatures {
        bands: words(&["drop", "dscp_remark"]),
        capabilities: words(&["kbps", "pktps", "burst", "stats"]),
        max_meter: MAX_METER.into(),
        max_bands: MAX_BANDS as u64,
        max_per_packet: MAX_METERS as u64,
    };
    pb::GetFeaturesResponse { groups: Some(groups), meters: Some(meters) }
}

impl Service {
    /// The tables of a bridge, their statistics brought up to date, and when.
    async fn tables_with_stats(&self, bridge: String) -> Result<(Arc<Tables>, Timestamp), Status> {
        self.host
            .with(move |host| {
                host.dataplane().flush_stats();
                let tables = Arc::clone(host.bridge(&bridge).map_err(bridges::refusal)?.tables());
                Ok((tables, host.dataplane().now()))
            })
            .await
    }
}

/// What is to be said of a table, if anything is.
fn table(tables: &Tables, id: TableId) -> Option<pb::Table> {
    let (settings, counters) = (tables.settings(id), tables.stats().get(id));
    let n_rules = tables.n_rules(id);
    let is_usual = *settings == TableSettings::default();
    (n_rules > 0 || counters.n_lookups > 0 || !is_usual).then(|| pb::Table {
        table: id.get().into(),
        name: settings.name.clone(),
        n_rules: n_rules as u64,
        n_lookups: counters.n_lookups,
        n_matches: counters.n_matches,
        max_rules: settings.max_rules.map(|max| max as u64),
        overflow: settings.overflow.name().to_owned(),
        miss: settings.miss.name().to_owned(),
    })
}

fn named_set(tables: &Tables, set: &NamedSet) -> pb::NamedSet {
    pb::NamedSet {
        name: set.name().to_string(),
        r#type: set.kind().name().to_owned(),
        members: set.members().map(|member| print_member(set.kind(), member)).collect(),
        n_rules: tables.rules_of_set(set.name()).count() as u64,
    }
}

fn group(tables: &Tables, group: &Group, now: Timestamp) -> pb::Group {
    let counters = |stats: &RuleStats| stats.get();
    let (n_packets, n_bytes) = counters(&group.stats);
    let buckets = group.buckets.iter().map(|bucket| {
        let (n_packets, n_bytes) = counters(&bucket.stats);
        pb::BucketCounters { bucket_id: bucket.id.get(), n_packets, n_bytes }
    });
    pb::Group {
        group_id: group.id.get(),
        text: print_group(group),
        n_packets,
        n_bytes,
        n_references: tables.n_references_to_group(group.id) as u64,
        age_ns: now.since(group.born).as_nanos() as u64,
        buckets: buckets.collect(),
    }
}

fn meter(tables: &Tables, meter: &Meter, now: Timestamp) -> pb::Meter {
    let (n_packets, n_bytes) = meter.stats();
    let bands =
        meter.band_stats().into_iter().map(|(n_packets, n_bytes)| pb::BandCounters { n_packets, n_bytes });
    pb::Meter {
        meter_id: meter.config().id.get(),
        text: print_meter(meter.config()),
        n_packets,
        n_bytes,
        n_rules: tables.n_rules_of_meter(meter.config().id) as u64,
        age_ns: now.since(meter.born()).as_nanos() as u64,
        bands: bands.collect(),
    }
}

fn written(index: usize, change: pb::RuleChange) -> Result<WrittenChange, Status> {
    let verb = match change.kind() {
        Kind::FlowAdd => Verb::Flow(ChangeKind::Add),
        Kind::FlowModify => Verb::Flow(ChangeKind::Modify),
        Kind::FlowModifyStrict => Verb::Flow(ChangeKind::ModifyStrict),
        Kind::FlowDelete => Verb::Flow(ChangeKind::Delete),
        Kind::FlowDeleteStrict => Verb::Flow(ChangeKind::DeleteStrict),
        Kind::GroupAdd => Verb::AddGroup,
        Kind::GroupModify => Verb::ModifyGroup,
        Kind::GroupAddOrModify => Verb::SetGroup,
        Kind::GroupDelete => Verb::DeleteGroup,
        Kind::GroupInsertBuckets => Verb::InsertBuckets,
        Kind::GroupRemoveBuckets => Verb::RemoveBuckets,
        Kind::MeterAdd => Verb::AddMeter,
        Kind::MeterModify => Verb::ModifyMeter,
        Kind::MeterDelete => Verb::DeleteMeter,
        Kind::SetAdd => Verb::Set(SetChangeKind::Add),
        Kind::SetReplace => Verb::Set(SetChangeKind::Replace),
        Kind::SetInsert => Verb::Set(SetChangeKind::Insert),
        Kind::SetRemove => Verb::Set(SetChangeKind::Remove),
        Kind::SetDelete => Verb::Set(SetChangeKind::Delete),
        Kind::Table => Verb::Table,
        Kind::Fragments => Verb::Fragments,
        Kind::OptionMap => Verb::MapOption,
        Kind::OptionUnmap => Verb::UnmapOption,
        Kind::Unspecified => {
            let message = format!("change {}: it is of no kind that this version knows", index + 1);
            return Err(Status::invalid_argument(message));
        }
    };
    Ok(WrittenChange { verb, text: change.text })
}

fn group_id(raw: u32) -> Result<GroupId, Status> {
    GroupId::new(raw).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn meter_id(raw: u32) -> Result<MeterId, Status> {
    MeterId::new(raw).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn missing(word: &str, id: impl std::fmt::Display) -> Status {
    Status::not_found(format!("there is no {word} {id}; vswitchctl {word} dump shows those there are"))
}

pub(super) fn change_refusal(error: &ChangeError) -> Status {
    let code = match error {
        ChangeError::NotByHand | ChangeError::NoBridge => Code::FailedPrecondition,
        ChangeError::Text { .. } | ChangeError::NotARule { .. } | ChangeError::Refused(_) => {
            Code::InvalidArgument
        }
        ChangeError::State(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}
