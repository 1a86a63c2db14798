//! Texts that many flows have in common, kept once: a network of a hundred thousand ports has millions of flows, and a few
//! hundred reasons for them.

use std::{cell::RefCell, sync::Arc};

/// A text that others may share.
pub type Text = Arc<str>;

/// Texts that a thread remembers.
const N_RECENT: usize = 1024;

thread_local! {
    static RECENT: RefCell<Vec<Option<Text>>> = const { RefCell::new(Vec::new()) };
}

/// A text as this thread has had it lately, or a new one.
pub fn shared(text: &str) -> Text {
    RECENT.with_borrow_mut(|recent| {
        recent.resize(N_RECENT, None);
        match &mut recent[place(text.as_bytes())] {
            Some(known) if **known == *text => Arc::clone(known),
            other => Arc::clone(other.insert(text.into())),
        }
    })
}

/// Where a text is remembered: by its length, its beginning and its end.
fn place(bytes: &[u8]) -> usize {
    let word = |part: Option<&[u8; 8]>| part.map_or(0, |part| u64::from_le_bytes(*part));
    let (first, last) = (word(bytes.first_chunk()), word(bytes.last_chunk()));
    let short = bytes.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let mixed = (first ^ last.rotate_left(23) ^ short.rotate_left(41) ^ bytes.len() as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize % N_RECENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_others_are_not() {
        let long = "A reason that is longer than eight bytes.".to_owned();
        for text in ["", "a", "seven77", "eightbyt", &long] {
            let copy = String::from(text);
            let (one, other) = (shared(text), shared(&copy));
            assert_eq!(&*one, text);
            assert!(Arc::ptr_eq(&one, &other), "{text}");
        }
        for n in 0..3 * N_RECENT {
            let text = format!("switches/s/ports/{n}");
            assert_eq!(*shared(&text), *text);
        }
    }
}
