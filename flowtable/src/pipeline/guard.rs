//! What happens to a packet before the tables: ports that take nothing, frames of the bridges'
//! own protocols, ports that the spanning tree has blocked, samples, copies for mirrors.

use super::{
    Tracer,
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    field::Field,
    flow::{PuntReason, ToController},
    port::TreeState,
    types::PortNo,
};

/// Addresses that bridges keep for themselves, but for their last bits (IEEE 802.1Q §8.6.3).
const LINK_LOCAL: u128 = 0x0180_c200_0000;
const LINK_LOCAL_BITS: u128 = 0xffff_ffff_fff0;

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
        if bridging.listens != 0
            && self.is_link_local()
            && bridging.listens >> self.key.read_bits(Field::EthDst, 0xf) & 1 != 0
        {
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
        if let Some(sample) = snapshot.ports.sampling() {
            self.sample(sample)?;
        }
        self.mirror(in_port, true)?;
        Ok(false)
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
