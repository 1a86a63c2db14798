//! The list of ports: all of them in a file that is replaced as a whole, durably; and beside it a
//! journal of containers' ports that have come and gone since, so that one of them costs as much
//! where there are hundreds.
//!
//! Notes outlive the process, killed at any point. A loss of power can take the last ones back: it
//! takes the containers' interfaces, too. The journal begins with the sum of the list that it goes on
//! from; beside any other list it is left out.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use flowtable::crc32c;
use serde::{Deserialize, Serialize};

use super::{
    SavedPort, StateError,
    records::{RecordFile, records},
    replace,
};

/// File of the whole list.
pub(super) const WHOLE: &str = "ports.json";
/// The journal beside it.
const JOURNAL: &str = "ports.journal";

/// A port that has come or gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PortNote {
    /// It is there.
    Added(Box<SavedPort>),
    /// The one of this interface is not there any more.
    Removed(String),
}

/// What ports are saved by.
#[derive(Debug)]
pub struct PortsFile {
    /// `None`: nothing is kept.
    whole: Option<PathBuf>,
    journal: RecordFile,
    /// Nothing is noted: the list is whole.
    is_whole: bool,
}

impl PortsFile {
    /// The list in a directory. Where another run has noted changes that are all understood, notes go
    /// on behind them; else the list is saved as a whole first.
    pub(super) fn new(dir: Option<&Path>) -> Self {
        let journal = RecordFile::new(dir.unwrap_or(Path::new("")).join(JOURNAL));
        let mut file = Self { whole: dir.map(|dir| dir.join(WHOLE)), journal, is_whole: false };
        file.go_on();
        file
    }

    fn go_on(&mut self) {
        let Some(whole) = &self.whole else { return };
        let (Ok(whole), Ok(journal)) = (fs::read(whole), self.journal.read()) else { return };
        let (bodies, n_left) = records(&journal);
        let Some((sum, notes)) = bodies.split_first() else { return };
        let is_understood = |note: &&[u8]| serde_json::from_slice::<Vec<PortNote>>(note).is_ok();
        if n_left == 0 && is_of(sum, &whole) && notes.iter().all(is_understood) {
            self.is_whole = notes.is_empty();
            // What cannot be continued is begun anew.
            let _ = self.journal.resume(&journal);
        }
    }

    /// Changes can be noted; else the list is to be saved as a whole.
    pub fn takes_notes(&self) -> bool {
        self.whole.is_none() || self.journal.is_open()
    }

    /// It is time to save the list as a whole: nothing can be noted, or too much is.
    pub fn is_long(&self) -> bool {
        self.whole.is_some() && self.journal.is_long()
    }

    /// Nothing is noted that the list does not have.
    pub fn is_whole(&self) -> bool {
        self.whole.is_none() || self.is_whole
    }

    /// Saves the ports as a whole, durably.
    ///
    /// # Errors
    /// The file system's; then what was saved before is as it was.
    pub fn replace(&mut self, ports: &[SavedPort]) -> Result<(), StateError> {
        let Some(whole) = &self.whole else { return Ok(()) };
        let saved = serde_json::to_vec_pretty(ports).map_err(io::Error::other).and_then(|bytes| {
            replace(&whole.with_extension("json.new"), whole, &bytes)?;
            Ok(crc32c::of([bytes.as_slice()]))
        });
        let sum = saved.map_err(|source| failed(whole, source))?;
        if let Err(error) = self.journal.begin(&sum.to_le_bytes()) {
            // The one that is there is of another list. Until there is one, no notes are taken.
            self.journal = RecordFile::new(self.journal.path().to_owned());
            tracing::warn!(path = %self.journal.path().display(), %error, "changes of ports are saved as a whole");
        }
        self.is_whole = true;
        Ok(())
    }

    /// Notes what has come and gone.
    ///
    /// # Errors
    /// The file system's; then nothing is noted, and the list is to be saved as a whole.
    pub fn note(&mut self, notes: &[PortNote]) -> Result<(), StateError> {
        if self.whole.is_none() || notes.is_empty() {
            return Ok(());
        }
        self.is_whole = false;
        let noted = serde_json::to_vec(notes).map_err(io::Error::other);
        let noted = noted.and_then(|body| self.journal.append(&body, false));
        noted.map_err(|source| failed(self.journal.path(), source))
    }
}

fn failed(path: &Path, source: io::Error) -> StateError {
    StateError { action: "write", path: path.to_owned(), source }
}

