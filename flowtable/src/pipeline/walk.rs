//! The walk itself: which rule comes next, how deep it is nested, and when it ends.
//!
//! Rules are the controller's, so a loop among them is an expected input. The nesting
//! is therefore a list of frames on the heap with fixed limits, never the program's
//! own stack. A walk that hits a limit emits nothing at all.

use std::{fmt, slice, sync::Arc};

use super::{
    Frozen, MAX_DEPTH, MAX_LOOKUPS, Tracer, Translation,
    edit::VlanEdits,
    frozen::{Rest, Start},
};
use crate::{
    drop::DropReason,
    field::Field,
    flow::{Action, Rule},
    key::{FlowKey, Tracked},
    program::{DropCause, Emit, Program},
    snapshot::Snapshot,
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
    pub(super) emits: Vec<Emit>,
    tracer: &'a mut T,
    frames: Vec<Frame<'a>>,
    rules: Vec<Arc<Rule>>,
    /// Why nothing leaves, as far as is known.
    cause: DropCause,
    /// Copies and causes so far: a rule that adds none of its own is the end of the
    /// packet.
    n_ends: usize,
    n_lookups: usize,
}

/// A list of actions under way.
struct Frame<'a> {
    rule: &'a Arc<Rule>,
    actions: slice::Iter<'a, Action>,
    /// Where to continue after the actions.
    goto: Option<TableId>,
    /// Nesting that counts towards the limit.
    depth: usize,
    /// Nesting as it is shown: a table that a rule goes on to is beside the rule, one
    /// that it resubmits to is below.
    nesting: usize,
    /// `n_ends` when the frame began.
    n_ends: usize,
    /// What to undo at its end, when it is a clone.
    undo: Option<Box<(Tracked, VlanEdits)>>,
}

impl<'a, T: Tracer> Walk<'a, T> {
    pub(super) fn new(snapshot: &'a Snapshot, key: &FlowKey, tracer: &'a mut T) -> Self {
        Self {
            snapshot,
            key: start(key),
            vlan: VlanEdits::default(),
            emits: Vec::new(),
            tracer,
            frames: Vec::new(),
            rules: Vec::new(),
            cause: DropCause { reason: DropReason::TableMiss, rule: None },
            n_ends: 0,
            n_lookups: 0,
        }
    }

    pub(super) fn run(mut self, frozen: Option<&'a Frozen>) -> Translation {
        if let Err(Abort(reason)) = self.walk(frozen) {
            self.emits.clear();
            self.end(reason);
            self.note(format_args!("the whole packet is dropped: {reason}"));
        }
        let leaves = self.emits.iter().any(Emit::leaves);
        let drop = (!leaves).then_some(self.cause);
        Translation {
            program: Program { emits: self.emits, drop },
            mask: *self.key.mask(),
            rules: self.rules,
        }
    }

    fn walk(&mut self, frozen: Option<&'a Frozen>) -> Result<(), Abort> {
        match frozen.map(|frozen| &frozen.start) {
            None => self.enter(FIRST_TABLE, 0, 0, None)?,
            Some(Start::Table(table)) => self.enter(*table, 0, 0, None)?,
            Some(Start::Rest(rests)) => self.resume(rests),
        }
        while let Some(frame) = self.frames.last_mut() {
            if let Some(action) = frame.actions.next() {
                self.act(action)?;
            } else if let Some(table) = frame.goto.take() {
                let (depth, nesting) = (frame.depth, frame.nesting);
                self.enter(table, depth, nesting, None)?;
            } else {
                self.leave();
            }
        }
        Ok(())
    }

