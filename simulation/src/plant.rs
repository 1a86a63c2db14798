//! Faults that are planted on purpose, to see that the simulation finds such ones. They are in what the simulation
//! puts between the real parts, where a fault of a real part would show as well: the product knows nothing of them.

use clap::ValueEnum;

/// A fault that is there from the beginning of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plant {
    /// The store takes commits whatever revision they were thought out at.
    Unfenced,
    /// The store says that it has made a commit, now and then, and has not.
    Forgetful,
    /// A host says that it forwards by a revision before it does.
    EarlyAck,
    /// The disk of a host that dies is empty when it comes back.
    LostState,
    /// A host goes on to think that a port is where it was.
    StaleLocation,
    /// A host is not told of one logical flow of a change.
    MissedUnit,
    /// ACLs are taken and not applied in one direction, towards workloads.
    OneDirection,
    /// What a host says arrives in another order.
    Disorder,
    /// For controllers no time passes: who is gone is believed for ever.
    StoppedClock,
    /// A packet that a workload gets comes twice, now and then.
    TwiceDelivered,
    /// A packet that is dropped is counted twice.
    TwiceCounted,
}

impl Plant {
    /// Worlds within which each has to be found.
    pub const WORLDS: u64 = 200;

    /// As one says it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
