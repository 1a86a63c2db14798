//! A packet for the responder, and how packets go back into the pipeline.

use std::net::IpAddr;

use flowtable::{
    field::Field,
    flow::{Action, Match},
    key::N_REGS,
    switch::PacketIn,
    types::{MacAddr, TableId},
};
use ovn_northd_lite::{
    CONTINUATION, Learned,
    key::{DatapathKey, PortKey},
    punt::{
        ANSWERED, CONTINUATION_REGISTER, NEIGHBOUR_ADDRESS, NEIGHBOUR_MAC, NEIGHBOUR_PORT, Request, Service,
    },
};

use super::{Effect, Hold, PacketOut, Reply, resubmit, waiting::Wanted};

/// Length of an Ethernet header.
pub(super) const ETH: usize = 14;

/// A packet with what it had in the pipeline.
pub(super) struct Context<'a> {
    packet_in: &'a PacketIn,
    pub(super) request: Request,
}

impl<'a> Context<'a> {
    pub(super) fn new(packet_in: &'a PacketIn, request: Request) -> Self {
        Self { packet_in, request }
    }

    /// The frame.
    pub(super) fn frame(&self) -> &'a [u8] {
        &self.packet_in.bytes
    }

    /// Its Ethernet addresses, destination first.
    pub(super) fn addresses(&self) -> Option<[u8; 12]> {
        self.frame().get(..12)?.try_into().ok()
    }

    /// Its Ethernet source.
    pub(super) fn source(&self) -> Option<[u8; 6]> {
        self.frame().get(6..12)?.try_into().ok()
    }

    /// What is behind the Ethernet header, of a packet of this type.
    pub(super) fn payload(&self, eth_type: u16) -> Option<&'a [u8]> {
        let (head, payload) = self.frame().split_at_checked(ETH)?;
        (head.get(12..)? == eth_type.to_be_bytes()).then_some(payload)
    }

    /// A register or the metadata; zero where nothing was said.
    pub(super) fn value(&self, field: Field) -> u128 {
        self.packet_in.punt.metadata.get(field).0
    }

    /// The datapath it is in.
    pub(super) fn datapath(&self) -> Option<DatapathKey> {
        DatapathKey::new(u32::try_from(self.value(Field::Metadata)).ok()?).ok()
    }

    /// The port that it came by.
    pub(super) fn port(&self) -> Option<(DatapathKey, PortKey)> {
        let port = PortKey::new(u16::try_from(self.value(Field::Reg14)).ok()?).ok()?;
        Some((self.datapath()?, port))
    }

    /// The next hop that a packet is on its way to.
    pub(super) fn next_hop(&self) -> Option<Wanted> {
        let ip = match self.request.service {
            Service::Arp => IpAddr::V4((self.value(Field::Reg0) as u32).into()),
            _ => IpAddr::V6(self.value(Field::Xxreg0).into()),
        };
        let port = PortKey::new(u16::try_from(self.value(Field::Reg15)).ok()?).ok()?;
        Some(Wanted { datapath: self.datapath()?, port, ip })
    }

    /// The neighbour that a packet tells of.
    pub(super) fn neighbour(&self) -> Option<Learned> {
        let address = self.value(NEIGHBOUR_ADDRESS);
        let ip = match self.request.service {
            Service::LearnArp => IpAddr::V4(u32::try_from(address).ok()?.into()),
            _ => IpAddr::V6(address.into()),
        };
        let mac = (self.value(NEIGHBOUR_MAC.field) & NEIGHBOUR_MAC.bits()).to_be_bytes();
        let mac = MacAddr::new(mac.get(10..)?.try_into().ok()?);
        let is_somebody = mac.octets().iter().any(|byte| *byte != 0) && mac.octets()[0] & 1 == 0;
        let port = PortKey::new(u16::try_from(self.value(NEIGHBOUR_PORT)).ok()?).ok()?;
        (is_somebody && !ip.is_unspecified()).then_some(Learned { datapath: self.datapath()?, port, ip, mac })
    }

    /// Seconds for which the neighbour that a packet tells of is remembered, if the router says so.
    pub(super) fn age(&self) -> Option<u16> {
        <[u8; 2]>::try_from(self.service_data()).ok().map(u16::from_be_bytes)
    }

    /// Who has the address of a virtual port, as a packet says.
    pub(super) fn hold(&self) -> Option<Hold> {
        let key = <[u8; 2]>::try_from(self.service_data()).ok().map(u16::from_be_bytes)?;
        let parent = PortKey::new(u16::try_from(self.value(Field::Reg14)).ok()?).ok()?;
        let (port, mac) = (PortKey::new(key).ok()?, MacAddr::new(self.source()?));
        Some(Hold { datapath: self.datapath()?, port, parent, mac })
    }

    /// A packet that was made for this one: it goes where the flow says.
    pub(super) fn continued(&self, frame: Vec<u8>) -> PacketOut {
        let mut actions = restore(&self.packet_in.punt.metadata);
        let number = u128::from(self.request.continuation);
        let field = CONTINUATION_REGISTER;
        actions.push(Action::SetField { field, value: number, mask: field.all_bits() });
        actions.push(resubmit(CONTINUATION));
        PacketOut { in_port: self.packet_in.in_port, actions, frame }
    }

    /// What the service was told with the packet.
    pub(super) fn service_data(&self) -> &'a [u8] {
        Request::payload(&self.packet_in.punt.to.userdata)
    }

    /// The packet goes on where it stopped, or its answer does.
    pub(super) fn replied(&self, reply: Reply) -> Vec<Effect> {
        let (frame, is_answer) = match reply {
            Reply::Silent => return Vec::new(),
            Reply::Pass => (self.frame().to_vec(), 0),
            Reply::Made(frame) => (frame, 1),
        };
        let mut packet = self.continued(frame);
        let answered = Action::SetField { field: ANSWERED.field, value: is_answer, mask: ANSWERED.bits() };
        packet.actions.insert(0, answered);
        vec![Effect::Send(packet)]
    }

    /// The packet itself, to the neighbour it has waited for.
    pub(super) fn released(&self, mac: MacAddr) -> PacketOut {
        let mut frame = self.frame().to_vec();
        if let Some(destination) = frame.get_mut(..6) {
            destination.copy_from_slice(&mac.octets());
        }
        let mut actions = restore(&self.packet_in.punt.metadata);
        actions.extend(TableId::new(self.request.table).ok().map(resubmit));
        PacketOut { in_port: self.packet_in.in_port, actions, frame }
    }
}

/// Gives a packet what another one had in the pipeline.
fn restore(metadata: &Match) -> Vec<Action> {
    let registers = (0..N_REGS).filter_map(Field::reg);
    let fields = registers.chain([Field::Metadata, Field::PktMark]);
    fields
        .map(|field| (field, metadata.get(field).0))
        .filter(|(_, value)| *value != 0)
        .map(|(field, value)| Action::SetField { field, value, mask: field.all_bits() })
        .collect()
}
