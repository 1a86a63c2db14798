//! What happens to a packet before the tables: ports that take nothing, frames of the bridges'
//! own protocols, ports that the spanning tree has blocked, samples, accounts, copies for mirrors.

use super::{
    Tracer,
    walk::{Abort, Walk},
};
use crate::{
    account::{FlowId, Way},
    drop::DropReason,
    field::Field,
    flow::{PuntReason, ToController},
    key::nw_frag,
    port::{Bridging, TreeState},
    program::Emit,
    types::PortNo,
};

/// Addresses that bridges keep for themselves, but for their last bits (IEEE 802.1Q §8.6.3).
const LINK_LOCAL: u128 = 0x0180_c200_0000;
const LINK_LOCAL_BITS: u128 = 0xffff_ffff_fff0;
/// Where ends of a level hear that others are there; the last bits are the level.
const FAULT_ADDRESSES: u128 = 0x0180_c200_0030;
const FAULT_BITS: u128 = 0xffff_ffff_fff8;
const FAULT_TYPE: u128 = 0x8902;
/// UDP port of sessions over one hop.
const BFD_PORT: u128 = 3784;

impl<T: Tracer> Walk<'_, T> {
    /// Does what is to be done before the tables; `true`: that is all.
    pub(super) fn is_stopped_at_port(&mut self) -> Result<bool, Abort> {
        let snapshot = self.snapshot;
        if !snapshot.ports.has_guards() {
            return Ok(false);
        }
        let Ok(in_port) = PortNo::new(self.key.read(Field::InPort) as u32) else { return Ok(false) };
        let bridging = snapshot.ports.bridging(in_port);
        if !bridging.receives {
            self.end(DropReason::PortClosed);
            return Ok(true);
        }
        if bridging.listens_at_all() && self.is_for_host(bridging) {
            self.note(format_args!("the host speaks this protocol itself"));
            self.punt_protocol()?;
            return Ok(true);
        }
        if bridging.tree != TreeState::Forwarding {
            if bridging.tree == TreeState::Learning {
                self.learn_from(in_port)?;
            }
            self.end(DropReason::PortBlocked);
            return Ok(true);
        }
        for sample in snapshot.ports.sampling() {
            self.sample(sample)?;
        }
        if let Some(accounts) = snapshot.ports.accounts()
            && accounts.wants(self.key.read(Field::EthType) as u16)
        {
            self.accounted = Some(FlowId::read(&mut self.key));
        }
        self.mirror(in_port, true)?;
        Ok(false)
    }

    /// Has the packets counted as those of their flow, at the end of the walk.
    pub(super) fn account(&mut self) {
        let ports = &self.snapshot.ports;
        let Some((flow, accounts)) = self.accounted.take().zip(ports.accounts()) else { return };
        let leaves = |emit: &&Emit| {
            let is_real = emit.port.is_real() || emit.port == PortNo::LOCAL;
            emit.ct.is_none() && is_real && !ports.is_mirror_port(emit.port)
        };
        let mut ways = self.emits.iter().filter(leaves).map(|emit| emit.port);
        let way = match (ways.next(), ways.next()) {
            (None, _) => Way::Nowhere,
            (Some(port), None) => Way::Port(port),
            (Some(_), Some(_)) => Way::Several,
        };
        self.tally.groups.push(accounts.open(flow, way));
    }

    /// It is a frame of a protocol that the host itself speaks at the port.
    fn is_for_host(&mut self, bridging: &Bridging) -> bool {
        // Rules do not decide about such packets.
        self.key.has_acted_on_headers();
        if bridging.listens != 0 && self.is_link_local() {
            return bridging.listens >> self.key.read_bits(Field::EthDst, 0xf) & 1 != 0;
        }
        bridging.fault_level.is_some_and(|level| self.is_continuity_check(level))
            || bridging.has_bfd && self.is_bfd()
    }

    /// It says that a link is there, at this level or below (IEEE 802.1Q §20.1.1, table 8-19).
    fn is_continuity_check(&mut self, level: u8) -> bool {
        self.key.read(Field::EthType) == FAULT_TYPE
            && self.key.read_bits(Field::EthDst, FAULT_BITS) == FAULT_ADDRESSES
            && self.key.read_bits(Field::EthDst, 0x7) <= level.into()
    }

    /// It is of a session over one hop (RFC 5881 §4, §5), and was not forwarded by anybody.
    fn is_bfd(&mut self) -> bool {
        let key = &mut self.key;
        matches!(key.read(Field::EthType), 0x0800 | 0x86dd)
            && key.read(Field::NwProto) == 17
            && key.read_bits(Field::NwFrag, u128::from(nw_frag::LATER)) == 0
            && key.read(Field::UdpDst) == BFD_PORT
            && key.read(Field::NwTtl) == 255
    }

    /// For the host itself.
    pub(super) fn punt_protocol(&mut self) -> Result<(), Abort> {
        self.punt(&ToController { reason: PuntReason::Protocol, ..ToController::default() })
    }

    /// It is for the bridge at the other end of the link.
    pub(super) fn is_link_local(&mut self) -> bool {
        self.key.read_bits(Field::EthDst, LINK_LOCAL_BITS) == LINK_LOCAL
    }
}
