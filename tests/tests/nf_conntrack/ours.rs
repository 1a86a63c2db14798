//! The switch with a tracker, on frames in memory.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use flowtable::build;
use flowtable::conntrack::{Connection, Filter};
use flowtable::packet::Packet;
use flowtable::port::{PortInfo, PortRole, PortTable};
use flowtable::snapshot::Snapshot;
use flowtable::switch::{Sink, Switch, SwitchConfig};
use flowtable::table::{Change, Tables};
use flowtable::text::parse_flow;
use flowtable::types::{Epoch, PortNo, Timestamp};

use crate::pair::Outcome;
use crate::{Class, Family, Opinion, Side};

const ETHERNET_LEN: usize = 14;

/// Where what the tracker says of a packet sends it.
const CLASSES: [(u32, &str, Opinion); 7] = [
    (11, "+new-rel-rpl-inv", Opinion { class: Class::New, is_reply: false }),
    (12, "+est-rel-rpl-inv", Opinion { class: Class::Established, is_reply: false }),
    (13, "+est-rel+rpl-inv", Opinion { class: Class::Established, is_reply: true }),
    (14, "+rel-rpl-inv", Opinion { class: Class::Related, is_reply: false }),
    (15, "+rel+rpl-inv", Opinion { class: Class::Related, is_reply: true }),
    (16, "+inv", Opinion { class: Class::Invalid, is_reply: false }),
    (17, "+new-rel+rpl-inv", Opinion { class: Class::New, is_reply: true }),
];

/// A switch with a tracker.
pub(crate) struct Ours {
    switch: Switch,
    snapshot: Arc<Snapshot>,
    start: Instant,
}

#[derive(Default)]
struct Collector(Vec<(PortNo, Vec<u8>)>);

impl Sink<Vec<u8>> for Collector {
    fn output(&mut self, port: PortNo, packet: Packet<Vec<u8>>) {
        self.0.push((port, packet.bytes().to_vec()));
    }

    fn copy(&mut self, packet: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        Some(build::packet(packet.bytes(), packet.in_port))
    }

    fn make(&mut self, frame: &[u8], like: &Packet<Vec<u8>>) -> Option<Packet<Vec<u8>>> {
        Some(build::packet(frame, like.in_port))
    }

    fn release(&mut self, _: Packet<Vec<u8>>) {}
}

impl Ours {
    /// A switch that commits what is new; `nat` are rules of table 0 above priority 1 in place of the plain
    /// `ct`.
    pub(crate) fn new(nat: &[&str]) -> Result<Self> {
        let mut ports = PortTable::default();
        for number in [1, 2].into_iter().chain(CLASSES.map(|(port, ..)| port)) {
            let info = PortInfo {
                name: format!("p{number}"),
                role: PortRole::Workload,
                up: true,
                mtu: 1500,
                partial_checksums: false,
            };
            ports.insert(PortNo::new(number)?, info);
        }
        let mut rules: Vec<String> = nat.iter().map(|rule| (*rule).to_owned()).collect();
        for ip in ["ip", "ipv6"] {
            rules.push(format!("table=0,priority=1,{ip},actions=ct(table=1,zone=1,nat)"));
            for (port, state, opinion) in CLASSES {
                let commit =
                    if opinion.class == Class::New && nat.is_empty() { "ct(commit,zone=1)," } else { "" };
                rules.push(format!("table=1,{ip},ct_state=+trk{state},actions={commit}output:{port}"));
            }
        }
        let changes =
            rules.iter().map(|rule| Ok(Change::Add(parse_flow(rule, &ports).with_context(|| rule.clone())?)));
        let tables = Tables::default().transact(changes.collect::<Result<_>>()?)?;
        let snapshot = Snapshot {
            epoch: Epoch::new(1)?,
            tables: Arc::new(tables),
            ports: Arc::new(ports),
            ..Snapshot::default()
        };
        Ok(Self {
            switch: Switch::with_seed(SwitchConfig::default(), 1),
            snapshot: Arc::new(snapshot),
            start: Instant::now(),
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.start.elapsed().as_nanos() as u64)
    }

    /// As [`crate::kernel::Kernel::send`].
    pub(crate) fn send(&mut self, from: Side, family: Family, bytes: &[u8]) -> Result<Outcome> {
        Ok(self.process(from, family, bytes)?.pop())
    }

    /// As [`crate::kernel::Kernel::send_all`].
    pub(crate) fn send_all(
        &mut self,
        from: Side,
        family: Family,
        pieces: &[Vec<u8>],
    ) -> Result<Vec<(Opinion, Vec<u8>)>> {
        let mut came = Vec::new();
        for piece in pieces {
            came.extend(self.process(from, family, piece)?);
        }
        Ok(came)
    }

    fn process(&mut self, from: Side, family: Family, bytes: &[u8]) -> Result<Vec<(Opinion, Vec<u8>)>> {
        let ethertype: &[u8] = match family {
            Family::V4 => &[0x08, 0x00],
            Family::V6 => &[0x86, 0xdd],
        };
        let frame = [&[0x0a, 0, 0, 0, 0, 2, 0x0a, 0, 0, 0, 0, 1], ethertype, bytes].concat();
        let port = PortNo::new(from as u32 + 1)?;
        let mut batch: Vec<Packet<Vec<u8>>> = vec![build::packet(&frame, port)];
        let mut sink = Collector::default();
        self.switch.process(self.now(), &self.snapshot, port, &mut batch, &mut sink);
        let came = sink.0.into_iter().map(|(port, frame)| {
            let class = CLASSES.iter().find(|(number, ..)| *number == port.get());
            let opinion = class.context("sent to where no rule sends")?.2;
            Ok((opinion, frame.get(ETHERNET_LEN..).context("short")?.to_vec()))
        });
        came.collect()
    }

    /// The connections there are.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.switch
            .conntrack()
            .map(|tracker| tracker.dump(self.now(), &Filter::default()))
            .unwrap_or_default()
    }
}
