//! AF_XDP ports: host interfaces, by one socket per receive queue.
//!
//! Our steering program sends frames to the sockets; a link that dies with the process
//! holds it on the interface. The driver's own hook is tried first, the generic one is
//! the fallback; zero-copy is tried where the driver's hook was had.
//!
//! Sockets are ours or those of xsk-rs ([`Backend`](crate::AfXdpBackend)); what a port does with
//! frames is in `queue.rs` for both. With ours, ports share memory ([`Memories`]): a packet that
//! comes in by one and leaves by another is copied by nobody but the kernel, if it copies; and where somebody holds
//! files for the next process, that goes on with the sockets (`kept.rs`).

mod device;
mod kept;
mod memories;
mod queue;

pub(crate) use device::{AfXdpHold, AfXdpOutlet, AfXdpQueue, Around, open};
pub(crate) use kept::is_kept;
pub(crate) use memories::Memories;

/// The kind of such ports.
pub(crate) const KIND: &str = "afxdp";
