//! The rules of the tables, all or some.

use ferroflow_proto::host as pb;
use flowtable::{
    flow::Rule,
    table::{Change, Filter},
    text::{ChangeKind, TextError, parse_change, parse_filter, print_actions, print_options},
    types::{TableId, Timestamp},
};
use tonic::Status;

use super::{bridges, dump};
use crate::host::Host;

/// Rules that are asked for.
pub(super) fn dump(host: &Host, request: &pb::DumpFlowsRequest) -> Result<Vec<pb::Flow>, Status> {
    let table = request.table.map(table_id).transpose()?;
    let bridge = host.visible_bridge(&request.bridge).map_err(bridges::refusal)?;
    let wrong = |error: TextError| Status::invalid_argument(error.to_string());
    let choice = if request.strict {
        let change = parse_change(ChangeKind::DeleteStrict, &request.filter, bridge.ports());
        Choice::Just(change.map_err(wrong)?)
    } else {
        Choice::Within(parse_filter(&request.filter, bridge.ports()).map_err(wrong)?)
    };
    host.dataplane().flush_stats();
    let (tables, now) = (bridge.tables(), host.dataplane().now());
    let wanted = |rule: &Rule| table.is_none_or(|table| table == rule.table) && choice.is(rule);
    Ok(tables.rules().filter(|rule| wanted(rule)).map(|rule| flow(rule, now)).collect())
}

/// Which rules.
enum Choice {
    /// The one that the deletion would delete.
    Just(Change),
    Within(Filter),
}

impl Choice {
    fn is(&self, rule: &Rule) -> bool {
        match self {
            Self::Within(filter) => filter.passes(rule),
            Self::Just(Change::DeleteStrict { table, priority, matching }) => {
                (rule.table, rule.priority, &rule.matching) == (*table, *priority, matching)
            }
            Self::Just(_) => false,
        }
    }
}

fn flow(rule: &Rule, now: Timestamp) -> pb::Flow {
    let (n_packets, n_bytes) = rule.stats.get();
    pb::Flow {
        table: rule.table.get().into(),
        priority: rule.priority.get().into(),
        cookie: rule.cookie,
        r#match: rule.matching.to_string(),
        actions: print_actions(&rule.actions),
        n_packets,
        n_bytes,
        origin: Some(dump::origin(&rule.origin)),
        options: print_options(&rule.life),
        age_ns: now.since(rule.life.born).as_nanos() as u64,
    }
}

fn table_id(raw: u32) -> Result<TableId, Status> {
    let table = u8::try_from(raw).ok().and_then(|raw| TableId::new(raw).ok());
    table.ok_or_else(|| Status::invalid_argument(format!("table {raw}: tables are 0 to 254")))
}
