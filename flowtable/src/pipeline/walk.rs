//! The walk itself: which rule comes next, how deep it is nested, and when it ends.
//!
//! Rules are the controller's, so a loop among them is an expected input. The nesting
//! is therefore a list of frames on the heap with fixed limits, never the program's
//! own stack. A walk that hits a limit emits nothing at all.

use std::{fmt, slice, sync::Arc};

use super::{
    Frozen, MAX_DEPTH, MAX_EFFECTS, MAX_LOOKUPS, MAX_STACK, Recent, Taken, Tally, Tracer, Translation,
    action_set::{ActionSet, List},
    along::Step,
    edit::VlanEdits,
    frozen::{Rest, Start, Written},
    labels::LabelEdits,
};
use crate::{
    account::FlowId,
    drop::DropReason,
    fdb::Dependencies,
    field::{Field, SubField},
    flow::{Action, PuntReason, Rule, ToController},
    group::Bucket,
    key::{FlowKey, Tracked},
    program::{DropCause, Effect, Emit, MeterStep, Program, SampleStep},
    snapshot::Snapshot,
    table::MissPolicy,
    types::{PortNo, TableId},
};

/// The first table of every walk.
const FIRST_TABLE: TableId = match TableId::new(0) {
    Ok(table) => table,
    Err(_) => unreachable!(),
};

/// The walk cannot go on, and what it has emitted so far must not leave either.
pub(super) struct Abort(pub(super) DropReason);

/// A packet on its way through the tables.
pub(super) struct Walk<'a, T> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) key: Tracked,
    pub(super) vlan: VlanEdits,
    pub(super) labels: LabelEdits,
    /// Queue that outputs use.
    pub(super) queue: Option<u32>,
    /// What `push` has put away, right-aligned.
    pub(super) stack: Vec<u128>,
    pub(super) emits: Vec<Emit>,
    pub(super) meters: Vec<MeterStep>,
    pub(super) samples: Vec<SampleStep>,
    pub(super) effects: Vec<Effect>,
    pub(super) rests_on: Dependencies,
    /// Why rules send to controllers when they do not say.
    pub(super) reason: PuntReason,
    pub(super) action_set: ActionSet<'a>,
    pub(super) frames: Vec<Frame<'a>>,
    pub(super) tally: Tally,
    tracer: &'a mut T,
    rules: Vec<Arc<Rule>>,
    /// Why nothing leaves, as far as is known.
    pub(super) cause: DropCause,
    /// Copies and causes so far: a rule that adds none of its own is the end of the
    /// packet.
    pub(super) n_ends: usize,
    /// Mirrors that have a copy: a bit each.
    pub(super) mirrored: u32,
    /// The flow, where flows are counted one by one.
    pub(super) accounted: Option<FlowId>,
    /// What is sent now is such a copy.
    pub(super) is_mirroring: bool,
    n_lookups: usize,
    n_effects: usize,
    /// The action set is executed at the end: not where a clone goes on in a pass of its own.
    runs_set: bool,
    /// What is left of a walk that this one shall be the same as.
    along: Option<Taken<'a>>,
    /// What tables answered before.
    recent: Option<&'a mut Recent>,
}

/// A list of actions under way.
pub(super) struct Frame<'a> {
    pub(super) rule: &'a Arc<Rule>,
    pub(super) actions: List<'a>,
    /// Buckets to execute after the actions.
    pub(super) buckets: slice::Iter<'a, Bucket>,
    /// Where to continue after the actions.
    pub(super) goto: Option<TableId>,
    /// Nesting that counts towards the limit.
    pub(super) depth: usize,
    /// Nesting as it is shown: a table that a rule goes on to is beside the rule, one
    /// that it resubmits to is below.
    pub(super) nesting: usize,
    /// `n_ends` when the frame began.
    pub(super) n_ends: usize,
    /// What to undo at its end, when it is a clone or a bucket.
    pub(super) undo: Option<Box<Saved<'a>>>,
}

/// What a clone or a bucket leaves as it was.
pub(super) struct Saved<'a> {
    key: Tracked,
    vlan: VlanEdits,
    labels: LabelEdits,
    queue: Option<u32>,
    stack: Vec<u128>,
    action_set: ActionSet<'a>,
    n_meters: usize,
}

