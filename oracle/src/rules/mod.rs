//! Random rule sets of a small world. Each rule is one that a switch must take: what it matches and
//! writes is there in the packets it is for.
//!
//! `matching.rs` which packets · `steps.rs` what to do · `special.rs` the actions that few rules have ·
//! `ways.rs` groups and meters.

mod matching;
mod special;
mod steps;
mod ways;

use crate::{
    field::{Field, Needs},
    ovs::Protocol,
    rng::Rng,
    syntax::{Ct, Flow, Kind, Matching, Rules, Step, Term},
};

/// Tables that rules are in.
pub const N_TABLES: u64 = 5;
/// First of the priorities that ways to satisfy clauses have.
const CONJUNCTIVE: u16 = 2000;

/// What rules may make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repertoire {
    /// Ports that can be sent to, more often than others.
    pub ports: &'static [u32],
    /// The tunnel port, where there is one.
    pub tunnel: Option<(u32, &'static [u32])>,
    /// Loops that end at the switch's limits.
    pub loops: bool,
    /// Rules can be handed over in this protocol; nothing: as text, which has all actions.
    pub protocol: Option<Protocol>,
    /// Parts of the language.
    pub features: Features,
}

/// Kinds of packets that worlds are about, more often than about others.
const THEMES: &[Kind] = &[
    Kind::Arp,
    Kind::Ip,
    Kind::Ipv6,
    Kind::Tcp,
    Kind::Udp,
    Kind::Sctp,
    Kind::Icmp,
    Kind::Tcp6,
    Kind::Udp6,
    Kind::Sctp6,
    Kind::Icmp6,
    Kind::Mpls,
];

/// Parts of the language beyond headers, tables and ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// Half of the packets and rules are of this kind.
    pub theme: Option<Kind>,
    /// MPLS.
    pub labels: bool,
    /// Groups.
    pub groups: bool,
    /// Select groups, `multipath`, `bundle`.
    pub choices: bool,
    /// Meters; `Some(false)`: such as let everything pass.
    pub meters: Option<bool>,
    /// Controllers.
    pub punts: bool,
    /// The action set.
    pub sets: bool,
    /// The field that says where the action set leads.
    pub set_is_matched: bool,
    /// Connections.
    pub tracking: bool,
    /// The addresses and ports of a connection's first packet, as fields.
    pub tuples: bool,
    /// Translations, where connections are tracked.
    pub nat: bool,
    /// Conjunctions.
    pub conjunctions: bool,
    /// The stack, truncation, queues, notes, `exit`.
    pub odds: bool,
    /// Ranges and named sets.
    pub values: bool,
    /// `NORMAL`.
    pub normal: bool,
    /// Rules that packets make.
    pub lessons: bool,
}

impl Features {
    /// None of them.
    pub const NONE: Self = Self {
        theme: None,
        labels: false,
        groups: false,
        choices: false,
        meters: None,
        punts: false,
        sets: false,
        set_is_matched: false,
        tracking: false,
        tuples: false,
        nat: false,
        conjunctions: false,
        odds: false,
        values: false,
        normal: false,
        lessons: false,
    };

    /// Some of them.
    pub fn random(rng: &mut Rng) -> Self {
        // These cost most: loops through the tracker, and all connections for each packet.
        let tracking = rng.one_in(8);
        let labels = !tracking && rng.one_in(2);
        let meters = match () {
            () if tracking => rng.one_in(4).then_some(false),
            () if labels => None,
            () => rng.one_in(3).then_some(true),
        };
        let theme = match () {
            () if tracking => rng.pick(&[Kind::Ip, Kind::Ip, Kind::Udp, Kind::Icmp, Kind::Ipv6, Kind::Udp6]),
            () if labels && rng.one_in(2) => Kind::Mpls,
            () => rng.pick(THEMES),
        };
        Self {
            theme: Some(theme),
            labels,
            groups: rng.one_in(2),
            // A choice that hides decides about connections as well.
            choices: rng.one_in(if tracking { 12 } else { 3 }),
            meters,
            punts: rng.one_in(3),
            sets: rng.one_in(2),
            set_is_matched: true,
            tracking,
            tuples: tracking,
            nat: tracking && !rng.one_in(3),
            conjunctions: rng.one_in(3),
            odds: rng.one_in(2),
            values: rng.one_in(3),
            normal: rng.one_in(4),
            lessons: rng.one_in(4),
        }
    }
}

