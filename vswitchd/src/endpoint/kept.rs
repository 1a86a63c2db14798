//! Values that outlive the process, a file each.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

/// What is kept.
pub(super) trait Kept: Serialize + DeserializeOwned {
    /// What tells one from another.
    type Key: Ord + Clone;

    /// Which one it is.
    fn key(&self) -> &Self::Key;

    /// Its file, without the suffix.
    fn file(key: &Self::Key) -> String;
}

/// All of a kind, in memory and in a directory.
#[derive(Debug)]
pub(super) struct Files<T: Kept> {
    /// `None`: nothing outlives the process.
    dir: Option<PathBuf>,
    values: BTreeMap<T::Key, T>,
}

impl<T: Kept> Files<T> {
    /// Reads what the last run left.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(super) fn open(dir: Option<&Path>) -> io::Result<Self> {
        let Some(dir) = dir else { return Ok(Self { dir: None, values: BTreeMap::new() }) };
        fs::create_dir_all(dir)?;
        let mut values = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice::<T>(&bytes).map_err(|error| error.to_string()))
            {
                Ok(value) => {
                    values.insert(value.key().clone(), value);
                }
                // Replaced by a rename, a file is whole; this one was written by others.
                Err(error) => tracing::error!(path = %path.display(), error, "not ours; left out"),
            }
        }
        Ok(Self { dir: Some(dir.to_owned()), values })
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
        if let Some(path) = self.path(value.key()) {
            let new = path.with_extension("new");
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(&value)?)?;
            file.sync_data()?;
            fs::rename(&new, &path)?;
        }
        self.values.insert(value.key().clone(), value);
        Ok(())
    }

    /// Forgets a value.
    ///
    /// # Errors
    /// The file system's; then it is kept.
    pub(super) fn remove(&mut self, key: &T::Key) -> io::Result<()> {
        if let Some(path) = self.path(key) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.values.remove(key);
        Ok(())
    }

    fn path(&self, key: &T::Key) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(format!("{}.json", T::file(key))))
    }
}
