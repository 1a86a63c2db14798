//! Why a transaction is refused.

use crate::{
    resource::{FieldError, Name, NameError},
    store::{Revision, StoreError},
};

/// A refused transaction: which of its operations, and why.
#[derive(Debug)]
pub struct Refusal {
    /// Index of the operation; `None`: not one of them.
    pub operation: Option<usize>,
    /// Why.
    pub reason: Reason,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(operation) = self.operation {
            write!(f, "operation {operation}: ")?;
        }
        self.reason.fmt(f)
    }
}

impl std::error::Error for Refusal {}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { operation: None, reason }
    }
}

/// Why a transaction is refused.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The operation, or its resource, is not there.
    #[error("it has no {0}; set it")]
    Empty(&'static str),
    /// Too much of something.
    #[error("{n} {what} are too many for one request; split it into parts of at most {max}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        n: usize,
        /// How many there may be.
        max: usize,
    },
    /// A name is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A field is wrong.
    #[error("{name}: {error}")]
    Field {
        /// The resource.
        name: Name,
        /// Field and reason.
        error: FieldError,
    },
    /// `allow_missing` with a mask.
    #[error("{0}: allow_missing works only without update_mask; leave one of them out")]
    MissingWithMask(Name),
    /// Hosts make and change these.
    #[error("{0} cannot be written: hosts register themselves; start vswitchd there")]
    ReadOnly(Name),
    /// There is no such resource.
    #[error("there is no {0}")]
    NotFound(Name),
    /// There is one already.
    #[error("{0} exists already; update it, or choose another id")]
    AlreadyExists(Name),
    /// Its parent does not exist.
    #[error("{name} needs {parent}, which does not exist; create that first or in the same transaction")]
    NoParent {
        /// The resource.
        name: Name,
        /// What it is below of.
        parent: Name,
    },
    /// The id of a port is another's.
    #[error("the id of {name} is taken by {other}; ids of ports are unique over all switches and routers")]
    PortIdTaken {
        /// The new port.
        name: Name,
        /// The one that has the id.
        other: Name,
    },
    /// An address is another's.
    #[error("{name}: the address {address} is already that of {other}; a switch needs each only once")]
    AddressTaken {
        /// The port.
        name: Name,
        /// The address.
        address: String,
        /// The port that has it.
        other: Name,
    },
    /// A reference leads nowhere.
    #[error(
        "{name}: field `{field}` refers to {target}, which does not exist; create that or change the field"
    )]
    Dangling {
        /// Who refers.
        name: Name,
        /// By which field.
        field: String,
        /// To what.
        target: Name,
    },
    /// A router port has a peer already.
    #[error("{name}: {peer} is already linked to {other}; a router port has one peer")]
    PeerTaken {
        /// The switch port.
        name: Name,
        /// The router port.
        peer: Name,
        /// The switch port it is linked to.
        other: Name,
    },
    /// It is in use.
    #[error("{name} cannot go while {by} refers to it; delete or change that too")]
    Referenced {
        /// What should go.
        name: Name,
        /// Who refers to it.
        by: Name,
    },
    /// A host that is here cannot be deleted.
    #[error("{0} is connected; stop vswitchd there first")]
    Connected(Name),
    /// Somebody else has it, who is not named.
    #[error("the name {0} or its id is taken; choose another id")]
    Taken(Name),
    /// He may not.
    #[error("{0}")]
    Denied(String),
    /// A tenant would have too much.
    #[error(
        "tenant/{tenant} would have {n} of {what}, and may have {max}; delete some, or ask for a higher quota"
    )]
    Quota {
        /// The tenant.
        tenant: String,
        /// Of what.
        what: &'static str,
        /// How many it would have.
        n: usize,
        /// How many it may have.
        max: usize,
    },
    /// No key is left.
    #[error("{name}: all {max} tunnel keys there are in use; delete something first")]
    KeysExhausted {
        /// The resource without a key.
        name: Name,
        /// How many keys there are.
        max: u32,
    },
    /// The key that it asks for is another's.
    #[error("{name}: the tunnel key {key} is in use; ask for another one, or for none")]
    KeyTaken {
        /// The resource.
        name: Name,
        /// The key.
        key: u32,
    },
    /// No address is left.
    #[error(
        "{name}: {switch} has no address left in {network}; delete ports, exclude less, or widen the subnet"
    )]
    AddressesExhausted {
        /// The port without an address.
        name: Name,
        /// The switch.
        switch: Name,
        /// Where addresses are given from.
        network: String,
    },
    /// A precondition says nothing.
    #[error("precondition {0} has no condition; set `exists` or `update_revision`")]
    EmptyPrecondition(usize),
    /// A precondition does not hold.
    #[error("precondition {index} does not hold: {name} {found}; read it again and decide anew")]
    Precondition {
        /// Its index.
        index: usize,
        /// The resource.
        name: Name,
        /// How it is instead.
        found: String,
    },
    /// The store refused.
    #[error("the store failed, so whether the change was made is known only after a restart: {0}")]
    Store(StoreError),
    /// Somebody else wrote to the store.
    #[error("other controllers are changing the network all the time (now at {at}); try again")]
    Moved {
        /// Where the store is.
        at: Revision,
    },
    /// The store takes no such change.
    #[error(transparent)]
    TooLarge(StoreError),
    /// The store has not answered.
    #[error("whether the change was made is not known, read it again: {0}")]
    Unknown(StoreError),
    /// The controller is about to end.
    #[error("the controller is stopping after a failure of its store; try again")]
    Stopping,
}
