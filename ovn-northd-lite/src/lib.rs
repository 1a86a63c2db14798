//! The pure compiler.
#![forbid(unsafe_code)]
pub mod actions;
mod build;
mod compiler;
mod delta;
pub mod expr;
pub mod key;
pub mod model;
pub mod southbound;
mod view;

pub use build::compile;
pub use compiler::{Compiler, Dirty};
pub use delta::{Removed, SouthboundDelta, diff};
pub use view::chassis_view;