impl<'a> Frame<'a> {
    /// A frame of a rule, with nothing to do.
    pub(super) fn of(rule: &'a Arc<Rule>, n_ends: usize) -> Self {
        let buckets = [].iter();
        let actions = List::empty();
        Self { rule, actions, buckets, goto: None, depth: 0, nesting: 0, n_ends, undo: None }
    }
}

impl Frame<'_> {
    /// Nothing is left to do, nor to undo.
    fn is_done(&self) -> bool {
        self.actions.is_empty() && self.buckets.len() == 0 && self.goto.is_none() && self.undo.is_none()
    }
}

impl<'a, T: Tracer> Walk<'a, T> {
    /// `recent`: what tables answered before, for whoever keeps that.
    pub(super) fn new(
        snapshot: &'a Snapshot,
        key: &FlowKey,
        tracer: &'a mut T,
        recent: Option<&'a mut Recent>,
    ) -> Self {
        let n_rules = recent.as_ref().map_or(0, |recent| recent.n_rules);
        Self {
            snapshot,
            key: start(key),
            vlan: VlanEdits::default(),
            labels: LabelEdits::default(),
            queue: None,
            stack: Vec::new(),
            emits: Vec::new(),
            meters: Vec::new(),
            samples: Vec::new(),
            effects: Vec::new(),
            rests_on: Dependencies::default(),
            reason: PuntReason::Action,
            action_set: Vec::new(),
            frames: Vec::new(),
            tally: Tally::of(snapshot.tables.stats()),
            tracer,
            rules: Vec::with_capacity(n_rules),
            cause: DropCause { reason: DropReason::TableMiss, rule: None },
            n_ends: 0,
            mirrored: 0,
            accounted: None,
            is_mirroring: false,
            n_lookups: 0,
            n_effects: 0,
            runs_set: true,
            along: None,
            recent,
        }
    }

    pub(super) fn run(mut self, frozen: Option<&'a Frozen>) -> Translation {
        let walked = self.walk(frozen);
        self.conclude(walked)
    }

    /// Takes a walk that was taken before; `None`: it goes elsewhere now. The answer's mask lacks
    /// bits that are in that walk's.
    pub(super) fn run_along(mut self, frozen: Option<&'a Frozen>, taken: Taken<'a>) -> Option<Translation> {
        self.along = Some(taken);
        let walked = self.walk(frozen);
        let is_same = self.along.is_some_and(|left| left.is_done());
        is_same.then(|| self.conclude(walked))
    }

    fn conclude(mut self, walked: Result<(), Abort>) -> Translation {
        if let Err(Abort(reason)) = walked {
            self.emits.clear();
            self.meters.clear();
            self.samples.clear();
            self.effects.clear();
            self.tally.forget_side_effects();
            self.end(reason);
            self.note(format_args!("the whole packet is dropped: {reason}"));
        }
        self.close_meters(0);
        self.account();
        let goes_on = self.emits.iter().any(Emit::forwards);
        let drop = (!goes_on).then_some(self.cause);
        let Self { emits, meters, samples, effects, rests_on, .. } = self;
        Translation {
            program: Program { emits, meters, drop, effects, samples },
            mask: *self.key.mask(),
            acts_on_headers: self.key.acts_on_headers(),
            rules: self.rules,
            tally: self.tally,
            rests_on,
        }
    }

    fn walk(&mut self, frozen: Option<&'a Frozen>) -> Result<(), Abort> {
        self.runs_set = self.begin(frozen)?;
        loop {
            let Some(frame) = self.frames.last_mut() else {
                if self.runs_set && self.begin_action_set() {
                    continue;
                }
                return Ok(());
            };
            if let Some(action) = frame.actions.next() {
                self.act(action)?;
            } else if let Some(bucket) = frame.buckets.next() {
                self.begin_bucket(bucket);
            } else if let Some(table) = frame.goto.take() {
                let (depth, nesting) = (frame.depth, frame.nesting);
                self.enter(table, depth, nesting, None)?;
            } else {
                self.leave();
            }
        }
    }

