//! Memory ports: frames by queues inside the process, for tests, benches and tools.
//!
//! A [`MemoryPort`] is the outside, held by whoever plays the network; the worker holds
//! the [`MemoryDevice`]. Both queues are bounded. Buffers travel in a circle between the
//! two sides, so that a steady stream allocates nothing.

mod device;
mod queue;

pub(crate) use device::MemoryDevice;
pub use device::{InjectError, MemoryPort};

#[cfg(test)]
mod tests;
