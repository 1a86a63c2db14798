//! Logical flows: a rule for each match that a flow's expression needs.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowtable::{
    field::Field,
    flow::{Action, Match, Origin, Values},
    types::{MeterId, Priority, TableId},
};

use super::{
    CONTINUATION, Context, FROM_TUNNEL, LOG_EGRESS, LOG_INGRESS, LowerError, N_EGRESS_STAGES,
    N_INGRESS_STAGES, REMOTE_OUTPUT, SAVE_INPORT, is_resident, meters, rules::Head, sets::SetSource,
    unit::Output,
};
use crate::{
    actions,
    expr::{self, Matches},
    key::DatapathKey,
    punt::Service,
    southbound::{LogicalFlow, Pipeline},
    template::{self, Filled},
};

/// What one flow becomes.
#[derive(Debug, Default)]
pub(super) struct FlowRules(Output);

impl FlowRules {
    pub(super) fn of(context: &Context<'_>, id: u64, flow: &LogicalFlow) -> Self {
        let mut lowered = Self::default();
        if let Err(reason) = lowered.lower(context, id, flow) {
            let object = if flow.object.is_empty() { &flow.stage_name } else { &flow.object };
            lowered.error(object.to_string(), format!("{}: {reason}", flow.stage_name));
        }
        lowered
    }

    pub(super) fn output(self) -> Output {
        self.0
    }

    fn error(&mut self, object: String, reason: String) {
        self.0.errors.push(LowerError { object, reason });
    }

    /// # Errors
    /// Says what about the flow cannot be realised. With an error in the actions its rules
    /// drop. With one in the match there is no rule, unless the flow drops: then everything
    /// in the stage is dropped at its priority.
    fn lower(&mut self, context: &Context<'_>, id: u64, flow: &LogicalFlow) -> Result<(), String> {
        let table = stage_table(flow.pipeline, flow.stage)
            .ok_or_else(|| format!("there is no table for stage {}", flow.stage))?;
        let names = RefCell::new(BTreeMap::new());
        let ports = |name: &str| {
            let key = context.key(flow.datapath, name);
            names.borrow_mut().insert(name.to_owned(), key);
            key
        };
        let in_match = |error: expr::ExprError| format!("match `{}`: {error}", flow.matching);
        let is_router = context.view.datapaths.get(&flow.datapath).is_some_and(|datapath| datapath.is_router);
        let mut number = 0;
        if flow.actions.contains(['(', '{']) {
            let (place, given) = context.memory.borrow_mut().of_flow(flow);
            (self.0.needs.number, number) = (Some((place, given)), given);
        }
        let meter =
            |service: Service| meters::of(flow.datapath, context.view.datapaths.get(&flow.datapath), service);
        let values = |name: &str| context.view.sets.get(name).cloned();
        let variables: Vec<_> = template::named_in(&flow.actions).map(template::set_of).collect();
        let text = match template::fill(&flow.actions, !flow.matching.contains("ip6."), &values) {
            Filled::With(text) => text,
            Filled::Nothing => {
                self.0.needs.odd_sets.extend(variables);
                return Ok(());
            }
        };
        let (lowered, mut error) = match actions_of(flow, &text, (table, number, is_router), &ports, &meter) {
            Ok(lowered) => (lowered, None),
            Err(reason) => (actions::Lowered::default(), Some(reason)),
        };
        let mut actions = lowered.actions;
        let matches = self.matches(context, flow, &ports);
        self.0.needs.odd_sets.extend(variables);
        self.0.needs.names = names.into_inner().into_iter().collect();
        let matches = match matches {
            Ok(matches) => matches,
            Err(reason) if denies(&actions) => {
                error = Some(in_match(reason));
                actions.clear();
                vec![Matches::Any(vec![Match::any()])]
            }
            Err(reason) => return Err(in_match(reason)),
        };
        let origin = Arc::new(Origin {
            logical_flow: id,
            stage: flow.stage_name.to_string(),
            object: flow.object.to_string(),
        });
        if matches.iter().any(|matches| !matches.is_empty()) {
            (self.0.groups, self.0.meter) = (lowered.groups, lowered.meter);
            for continuation in lowered.continuations {
                let head = Head {
                    table: CONTINUATION,
                    priority: flow.priority,
                    matching: continuation.matching.with(Field::Metadata, flow.datapath.get().into()),
                    cookie: id,
                    origin: Arc::clone(&origin),
                };
                self.add(head, continuation.actions);
            }
        }
        let place = Place { table, priority: flow.priority, datapath: flow.datapath, cookie: id, origin };
        self.0.needs.n_conjunctions = matches.len();
        // Packets may come of which it is not known where they came in.
        if context.local.vxlan.is_some() && flow.pipeline == Pipeline::Egress {
            self.refuse_unknown(&place, &matches);
        }
        for (idx, matches) in matches.into_iter().enumerate() {
            self.add_matches(context, &place, matches, (&actions, idx));
        }
        error.map_or(Ok(()), Err)
    }

