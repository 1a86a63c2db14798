//! Units of LLDP: reading and writing (IEEE 802.1AB-2016 §8, §9).

use std::net::IpAddr;

use flowtable::types::MacAddr;

use crate::wire::{ETHERNET_LEN, ethernet, mac_at, padded, u16_at};

/// Where the nearest bridge listens.
pub const ADDRESS: MacAddr = MacAddr::new([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
/// Type of these frames.
pub const ETHER_TYPE: u16 = 0x88cc;
/// Kinds of TLVs.
const END: u8 = 0;
const CHASSIS: u8 = 1;
const PORT: u8 = 2;
const TTL: u8 = 3;
const PORT_DESCRIPTION: u8 = 4;
const SYSTEM_NAME: u8 = 5;
const SYSTEM_DESCRIPTION: u8 = 6;
const CAPABILITIES: u8 = 7;
const MANAGEMENT: u8 = 8;
/// Longest identifier and text.
const MAX_LEN: usize = 255;
/// Management addresses that are kept of one unit.
const MAX_ADDRESSES: usize = 8;
/// TLVs of one unit that are looked at.
const MAX_TLVS: usize = 256;
/// Kinds of addresses (IANA address family numbers).
const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;
/// Kinds of identifiers: an address, and a network address with its family.
const CHASSIS_MAC: u8 = 4;
const CHASSIS_NETWORK: u8 = 5;
const PORT_MAC: u8 = 3;
const PORT_NETWORK: u8 = 4;
const PORT_INTERFACE: u8 = 5;
/// Capabilities: it is a bridge.
pub const BRIDGE: u16 = 1 << 2;

/// Who or which, in one of several ways.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Which way.
    pub subtype: u8,
    /// What is said.
    pub value: Vec<u8>,
}

impl Id {
    /// A chassis by its address.
    pub fn of_chassis(address: MacAddr) -> Self {
        Self { subtype: CHASSIS_MAC, value: address.octets().to_vec() }
    }

    /// A port by its interface's name.
    pub fn of_interface(name: &str) -> Self {
        Self { subtype: PORT_INTERFACE, value: cut(name).as_bytes().to_vec() }
    }

    /// As text: of a chassis.
    pub fn chassis_text(&self) -> String {
        self.text(CHASSIS_MAC, CHASSIS_NETWORK)
    }

    /// As text: of a port.
    pub fn port_text(&self) -> String {
        self.text(PORT_MAC, PORT_NETWORK)
    }

    fn text(&self, mac: u8, network: u8) -> String {
        if self.subtype == mac
            && let Ok(octets) = <[u8; 6]>::try_from(&self.value[..])
        {
            return MacAddr::new(octets).to_string();
        }
        if self.subtype == network
            && let Some(address) = self.value.split_first().and_then(|(kind, rest)| address(*kind, rest))
        {
            return address.to_string();
        }
        text(&self.value)
    }
}

/// What a neighbour says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Who says it.
    pub chassis: Id,
    /// By which of its ports.
    pub port: Id,
    /// Seconds it is true; 0: it is not any more.
    pub ttl: u16,
    /// Of the port.
    pub port_description: String,
    /// Of the system.
    pub system_name: String,
    /// Of the system.
    pub system_description: String,
    /// What the system can do, and does.
    pub capabilities: Option<(u16, u16)>,
    /// Where it is managed.
    pub management: Vec<IpAddr>,
}

impl Unit {
    /// Reads a frame. `None`: it is no unit of LLDP, or damaged.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if mac_at(frame, 0)? != ADDRESS || u16_at(frame, 12)? != ETHER_TYPE {
            return None;
        }
        let mut rest = frame.get(ETHERNET_LEN..)?;
        let chassis = id(mandatory(&mut rest, CHASSIS)?)?;
        let port = id(mandatory(&mut rest, PORT)?)?;
        let ttl = u16_at(mandatory(&mut rest, TTL)?, 0)?;
        let (name, management) = (String::new(), Vec::new());
        let mut unit = Self {
            chassis,
            port,
            ttl,
            port_description: name.clone(),
            system_name: name.clone(),
            system_description: name,
            capabilities: None,
            management,
        };
        for _ in 0..MAX_TLVS {
            // Some senders leave the end out where the frame ends.
            if rest.is_empty() {
                return Some(unit);
            }
            let (kind, value) = next(&mut rest)?;
            match kind {
                END => return Some(unit),
                CHASSIS | PORT | TTL => return None,
                PORT_DESCRIPTION => unit.port_description = text(value),
                SYSTEM_NAME => unit.system_name = text(value),
                SYSTEM_DESCRIPTION => unit.system_description = text(value),
                CAPABILITIES => unit.capabilities = u16_at(value, 0).zip(u16_at(value, 2)),
                MANAGEMENT if unit.management.len() < MAX_ADDRESSES => {
                    unit.management.extend(management_address(value));
                }
                // What organizations add, and what is to come.
                _ => {}
            }
        }
        None
    }

    /// The frame that says so, sent from this address.
    pub fn to_frame(&self, source: MacAddr) -> Vec<u8> {
        let mut frame = ethernet(ADDRESS, source, ETHER_TYPE);
        for (kind, id) in [(CHASSIS, &self.chassis), (PORT, &self.port)] {
            let value = [&[id.subtype], &id.value[..id.value.len().min(MAX_LEN)]].concat();
            write(&mut frame, kind, &value);
        }
        write(&mut frame, TTL, &self.ttl.to_be_bytes());
        let texts = [
            (PORT_DESCRIPTION, &self.port_description),
            (SYSTEM_NAME, &self.system_name),
            (SYSTEM_DESCRIPTION, &self.system_description),
        ];
        for (kind, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            write(&mut frame, kind, cut(text).as_bytes());
        }
        if let Some((can, does)) = self.capabilities {
            write(&mut frame, CAPABILITIES, &[can.to_be_bytes(), does.to_be_bytes()].concat());
        }
        for address in self.management.iter().take(MAX_ADDRESSES) {
            let (family, octets) = match address {
                IpAddr::V4(address) => (FAMILY_IPV4, address.octets().to_vec()),
                IpAddr::V6(address) => (FAMILY_IPV6, address.octets().to_vec()),
            };
            // Its interface is not told (number of an unknown kind, 0), and no object identifier.
            let value = [&[octets.len() as u8 + 1, family], &octets[..], &[1, 0, 0, 0, 0, 0]].concat();
            write(&mut frame, MANAGEMENT, &value);
        }
        write(&mut frame, END, &[]);
        padded(frame)
    }
}

