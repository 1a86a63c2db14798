//! What packets meet, to be sure that what is drawn is compared: told by the rules that they meet here.

use std::collections::BTreeSet;

use crate::Verdict;

/// Something that packets meet.
struct Feature {
    name: &'static str,
    /// So many random networks are enough for somebody to meet it: fewer have missed it by chance once in a
    /// million times.
    n_worlds: usize,
    /// One of the rules on the way, which stands there as stage, object, and what it is.
    is_met_by: fn(&Rule<'_>) -> bool,
}

struct Rule<'a> {
    stage: &'a str,
    object: &'a str,
    text: &'a str,
}

const FEATURES: &[Feature] = &[
    Feature { name: "delivery", n_worlds: 20, is_met_by: |_| false },
    Feature { name: "drop", n_worlds: 20, is_met_by: |_| false },
    Feature { name: "refusal", n_worlds: 150, is_met_by: |_| false },
    Feature { name: "question", n_worlds: 150, is_met_by: |_| false },
    Feature {
        name: "policy that allows",
        n_worlds: 150,
        is_met_by: |rule| rule.is_policy() && !rule.drops() && !rule.has("->reg0"),
    },
    Feature { name: "policy that drops", n_worlds: 150, is_met_by: |rule| rule.is_policy() && rule.drops() },
    Feature {
        name: "policy that reroutes",
        n_worlds: 150,
        is_met_by: |rule| rule.is_policy() && rule.has("->reg0"),
    },
    Feature {
        name: "route of a table",
        n_worlds: 150,
        is_met_by: |rule| rule.is_route() && rule.has("reg7=0x1/"),
    },
    Feature {
        name: "route by source",
        n_worlds: 150,
        is_met_by: |rule| rule.is_route() && rule.has("nw_src="),
    },
    Feature {
        name: "route to nowhere",
        n_worlds: 150,
        is_met_by: |rule| rule.is_route() && rule.has("nw_dst=") && rule.drops(),
    },
    Feature {
        name: "load balancer of a switch",
        n_worlds: 150,
        is_met_by: |rule| rule.balances("ls_in_lb") && rule.has("group:"),
    },
    Feature {
        name: "load balancer of a switch that refuses",
        n_worlds: 150,
        is_met_by: |rule| rule.balances("ls_in_lb") && rule.has("controller"),
    },
    Feature {
        name: "load balancer without backends",
        n_worlds: 150,
        is_met_by: |rule| rule.balances("ls_in_lb") && rule.drops(),
    },
    Feature {
        name: "client that is its own backend",
        n_worlds: 150,
        is_met_by: |rule| rule.balances("ls_in_nat_hairpin"),
    },
    Feature {
        name: "load balancer of a router",
        n_worlds: 150,
        is_met_by: |rule| rule.balances("lr_in_dnat") && rule.has("group:"),
    },
    Feature {
        name: "load balancer of a router that refuses",
        n_worlds: 150,
        is_met_by: |rule| rule.balances("lr_in_dnat") && rule.has("controller"),
    },
    Feature {
        name: "translated source",
        n_worlds: 150,
        is_met_by: |rule| rule.translates("lr_out_snat") && rule.has("nat(src"),
    },
    Feature {
        name: "translated destination",
        n_worlds: 150,
        is_met_by: |rule| rule.translates("lr_in_dnat") && rule.has("nat(dst"),
    },
    Feature {
        name: "source without a memory",
        n_worlds: 150,
        is_met_by: |rule| rule.translates("lr_out_snat") && rule.has("->nw_src"),
    },
    Feature {
        name: "destination without a memory",
        n_worlds: 150,
        is_met_by: |rule| rule.translates("lr_in_dnat") && rule.has("->nw_dst"),
    },
    Feature {
        name: "peer that a translation is not for",
        n_worlds: 150,
        is_met_by: |rule| rule.translates("lr_out_snat") && !rule.has("nat(") && !rule.has("->nw_src"),
    },
    Feature {
        name: "translation on the workload's host",
        n_worlds: 150,
        is_met_by: |rule| rule.translates("lr_in_gw_redirect"),
    },
    Feature {
        name: "packet that is turned around",
        n_worlds: 150,
        is_met_by: |rule| rule.translates("lr_out_egr_loop"),
    },
    Feature {
        name: "packet that nothing is translated for",
        n_worlds: 150,
        is_met_by: |rule| rule.translates("lr_in_arp_resolve") && rule.drops(),
    },
];

impl Rule<'_> {
    fn drops(&self) -> bool {
        self.text.ends_with("actions=drop")
    }

    fn has(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    fn is_route(&self) -> bool {
        self.stage == "lr_in_ip_routing" && !self.object.contains("/nats/")
    }

    fn is_policy(&self) -> bool {
        self.stage == "lr_in_policy" && self.object.contains("/policies/")
    }

    fn balances(&self, stage: &str) -> bool {
        self.stage == stage && self.object.starts_with("load-balancers/")
    }

    fn translates(&self, stage: &str) -> bool {
        self.stage == stage && self.object.contains("/nats/")
    }
}

/// What was met, and in how many networks.
#[derive(Debug)]
pub(crate) struct Met(Vec<(&'static str, usize)>);

impl Default for Met {
    fn default() -> Self {
        Self(FEATURES.iter().map(|feature| (feature.name, 0)).collect())
    }
}

impl Met {
    /// In one more network this was met.
    pub(crate) fn count(&mut self, met: &BTreeSet<&'static str>) {
        self.0.iter_mut().for_each(|(name, n)| *n += usize::from(met.contains(name)));
    }

    /// What must have been met in so many networks, and was not.
    pub(crate) fn missing(&self, n_worlds: usize) -> Vec<&'static str> {
        let counts = self.0.iter().zip(FEATURES);
        let missing = counts.filter(|((_, n), feature)| *n == 0 && n_worlds >= feature.n_worlds);
        missing.map(|((name, _), _)| *name).collect()
    }
}

/// What a packet met, by what became of it and its steps.
pub(crate) fn met(verdict: &Verdict, steps: &str) -> impl Iterator<Item = &'static str> {
    let Verdict { left, is_refused, asks } = verdict;
    let ends = [
        ("delivery", !left.is_empty()),
        ("drop", left.is_empty() && !is_refused && !asks),
        ("refusal", *is_refused),
        ("question", *asks),
    ];
    let ends = ends.into_iter().filter(|(_, is_met)| *is_met).map(|(name, _)| name);
    let rules = steps.lines().filter_map(|step| {
        let (stage, rest) = step.split_once(' ')?;
        let (object, text) = rest.split_once(' ')?;
        Some(Rule { stage, object, text })
    });
    let by = |rule: Rule<'_>| -> Vec<&'static str> {
        let met = FEATURES.iter().filter(|feature| (feature.is_met_by)(&rule));
        met.map(|feature| feature.name).collect()
    };
    ends.chain(rules.flat_map(by).collect::<Vec<_>>())
}
