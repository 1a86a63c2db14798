//! What happened, as a number: two runs of a seed have the same, or something is not from the seed.

use std::fmt::Write as _;

/// The sum of all that happened so far.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    is_shown: bool,
    line: String,
}

impl Trace {
    /// Of nothing; shown or not.
    pub(crate) fn new(is_shown: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, is_shown, line: String::new() }
    }

    /// Something happens at a time, so many nanoseconds after the beginning.
    pub(crate) fn add(&mut self, now: u64, what: std::fmt::Arguments<'_>) {
        self.line.clear();
        let (seconds, micros) = (now / 1_000_000_000, now / 1_000 % 1_000_000);
        // Text takes whatever is written.
        let _ = write!(self.line, "{seconds:3}.{micros:06} {what}");
        let line = std::mem::take(&mut self.line);
        self.bytes(line.as_bytes());
        if self.is_shown {
            println!("{line}");
        }
        self.line = line;
    }

    /// More of what happened, for those who read it.
    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        if self.is_shown {
            println!("{what}");
        }
    }

    /// Bytes go somewhere.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The number.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
