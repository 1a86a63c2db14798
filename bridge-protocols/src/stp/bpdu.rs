//! Bridge protocol data units: reading and writing (IEEE 802.1D-2004 §9.3).

use flowtable::types::MacAddr;

use super::vector::{BridgeId, PortId, Priority, Times};
use crate::wire::{ETHERNET_LEN, array, ethernet, mac_at, padded, u16_at, u32_at};

/// Where bridges listen (802.1D-2004 table 7-10).
pub const ADDRESS: MacAddr = MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 0]);
/// DSAP, SSAP and control of 802.2 (802.1D-2004 §7.12.3).
const LLC: [u8; 3] = [0x42, 0x42, 0x03];
const TYPE_CONFIG: u8 = 0x00;
const TYPE_RST: u8 = 0x02;
const TYPE_TCN: u8 = 0x80;
const CONFIG_LEN: usize = 35;
const RST_LEN: usize = 36;
const TCN_LEN: usize = 4;
/// Version of an RST BPDU.
const VERSION_RSTP: u8 = 2;

/// Flags (§9.3.3, figure 9-4).
const TC: u8 = 0x01;
const PROPOSAL: u8 = 0x02;
const LEARNING: u8 = 0x10;
const FORWARDING: u8 = 0x20;
const AGREEMENT: u8 = 0x40;
const TC_ACK: u8 = 0x80;

/// What the port that sent a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SenderRole {
    /// Not said.
    Unknown,
    /// Alternate or backup: it discards.
    AlternateOrBackup,
    /// It leads to the root.
    Root,
    /// It leads away from the root.
    Designated,
}

impl SenderRole {
    const ALL: [Self; 4] = [Self::Unknown, Self::AlternateOrBackup, Self::Root, Self::Designated];

    fn from_flags(flags: u8) -> Self {
        Self::ALL[usize::from(flags >> 2 & 3)]
    }
}

/// A configuration: of STP, or the only one of RSTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Configuration {
    /// It is of RSTP.
    pub is_rapid: bool,
    /// The sender's port; STP says nothing and means a designated one.
    pub role: SenderRole,
    /// The tree has changed.
    pub topology_change: bool,
    /// STP: a notice of change has arrived.
    pub topology_change_ack: bool,
    /// The sender wants to forward at once.
    pub proposal: bool,
    /// The sender agrees that the receiver does.
    pub agreement: bool,
    /// The sender's port learns.
    pub learning: bool,
    /// The sender's port forwards.
    pub forwarding: bool,
    /// What it says of root and sender.
    pub priority: Priority,
    /// Times of the root.
    pub times: Times,
}

/// One unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bpdu {
    /// A configuration.
    Configuration(Configuration),
    /// STP: somebody below has seen the tree change.
    TopologyChange,
}

impl Bpdu {
    /// Reads a frame. `None`: it is no unit of these protocols, or damaged.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let n_llc = usize::from(u16_at(frame, 12)?);
        if mac_at(frame, 0)? != ADDRESS || n_llc < LLC.len() {
            return None;
        }
        let rest = frame.get(ETHERNET_LEN..)?.get(..n_llc)?;
        if array::<3>(rest, 0)? != LLC {
            return None;
        }
        Self::parse_unit(rest.get(LLC.len()..)?)
    }

    fn parse_unit(unit: &[u8]) -> Option<Self> {
        if u16_at(unit, 0)? != 0 {
            return None;
        }
        let version = *unit.get(2)?;
        match *unit.get(3)? {
            TYPE_TCN => Some(Self::TopologyChange),
            TYPE_CONFIG if unit.len() >= CONFIG_LEN => Self::parse_configuration(unit, false),
            TYPE_RST if version >= VERSION_RSTP && unit.len() >= RST_LEN => {
                Self::parse_configuration(unit, true)
            }
            _ => None,
        }
    }

    fn parse_configuration(unit: &[u8], is_rapid: bool) -> Option<Self> {
        let flags = *unit.get(4)?;
        let time = |at| u16_at(unit, at);
        let times = Times {
            message_age: time(27)?,
            max_age: time(29)?,
            hello_time: time(31)?,
            forward_delay: time(33)?,
        };
        // §9.3.4: what is as old as it may be says nothing.
        if !is_rapid && times.message_age >= times.max_age {
            return None;
        }
        let priority = Priority {
            root: BridgeId::from_bytes(array(unit, 5)?),
            cost: u32_at(unit, 13)?,
            bridge: BridgeId::from_bytes(array(unit, 17)?),
            port: PortId::from_raw(u16_at(unit, 25)?),
        };
        let rapid = |flag| is_rapid && flags & flag != 0;
        Some(Self::Configuration(Configuration {
            is_rapid,
            role: if is_rapid { SenderRole::from_flags(flags) } else { SenderRole::Designated },
            topology_change: flags & TC != 0,
            topology_change_ack: !is_rapid && flags & TC_ACK != 0,
            proposal: rapid(PROPOSAL),
            agreement: rapid(AGREEMENT),
            learning: rapid(LEARNING),
            forwarding: rapid(FORWARDING),
            priority,
            times,
        }))
    }

    /// The frame that says so, sent from this address.
    pub fn to_frame(&self, source: MacAddr) -> Vec<u8> {
        let unit = self.unit();
        let mut frame = ethernet(ADDRESS, source, (LLC.len() + unit.len()) as u16);
        frame.extend(LLC);
        frame.extend(unit);
        padded(frame)
    }

    fn unit(&self) -> Vec<u8> {
        let Self::Configuration(said) = self else {
            let mut unit = vec![0, 0, 0, TYPE_TCN];
            unit.truncate(TCN_LEN);
            return unit;
        };
        let (version, kind) = if said.is_rapid { (VERSION_RSTP, TYPE_RST) } else { (0, TYPE_CONFIG) };
        let mut unit = Vec::with_capacity(RST_LEN);
        unit.extend([0, 0, version, kind, said.flags()]);
        unit.extend(said.priority.root.to_bytes());
        unit.extend(said.priority.cost.to_be_bytes());
        unit.extend(said.priority.bridge.to_bytes());
        unit.extend(said.priority.port.raw().to_be_bytes());
        let Times { message_age, max_age, hello_time, forward_delay } = said.times;
        for time in [message_age, max_age, hello_time, forward_delay] {
            unit.extend(time.to_be_bytes());
        }
        if said.is_rapid {
            // Length of what version 1 had.
            unit.push(0);
        }
        unit
    }
}

