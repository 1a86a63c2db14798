//! Ports that are gone, and what was counted of them while they were there: so what all
//! ports have received still is what was forwarded and dropped. Counters go by the name;
//! an interface that comes back goes on with its own.

use dataplane::{DetachedPort, PortCounts, PortId, Remains};
use flowtable::{
    drop::DropReason,
    stats::DropCount,
    types::{BridgeId, PortNo},
};

use super::Host;

/// Names that are kept. The oldest are added up as [`OTHERS`].
const MAX_NAMES: usize = 1024;
/// Rows of drops for each. What more there is is counted without its rule.
const MAX_ROWS: usize = 256;
/// Name of all that are too many.
const OTHERS: &str = "(others)";

/// A row of drops, and the bridge that the packets came in by.
pub type Row = (BridgeId, DropCount);

/// A port that is gone.
#[derive(Debug, Clone)]
pub struct Departed {
    /// Its name.
    pub name: String,
    /// Its last number, in its bridge; it may be another's now.
    pub port: PortId,
    /// What it counted.
    pub counts: PortCounts,
    /// Why its packets were dropped.
    pub drops: Vec<DropCount>,
}

/// All of them, those that went last at the end.
#[derive(Debug, Default)]
pub(super) struct Graveyard(Vec<Departed>);

impl Graveyard {
    /// A port goes; what an earlier one of its name has counted stays with it.
    pub(super) fn add(&mut self, DetachedPort { status, drops }: DetachedPort) {
        let earlier = self.0.iter().position(|known| known.name == status.name);
        let mut departed = match earlier {
            Some(idx) => self.0.remove(idx),
            None => Departed::nothing(status.name, PortId::new(status.bridge, status.port)),
        };
        departed.port = PortId::new(status.bridge, status.port);
        departed.take(status.counters, drops, MAX_ROWS);
        self.0.push(departed);
        while self.0.len() > MAX_NAMES {
            self.add_up_oldest();
        }
    }

    fn add_up_oldest(&mut self) {
        let others = self.0.iter().position(|known| known.name == OTHERS).map(|idx| self.0.remove(idx));
        let mut others = others.unwrap_or_else(|| Departed::nothing(OTHERS.to_owned(), PortNo::ZERO.into()));
        let oldest = self.0.remove(0);
        others.take(oldest.counts, oldest.drops, 0);
        self.0.push(others);
    }
}

impl Departed {
    fn nothing(name: String, port: PortId) -> Self {
        Self { name, port, counts: PortCounts::default(), drops: Vec::new() }
    }

    fn take(&mut self, counts: PortCounts, drops: Vec<DropCount>, max_rows: usize) {
        self.counts += counts;
        for drop in drops {
            add_row(&mut self.drops, drop, max_rows);
        }
    }
}

/// Adds a row to those of the same cause.
fn add_row(rows: &mut Vec<DropCount>, mut row: DropCount, max_rows: usize) {
    let same = |known: &DropCount, row: &DropCount| known.reason == row.reason && cause(known) == cause(row);
    let idx = rows.iter().position(|known| same(known, &row)).or_else(|| {
        if rows.len() >= max_rows {
            (row.rule, row.meter) = (None, None);
        }
        rows.iter().position(|known| same(known, &row))
    });
    match idx.and_then(|idx| rows.get_mut(idx)) {
        Some(known) => {
            known.n_packets += row.n_packets;
            known.n_bytes += row.n_bytes;
            known.n_copies += row.n_copies;
        }
        None => rows.push(row),
    }
}

/// The object that dropped, and where.
fn cause(row: &DropCount) -> Option<(u64, &str, &str)> {
    row.rule.as_ref().map(|rule| (rule.origin.logical_flow, &*rule.origin.stage, &*rule.origin.object))
}

impl Host {
    /// Ports that are gone, with what they counted.
    pub fn departed(&self) -> &[Departed] {
        &self.departed.0
    }

    /// What an earlier port of this name counted.
    pub fn counted_before(&self, name: &str) -> PortCounts {
        let known = self.departed.0.iter().find(|known| known.name == name);
        known.map(|known| known.counts).unwrap_or_default()
    }