    /// Looks the packet up in a table and begins with the rule's actions.
    fn enter(
        &mut self,
        table: TableId,
        depth: usize,
        nesting: usize,
        in_port: Option<PortNo>,
    ) -> Result<(), Abort> {
        self.n_lookups += 1;
        if self.n_lookups > MAX_LOOKUPS {
            return Err(Abort(DropReason::TooManyResubmits));
        }
        let found = self.lookup(table, in_port);
        self.tracer.lookup(nesting, table, found);
        let Some(rule) = found else {
            self.end(DropReason::TableMiss);
            return Ok(());
        };
        self.rules.push(Arc::clone(rule));
        self.frames.push(Frame {
            rule,
            actions: rule.actions.iter(),
            goto: None,
            depth,
            nesting,
            n_ends: self.n_ends,
            undo: None,
        });
        Ok(())
    }

    /// Puts the actions of a walk that was put aside under way again.
    fn resume(&mut self, rests: &'a [Rest]) {
        for Rest { rule, actions, goto } in rests.iter().rev() {
            self.frames.push(Frame {
                rule,
                actions: actions.iter(),
                goto: *goto,
                depth: 0,
                nesting: 0,
                n_ends: 0,
                undo: None,
            });
        }
    }

    /// Takes what is left of the actions under way, up to the innermost clone: they are
    /// done in a later pass, and not in this one.
    pub(super) fn put_aside(&mut self) -> Vec<Rest> {
        let mut rests = Vec::new();
        for frame in self.frames.iter_mut().rev() {
            rests.push(Rest {
                rule: Arc::clone(frame.rule),
                actions: frame.actions.as_slice().to_vec(),
                goto: frame.goto.take(),
            });
            frame.actions = [].iter();
            if frame.undo.is_some() {
                break;
            }
        }
        rests
    }

    /// The rule for the packet as if it had come in by `in_port`.
    fn lookup(&mut self, table: TableId, in_port: Option<PortNo>) -> Option<&'a Arc<Rule>> {
        let tables = &self.snapshot.tables;
        let Some(in_port) = in_port else { return tables.lookup(table, &mut self.key) };
        let saved = self.key.clone();
        self.key.write(Field::InPort, in_port.get().into());
        let found = tables.lookup(table, &mut self.key);
        self.key.restore(&saved);
        found
    }

    /// Ends the innermost list of actions.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        if let Some(undo) = frame.undo {
            self.key.restore(&undo.0);
            self.vlan = undo.1;
        } else if self.n_ends == frame.n_ends {
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
                if !self.dec_ttl() {
                    self.end(DropReason::TtlExpired);
                    self.stop_list();
                }
            }
            Action::PushVlan(tpid) => self.push_vlan(*tpid)?,
            Action::PopVlan => self.pop_vlan(),
            Action::SetTunnel(id) => self.key.write(Field::TunId, (*id).into()),
            Action::Ct(ct) => self.ct(ct)?,
            Action::CtClear => self.ct_clear(),
        }
        Ok(())
    }

    fn resubmit(&mut self, port: Option<PortNo>, table: Option<TableId>) -> Result<(), Abort> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let current = frame.rule.table;
        let table = table.unwrap_or(current);
        let depth = frame.depth + usize::from(table <= current);
        if depth > MAX_DEPTH {
            return Err(Abort(DropReason::DepthExceeded));
        }
        let nesting = frame.nesting + 1;
        self.enter(table, depth, nesting, port.filter(|port| *port != PortNo::IN_PORT))
    }

    fn begin_clone(&mut self, actions: &'a [Action]) -> Result<(), Abort> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let (rule, depth, nesting) = (frame.rule, frame.depth + 1, frame.nesting + 1);
        if depth > MAX_DEPTH {
            return Err(Abort(DropReason::DepthExceeded));
        }
        self.frames.push(Frame {
            rule,
            actions: actions.iter(),
            goto: None,
            depth,
            nesting,
            n_ends: self.n_ends,
            undo: Some(Box::new((self.key.clone(), self.vlan))),
        });
        Ok(())
    }

    /// Skips the rest of the innermost list of actions; lists around it go on.
    fn stop_list(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.actions = [].iter();
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
    key.read(Field::InPort);
    key.read(Field::PacketType);
    key.read(Field::RecircId);
    if matches!(key.read(Field::EthType), 0x0800 | 0x86dd) {
        key.read(Field::NwFrag);
    }
    key
}
