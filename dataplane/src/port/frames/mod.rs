//! Frame ports: frames that the caller's own code makes and takes, in the worker's thread.
//! For benches and tests, which need a generator that costs nothing but itself, and a source
//! that knows how long frames wait.

mod device;
mod queue;

pub(crate) use device::{FrameOutlet, FrameQueue};
pub use device::{FramePort, FrameSink, FrameSource, Wake};

#[cfg(test)]
mod tests;
