//! The central server.
#![forbid(unsafe_code)]
pub mod store;
