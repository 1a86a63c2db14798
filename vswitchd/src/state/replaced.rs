//! Files that are replaced as a whole: whoever reads one, also after a kill, finds the one before or the new one.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

/// Replaces a file whose name is durable already, or need not be.
///
/// What is written anew is the file that was replaced the last time (`spare`), and not one that is made for it: of many
/// files that were deleted a moment ago, ext4 looks at each before it makes another.
///
/// # Errors
/// The file system's; then the old one is there.
pub(crate) fn replace(path: &Path, bytes: &[u8], is_durable: bool) -> io::Result<()> {
    let spare = spare(path);
    let mut file = fs::File::create(&spare)?;
    file.write_all(bytes)?;
    if is_durable {
        file.sync_data()?;
    }
    drop(file);
    match renameat2(AT_FDCWD, &spare, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => Ok(()),
        // There is none yet, or the file system exchanges none.
        Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS) => fs::rename(&spare, path),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes such a file; there may be none.
///
/// # Errors
/// The file system's; then it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for path in [path, &spare(path)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What was in the place of a file before, to be written over.
pub(crate) fn spare(path: &Path) -> PathBuf {
    let mut spare = path.as_os_str().to_owned();
    spare.push(".new");
    spare.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_written_over_while_the_other_one_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value.json");
        for (n, text) in ["first", "the second", "3"].into_iter().enumerate() {
            replace(&path, text.as_bytes(), n == 1).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(spare(&path)).unwrap(), "the second");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