/// A rule set.
pub fn rules(rng: &mut Rng, repertoire: &Repertoire) -> Rules {
    let n = 2 + rng.index(30);
    let groups = ways::groups(rng, repertoire);
    let meters = ways::meters(rng, repertoire);
    let maker = Maker { repertoire, n_groups: groups.len() as u64, n_meters: meters.len() as u64 };
    let mut flows: Vec<Flow> = (0..n).map(|idx| maker.flow(rng, idx)).collect();
    if repertoire.features.tracking {
        maker.through_tracker(rng, &mut flows);
    }
    if repertoire.features.conjunctions {
        for number in 0..1 + rng.below(2) as u16 {
            maker.conjunction(rng, number, &mut flows);
        }
    }
    for table in 0..N_TABLES as u8 {
        if !rng.one_in(5) {
            let steps = maker.steps(rng, Context::default(), table, 1);
            let cookie = rng.below(3);
            flows.push(Flow { table, priority: 0, cookie, matching: Matching::default(), steps });
        }
    }
    Rules { flows, groups, meters, sets: matching::sets(rng, &repertoire.features) }
}

/// Makes rules.
#[derive(Clone, Copy)]
struct Maker<'a> {
    repertoire: &'a Repertoire,
    n_groups: u64,
    n_meters: u64,
}