    /// Looks the packet up in a table and begins with the rule's actions. The table says what
    /// happens when it has no rule.
    pub(super) fn enter(
        &mut self,
        table: TableId,
        depth: usize,
        nesting: usize,
        in_port: Option<PortNo>,
    ) -> Result<(), Abort> {
        self.see_payload()?;
        let mut table = table;
        loop {
            self.n_lookups += 1;
            if self.n_lookups > MAX_LOOKUPS {
                return Err(Abort(DropReason::TooManyResubmits));
            }
            let found = self.find(table, in_port)?;
            self.tracer.lookup(nesting, table, found);
            if let Some(rule) = found {
                self.rules.push(Arc::clone(rule));
                // What has nothing left to do ends with what comes last: the same end.
                if self.frames.last().is_some_and(Frame::is_done) {
                    self.frames.pop();
                }
                let actions = List::Rule(rule.actions.iter());
                self.frames.push(Frame { actions, depth, nesting, ..Frame::of(rule, self.n_ends) });
                return Ok(());
            }
            self.tally.misses.push(table);
            match (self.snapshot.tables.settings(table).miss, TableId::new(table.get() + 1)) {
                (MissPolicy::Continue, Ok(next)) => table = next,
                (MissPolicy::Controller, _) => return self.punt_miss(table),
                (MissPolicy::Continue | MissPolicy::Drop, _) => {
                    self.end(DropReason::TableMiss);
                    return Ok(());
                }
            }
        }
    }

    /// Enters the first table, or goes on where a walk was put aside; answers whether the
    /// action set is executed at the end.
    fn begin(&mut self, frozen: Option<&'a Frozen>) -> Result<bool, Abort> {
        let Some(frozen) = frozen else {
            if self.is_stopped_at_port()? {
                return Ok(false);
            }
            if self.snapshot.tables.drops(&mut self.key) {
                self.end(DropReason::Fragment);
                return Ok(false);
            }
            return self.enter(FIRST_TABLE, 0, 0, None).map(|()| true);
        };
        self.queue = frozen.queue;
        self.mirrored = frozen.mirrored;
        self.reason = frozen.reason;
        self.stack = frozen.stack.to_vec();
        self.action_set = frozen.action_set.iter().map(|Written { action, rule }| (action, rule)).collect();
        self.write_actset_output();
        match &frozen.start {
            Start::Table(table) => self.enter(*table, 0, 0, None).map(|()| true),
            Start::Rest { rests, within_clone } => {
                self.resume(rests);
                Ok(!within_clone)
            }
        }
    }

    /// Puts the actions of a walk that was put aside under way again.
    fn resume(&mut self, rests: &'a [Rest]) {
        for Rest { rule, actions, goto } in rests.iter().rev() {
            self.frames.push(Frame {
                rule,
                actions: List::Rule(actions.iter()),
                goto: *goto,
                ..Frame::of(rule, self.n_ends)
            });
        }
    }

    /// Takes what is left of the actions under way, up to the innermost clone: they are
    /// done in a later pass, and not in this one. `true`: that is a clone's or a bucket's,
    /// whose action set is not executed.
    pub(super) fn put_aside(&mut self) -> (Vec<Rest>, bool) {
        let mut rests = Vec::new();
        for frame in self.frames.iter_mut().rev() {
            rests.push(Rest {
                rule: Arc::clone(frame.rule),
                actions: frame.actions.rest(),
                goto: frame.goto.take(),
            });
            frame.actions = List::empty();
            if frame.undo.is_some() {
                return (rests, true);
            }
        }
        // What is left of a clone stays so.
        (rests, !self.runs_set)
    }

