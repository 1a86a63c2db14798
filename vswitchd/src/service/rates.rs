//! Rates and queues of ports, as messages.

use std::collections::BTreeMap;

use dataplane::QueueCounts;
use ferroflow_proto::host as pb;
use tonic::Status;

use crate::host::{QueueSetting, RateSetting, RateSettings};

/// Changes what is said; what is not said stays.
pub(super) fn change(settings: &mut RateSettings, request: RateChange) {
    let RateChange { receive, send, queues } = request;
    settings.receive = receive.unwrap_or(settings.receive);
    settings.send = send.unwrap_or(settings.send);
    settings.queues = queues.unwrap_or_else(|| settings.queues.clone());
}

/// What is to change.
#[derive(Debug, Default)]
pub(super) struct RateChange {
    receive: Option<Option<RateSetting>>,
    send: Option<Option<RateSetting>>,
    queues: Option<BTreeMap<u16, QueueSetting>>,
}

impl RateChange {
    /// What a request says.
    pub(super) fn of(request: &pb::ModifyPortRequest) -> Result<Self, Status> {
        Ok(Self {
            receive: request.receive_rate.as_ref().map(rate),
            send: request.send_rate.as_ref().map(rate),
            queues: request.queues.as_ref().map(queues).transpose()?,
        })
    }
}

/// `None`: any.
fn rate(message: &pb::PortRate) -> Option<RateSetting> {
    let burst_bits = Some(message.burst_bits).filter(|bits| *bits != 0);
    let setting = RateSetting { bits_per_second: message.bits_per_second, burst_bits };
    (message.bits_per_second != 0).then_some(setting)
}

fn queues(message: &pb::PortQueues) -> Result<BTreeMap<u16, QueueSetting>, Status> {
    let mut queues = BTreeMap::new();
    for queue in &message.queues {
        let wrong = |what: String| Status::invalid_argument(format!("queue {}: {what}", queue.queue));
        let id = u16::try_from(queue.queue).map_err(|_| wrong("queues are 0 to 65535".to_owned()))?;
        let priority = u8::try_from(queue.priority);
        let setting = QueueSetting {
            min: queue.min.as_ref().and_then(rate),
            max: queue.max.as_ref().and_then(rate),
            priority: priority.map_err(|_| wrong(format!("priority {}: it is 0 to 255", queue.priority)))?,
        };
        if queues.insert(id, setting).is_some() {
            return Err(wrong("it is there twice".to_owned()));
        }
    }
    Ok(queues)
}

/// What was set, with what went through the queues.
pub(super) fn describe(message: &mut pb::Port, settings: &RateSettings, counts: &BTreeMap<u16, QueueCounts>) {
    message.receive_rate = settings.receive.as_ref().map(rate_message);
    message.send_rate = settings.send.as_ref().map(rate_message);
    // Queue 0 is there without being set.
    let ids = settings.queues.keys().chain(counts.keys().filter(|id| !settings.queues.contains_key(id)));
    let mut queues: Vec<_> = ids
        .map(|id| {
            let setting = settings.queues.get(id).copied().unwrap_or_default();
            let counts = counts.get(id).copied().unwrap_or_default();
            pb::PortQueue {
                queue: (*id).into(),
                min: setting.min.as_ref().map(rate_message),
                max: setting.max.as_ref().map(rate_message),
                priority: setting.priority.into(),
                n_packets: counts.n_packets,
                n_bytes: counts.n_bytes,
                n_dropped: counts.n_dropped,
                n_waiting: counts.n_waiting,
            }
        })
        .collect();
    queues.sort_by_key(|queue| queue.queue);
    message.queues = queues;
}

fn rate_message(setting: &RateSetting) -> pb::PortRate {
    pb::PortRate {
        bits_per_second: setting.bits_per_second,
        burst_bits: setting.burst_bits.unwrap_or_default(),
    }
}
