//! All workloads, with the ids and goals of the project's list.

use flowtable::program::TunnelKind;

use super::{
    BACKEND, DPCLS, EMC_DEFAULT, Goal, Measured, SETTINGS, SMC, Setting, Shape, Traffic, Way, Workload, texts,
};

/// Where flows are seen once, caches of flows have nothing to give.
const AS_INSTALLED: &[Setting] = &[EMC_DEFAULT];
/// Where the exact match cache only costs.
const WITHOUT_EMC: &[Setting] = &[EMC_DEFAULT, SMC, DPCLS];

/// What most have in common.
const BASE: Workload = Workload {
    id: "",
    title: "",
    traffic: Traffic::plain(1),
    rules: texts::one_rule,
    way: Way::Ports,
    measured: Measured::Rate,
    n_connections: 0,
    warm_up: 1.5,
    settings: SETTINGS,
    goal: Goal { floor: 1.0, stretch: 1.0 },
};

const fn goal(floor: f64, stretch: f64) -> Goal {
    Goal { floor, stretch }
}

/// All.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        id: "P1",
        title: "1k flows, one rule",
        traffic: Traffic::plain(1_000),
        goal: goal(1.5, 2.0),
        ..BASE
    },
    Workload {
        id: "P2",
        title: "100k flows, one mask",
        traffic: Traffic::plain(100_000),
        goal: goal(2.0, 3.0),
        ..BASE
    },
    Workload {
        id: "P3",
        title: "1M flows, one mask",
        traffic: Traffic::plain(1_000_000),
        settings: WITHOUT_EMC,
        goal: goal(1.7, 2.5),
        ..BASE
    },
    Workload {
        id: "P4",
        title: "3 ACL rules, random headers",
        traffic: Traffic { shape: Shape::Random, tcp: true, ..Traffic::plain(u32::MAX) },
        rules: texts::three_allowed,
        settings: WITHOUT_EMC,
        warm_up: 4.0,
        goal: goal(15.0, 25.0),
        ..BASE
    },
    Workload {
        id: "P5a",
        title: "20 masks, 10k megaflows, 10k flows",
        traffic: Traffic { shape: Shape::Masks, ..Traffic::plain(10_000) },
        rules: texts::twenty_masks,
        warm_up: 4.0,
        goal: goal(3.0, 5.0),
        ..BASE
    },
    Workload {
        id: "P5b",
        title: "20 masks, 10k megaflows, 1M flows",
        traffic: Traffic { shape: Shape::Masks, ..Traffic::plain(1_000_000) },
        rules: texts::twenty_masks,
        settings: WITHOUT_EMC,
        warm_up: 4.0,
        goal: goal(4.0, 8.0),
        ..BASE
    },
    Workload {
        id: "P5c",
        title: "10k exact megaflows behind 20 tables",
        traffic: Traffic::plain(10_000),
        rules: texts::exact_through_twenty_tables,
        warm_up: 4.0,
        goal: goal(2.5, 4.0),
        ..BASE
    },
    Workload {
        id: "P5d",
        title: "10k ACL rules, headers never seen before",
        traffic: Traffic::plain(u32::MAX),
        rules: texts::access_list,
        warm_up: 4.0,
        settings: AS_INSTALLED,
        goal: goal(10.0, 20.0),
        ..BASE
    },
    Workload {
        id: "P8",
        title: "one-way UDP, 50k connections",
        traffic: Traffic::plain(50_000),
        rules: texts::stateful,
        n_connections: 50_000,
        settings: WITHOUT_EMC,
        warm_up: 4.0,
        goal: goal(1.0, 4.0),
        ..BASE
    },
    Workload {
        id: "P6a",
        title: "10k established connections",
        traffic: Traffic::both_ways(10_000),
        rules: texts::stateful,
        n_connections: 10_000,
        settings: WITHOUT_EMC,
        warm_up: 4.0,
        goal: goal(4.0, 7.0),
        ..BASE
    },
    Workload {
        id: "P6b",
        title: "100k established connections",
        traffic: Traffic::both_ways(100_000),
        rules: texts::stateful,
        n_connections: 100_000,
        settings: WITHOUT_EMC,
        warm_up: 4.0,
        goal: goal(5.0, 10.0),
        ..BASE
    },
    Workload {
        id: "P7",
        title: "1M established connections",
        traffic: Traffic::both_ways(1_000_000),
        rules: texts::stateful,
        n_connections: 1_000_000,
        settings: WITHOUT_EMC,
        warm_up: 8.0,
        goal: goal(4.0, 6.0),
        ..BASE
    },
    Workload {
        id: "P9a",
        title: "new UDP connections, 200k",
        rules: texts::stateful,
        measured: Measured::FirstPackets { n: 200_000 },
        n_connections: 200_000,
        settings: AS_INSTALLED,
        goal: goal(1.3, 2.0),
        ..BASE
    },
    Workload {
        id: "P9b",
        title: "new UDP connections, 1M",
        rules: texts::stateful,
        measured: Measured::FirstPackets { n: 1_000_000 },
        n_connections: 1_000_000,
        settings: AS_INSTALLED,
        goal: goal(1.3, 2.0),
        ..BASE
    },
    tunnelled("P10e", "VXLAN encap, 10k flows", Way::Encap(TunnelKind::Vxlan), goal(2.0, 3.0)),
    tunnelled("P10d", "VXLAN decap, 10k flows", Way::Decap(TunnelKind::Vxlan), goal(3.0, 5.0)),
    tunnelled("P10ge", "Geneve encap, 10k flows", Way::Encap(TunnelKind::Geneve), goal(2.0, 3.0)),
    tunnelled("P10gd", "Geneve decap, 10k flows", Way::Decap(TunnelKind::Geneve), goal(3.0, 5.0)),
    Workload {
        id: "P11",
        title: "a pod's way: tracked, balanced, filtered, Geneve; 10k connections",
        traffic: Traffic { backend: Some(BACKEND), ..Traffic::both_ways(10_000) },
        rules: texts::pod,
        way: Way::Encap(TunnelKind::Geneve),
        n_connections: 10_000,
        settings: WITHOUT_EMC,
        warm_up: 4.0,
        goal: goal(4.0, 6.0),
        ..BASE
    },
    Workload {
        id: "P12a",
        title: "first packets, 1 table",
        rules: texts::exact,
        measured: Measured::FirstPackets { n: 8_000 },
        settings: AS_INSTALLED,
        goal: goal(4.0, 10.0),
        ..BASE
    },
    Workload {
        id: "P12b",
        title: "first packets, 20 tables",
        rules: texts::exact_through_twenty_tables,
        measured: Measured::FirstPackets { n: 8_000 },
        settings: AS_INSTALLED,
        goal: goal(4.0, 10.0),
        ..BASE
    },
];