impl Maker<'_> {
    fn flow(self, rng: &mut Rng, idx: usize) -> Flow {
        let table = if rng.one_in(3) { 0 } else { rng.below(N_TABLES) as u8 };
        let matching = matching::matching(rng, &self.repertoire.features);
        let steps = self.steps(rng, Context::of(&matching), table, 2);
        // Unique within the table, and in no order.
        let priority = 1 + (rng.below(16) * 64) as u16 + idx as u16;
        Flow { table, priority, cookie: rng.below(5), matching, steps }
    }

    /// Most IP packets of table 0 are tracked first, and what is known of them decides.
    fn through_tracker(self, rng: &mut Rng, flows: &mut Vec<Flow>) {
        for (number, kind) in [Kind::Ip, Kind::Ipv6].into_iter().enumerate() {
            let matching = Matching { kind: Some(kind), ..Matching::default() };
            let context = Context::of(&matching);
            // Between those of other rules.
            let classical = rng.one_in(2);
            // Between those of other rules.
            for (table, priority) in [(0, 947), (1, 51), (1, 883), (1 + rng.below(3) as u8, 627)] {
                let mut matching = matching.clone();
                let mut steps = vec![self.tracked(rng, context, table)];
                match (table, priority) {
                    // As firewalls do: look, remember what is new, believe what is known.
                    (0, _) if classical => steps = vec![Step::Ct(Ct { table: Some(1), ..Ct::default() })],
                    (1, 51) if classical => {
                        matching.terms.push(Term { field: Field::CtState, value: 0x21, mask: 0x21 });
                        let table = Some(2 + rng.below(2) as u8);
                        steps.insert(0, Step::Ct(Ct { commit: true, table, ..Ct::default() }));
                    }
                    (0, _) => {}
                    _ => {
                        let mut term = matching::value(rng, Field::CtState, true);
                        if self.repertoire.protocol.is_some() {
                            // Open vSwitch wants to know that there is a connection.
                            (term.value, term.mask) = (term.value & !0x10 | 0x20, term.mask | 0x30);
                        }
                        matching.terms.push(term);
                        steps.insert(0, Step::Resubmit { port: None, table: N_TABLES as u8 - 1, ct: true });
                    }
                }
                steps.extend(self.steps(rng, context, table, 1));
                flows.push(Flow { table, priority: priority + number as u16, cookie: 9, matching, steps });
            }
        }
    }

    /// Two or three clauses, ways to satisfy them, and most often a rule for whoever does.
    fn conjunction(self, rng: &mut Rng, number: u16, flows: &mut Vec<Flow>) {
        let table = rng.below(N_TABLES) as u8;
        let n_clauses = 2 + rng.below(2) as u8;
        let id = 1 + u32::from(number);
        let priority = if rng.one_in(3) { 100 + number } else { CONJUNCTIVE + rng.below(2) as u16 };
        let kind = rng.pick(&[None, Some(Kind::Ip), Some(Kind::Tcp), Some(Kind::Udp), Some(Kind::Ipv6)]);
        for clause in 1..=n_clauses {
            for _ in 0..1 + rng.below(3) {
                let matching = matching::clause(rng, kind);
                let mut steps = vec![Step::Conjunction { id, clause, n_clauses }];
                if rng.one_in(4) {
                    steps.push(Step::Conjunction { id: 3 - id, clause: 1, n_clauses: 2 });
                }
                let is_taken = |flow: &Flow| {
                    (flow.table, flow.priority) == (table, priority)
                        && (flow.matching == matching
                            || !matches!(flow.steps[..], [Step::Conjunction { .. }, ..]))
                };
                if !flows.iter().any(is_taken) {
                    flows.push(Flow { table, priority, cookie: 0, matching, steps });
                }
            }
        }
        if !rng.one_in(6) {
            let mut matching = Matching { kind, ..Matching::default() };
            matching.terms.push(Term::whole(Field::ConjId, id.into()));
            let steps = self.steps(rng, Context::of(&matching), table, 1);
            let priority = CONJUNCTIVE + 100 + number;
            flows.push(Flow { table, priority, cookie: 7, matching, steps });
        }
    }
}

/// What is known of the packets of a rule.
#[derive(Debug, Clone, Copy, Default)]
struct Context {
    kind: Option<Kind>,
    tagged: bool,
    /// EtherType that labels have left.
    relabelled: Option<u16>,
}

impl Context {
    fn of(matching: &Matching) -> Self {
        let tagged = matching.terms.iter().any(|term| {
            matches!(term.field, Field::VlanVid | Field::VlanPcp)
                || term.field == Field::VlanTci && term.value & term.mask & 0x1000 != 0
        });
        Self { kind: matching.kind, tagged, relabelled: None }
    }

    fn meets(self, needs: Needs) -> bool {
        let (matched, proto) = self.kind.map_or((0, None), |kind| (kind.meaning().1, kind.meaning().2));
        let eth_type = self.relabelled.unwrap_or(matched);
        let ip = matches!(eth_type, 0x0800 | 0x86dd);
        match needs {
            Needs::Nothing => true,
            Needs::Vlan => self.tagged,
            Needs::Mpls => matches!(eth_type, 0x8847 | 0x8848),
            Needs::Arp => eth_type == 0x0806,
            Needs::Ipv4 => eth_type == 0x0800,
            Needs::Ipv6 => eth_type == 0x86dd,
            Needs::Ip => ip,
            Needs::Tcp => ip && proto == Some(6),
            Needs::Udp => ip && proto == Some(17),
            Needs::Sctp => ip && proto == Some(132),
            Needs::Icmp => eth_type == 0x0800 && proto == Some(1),
            Needs::Icmpv6 => eth_type == 0x86dd && proto == Some(58),
            // ICMPv6's type is not part of the context.
            Needs::NdSolicit | Needs::NdAdvert | Needs::Nd => false,
        }
    }
}
