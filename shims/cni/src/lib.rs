//! `vswitch-cni`: attaches containers to logical switches, as a plugin of the Container
//! Network Interface ([specification](https://www.cni.dev/docs/spec/), versions 0.3.1 to
//! 1.1.0).
//!
//! The plugin itself is thin. It reads what the runtime says ([`environment`], [`config`]),
//! asks an IPAM plugin for addresses ([`ipam`]), and has the host's daemon do the work
//! ([`vswitch_shim`]); [`command`] puts these in order, [`result`] and [`error`] are the answers.

#![forbid(unsafe_code)]

pub mod command;
pub mod config;
pub mod environment;
pub mod error;
pub mod ipam;
pub mod result;

pub use command::{Answer, run};
pub use error::CniError;
