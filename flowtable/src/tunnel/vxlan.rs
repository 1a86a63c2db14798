//! The VXLAN header (RFC 7348 §5): one flag, 24 bits of network identifier. Reserved bits
//! are zero when sent and not looked at when received.

use zerocopy::{FromBytes, network_endian::U32};

use super::{Decoded, TunnelSpec};

const LEN: usize = 8;
/// The network identifier is valid.
const VNI_PRESENT: u32 = 0x0800_0000;

/// Nothing when the header is cut off or has no network identifier.
pub(super) fn decode(payload: &[u8]) -> Option<Decoded> {
    let ([flags, vni], _) = <[U32; 2]>::read_from_prefix(payload).ok()?;
    let valid = flags.get() & VNI_PRESENT != 0;
    valid.then_some(Decoded { len: LEN, vni: vni.get() >> 8, oam: false, ovn: None })
}

/// Appends the header. VXLAN has no options: `spec`'s stay behind.
pub(super) fn encode(spec: &TunnelSpec, out: &mut Vec<u8>) {
    out.extend_from_slice(&VNI_PRESENT.to_be_bytes());
    out.extend_from_slice(&(spec.vni.get() << 8).to_be_bytes());
}
