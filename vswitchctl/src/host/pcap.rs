//! Capture files of the classic kind (pcap-savefile(5)): frames of Ethernet, read in
//! either byte order, with times in micro- or nanoseconds; written with nanoseconds.

use std::{fs, path::Path};

use crate::error::CtlError;

/// Files from 32-bit clocks in microseconds, and in nanoseconds.
const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
/// Start of a pcapng file, the other kind.
const MAGIC_NG: u32 = 0x0a0d_0d0a;
const HEADER_LEN: usize = 24;
const RECORD_LEN: usize = 16;
/// Bits of the link type's word that say the type.
const LINK_TYPE: u32 = 0x0fff_ffff;
const ETHERNET: u32 = 1;
/// Largest file that is read.
const FILE_MAX: u64 = 1 << 30;
const NANOS: u64 = 1_000_000_000;

/// Why bytes are no capture file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PcapError {
    /// It is of the other kind.
    #[error("it is a pcapng file; make a classic one of it: editcap -F pcap FILE NEW")]
    NextGeneration,
    /// It is of no kind.
    #[error("it is not a capture file")]
    Magic,
    /// Its frames are not Ethernet's.
    #[error("its link type is {0}, not Ethernet (1)")]
    LinkType(u32),
    /// It ends within this frame.
    #[error("it ends within frame {0}")]
    Truncated(usize),
    /// A frame is not there as a whole.
    #[error("of frame {frame}, only {kept} of {len} bytes were captured; capture whole frames: tcpdump -s 0")]
    Cut {
        /// Which frame, from 1.
        frame: usize,
        /// Bytes that are there.
        kept: u32,
        /// Bytes that it had.
        len: u32,
    },
}

/// Reads the frames of a file.
///
/// # Errors
/// The file cannot be read, or is no capture of whole Ethernet frames.
pub fn read_file(file: &Path) -> Result<Vec<Vec<u8>>, CtlError> {
    let wrong = |reason: String| CtlError::File { file: file.display().to_string(), line: None, reason };
    let len = fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if len > FILE_MAX {
        return Err(wrong(format!("it has {len} bytes; at most {FILE_MAX} are read")));
    }
    let bytes = fs::read(file).map_err(|error| wrong(error.to_string()))?;
    parse(&bytes).map_err(|error| wrong(error.to_string()))
}

/// Writes frames, each with its time in nanoseconds.
///
/// # Errors
/// The file system's.
pub fn write_file<'a>(file: &Path, frames: impl Iterator<Item = (u64, &'a [u8])>) -> Result<(), CtlError> {
    fs::write(file, emit(frames)).map_err(|error| CtlError::File {
        file: file.display().to_string(),
        line: None,
        reason: error.to_string(),
    })
}

/// Reads the frames of a file's bytes.
///
/// # Errors
/// They are no capture of whole Ethernet frames.
pub fn parse(bytes: &[u8]) -> Result<Vec<Vec<u8>>, PcapError> {
    let header = bytes.get(..HEADER_LEN);
    let magic = |word: fn([u8; 4]) -> u32| word_at(bytes, 0, word);
    let word: fn([u8; 4]) -> u32 = match (magic(u32::from_le_bytes), magic(u32::from_be_bytes)) {
        (Some(MAGIC_MICROS | MAGIC_NANOS), _) => u32::from_le_bytes,
        (_, Some(MAGIC_MICROS | MAGIC_NANOS)) => u32::from_be_bytes,
        (Some(MAGIC_NG), _) => return Err(PcapError::NextGeneration),
        _ => return Err(PcapError::Magic),
    };
    let header = header.ok_or(PcapError::Magic)?;
    let link_type = word_at(header, 20, word).unwrap_or_default() & LINK_TYPE;
    if link_type != ETHERNET {
        return Err(PcapError::LinkType(link_type));
    }
    let mut rest = bytes.get(HEADER_LEN..).unwrap_or_default();
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let frame = frames.len() + 1;
        let (record, behind) = rest.split_at_checked(RECORD_LEN).ok_or(PcapError::Truncated(frame))?;
        let kept = word_at(record, 8, word).unwrap_or_default();
        let len = word_at(record, 12, word).unwrap_or_default();
        if kept < len {
            return Err(PcapError::Cut { frame, kept, len });
        }
        let (body, behind) = behind.split_at_checked(kept as usize).ok_or(PcapError::Truncated(frame))?;
        frames.push(body.to_vec());
        rest = behind;
    }
    Ok(frames)
}

fn word_at(bytes: &[u8], at: usize, word: fn([u8; 4]) -> u32) -> Option<u32> {
    Some(word(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn emit<'a>(frames: impl Iterator<Item = (u64, &'a [u8])>) -> Vec<u8> {
    let mut bytes = header();
    for (time, frame) in frames {
        bytes.extend(record(time, frame, frame.len() as u64));
    }
    bytes
}

/// What a file begins with.
pub fn header() -> Vec<u8> {
    // Version 2.4, no time zone, no accuracy, frames of up to 256 KiB.
    let header = [MAGIC_NANOS, 4 << 16 | 2, 0, 0, 256 << 10, ETHERNET];
    header.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A frame of `len` bytes, of which these are there, with its time in nanoseconds.
pub fn record(time: u64, frame: &[u8], len: u64) -> Vec<u8> {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let head = [(time / NANOS) as u32, (time % NANOS) as u32, frame.len() as u32, len];
    let mut bytes: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(frame);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same file as a machine of the other byte order writes it.
    fn swapped(frames: &[Vec<u8>], magic: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let words = [magic, 2 << 16 | 4, 0, 0, 65_535, ETHERNET];
        words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
        for frame in frames {
            let len = frame.len() as u32;
            [7, 8, len, len].iter().for_each(|word| bytes.extend(word.to_be_bytes()));
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    fn file(frames: &[Vec<u8>]) -> Vec<u8> {
        emit(frames.iter().map(|frame| (1_500_000_000, frame.as_slice())))
    }

    #[test]
    fn both_byte_orders_and_both_resolutions_are_read() {
        let frames = vec![vec![1; 60], vec![], vec![2; 1514]];
        assert_eq!(parse(&file(&frames)).unwrap(), frames);
        assert_eq!(parse(&swapped(&frames, MAGIC_MICROS)).unwrap(), frames);
        assert_eq!(parse(&swapped(&frames, MAGIC_NANOS)).unwrap(), frames);
    }

    #[test]
    fn what_is_no_whole_capture_is_refused() {
        let whole = file(&[vec![1; 60], vec![2; 60]]);
        for len in 0..whole.len() {
            let is_whole = len == HEADER_LEN || len == HEADER_LEN + RECORD_LEN + 60;
            assert_eq!(parse(&whole[..len]).is_ok(), is_whole, "{len} bytes");
        }
        let mut other = whole.clone();
        other[20] = 113;
        assert_eq!(parse(&other), Err(PcapError::LinkType(113)));
        let mut cut = whole.clone();
        cut[HEADER_LEN + 12] = 61;
        assert_eq!(parse(&cut), Err(PcapError::Cut { frame: 1, kept: 60, len: 61 }));
        assert_eq!(parse(&[0x0a, 0x0d, 0x0d, 0x0a, 0, 0]), Err(PcapError::NextGeneration));
    }

    proptest! {
        #[test]
        fn any_frames_come_back(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6)) {
            prop_assert_eq!(parse(&file(&frames)).unwrap(), frames);
        }

        #[test]
        fn any_bytes_are_a_file_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), header in any::<bool>()) {
            let bytes = if header { [file(&[]), bytes].concat() } else { bytes };
            let _ = parse(&bytes);
        }
    }
}
