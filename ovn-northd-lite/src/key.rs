//! Keys that name datapaths and ports in tunnels and metadata.

use std::fmt;

pub use flowtable::types::RangeError;

/// Key of a logical switch or router: 1 to 2^24-1, the VNI of its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatapathKey(u32);

impl DatapathKey {
    /// Checks the range.
    ///
    /// # Errors
    /// [`RangeError`] names the allowed range.
    pub const fn new(raw: u32) -> Result<Self, RangeError> {
        if raw == 0 || raw > 0xff_ffff {
            return Err(RangeError { what: "datapath key", value: raw as u64, min: 1, max: 0xff_ffff });
        }
        Ok(Self(raw))
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Key of a logical port (1 to 32767) or multicast group (32768 to 65535) within its
/// datapath.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey(u16);

impl PortKey {
    /// First key of a multicast group.
    pub const FIRST_GROUP: u16 = 0x8000;

    /// Checks the range.
    ///
    /// # Errors
    /// [`RangeError`] names the allowed range.
    pub const fn new(raw: u16) -> Result<Self, RangeError> {
        if raw == 0 {
            return Err(RangeError { what: "port key", value: 0, min: 1, max: 0xffff });
        }
        Ok(Self(raw))
    }

    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// It names a multicast group.
    pub const fn is_group(self) -> bool {
        self.0 >= Self::FIRST_GROUP
    }
}

impl fmt::Display for DatapathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// FNV-1a, folded: for numbers that must be the same on each run. Part of what outlives a
/// process: it must not change.
pub(crate) fn hash32(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ hash >> 32) as u32
}
