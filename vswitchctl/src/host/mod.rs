//! Commands for the switch of one host, over its local socket, each in its file.

pub mod drops;
pub mod flow;
pub mod megaflow;
pub mod origin;
pub mod port;
pub mod status;
pub mod trace;
