//! `NORMAL`: forwarding like a learning switch (IEEE 802.1Q §8), by [`crate::fdb`].

use std::sync::Arc;

use super::{
    Tracer,
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    fdb::Station,
    field::Field,
    port::{Bridging, PortRole, PriorityTags, TreeState},
    program::Effect,
    types::{MacAddr, PortNo, VlanId},
};

/// Bit 12 of a TCI in the key: there is a tag.
const PRESENT: u128 = 0x1000;
/// Addresses of the bridges' own protocols, with the bits of them that count: those of IEEE
/// 802.1Q §8.6.3, and those of vendors that Open vSwitch does not forward either.
const RESERVED: [(u128, u128); 9] = [
    (0x0180_c200_0000, !0xf),
    // Discovery and ring protection of Extreme.
    (0x00e0_2b00_0000, !0),
    (0x00e0_2b00_0004, !0),
    (0x00e0_2b00_0006, !0),
    // Cisco: tags between switches, discovery, spanning trees by VLAN, fast uplinks, faults.
    (0x0100_0c00_0000, !0),
    (0x0100_0ccc_cccc, !0),
    (0x0100_0ccc_cccd, !0),
    (0x0100_0ccd_cdcd, !0),
    (0x0100_0ccc_ccc0, !0x7),
];
/// Group bit of an address.
const GROUP: u128 = 1 << 40;
const BROADCAST: u128 = 0xffff_ffff_ffff;
const ARP_REPLY: u128 = 2;

/// TPID of the tags of bridges that carry customers' (IEEE 802.1ad).
const SERVICE_TPID: u16 = 0x88a8;

