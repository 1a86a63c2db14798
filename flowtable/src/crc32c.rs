//! CRC32c, the checksum of SCTP (RFC 9260 appendix A), whole and incremental.

/// The Castagnoli polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Continues a raw CRC, one without the inversions at start and end.
fn extend(crc: u32, bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(crc, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// CRC32c of the parts of a message in order.
pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    !parts.into_iter().fold(u32::MAX, |crc, part| extend(crc, part.iter().copied()))
}

/// What to exclusive-or to the CRC of a message whose first bytes changed: `change` is
/// old ^ new of those bytes, `n_after` how many bytes follow. The CRC is linear, so an
/// error in the old one stays visible in the new one.
pub fn change(change: [u8; 4], n_after: usize) -> u32 {
    extend(extend(0, change), std::iter::repeat_n(0, n_after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_vectors_of_rfc_3720() {
        // Appendix B.4.
        assert_eq!(of([&[0_u8; 32][..]]), 0x8a91_36aa);
        assert_eq!(of([&[0xff_u8; 32][..]]), 0x62a8_ab43);
        let up: Vec<u8> = (0..32).collect();
        assert_eq!(of([&up[..10], &up[10..]]), 0x46dd_794e);
    }

    #[test]
    fn a_change_is_the_difference_of_whole_sums() {
        let old: Vec<u8> = (0..77).map(|i| i * 3).collect();
        let mut new = old.clone();
        new[..4].copy_from_slice(&[9, 8, 7, 6]);
        let xor = std::array::from_fn(|i| old[i] ^ new[i]);
        assert_eq!(of([&old[..]]) ^ of([&new[..]]), change(xor, 73));
    }
}
