//! Who has the addresses of virtual ports: each word of a workload once, also if it came
//! while there was no controller.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ferroflow_proto::chassis::{self as pb, SyncRequest, sync_request::Message};
use tokio::sync::{mpsc, watch};

use super::queue;
use crate::host::Holders;

/// Pause between two messages: words about one address in the meantime are one.
const PAUSE: Duration = Duration::from_millis(100);

/// Tells of them as long as the stream takes it. `told` is the number of the last word told.
pub(super) async fn send(
    sender: mpsc::Sender<SyncRequest>,
    mut holders: watch::Receiver<Arc<Holders>>,
    told: Arc<AtomicU64>,
) {
    holders.mark_changed();
    while holders.changed().await.is_ok() {
        let now = Arc::clone(&holders.borrow_and_update());
        let before = told.load(Ordering::Acquire);
        let new = now.iter().filter(|(_, (number, ..))| *number > before);
        let new: Vec<_> = new
            .map(|(port, (_, parent, mac))| pb::Holder {
                virtual_port: port.clone(),
                parent: parent.clone(),
                mac: mac.to_string(),
            })
            .collect();
        if new.is_empty() {
            continue;
        }
        if queue(&sender, Message::Holders(pb::Holders { holders: new })).await.is_err() {
            return;
        }
        let last = now.values().map(|(number, ..)| *number).max();
        told.fetch_max(last.unwrap_or(before), Ordering::AcqRel);
        tokio::time::sleep(PAUSE).await;
    }
}
