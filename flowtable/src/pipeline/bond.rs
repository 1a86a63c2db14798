//! Which member of a bond a copy leaves by, and which packets its members take.

use std::sync::Arc;

use super::{
    Tracer, select,
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    field::Field,
    port::{Admission, Bond, BondMode},
    types::{PortNo, VlanId},
};

/// Group bit of an address.
const GROUP: u128 = 1 << 40;

impl<T: Tracer> Walk<'_, T> {
    /// The member that the packet as it is now leaves by. Reads what decides it.
    pub(super) fn member_of(&mut self, bond: &Bond) -> Result<PortNo, DropReason> {
        let member = match bond.mode {
            BondMode::ActiveBackup => bond.active,
            BondMode::BalanceSlb => {
                let vid = self.vid();
                let hash = select::of_source(self.key.read(Field::EthSrc), vid.get());
                self.slot_of(bond, hash)
            }
            // Without an agreement the neighbour would take each link for a way of its own.
            BondMode::BalanceTcp if !bond.negotiated => bond.active,
            BondMode::BalanceTcp => {
                let hash = select::of_conversation(0, &mut self.key, false);
                self.slot_of(bond, hash)
            }
        };
        member.ok_or(DropReason::BondDown)
    }

    fn slot_of(&mut self, bond: &Bond, hash: u64) -> Option<PortNo> {
        let (member, load) = bond.choose(hash)?;
        self.tally.groups.push(Arc::clone(load));
        self.note(format_args!("by member {member} of the bond"));
        Some(member)
    }

    /// Whether `NORMAL` takes a packet that has come by this port.
    pub(super) fn is_admitted(&mut self, in_port: PortNo, vlan: VlanId) -> Result<bool, Abort> {
        let snapshot = self.snapshot;
        let bundle = snapshot.ports.bundle_of(in_port);
        let Some(bond) = snapshot.ports.bond(bundle).filter(|_| bundle != in_port) else { return Ok(true) };
        let to_many = self.key.read_bits(Field::EthDst, GROUP) != 0;
        let is_taken = match bond.admits(in_port, to_many) {
            Admission::Taken => true,
            Admission::Dropped => false,
            Admission::UnlessOwn => {
                let src = self.key.read(Field::EthSrc);
                let known = self.find_station(vlan, src);
                // A station that has moved behind the bond says so to all.
                known.is_none_or(|port| port == bundle) || self.is_gratuitous_arp()
            }
        };
        if !is_taken {
            self.end(DropReason::BondStandby);
        }
        Ok(is_taken)
    }
}
