//! Values by their keys, a file each, so that they outlive the process.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Values, in memory and in a directory.
#[derive(Debug)]
pub struct Saved<T> {
    dir: PathBuf,
    values: BTreeMap<String, T>,
}

/// What a file holds.
#[derive(Serialize, Deserialize)]
struct Entry<T> {
    key: String,
    value: T,
}

impl<T: Serialize + DeserializeOwned> Saved<T> {
    /// Reads what the last run left.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut values = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            // Replaced by a rename, a file is whole; one that is not was written by others.
            match serde_json::from_slice::<Entry<T>>(&fs::read(&path)?) {
                Ok(entry) => {
                    values.insert(entry.key, entry.value);
                }
                Err(error) => tracing::error!(path = %path.display(), %error, "not ours; left out"),
            }
        }
        Ok(Self { dir: dir.to_owned(), values })
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.values.get(key)
    }

    /// All of them, by their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Keeps a value.
    ///
    /// # Errors
    /// The file system's; then the old one is kept.
    pub fn put(&mut self, key: &str, value: T) -> io::Result<()> {
        let path = self.path(key);
        let new = path.with_extension("new");
        let entry = Entry { key: key.to_owned(), value };
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(&entry)?)?;
        file.sync_data()?;
        fs::rename(&new, &path)?;
        self.values.insert(entry.key, entry.value);
        Ok(())
    }

    /// Changes a value that is there.
    ///
    /// # Errors
    /// The file system's; then it is as before.
    pub fn change<R>(&mut self, key: &str, change: impl FnOnce(&mut T) -> R) -> io::Result<Option<R>>
    where
        T: Clone,
    {
        let Some(mut value) = self.get(key).cloned() else { return Ok(None) };
        let result = change(&mut value);
        self.put(key, value)?;
        Ok(Some(result))
    }

    /// Forgets a value.
    ///
    /// # Errors
    /// The file system's; then it is kept.
    pub fn remove(&mut self, key: &str) -> io::Result<Option<T>> {
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(self.values.remove(key))
    }

    /// A file's name for a key: what is not safe in one is written as its number.
    fn path(&self, key: &str) -> PathBuf {
        let name: String = key
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
                other => format!("_{other:02x}"),
            })
            .collect();
        self.dir.join(format!("{name}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outlive_the_process_and_rubbish_stays_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut saved = Saved::open(dir.path()).unwrap();
        saved.put("10.0.0.0/24", 1_u32).unwrap();
        saved.put("10.0.0.0_24", 2).unwrap();
        saved.put("../../etc", 3).unwrap();
        saved.put("gone", 4).unwrap();
        assert_eq!(saved.remove("gone").unwrap(), Some(4));
        assert_eq!(saved.remove("gone").unwrap(), None);
        assert_eq!(saved.change("10.0.0.0/24", |value| *value += 10).unwrap(), Some(()));
        assert_eq!(saved.change("nobody", |value| *value += 10).unwrap(), None);
        fs::write(dir.path().join("rubbish.json"), "{").unwrap();
        let again = Saved::<u32>::open(dir.path()).unwrap();
        let values: Vec<_> = again.iter().collect();
        assert_eq!(values, [("../../etc", &3), ("10.0.0.0/24", &11), ("10.0.0.0_24", &2)]);
    }
}
