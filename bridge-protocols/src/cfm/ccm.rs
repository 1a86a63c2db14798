//! Continuity check messages: reading and writing (IEEE 802.1Q-2018 §21.6).

use std::time::Duration;

use flowtable::types::MacAddr;

use crate::wire::{ETHERNET_LEN, array, ethernet, mac_at, u16_at, u32_at};

/// Type of frames that watch over links.
pub const ETHER_TYPE: u16 = 0x8902;
/// Where ends of level 0 listen; the last bits are the level.
const ADDRESS: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0x30];
/// The highest level.
pub const MAX_LEVEL: u8 = 7;
const OPCODE_CCM: u8 = 1;
/// What comes before the first TLV, behind the common header.
const FIRST_TLV: u8 = 70;
/// Length of a message without TLVs.
const CCM_LEN: usize = 74;
/// The sender hears somebody not as it should.
const RDI: u8 = 0x80;
/// Length of the name of an association with that of its domain.
const MAID_LEN: usize = 48;
/// Both are strings of letters (§21.6.5.1, §21.6.5.4).
const DOMAIN_STRING: u8 = 4;
const ASSOCIATION_STRING: u8 = 2;

/// How often messages are sent (§21.6.1.3): those of the intervals that are not below 100 ms.
const INTERVALS: [(u8, u64); 5] = [(3, 100), (4, 1_000), (5, 10_000), (6, 60_000), (7, 600_000)];

/// The interval with a code, and the code of an interval.
fn interval_of(code: u8) -> Option<Duration> {
    INTERVALS.iter().find(|(known, _)| *known == code).map(|(_, millis)| Duration::from_millis(*millis))
}

/// The code of an interval; `None`: there is none.
pub fn interval_code(interval: Duration) -> Option<u8> {
    INTERVALS.iter().find(|(_, millis)| u128::from(*millis) == interval.as_millis()).map(|(code, _)| *code)
}

/// Name of an association within a domain: who has the same watch each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maid([u8; MAID_LEN]);

impl Maid {
    /// Of these names; `None`: one is empty, or they are too long together.
    pub fn new(domain: &str, association: &str) -> Option<Self> {
        let mut name = Vec::with_capacity(MAID_LEN);
        for (format, part) in [(DOMAIN_STRING, domain), (ASSOCIATION_STRING, association)] {
            let len = u8::try_from(part.len()).ok().filter(|len| *len > 0)?;
            name.extend([format, len]);
            name.extend(part.as_bytes());
        }
        let fits = name.len() <= MAID_LEN;
        name.resize(MAID_LEN, 0);
        fits.then(|| name.try_into().ok().map(Self)).flatten()
    }
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ccm {
    /// The sender's address.
    pub source: MacAddr,
    /// Level of the domain.
    pub level: u8,
    /// The sender hears somebody not as it should.
    pub rdi: bool,
    /// How often it is sent; `None`: more often than is understood here.
    pub interval: Option<Duration>,
    /// Counts the sender's messages.
    pub sequence: u32,
    /// Which end of the association the sender is.
    pub mpid: u16,
    /// The association.
    pub maid: Maid,
}

impl Ccm {
    /// Reads a frame without a tag. `None`: it is no such message, or damaged.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let to = mac_at(frame, 0)?.octets();
        let is_for_ends = to[..5] == ADDRESS[..5] && to[5] & !MAX_LEVEL == ADDRESS[5];
        if !is_for_ends || u16_at(frame, 12)? != ETHER_TYPE {
            return None;
        }
        let message = frame.get(ETHERNET_LEN..)?.get(..CCM_LEN)?;
        let [head, opcode, flags, first_tlv] = array(message, 0)?;
        let (version, mpid) = (head & 0x1f, u16_at(message, 8)?);
        if version != 0 || opcode != OPCODE_CCM || first_tlv < FIRST_TLV || !(1..=0x1fff).contains(&mpid) {
            return None;
        }
        Some(Self {
            source: mac_at(frame, 6)?,
            level: head >> 5,
            rdi: flags & RDI != 0,
            interval: interval_of(flags & 0x7),
            sequence: u32_at(message, 4)?,
            mpid,
            maid: Maid(array(message, 10)?),
        })
    }

    /// The frame that says so.
    pub fn to_frame(&self) -> Vec<u8> {
        let [.., last] = ADDRESS;
        let mut to = ADDRESS;
        to[5] = last | self.level & MAX_LEVEL;
        let mut frame = ethernet(MacAddr::new(to), self.source, ETHER_TYPE);
        let code = self.interval.and_then(interval_code).unwrap_or_default();
        let flags = code | if self.rdi { RDI } else { 0 };
        frame.extend([(self.level & MAX_LEVEL) << 5, OPCODE_CCM, flags, FIRST_TLV]);
        frame.extend(self.sequence.to_be_bytes());
        frame.extend(self.mpid.to_be_bytes());
        frame.extend(self.maid.0);
        // What ITU-T Y.1731 counts by, and the end of the TLVs.
        frame.resize(ETHERNET_LEN + CCM_LEN + 1, 0);
        frame
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            level in 0..8_u8, rdi: bool, code in 0..5_usize, sequence: u32, mpid in 1..0x2000_u16, source: [u8; 6],
            at in 0..88_usize, bit in 0..8_u8,
        ) {
            let maid = Maid::new("domain", "association").unwrap();
            let interval = Some(Duration::from_millis(INTERVALS[code].1));
            let ccm = Ccm { source: MacAddr::new(source), level, rdi, interval, sequence, mpid, maid };
            let frame = ccm.to_frame();
            prop_assert_eq!(Ccm::parse(&frame), Some(ccm));
            for end in 0..frame.len() - 1 {
                prop_assert_eq!(Ccm::parse(&frame[..end]), None);
            }
            let mut damaged = frame;
            damaged[at] ^= 1 << bit;
            let _ = Ccm::parse(&damaged);
        }

        #[test]
        fn noise_is_read_or_refused(noise in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Ccm::parse(&noise);
        }
    }

    #[test]
    fn names_have_their_places() {
        let Maid(bytes) = Maid::new("ovs", "ovs").unwrap();
        assert_eq!(bytes[..10], [4, 3, b'o', b'v', b's', 2, 3, b'o', b'v', b's']);
        assert_eq!(bytes[10..], [0; 38]);
        assert!(Maid::new("", "x").is_none() && Maid::new("x", "").is_none());
        assert!(Maid::new(&"x".repeat(22), &"y".repeat(22)).is_some());
        assert!(Maid::new(&"x".repeat(23), &"y".repeat(22)).is_none());
        assert!(Maid::new(&"x".repeat(300), "y").is_none());
        assert_eq!(interval_code(Duration::from_millis(100)), Some(3));
        assert_eq!(interval_code(Duration::from_millis(150)), None);
    }
}
