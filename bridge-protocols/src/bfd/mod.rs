//! Whether who is at the other end is alive: bidirectional forwarding detection (RFC 5880) over
//! one hop (RFC 5881), in asynchronous mode.
//!
//! [`ControlPacket`] is what both ends say, and the frame that carries it; [`Session`] is one end.
//! Who has sessions gives them packets and time, and sends what they answer.

mod packet;
mod session;

pub use self::{
    packet::{ControlPacket, Path, State, UDP_PORT},
    session::{Alive, Session, SessionStatus, Timing},
};