    /// The rule for the packet; what is known from a walk that was taken before is not searched
    /// for.
    fn find(&mut self, table: TableId, in_port: Option<PortNo>) -> Result<Option<&'a Arc<Rule>>, Abort> {
        let Some(taken) = &mut self.along else { return Ok(self.lookup(table, in_port)) };
        let expected = match taken.next(table) {
            Step::Known(found) => return Ok(found),
            Step::Expected(found) => Some(found),
            Step::Apart => None,
        };
        let found = expected.and_then(|_| self.lookup(table, in_port));
        if expected.is_some_and(|expected| expected.map(Arc::as_ptr) == found.map(Arc::as_ptr)) {
            return Ok(found);
        }
        // Nobody will see what comes of it.
        self.along = None;
        Err(Abort(DropReason::RuleDrop))
    }

    /// The rule for the packet as if it had come in by `in_port`.
    fn lookup(&mut self, table: TableId, in_port: Option<PortNo>) -> Option<&'a Arc<Rule>> {
        let Some(in_port) = in_port else { return self.lookup_now(table) };
        let saved = self.key.clone();
        self.key.write(Field::InPort, in_port.get().into());
        let found = self.lookup_now(table);
        self.key.restore(&saved);
        found
    }

    /// The rule for the packet as it is.
    fn lookup_now(&mut self, table: TableId) -> Option<&'a Arc<Rule>> {
        self.tracer.sees(self.key.peek());
        let tables = &self.snapshot.tables;
        match &mut self.recent {
            Some(recent) => recent.lookup(tables, table, &mut self.key),
            None => tables.lookup(table, &mut self.key),
        }
    }

    /// Ends the innermost list of actions.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if let Some(saved) = frame.undo {
            self.restore(*saved);
        } else if self.n_ends == frame.n_ends && !(self.runs_set && self.has_way_out()) {
            self.end_by(DropReason::RuleDrop, Some(frame.rule));
        }
    }

    fn act(&mut self, action: &'a Action) -> Result<(), Abort> {
        match action {
            Action::Output(port) => self.output(*port)?,
            Action::OutputReg(sub) => self.output_reg(*sub)?,
            Action::SetField { field, value, mask } => self.set(*field, *value, *mask)?,
            Action::Move { src, dst } => self.copy_bits(*src, *dst)?,
            Action::Resubmit { port, table } => self.resubmit(*port, *table)?,
            Action::GotoTable(table) => {
                if let Some(frame) = self.frames.last_mut() {
                    frame.goto = Some(*table);
                }
            }
            Action::Clone(actions) => self.begin_clone(actions)?,
            Action::DecTtl => {
                if !self.dec_ttl()? {
                    self.ttl_expired(&[])?;
                }
            }
            Action::DecTtlOrTell(controllers) => {
                if !self.dec_ttl()? {
                    self.ttl_expired(controllers)?;
                }
            }
            Action::PushVlan(tpid) => self.push_vlan(*tpid)?,
            Action::PopVlan => self.pop_vlan(),
            Action::SetTunnel(id) => self.key.write(Field::TunId, (*id).into()),
            Action::OutputTruncated { port, max_len } => self.output_special(*port, Some(*max_len), None)?,
            Action::Enqueue { port, queue } => self.output_special(*port, None, Some(*queue))?,
            Action::SetQueue(queue) => self.queue = Some(*queue),
            Action::PopQueue => self.queue = None,
            Action::Controller(to) => self.punt(to)?,
            Action::PushMpls(eth_type) => self.push_mpls(*eth_type)?,
            Action::PopMpls(eth_type) => self.pop_mpls(*eth_type)?,
            Action::DecMplsTtl => {
                if !self.dec_mpls_ttl() {
                    self.ttl_expired(&[])?;
                }
            }
            Action::Push(sub) => self.push(*sub)?,
            Action::Pop(sub) => self.pop(*sub)?,
            Action::DeleteField(field) => self.delete_option(*field),
            Action::ResubmitCt { port, table } => self.resubmit_ct(*port, *table)?,
            Action::Exit => self.exit(),
            Action::Note(_) | Action::Conjunction { .. } => {}
            Action::Multipath(multipath) => self.multipath(multipath)?,
            Action::Bundle(bundle) => self.bundle(bundle)?,
            Action::Group(id) => self.begin_group(*id)?,
            Action::Meter(id) => self.meter(*id)?,
            Action::ClearActions => self.clear_actions(),
            Action::WriteActions(actions) => self.write_actions(actions)?,
            Action::WriteMetadata { value, mask } => {
                self.key.write_bits(Field::Metadata, (*value).into(), (*mask).into());
            }
            Action::Ct(ct) => self.ct(ct)?,
            Action::CtClear => self.ct_clear(),
            Action::Learn(learn) => self.learn(learn)?,
            Action::FinTimeout { idle_timeout, hard_timeout } => {
                self.fin_timeout(*idle_timeout, *hard_timeout)?;
            }
            Action::CheckPktLarger { max_len, dst } => self.check_pkt_larger(*max_len, *dst)?,
            Action::Sample(sample) => self.sample(sample)?,
        }
        Ok(())
    }

    /// The packet goes no further in this list, but perhaps to controllers.
    fn ttl_expired(&mut self, controllers: &[u16]) -> Result<(), Abort> {
        for controller in controllers {
            let reason = PuntReason::InvalidTtl;
            self.punt(&ToController { reason, controller: *controller, ..ToController::default() })?;
        }
        if controllers.is_empty() {
            self.end(DropReason::TtlExpired);
        }
        self.stop_list();
        Ok(())
    }

    fn push(&mut self, sub: SubField) -> Result<(), Abort> {
        if self.stack.len() >= MAX_STACK {
            return Err(Abort(DropReason::StackOverflow));
        }
        let value = self.read(sub)?;
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self, sub: SubField) -> Result<(), Abort> {
        match self.stack.pop() {
            Some(value) => self.set(sub.field, value << sub.start, sub.bits()),
            None => {
                self.note(format_args!("the stack is empty: nothing popped"));
                Ok(())
            }
        }
    }

    /// Ends all lists of actions up to the innermost clone.
    fn exit(&mut self) {
        for frame in self.frames.iter_mut().rev() {
            frame.actions = List::empty();
            frame.buckets = [].iter();
            frame.goto = None;
            if frame.undo.is_some() {
                break;
            }
        }
    }

    /// The rule whose actions are under way.
    pub(super) fn rule(&self) -> Option<&'a Arc<Rule>> {
        self.frames.last().map(|frame| frame.rule)
    }

    fn begin_clone(&mut self, actions: &'a [Action]) -> Result<(), Abort> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (rule, depth, nesting) = (frame.rule, frame.depth + 1, frame.nesting + 1);
        if depth > MAX_DEPTH {
            return Err(Abort(DropReason::DepthExceeded));
        }
        let (actions, undo) = (List::Rule(actions.iter()), Some(self.save()));
        self.frames.push(Frame { actions, depth, nesting, undo, ..Frame::of(rule, self.n_ends) });
        Ok(())
    }

    /// What a clone or a bucket will leave as it is now.
    pub(super) fn save(&self) -> Box<Saved<'a>> {
        Box::new(Saved {
            key: self.key.clone(),
            vlan: self.vlan,
            labels: self.labels,
            queue: self.queue,
            stack: self.stack.clone(),
            action_set: self.action_set.clone(),
            n_meters: self.meters.len(),
        })
    }

    pub(super) fn restore(&mut self, saved: Saved<'a>) {
        self.key.restore(&saved.key);
        self.vlan = saved.vlan;
        self.labels = saved.labels;
        self.queue = saved.queue;
        self.stack = saved.stack;
        self.action_set = saved.action_set;
        self.close_meters(saved.n_meters);
    }

    /// Skips the rest of the innermost list of actions; lists around it go on.
    fn stop_list(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.actions = List::empty();
            frame.buckets = [].iter();
            frame.goto = None;
        }
    }

    /// A way of the packet ended without a copy.
    pub(super) fn end(&mut self, reason: DropReason) {
        let rule = self.frames.last().map(|frame| frame.rule);
        self.end_by(reason, rule);
    }

    fn end_by(&mut self, reason: DropReason, rule: Option<&Arc<Rule>>) {
        self.n_ends += 1;
        self.cause = DropCause { reason, rule: rule.cloned() };
        self.note(format_args!("drop: {reason}"));
    }

    /// The packet changes something besides itself.
    pub(super) fn count_effect(&mut self) -> Result<(), Abort> {
        self.n_effects += 1;
        if self.n_effects > MAX_EFFECTS { Err(Abort(DropReason::TooManyEffects)) } else { Ok(()) }
    }

    /// A copy of the packet leaves.
    pub(super) fn emit(&mut self, emit: Emit) {
        self.n_ends += 1;
        self.emits.push(emit);
    }

    /// Tells the tracer.
    pub(super) fn note(&mut self, note: fmt::Arguments<'_>) {
        let nesting = self.frames.last().map_or(0, |frame| frame.nesting + 1);
        self.tracer.note(nesting, note);
    }
}

/// The key with what every translation looks at: where the packet is and which headers
/// it has.
fn start(key: &FlowKey) -> Tracked {
    let mut key = Tracked::new(*key);
    key.read_fresh(Field::InPort);
    key.read_fresh(Field::PacketType);
    key.read_fresh(Field::RecircId);
    key.write(Field::ActsetOutput, PortNo::UNSET.get().into());
    if matches!(key.read_fresh(Field::EthType), 0x0800 | 0x86dd) {
        key.read_fresh(Field::NwFrag);
    }
    key
}
