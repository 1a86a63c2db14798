//! AF_XDP ports: host interfaces, by one socket per receive queue.
//!
//! Our steering program sends frames to the sockets; a link that dies with the process
//! holds it on the interface. The driver's own hook is tried first, the generic one is
//! the fallback; zero-copy is tried where the driver's hook was had.

mod device;
mod queue;

pub(crate) use device::{AfXdpHold, AfXdpOutlet, AfXdpQueue, open};
