//! The audit: several times a second, what packets see is compared with what it should be, a
//! part at a time, and put right. Rules that are missing, or too many, show at once by their
//! number; one that does something else when its turn comes.

use std::{sync::Arc, time::Duration};

use flowtable::{
    snapshot::Snapshot,
    types::{BridgeId, Epoch},
};
use ovn_northd_lite::Audit;

use super::{Bridge, Host};

/// How often.
pub const AUDIT_INTERVAL: Duration = Duration::from_millis(200);
/// Rules that are looked at each time: about a millisecond's work.
const RULES: usize = 2000;

/// How far the audit is, and what it has found.
#[derive(Debug, Default)]
pub(super) struct Audits {
    audit: Audit,
    n_repairs: u64,
}

impl Host {
    /// How often something was found that was not as it should be.
    pub fn n_repairs(&self) -> u64 {
        self.audits.n_repairs
    }

    /// Looks at a part of what packets see, and puts right what is wrong.
    pub fn audit(&mut self) {
        self.audit_snapshots();
        // Of tables that refuse the network it is known: the next change tries again.
        if !self.is_handmade && !self.is_adrift && !self.first().tables.is_empty() {
            self.audit_tables();
        }
    }

    /// Workers have the tables that they were given.
    fn audit_snapshots(&mut self) {
        let is_other = |bridge: &&Bridge| {
            let seen = self.dataplane.snapshot(bridge.id);
            // One that was never published has nothing to compare with.
            let is_same = |seen: Arc<Snapshot>| Arc::ptr_eq(&seen.tables, &bridge.tables);
            bridge.epoch > Epoch::ZERO && !seen.is_some_and(is_same)
        };
        let wrong: Vec<_> = self.bridges.iter().filter(is_other).map(|b| (b.id, b.name.clone())).collect();
        for (id, bridge) in wrong {
            tracing::error!(bridge, "packets are not forwarded by this bridge's tables; giving them again");
            self.audits.n_repairs += 1;
            self.publish(id);
        }
    }

