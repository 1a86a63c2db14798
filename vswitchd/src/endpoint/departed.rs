//! What shims leave to do while this daemon is not there: a container that ends must not
//! wait for it, so the shim puts the endpoint's key into a directory, a file each.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::EndpointKey;

/// What the directory's name has more than that of the daemon's socket.
const SUFFIX: &str = ".departed";
/// Largest file that is read: a key is less.
const MAX_LEN: u64 = 4096;

/// The directory that belongs to a daemon's socket.
pub fn departed_dir(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// The keys in the directory, taken out of it.
pub(super) fn take(dir: &Path) -> Vec<EndpointKey> {
    // No directory: no shim has ever found this daemon missing.
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut keys = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        // Files are renamed to this when they are whole.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read(&path) {
            Ok(key) => keys.push(key),
            Err(error) => tracing::error!(path = %path.display(), %error, "not what a shim left; removed"),
        }
        if let Err(error) = fs::remove_file(&path) {
            tracing::error!(path = %path.display(), %error, "cannot be removed");
        }
    }
    keys
}

/// Leaves a key for the next time.
pub(super) fn put_back(dir: &Path, key: &EndpointKey) {
    let path = dir.join(format!("{:016x}.json", key.stable_hash()));
    let written = serde_json::to_vec(key).map_err(io::Error::from).and_then(|bytes| fs::write(&path, bytes));
    if let Err(error) = written {
        tracing::error!(path = %path.display(), %error, "cannot be written");
    }
}

fn read(path: &Path) -> io::Result<EndpointKey> {
    if fs::symlink_metadata(path)?.len() > MAX_LEN {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    let key: EndpointKey = serde_json::from_slice(&fs::read(path)?)?;
    key.check().map_err(io::Error::other)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_once_and_rubbish_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let key = EndpointKey { network: "pods".into(), container: "0a1b".into(), interface: "eth0".into() };
        put_back(dir.path(), &key);
        fs::write(dir.path().join("rubbish.json"), "{").unwrap();
        fs::write(dir.path().join("huge.json"), vec![b' '; 5000]).unwrap();
        fs::write(dir.path().join("half.new"), "{").unwrap();
        assert_eq!(take(dir.path()), [key]);
        assert_eq!(take(dir.path()), []);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
