//! The Internet checksum (RFC 1071), whole and incremental (RFC 1624), and the pseudo
//! headers of IPv4 and IPv6. SCTP's CRC32c is in [`crate::crc32c`].

use crate::key::low_bits;

/// A one's complement sum of 16-bit words, in the making.
///
/// All-zero data sum to 0; any other data to 1..=0xffff, so that 0xffff stands for the
/// multiple of 0xffff.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const ZERO: Self = Self(0);

    /// Adds bytes that start at an even offset; an odd last byte is padded with zero.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // The sum does not depend on byte order but for a swap of the result (RFC 1071
        // §2 (B)), and 32-bit words can be added without carries into 64 bits: that is
        // what compilers turn into vector code.
        let (words, rest) = bytes.as_chunks::<4>();
        let mut native: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        native += u64::from(u32::from_ne_bytes(last));
        Self(self.0 + u64::from(u16::from_be(fold(native))))
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds the lowest `n_words` 16-bit words of a number.
    #[must_use]
    pub fn number(self, number: u128, n_words: usize) -> Self {
        // 32-bit words may be added as well as 16-bit ones: 0x10000 is 1 modulo 0xffff.
        let number = number & low_bits(16 * n_words as u32);
        let words = [number, number >> 32, number >> 64, number >> 96];
        Self(words.iter().fold(self.0, |sum, word| sum + u64::from(*word as u32)))
    }

    /// Adds what a change of the lowest `n_words` words from `old` to `new` does to a
    /// sum (RFC 1624 §3, `~m + m'`).
    #[must_use]
    pub fn change(self, old: u128, new: u128, n_words: usize) -> Self {
        self.number(!old, n_words).number(new, n_words)
    }

    /// Adds another sum.
    #[must_use]
    pub fn sum(self, other: Self) -> Self {
        Self(self.0 + u64::from(other.fold()))
    }

    /// The sum as 16 bits.
    pub fn fold(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the complement of the sum.
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Nothing was added, or only zeros.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// The checksum of bytes by themselves, as in an IPv4 header.
pub fn of(bytes: &[u8]) -> u16 {
    Sum::ZERO.bytes(bytes).checksum()
}

/// The checksum of an IPv4 header without options is right.
#[inline]
pub fn is_right_ipv4(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    // The sum is 0xffff in either byte order (RFC 1071 §2 (B)).
    fold(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()) == 0xffff
}

/// A checksum after its data changed by `change` (RFC 1624 §3, equation 3).
pub fn update(checksum: u16, change: Sum) -> u16 {
    Sum::ZERO.word(!checksum).sum(change).checksum()
}

/// Sum of the IPv4 pseudo header (RFC 9293 §3.1, RFC 768).
pub fn pseudo_ipv4(src: u32, dst: u32, proto: u8, len: usize) -> Sum {
    Sum::ZERO.number(src.into(), 2).number(dst.into(), 2).word(proto.into()).number(len as u128, 2)
}

/// Sum of the IPv6 pseudo header (RFC 8200 §8.1).
pub fn pseudo_ipv6(src: u128, dst: u128, proto: u8, len: usize) -> Sum {
    Sum::ZERO.number(src, 8).number(dst, 8).word(proto.into()).number(len as u128, 2)
}

fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 §4.1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn agrees_with_the_example_of_rfc_1071() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn the_largest_sums_fold_without_loss() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0xffff_0000_0000_0001), 1);
        assert_eq!(of(&[0xff; 65_535]), reference(&[0xff; 65_535]));
        assert_eq!(Sum::ZERO.bytes(&[0; 64]).fold(), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(of(&bytes), reference(&bytes));
        }

        #[test]
        fn incremental_is_whole(mut bytes in proptest::collection::vec(any::<u8>(), 20..60), at in 0_usize..10, new: u32) {
            bytes[0] |= 1; // no all-zero data
            let before = of(&bytes);
            let place = 2 + at;
            let place = place & !1;
            let old = u32::from_be_bytes(bytes[place..place + 4].try_into().unwrap());
            bytes[place..place + 4].copy_from_slice(&new.to_be_bytes());
            let after = update(before, Sum::ZERO.change(old.into(), new.into(), 2));
            prop_assert_eq!(after, of(&bytes));
        }
    }
}
