//! What a guest, or the program that runs it, can do wrong. Each breaks the guest's own port,
//! which says so, until the guest starts anew.

use std::io;

use crate::sys::{guest_memory::MapError, vring::RingPlaceError};

/// Why a guest is cut off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The other side has gone: not its fault.
    #[error("the guest's side has closed the socket")]
    HungUp,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(io::Error),
    /// A message of another protocol.
    #[error("a message that is none of vhost-user: version {0}")]
    Version(u32),
    /// A message that is too long, or shorter than what it says.
    #[error("a message of kind {kind} with {len} bytes")]
    Length {
        /// Its kind.
        kind: u32,
        /// Its bytes.
        len: usize,
    },
    /// A message of a kind that was never agreed on.
    #[error("a message of kind {0}, which was not agreed on")]
    Unknown(u32),
    /// Files that came with a message are too many or too few.
    #[error("a message of kind {kind} with {n} files")]
    Files {
        /// Its kind.
        kind: u32,
        /// How many came.
        n: usize,
    },
    /// A file that is to wake somebody is not one that can.
    #[error("a file to wake by that is not an event file")]
    NotEventFile,
    /// A ring that the port does not have.
    #[error("ring {0}, which the port does not have")]
    NoRing(u64),
    /// Features that were not offered.
    #[error("features that were not offered: {0:#x}")]
    Features(u64),
    /// Guest memory that cannot be.
    #[error("{0}")]
    Memory(#[from] MapError),
    /// A ring that cannot be where it is said to be.
    #[error("{0}")]
    Place(#[from] RingPlaceError),
    /// More has been made available than there are descriptors.
    #[error("{n} chains made available in a ring of {size}")]
    TooManyAvailable {
        /// How many.
        n: u16,
        /// How many there can be.
        size: u16,
    },
    /// A chain that goes on and on.
    #[error("a chain of more than {0} descriptors, or one that has no end")]
    Endless(usize),
    /// A table that is not one.
    #[error("a table of descriptors of {0} bytes, inside another, or with a chain behind it")]
    Table(u32),
    /// Something points where the guest has no memory.
    #[error("an address outside the guest's memory: {0:#x}")]
    Outside(u64),
    /// Parts to be read where they are to be written, or the other way round.
    #[error("a descriptor for the other direction")]
    Direction,
    /// There is nothing in a chain that could be written.
    #[error("a chain without room")]
    NoRoom,
    /// Memory has been taken away from under us.
    #[error("the guest's memory has been made shorter while it was in use")]
    MemoryGone,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match error.kind() {
            BrokenPipe | ConnectionReset | UnexpectedEof => Self::HungUp,
            _ => Self::Socket(error),
        }
    }
}
