//! The sets of capabilities of this thread.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::role::Kept;

/// Capabilities have numbers below this one.
const N_CAPABILITIES: u32 = 64;

/// What became of the capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Those in effect now, as bits.
    pub effective: u64,
    /// The bounding set has more, and this process may not change that (it has no CAP_SETPCAP). It gains nothing by
    /// it: it has given up new privileges.
    pub is_bounding_wider: bool,
}

/// Gives up all but these.
pub(crate) fn keep(kept: Kept) -> io::Result<Outcome> {
    // The bounding set first: who may change it is a capability too.
    let is_bounding_wider = !bound(kept.permitted)?;
    clear_ambient_capability_set()?;
    let now = capabilities(None)?;
    let sets = CapabilitySets {
        effective: now.effective & kept.effective,
        permitted: now.permitted & kept.permitted,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    Ok(Outcome { effective: sets.effective.bits(), is_bounding_wider })
}

/// Limits the bounding set to these; `false`: the process may not.
fn bound(wanted: CapabilitySet) -> io::Result<bool> {
    for number in 0..N_CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            // This kernel knows no more of them.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
            Ok(is_there) if !is_there || wanted.contains(one) => continue,
            Ok(_) => {}
        }
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}
