//! The pure compiler.
#![forbid(unsafe_code)]
pub mod actions;
mod build;
mod compiler;
mod delta;
pub mod expr;
#[cfg(test)]
mod fixture;
pub mod key;
mod lower;
pub mod model;
pub mod southbound;
mod view;

pub use build::compile;
pub use compiler::{Compiler, Dirty};
pub use delta::{Removed, SouthboundDelta, diff};
pub use expr::check_match;
pub use lower::{LocalPorts, LowerError, Lowered, lower};
pub use view::chassis_view;
