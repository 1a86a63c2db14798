//! Rules written by hand, on their way to the state directory and back: a bridge's journal
//! gets what each change has done, at a cost of that. What changes by itself, by packets and
//! timeouts, is put off to the housekeeping, which also writes a journal anew that has become
//! long.

use flowtable::{
    table::{Commit, Tables},
    types::{BridgeId, Timestamp},
};

use super::{
    Bridge, ChangeError, Host,
    written::{parse, print_change, print_tables, saved_line},
};
use crate::state::{RuleJournal, StateError};

/// Longest text of changes that is put off; beyond, the whole is written instead.
const MAX_PUT_OFF: usize = 16 << 20;
/// A journal is written anew when it has so many times as many changes as there are rules,
const MAX_GROWTH: usize = 2;
/// and at least so many.
const MIN_LONG: usize = 10_000;

/// Where a bridge's rules are saved.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// `None`: nothing is kept.
    journal: Option<RuleJournal>,
    /// What has changed by itself since.
    put_off: String,
    /// Lines behind the whole.
    n_edits: usize,
    /// The journal cannot tell how the tables became what they are.
    needs_whole: bool,
}

impl Saving {
    /// A journal that has these texts so far.
    pub(super) fn new(journal: Option<RuleJournal>, texts: &[String]) -> Self {
        let n_edits = texts.iter().skip(1).map(|text| text.lines().count()).sum();
        Self { journal, n_edits, ..Self::default() }
    }

    /// Notes how tables change.
    fn note(&mut self, old: &Tables, commit: &Commit) {
        if self.journal.is_none() || self.needs_whole {
            return;
        }
        match print_change(old, &commit.tables, &commit.edits) {
            Some(text) if self.put_off.len() + text.len() <= MAX_PUT_OFF => {
                self.n_edits += text.lines().count();
                self.put_off += &text;
            }
            Some(_) | None => self.needs_whole = true,
        }
    }

    /// Writes what was noted; `tables` are what came of it.
    fn write(&mut self, tables: &Tables) -> Result<(), StateError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        if self.needs_whole || !journal.is_open() {
            journal.replace(&print_tables(tables))?;
            self.n_edits = 0;
        } else {
            journal.append(&self.put_off)?;
        }
        self.put_off.clear();
        self.needs_whole = false;
        Ok(())
    }

    /// Writes what was put off, and a long journal anew.
    fn tend(&mut self, tables: &Tables) -> Result<(), StateError> {
        let is_long = self.n_edits > MIN_LONG.max(MAX_GROWTH * tables.len());
        self.needs_whole |= is_long && self.journal.is_some();
        if self.needs_whole || !self.put_off.is_empty() { self.write(tables) } else { Ok(()) }
    }
}

impl Host {
    /// Saves what a commit makes of a bridge's tables, before packets see it.
    pub(super) fn save_commit(&mut self, id: BridgeId, commit: &Commit) -> Result<(), StateError> {
        let Some(bridge) = self.bridge_mut(id) else { return Ok(()) };
        let n_put_off = bridge.saving.put_off.len();
        bridge.saving.note(&bridge.tables, commit);
        let written = bridge.saving.write(&commit.tables);
        if written.is_err() {
            // The change does not take place.
            bridge.saving.put_off.truncate(n_put_off);
        }
        written
    }

    /// Notes a change that came by itself, to be saved with the housekeeping.
    pub(super) fn note_commit(&mut self, id: BridgeId, commit: &Commit) {
        if let Some(bridge) = self.bridge_mut(id) {
            bridge.saving.note(&bridge.tables, commit);
        }
    }

    /// Saves what has changed by itself.
    pub(super) fn save_unsaved(&mut self) {
        for bridge in &mut self.bridges {
            if let Err(error) = bridge.saving.tend(&bridge.tables) {
                tracing::error!(%error, "rules that have expired would be back after a restart");
            }
        }
    }

    /// Takes the rules of the last run. Where there were none ever, a bridge begins as its
    /// mode says.
    pub(super) fn restore_rules(&mut self) {
        let own = self.bridges.iter().filter(|bridge| self.is_changeable(bridge));
        for id in own.map(Bridge::id).collect::<Vec<_>>() {
            self.restore_rules_of(id);
        }
    }

    fn restore_rules_of(&mut self, id: BridgeId) {
        let now = self.dataplane.now();
        let (state, Some(bridge)) = (&self.state, self.bridges.iter_mut().find(|bridge| bridge.id == id))
        else {
            return;
        };
        let (mut journal, texts) = state.rules(&bridge.name).unzip();
        let texts = texts.unwrap_or_default();
        let (tables, replayed) = replay(bridge, &texts, now);
        // Tables of no texts are those that packets see already.
        if !texts.is_empty() {
            bridge.tables = std::sync::Arc::new(tables);
        }
        if let Err(error) = replayed {
            tracing::error!(bridge = bridge.name, %error, "rules of the last run are not taken");
            self.errors.push(format!("rules of the last run are not taken: {error}"));
            journal.iter_mut().for_each(RuleJournal::set_aside);
        }
        bridge.saving = Saving::new(journal, &texts);
        if !texts.is_empty() {
            self.publish(id);
        } else if let Err(error) = self.begin_rules(id) {
            tracing::error!(%error, "the first rule is not taken");
        }
    }
}

/// The tables that texts of changes lead to, each from what the one before has made; up to
/// the first that this version does not understand, and why it does not.
fn replay(bridge: &Bridge, texts: &[String], now: Timestamp) -> (Tables, Result<(), ChangeError>) {
    let mut tables = (*bridge.tables).clone();
    for text in texts {
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(saved_line).collect();
        let changes = parse(&lines, &bridge.port_table, &tables);
        match changes.and_then(|changes| Ok(tables.commit(changes, now)?)) {
            Ok(commit) => tables = commit.tables,
            Err(error) => return (tables, Err(error)),
        }
    }
    (tables, Ok(()))
}
