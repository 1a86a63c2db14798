//! Values that outlive the process, a file each.
//!
//! Files are replaced as a whole, so that a process that is killed leaves whole ones. Waiting until the
//! disk has a file takes milliseconds, and is only for what a loss of power must not take back: what the
//! network knows. Interfaces, and who had them, go with the power anyway.

use std::{
    collections::BTreeMap,
    fs, io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

/// Files that are written side by side: the disk takes those that come together at once.
const N_WRITERS: usize = 32;

use serde::{Serialize, de::DeserializeOwned};

use crate::state::replaced;

/// What is kept.
pub(super) trait Kept: Serialize + DeserializeOwned {
    /// What tells one from another.
    type Key: Ord + Clone;

    /// Which one it is.
    fn key(&self) -> &Self::Key;

    /// Its file, without the suffix.
    fn file(key: &Self::Key) -> String;

    /// A loss of power must not take back what is said of it.
    fn outlives_power(&self) -> bool {
        true
    }
}

/// All of a kind, in memory and in a directory.
#[derive(Debug)]
pub(super) struct Files<T: Kept> {
    /// `None`: nothing outlives the process.
    dir: Option<PathBuf>,
    values: BTreeMap<T::Key, T>,
    /// There are files that are not understood: of others, or of a later version.
    has_strange: bool,
}

impl<T: Kept> Files<T> {
    /// Reads what the last run left.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(super) fn open(dir: Option<&Path>) -> io::Result<Self> {
        let mut files = Self { dir: dir.map(Path::to_owned), values: BTreeMap::new(), has_strange: false };
        let Some(dir) = dir else { return Ok(files) };
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            match path.extension() {
                Some(extension) if extension == "json" => {}
                Some(extension) if extension == "new" && !path.with_extension("").exists() => {
                    // Of one that was just removed.
                    fs::remove_file(&path)?;
                    continue;
                }
                _ => continue,
            }
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot be read; left out");
                    files.has_strange = true;
                    continue;
                }
            };
            match serde_json::from_slice::<T>(&bytes) {
                Ok(value) => files.set(value),
                // The disk never had more of it.
                Err(_) if bytes.iter().all(|byte| *byte == 0) => {
                    tracing::warn!(path = %path.display(), "lost with the power; removed");
                    replaced::remove(&path)?;
                }
                // Replaced as a whole, a file is whole; this one was written by others.
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "not ours; left out");
                    files.has_strange = true;
                }
            }
        }
        Ok(files)
    }

    /// Some files were not understood: what they say is there, and not known here.
    pub(super) fn has_strange(&self) -> bool {
        self.has_strange
    }

    /// One of them.
    pub(super) fn get(&self, key: &T::Key) -> Option<&T> {
        self.values.get(key)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.values()
    }

    /// Keeps a value as it is now.
    ///
    /// # Errors
    /// The file system's; then the old one is kept.
    pub(super) fn put(&mut self, value: T) -> io::Result<()> {
        let is_durable = value.outlives_power();
        self.write(value, is_durable)
    }

    /// The same, where a loss of power may take it back.
    ///
    /// # Errors
    /// The file system's; then the old one is kept.
    pub(super) fn put_lightly(&mut self, value: T) -> io::Result<()> {
        self.write(value, false)
    }

    fn write(&mut self, value: T, is_durable: bool) -> io::Result<()> {
        if let Some(path) = self.path(value.key()) {
            write(&path, &value, is_durable)?;
        }
        self.set(value);
        Ok(())
    }

    /// Takes over a value that has been written.
    pub(super) fn set(&mut self, value: T) {
        self.values.insert(value.key().clone(), value);
    }

    /// Writes several values, without anybody waiting for these.
    pub(super) fn writer(&self) -> Writer<T> {
        Writer { dir: self.dir.clone(), kind: PhantomData }
    }

    /// Forgets a value.
    ///
    /// # Errors
    /// The file system's; then it is kept.
    pub(super) fn remove(&mut self, key: &T::Key) -> io::Result<()> {
        if let Some(path) = self.path(key) {
            replaced::remove(&path)?;
        }
        self.values.remove(key);
        Ok(())
    }

    fn path(&self, key: &T::Key) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| path::<T>(dir, key))
    }
}

/// Writes values of a kind that nobody else writes meanwhile.
#[derive(Debug)]
pub(super) struct Writer<T> {
    dir: Option<PathBuf>,
    kind: PhantomData<fn(T)>,
}

impl<T: Kept + Sync> Writer<T> {
    /// Writes them, durably; who has called takes them over ([`Files::set`]).
    ///
    /// # Errors
    /// The file system's; then some may be written.
    pub(super) fn write(&self, values: &[T]) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let write_some =
            |some: &[T]| some.iter().try_for_each(|value| write(&path::<T>(dir, value.key()), value, true));
        std::thread::scope(|scope| {
            let parts = values.chunks(values.len().div_ceil(N_WRITERS).max(1));
            let writers: Vec<_> = parts.map(|part| scope.spawn(move || write_some(part))).collect();
            let written = writers.into_iter().map(|writer| {
                writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer has panicked")))
            });
            written.collect()
        })
    }
}

fn path<T: Kept>(dir: &Path, key: &T::Key) -> PathBuf {
    dir.join(format!("{}.json", T::file(key)))
}

fn write<T: Serialize>(path: &Path, value: &T, is_durable: bool) -> io::Result<()> {
    replaced::replace(path, &serde_json::to_vec_pretty(value)?, is_durable)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Value(String, u32);

    impl Kept for Value {
        type Key = String;

        fn key(&self) -> &String {
            &self.0
        }

        fn file(key: &String) -> String {
            key.clone()
        }
    }

    #[test]
    fn what_was_written_is_there_again_however_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::open(Some(dir.path())).unwrap();
        let many: Vec<_> = (0..100).map(|n| Value(format!("v{n}"), n)).collect();
        files.writer().write(&many).unwrap();
        assert_eq!(files.iter().count(), 0, "who has called takes them over");
        many.iter().cloned().for_each(|value| files.set(value));
        files.put_lightly(Value("v1".to_owned(), 7)).unwrap();
        files.put(Value("more".to_owned(), 8)).unwrap();
        files.remove(&"v2".to_owned()).unwrap();
        let again: Files<Value> = Files::open(Some(dir.path())).unwrap();
        assert!(again.iter().eq(files.iter()));
        assert_eq!((again.iter().count(), again.get(&"v1".to_owned()).map(|value| value.1)), (100, Some(7)));
    }

    #[test]
    fn what_was_lost_with_the_power_is_removed_and_what_others_wrote_is_left() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [("empty", &b""[..]), ("zeros", &[0; 9]), ("others", b"{}")] {
            fs::write(dir.path().join(format!("{name}.json")), bytes).unwrap();
        }
        fs::write(dir.path().join("gone.json.new"), "{").unwrap();
        assert_eq!(Files::<Value>::open(Some(dir.path())).unwrap().iter().count(), 0);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["others.json"]);
    }
}
