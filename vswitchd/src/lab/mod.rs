//! Several hosts of a lab in one process: what is between them, and how they are started.
//! Each is a host like any other (`crate::host`), with an agent that talks to a controller
//! and a socket of its own; the underlay and the networks outside are queues of frames.

mod fabric;
mod hosts;

pub use fabric::{Arrived, Fabric, Turn, underlay_destination};
pub use hosts::{LabHost, LabOptions, run};
