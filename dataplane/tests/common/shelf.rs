//! A keeper in the same process.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Mutex,
};

use dataplane::{Keeper, Kept};

/// Holds files as another process would, for as many dataplanes as there are to come.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<BTreeMap<String, (String, Vec<OwnedFd>)>>);

impl Keeper for Shelf {
    fn take(&self, name: &str) -> Option<Kept> {
        let held = self.0.lock().unwrap();
        let (note, files) = held.get(name)?;
        let files = files.iter().map(|file| file.try_clone().unwrap()).collect();
        Some(Kept { note: note.clone(), files })
    }

    fn take_all(&self, prefix: &str) -> Vec<(String, Kept)> {
        let names: Vec<_> =
            self.0.lock().unwrap().keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.into_iter().filter_map(|name| self.take(&name).map(|kept| (name, kept))).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap().contains_key(name)
    }

    fn keep(&self, name: &str, note: &str, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let files = files.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<_>>()?;
        self.0.lock().unwrap().insert(name.to_owned(), (note.to_owned(), files));
        Ok(())
    }

    fn forget(&self, name: &str) {
        self.0.lock().unwrap().remove(name);
    }
}

impl Shelf {
    /// Names of what is held.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}
