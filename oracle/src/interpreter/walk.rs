//! The walk through the tables, and what each action does.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Outcome, Sent, Told, World,
    memory::{Mark, Memory},
    rehearsal::{Rehearsal, Stage},
};
use crate::{
    coverage::Met,
    field::Field,
    interpreter::find::find,
    state::{Author, State},
    syntax::{Matching, Step, ones},
};

/// Lookups of one packet (ovs-actions(7), `resubmit`).
const MAX_LOOKUPS: usize = 4096;
/// Lookups in all passes of one packet that are worth the time: loops within loops.
const MAX_LOOKUPS_OF_ALL: usize = 4 * MAX_LOOKUPS;
/// Nesting of resubmits that do not go forward, and of clones.
pub(super) const MAX_DEPTH: usize = 64;
/// Values on the stack.
const MAX_STACK: usize = 4096;
/// Tags that a packet can have for the switch.
const MAX_TAGS: usize = 2;

/// The walk does not simply go on.
pub(super) enum Stop {
    /// A rule says so.
    Exit,
    /// A limit was hit in this pass: nothing of the pass has happened.
    Abort(usize, &'static str),
    /// What follows is of a later pass, which is not rehearsed with this one.
    Behind,
    /// A rehearsal is done.
    Over,
}

pub(super) type Way = Result<(), Stop>;

/// How a walk has ended.
pub(super) enum Course {
    /// With this.
    Over(Outcome),
    /// Too early: there has to be another one, which follows these rehearsals.
    Again(BTreeMap<usize, Rehearsal>),
}

/// One packet's walk.
pub(super) struct Walk<'a> {
    pub(super) world: World<'a>,
    pub(super) memory: &'a mut Memory,
    pub(super) now: u64,
    pub(super) state: State,
    pub(super) sent: Vec<Sent>,
    pub(super) told: Vec<Told>,
    /// Why something of the packet went nowhere.
    pub(super) whys: Vec<&'static str>,
    /// Copies and reasons so far.
    pub(super) n_ends: usize,
    /// Copies on their way to a port that cannot be made.
    pub(super) n_unsendable: usize,
    /// The outcome depends on what is remembered.
    pub(super) is_stateful: bool,
    pub(super) is_lost: bool,
    /// Later packets may meet something else because of it.
    pub(super) is_teaching: bool,
    /// What the packet has said of stations in a pass is true for the packet: pass, VLAN and address.
    pub(super) own_stations: BTreeMap<(usize, u128, u128), u128>,
    /// Pass, table, priority and match of the rules that the packet has made.
    pub(super) own_lessons: Vec<(usize, u8, u16, Matching)>,
    pub(super) stage: Stage,
    pub(super) author: Author,
    pub(super) met: Met,
    pub(super) pass: Pass,
    pub(super) n_passes: usize,
    /// Lookups in all passes, those of passes that have not happened as well.
    n_lookups: usize,
    pub(super) passes: usize,
    /// Connection trackers passed on the way here.
    pub(super) depth: usize,
}

/// A pass of the packet: from a table on, or from behind a translation on.
#[derive(Clone)]
pub(super) struct Pass {
    pub(super) id: usize,
    pub(super) n_lookups: usize,
    pub(super) n_copies: usize,
    pub(super) n_meters: usize,
    /// Times that it has asked for a station.
    pub(super) n_answers: usize,
    /// Bytes of the packet at its beginning.
    pub(super) len: usize,
    /// To undo it.
    pub(super) before: Before,
}

