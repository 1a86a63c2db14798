//! Rates and queues of ports, as they are typed and shown.

use ferroflow_proto::host::{Port, PortQueue, PortRate};
use serde::Serialize;

/// A rate with its burst; zero: any, and the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    bits_per_second: u64,
    burst_bits: u64,
}

impl Rate {
    /// Bits per second, and bits of a burst; 0: any, and the usual.
    pub fn bits(self) -> (u64, u64) {
        (self.bits_per_second, self.burst_bits)
    }

    /// As the daemon wants it.
    pub fn message(self) -> PortRate {
        PortRate { bits_per_second: self.bits_per_second, burst_bits: self.burst_bits }
    }
}

const SHAPE: &str =
    "write bits per second, 100M, with a burst in bits 100M/10M, or none; k, M and G are 10^3, 10^6, 10^9";

/// Reads `100M`, `1G/20M` or `none`.
pub fn parse(text: &str) -> Result<Rate, String> {
    if text == "none" {
        return Ok(Rate { bits_per_second: 0, burst_bits: 0 });
    }
    let (rate, burst) = text.split_once('/').map_or((text, None), |(rate, burst)| (rate, Some(burst)));
    let positive =
        |text: &str| bits(text).filter(|bits| *bits > 0).ok_or_else(|| format!("{text:?}: {SHAPE}"));
    let burst_bits = burst.map(positive).transpose()?.unwrap_or_default();
    Ok(Rate { bits_per_second: positive(rate)?, burst_bits })
}

fn bits(text: &str) -> Option<u64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1_000),
        b'M' => (&text[..text.len() - 1], 1_000_000),
        b'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(factor)
}

/// Reads `1:min=10M,max=50M,priority=0`.
pub fn parse_queue(text: &str) -> Result<PortQueue, String> {
    let shape = || format!("{text:?}: write 1:min=10M,max=50M,priority=0, or 1 alone");
    let (id, rest) = text.split_once(':').unwrap_or((text, ""));
    let mut queue = PortQueue { queue: id.parse().map_err(|_| shape())?, ..PortQueue::default() };
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(shape)?;
        match name {
            "min" => queue.min = Some(parse(value)?.message()),
            "max" => queue.max = Some(parse(value)?.message()),
            "priority" => queue.priority = value.parse().map_err(|_| shape())?,
            _ => return Err(shape()),
        }
    }
    Ok(queue)
}

/// What is shown of a port's rates.
#[derive(Debug, Serialize)]
pub struct RatesView {
    /// Bits per second and burst in bits; none: any.
    receive_rate: Option<RateView>,
    send_rate: Option<RateView>,
    queues: Vec<QueueView>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct RateView {
    bits_per_second: u64,
    /// None: the usual.
    burst_bits: Option<u64>,
}

#[derive(Debug, Serialize)]
struct QueueView {
    queue: u32,
    min: Option<RateView>,
    max: Option<RateView>,
    priority: u32,
    n_packets: u64,
    n_bytes: u64,
    n_dropped: u64,
    n_waiting: u64,
}

impl RateView {
    fn of(rate: Option<PortRate>) -> Option<Self> {
        let rate = rate.filter(|rate| rate.bits_per_second > 0)?;
        let burst_bits = Some(rate.burst_bits).filter(|bits| *bits > 0);
        Some(Self { bits_per_second: rate.bits_per_second, burst_bits })
    }

    /// As it is typed.
    fn text(rate: Option<Self>) -> String {
        let Some(Self { bits_per_second, burst_bits }) = rate else { return "none".to_owned() };
        let burst = burst_bits.map(|bits| format!("/{}", short(bits))).unwrap_or_default();
        short(bits_per_second) + &burst
    }
}

fn short(bits: u64) -> String {
    let unit = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")]
        .into_iter()
        .find(|(unit, _)| bits > 0 && bits.is_multiple_of(*unit));
    unit.map_or_else(|| bits.to_string(), |(unit, name)| format!("{}{name}", bits / unit))
}

impl RatesView {
    /// Of a port.
    pub fn of(port: &Port) -> Self {
        let queue = |queue: &PortQueue| QueueView {
            queue: queue.queue,
            min: RateView::of(queue.min),
            max: RateView::of(queue.max),
            priority: queue.priority,
            n_packets: queue.n_packets,
            n_bytes: queue.n_bytes,
            n_dropped: queue.n_dropped,
            n_waiting: queue.n_waiting,
        };
        Self {
            receive_rate: RateView::of(port.receive_rate),
            send_rate: RateView::of(port.send_rate),
            queues: port.queues.iter().map(queue).collect(),
        }
    }

    /// What is not as usual, to be put behind a line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, rate) in [("receive-rate", self.receive_rate), ("send-rate", self.send_rate)] {
            if rate.is_some() {
                text += &format!(", {name} {}", RateView::text(rate));
            }
        }
        for QueueView { queue, min, max, priority, .. } in &self.queues {
            let (min, max) = (RateView::text(*min), RateView::text(*max));
            text += &format!(", queue {queue}:min={min},max={max},priority={priority}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_shown() {
        for (text, bits_per_second, burst_bits) in [
            ("100M", 100_000_000, 0),
            ("1G/20M", 1_000_000_000, 20_000_000),
            ("64k", 64_000, 0),
            ("999", 999, 0),
            ("none", 0, 0),
        ] {
            let rate = parse(text).unwrap();
            assert_eq!(rate, Rate { bits_per_second, burst_bits });
            assert_eq!(RateView::text(RateView::of(Some(rate.message()))), text);
        }
        for wrong in
            ["", "M", "-1", "+1M", "1T", "1M/", "0", "1M/0", "99999999999999999999", "18446744073709551615G"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn queues_are_read() {
        let queue = parse_queue("7:min=1M,max=2M/1M,priority=3").unwrap();
        assert_eq!((queue.queue, queue.priority), (7, 3));
        assert_eq!(queue.max, Some(PortRate { bits_per_second: 2_000_000, burst_bits: 1_000_000 }));
        assert_eq!(parse_queue("0").unwrap(), PortQueue::default());
        for wrong in ["", "x", "1:min", "1:min=", "1:rate=3", "1:priority=x"] {
            assert!(parse_queue(wrong).is_err(), "{wrong}");
        }
    }
}
