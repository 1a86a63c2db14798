//! The pure compiler.
#![forbid(unsafe_code)]
pub mod expr;
pub mod key;
pub mod model;
pub mod southbound;
