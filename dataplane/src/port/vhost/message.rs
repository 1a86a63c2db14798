//! Messages of vhost-user: what the guest's side asks of us. Numbers and layouts are those of
//! the protocol's description in QEMU, `docs/interop/vhost-user.rst`. No message is longer than
//! [`MAX_PAYLOAD_LEN`] bytes, and all of its parts are numbers.

use super::fault::Fault;
use crate::sys::{guest_memory::RegionSpec, passed_files::MAX_FILES, vring::RingAddresses};

/// Bytes in front of each message.
pub(crate) const HEADER_LEN: usize = 12;
/// Longest message of those that we take.
pub(crate) const MAX_PAYLOAD_LEN: usize = 8 + MAX_FILES * REGION_LEN;
const REGION_LEN: usize = 32;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const IS_REPLY: u32 = 1 << 2;
const NEEDS_REPLY: u32 = 1 << 3;
/// In the number of a ring: there is no file.
const NO_FILE: u64 = 1 << 8;
const RING_MASK: u64 = 0xff;

/// What is in front of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u32,
    pub(crate) len: usize,
    /// The other side waits for an answer, whatever the message is.
    pub(crate) needs_reply: bool,
}

/// What is asked of us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemory(Vec<RegionSpec>),
    SetRingSize {
        ring: u64,
        size: u32,
    },
    SetRingAddresses {
        ring: u64,
        at: RingAddresses,
    },
    SetRingBase {
        ring: u64,
        base: u32,
    },
    GetRingBase {
        ring: u64,
    },
    /// By this the guest wakes us. Starts the ring.
    SetKick {
        ring: u64,
        has_file: bool,
    },
    /// By this we wake the guest.
    SetCall {
        ring: u64,
        has_file: bool,
    },
    /// By this we could tell of errors.
    SetError {
        ring: u64,
        has_file: bool,
    },
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNumber,
    SetRingEnabled {
        ring: u64,
        is_enabled: bool,
    },
    SetMtu(u64),
    ResetDevice,
}

impl Header {
    /// Of its bytes.
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Fault> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (kind, flags, len) = (word(0), word(4), word(8));
        if flags & VERSION_MASK != VERSION || flags & IS_REPLY != 0 {
            return Err(Fault::Version(flags));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_PAYLOAD_LEN {
            return Err(Fault::Length { kind, len });
        }
        Ok(Self { kind, len, needs_reply: flags & NEEDS_REPLY != 0 })
    }
}

/// Takes a message's integers off its front.
struct Reader<'a> {
    kind: u32,
    rest: &'a [u8],
    len: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (first, rest) =
            self.rest.split_first_chunk().ok_or(Fault::Length { kind: self.kind, len: self.len })?;
        self.rest = rest;
        Ok(*first)
    }

    fn word(&mut self) -> Result<u32, Fault> {
        self.take().map(u32::from_le_bytes)
    }

    fn long(&mut self) -> Result<u64, Fault> {
        self.take().map(u64::from_le_bytes)
    }

    /// A ring, and whether a file comes with it.
    fn ring(&mut self) -> Result<(u64, bool), Fault> {
        let raw = self.long()?;
        if raw & !(RING_MASK | NO_FILE) != 0 {
            return Err(Fault::NoRing(raw));
        }
        Ok((raw & RING_MASK, raw & NO_FILE == 0))
    }

    fn regions(&mut self) -> Result<Vec<RegionSpec>, Fault> {
        let n = self.word()? as usize;
        let _padding = self.word()?;
        if n > MAX_FILES {
            return Err(Fault::Length { kind: self.kind, len: self.len });
        }
        let region = |_| {
            let (guest_addr, len) = (self.long()?, self.long()?);
            let (user_addr, offset) = (self.long()?, self.long()?);
            Ok(RegionSpec { guest_addr, len, user_addr, offset })
        };
        (0..n).map(region).collect()
    }

    fn addresses(&mut self) -> Result<Request, Fault> {
        let (ring, _flags) = (self.word()?.into(), self.word()?);
        let (descriptors, used, available) = (self.long()?, self.long()?, self.long()?);
        Ok(Request::SetRingAddresses { ring, at: RingAddresses { descriptors, available, used } })
    }
}