/// The next TLV.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let head = u16_at(rest, 0)?;
    let (value, after) = rest.get(2..)?.split_at_checked(usize::from(head & 0x1ff))?;
    *rest = after;
    Some(((head >> 9) as u8, value))
}

fn mandatory<'a>(rest: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    next(rest).filter(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn id(value: &[u8]) -> Option<Id> {
    let (subtype, value) = value.split_first()?;
    let has_right_len = !value.is_empty() && value.len() <= MAX_LEN;
    has_right_len.then(|| Id { subtype: *subtype, value: value.to_vec() })
}

fn address(family: u8, octets: &[u8]) -> Option<IpAddr> {
    match family {
        FAMILY_IPV4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        FAMILY_IPV6 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

fn management_address(value: &[u8]) -> Option<IpAddr> {
    let (len, rest) = value.split_first()?;
    let (family, octets) = rest.get(..usize::from(*len))?.split_first()?;
    address(*family, octets)
}

/// What people can read, whatever was sent: terminals do not obey it.
fn text(value: &[u8]) -> String {
    let value = value.get(..MAX_LEN).unwrap_or(value);
    let text = String::from_utf8_lossy(value);
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect::<String>().trim().to_owned()
}

/// As many bytes as fit, without half a letter.
fn cut(text: &str) -> &str {
    let len = (0..=text.len().min(MAX_LEN)).rev().find(|len| text.is_char_boundary(*len));
    &text[..len.unwrap_or_default()]
}

fn write(frame: &mut Vec<u8>, kind: u8, value: &[u8]) {
    frame.extend((u16::from(kind) << 9 | value.len() as u16 & 0x1ff).to_be_bytes());
    frame.extend(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit() -> impl Strategy<Value = Unit> {
        let id = || {
            let value = proptest::collection::vec(any::<u8>(), 1..40);
            (1..8_u8, value).prop_map(|(subtype, value)| Id { subtype, value })
        };
        let text = || "[a-z0-9.äß/-]{0,80}";
        let addresses = proptest::collection::vec(any::<IpAddr>(), 0..4);
        let capabilities = any::<Option<(u16, u16)>>();
        (id(), id(), any::<u16>(), [text(), text(), text()], capabilities, addresses).prop_map(
            |(chassis, port, ttl, [one, two, three], capabilities, management)| Unit {
                chassis,
                port,
                ttl,
                port_description: one,
                system_name: two,
                system_description: three,
                capabilities,
                management,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(unit in unit(), at: prop::sample::Index, bit in 0..8_u8) {
            let frame = unit.to_frame(MacAddr::ZERO);
            prop_assert_eq!(Unit::parse(&frame), Some(unit.clone()));
            for end in 0..frame.len() {
                // What is cut may still be a unit, with less in it.
                let cut = Unit::parse(&frame[..end]);
                prop_assert!(cut.is_none_or(|cut| (cut.chassis, cut.port) == (unit.chassis.clone(), unit.port.clone())));
            }
            let mut damaged = frame;
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
            let _ = Unit::parse(&damaged);
        }

        #[test]
        fn noise_is_read_or_refused(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Unit::parse(&noise);
            let headed = [&ethernet(ADDRESS, MacAddr::ZERO, ETHER_TYPE)[..], &noise].concat();
            let _ = Unit::parse(&headed);
        }
    }

    #[test]
    fn identifiers_and_texts_can_be_read() {
        assert_eq!(Id::of_chassis(MacAddr::new([2, 0, 0, 0, 0, 1])).chassis_text(), "02:00:00:00:00:01");
        assert_eq!(Id::of_interface("eth0").port_text(), "eth0");
        assert_eq!(Id { subtype: 5, value: vec![1, 192, 0, 2, 9] }.chassis_text(), "192.0.2.9");
        assert_eq!(Id { subtype: 3, value: vec![2, 0, 0, 0, 0, 7] }.port_text(), "02:00:00:00:00:07");
        assert_eq!(text(b"\x1b[31mred\0"), "[31mred");
        assert_eq!(cut(&"ä".repeat(200)).len(), 254);
    }
}
