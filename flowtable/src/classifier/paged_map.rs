//! A hash map that is cheap to copy and then change: entries live in small shared
//! pages, and only the page that changes is copied. Many pages are in shared chunks themselves.

use std::sync::Arc;

/// Average entries of a page at which the number of pages doubles.
const PAGE_FILL: usize = 8;
/// Pages of a chunk. Fewer pages are not in chunks: there is one step less to an entry then.
const CHUNK: usize = 256;

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
/// A copy costs one reference count per page, of many pages one per 256; a change after it, one page and, where
/// there are many, the counts of 256.
#[derive(Debug, Clone)]
pub(super) struct PagedMap<V> {
    pages: Pages<V>,
    len: usize,
}

/// A power of two of pages, or none.
#[derive(Debug, Clone)]
enum Pages<V> {
    Few(Vec<Page<V>>),
    Many(Vec<Arc<[Page<V>]>>),
}

impl<V> Default for PagedMap<V> {
    fn default() -> Self {
        Self { pages: Pages::Few(Vec::new()), len: 0 }
    }
}

impl<V: Clone> Pages<V> {
    fn new(pages: Vec<Page<V>>) -> Self {
        if pages.len() <= CHUNK {
            return Self::Few(pages);
        }
        let (mut pages, mut chunks) = (pages.into_iter(), Vec::new());
        while pages.len() > 0 {
            chunks.push(pages.by_ref().take(CHUNK).collect());
        }
        Self::Many(chunks)
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(pages) => pages.len(),
            Self::Many(chunks) => chunks.len() * CHUNK,
        }
    }

    /// The page that a hash belongs to.
    #[inline]
    fn get(&self, hash: u64) -> Option<&Page<V>> {
        let hash = hash as usize;
        match self {
            // Without pages the index is out of range and the answer is "none".
            Self::Few(pages) => pages.get(hash & pages.len().wrapping_sub(1)),
            Self::Many(chunks) => chunks.get((hash / CHUNK) & (chunks.len() - 1))?.get(hash % CHUNK),
        }
    }

    fn get_mut(&mut self, hash: u64) -> Option<&mut Page<V>> {
        let hash = hash as usize;
        match self {
            Self::Few(pages) => {
                let mask = pages.len().wrapping_sub(1);
                pages.get_mut(hash & mask)
            }
            Self::Many(chunks) => {
                let mask = chunks.len() - 1;
                Arc::make_mut(chunks.get_mut((hash / CHUNK) & mask)?).get_mut(hash % CHUNK)
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Page<V>> {
        let (few, many) = match self {
            Self::Few(pages) => (pages.as_slice(), [].as_slice()),
            Self::Many(chunks) => ([].as_slice(), chunks.as_slice()),
        };
        few.iter().chain(many.iter().flat_map(|chunk| chunk.iter()))
    }
}

impl<V: Clone + Default> PagedMap<V> {
    /// The value of a hash.
    #[inline]
    pub(super) fn get(&self, hash: u64) -> Option<&V> {
        let page = self.pages.get(hash).filter(|page| page.kinds & kind(hash) != 0)?;
        page.entries.iter().find(|(h, _)| *h == hash).map(|(_, value)| value)
    }

    /// Changes the value of a hash, a default one if it is new; removes it where
    /// `change` answers false. Gives back what `change` gave besides.
    pub(super) fn update<R>(&mut self, hash: u64, change: impl FnOnce(&mut V) -> (bool, R)) -> R {
        if self.len >= self.pages.len() * PAGE_FILL {
            self.grow();
        }
        // There are pages now, and each hash has one.
        let page = self.pages.get_mut(hash);
        let Some(page) = page else { return change(&mut V::default()).1 };
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

    fn grow(&mut self) {
        let n_pages = (self.pages.len() * 2).max(1);
        let mut pages = vec![Vec::new(); n_pages];
        for page in self.pages.iter() {
            for (hash, value) in page.entries.iter() {
                pages[*hash as usize & (n_pages - 1)].push((*hash, value.clone()));
            }
        }
        self.pages = Pages::new(pages.into_iter().map(Page::new).collect());
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
            steps in proptest::collection::vec((0..40_u64, 0..4_u8), 0..300), n_more in 0_u8..8,
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
            // So many that there are chunks.
            for hash in (40..6_000).filter(|_| n_more == 0).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                map.update(hash, |slot| { *slot = 1; (true, ()) });
                model.insert(hash, 1);
                if hash % 1999 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
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
