//! The pure switch.
#![forbid(unsafe_code)]
pub mod drop;
pub mod execute;
pub mod field;
pub mod flow;
pub mod key;
pub mod offload;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod port;
pub mod program;
pub mod snapshot;
pub mod table;
pub mod trace;
pub mod tunnel;
pub mod types;
pub mod underlay;
