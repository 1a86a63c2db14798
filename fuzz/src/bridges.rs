//! Frames that bridges and their neighbours say to each other: what is read and written again
//! reads the same.

use bridge_protocols::{
    bfd::{ControlPacket, Path},
    cfm::Ccm,
    lacp::Pdu,
    lldp::Unit,
    multicast::Message,
    stp::Bpdu,
};
use flowtable::types::MacAddr;

/// Of spanning trees.
pub fn bpdu(data: &[u8]) {
    if let Some(unit) = Bpdu::parse(data) {
        assert_eq!(Bpdu::parse(&unit.to_frame(MacAddr::ZERO)), Some(unit));
    }
}

/// Of links that are one.
pub fn lacp(data: &[u8]) {
    if let Some(unit) = Pdu::parse(data) {
        assert_eq!(Pdu::parse(&unit.to_frame(MacAddr::ZERO)), Some(unit));
    }
}

/// Who wants to hear which group: IGMP and MLD.
pub fn groups(data: &[u8]) {
    let _ = Message::parse(data);
}

/// Who is at the other end.
pub fn lldp(data: &[u8]) {
    if let Some(unit) = Unit::parse(data) {
        let again = Unit::parse(&unit.to_frame(MacAddr::ZERO));
        assert_eq!(
            again.map(|again| (again.chassis, again.port, again.ttl)),
            Some((unit.chassis, unit.port, unit.ttl))
        );
    }
}

/// That ends of an association are there. An interval that is not understood is not written either.
pub fn ccm(data: &[u8]) {
    if let Some(message) = Ccm::parse(data) {
        assert_eq!(Ccm::parse(&message.to_frame()), Some(message));
    }
}

/// That an end of a link lives.
pub fn bfd(data: &[u8]) {
    if let Some((from, packet)) = ControlPacket::of_frame(data) {
        let path = Path { ips: (from, from), ..Path::by_link(MacAddr::ZERO) };
        assert_eq!(ControlPacket::of_frame(&packet.frame(&path)), Some((from, packet)));
    }
}
