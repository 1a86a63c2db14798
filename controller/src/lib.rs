//! The central server.
#![forbid(unsafe_code)]
pub mod compile;
pub mod resource;
pub mod state;
pub mod store;