const fn tunnelled(id: &'static str, title: &'static str, way: Way, goal: Goal) -> Workload {
    let rules = match way {
        Way::Decap(_) => texts::decap,
        Way::Encap(_) | Way::Ports => texts::encap,
    };
    Workload { id, title, traffic: Traffic::plain(10_000), rules, way, goal, ..BASE }
}

/// The workload of an id.
pub fn find(id: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.id.eq_ignore_ascii_case(id))
}

/// Workloads whose ids begin like one of these; all, if there are none. `P5` is `P5a` to
/// `P5c`, but `P1` is not `P10e`.
pub fn chosen(prefixes: &[String]) -> Vec<&'static Workload> {
    let is_chosen = |workload: &&Workload| {
        prefixes.is_empty()
            || prefixes.iter().any(|prefix| {
                let rest = workload.id.strip_prefix(prefix.trim());
                rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
            })
    };
    WORKLOADS.iter().filter(is_chosen).collect()
}

#[cfg(test)]
mod tests {
    use flowtable::{port::PortTable, text::parse_flow};

    use super::*;

    #[test]
    fn ids_choose() {
        let ids = |prefixes: &[&str]| -> Vec<&str> {
            let prefixes: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
            chosen(&prefixes).iter().map(|workload| workload.id).collect()
        };
        assert_eq!(ids(&["P1"]), ["P1"]);
        assert_eq!(ids(&["P5", "P2"]), ["P2", "P5a", "P5b", "P5c", "P5d"]);
        assert_eq!(ids(&["P10g"]), ["P10ge", "P10gd"]);
        assert_eq!(ids(&[]).len(), WORKLOADS.len());
        assert_eq!(ids(&["P99"]).len(), 0);
    }

    #[test]
    fn all_rules_are_understood_and_ids_differ() {
        for (n, workload) in WORKLOADS.iter().enumerate() {
            for line in (workload.rules)() {
                let rule = parse_flow(&line, &PortTable::default());
                assert!(rule.is_ok(), "{}: {line}: {rule:?}", workload.id);
            }
            assert!(WORKLOADS[..n].iter().all(|other| other.id != workload.id), "{} twice", workload.id);
        }
    }
}
