//! A process that dies between two writes to memory that the next one reads, for tests.

/// The process lives: what it writes is written.
#[inline(always)]
pub(crate) fn may_write() -> bool {
    #[cfg(test)]
    return tests::may_write();
    #[cfg(not(test))]
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub(super) fn may_write() -> bool {
        let left = LEFT.get();
        LEFT.set(left.map(|left| left.saturating_sub(1)));
        left != Some(0)
    }

    /// This thread's process dies after so many writes.
    pub(crate) fn after(n_writes: usize) {
        LEFT.set(Some(n_writes));
    }

    /// Another process goes on; how many writes the one before would have had left.
    pub(crate) fn revive() -> usize {
        LEFT.take().unwrap_or_default()
    }
}
