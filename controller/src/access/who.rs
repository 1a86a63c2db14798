//! Callers: who has made a call, from the proof that came with the connection.

use std::sync::Arc;

use credentials::{Identity, Peer, Proof, Role};
use tonic::{Extensions, Status};

use super::audit::Author;

/// What somebody is to this network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// On this machine, or let in without proof: may do everything, also what hosts do.
    Master,
    /// May do everything that users do.
    Admin,
    /// Sees everything.
    ReadOnly,
    /// Sees and changes what is its own.
    Tenant(String),
    /// A host.
    Chassis(String),
    /// Another controller; it has nothing to say here.
    Controller,
}

/// Who has made a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What he is.
    pub who: Who,
    /// The same in words.
    pub subject: String,
    /// Where he calls from.
    pub address: String,
}

impl Caller {
    /// Somebody on this machine.
    pub fn local() -> Self {
        Self::from(&Peer::local(None))
    }

    /// Who has made a call. [`super::Gate`] has put him there.
    ///
    /// # Errors
    /// Nobody knows; then nothing is allowed.
    pub fn of(extensions: &Extensions) -> Result<Arc<Self>, Status> {
        extensions
            .get::<Arc<Self>>()
            .cloned()
            .ok_or_else(|| Status::unauthenticated("who calls is not known"))
    }

    /// The tenant that he is.
    pub fn tenant(&self) -> Option<&str> {
        match &self.who {
            Who::Tenant(name) => Some(name),
            Who::Master | Who::Admin | Who::ReadOnly | Who::Chassis(_) | Who::Controller => None,
        }
    }

    /// Whether what he says may be taken for what this chassis says.
    ///
    /// # Errors
    /// PERMISSION_DENIED: he is another one.
    pub fn check_speaks_for(&self, chassis: &str) -> Result<(), Status> {
        match &self.who {
            Who::Master => Ok(()),
            Who::Chassis(own) if own == chassis => Ok(()),
            Who::Chassis(_) | Who::Admin | Who::ReadOnly | Who::Tenant(_) | Who::Controller => {
                let message = format!(
                    "{} cannot speak for chassis/{}: start vswitchd with --chassis as in its certificate, or issue \
                     one for this host",
                    self.subject,
                    chassis.chars().take(64).collect::<String>().escape_debug()
                );
                Err(Status::permission_denied(message))
            }
        }
    }

    /// Who stands in the audit log for what he writes.
    pub fn author(&self, method: &'static str) -> Author {
        Author { who: self.subject.clone(), address: self.address.clone(), method }
    }
}

impl From<&Peer> for Caller {
    fn from(peer: &Peer) -> Self {
        let who = match &peer.proof {
            Proof::Local { .. } | Proof::Plaintext => Who::Master,
            Proof::Certificate { identity, .. } => Who::from(identity),
        };
        Self { who, subject: peer.to_string(), address: peer.address.clone() }
    }
}

impl From<&Identity> for Who {
    fn from(identity: &Identity) -> Self {
        let name = identity.name().to_owned();
        match identity.role() {
            Role::Admin => Self::Admin,
            Role::ReadOnly => Self::ReadOnly,
            Role::Tenant => Self::Tenant(name),
            Role::Chassis => Self::Chassis(name),
            Role::Controller => Self::Controller,
        }
    }
}
