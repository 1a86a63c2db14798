//! A hash of a packet's conversation, for the UDP source port of tunnels
//! (RFC 8926 §3.3, RFC 7348 §5). Without a seed: the same flow takes the same path through
//! the underlay after a restart.

use crate::{key::FlowKey, parse::Signature, wire::ethertype};

/// Hash of addresses, protocol and ports; of the MAC addresses for packets that are not
/// IP. Fragments have no ports, so that all of a packet go the same way.
pub(super) fn flow_hash(key: &FlowKey) -> u32 {
    let mut hash = start(key.eth_type.get(), key.nw_proto);
    match key.eth_type.get() {
        ethertype::IPV4 => hash = mix(hash, pair(key.nw_src.get(), key.nw_dst.get())),
        ethertype::IPV6 => hash = mix_ipv6(hash, [key.ipv6_src.get(), key.ipv6_dst.get()]),
        _ => {
            for mac in [key.eth_src, key.eth_dst] {
                hash = mac.iter().fold(hash, |hash, byte| hash << 8 ^ u64::from(*byte) ^ hash >> 56);
                hash = mix(hash, 0);
            }
        }
    }
    if key.nw_frag == 0 {
        hash = mix(hash, pair(key.tp_src.get().into(), key.tp_dst.get().into()));
    }
    finish(hash)
}

/// The same of a packet that has a signature.
#[inline]
pub(super) fn flow_hash_of_signature(signature: &Signature) -> u32 {
    let (eth_type, proto) = signature.kind();
    let hash = start(eth_type, proto);
    let hash = if eth_type == ethertype::IPV4 {
        let (src, dst) = signature.ipv4_addresses();
        mix(hash, pair(src, dst))
    } else {
        let (src, dst) = signature.ipv6_addresses();
        mix_ipv6(hash, [src, dst])
    };
    let (src, dst) = signature.ports();
    finish(mix(hash, pair(src.into(), dst.into())))
}

fn start(eth_type: u16, proto: u8) -> u64 {
    u64::from(eth_type) << 8 | u64::from(proto)
}

fn pair(a: u32, b: u32) -> u64 {
    u64::from(a) << 32 | u64::from(b)
}

fn mix_ipv6(hash: u64, addresses: [u128; 2]) -> u64 {
    addresses.iter().fold(hash, |hash, address| mix(mix(hash, *address as u64), (address >> 64) as u64))
}

fn finish(hash: u64) -> u32 {
    (mix(hash, 0) >> 32) as u32
}

/// One step of a multiply-and-fold hash.
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{build, testing};

    #[test]
    fn ports_spread_flows_and_fragments_stay_together() {
        let mut key = FlowKey::zero();
        key.eth_type.set(0x0800);
        let mut hashes: Vec<u32> = (0..1000)
            .map(|port| {
                key.tp_src.set(port);
                flow_hash(&key)
            })
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 1000);
        // First fragments have ports in their key, later ones have none.
        key.nw_frag = 1;
        let first = flow_hash(&key);
        key.nw_frag = 3;
        key.tp_src.set(0);
        assert_eq!(flow_hash(&key), first);
    }

    proptest! {
        #[test]
        fn a_signature_has_the_hash_of_its_key(key in testing::frame_key()) {
            let (packet, key) = testing::parsed(&build::frame_from_key(&key, 0));
            if let Some((signature, _)) = Signature::of(packet.bytes(), packet.in_port) {
                prop_assert_eq!(flow_hash_of_signature(&signature), flow_hash(&key));
            }
        }
    }

    #[test]
    fn frames_that_are_not_ip_are_told_apart_by_their_addresses() {
        let mut key = FlowKey::zero();
        key.eth_src = [2, 0, 0, 0, 0, 1];
        let one = flow_hash(&key);
        key.eth_src = [2, 0, 0, 0, 0, 2];
        assert_ne!(flow_hash(&key), one);
        std::mem::swap(&mut key.eth_src, &mut key.eth_dst);
        assert_ne!(flow_hash(&key), one);
    }
}
