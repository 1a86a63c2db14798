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
use flowtable::types::MacAddr;
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
        let Some((new, last)) = news(&now, told.load(Ordering::Acquire)) else { continue };
        if queue(&sender, Message::Holders(new)).await.is_err() {
            return;
        }
        told.fetch_max(last, Ordering::AcqRel);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Words that came after one of this number, and the number of the last of them.
pub(super) fn news(now: &Holders, after: u64) -> Option<(pb::Holders, u64)> {
    let new = || now.iter().filter(|(_, (number, ..))| *number > after);
    let last = new().map(|(_, (number, ..))| *number).max()?;
    let holder = |(port, (_, parent, mac)): (&String, &(u64, String, MacAddr))| pb::Holder {
        virtual_port: port.clone(),
        parent: parent.clone(),
        mac: mac.to_string(),
    };
    Some((pb::Holders { holders: new().map(holder).collect() }, last))
}
