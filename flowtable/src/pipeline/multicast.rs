//! `NORMAL` for packets to groups, where the bridge listens to who wants which (RFC 4541).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Tracer,
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    field::Field,
    port::{PortRole, Snooping},
    types::{PortNo, VlanId},
};

const IGMP: u128 = 2;
const IGMP_QUERY: u128 = 0x11;
const ICMPV6: u128 = 58;
/// MLD: query, reports, done, report of version 2.
const MLD: [u128; 4] = [130, 131, 132, 143];
const MLD_QUERY: u128 = 130;

/// What a packet to a group is.
enum ToGroup {
    /// Nothing that listening is about: for all.
    Other,
    /// A router asks.
    Query,
    /// A host says what it wants.
    Report,
    /// For whoever has asked.
    Data(IpAddr),
}

impl<T: Tracer> Walk<'_, T> {
    /// Sends a packet to a group to those that want it.
    pub(super) fn send_to_group(
        &mut self,
        snooping: Snooping,
        (vlan, own_tag): (VlanId, bool),
        in_port: PortNo,
    ) -> Result<(), Abort> {
        match self.kind_to_group() {
            ToGroup::Other => self.flood_in_vlan((vlan, own_tag), in_port),
            ToGroup::Query => {
                self.punt_protocol()?;
                self.flood_in_vlan((vlan, own_tag), in_port)
            }
            // Not to other hosts: who hears that somebody wants it does not say so itself.
            ToGroup::Report => {
                self.punt_protocol()?;
                let ports = &self.snapshot.ports;
                let hears = |port: &PortNo| ports.bridging(*port).hears_reports;
                let also: Vec<_> = ports.bundles().map(|(port, _)| port).filter(hears).collect();
                self.send_to_receivers((vlan, own_tag), in_port, Some(&also))
            }
            ToGroup::Data(group) => {
                let fdb = self.snapshot.tables.fdb();
                let (known, dependency) = fdb.receivers(vlan, Some(group));
                self.rests_on.add(fdb, dependency);
                if known.is_none() && snooping.floods_unknown {
                    self.note(format_args!("nobody has asked for {group}: to all ports"));
                    return self.flood_in_vlan((vlan, own_tag), in_port);
                }
                let n_ends = self.n_ends;
                self.send_to_receivers((vlan, own_tag), in_port, known.as_deref())?;
                if self.n_ends == n_ends {
                    self.end(DropReason::GroupUnknown);
                }
                Ok(())
            }
        }
    }

    fn kind_to_group(&mut self) -> ToGroup {
        if self.labels.bare {
            return ToGroup::Other;
        }
        match self.key.read(Field::EthType) {
            0x0800 => {
                // Its type is where other protocols have theirs.
                if self.key.read(Field::NwProto) == IGMP {
                    let kind = self.key.read_bits(Field::IcmpType, 0xff);
                    return if kind == IGMP_QUERY { ToGroup::Query } else { ToGroup::Report };
                }
                let group = Ipv4Addr::from_bits(self.key.read(Field::NwDst) as u32);
                let is_data = group.is_multicast() && group.octets()[..3] != [224, 0, 0];
                if is_data { ToGroup::Data(group.into()) } else { ToGroup::Other }
            }
            0x86dd => {
                if self.key.read(Field::NwProto) == ICMPV6 {
                    let kind = self.key.read_bits(Field::Icmpv6Type, 0xff);
                    if MLD.contains(&kind) {
                        return if kind == MLD_QUERY { ToGroup::Query } else { ToGroup::Report };
                    }
                }
                let group = Ipv6Addr::from_bits(self.key.read(Field::Ipv6Dst));
                let is_data = group.is_multicast() && group.octets()[1] & 0xf > 2;
                if is_data { ToGroup::Data(group.into()) } else { ToGroup::Other }
            }
            _ => ToGroup::Other,
        }
    }

    /// To these ports, and to those behind which routers are.
    fn send_to_receivers(
        &mut self,
        (vlan, own_tag): (VlanId, bool),
        in_port: PortNo,
        known: Option<&[PortNo]>,
    ) -> Result<(), Abort> {
        let snapshot = self.snapshot;
        let fdb = snapshot.tables.fdb();
        let (routers, dependency) = fdb.receivers(vlan, None);
        self.rests_on.add(fdb, dependency);
        let hears = |port: &PortNo| {
            known.is_some_and(|ports| ports.contains(port))
                || routers.as_ref().is_some_and(|ports| ports.contains(port))
        };
        let is_protected = snapshot.ports.bridging(in_port).protected;
        for (port, info) in snapshot.ports.bundles().filter(|(port, _)| hears(port) && *port != in_port) {
            let bridging = snapshot.ports.bridging(port);
            let may = info.up && info.role == PortRole::Workload && !(is_protected && bridging.protected);
            if may && bridging.vid_out(vlan).is_some() {
                self.send_in_vlan((vlan, own_tag), port)?;
            }
        }
        Ok(())
    }
}
