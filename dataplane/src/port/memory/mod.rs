//! Memory ports: frames by queues inside the process, for tests, benches and tools.
//!
//! A [`MemoryPort`] is the outside, held by whoever plays the network; workers hold
//! [`MemoryQueue`]s and [`MemoryOutlet`]s. All queues are bounded. Buffers travel in a circle between the
//! two sides, so that a steady stream allocates nothing.

mod device;
mod queue;

pub use device::{InjectError, MemoryPort};
pub(crate) use device::{MemoryOutlet, MemoryQueue};

#[cfg(test)]
mod tests;
