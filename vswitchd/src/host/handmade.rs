//! Rules written by hand: changes come as text, take place in one transaction, and are
//! saved before they do.
//!
//! What ends by itself, by a timeout, is saved a little later with the housekeeping: a
//! restart may bring back what ended in the last moment, and it ends again.

use std::collections::BTreeSet;

use flowtable::{
    flow::Rule,
    table::{Change, TransactionError},
    text::{TextError, print_flow},
    types::{BridgeId, Epoch},
};

use super::{Bridge, Host, Verb, WrittenChange, rules::differences, written::parse};
use crate::state::StateError;

/// A change by hand failed; then nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Rules are made from the logical network.
    #[error(
        "this vswitchd makes its rules from the logical network, and by nothing else; rules are written by hand with vswitchd --standalone, or, without interfaces, vswitchd --virtual"
    )]
    NotByHand,
    /// The bridge is gone.
    #[error("the bridge is not there any more")]
    NoBridge,
    /// A change is not understood.
    #[error("change {}: {error}", .index + 1)]
    Text {
        /// Which one, from 0.
        index: usize,
        /// What is wrong.
        error: TextError,
    },
    /// Something else than rules is to be replaced.
    #[error("change {}: only rules are replaced; groups, meters and the like are changed by their own commands, or all in one `bundle`", .index + 1)]
    NotARule {
        /// Which one, from 0.
        index: usize,
    },
    /// The tables refuse a change.
    #[error("{0}")]
    Refused(#[from] TransactionError),
    /// The change could not be saved.
    #[error("{0}")]
    State(#[from] StateError),
}

impl Host {
    /// Changes rules, groups and meters of a bridge in one transaction: all of it or nothing.
    /// With `replace` the rules that are there go first, but one that stays the same keeps
    /// its statistics.
    ///
    /// # Errors
    /// Names the first change that is wrong, and why.
    pub fn change_rules(
        &mut self,
        id: BridgeId,
        written: &[WrittenChange],
        replace: bool,
    ) -> Result<Epoch, ChangeError> {
        if !self.is_handmade {
            return Err(ChangeError::NotByHand);
        }
        let now = self.dataplane.now();
        self.expire_rules();
        let bridge = self.bridge_of(id).ok_or(ChangeError::NoBridge)?;
        let tables = &bridge.tables;
        let commit = if replace {
            let wanted = self.instead(bridge, written)?;
            tables.commit(differences(tables, &wanted), now)?
        } else {
            let changes = parse(written, &bridge.port_table, tables)?;
            let counted = |error: TransactionError| TransactionError { change: error.change + 1, ..error };
            tables.commit(changes, now).map_err(counted)?
        };
        self.save_commit(id, &commit)?;
        self.take_tables(id, commit);
        Ok(self.epoch)
    }

    /// The rules there are when these changes take place and nothing was there before.
    fn instead(&self, bridge: &Bridge, written: &[WrittenChange]) -> Result<Vec<Rule>, ChangeError> {
        let is_rule = |change: &WrittenChange| matches!(change.verb, Verb::Flow(_));
        if let Some(index) = written.iter().position(|change| !is_rule(change)) {
            return Err(ChangeError::NotARule { index });
        }
        let changes = parse(written, &bridge.port_table, &bridge.tables)?;
        // The first change, so that the others are counted from 1, as the caller does.
        let changes = [Change::Clear].into_iter().chain(changes).collect();
        let wanted = bridge.tables.commit(changes, self.dataplane.now())?.tables;
        Ok(wanted.rules().map(|rule| (**rule).clone()).collect())
    }

    /// What `change_rules` with `replace` would change: the rules that would go, and those
    /// that would come.
    ///
    /// # Errors
    /// Names the first change that is wrong, and why.
    pub fn compare_rules(
        &self,
        bridge: &Bridge,
        written: &[WrittenChange],
    ) -> Result<(Vec<String>, Vec<String>), ChangeError> {
        let wanted = self.instead(bridge, written)?;
        let present: BTreeSet<_> = bridge.tables.rules().map(|rule| print_flow(rule)).collect();
        let wanted: BTreeSet<_> = wanted.iter().map(print_flow).collect();
        let only =
            |here: &BTreeSet<String>, there: &BTreeSet<String>| here.difference(there).cloned().collect();
        Ok((only(&present, &wanted), only(&wanted, &present)))
    }

    /// Takes out the rules whose time has come, and saves what has changed by itself.
    pub fn tend_rules(&mut self) {
        self.expire_rules();
        self.tend_stations();
        self.save_unsaved();
    }

    /// Takes out the rules whose time has come: by hand such are written and learned, in a
    /// controller's network only learned.
    pub(super) fn expire_rules(&mut self) {
        let mortal = |bridge: &&Bridge| bridge.tables.next_expiry().is_some();
        let mortal: Vec<_> = self.bridges.iter().filter(mortal).map(|bridge| bridge.id).collect();
        if mortal.is_empty() {
            return;
        }
        // When a rule was last used is what the caches have told.
        self.dataplane.flush_stats();
        let now = self.dataplane.now();
        for id in mortal {
            let expired = self.bridge_of(id).and_then(|bridge| bridge.tables.expire(now));
            if let Some(commit) = expired {
                self.note_commit(id, &commit);
                self.take_tables(id, commit);
            }
        }
    }
}
