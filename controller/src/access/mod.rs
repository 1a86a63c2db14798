//! Who may say what.
//!
//! A connection comes with the proof of who is at its other end ([`credentials::Peer`]); from
//! that a [`Caller`] is made, once per call. [`Gate`] stands before all services and lets a call through
//! when its method is of a class that the caller's role has ([`needs`]); what has no class is
//! let through to nobody. Then:
//!
//! - a tenant sees and changes what is labelled as its own (`tenants`), within `fields` that
//!   reach no further than its own network, and within its [`quotas`]
//! - a chassis speaks for itself, and writes only what stands for its own workloads (`fields`)
//! - what is written, and by whom, is put down ([`audit`])
//!
//! Who can open the socket in the file system, or reaches a port without TLS, is the network's
//! master: the mode of the file, or whoever started the controller like that, has decided so.

pub mod audit;
mod fields;
mod gate;
pub mod needs;
pub mod quotas;
mod tenants;
mod who;

pub(crate) use self::tenants::{label, root};
pub use self::{
    audit::{Audit, Author},
    fields::check as check_written,
    gate::Gate,
    quotas::Quotas,
    tenants::{OWNER, Verdict, may_put, owner, sees},
    who::{Caller, Who},
};

/// What decides who may do what, besides who he is.
#[derive(Debug, Default)]
pub struct Access {
    /// How much each tenant may have.
    pub quotas: Quotas,
    /// Where writes are put down.
    pub audit: Audit,
}
