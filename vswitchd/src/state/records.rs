//! A file of records that grows at its end. A record is its length, the CRC-32C of its bytes,
//! and the bytes. What is not whole at the end of a file, because its writer was killed, is
//! left out, and cut off before anything is appended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use flowtable::crc32c;

use super::replace;

/// Length and checksum in front of a record.
const HEADER_LEN: usize = 8;
/// What is appended may be this many times as long as the first record.
const MAX_GROWTH: u64 = 2;
/// Below this, a file is never long.
const MIN_LONG: u64 = 1 << 20;

/// The file.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
    /// Open to append to; `None`: what it ends with is not known, and it has to be written anew.
    file: Option<File>,
    first_len: u64,
    len: u64,
}

impl RecordFile {
    /// A file that is not read yet, and may not be there.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, first_len: 0, len: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's bytes; none when it is not there.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    /// Goes on at the end of the whole records of a file that was read; what is behind them
    /// is cut off.
    pub(super) fn resume(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (records, n_left) = records(bytes);
        let Some(first) = records.first() else { return Ok(()) };
        let len = (bytes.len() - n_left) as u64;
        let file = OpenOptions::new().append(true).open(&self.path)?;
        if n_left != 0 {
            file.set_len(len)?;
            file.sync_all()?;
        }
        self.first_len = (HEADER_LEN + first.len()) as u64;
        (self.len, self.file) = (len, Some(file));
        Ok(())
    }

    /// It can be appended to.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// What was appended has outgrown the first record, or there is none yet.
    pub(super) fn is_long(&self) -> bool {
        self.file.is_none() || self.len > MIN_LONG.max(self.first_len * MAX_GROWTH)
    }

    /// Starts anew with one record, durably; with an error, the file is as it was.
    pub(super) fn replace(&mut self, body: &[u8]) -> io::Result<()> {
        let bytes = framed(body);
        let fresh = self.path.with_extension("new");
        replace(&fresh, &self.path, &bytes)?;
        self.go_on_behind(bytes.len())
    }

    /// Opens the file to append to it, behind its first record of that length.
    fn go_on_behind(&mut self, first_len: usize) -> io::Result<()> {
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.first_len = first_len as u64;
        self.len = self.first_len;
        Ok(())
    }

    /// Starts anew with one record, which a loss of power may take back, and with it all of the
    /// file; with an error, the file is as it was.
    pub(super) fn begin(&mut self, body: &[u8]) -> io::Result<()> {
        let bytes = framed(body);
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, &bytes)?;
        fs::rename(&fresh, &self.path)?;
        self.go_on_behind(bytes.len())
    }

    /// Adds a record; `durably`: one that a loss of power does not take back. With an error,
    /// the file has to be written anew.
    pub(super) fn append(&mut self, body: &[u8], durably: bool) -> io::Result<()> {
        let bytes = framed(body);
        // What follows a torn record would never be read: it is open again when all is well.
        let mut file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(&bytes)?;
        if durably {
            file.sync_data()?;
        }
        self.len += bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(crc32c::of([body]).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// The records that are whole, in order, and how many bytes behind them are not.
pub(super) fn records(bytes: &[u8]) -> (Vec<&[u8]>, usize) {
    let (mut rest, mut bodies) = (bytes, Vec::new());
    while let Some((body, after)) = record(rest) {
        bodies.push(body);
        rest = after;
    }
    (bodies, rest.len())
}

/// The first record and what follows it; `None` when it is not whole.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    // A file system may leave zeros behind: an empty record has the sum of nothing.
    let is_whole = !body.is_empty() && crc32c::of([body]) == u32::from_le_bytes(*sum);
    is_whole.then_some((body, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_cut_anywhere_goes_on_behind_what_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.journal");
        let mut file = RecordFile::new(path.clone());
        assert!(file.is_long() && file.append(b"early", true).is_err());
        file.replace(b"whole").unwrap();
        file.append(b"one", true).unwrap();
        file.append(b"two and more", false).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let mut file = RecordFile::new(path.clone());
            let bytes = file.read().unwrap();
            file.resume(&bytes).unwrap();
            let before: Vec<Vec<u8>> = records(&bytes).0.into_iter().map(<[u8]>::to_vec).collect();
            if before.is_empty() {
                assert!(file.is_long(), "{len}");
                continue;
            }
            file.append(b"later", true).unwrap();
            let bytes = fs::read(&path).unwrap();
            let (after, n_left) = records(&bytes);
            assert_eq!((after.len(), n_left), (before.len() + 1, 0), "{len}");
            assert!(after.iter().zip(&before).all(|(a, b)| a == b) && after.ends_with(&[b"later"]), "{len}");
        }
    }

    proptest! {
        #[test]
        fn whatever_bytes_there_are_some_are_records_and_the_rest_is_counted(
            bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let (bodies, n_left) = records(&bytes);
            let n_whole: usize = bodies.iter().map(|body| HEADER_LEN + body.len()).sum();
            prop_assert_eq!(n_whole + n_left, bytes.len());
        }
    }
}
