//! The pure switch.
#![forbid(unsafe_code)]
pub mod classifier;
pub mod drop;
pub mod field;
pub mod flow;
pub mod key;
pub mod packet;
pub mod port;
pub mod program;
pub mod snapshot;
pub mod table;
pub mod text;
pub mod types;
pub mod underlay;
