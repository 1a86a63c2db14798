//! Choices by a hash of the packet. A choice holds for all packets that agree in what was
//! hashed, for hashing reads it.

use std::hash::Hasher;

use rapidhash::quality::RapidHasher;

use super::{
    Tracer,
    walk::{Abort, Walk},
    write::holds,
};
use crate::{
    field::{Field, Prerequisites},
    flow::{Bundle, BundleAlgorithm, HashFields, Multipath, MultipathAlgorithm},
    types::PortNo,
};

/// Rounds of `iter_hash` before it takes the remainder instead.
const MAX_ROUNDS: u32 = 64;

impl<T: Tracer> Walk<'_, T> {
    /// Writes the number of the chosen link.
    pub(super) fn multipath(&mut self, multipath: &Multipath) -> Result<(), Abort> {
        let Multipath { fields, basis, algorithm, n_links, argument, dst } = multipath;
        let hash = self.hash(*fields, *basis)?;
        let link = choose(*algorithm, hash, (*n_links).max(1), *argument);
        self.note(format_args!("link {link} of {n_links}"));
        self.set(dst.field, u128::from(link) << dst.start, dst.bits())
    }

    /// Sends to the chosen member, or writes its number; a member that is down is not
    /// chosen, and when all are, the number is that of "no port".
    pub(super) fn bundle(&mut self, bundle: &Bundle) -> Result<(), Abort> {
        let ports = &self.snapshot.ports;
        let is_up = |port: &PortNo| ports.get(*port).is_some_and(|info| info.up);
        let chosen = match bundle.algorithm {
            BundleAlgorithm::ActiveBackup => bundle.members.iter().copied().find(is_up),
            BundleAlgorithm::HighestWeight => {
                let hash = self.hash(bundle.fields, bundle.basis)?;
                let up = bundle.members.iter().enumerate().filter(|(_, port)| is_up(port));
                up.max_by_key(|(idx, _)| weight(hash, *idx as u32)).map(|(_, port)| *port)
            }
        };
        match bundle.dst {
            Some(dst) => {
                let number = u128::from(chosen.unwrap_or(PortNo::NONE).get());
                self.set(dst.field, number << dst.start, dst.bits())
            }
            None => self.output(chosen.unwrap_or(PortNo::NONE)),
        }
    }

    fn hash(&mut self, fields: HashFields, basis: u16) -> Result<u32, Abort> {
        let mut hasher = RapidHasher::new(basis.into());
        if let Some(field) = fields.plain() {
            self.see_header(field.info().prerequisites)?;
            if holds(&mut self.key, field.info().prerequisites) {
                hasher.write_u128(self.key.read(field));
            }
            return Ok(hasher.finish() as u32);
        }
        self.see_payload()?;
        if fields == HashFields::SymmetricL4 {
            let both = self.key.read(Field::EthSrc) ^ self.key.read(Field::EthDst);
            hasher.write_u128(both);
            hasher.write_u128(self.key.read(Field::VlanTci) & 0xfff);
        }
        self.hash_l3(&mut hasher, fields);
        Ok(hasher.finish() as u32)
    }

    fn hash_l3(&mut self, hasher: &mut RapidHasher<'_>, fields: HashFields) {
        let eth_type = self.key.read(Field::EthType);
        hasher.write_u128(eth_type);
        let (src, dst) = match eth_type {
            0x0800 => (Field::NwSrc, Field::NwDst),
            0x86dd => (Field::Ipv6Src, Field::Ipv6Dst),
            _ => return,
        };
        let both = self.key.read(src) ^ self.key.read(dst);
        hasher.write_u128(both);
        hasher.write_u128(self.key.read(Field::NwProto));
        let udp = fields != HashFields::SymmetricL3L4;
        let ports = [
            (Prerequisites::Tcp, Field::TcpSrc, Field::TcpDst, true),
            (Prerequisites::Sctp, Field::SctpSrc, Field::SctpDst, true),
            (Prerequisites::Udp, Field::UdpSrc, Field::UdpDst, udp),
        ];
        for (needs, src, dst, hashed) in ports {
            if hashed && holds(&mut self.key, needs) {
                let both = self.key.read(src) ^ self.key.read(dst);
                hasher.write_u128(both);
            }
        }
    }
}

fn choose(algorithm: MultipathAlgorithm, hash: u32, n_links: u32, argument: u32) -> u32 {
    match algorithm {
        MultipathAlgorithm::ModuloN => hash % n_links,
        MultipathAlgorithm::HashThreshold => ((u64::from(hash) * u64::from(n_links)) >> 32) as u32,
        MultipathAlgorithm::HighestWeight => (0..n_links).max_by_key(|link| weight(hash, *link)).unwrap_or(0),
        MultipathAlgorithm::IterHash => {
            // The least power of two that has room for the argument's range.
            let range = argument.max(n_links).checked_next_power_of_two().unwrap_or(u32::MAX);
            let rounds = (0..MAX_ROUNDS).map(|round| weight(hash, round) as u32 & range.wrapping_sub(1));
            rounds.into_iter().find(|link| *link < n_links).unwrap_or(hash % n_links)
        }
    }
}

/// How well a link suits a hash.
fn weight(hash: u32, link: u32) -> u64 {
    let mut hasher = RapidHasher::new(hash.into());
    hasher.write_u32(link);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_used_alike_and_within_bounds() {
        for (_, algorithm) in MultipathAlgorithm::ALL {
            for n_links in [1, 2, 3, 7, 8] {
                let mut uses = vec![0_u32; n_links as usize];
                for seed in 0..4000 {
                    let link = choose(*algorithm, weight(9, seed) as u32, n_links, 0);
                    uses[link as usize] += 1;
                }
                let fair = 4000 / n_links;
                assert!(uses.iter().all(|n| (fair * 8 / 10..=fair * 12 / 10).contains(n)), "{uses:?}");
            }
        }
    }

    #[test]
    fn a_link_more_moves_only_what_it_gets() {
        for seed in 0..1000 {
            let hash = weight(1, seed) as u32;
            let before = choose(MultipathAlgorithm::HighestWeight, hash, 5, 0);
            let after = choose(MultipathAlgorithm::HighestWeight, hash, 6, 0);
            assert!(after == before || after == 5);
        }
    }
}
