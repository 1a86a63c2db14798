//! Units of LACP: reading and writing (IEEE 802.1AX-2014 §6.4.2).

use flowtable::types::MacAddr;

use crate::wire::{ETHERNET_LEN, array, ethernet, mac_at, u16_at};

/// Where neighbours listen for slow protocols.
pub const ADDRESS: MacAddr = MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 2]);
/// Type of slow protocols.
pub const ETHER_TYPE: u16 = 0x8809;
const SUBTYPE_LACP: u8 = 1;
const VERSION: u8 = 1;
const ACTOR: u8 = 1;
const PARTNER: u8 = 2;
const COLLECTOR: u8 = 3;
/// Lengths of these three parts.
const PARTY_LEN: u8 = 20;
const COLLECTOR_LEN: u8 = 16;
/// Length of a whole unit.
const PDU_LEN: usize = 110;

/// What a party says of its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkState(pub(super) u8);

impl LinkState {
    /// It speaks unasked.
    pub const ACTIVITY: Self = Self(0x01);
    /// It wants to hear every second.
    pub const FAST: Self = Self(0x02);
    /// The link may be one of several.
    pub const AGGREGATION: Self = Self(0x04);
    /// It has chosen the link.
    pub const SYNC: Self = Self(0x08);
    /// It takes frames.
    pub const COLLECTING: Self = Self(0x10);
    /// It sends frames.
    pub const DISTRIBUTING: Self = Self(0x20);
    /// It knows its partner only by default.
    pub const DEFAULTED: Self = Self(0x40);
    /// It has not heard its partner for long.
    pub const EXPIRED: Self = Self(0x80);

    /// All of these.
    pub(super) fn of(flags: &[(bool, Self)]) -> Self {
        Self(flags.iter().filter(|(is_set, _)| *is_set).fold(0, |state, (_, flag)| state | flag.0))
    }

    /// It says so.
    pub const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    pub(super) const fn without(self, flag: Self) -> Self {
        Self(self.0 & !flag.0)
    }

    pub(super) const fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    /// Names of what it says.
    pub fn names(self) -> Vec<&'static str> {
        let named = [
            (Self::ACTIVITY, "activity"),
            (Self::FAST, "fast"),
            (Self::AGGREGATION, "aggregation"),
            (Self::SYNC, "synchronized"),
            (Self::COLLECTING, "collecting"),
            (Self::DISTRIBUTING, "distributing"),
            (Self::DEFAULTED, "defaulted"),
            (Self::EXPIRED, "expired"),
        ];
        named.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect()
    }
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Party {
    /// Its system: the lower one decides.
    pub system_priority: u16,
    /// Address of the system.
    pub system: MacAddr,
    /// Links of one key may be one.
    pub key: u16,
    /// Of two ports, the lower one is preferred.
    pub port_priority: u16,
    /// The port.
    pub port: u16,
    /// What it says of the link.
    pub state: LinkState,
}

impl Party {
    fn parse(part: &[u8], kind: u8) -> Option<Self> {
        if part.first() != Some(&kind) || part.get(1) != Some(&PARTY_LEN) {
            return None;
        }
        Some(Self {
            system_priority: u16_at(part, 2)?,
            system: mac_at(part, 4)?,
            key: u16_at(part, 10)?,
            port_priority: u16_at(part, 12)?,
            port: u16_at(part, 14)?,
            state: LinkState(*part.get(16)?),
        })
    }

    fn write(&self, kind: u8, unit: &mut Vec<u8>) {
        unit.extend([kind, PARTY_LEN]);
        unit.extend(self.system_priority.to_be_bytes());
        unit.extend(self.system.octets());
        for number in [self.key, self.port_priority, self.port] {
            unit.extend(number.to_be_bytes());
        }
        unit.extend([self.state.0, 0, 0, 0]);
    }
}

/// One unit: what the sender says of itself, and what it knows of the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pdu {
    /// The sender.
    pub actor: Party,
    /// The receiver, as the sender knows it.
    pub partner: Party,
}

impl Pdu {
    /// Reads a frame. `None`: it is no unit of LACP, or damaged.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if mac_at(frame, 0)? != ADDRESS || u16_at(frame, 12)? != ETHER_TYPE {
            return None;
        }
        let unit = frame.get(ETHERNET_LEN..)?.get(..PDU_LEN)?;
        let [subtype, version] = array(unit, 0)?;
        if subtype != SUBTYPE_LACP || version < VERSION {
            return None;
        }
        let actor = Party::parse(unit.get(2..)?, ACTOR)?;
        let partner = Party::parse(unit.get(2 + usize::from(PARTY_LEN)..)?, PARTNER)?;
        Some(Self { actor, partner })
    }

    /// The frame that says so, sent from this address.
    pub fn to_frame(&self, source: MacAddr) -> Vec<u8> {
        let mut frame = ethernet(ADDRESS, source, ETHER_TYPE);
        frame.extend([SUBTYPE_LACP, VERSION]);
        self.actor.write(ACTOR, &mut frame);
        self.partner.write(PARTNER, &mut frame);
        frame.extend([COLLECTOR, COLLECTOR_LEN]);
        frame.resize(ETHERNET_LEN + PDU_LEN, 0);
        frame
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn party() -> impl Strategy<Value = Party> {
        (any::<[u16; 4]>(), any::<[u8; 6]>(), any::<u8>()).prop_map(|(numbers, system, state)| Party {
            system_priority: numbers[0],
            system: MacAddr::new(system),
            key: numbers[1],
            port_priority: numbers[2],
            port: numbers[3],
            state: LinkState(state),
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(actor in party(), partner in party(), at in 0..124_usize, bit in 0..8_u8) {
            let pdu = Pdu { actor, partner };
            let frame = pdu.to_frame(MacAddr::ZERO);
            prop_assert_eq!(Pdu::parse(&frame), Some(pdu));
            for end in 0..frame.len() {
                prop_assert_eq!(Pdu::parse(&frame[..end]), None);
            }
            let mut damaged = frame;
            damaged[at] ^= 1 << bit;
            let _ = Pdu::parse(&damaged);
        }

        #[test]
        fn noise_is_read_or_refused(noise in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _ = Pdu::parse(&noise);
        }
    }
}