/// A journal that begins like this is of a list of these bytes.
fn is_of(sum: &[u8], whole: &[u8]) -> bool {
    *sum == crc32c::of([whole]).to_le_bytes()
}

/// The list that the notes in a directory lead to, from the whole that is there, of these bytes.
pub(super) fn read_on(dir: &Path, whole: Vec<SavedPort>, bytes: &[u8]) -> Vec<SavedPort> {
    let path = dir.join(JOURNAL);
    let journal = match fs::read(&path) {
        Ok(journal) => journal,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return whole,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "containers' ports of the last run cannot be read");
            return whole;
        }
    };
    let (bodies, n_left) = records(&journal);
    let Some((sum, notes)) = bodies.split_first() else { return whole };
    if !is_of(sum, bytes) {
        return whole;
    }
    if n_left != 0 {
        tracing::warn!(path = %path.display(), n_bytes = n_left, "the end of the journal is damaged and left out");
    }
    let mut ports: BTreeMap<_, _> = whole.into_iter().map(|port| (port.interface.clone(), port)).collect();
    for note in notes {
        match serde_json::from_slice::<Vec<PortNote>>(note) {
            Ok(notes) => notes.into_iter().for_each(|note| match note {
                PortNote::Added(port) => drop(ports.insert(port.interface.clone(), *port)),
                PortNote::Removed(interface) => drop(ports.remove(&interface)),
            }),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a note is not understood; it and what follows is left out");
                break;
            }
        }
    }
    ports.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::{PortKind, PortSettings},
        state::StateDir,
    };

    fn port(number: u32) -> SavedPort {
        SavedPort {
            bridge: "br0".to_owned(),
            port: number,
            peer: None,
            interface: format!("veth{number}"),
            logical_port: format!("web-{number}"),
            network: String::new(),
            mtu: None,
            kind: PortKind::Auto,
            settings: PortSettings::default(),
        }
    }

    fn numbers(state: &StateDir) -> Vec<u32> {
        state.ports().iter().map(|port| port.port).collect()
    }

    #[test]
    fn notes_lead_on_from_the_whole_list_that_they_were_made_for() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut file = state.ports_file();
        assert!(!file.takes_notes(), "there is no list to go on from");
        file.replace(&[port(1), port(2)]).unwrap();
        file.note(&[PortNote::Added(Box::new(port(3))), PortNote::Removed("veth1".to_owned())]).unwrap();
        file.note(&[PortNote::Added(Box::new(SavedPort { port: 9, ..port(2) }))]).unwrap();
        assert_eq!(numbers(&state), [9, 3]);
        let mut later = state.ports_file();
        assert!(later.takes_notes() && !later.is_whole());
        later.note(&[PortNote::Added(Box::new(port(4)))]).unwrap();
        assert_eq!(numbers(&state), [9, 3, 4]);

        let journal = fs::read(dir.path().join(JOURNAL)).unwrap();
        file.replace(&[port(5)]).unwrap();
        assert_eq!(numbers(&state), [5]);
        // A crash came between the list and its journal.
        fs::write(dir.path().join(JOURNAL), journal).unwrap();
        assert_eq!(numbers(&state), [5]);
        assert!(!state.ports_file().takes_notes(), "the journal is of another list");
    }

    #[test]
    fn a_journal_cut_anywhere_is_as_good_as_the_notes_that_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut file = state.ports_file();
        file.replace(&[port(1)]).unwrap();
        let path = dir.path().join(JOURNAL);
        let mut ends = vec![fs::metadata(&path).unwrap().len()];
        for number in 2..5 {
            file.note(&[PortNote::Added(Box::new(port(number)))]).unwrap();
            ends.push(fs::metadata(&path).unwrap().len());
        }
        let whole = fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let n_notes = ends.iter().filter(|end| **end <= len as u64).count().saturating_sub(1);
            assert_eq!(numbers(&state).len(), 1 + n_notes, "{len}");
            assert_eq!(state.ports_file().takes_notes(), ends.contains(&(len as u64)), "{len}");
        }
    }

    #[test]
    fn a_note_that_cannot_be_written_has_the_list_saved_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state")).unwrap();
        let mut file = state.ports_file();
        file.replace(&[port(1)]).unwrap();
        fs::create_dir(dir.path().join("state").join("ports.new")).unwrap();
        file.replace(&[port(2)]).unwrap();
        assert!(!file.takes_notes(), "its journal cannot be begun");
        assert!(file.note(&[PortNote::Added(Box::new(port(3)))]).is_err());
        assert_eq!(numbers(&state), [2]);
    }
}
