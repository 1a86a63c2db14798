//! What a switch did in a while.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A measurement of one side.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Window {
    /// Packets received, or first packets that were handled.
    pub n_packets: u64,
    /// Time the thread had of its core.
    pub cpu: Duration,
    /// Time that went by.
    pub wall: Duration,
    /// What answered the packets: caches by name, each with its share.
    pub mix: Vec<(String, f64)>,
    /// Packets that did not leave.
    pub n_dropped: u64,
    /// Heap allocations; unknown of the other side.
    pub n_allocations: Option<u64>,
}

impl Window {
    /// Nanoseconds of the core for a packet.
    pub fn nanos(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.n_packets.max(1) as f64
    }

    /// Millions of packets in a second of the core.
    pub fn mpps(&self) -> f64 {
        1e3 / self.nanos().max(1e-9)
    }

    /// The part of its core that the thread had.
    pub fn share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "n_packets": self.n_packets,
            "cpu_ns": self.cpu.as_nanos() as u64,
            "wall_ns": self.wall.as_nanos() as u64,
            "mix": self.mix.iter().map(|(name, share)| json!([name, share])).collect::<Vec<_>>(),
            "n_dropped": self.n_dropped,
            "n_allocations": self.n_allocations,
        })
    }

    /// From JSON.
    ///
    /// # Errors
    /// When something is missing.
    pub fn from_json(value: &Value) -> Result<Self> {
        let number = |name: &str| value[name].as_u64().with_context(|| format!("no {name} in {value}"));
        let mix = value["mix"].as_array().with_context(|| format!("no mix in {value}"))?;
        let share = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_f64()?));
        Ok(Self {
            n_packets: number("n_packets")?,
            cpu: Duration::from_nanos(number("cpu_ns")?),
            wall: Duration::from_nanos(number("wall_ns")?),
            mix: mix.iter().filter_map(share).collect(),
            n_dropped: number("n_dropped")?,
            n_allocations: value["n_allocations"].as_u64(),
        })
    }
}

/// Counts of packets as shares of all, without those that are nothing.
pub fn shares<'a>(n_packets: u64, counts: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<(String, f64)> {
    let counted = counts.into_iter().filter(|(_, n)| *n > 0);
    counted.map(|(name, n)| (name.to_owned(), n as f64 / n_packets.max(1) as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_survive_json() {
        let window = Window {
            n_packets: 2_000_000,
            cpu: Duration::from_millis(950),
            wall: Duration::from_secs(1),
            mix: shares(4, [("session", 3), ("nothing", 0)]),
            n_dropped: 7,
            n_allocations: Some(0),
        };
        assert_eq!(Window::from_json(&window.to_json()).unwrap(), window);
        assert_eq!(window.mix, [("session".to_owned(), 0.75)]);
        assert!((window.share() - 0.95).abs() < 1e-9 && (window.nanos() - 475.0).abs() < 1e-9);
        assert!(Window::from_json(&Value::Null).is_err());
    }
}