    /// What the flow matches. Sets stay sets where the switch has such.
    fn matches(
        &mut self,
        context: &Context<'_>,
        flow: &LogicalFlow,
        ports: expr::Resolver<'_>,
    ) -> Result<Vec<Matches>, expr::ExprError> {
        let odd = RefCell::new(BTreeSet::new());
        let sets = RefCell::new(BTreeMap::new());
        let members = |name: expr::SetName<'_>| {
            odd.borrow_mut().insert(name.to_string());
            context.set(name)
        };
        let named = |name: expr::SetName<'_>, kind, negated| {
            let source = SetSource::of(flow.datapath, name, kind, negated);
            let Some((name, source)) = source.filter(|(_, source)| source.is_sound(context)) else {
                odd.borrow_mut().insert(name.to_string());
                return None;
            };
            sets.borrow_mut().insert(name.clone(), source);
            Some(name)
        };
        let residents = RefCell::new(BTreeMap::new());
        let is_here = |port: &str| {
            let is_here = is_resident(context.view, context.local, port);
            residents.borrow_mut().insert(port.to_owned(), is_here);
            is_here
        };
        let parsed = expr::parse(&flow.matching).map(|expr| expr.with_residents(&is_here));
        let parsed = parsed.and_then(|expr| expr.with_odd_sets(&members));
        let matches = parsed.and_then(|expr| expr.to_matches_by_clause(ports, &named));
        let needs = &mut self.0.needs;
        (needs.odd_sets, needs.sets) = (odd.into_inner(), sets.into_inner());
        needs.residents = residents.into_inner();
        matches
    }

    /// What the flow says of the input port is not known of packets that came by VXLAN: those
    /// that it may be about do not pass.
    fn refuse_unknown(&mut self, place: &Place, matches: &[Matches]) {
        let asks = |matching: &&Match| {
            let mut memberships = matching.memberships().iter();
            matching.get(Field::Reg14).1 != 0
                || memberships.any(|known| known.field.shares_place(Field::Reg14))
        };
        let mut refused = BTreeSet::new();
        for matches in matches {
            match matches {
                Matches::Any(list) => refused.extend(list.iter().filter(asks).cloned()),
                Matches::All { clauses, common } => {
                    let is_asked = clauses.iter().flatten().chain([common]).any(|matching| asks(&matching));
                    refused.extend(is_asked.then(Match::any));
                }
            }
        }
        if refused.is_empty() {
            return;
        }
        // Above the flow itself, which may have another port in mind than none.
        let priority = Priority::new(place.priority.get().saturating_add(1)).unwrap_or(place.priority);
        for matching in refused {
            let (key, mask) = matching.expand();
            let unknown = Match::from_key(&key, &mask).with(Field::Reg14, 0);
            let unknown = unknown.with_masked(Field::Reg10, FROM_TUNNEL, FROM_TUNNEL);
            let memberships =
                matching.memberships().iter().filter(|known| !known.field.shares_place(Field::Reg14));
            let unknown = memberships.fold(unknown, |unknown, known| match known.values.clone() {
                Values::Range(range) => unknown.with_range(known.field, range),
                Values::Set(set) => unknown.with_set(known.field, set),
            });
            self.add(Head { priority, ..place.head(unknown) }, Vec::new());
        }
        let reason = "it asks for `inport` where packets leave, which VXLAN does not tell: those that it may be \
                      about and that came by VXLAN are dropped; connect hosts by Geneve, or match addresses";
        self.error(place.origin.object.clone(), reason.to_owned());
    }

    fn add(&mut self, head: Head, actions: Vec<Action>) {
        let (rule, error) = head.rule(actions);
        self.0.rules.push(rule);
        self.0.errors.extend(error);
    }

    /// Adds the rules for some matches of the flow, those with number `idx`.
    fn add_matches(
        &mut self,
        context: &Context<'_>,
        place: &Place,
        matches: Matches,
        (actions, idx): (&[Action], usize),
    ) {
        match matches {
            Matches::Any(list) => {
                list.into_iter().for_each(|matching| self.add(place.head(matching), actions.to_vec()));
            }
            Matches::All { clauses, .. } if clauses.iter().any(Vec::is_empty) => {}
            Matches::All { clauses, common } => {
                let id = context.memory.borrow_mut().of_conjunction(place.cookie, idx);
                let n_clauses = clauses.len() as u8;
                for (list, clause) in clauses.into_iter().zip(1..) {
                    for matching in list {
                        let part = Action::Conjunction { id, clause, n_clauses };
                        self.add(place.head(matching), vec![part]);
                    }
                }
                self.add(place.head(common.with(Field::ConjId, id.into())), actions.to_vec());
            }
        }
    }
}

