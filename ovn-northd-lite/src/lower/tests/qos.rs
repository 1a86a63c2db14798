//! Meters that flows have for themselves: they come, change and go with their flows.

use flowtable::{
    flow::Action,
    meter::{BandKind, MeterConfig, MeterUnit},
};

use super::*;
use crate::{
    delta::diff,
    model::{Acl, AclLog, Bandwidth, Northbound, QosRule, Rate, Severity, Shaping},
};

fn rule(kbps: u32, matching: &str) -> QosRule {
    QosRule {
        direction: AclDirection::FromLport,
        priority: Priority::new(7).unwrap(),
        matching: matching.to_owned(),
        dscp: Some(46),
        bandwidth: Some(Bandwidth { kbps, burst_kbit: 80 }),
    }
}

/// Meters that no other network has.
fn own(meters: &[MeterConfig]) -> Vec<(MeterUnit, u32, u32)> {
    let usual = lower(&Southbound::default(), &LocalPorts::default()).meters;
    let own = meters.iter().filter(|meter| !usual.contains(meter));
    let parts = |meter: &MeterConfig| {
        let [band] = &meter.bands[..] else { panic!("{meter:?}") };
        assert_eq!((band.kind, meter.port_share), (BandKind::Drop, 0));
        (meter.unit, band.rate, band.burst_size)
    };
    own.map(parts).collect()
}

#[test]
fn a_rule_measures_then_marks() {
    let mut nb = small();
    nb.switches.get_mut("web").unwrap().qos_rules.insert("q".into(), rule(8000, "inport == \"a\" && icmp4"));
    let h1 = Host::new(&nb, "h1");
    assert_eq!(own(&h1.lowered.meters), [(MeterUnit::Kbps, 8000, 80)]);
    let metered = h1.lowered.rules.iter().filter(|rule| rule.origin.object == "switches/web/qos-rules/q");
    let [metered] = metered.collect::<Vec<_>>()[..] else { panic!("one rule") };
    let [Action::Meter(id), Action::SetField { field: Field::IpDscp, value: 46, .. }, Action::GotoTable(_)] =
        metered.actions[..]
    else {
        panic!("{:?}", metered.actions)
    };
    assert!(h1.lowered.meters.iter().any(|meter| meter.id == id));
    let sent = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, "10.0.1.5")));
    let [(_, key)] = sent.out[..] else { panic!("{:?}", sent.drops) };
    check(&key, &[(Field::IpDscp, 46)]);
    // Nobody else's packets are marked.
    let sent = h1.send("c", echo((0x15, "10.0.1.5"), (0xf1, "10.0.0.5")));
    let [(_, key)] = sent.out[..] else { panic!("{:?}", sent.drops) };
    check(&key, &[(Field::IpDscp, 0)]);
}

#[test]
fn meters_change_and_go_with_their_flows() {
    let local = LocalPorts { chassis: "h1".into(), ..LocalPorts::default() };
    let mut lowering = Lowering::default();
    let mut nb = small();
    let mut step = |nb: &Northbound| {
        let view = chassis_view(&compile(nb, &hosts()), "h1");
        let delta = lowering.update(diff(lowering.view(), &view), local.clone());
        (own(&delta.meters), delta.gone_meters.len(), own(&lowering.lowered().meters))
    };
    step(&nb);
    let web = nb.switches.get_mut("web").unwrap();
    web.qos_rules.insert("q".into(), rule(8000, "ip4"));
    let log = AclLog {
        name: String::new(),
        severity: Severity::Info,
        related: false,
        rate: Some(Rate { pps: 3, burst: 9 }),
    };
    let acl = Acl { log: Some(log), ..acl(AclDirection::ToLport, 1, "udp", AclAction::Drop) };
    web.acls.insert("log".into(), acl);
    let (mut new, gone, _) = step(&nb);
    new.sort_by_key(|(_, rate, _)| *rate);
    assert_eq!((&new[..], gone), (&[(MeterUnit::Pktps, 3, 9), (MeterUnit::Kbps, 8000, 80)][..], 0));
    nb.switches.get_mut("web").unwrap().qos_rules.insert("q".into(), rule(9000, "ip4"));
    let (new, gone, all) = step(&nb);
    assert_eq!((&new[..], gone, all.len()), (&[(MeterUnit::Kbps, 9000, 80)][..], 0, 2));
    nb.switches.get_mut("web").unwrap().qos_rules.clear();
    let (new, gone, all) = step(&nb);
    assert_eq!((new.len(), gone, &all[..]), (0, 1, &[(MeterUnit::Pktps, 3, 9)][..]));
}

#[test]
fn a_workload_with_rates_sends_by_a_queue_of_its_own() {
    let mut nb = small();
    let shaping = Shaping { max: Some(1_000_000), ..Shaping::default() };
    for id in ["a", "b"] {
        nb.switches.get_mut("web").unwrap().ports.get_mut(id).unwrap().options.shaping = Some(shaping);
    }
    let ports = [("a", 1), ("c", 2)].map(|(id, port)| (id.to_owned(), PortNo::new(port).unwrap())).into();
    let local = LocalPorts { chassis: "h1".into(), ports, ..LocalPorts::default() };
    let mut lowering = Lowering::default();
    let mut step = |nb: &Northbound| {
        let view = chassis_view(&compile(nb, &hosts()), "h1");
        drop(lowering.update(diff(lowering.view(), &view), local.clone()));
        let rules = lowering.lowered().rules;
        let queues = rules.iter().flat_map(|rule| {
            let set = rule.actions.iter().filter_map(|action| match action {
                Action::SetQueue(queue) => Some(*queue),
                _ => None,
            });
            set.map(|queue| (rule.matching.get(Field::InPort).0, queue)).collect::<Vec<_>>()
        });
        (queues.collect::<Vec<_>>(), lowering.shaped())
    };
    // Of those with rates, the one that is here; the others send as anybody.
    let (queues, shaped) = step(&nb);
    let [(1, queue)] = queues[..] else { panic!("{queues:?}") };
    assert_eq!(shaped, [(u16::try_from(queue).unwrap(), shaping)].into());
    nb.switches.get_mut("web").unwrap().ports.get_mut("a").unwrap().options.shaping = None;
    let (queues, shaped) = step(&nb);
    assert_eq!((queues.len(), shaped.len()), (0, 0));
}
