//! Which bucket of a select group a packet gets.
//!
//! The hash is made of fields that are read from the tracked key, and so recorded: all
//! packets of a cache entry have the same hash. The bucket is chosen by weighted
//! rendezvous (Schindelhauer and Schomaker 2005): each bucket draws a lot from the hash and its
//! own number, and the best lot wins. Shares follow the weights, and when a bucket comes
//! or goes, only packets from or to it move.

use super::write::holds;
use crate::{
    field::Field,
    group::{Bucket, Selection, SelectionMethod},
    key::{Tracked, nw_frag},
};

/// The bucket that a packet with this hash gets; the hash is only made where there is a
/// choice.
pub(super) fn choose<'a>(live: &[&'a Bucket], hash: impl FnOnce() -> u64) -> Option<&'a Bucket> {
    let mut weighty = live.iter().filter(|bucket| bucket.weight > 0);
    let first = *weighty.next()?;
    if weighty.clone().next().is_none() {
        return Some(first);
    }
    let hash = hash();
    let lot = |bucket: &Bucket| {
        // Uniform in (0, 1), never at its ends: the 53 bits of a float, and a half.
        let draw = mix(hash, u64::from(bucket.id.get())) >> 11;
        let uniform = (draw as f64 + 0.5) / (1_u64 << 53) as f64;
        -uniform.ln() / f64::from(bucket.weight)
    };
    let mut best = (lot(first), first);
    for bucket in weighty {
        let lot = lot(bucket);
        if lot < best.0 {
            best = (lot, bucket);
        }
    }
    Some(best.1)
}

/// The hash of a packet, as the group wants it.
pub(super) fn hash(selection: &Selection, seed: u64, key: &mut Tracked) -> u64 {
    let hash = mix(0, seed);
    match selection.method {
        SelectionMethod::Hash if !selection.fields.is_empty() => {
            selection.fields.iter().fold(hash, |hash, (field, bits)| {
                // A header that is not there is not hashed.
                if holds(key, field.info().prerequisites) {
                    add(hash, key.read_bits(*field, *bits))
                } else {
                    hash
                }
            })
        }
        SelectionMethod::DpHash if selection.param == 1 => of_conversation(hash, key, true),
        SelectionMethod::Default | SelectionMethod::Hash | SelectionMethod::DpHash => {
            of_conversation(hash, key, false)
        }
    }
}

/// Addresses, protocol and ports; MAC addresses for what is not IP. Fragments count
/// without ports, so that all of a packet go the same way.
pub(super) fn of_conversation(mut hash: u64, key: &mut Tracked, is_symmetric: bool) -> u64 {
    use Field::{EthDst, EthSrc, EthType, Ipv6Dst, Ipv6Src, NwDst, NwFrag, NwProto, NwSrc};
    let pair = |hash: u64, key: &mut Tracked, src: Field, dst: Field| {
        let (src, dst) = (key.read(src), key.read(dst));
        if is_symmetric { add(add(hash, src.min(dst)), src.max(dst)) } else { add(add(hash, src), dst) }
    };
    let eth_type = key.read(EthType);
    hash = add(hash, eth_type);
    hash = match eth_type {
        0x0800 => pair(hash, key, NwSrc, NwDst),
        0x86dd => pair(hash, key, Ipv6Src, Ipv6Dst),
        _ => return pair(hash, key, EthSrc, EthDst),
    };
    let proto = key.read(NwProto);
    hash = add(hash, proto);
    let is_fragment = key.read_bits(NwFrag, nw_frag::ANY.into()) != 0;
    match proto {
        6 if !is_fragment => pair(hash, key, Field::TcpSrc, Field::TcpDst),
        17 if !is_fragment => pair(hash, key, Field::UdpSrc, Field::UdpDst),
        132 if !is_fragment => pair(hash, key, Field::SctpSrc, Field::SctpDst),
        _ => hash,
    }
}

/// Of a station in a VLAN.
pub(super) fn of_source(address: u128, vid: u16) -> u64 {
    add(u64::from(vid), address)
}

fn add(hash: u64, value: u128) -> u64 {
    mix(mix(hash, value as u64), (value >> 64) as u64)
}