    /// Drops of all ports that are there, and of packets that the responder gave up.
    pub fn drops(&self) -> Vec<Row> {
        let mut drops = self.dataplane_drops();
        drops.extend(self.given_up.iter().map(|row| (BridgeId::FIRST, row.clone())));
        drops
    }

    /// Those by the dataplane.
    pub(crate) fn dataplane_drops(&self) -> Vec<Row> {
        let of = |id: BridgeId| self.dataplane.drops_of(id).into_iter().map(move |row| (id, row));
        self.bridges.iter().flat_map(|bridge| of(bridge.id)).collect()
    }

    /// Detaches a port, and keeps what it counted.
    pub(super) fn detach(&mut self, port: PortId) {
        drop(self.let_go_of_port(port));
    }

    /// The same; the interface is the host's again when what is answered has been dropped.
    pub(super) fn let_go_of_port(&mut self, port: PortId) -> Option<Remains> {
        // The only error: it is not attached.
        let (mut detached, remains) = self.dataplane.let_go(port).ok()?;
        let is_of_port = |row: &DropCount| PortId::from(row.in_port) == port;
        let (of_port, others) = std::mem::take(&mut self.given_up).into_iter().partition(is_of_port);
        self.given_up = others;
        detached.drops.extend::<Vec<_>>(of_port);
        self.departed.add(detached);
        Some(remains)
    }

    /// Counts a packet that no neighbour was found for. It was counted as taken by the
    /// host before, so it is a lost copy.
    pub(super) fn give_up(&mut self, in_port: PortNo, n_bytes: usize) {
        let reason = DropReason::NeighbourUnknown;
        let n_bytes = n_bytes as u64;
        match self.given_up.iter_mut().find(|row| row.in_port == in_port) {
            Some(row) => {
                row.n_copies += 1;
                row.n_bytes += n_bytes;
            }
            None => self.given_up.push(DropCount {
                in_port,
                reason,
                rule: None,
                meter: None,
                n_packets: 0,
                n_bytes,
                n_copies: 1,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane::PortStatus;
    use flowtable::types::MacAddr;

    use super::*;

    fn detached(name: &str, raw: u32, n_packets: u64) -> DetachedPort {
        let port = PortNo::new(raw).unwrap();
        let counters = PortCounts { rx_packets: n_packets, rx_dropped: n_packets, ..Default::default() };
        let row = DropCount {
            in_port: port,
            reason: DropReason::TableMiss,
            rule: None,
            meter: None,
            n_packets,
            n_bytes: 60 * n_packets,
            n_copies: 0,
        };
        let status = PortStatus {
            bridge: BridgeId::FIRST,
            port,
            name: name.to_owned(),
            kind: "memory",
            mode: String::new(),
            mac: MacAddr::new([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: false,
            why_down: None,
            gone: true,
            counters,
        };
        DetachedPort { status, drops: vec![row] }
    }

    #[test]
    fn a_name_that_goes_again_adds_up() {
        let mut graveyard = Graveyard::default();
        graveyard.add(detached("a", 1, 3));
        graveyard.add(detached("b", 2, 5));
        graveyard.add(detached("a", 7, 4));
        let [b, a] = &graveyard.0[..] else { panic!("{graveyard:?}") };
        assert_eq!((b.name.as_str(), b.counts.rx_packets), ("b", 5));
        assert_eq!((a.port.port.get(), a.counts.rx_packets, a.drops.len()), (7, 7, 1));
        assert_eq!(a.drops[0].n_packets, 7);
    }

    #[test]
    fn too_many_names_lose_their_names_but_no_packet() {
        let mut graveyard = Graveyard::default();
        let n_ports = MAX_NAMES as u64 + 40;
        for k in 0..n_ports {
            graveyard.add(detached(&format!("veth{k}"), 1, k));
        }
        assert_eq!(graveyard.0.len(), MAX_NAMES);
        let sum: u64 = graveyard.0.iter().map(|known| known.counts.rx_packets).sum();
        let dropped: u64 = graveyard.0.iter().flat_map(|known| &known.drops).map(|row| row.n_packets).sum();
        assert_eq!((sum, dropped), (n_ports * (n_ports - 1) / 2, sum));
    }
}
