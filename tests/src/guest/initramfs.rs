//! A file system that a kernel starts from, as it wants it: one file after the other behind headers of numbers in
//! hexadecimal (the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`, "newc").

use std::collections::BTreeSet;

/// One being written.
#[derive(Debug, Default)]
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    n_files: u32,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

impl Initramfs {
    /// Adds a program, or a file that might be one.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.folders_of(path);
        self.entry(path, PROGRAM, content);
    }

    /// Adds another name of something.
    pub(super) fn link(&mut self, path: &str, to: &str) {
        self.folders_of(path);
        self.entry(path, LINK, to.as_bytes());
    }

    /// Adds a folder.
    pub(super) fn folder(&mut self, path: &str) {
        self.folders_of(path);
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, &[]);
        }
    }

    /// All of it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn folders_of(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            if self.folders.insert(path[..at].to_owned()) {
                self.entry(&path[..at], FOLDER, &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.n_files += 1;
        let (name_len, len) = (path.len() as u32 + 1, content.len() as u32);
        let numbers = [self.n_files, mode, 0, 0, 1, 0, len, 0, 0, 0, 0, name_len, 0];
        self.bytes.extend(b"070701");
        numbers.iter().for_each(|number| self.bytes.extend(format!("{number:08x}").bytes()));
        self.bytes.extend(path.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