/// One step of a multiply-and-fold hash, with a finish that spreads to all bits.
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash.rotate_left(23) ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    let folded = product as u64 ^ (product >> 64) as u64;
    let folded = (folded ^ folded >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    folded ^ folded >> 29
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::FlowKey, types::BucketId};

    fn buckets(weights: &[u16]) -> Vec<Bucket> {
        let bucket = |(id, weight): (usize, &u16)| Bucket {
            weight: *weight,
            ..Bucket::new(BucketId::new(id as u32).unwrap(), vec![])
        };
        weights.iter().enumerate().map(bucket).collect()
    }

    fn udp(src: u16) -> FlowKey {
        let mut key = FlowKey::zero();
        key.eth_type.set(0x0800);
        key.nw_proto = 17;
        (key.nw_src, key.nw_dst) = (0x0a00_0001.into(), 0x0a00_0002.into());
        (key.tp_src, key.tp_dst) = (src.into(), 53.into());
        key
    }

    fn share(buckets: &[Bucket], n: u16) -> Vec<usize> {
        let live: Vec<_> = buckets.iter().collect();
        let mut counts = vec![0; buckets.len()];
        for src in 0..n {
            let key = &mut Tracked::new(udp(src));
            let chosen = choose(&live, || hash(&Selection::default(), 7, key)).unwrap();
            counts[chosen.id.get() as usize] += 1;
        }
        counts
    }

    #[test]
    fn shares_follow_the_weights() {
        let n = 20_000;
        let weights = [1_u16, 2, 0, 5, 12];
        for (count, weight) in share(&buckets(&weights), n).iter().zip(weights) {
            let expected = f64::from(n) * f64::from(weight) / 20.0;
            // Five standard deviations.
            let bound = 5.0 * (expected + 1.0).sqrt();
            assert!((*count as f64 - expected).abs() <= bound, "{count} for {weight}");
        }
        assert_eq!(share(&buckets(&[0, 0]), 0), [0, 0]);
        let none = buckets(&[0, 0]);
        assert!(choose(&none.iter().collect::<Vec<_>>(), || 0).is_none());
    }

    #[test]
    fn only_packets_of_a_bucket_that_goes_move() {
        let all = buckets(&[3, 1, 4, 1]);
        let (four, three) = (all.iter().collect::<Vec<_>>(), all.iter().skip(1).collect::<Vec<_>>());
        for hash in (0..5000_u64).map(|n| mix(n, 1)) {
            let before = choose(&four, || hash).unwrap().id;
            let after = choose(&three, || hash).unwrap().id;
            assert!(before == after || before == all[0].id);
        }
    }

    #[test]
    fn what_is_hashed_is_recorded_and_nothing_else() {
        let by_source = Selection {
            method: SelectionMethod::Hash,
            param: 0,
            fields: vec![(Field::NwSrc, 0xffff_ff00), (Field::TcpDst, 0xffff)],
        };
        let mut key = Tracked::new(udp(1));
        hash(&by_source, 0, &mut key);
        assert_eq!(key.mask().get(Field::NwSrc), 0xffff_ff00);
        assert_eq!((key.mask().get(Field::NwDst), key.mask().get(Field::UdpDst)), (0, 0));
        let mut key = Tracked::new(udp(1));
        hash(&Selection::default(), 0, &mut key);
        assert_eq!((key.mask().get(Field::UdpSrc), key.mask().get(Field::UdpDst)), (0xffff, 0xffff));
    }

    #[test]
    fn a_symmetric_hash_is_the_same_both_ways() {
        let symmetric = Selection { method: SelectionMethod::DpHash, param: 1, fields: vec![] };
        let mut there = udp(4000);
        let of = |key: &FlowKey, selection: &Selection| hash(selection, 1, &mut Tracked::new(*key));
        let (one_way, plain) = (of(&there, &symmetric), of(&there, &Selection::default()));
        std::mem::swap(&mut there.nw_src, &mut there.nw_dst);
        std::mem::swap(&mut there.tp_src, &mut there.tp_dst);
        assert_eq!(of(&there, &symmetric), one_way);
        assert_ne!(of(&there, &Selection::default()), plain);
    }
}
