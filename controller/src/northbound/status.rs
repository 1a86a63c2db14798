//! Refusals as gRPC codes.

use tonic::{Code, Status};

use crate::state::{Reason, Refusal, TooOld};

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal.reason {
            Reason::Empty(_)
            | Reason::TooMany { .. }
            | Reason::Name(_)
            | Reason::Field { .. }
            | Reason::MissingWithMask(_)
            | Reason::ReadOnly(_)
            | Reason::EmptyPrecondition(_) => Code::InvalidArgument,
            Reason::NotFound(_) | Reason::NoParent { .. } => Code::NotFound,
            Reason::AlreadyExists(_)
            | Reason::PortIdTaken { .. }
            | Reason::AddressTaken { .. }
            | Reason::KeyTaken { .. }
            | Reason::Taken(_) => Code::AlreadyExists,
            Reason::Denied(_) => Code::PermissionDenied,
            Reason::Dangling { .. }
            | Reason::PeerTaken { .. }
            | Reason::Referenced { .. }
            | Reason::Connected(_)
            | Reason::Precondition { .. } => Code::FailedPrecondition,
            Reason::KeysExhausted { .. } | Reason::AddressesExhausted { .. } | Reason::Quota { .. } => {
                Code::ResourceExhausted
            }
            Reason::Store(_) => Code::Internal,
            Reason::TooLarge(_) => Code::InvalidArgument,
            Reason::Moved { .. } | Reason::Unknown(_) | Reason::Stopping => Code::Unavailable,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<TooOld> for Status {
    fn from(error: TooOld) -> Self {
        Self::out_of_range(error.to_string())
    }
}
