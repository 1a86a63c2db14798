//! How a virtual machine is reached: what `port add --kind vhost-user` needs beside.

use clap::Args;
use ferroflow_proto::host::VhostUser;
use serde::Serialize;

use super::port::Kind;
use crate::error::CtlError;

/// Of a virtual machine.
#[derive(Debug, Args)]
pub struct Guest {
    /// Of `--kind vhost-user`: the socket between the switch and the virtual machine's process
    #[arg(long, value_name = "PATH", help_heading = "Virtual machines")]
    socket: Option<String>,
    /// The switch makes the socket, and the virtual machine's process connects
    #[arg(long, requires = "socket", conflicts_with = "client", help_heading = "Virtual machines")]
    server: bool,
    /// The virtual machine's process makes the socket, and the switch connects, as often as it
    /// must: the usual
    #[arg(long, requires = "socket", help_heading = "Virtual machines")]
    client: bool,
    /// Pairs of queues that the guest may have; one by default
    #[arg(long, value_name = "N", requires = "socket", help_heading = "Virtual machines",
        value_parser = clap::value_parser!(u32).range(1..))]
    queues: Option<u32>,
    /// Largest packet to the guest; 1500 by default, and the virtual machine's process may say
    /// another
    #[arg(long, value_name = "BYTES", requires = "socket", help_heading = "Virtual machines")]
    mtu: Option<u32>,
}

impl Guest {
    /// As the host is told.
    pub(super) fn message(self, kind: Kind) -> Result<Option<VhostUser>, CtlError> {
        let has_guest = kind == Kind::VhostUser;
        match self.socket {
            Some(socket) if has_guest => Ok(Some(VhostUser {
                socket,
                listens: self.server,
                queues: self.queues.unwrap_or_default(),
                mtu: self.mtu.unwrap_or_default(),
            })),
            None if !has_guest => Ok(None),
            _ => Err(CtlError::Usage("--socket and --kind vhost-user go together".into())),
        }
    }
}

/// What is shown of a virtual machine.
#[derive(Debug, Serialize)]
pub(super) struct GuestView {
    socket: String,
    /// The switch has made the socket.
    server: bool,
    queues: u32,
}

impl From<VhostUser> for GuestView {
    fn from(guest: VhostUser) -> Self {
        Self { socket: guest.socket, server: guest.listens, queues: guest.queues }
    }
}