impl Request {
    /// What a message says. Bytes behind what is known are none of ours to refuse.
    pub(crate) fn parse(kind: u32, payload: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader { kind, rest: payload, len: payload.len() };
        let mut file = |make: fn(u64, bool) -> Self| reader.ring().map(|(ring, has)| make(ring, has));
        Ok(match kind {
            1 => Self::GetFeatures,
            2 => Self::SetFeatures(reader.long()?),
            3 => Self::SetOwner,
            4 => Self::ResetOwner,
            5 => Self::SetMemory(reader.regions()?),
            8 => Self::SetRingSize { ring: reader.word()?.into(), size: reader.word()? },
            9 => reader.addresses()?,
            10 => Self::SetRingBase { ring: reader.word()?.into(), base: reader.word()? },
            11 => Self::GetRingBase { ring: reader.word()?.into() },
            12 => file(|ring, has_file| Self::SetKick { ring, has_file })?,
            13 => file(|ring, has_file| Self::SetCall { ring, has_file })?,
            14 => file(|ring, has_file| Self::SetError { ring, has_file })?,
            15 => Self::GetProtocolFeatures,
            16 => Self::SetProtocolFeatures(reader.long()?),
            17 => Self::GetQueueNumber,
            18 => Self::SetRingEnabled { ring: reader.word()?.into(), is_enabled: reader.word()? != 0 },
            20 => Self::SetMtu(reader.long()?),
            34 => Self::ResetDevice,
            _ => return Err(Fault::Unknown(kind)),
        })
    }

    /// How many files belong to it.
    pub(crate) fn n_files(&self) -> usize {
        match self {
            Self::SetMemory(regions) => regions.len(),
            Self::SetKick { has_file, .. }
            | Self::SetCall { has_file, .. }
            | Self::SetError { has_file, .. } => usize::from(*has_file),
            _ => 0,
        }
    }
}

/// What we answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A number that was asked for; of a message that only needs an answer: 0, it was done.
    Number(u64),
    /// Where a ring has been stopped.
    Base { ring: u32, base: u32 },
}

impl Reply {
    /// As bytes, to a message of this kind.
    pub(crate) fn bytes(&self, kind: u32) -> [u8; HEADER_LEN + 8] {
        let mut bytes = [0; HEADER_LEN + 8];
        let payload = match self {
            Self::Number(number) => *number,
            Self::Base { ring, base } => u64::from(*base) << 32 | u64::from(*ring),
        };
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&(VERSION | IS_REPLY).to_le_bytes());
        bytes[8..12].copy_from_slice(&8_u32.to_le_bytes());
        bytes[12..].copy_from_slice(&payload.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_is_refused_at_every_length() {
        for (kind, len) in
            [(2, 8), (5, 8 + 2 * 32), (8, 8), (9, 32), (10, 8), (11, 4), (12, 8), (16, 8), (18, 8), (20, 8)]
        {
            let mut payload = vec![0; len];
            payload[0] = 2;
            assert!(Request::parse(kind, &payload).is_ok(), "{kind}");
            for shorter in 0..len {
                assert!(Request::parse(kind, &payload[..shorter]).is_err(), "{kind}: {shorter}");
            }
        }
        for kind in [0, 6, 7, 19, 21, 33, 35, u32::MAX] {
            assert!(matches!(Request::parse(kind, &[0; 64]), Err(Fault::Unknown(_))));
        }
        assert!(Request::parse(5, &[9; MAX_PAYLOAD_LEN]).is_err());
        assert!(Request::parse(12, &[0, 2, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn parts_are_where_the_protocol_has_them() {
        let words: Vec<u8> = [7_u64 << 32 | 3, 0x1000, 0x2000, 0x3000, 0].map(u64::to_le_bytes).concat();
        let at = RingAddresses { descriptors: 0x1000, used: 0x2000, available: 0x3000 };
        assert_eq!(Request::parse(9, &words).unwrap(), Request::SetRingAddresses { ring: 3, at });
        assert_eq!(Request::parse(8, &words).unwrap(), Request::SetRingSize { ring: 3, size: 7 });
        let table = [1_u64, 0x10, 0x20, 0x30, 0x40].map(u64::to_le_bytes).concat();
        let region = RegionSpec { guest_addr: 0x10, len: 0x20, user_addr: 0x30, offset: 0x40 };
        assert_eq!(Request::parse(5, &table).unwrap(), Request::SetMemory(vec![region]));
        let kick = Request::parse(12, &0x102_u64.to_le_bytes()).unwrap();
        assert_eq!((&kick, kick.n_files()), (&Request::SetKick { ring: 2, has_file: false }, 0));
        let reply = Reply::Base { ring: 1, base: 0x55 }.bytes(11);
        assert_eq!(reply, [11, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0x55, 0, 0, 0]);
    }

    #[test]
    fn headers_of_other_protocols_are_refused() {
        let header = |flags: u8, len: u16| {
            let [a, b] = len.to_le_bytes();
            Header::parse(&[5, 0, 0, 0, flags, 0, 0, 0, a, b, 0, 0])
        };
        assert_eq!(header(9, 8).unwrap(), Header { kind: 5, len: 8, needs_reply: true });
        assert!(!header(1, 0).unwrap().needs_reply);
        assert!(header(0, 8).is_err() && header(2, 8).is_err() && header(5, 8).is_err());
        assert!(header(1, MAX_PAYLOAD_LEN as u16).is_ok());
        assert!(header(1, MAX_PAYLOAD_LEN as u16 + 1).is_err());
    }
}
