//! Who names which load balancers and groups, to find those that a change concerns.

use std::collections::{BTreeMap, BTreeSet};

/// Who names what, both ways.
#[derive(Debug, Clone, Default)]
pub(super) struct References {
    named: BTreeMap<String, BTreeSet<String>>,
    users: BTreeMap<String, BTreeSet<String>>,
}

impl References {
    /// Replaces what a user names.
    pub(super) fn set(&mut self, user: &str, names: BTreeSet<String>) {
        let old = self.named.remove(user).unwrap_or_default();
        for name in old.difference(&names) {
            if let Some(users) = self.users.get_mut(name) {
                users.remove(user);
                if users.is_empty() {
                    self.users.remove(name);
                }
            }
        }
        for name in names.difference(&old) {
            self.users.entry(name.clone()).or_default().insert(user.to_owned());
        }
        if !names.is_empty() {
            self.named.insert(user.to_owned(), names);
        }
    }

    /// What a user names.
    pub(super) fn by(&self, user: &str) -> Option<&BTreeSet<String>> {
        self.named.get(user)
    }

    /// Who names it.
    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = &String> {
        self.users.get(name).into_iter().flatten()
    }
}