/// A packet ends here: nothing is done with it, or only its connection is marked and its
/// sender told.
fn denies(actions: &[Action]) -> bool {
    actions.iter().all(|action| match action {
        Action::Ct(ct) => ct.table.is_none(),
        Action::Controller(_) | Action::Meter(_) => true,
        Action::Clone(actions) => denies(actions),
        _ => false,
    })
}

/// Where the rules of a flow are.
struct Place {
    table: TableId,
    priority: Priority,
    datapath: DatapathKey,
    cookie: u64,
    origin: Arc<Origin>,
}

impl Place {
    fn head(&self, matching: Match) -> Head {
        Head {
            table: self.table,
            priority: self.priority,
            matching: matching.with(Field::Metadata, self.datapath.get().into()),
            cookie: self.cookie,
            origin: Arc::clone(&self.origin),
        }
    }
}

fn actions_of(
    flow: &LogicalFlow,
    text: &str,
    (table, number, is_router): (TableId, u32, bool),
    ports: expr::Resolver<'_>,
    meter: &dyn Fn(Service) -> MeterId,
) -> Result<actions::Lowered, String> {
    let in_actions = |reason: String| format!("actions `{text}`: {reason}");
    let statements = actions::parse(text).map_err(|error| in_actions(error.to_string()))?;
    let stage = |pipeline: Option<Pipeline>, stage: Option<u8>| {
        stage_table(pipeline.unwrap_or(flow.pipeline), stage.or(flow.stage.checked_add(1))?)
    };
    let output = match flow.pipeline {
        Pipeline::Ingress => REMOTE_OUTPUT,
        Pipeline::Egress => SAVE_INPORT,
    };
    let flow = actions::Flow { ports, table, stage: &stage, output, is_router, number, meter };
    actions::lower(&statements, &flow).map_err(in_actions)
}

/// Table of a stage of ingress, if it has one.
pub(super) fn ingress_table(stage: u8) -> Option<TableId> {
    stage_table(Pipeline::Ingress, stage)
}

/// Table of a stage, if it has one.
fn stage_table(pipeline: Pipeline, stage: u8) -> Option<TableId> {
    let (first, n_stages) = match pipeline {
        Pipeline::Ingress => (LOG_INGRESS, N_INGRESS_STAGES),
        Pipeline::Egress => (LOG_EGRESS, N_EGRESS_STAGES),
    };
    Some(stage).filter(|stage| *stage < n_stages).and_then(|stage| TableId::new(first.get() + stage).ok())
}
