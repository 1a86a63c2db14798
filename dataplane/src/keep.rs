//! What outlives this process: files that somebody else holds for the next one.
//!
//! A killed process closes its files, and with a TAP device's last file the device goes, with a
//! packet socket what waits in it. So each such file is also given to a [`Keeper`], who does
//! nothing with it, and hands it to the process that comes next. So is the memory of connections
//! (`sys::shared_memory`).
//!
//! A [`Dataplane`](crate::Dataplane) with a keeper holds back: it takes no packet before
//! [`Dataplane::begin`](crate::Dataplane::begin), so that what waits in its ports is forwarded by
//! rules that are there. In a planned change two processes have the same files for a while; only
//! one of them takes packets: the first until [`Dataplane::pause`](crate::Dataplane::pause), the
//! second, a successor, from its `begin` on.

use std::{
    fmt, io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
};

/// Most files of one name.
pub const MAX_KEPT_FILES: usize = 64;

/// Somebody who holds files for the process that comes next, by names.
pub trait Keeper: fmt::Debug + Send + Sync {
    /// Hands out what is held by a name, once. He still holds it.
    fn take(&self, name: &str) -> Option<Kept>;

    /// Hands out what is held by names that begin like this, each once. He still holds it.
    fn take_all(&self, prefix: &str) -> Vec<(String, Kept)>;

    /// Something is held by the name and has not been taken.
    fn has(&self, name: &str) -> bool;

    /// Holds files from now on, with a note about them, instead of what had the name before.
    ///
    /// # Errors
    /// He is gone.
    fn keep(&self, name: &str, note: &str, files: &[BorrowedFd<'_>]) -> io::Result<()>;

    /// Closes what has the name.
    fn forget(&self, name: &str);
}

/// What was held.
#[derive(Debug)]
pub struct Kept {
    /// What was said about it.
    pub note: String,
    /// The files, in the order in which they were given.
    pub files: Vec<OwnedFd>,
}

/// How a dataplane begins.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// Who holds files for the next process. `None`: nobody.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Another process still forwards. Ports are attached whose files the keeper has; those that
    /// only one process can have are attached when the other has let go of them.
    pub is_successor: bool,
    /// No packet is taken before [`Dataplane::begin`](crate::Dataplane::begin).
    pub holds_back: bool,
}
