//! Who is who on the wire: certificates, and connections that carry them.
//!
//! One private authority stands for one network. It signs certificates of one kind only: a role
//! and a name, `ferroflow://chassis/h1`, in the subject's alternative name. Who holds such a
//! certificate is that, wherever it connects from; addresses prove nothing and are in no
//! certificate. A controller is recognised by [`CONTROLLER_NAME`] and by the purpose "server",
//! which no other certificate has: who steals the certificate of a host cannot play controller.
//!
//! - [`identity`]: roles, names, and finding them in a certificate
//! - [`authority`]: the directory of an authority; it makes certificates and their keys
//! - [`material`]: the directory of one who has a certificate, read again when it changes
//! - [`accept`]: the listener's side; each connection comes with its [`Peer`]
//! - [`dial`]: the caller's side, with several addresses where there are several
//!
//! What always holds: TLS 1.3 or none at all; keys are files for their owner only and are
//! never printed; a connection is made with the files as they are then, so that rotation
//! needs no restart; files that do not fit together change nothing.

#![forbid(unsafe_code)]

pub mod accept;
pub mod authority;
pub mod dial;
pub mod identity;
pub mod material;

pub use self::{
    accept::{Connection, Peer, Proof},
    authority::Authority,
    dial::{Address, Dial},
    identity::{Identity, Role},
    material::{Credentials, MaterialError},
};

/// Name that all controllers of a network go by in their certificates.
pub const CONTROLLER_NAME: &str = "controller.ferroflow";