/// What there was before a pass.
#[derive(Clone)]
pub(super) struct Before {
    memory: Mark,
    n_sent: usize,
    n_told: usize,
    n_unsendable: usize,
    n_passes: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        world: World<'a>,
        memory: &'a mut Memory,
        now: u64,
        in_port: u32,
        frame: &[u8],
    ) -> Self {
        let before = Before { memory: memory.mark(), n_sent: 0, n_told: 0, n_unsendable: 0, n_passes: 0 };
        let pass =
            Pass { id: 0, n_lookups: 0, n_copies: 0, n_meters: 0, n_answers: 0, len: frame.len(), before };
        Self {
            world,
            memory,
            now,
            state: State::new(frame, in_port),
            sent: Vec::new(),
            told: Vec::new(),
            whys: vec!["table-miss"],
            n_ends: 0,
            n_unsendable: 0,
            is_stateful: false,
            is_lost: false,
            is_teaching: false,
            own_stations: BTreeMap::new(),
            own_lessons: Vec::new(),
            stage: Stage::default(),
            author: Author { table: 0, cookie: u64::MAX, is_miss: false },
            met: Met::default(),
            pass,
            n_passes: 0,
            n_lookups: 0,
            passes: 0,
            depth: 1,
        }
    }

    /// The same, with what is known of its passes.
    pub(super) fn with_rehearsals(mut self, rehearsals: BTreeMap<usize, Rehearsal>) -> Self {
        self.stage.done = Some(rehearsals);
        self
    }

    pub(super) fn run(mut self) -> Course {
        let aborted = self.whole_pass(0);
        let is_first = self.stage.done.is_none();
        if !self.is_lost && (self.stage.is_over || is_first && self.is_teaching && self.passes > 0) {
            return Course::Again(self.stage.done.unwrap_or_default());
        }
        let nothing = self.sent.is_empty() && self.told.is_empty();
        let unsendable = self.n_unsendable > 0 && aborted.is_none();
        let last = aborted.or(unsendable.then_some("unsupported")).or(self.whys.last().copied());
        let mut whys = self.whys.clone();
        whys.extend(unsendable.then_some("unsupported"));
        let dropped = match (nothing, self.is_stateful) {
            (false, _) => Vec::new(),
            (true, false) => last.into_iter().collect(),
            (true, true) => {
                // Which of several reasons counts is not said anywhere.
                self.whys.extend(last);
                self.whys.extend(["rule-drop", "table-miss"]);
                self.whys
            }
        };
        let is_lasting = !self.is_stateful && !self.is_teaching && self.memory.fresh().is_empty();
        let (sent, told) = (self.sent, self.told);
        let (is_teaching, is_lost) = (self.is_teaching, self.is_lost);
        Course::Over(Outcome { sent, told, dropped, whys, is_lasting, is_teaching, is_lost, met: self.met })
    }

    /// From a table to the end of the action set; answers why nothing of it has happened.
    pub(super) fn whole_pass(&mut self, table: u8) -> Option<&'static str> {
        let id = self.pass.id;
        let before = self.pass.before.clone();
        self.open_pass();
        let result = self.scoped(|walk| match walk.look_up(table, None, 0, false) {
            Ok(()) | Err(Stop::Exit) => walk.execute_action_sets(),
            abort => abort,
        });
        let aborted = match result {
            Err(Stop::Abort(pass, why)) if pass == id => {
                self.roll_back(before);
                self.whys.push(why);
                Some(why)
            }
            _ => None,
        };
        // Whoever goes on asks for himself whether there is a way.
        let _is_over = self.close_pass(id, aborted.is_some());
        aborted
    }

    /// What begins a new pass in here, behind a translation, ends here. A limit that is hit in a later
    /// pass leaves what happened before.
    pub(super) fn scoped(&mut self, walk: impl FnOnce(&mut Self) -> Way) -> Way {
        let outside = (self.pass.clone(), self.depth);
        let result = walk(self);
        let inside = std::mem::replace(&mut self.pass, outside.0);
        self.depth = outside.1;
        if inside.id == self.pass.id {
            // What is counted in a pass is counted to its end.
            self.pass = inside;
            return result;
        }
        match result {
            Err(Stop::Abort(pass, why)) if pass == inside.id => {
                self.roll_back(inside.before);
                self.whys.push(why);
                self.close_pass(inside.id, true)
            }
            result => self.close_pass(inside.id, false).and(result),
        }
    }

    pub(super) fn before(&self) -> Before {
        Before {
            memory: self.memory.mark(),
            n_sent: self.sent.len(),
            n_told: self.told.len(),
            n_unsendable: self.n_unsendable,
            n_passes: self.n_passes,
        }
    }

    fn roll_back(&mut self, Before { memory, n_sent, n_told, n_unsendable, n_passes }: Before) {
        self.memory.roll_back(memory);
        (self.n_unsendable, self.n_passes) = (n_unsendable, n_passes);
        self.sent.truncate(n_sent);
        self.told.truncate(n_told);
    }

    pub(super) fn abort(&self, why: &'static str) -> Stop {
        Stop::Abort(self.pass.id, why)
    }

    pub(super) fn end(&mut self, why: &'static str) {
        self.whys.push(why);
        self.n_ends += 1;
    }

    /// Finds the rule and does what it says.
    pub(super) fn look_up(&mut self, table: u8, in_port: Option<u32>, depth: usize, ct: bool) -> Way {
        self.see_payload()?;
        self.pass.n_lookups += 1;
        self.n_lookups += 1;
        self.is_lost |= self.n_lookups > MAX_LOOKUPS_OF_ALL;
        if self.pass.n_lookups > MAX_LOOKUPS || self.is_lost {
            return Err(self.abort("too-many-resubmits"));
        }
        let learned = Arc::clone(&self.memory.learned);
        let found = find(self.world.rules, &learned, table, &self.state, in_port, ct);
        let Some((flow, part)) = found else {
            self.end("table-miss");
            return Ok(());
        };
        part.into_iter().flat_map(|part| &part.steps).for_each(|step| self.met.step(step));
        self.met.matching(&flow.matching);
        let is_miss = flow.priority == 0 && flow.matching == Matching::default();
        let author = Author { table, cookie: flow.cookie, is_miss };
        let caller = std::mem::replace(&mut self.author, author);
        let n_ends = self.n_ends;
        let result = self.list(&flow.steps, depth);
        if !matches!(result, Err(Stop::Abort(..))) && self.n_ends == n_ends && !self.has_way_out() {
            self.end("rule-drop");
        }
        self.author = caller;
        result
    }

    /// Does a list of actions, then what a `goto_table` among them says.
    pub(super) fn list(&mut self, steps: &[Step], depth: usize) -> Way {
        let mut goto = None;
        for step in steps {
            self.met.step(step);
            match step {
                Step::Goto(to) => goto = Some(*to),
                Step::DecTtl | Step::DecTtlOrTell(_) => {
                    self.see_payload()?;
                    if !self.state.dec_ttl() {
                        let ids = if let Step::DecTtlOrTell(ids) = step { &ids[..] } else { &[] };
                        return self.ttl_expired(ids);
                    }
                }
                Step::DecMplsTtl if !self.state.dec_label_ttl() => return self.ttl_expired(&[]),
                step => self.act(step, depth)?,
            }
        }
        goto.map_or(Ok(()), |to| self.look_up(to, None, depth, false))
    }

    fn act(&mut self, step: &Step, depth: usize) -> Way {
        match step {
            Step::Output(port) => self.output_or_begin_again((*port).into(), depth)?,
            Step::OutputReg(part) => {
                self.see(part.field)?;
                let port = self.state.read(*part);
                self.output_or_begin_again(port, depth)?;
            }
            Step::InPort => self.output(self.state.get(Field::InPort), true)?,
            Step::Flood => self.flood()?,
            Step::Normal => self.normal()?,
            Step::Truncated { port, max_len } => self.truncated((*port).into(), *max_len)?,
            Step::Enqueue { port, .. } => self.output((*port).into(), false)?,
            Step::Controller => self.output(0xfffd, false)?,
            Step::Tell(tell) => self.tell(tell)?,
            Step::Set(term) => self.set(term.field, term.value, term.mask)?,
            Step::Load(part, value) => {
                self.set(part.field, value << part.start, ones(part.n_bits) << part.start)?;
            }
            Step::Move { src, dst } => {
                self.see(src.field)?;
                if self.state.has(src.field.needs()) {
                    let value = self.state.read(*src);
                    self.set(dst.field, value << dst.start, ones(dst.n_bits) << dst.start)?;
                }
            }
            Step::Resubmit { port, table, ct } => {
                if *ct {
                    self.see_payload()?;
                }
                self.resubmit((*table, *port, *ct), depth)?;
            }
            Step::Clone(steps) => {
                if depth + 1 > MAX_DEPTH {
                    return Err(self.abort("depth-exceeded"));
                }
                self.copy(steps, depth + 1)?;
            }
            Step::Exit => return Err(Stop::Exit),
            step => self.change(step, depth)?,
        }
        Ok(())
    }

    fn resubmit(&mut self, (table, port, ct): (u8, Option<u32>, bool), depth: usize) -> Way {
        let depth = depth + usize::from(table <= self.author.table);
        if depth > MAX_DEPTH {
            return Err(self.abort("depth-exceeded"));
        }
        self.look_up(table, port, depth, ct)
    }

    /// Sends to a port; to that which stands for the tables (`OFPP_TABLE`), from the first one on.
    fn output_or_begin_again(&mut self, port: u128, depth: usize) -> Way {
        if port == 0xfff9 { self.resubmit((0, None, false), depth) } else { self.output(port, false) }
    }

    /// Does actions on a copy: what they change is undone afterwards.
    pub(super) fn copy(&mut self, steps: &[Step], depth: usize) -> Way {
        let saved = self.state.clone();
        let result = self.scoped(|walk| walk.list(steps, depth));
        self.state = saved;
        if let Err(Stop::Exit | Stop::Behind) = result { Ok(()) } else { result }
    }

    /// Actions that change the packet, or what travels with it.
    fn change(&mut self, step: &Step, depth: usize) -> Way {
        match step {
            Step::PushVlan(tpid) => {
                if self.state.view().tags.len() >= MAX_TAGS {
                    return Err(self.abort("unsupported"));
                }
                self.state.push_tag(*tpid, 0);
            }
            Step::PopVlan => self.state.pop_tag(),
            Step::ModVlanVid(vid) | Step::SetVlanVid(vid) => self.tag(Field::VlanVid, (*vid).into()),
            Step::ModVlanPcp(pcp) => self.tag(Field::VlanPcp, (*pcp).into()),
            Step::PushMpls(eth_type) => {
                self.see_payload()?;
                let is_pushed = self.state.push_label(*eth_type);
                is_pushed.then_some(()).ok_or_else(|| self.abort("unsupported"))?;
            }
            Step::PopMpls(eth_type) => {
                let is_popped = self.state.pop_label(*eth_type);
                is_popped.then_some(()).ok_or_else(|| self.abort("unsupported"))?;
            }
            Step::SetTunnel(id) => self.state.set(Field::TunId, (*id).into(), u128::MAX),
            Step::Push(part) => {
                if self.state.stack.len() >= MAX_STACK {
                    return Err(self.abort("stack-overflow"));
                }
                self.see(part.field)?;
                let value = self.state.read(*part);
                self.state.stack.push(value);
            }
            Step::Pop(part) => {
                if let Some(value) = self.state.stack.pop() {
                    self.set(part.field, value << part.start, ones(part.n_bits) << part.start)?;
                }
            }
            Step::DeleteField(field) => self.state.forget(*field),
            Step::WriteMetadata(value, mask) => {
                self.state.set(Field::Metadata, (*value).into(), (*mask).into());
            }
            Step::CheckPktLarger(len, dst) => {
                let is_larger = self.state.bytes.len() > usize::from(*len);
                self.state.write_part(*dst, is_larger.into());
            }
            Step::ClearActions => {
                self.state.action_set.clear();
                self.state.note_action_set();
            }
            Step::WriteActions(steps) => self.write_actions(steps),
            Step::Multipath(multipath) => self.multipath(multipath)?,
            Step::Bundle(bundle) => self.bundle(bundle)?,
            Step::Group(id) => self.group(*id, depth)?,
            Step::Meter(id) => self.meter(*id)?,
            Step::Ct(ct) => self.ct(ct)?,
            Step::CtClear => self.ct_clear(),
            Step::Learn(learn) => self.learn(learn)?,
            // `note`, `conjunction`; queues, which say how a port sends, not what; `sample` and
            // `fin_timeout`, which leave the packet alone.
            _ => {}
        }
        Ok(())
    }

    fn ttl_expired(&mut self, controllers: &[u16]) -> Way {
        for id in controllers {
            self.tell_about(*id, "invalid_ttl", None, &[])?;
        }
        if controllers.is_empty() {
            self.end("ttl-expired");
        }
        Ok(())
    }

    /// Sets a part of the outer tag, which is made when there is none.
    fn tag(&mut self, field: Field, value: u128) {
        if self.state.view().tags.is_empty() {
            self.state.push_tag(0x8100, 0);
        }
        self.state.set(field, value, u128::MAX);
    }

    /// What is below labels that were popped has never been looked at.
    pub(super) fn see_payload(&self) -> Way {
        if self.state.labels.is_opaque { Err(self.abort("unsupported")) } else { Ok(()) }
    }

    pub(super) fn see(&self, field: Field) -> Way {
        use crate::field::Needs;
        if matches!(field.needs(), Needs::Nothing | Needs::Vlan) { Ok(()) } else { self.see_payload() }
    }

    pub(super) fn set(&mut self, field: Field, value: u128, mask: u128) -> Way {
        self.see(field)?;
        self.state.set(field, value, mask);
        Ok(())
    }
}