impl Configuration {
    fn flags(&self) -> u8 {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let mut flags = flag(self.topology_change, TC) | flag(self.topology_change_ack, TC_ACK);
        if self.is_rapid {
            flags |= flag(self.proposal, PROPOSAL)
                | (self.role as u8) << 2
                | flag(self.learning, LEARNING)
                | flag(self.forwarding, FORWARDING)
                | flag(self.agreement, AGREEMENT);
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn configuration() -> impl Strategy<Value = Configuration> {
        let ids = (any::<[u8; 8]>(), any::<u32>(), any::<[u8; 8]>(), any::<u16>());
        let times = (0..5000_u16, 5000..u16::MAX, any::<u16>(), any::<u16>());
        (any::<[bool; 7]>(), 0..4_usize, ids, times).prop_map(|(flags, role, ids, times)| {
            let [is_rapid, topology_change, ack, proposal, agreement, learning, forwarding] = flags;
            Configuration {
                is_rapid,
                role: if is_rapid { SenderRole::ALL[role] } else { SenderRole::Designated },
                topology_change,
                topology_change_ack: ack && !is_rapid,
                proposal: proposal && is_rapid,
                agreement: agreement && is_rapid,
                learning: learning && is_rapid,
                forwarding: forwarding && is_rapid,
                priority: Priority {
                    root: BridgeId::from_bytes(ids.0),
                    cost: ids.1,
                    bridge: BridgeId::from_bytes(ids.2),
                    port: PortId::from_raw(ids.3),
                },
                times: Times {
                    message_age: times.0,
                    max_age: times.1,
                    hello_time: times.2,
                    forward_delay: times.3,
                },
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(said in configuration()) {
            let source = MacAddr::new([2, 0, 0, 0, 0, 1]);
            for bpdu in [Bpdu::Configuration(said), Bpdu::TopologyChange] {
                let frame = bpdu.to_frame(source);
                prop_assert_eq!(Bpdu::parse(&frame), Some(bpdu));
                // What is cut says nothing, or is padding.
                let length = 14 + usize::from(u16::from_be_bytes([frame[12], frame[13]]));
                for end in 0..length {
                    prop_assert_eq!(Bpdu::parse(&frame[..end]), None);
                }
            }
        }

        #[test]
        fn noise_is_read_or_refused(mut said in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Bpdu::parse(&said);
            if said.len() > 21 {
                said[..6].copy_from_slice(&ADDRESS.octets());
                said[12..14].copy_from_slice(&38_u16.to_be_bytes());
                said[14..21].copy_from_slice(&[0x42, 0x42, 3, 0, 0, 2, 2]);
                let _ = Bpdu::parse(&said);
            }
        }
    }

    #[test]
    fn a_frame_of_the_linux_bridge_is_read() {
        // Of STP: the root says that it is the root.
        let frame = [
            0x01, 0x80, 0xc2, 0, 0, 0, 0x0a, 0, 0, 0, 0, 2, 0, 0x26, 0x42, 0x42, 0x03, 0, 0, 0, 0, 0, 0x80,
            0, 0x0a, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x80, 0, 0x0a, 0, 0, 0, 0, 1, 0x80, 1, 0, 0, 0x14, 0, 2, 0,
            0x0f, 0,
        ];
        let Some(Bpdu::Configuration(said)) = Bpdu::parse(&frame) else { panic!("it was refused") };
        assert!(!said.is_rapid && said.role == SenderRole::Designated && said.priority.cost == 0);
        assert_eq!(said.priority.root.to_string(), "8000.0a:00:00:00:00:01");
        assert_eq!((said.times.max_age, said.times.hello_time), (20 << 8, 2 << 8));
    }
}