impl<T: Tracer> Walk<'_, T> {
    /// Notes where the source is and sends to where the destination is, or everywhere.
    pub(super) fn normal(&mut self) -> Result<(), Abort> {
        let dst = self.key.read(Field::EthDst);
        if RESERVED.iter().any(|(address, mask)| dst & mask == *address) {
            self.end(DropReason::ReservedAddress);
            return Ok(());
        }
        let in_port = PortNo::new(self.key.read(Field::InPort) as u32).unwrap_or(PortNo::ZERO);
        let Some((bundle, vlan)) = self.come_in(in_port)? else { return Ok(()) };
        let own_tag = !self.snapshot.ports.bridging(bundle).is_tunnel();
        self.note_source(vlan, bundle, dst)?;
        if let Some(snooping) = self.snapshot.ports.snooping().filter(|_| dst & GROUP != 0) {
            return self.send_to_group(snooping, (vlan, own_tag), bundle);
        }
        let found = if dst & GROUP == 0 { self.find_station(vlan, dst) } else { None };
        let port = found.filter(|port| self.snapshot.ports.get(*port).is_some());
        match port {
            Some(port) if port == bundle => {
                self.note(format_args!("{} is where the packet comes from", mac(dst)));
                self.end(DropReason::SamePort);
                Ok(())
            }
            Some(port) if self.is_protected(bundle) && self.is_protected(port) => {
                self.note(format_args!("port {port} is protected as this one is"));
                self.end(DropReason::PortProtected);
                Ok(())
            }
            Some(port) => self.send_in_vlan((vlan, own_tag), port),
            None => {
                self.note(format_args!("nobody knows where {} is: to all ports in VLAN {vlan}", mac(dst)));
                self.flood_in_vlan((vlan, own_tag), bundle)
            }
        }
    }

    /// The port that `NORMAL` takes for the packet's, and its VLAN; `None`: it is not taken.
    fn come_in(&mut self, in_port: PortNo) -> Result<Option<(PortNo, VlanId)>, Abort> {
        let ports = &self.snapshot.ports;
        let bundle = ports.bundle_of(in_port);
        if ports.is_mirror_port(bundle) {
            self.end(DropReason::MirrorPort);
            return Ok(None);
        }
        let vid = self.vid();
        // What does not come from a port (a packet-out, or a rule that has written 0 to
        // `in_port`) has its VLAN in its tag.
        let Some(vlan) = self.snapshot.ports.bridging(bundle).vlan_in(vid) else {
            self.end(DropReason::NotInVlan);
            return Ok(None);
        };
        Ok(self.is_admitted(in_port, vlan)?.then_some((bundle, vlan)))
    }

    /// Only notes where the source is: the port may not forward yet.
    pub(super) fn learn_from(&mut self, in_port: PortNo) -> Result<(), Abort> {
        let dst = self.key.read(Field::EthDst);
        if let Some((bundle, vlan)) = self.come_in(in_port)? {
            self.note_source(vlan, bundle, dst)?;
        }
        Ok(())
    }

    /// The VLAN id of the packet's tag; 0: none.
    pub(super) fn vid(&mut self) -> VlanId {
        let tci = self.key.read_bits(Field::VlanTci, PRESENT | 0xfff);
        let vid = if tci & PRESENT == 0 { 0 } else { tci & 0xfff };
        VlanId::new(vid as u16).unwrap_or(VlanId::NONE)
    }

    /// Notes that the source is at this port, if that is a port where stations are: what is
    /// behind a tunnel is found by rules.
    fn note_source(&mut self, vlan: VlanId, in_port: PortNo, dst: u128) -> Result<(), Abort> {
        let src = self.key.read(Field::EthSrc);
        let info = self.snapshot.ports.get(in_port);
        let has_stations = info.is_some_and(|info| info.role == PortRole::Workload);
        if !has_stations || src & GROUP != 0 || src == 0 {
            return Ok(());
        }
        self.count_effect()?;
        let is_announced = dst == BROADCAST && self.is_gratuitous_arp();
        let station = Station { vlan, mac: mac(src), port: in_port, is_announced };
        if self.find_station(vlan, src) == Some(in_port) && !is_announced {
            self.tally.fdb = Some(Arc::clone(self.snapshot.tables.fdb()));
            self.tally.stations.push(station);
        } else {
            self.note(format_args!("{} is at port {in_port}", station.mac));
            self.effects.push(Effect::Station(station));
        }
        Ok(())
    }

    /// A station tells everybody about itself (RFC 5227 §2.3, RFC 5944 §4.6).
    pub(super) fn is_gratuitous_arp(&mut self) -> bool {
        if self.labels.bare || self.key.read(Field::EthType) != 0x0806 {
            return false;
        }
        self.key.read(Field::ArpOp) == ARP_REPLY
            || self.key.read(Field::ArpSpa) == self.key.read(Field::ArpTpa)
    }

    /// Where a station is; what this packet itself has said of it is true for this packet.
    pub(super) fn find_station(&mut self, vlan: VlanId, address: u128) -> Option<PortNo> {
        let own = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Station(station) if station.vlan == vlan && station.mac == mac(address) => {
                Some(station.port)
            }
            _ => None,
        });
        if own.is_some() {
            return own;
        }
        let fdb = self.snapshot.tables.fdb();
        let (port, dependency) = fdb.lookup(vlan, mac(address));
        self.rests_on.add(fdb, dependency);
        port
    }

    fn is_protected(&self, port: PortNo) -> bool {
        self.snapshot.ports.bridging(port).protected
    }

    /// To all ports that are in the VLAN and take part. `own_tag`: the packet's tag is that
    /// of its VLAN, and not a customer's.
    pub(super) fn flood_in_vlan(
        &mut self,
        (vlan, own_tag): (VlanId, bool),
        in_port: PortNo,
    ) -> Result<(), Abort> {
        let ports = &self.snapshot.ports;
        let is_protected = self.is_protected(in_port);
        for (port, info) in ports.bundles() {
            let bridging = ports.bridging(port);
            let may = bridging.floods && !(is_protected && bridging.protected) && !ports.is_mirror_port(port);
            let passes = bridging.tree == TreeState::Forwarding || self.is_link_local();
            let takes = info.up && info.role == PortRole::Workload && may && passes;
            if takes && port != in_port && bridging.vid_out(vlan).is_some() {
                self.send_in_vlan((vlan, own_tag), port)?;
            }
        }
        Ok(())
    }

    /// A copy with the tag that the port wants.
    pub(super) fn send_in_vlan(
        &mut self,
        (vlan, own_tag): (VlanId, bool),
        port: PortNo,
    ) -> Result<(), Abort> {
        let bridging = self.snapshot.ports.bridging(port);
        let Some(vid) = bridging.vid_out(vlan) else {
            self.end(DropReason::NotInVlan);
            return Ok(());
        };
        let has_tag = own_tag && self.key.read_bits(Field::VlanTci, PRESENT) != 0;
        let tag_vid = if own_tag { self.vid() } else { VlanId::NONE };
        // In no VLAN, a tag that has only a priority stays.
        let stays = vid == tag_vid && (has_tag == (vid != VlanId::NONE) || vlan == VlanId::NONE);
        let makes_tag = vid == VlanId::NONE && bridging.priority_tags == PriorityTags::Always;
        if stays && !bridging.is_tunnel() && !makes_tag {
            return self.send(port);
        }
        let saved = self.save();
        let changed =
            if vid == VlanId::NONE { self.untag(has_tag, bridging) } else { self.tag(vid, has_tag, own_tag) };
        let sent = match changed {
            Ok(true) => self.send(port),
            Ok(false) => {
                self.end(DropReason::NotInVlan);
                Ok(())
            }
            Err(abort) => Err(abort),
        };
        self.restore(*saved);
        sent
    }

    /// Takes the VLAN's tag away, but not its priority where the port wants that; `false`: the
    /// port does not take what is left.
    fn untag(&mut self, has_tag: bool, bridging: &Bridging) -> Result<bool, Abort> {
        if has_tag {
            let keeps = match bridging.priority_tags {
                PriorityTags::No => false,
                PriorityTags::Always => true,
                PriorityTags::IfNonzero => self.key.read(Field::VlanPcp) != 0,
            };
            if keeps {
                return self.set(Field::VlanVid, 0, 0xfff).map(|()| true);
            }
            self.pop_vlan();
        } else if bridging.priority_tags == PriorityTags::Always && !bridging.is_tunnel() {
            self.push_vlan(super::edit::VLAN_TPID)?;
            return Ok(true);
        }
        // What is left is the customer's.
        Ok(!bridging.is_tunnel() || {
            let vid = self.vid();
            bridging.takes_customer(vid)
        })
    }

    /// Puts the VLAN's tag on.
    fn tag(&mut self, vid: VlanId, has_tag: bool, own_tag: bool) -> Result<bool, Abort> {
        if !has_tag {
            self.push_vlan(if own_tag { super::edit::VLAN_TPID } else { SERVICE_TPID })?;
        }
        self.set(Field::VlanVid, vid.get().into(), 0xfff).map(|()| true)
    }
}

fn mac(address: u128) -> MacAddr {
    let [.., a, b, c, d, e, f] = address.to_be_bytes();
    MacAddr::new([a, b, c, d, e, f])
}
