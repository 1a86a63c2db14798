//! The nearest right spelling of a misspelt word.

/// Longest word that a spelling is sought for.
const MAX_LEN: usize = 40;

/// The name with the fewest letters inserted, left out, changed or swapped, if that is
/// at most a third of the word; the first of equals.
pub(crate) fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let word = word.to_ascii_lowercase();
    if word.is_empty() || word.len() > MAX_LEN {
        return None;
    }
    let limit = (word.len() / 3).max(1);
    names
        .into_iter()
        .filter(|name| name.len().abs_diff(word.len()) <= limit)
        .filter_map(|name| Some((distance(word.as_bytes(), name.as_bytes(), limit)?, name)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edit distance with swaps of neighbours (optimal string alignment), unless it is above the limit. The case of
/// `b` does not matter, `a` is in lower case.
fn distance(a: &[u8], b: &[u8], limit: usize) -> Option<usize> {
    const WIDTH: usize = 2 * MAX_LEN;
    let width = b.len() + 1;
    let (mut before, mut above, mut row) = ([0; WIDTH], [0; WIDTH], [0; WIDTH]);
    if width > WIDTH {
        return None;
    }
    above.iter_mut().enumerate().for_each(|(n, place)| *place = n);
    for (i, x) in a.iter().enumerate() {
        row[0] = i + 1;
        for (j, y) in b.iter().map(u8::to_ascii_lowercase).enumerate() {
            let mut best = (above[j] + usize::from(*x != y)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == y && b[j - 1].eq_ignore_ascii_case(x) {
                best = best.min(before[j - 1] + 1);
            }
            row[j + 1] = best;
        }
        // It never falls below the least of two rows, for a swap reaches over one.
        if row[..width].iter().chain(&above[..width]).all(|distance| *distance > limit) {
            return None;
        }
        (before, above, row) = (above, row, before);
    }
    Some(above[width - 1]).filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let names = ["nw_src", "nw_dst", "output", "resubmit"];
        assert_eq!(nearest("nw_dts", names), Some("nw_dst"));
        assert_eq!(nearest("ouput", names), Some("output"));
        assert_eq!(nearest("RESUBMIT", names), Some("resubmit"));
        assert_eq!(nearest("elephant", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(distance(b"abc", b"aCB", 9), Some(1));
        assert_eq!(distance(b"", b"abc", 9), Some(3));
        assert_eq!(distance(b"", b"abc", 2), None);
    }
}
