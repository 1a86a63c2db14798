//! Capture files of the newer kind (pcapng): each frame with its port, its direction and a
//! comment. Written as they come, so that a reader at the other end of a pipe sees them at once.

use std::collections::BTreeMap;

/// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Says the byte order.
const ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
/// Options: of any block, of an interface, of a packet.
const COMMENT: u16 = 1;
const END: u16 = 0;
const INTERFACE_NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
const APPLICATION: u16 = 4;
/// Times are in nanoseconds, ten to the minus ninth.
const NANOSECONDS: u8 = 9;

/// Which way a frame goes, as the port sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the switch.
    In,
    /// Out of it.
    Out,
    /// Nowhere.
    Unknown,
}

/// A file that is being written.
#[derive(Debug, Default)]
pub struct Writer {
    /// Number of each port's interface in the file.
    interfaces: BTreeMap<String, u32>,
}

/// A frame to write.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Name of the port.
    pub port: &'a str,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Its bytes, or the first of them.
    pub bytes: &'a [u8],
    /// How many it has.
    pub len: u64,
    /// Which way.
    pub direction: Direction,
    /// What is to be said of it; empty: nothing.
    pub comment: &'a str,
}

impl Writer {
    /// What a file begins with.
    pub fn header() -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(ORDER.to_le_bytes());
        // Version 1.0, of unknown length.
        body.extend(1_u16.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, APPLICATION, b"vswitchctl");
        option(&mut body, END, b"");
        block(SECTION, &body)
    }

    /// The blocks of a frame: that of its port too, when it is the first of it.
    pub fn write(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let next = self.interfaces.len() as u32;
        let interface = *self.interfaces.entry(frame.port.to_owned()).or_insert_with(|| {
            bytes = interface(frame.port);
            next
        });
        let kept = frame.bytes.len() as u32;
        let len = u32::try_from(frame.len).unwrap_or(u32::MAX);
        let mut body = Vec::new();
        for word in [interface, (frame.time >> 32) as u32, frame.time as u32, kept, len] {
            body.extend(word.to_le_bytes());
        }
        padded(&mut body, frame.bytes);
        let direction: u32 = match frame.direction {
            Direction::Unknown => 0,
            Direction::In => 1,
            Direction::Out => 2,
        };
        option(&mut body, FLAGS, &direction.to_le_bytes());
        if !frame.comment.is_empty() {
            option(&mut body, COMMENT, frame.comment.as_bytes());
        }
        option(&mut body, END, b"");
        bytes.extend(block(PACKET, &body));
        bytes
    }
}

fn interface(name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(ETHERNET.to_le_bytes());
    body.extend([0; 2]);
    // Frames of any length.
    body.extend(0_u32.to_le_bytes());
    option(&mut body, INTERFACE_NAME, name.as_bytes());
    option(&mut body, RESOLUTION, &[NANOSECONDS]);
    option(&mut body, END, b"");
    block(INTERFACE, &body)
}

/// A block: its type, its length in front and behind.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() + 12) as u32;
    let mut bytes = Vec::with_capacity(body.len() + 12);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(body);
    bytes.extend(len.to_le_bytes());
    bytes
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(u16::MAX.into())];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

/// Bytes, filled up to a multiple of four.
fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.extend(std::iter::repeat_n(0, bytes.len().next_multiple_of(4) - bytes.len()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Types and bodies of the blocks.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let len = word(bytes, 4) as usize;
            assert_eq!((len % 4, word(bytes, len - 4) as usize), (0, len));
            blocks.push((word(bytes, 0), &bytes[8..len - 4]));
            bytes = &bytes[len..];
        }
        blocks
    }

    fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
        let mut options = Vec::new();
        loop {
            let (code, len) = (word(bytes, 0) as u16, (word(bytes, 0) >> 16) as usize);
            if code == END {
                assert_eq!((len, bytes.len()), (0, 4));
                return options;
            }
            options.push((code, &bytes[4..4 + len]));
            bytes = &bytes[4 + len.next_multiple_of(4)..];
        }
    }

    #[test]
    fn ports_are_interfaces_and_why_is_a_comment() {
        let mut writer = Writer::default();
        let mut file = Writer::header();
        let frame = |port, comment| Frame {
            port,
            time: 0x1_0000_0002,
            bytes: &[7; 61],
            len: 1500,
            direction: Direction::In,
            comment,
        };
        for frame in [frame("a", ""), frame("b", "dropped"), frame("a", "")] {
            file.extend(writer.write(&frame));
        }
        let blocks = blocks(&file);
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET]);
        assert_eq!(options(&blocks[3].1[8..]), [(INTERFACE_NAME, &b"b"[..]), (RESOLUTION, &[9][..])]);
        let packet = blocks[4].1;
        assert_eq!([0, 4, 8, 12, 16].map(|at| word(packet, at)), [1, 1, 2, 61, 1500]);
        assert_eq!(packet[20..81], [7; 61]);
        assert_eq!(options(&packet[84..]), [(FLAGS, &[1, 0, 0, 0][..]), (COMMENT, &b"dropped"[..])]);
    }

    proptest! {
        #[test]
        fn any_frame_is_whole_blocks(bytes in prop::collection::vec(any::<u8>(), 0..70), port in ".{0,20}", comment in ".{0,40}") {
            let frame = Frame { port: &port, time: 1, bytes: &bytes, len: 70, direction: Direction::Out, comment: &comment };
            let written = Writer::default().write(&frame);
            let blocks = blocks(&written);
            prop_assert_eq!(blocks.len(), 2);
            prop_assert_eq!(&blocks[1].1[20..20 + bytes.len()], &bytes[..]);
        }
    }
}
