//! Address translation: what a rule asks for, and the choice of a translation that no
//! other connection has.
//!
//! A translation is the tuple of the answers: packets of the originator become its
//! reverse, answers become the reverse of the originator's tuple. That no two
//! connections have the same is therefore all that makes it a bijection, and the index
//! says so.

use std::net::IpAddr;

use super::tuple::Tuple;
use crate::wire::ip_proto;

/// Ports that are tried for an address in a row; then half as many from elsewhere.
const MAX_TRIES: u32 = 128;
/// Fewest that are tried in a row.
const MIN_TRIES: u32 = 16;
/// Tuples that are tried for a connection in all.
const MAX_TOTAL: u32 = 2048;

/// Which address is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// The originator's.
    Source,
    /// The responder's.
    Destination,
}

/// Where the search among the possible ports begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum NatOrder {
    /// With the port as it is.
    #[default]
    Keep,
    /// By a hash of the connection.
    Hash,
    /// Anywhere.
    Random,
}

/// What new connections shall be translated to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NatRange {
    /// Which address.
    pub kind: NatKind,
    /// First and last address; `None`, or all zero, leaves the address and changes the
    /// port where it is taken.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// First and last port.
    pub ports: Option<(u16, u16)>,
    /// Order of ports.
    pub order: NatOrder,
    /// The same originator always gets the same address.
    pub persistent: bool,
}

/// Translation in a `ct` action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nat {
    /// As the connection has it.
    Existing,
    /// As the connection has it; a new one gets a translation from the range.
    New(NatRange),
}

impl NatRange {
    /// First and last address in bits for a connection; nothing when the range is of the other
    /// kind of address.
    fn addresses(&self, tuple: &Tuple) -> Option<(u128, u128)> {
        let own = match self.kind {
            NatKind::Source => tuple.src,
            NatKind::Destination => tuple.dst,
        };
        let (first, last) = match self.addresses {
            None => return Some((own, own)),
            Some((IpAddr::V4(first), IpAddr::V4(last))) if !tuple.ipv6 => {
                (first.to_bits().into(), last.to_bits().into())
            }
            Some((IpAddr::V6(first), IpAddr::V6(last))) if tuple.ipv6 => (first.to_bits(), last.to_bits()),
            Some(_) => return None,
        };
        if (first, last) == (0, 0) {
            return Some((own, own));
        }
        (first <= last).then_some((first, last))
    }

    /// Ports to try, and where to begin; nothing where only the port as it is will do.
    fn ports(&self, tuple: &Tuple, hash: u32, random: u64) -> Option<(u16, u16, u16)> {
        let has_ports = matches!(tuple.proto, ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP);
        let own = match self.kind {
            NatKind::Source => tuple.src_port,
            NatKind::Destination => tuple.dst_port,
        };
        let (first, last) = match (self.kind, self.ports) {
            (_, Some((first, last))) if has_ports => (first.min(last), last.max(first)),
            (NatKind::Source, _) if tuple.is_icmp() => (0, u16::MAX),
            // Privileged ports stay privileged.
            (NatKind::Source, None) if has_ports => match own {
                0..512 => (1, 511),
                512..1024 => (600, 1023),
                _ => (1024, u16::MAX),
            },
            _ => return None,
        };
        let n = u32::from(last - first) + 1;
        let begin = match self.order {
            NatOrder::Keep if (first..=last).contains(&own) => own,
            NatOrder::Random => first + (random % u64::from(n)) as u16,
            NatOrder::Keep | NatOrder::Hash => first + (hash % n) as u16,
        };
        Some((first, last, begin))
    }

    /// The tuple of the answers for a new connection, such that `is_free` accepts it.
    pub(super) fn choose(
        &self,
        tuple: &Tuple,
        secrets: &[u64; 4],
        mut random: impl FnMut() -> u64,
        mut is_free: impl FnMut(&Tuple) -> bool,
    ) -> Option<Tuple> {
        let (first, last) = self.addresses(tuple)?;
        let n_addresses = (last - first).saturating_add(1);
        let hash = tuple.hash(secrets);
        let originator = Tuple { dst: 0, src_port: 0, dst_port: 0, proto: 0, ..*tuple };
        let begin = match (self.persistent, self.order) {
            (true, _) => u128::from(originator.hash(secrets)),
            (false, NatOrder::Random) => random().into(),
            (false, _) => u128::from(hash.rotate_left(16)),
        };
        let mut n_left = MAX_TOTAL;
        // With `persistent` there is one address for each originator.
        let n_rounds = if self.persistent { 1 } else { n_addresses };
        let mut round = 0;
        while round < n_rounds && n_left > 0 {
            let address = first + (begin % n_addresses + round) % n_addresses;
            if let Some(found) =
                self.on_address(tuple, address, (hash, &mut random), &mut n_left, &mut is_free)
            {
                return Some(found);
            }
            round += 1;
        }
        None
    }

    fn on_address(
        &self,
        tuple: &Tuple,
        address: u128,
        (hash, random): (u32, &mut impl FnMut() -> u64),
        n_left: &mut u32,
        is_free: &mut impl FnMut(&Tuple) -> bool,
    ) -> Option<Tuple> {
        let mut attempt = |port: Option<u16>| {
            *n_left = n_left.saturating_sub(1);
            Some(self.answers(tuple, address, port)).filter(|answers| is_free(answers))
        };
        let Some((first, last, mut begin)) = self.ports(tuple, hash, random()) else { return attempt(None) };
        let n = u32::from(last - first) + 1;
        let mut tries = MAX_TRIES.min(n);
        loop {
            for step in 0..tries {
                let port = first + ((u32::from(begin.wrapping_sub(first)) + step) % n) as u16;
                if let Some(found) = attempt(Some(port)) {
                    return Some(found);
                }
            }
            if tries == n || tries / 2 < MIN_TRIES {
                return None;
            }
            tries /= 2;
            begin = first + (random() % u64::from(n)) as u16;
        }
    }

    /// The tuple of the answers to a translated packet.
    fn answers(&self, tuple: &Tuple, address: u128, port: Option<u16>) -> Tuple {
        let mut answers = tuple.reversed();
        match self.kind {
            NatKind::Source => answers.dst = address,
            NatKind::Destination => answers.src = address,
        }
        if let Some(port) = port {
            match self.kind {
                _ if tuple.is_icmp() => answers.src_port = port,
                NatKind::Source => answers.dst_port = port,
                NatKind::Destination => answers.src_port = port,
            }
        }
        answers
    }
}
