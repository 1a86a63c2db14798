//! The pure switch.
#![forbid(unsafe_code)]
pub mod build;
pub mod cache;
pub mod checksum;
pub mod classifier;
pub mod crc32c;
pub mod drop;
pub mod execute;
pub mod field;
pub mod flow;
mod headers;
pub mod key;
pub mod offload;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod port;
pub mod program;
pub mod snapshot;
pub mod stats;
pub mod switch;
pub mod table;
#[cfg(test)]
mod testing;
pub mod text;
pub mod trace;
pub mod tunnel;
pub mod types;
pub mod underlay;
pub mod wire;
