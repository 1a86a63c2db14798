//! The small types that every border of the switch speaks: numbers with a
//! meaning, a range and a textual form.

use std::{fmt, str::FromStr, time::Duration};

/// A number was outside the range of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {min} to {max}, not {value}")]
pub struct RangeError {
    /// Name of the type.
    pub what: &'static str,
    /// The refused value.
    pub value: u64,
    /// Smallest allowed value.
    pub min: u64,
    /// Largest allowed value.
    pub max: u64,
}

/// Declares a number with a name, a range and a doc: `new` checks, `get` reads.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($raw:ty), $what:literal, $min:expr, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($raw);

        impl $name {
            /// Checks the range.
            ///
            /// # Errors
            /// [`RangeError`] names the allowed range.
            #[allow(clippy::absurd_extreme_comparisons, unused_comparisons)]
            pub const fn new(raw: $raw) -> Result<Self, RangeError> {
                if raw < $min || raw > $max {
                    return Err(RangeError {
                        what: $what,
                        value: raw as u64,
                        min: $min as u64,
                        max: $max as u64,
                    });
                }
                Ok(Self(raw))
            }

            /// The number itself.
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A port of the datapath. Numbers from `0xfff7` to `0xffff` have the meaning
    /// OpenFlow gives them (OpenFlow 1.5 §7.2.1); real ports are 1 to `0xfeff`, tunnel
    /// and internal ports included.
    PortNo(u32), "port number", 0, 0xffff
}

impl PortNo {
    /// Not a port: "came from nowhere".
    pub const ZERO: Self = Self(0);
    /// The action set has no output.
    pub const UNSET: Self = Self(0xfff7);
    /// Back out of the port the packet came in by.
    pub const IN_PORT: Self = Self(0xfff8);
    /// Start again at the first table (packet-out only).
    pub const TABLE: Self = Self(0xfff9);
    /// Forward like a learning switch.
    pub const NORMAL: Self = Self(0xfffa);
    /// All ports but those with flooding disabled and the input port.
    pub const FLOOD: Self = Self(0xfffb);
    /// All ports but the input port.
    pub const ALL: Self = Self(0xfffc);
    /// The controller.
    pub const CONTROLLER: Self = Self(0xfffd);
    /// The bridge's internal port.
    pub const LOCAL: Self = Self(0xfffe);
    /// No port.
    pub const NONE: Self = Self(0xffff);
    /// Largest number a real port can have.
    pub const MAX_REAL: u32 = 0xfeff;

    /// A real port, one that frames can be sent to.
    pub const fn is_real(self) -> bool {
        self.0 != 0 && self.0 <= Self::MAX_REAL
    }
}

number! {
    /// A flow table, 0 to 254 (OpenFlow 1.5 §5.1: 255 means "all").
    TableId(u8), "table", 0, 254
}
number! {
    /// VLAN identifier, 0 to 4095 (IEEE 802.1Q §9.6); 0 is a priority tag.
    VlanId(u16), "VLAN id", 0, 4095
}
number! {
    /// VXLAN or Geneve network identifier, 24 bits (RFC 7348 §5, RFC 8926 §3.4).
    Vni(u32), "VNI", 0, 0xff_ffff
}
number! {
    /// Name space of tracked connections.
    ZoneId(u16), "conntrack zone", 0, 0xffff
}
number! {
    /// Precedence of a rule within its table; the highest matching one wins.
    Priority(u16), "priority", 0, 0xffff
}
number! {
    /// A group of buckets (OpenFlow 1.5 §6.7: numbers above are reserved).
    GroupId(u32), "group", 0, 0xffff_ff00
}
number! {
    /// A bucket of a group.
    BucketId(u32), "bucket", 0, 0xffff_ff00
}
number! {
    /// A meter (OpenFlow 1.5 §6.8: 0 is none, numbers above are reserved).
    MeterId(u32), "meter", 1, 0xffff_0000
}
number! {
    /// A bridge: one of the switches that a host has, each with ports, tables and stations
    /// of its own.
    BridgeId(u16), "bridge", 0, 63
}
number! {
    /// Version of the rule set. A commit makes the next one visible as a whole.
    Epoch(u64), "epoch", 0, u64::MAX
}

impl VlanId {
    /// No VLAN.
    pub const NONE: Self = Self(0);
}

impl BucketId {
    /// The number of the first bucket.
    pub const FIRST: Self = Self(0);
}

impl TableId {
    /// The table where each packet starts.
    pub const FIRST: Self = Self(0);
    /// The one behind it.
    pub const SECOND: Self = Self(1);
}

impl Priority {
    /// Lowest priority: the rule that catches what no other does.
    pub const MIN: Self = Self(0);
    /// Priority of rules that name none.
    pub const DEFAULT: Self = Self(0x8000);
}

impl Default for BridgeId {
    fn default() -> Self {
        Self::FIRST
    }
}

impl BridgeId {
    /// The bridge of a host that has just one.
    pub const FIRST: Self = Self(0);
    /// Number of ids.
    pub const COUNT: usize = 64;
}

impl Default for Epoch {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Epoch {
    /// The version of the empty switch.
    pub const ZERO: Self = Self(0);

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A moment: nanoseconds of a monotonic clock that the caller reads, once per batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From nanoseconds since the clock's start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The moment so many seconds later.
    #[must_use]
    pub const fn plus_secs(self, secs: u16) -> Self {
        Self(self.0.saturating_add(secs as u64 * 1_000_000_000))
    }

    /// The moment so much later.
    #[must_use]
    pub fn after(self, time: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time since an earlier moment; zero when it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// An IEEE 802 MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// Not an address.
    pub const ZERO: Self = Self([0; 6]);

    /// From the bytes in wire order.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes in wire order.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Group bit: broadcast and multicast addresses (IEEE 802 §8.2).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text was not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address; write six hexadecimal bytes with colons, 0a:00:00:00:00:01")]
pub struct MacParseError(pub String);

impl FromStr for MacAddr {
    type Err = MacParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || MacParseError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(wrong)?;
            let well_formed = matches!(part.len(), 1 | 2) && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = if well_formed {
                u8::from_str_radix(part, 16).map_err(|_| wrong())?
            } else {
                return Err(wrong());
            };
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trips_and_refuses_near_misses() {
        let mac: MacAddr = "0a:00:1:ff:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:00:01:ff:00:01");
        for wrong in ["", "0a:00:00:00:00", "0a:00:00:00:00:01:02", "0g:00:00:00:00:01", "+a:00:00:00:00:01"]
        {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_refuse_what_is_out_of_range() {
        assert!(VlanId::new(4095).is_ok());
        assert_eq!(VlanId::new(4096).unwrap_err().to_string(), "VLAN id must be 0 to 4095, not 4096");
        assert!(TableId::new(255).is_err());
    }
}
