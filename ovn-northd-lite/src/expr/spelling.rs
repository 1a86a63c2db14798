//! The nearest known word to a misspelt one.

/// Longest word worth a comparison.
const MAX_LEN: usize = 64;

/// The known word that differs least from `wrong`, if any is near enough to be meant.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if wrong.len() > MAX_LEN {
        return None;
    }
    let limit = (wrong.len() / 3).max(1);
    // No word is nearer than the two differ in length.
    known
        .filter(|word| word.len().abs_diff(wrong.len()) <= limit)
        .map(|word| (distance(wrong, word), word))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, word)| word)
}

/// Insertions, removals and replacements of bytes from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let above = *slot;
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            *slot = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(a.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_found_and_a_stranger_is_not() {
        let known = ["tcp.dst", "udp.dst", "ip4.src"];
        assert_eq!(nearest("tcp.dts", known.into_iter()), Some("tcp.dst"));
        assert_eq!(nearest("ipv4.src", known.into_iter()), Some("ip4.src"));
        assert_eq!(nearest("frobnicate", known.into_iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
