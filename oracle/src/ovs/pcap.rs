//! Reads a capture file that is still being written.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result, ensure};

/// Bytes before the first packet.
const FILE_HEADER: usize = 24;
/// Bytes before each packet.
const PACKET_HEADER: usize = 16;
/// "The numbers are in this machine's order."
const MAGIC: u32 = 0xa1b2_c3d4;

/// A capture file and how far it has been read.
#[derive(Debug)]
pub struct Capture {
    file: File,
    /// Read, and not yet taken.
    bytes: Vec<u8>,
    header_seen: bool,
}

impl Capture {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file, bytes: Vec::new(), header_seen: false })
    }

    /// The frames that have come since the last time.
    ///
    /// # Errors
    /// When the file is not a capture.
    pub fn new_frames(&mut self) -> Result<Vec<Vec<u8>>> {
        self.file.read_to_end(&mut self.bytes)?;
        let mut at = 0;
        if !self.header_seen && self.bytes.len() >= FILE_HEADER {
            ensure!(number(&self.bytes, 0) == Some(MAGIC), "not a capture of this machine");
            self.header_seen = true;
            at = FILE_HEADER;
        }
        let mut frames = Vec::new();
        while self.header_seen
            && let Some(len) = number(&self.bytes, at + 8)
            && let Some(frame) = self.bytes.get(at + PACKET_HEADER..at + PACKET_HEADER + len as usize)
        {
            frames.push(frame.to_vec());
            at += PACKET_HEADER + frame.len();
        }
        self.bytes.drain(..at);
        Ok(frames)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}