    /// The tables are what the network became.
    fn audit_tables(&mut self) {
        let n_others = self.neighbours.rules().count();
        let mut audit = std::mem::take(&mut self.audits.audit);
        let before = Arc::clone(&self.first().tables);
        let found = self.lowering.audit(&mut audit, &before, n_others, RULES);
        self.audits.audit = audit;
        let Err(drift) = found else { return };
        self.realign();
        if !self.is_adrift && before != self.first().tables {
            tracing::error!(%drift, "the tables have drifted from the network; put right");
            self.audits.n_repairs += 1;
            self.publish(BridgeId::FIRST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Instant};

    use dataplane::{Dataplane, DataplaneConfig};
    use flowtable::{
        flow::Action,
        table::{Change, Tables},
        types::{MacAddr, PortNo, Priority},
    };
    use ovn_northd_lite::{
        chassis_view, compile, diff,
        key::{DatapathKey, PortKey},
        model::{LogicalSwitch, Northbound, PortAddresses, SwitchPort, SwitchPortKind},
        southbound::{ChassisRecord, Southbound},
    };

    use super::*;
    use crate::{
        bfd::Timing,
        host::{Identity, Mode},
        state::StateDir,
    };

    /// A switch with so many workloads, all of them on this host.
    fn view(n: u16) -> Southbound {
        let port = |n: u16| {
            let [high, low] = n.to_be_bytes();
            let known = PortAddresses {
                mac: MacAddr::new([0x0a, 0, 0, 0, high, low]),
                ips: vec![[10, 0, high, low].into()],
            };
            let kind = SwitchPortKind::Workload {
                addresses: vec![known],
                unknown: false,
                port_security: Vec::new(),
                chassis: Some("h1".to_owned()),
                additional: Default::default(),
                access: Default::default(),
            };
            let key = PortKey::new(n).unwrap();
            (
                format!("w{n}"),
                SwitchPort {
                    key,
                    kind,
                    enabled: true,
                    services: Default::default(),
                    options: Default::default(),
                    hears: Default::default(),
                },
            )
        };
        let switch = LogicalSwitch {
            key: DatapathKey::new(1).unwrap(),
            ports: (1..=n).map(port).collect(),
            acls: BTreeMap::new(),
            qos_rules: BTreeMap::new(),
            default_policy: Default::default(),
            load_balancers: Default::default(),
            balancer_groups: Default::default(),
            services: Default::default(),
            options: Default::default(),
        };
        let mut nb = Northbound::default();
        nb.switches.insert("web".to_owned(), switch);
        let record = ChassisRecord::at([192, 0, 2, 1]);
        chassis_view(&compile(&nb, &[("h1".to_owned(), record)].into()), "h1")
    }

    fn host() -> Host {
        let identity = Identity {
            chassis: "h1".to_owned(),
            hostname: "h1".to_owned(),
            endpoint: None,
            internal_port: None,
            own_address: None,
            encap_types: Vec::new(),
            tunnel_peers: Vec::new(),
            controller: None,
            liveness: Timing { interval: Duration::from_secs(1), multiplier: 3 },
        };
        let dataplane = Dataplane::start(DataplaneConfig::default()).unwrap();
        let mut host = Host::start(identity, dataplane, StateDir::none(), Mode::Network).unwrap();
        host.lower(diff(&Southbound::default(), &view(1200)));
        host.publish(BridgeId::FIRST);
        host
    }

    /// The tables without each n-th rule.
    fn thinned(tables: &Tables, step: usize) -> Arc<Tables> {
        let gone = tables.rules().step_by(step).take(1000).map(|rule| Change::DeleteStrict {
            table: rule.table,
            priority: rule.priority,
            matching: rule.matching.clone(),
        });
        let gone: Vec<_> = gone.collect();
        assert_eq!(gone.len(), 1000);
        Arc::new(tables.transact(gone).unwrap())
    }

    fn seen(host: &Host) -> Arc<Snapshot> {
        host.dataplane.snapshot(BridgeId::FIRST).unwrap()
    }

    #[test]
    fn rules_that_vanish_are_found_and_back_within_a_second() {
        let mut host = host();
        let whole = Arc::clone(&host.first().tables);
        assert!(whole.len() > 5000, "{}", whole.len());
        host.audit();
        assert_eq!(host.n_repairs(), 0, "all is well at first");

        // Behind the host's back, in the dataplane.
        let epoch = host.epoch.next();
        host.epoch = epoch;
        let drifted = Snapshot { epoch, tables: thinned(&whole, 5), ..host.snapshot() };
        host.dataplane.publish(Arc::new(drifted));
        let start = Instant::now();
        host.audit();
        assert!(start.elapsed() + AUDIT_INTERVAL < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!((host.n_repairs(), seen(&host).tables.len()), (1, whole.len()));

        // And in the host's own tables.
        host.first_mut().tables = thinned(&whole, 3);
        host.publish(BridgeId::FIRST);
        let start = Instant::now();
        host.audit();
        assert!(start.elapsed() + AUDIT_INTERVAL < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(host.n_repairs(), 2);
        assert!(*seen(&host).tables == *whole);
        host.audit();
        assert_eq!(host.n_repairs(), 2, "once is enough");
    }

    #[test]
    fn what_packets_have_taught_is_left_alone() {
        let mut host = host();
        let whole = Arc::clone(&host.first().tables);
        let mut learned = (**whole.rules().next().unwrap()).clone();
        (learned.priority, learned.life.idle_timeout) = (Priority::new(7).unwrap(), 4);
        let with_learned = Arc::new(whole.transact(vec![Change::Add(learned)]).unwrap());
        host.first_mut().tables = Arc::clone(&with_learned);
        host.publish(BridgeId::FIRST);
        host.audit();
        assert_eq!(host.n_repairs(), 0);
        assert!(*seen(&host).tables == *with_learned);
    }

    #[test]
    fn a_rule_that_does_something_else_is_found_in_its_turn() {
        let mut host = host();
        let whole = Arc::clone(&host.first().tables);
        for rule in whole.rules().step_by(1501) {
            let mut spoilt = (**rule).clone();
            spoilt.actions = vec![Action::Output(PortNo::new(77).unwrap())];
            host.first_mut().tables = Arc::new(whole.transact(vec![Change::Add(spoilt)]).unwrap());
            host.publish(BridgeId::FIRST);
            let before = host.n_repairs();
            let n_turns = (0..100).take_while(|_| {
                host.audit();
                host.n_repairs() == before
            });
            assert!(n_turns.count() <= whole.len() / RULES + 1, "{rule}");
            assert!(*seen(&host).tables == *whole);
        }
        let n = host.n_repairs();
        (0..20).for_each(|_| host.audit());
        assert_eq!(host.n_repairs(), n);
    }
}
