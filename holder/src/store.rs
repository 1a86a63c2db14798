//! What is held.

use std::{collections::BTreeMap, os::fd::OwnedFd};

/// Most names.
const MAX_ENTRIES: usize = 16_384;
/// Names of memory begin like this; the rest are ports.
const MEMORY: &str = "memory/";

/// Files with a note.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) note: String,
    pub(crate) files: Vec<OwnedFd>,
}

/// What is held, by name.
#[derive(Debug, Default)]
pub(crate) struct Store(BTreeMap<String, Entry>);

impl Store {
    /// Holds files instead of what had the name before.
    ///
    /// # Errors
    /// There is no room for another name.
    pub(crate) fn keep(&mut self, name: String, entry: Entry) -> Result<(), String> {
        if self.0.len() >= MAX_ENTRIES && !self.0.contains_key(&name) {
            return Err(format!("{name} is not held: {MAX_ENTRIES} names are"));
        }
        self.0.insert(name, entry);
        Ok(())
    }

    pub(crate) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Closes memory, and leaves ports as they are.
    pub(crate) fn forget_memory(&mut self) {
        self.0.retain(|name, _| !name.starts_with(MEMORY));
    }

    pub(crate) fn forget_all(&mut self) {
        self.0.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { note: String::new(), files: Vec::new() }
    }

    #[test]
    fn there_is_room_for_so_many_names() {
        let mut store = Store::default();
        for n in 0..MAX_ENTRIES {
            store.keep(format!("port/{n}"), entry()).unwrap();
        }
        assert!(store.keep("port/x".to_owned(), entry()).is_err());
        store.keep("port/7".to_owned(), entry()).unwrap();
        store.forget("port/7");
        store.keep("memory/x".to_owned(), entry()).unwrap();
        store.forget_memory();
        assert_eq!(store.len(), MAX_ENTRIES - 1);
        store.forget_all();
        assert_eq!(store.len(), 0);
    }
}
