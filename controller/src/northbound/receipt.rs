//! Receipts as the API shows them, and waiting for one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ferroflow_proto::northbound as pb;
use tokio::time::Instant;
use tonic::{Request, Status, metadata::MetadataMap};

use crate::{controller::Controller, receipts::Affected, resource::Kind, store::Revision};

/// Longest wait.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Answers at once, or when the receipt is complete, or at the deadline.
pub(super) async fn get(
    controller: &Arc<Controller>,
    request: Request<pb::GetReceiptRequest>,
) -> Result<pb::GetReceiptResponse, Status> {
    let deadline = Instant::now() + wait_of(request.metadata());
    let pb::GetReceiptRequest { revision, wait } = request.into_inner();
    let newest = controller.state().revision();
    let revision = Revision::new(revision);
    if revision > newest {
        let message = format!("revision {revision} does not exist; the newest is {newest}");
        return Err(Status::out_of_range(message));
    }
    let mut progress = controller.receipts.progress();
    let mut ending = controller.ending();
    loop {
        progress.borrow_and_update();
        let receipt = receipt(controller, revision);
        if receipt.complete || !wait {
            return Ok(receipt);
        }
        tokio::select! {
            _ = progress.changed() => {}
            _ = ending.wait_for(Option::is_some) => return Ok(receipt),
            () = tokio::time::sleep_until(deadline) => return Ok(receipt),
        }
    }
}

/// The call's own deadline less the time the answer needs to get back.
fn wait_of(metadata: &MetadataMap) -> Duration {
    let timeout = metadata.get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
    timeout.map_or(MAX_WAIT, |timeout| (timeout - timeout / 10).min(MAX_WAIT))
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(value.saturating_mul(60))),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// The receipt as it stands.
pub(super) fn receipt(controller: &Controller, revision: Revision) -> pb::GetReceiptResponse {
    let affected = controller.receipts.affected(revision);
    let chassis: BTreeSet<String> = match &affected {
        Affected::Unknown => BTreeSet::new(),
        Affected::Chassis(chassis) => {
            let state = controller.state();
            let is_registered = |id: &&String| state.chassis(id).is_some();
            chassis.iter().filter(is_registered).cloned().collect()
        }
        // Also those that have no ports any more: they may not know that yet.
        Affected::Forgotten => {
            let state = controller.state();
            state.iter_kind(Kind::Chassis).map(|record| record.name.id().to_owned()).collect()
        }
    };
    let chassis: Vec<_> = chassis.into_iter().map(|id| of_chassis(controller, &id, revision)).collect();
    let complete = affected != Affected::Unknown && chassis.iter().all(|chassis| chassis.applied);
    pb::GetReceiptResponse { revision: revision.get(), complete, chassis }
}

/// A chassis has applied a revision when it forwards by it, or by its newest view where
/// that is older: then nothing since has concerned it.
fn of_chassis(controller: &Controller, id: &str, revision: Revision) -> pb::ChassisReceipt {
    let status = controller.registry.status(id);
    let view = controller.registry.view_revision(id).unwrap_or(revision);
    let applied = status.applied >= revision.min(view);
    let errors = if applied { controller.registry.errors(id) } else { Vec::new() };
    pb::ChassisReceipt { chassis: format!("chassis/{id}"), applied, errors, connected: status.connected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_the_protocol_are_understood() {
        assert_eq!(parse_timeout("20S"), Some(Duration::from_secs(20)));
        assert_eq!(parse_timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "5", "1x", "123456789S", "-1S", "é"] {
            assert_eq!(parse_timeout(wrong), None, "{wrong}");
        }
        let mut metadata = MetadataMap::new();
        assert_eq!(wait_of(&metadata), MAX_WAIT);
        metadata.insert("grpc-timeout", "10S".parse().unwrap());
        assert_eq!(wait_of(&metadata), Duration::from_secs(9));
    }
}
