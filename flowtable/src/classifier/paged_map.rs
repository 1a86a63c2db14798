//! A hash map that is cheap to copy and then change: entries live in small shared
//! pages, and only the page that changes is copied.

use std::sync::Arc;

/// Average entries of a page at which the number of pages doubles.
const PAGE_FILL: usize = 8;

/// Entries, and a bit for each of 64 kinds of hashes that are among them: most lookups find nothing,
/// and these are spared a look at the entries.
#[derive(Debug, Clone)]
struct Page<V> {
    kinds: u64,
    entries: Arc<Vec<(u64, V)>>,
}

impl<V> Page<V> {
    fn new(entries: Vec<(u64, V)>) -> Self {
        Self { kinds: kinds(&entries), entries: Arc::new(entries) }
    }
}

fn kinds<V>(entries: &[(u64, V)]) -> u64 {
    entries.iter().fold(0, |kinds, (hash, _)| kinds | kind(*hash))
}

/// By the leading bits, which no page is found by.
fn kind(hash: u64) -> u64 {
    1 << (hash >> 58)
}

/// From hashes to values. The hash is the key; the caller tells collisions apart.
///
/// # Cost
/// A copy costs one reference count per page; a change after it, one page.
#[derive(Debug, Clone)]
pub(super) struct PagedMap<V> {
    /// A power of two of them, or none.
    pages: Vec<Page<V>>,
    len: usize,
}

impl<V> Default for PagedMap<V> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

impl<V: Clone + Default> PagedMap<V> {
    /// The value of a hash.
    #[inline]
    pub(super) fn get(&self, hash: u64) -> Option<&V> {
        // Without pages the index is out of range and the answer is "none".
        let page = self.pages.get(self.page_idx(hash)).filter(|page| page.kinds & kind(hash) != 0)?;
        page.entries.iter().find(|(h, _)| *h == hash).map(|(_, value)| value)
    }

    /// Changes the value of a hash, a default one if it is new; removes it where
    /// `change` answers false. Gives back what `change` gave besides.
    pub(super) fn update<R>(&mut self, hash: u64, change: impl FnOnce(&mut V) -> (bool, R)) -> R {
        if self.len >= self.pages.len() * PAGE_FILL {
            self.grow();
        }
        let page_idx = self.page_idx(hash);
        let page = &mut self.pages[page_idx];
        let entries = Arc::make_mut(&mut page.entries);
        let idx = entries.iter().position(|(h, _)| *h == hash).unwrap_or_else(|| {
            entries.push((hash, V::default()));
            page.kinds |= kind(hash);
            self.len += 1;
            entries.len() - 1
        });
        let (keep, answer) = change(&mut entries[idx].1);
        if !keep {
            entries.swap_remove(idx);
            page.kinds = kinds(entries);
            self.len -= 1;
        }
        answer
    }

    /// All values, in no particular order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.pages.iter().flat_map(|page| page.entries.iter().map(|(_, value)| value))
    }

    fn page_idx(&self, hash: u64) -> usize {
        hash as usize & self.pages.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let n_pages = (self.pages.len() * 2).max(1);
        let mut pages = vec![Vec::new(); n_pages];
        for page in std::mem::take(&mut self.pages) {
            for (hash, value) in Arc::unwrap_or_clone(page.entries) {
                pages[hash as usize & (n_pages - 1)].push((hash, value));
            }
        }
        self.pages = pages.into_iter().map(Page::new).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map_and_copies_stay_as_they_were(
            steps in proptest::collection::vec((0..40_u64, 0..4_u8), 0..300),
        ) {
            let (mut map, mut model) = (PagedMap::<u8>::default(), HashMap::new());
            let mut copies = Vec::new();
            for (n, (hash, value)) in steps.into_iter().enumerate() {
                if n % 16 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
                map.update(hash, |slot| { *slot = value; (value != 0, ()) });
                if value == 0 { model.remove(&hash); } else { model.insert(hash, value); }
            }
            copies.push((map, model));
            for (map, model) in copies {
                prop_assert_eq!(map.values().count(), model.len());
                for hash in 0..40 {
                    prop_assert_eq!(map.get(hash), model.get(&hash));
                }
            }
        }
    }
}
