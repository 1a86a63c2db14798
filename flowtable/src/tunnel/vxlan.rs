//! The VXLAN header (RFC 7348 §5): one flag, 24 bits of network identifier; and its extension
//! by a group policy (draft-smith-vxlan-group-policy-05): a flag that says so, two flags
//! about the policy, 16 bits of group. Reserved bits are zero when sent and not looked at when
//! received.

use zerocopy::{FromBytes, network_endian::U32};

use super::{Decoded, GroupPolicy, TunnelSpec, option_map::Options};

const LEN: usize = 8;
/// The network identifier is valid.
const VNI_PRESENT: u32 = 0x0800_0000;
/// The group policy is.
const POLICY_PRESENT: u32 = 0x8000_0000;
/// Where the policy's flags are: D (do not learn), A (applied).
const POLICY_FLAGS_SHIFT: u32 = 16;
const POLICY_FLAGS: u8 = 0x48;

/// Nothing when the header is cut off or has no network identifier.
pub(super) fn decode(payload: &[u8]) -> Option<Decoded> {
    let ([flags, vni], _) = <[U32; 2]>::read_from_prefix(payload).ok()?;
    let flags = flags.get();
    let policy = (flags & POLICY_PRESENT != 0).then_some(GroupPolicy {
        flags: (flags >> POLICY_FLAGS_SHIFT) as u8 & POLICY_FLAGS,
        id: flags as u16,
    });
    let policy = policy.unwrap_or_default();
    let valid = flags & VNI_PRESENT != 0;
    valid.then_some(Decoded {
        len: LEN,
        vni: vni.get() >> 8,
        has_key: true,
        oam: false,
        has_checksum: false,
        options: Options::NONE,
        policy,
    })
}

/// Appends the header. VXLAN has no options: `spec`'s stay behind.
pub(super) fn encode(spec: &TunnelSpec, out: &mut Vec<u8>) {
    let GroupPolicy { flags, id } = spec.policy;
    let flags = flags & POLICY_FLAGS;
    let policy = if (flags, id) == (0, 0) {
        0
    } else {
        POLICY_PRESENT | u32::from(flags) << POLICY_FLAGS_SHIFT | u32::from(id)
    };
    out.extend_from_slice(&(VNI_PRESENT | policy).to_be_bytes());
    out.extend_from_slice(&(spec.vni.get() << 8).to_be_bytes());
}
