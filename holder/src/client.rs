//! The daemon's side.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::wire::{Kind, Message, VERSION, Version, receive, send};

/// Most names that are taken over.
const MAX_ENTRIES: usize = 65_536;

/// The holder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no vswitch-holder answers at {path}: {source}; start this daemon by one, or leave --holder out")]
    Connect {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not want us.
    #[error("vswitch-holder at {path} refuses: {reason}")]
    Refused {
        /// Where.
        path: PathBuf,
        /// What it says.
        reason: String,
    },
    /// It went away, or is none.
    #[error("vswitch-holder at {path} has ended, or is another program")]
    Gone {
        /// Where.
        path: PathBuf,
    },
}

/// What a daemon begins as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nobody else forwards.
    Alone,
    /// Another daemon forwards, until this one can.
    Successor,
}

/// What the holder wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Change nothing any more, and answer [`Client::frozen`].
    Freeze,
    /// Go on as before.
    Thaw,
    /// Stop forwarding, and answer [`Client::released`].
    HandOver,
    /// Forward, and answer [`Client::begun`].
    Go,
    /// End, and undo nothing: another one forwards.
    Leave,
}

/// What was held by a name.
#[derive(Debug)]
pub struct Held {
    /// What was said about it.
    pub note: String,
    /// Files.
    pub files: Vec<OwnedFd>,
}

/// A daemon's way to its holder.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    role: Role,
    /// Of the daemon before, and not taken yet.
    held: Mutex<BTreeMap<String, Held>>,
}

impl Client {
    /// Goes to the holder that has started this process, and takes what it holds.
    ///
    /// # Errors
    /// [`ClientError`] says what to do.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let wrong = |source: io::Error| ClientError::Connect { path: path.to_owned(), source };
        let gone = || ClientError::Gone { path: path.to_owned() };
        let address = SocketAddrUnix::new(path).map_err(|error| wrong(error.into()))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| wrong(error.into()))?;
        connect(&socket, &address).map_err(|error| wrong(error.into()))?;
        send(&socket, Kind::Hello, ("", &VERSION.to_string()), &[]).map_err(|_| gone())?;
        let next = || receive(&socket, RecvFlags::empty()).ok().flatten().ok_or_else(gone);
        let first = next()?;
        let role = match first.kind {
            Kind::Welcome => Role::Alone,
            Kind::Succeed => Role::Successor,
            Kind::Refused => {
                return Err(ClientError::Refused { path: path.to_owned(), reason: first.note });
            }
            _ => return Err(gone()),
        };
        check_version(&first.note)
            .map_err(|reason| ClientError::Refused { path: path.to_owned(), reason })?;
        let mut held = BTreeMap::new();
        loop {
            let Message { kind, name, note, files } = next()?;
            match kind {
                Kind::Entry if held.len() < MAX_ENTRIES => held.insert(name, Held { note, files }),
                Kind::End => break,
                _ => return Err(gone()),
            };
        }
        Ok(Self { socket, role, held: Mutex::new(held) })
    }

    /// What this daemon begins as.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Takes what the daemon before has left by a name.
    pub fn take(&self, name: &str) -> Option<Held> {
        self.held().remove(name)
    }

    /// Takes what the daemon before has left by names that begin like this.
    pub fn take_all(&self, prefix: &str) -> Vec<(String, Held)> {
        let mut held = self.held();
        let names: Vec<_> = held.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        names.into_iter().filter_map(|name| held.remove_entry(&name)).collect()
    }

    /// There is something by a name that was not taken.
    pub fn has(&self, name: &str) -> bool {
        self.held().contains_key(name)
    }

    /// Has files held, instead of what had the name before.
    ///
    /// # Errors
    /// The holder is gone, or name, note or files are too many.
    pub fn keep(&self, name: &str, note: &str, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.socket, Kind::Keep, (name, note), files)
    }

    /// Has what is held by a name closed.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.held().remove(name);
        send(&self.socket, Kind::Forget, (name, ""), &[])
    }

    /// Has closed what the daemon before has left and nobody has taken. Answers the names.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn forget_rest(&self) -> io::Result<Vec<String>> {
        let rest = std::mem::take(&mut *self.held());
        rest.into_keys().map(|name| self.forget(&name).map(|()| name)).collect()
    }

    /// Says that this daemon could forward now.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn prepared(&self) -> io::Result<()> {
        send(&self.socket, Kind::Prepared, ("", ""), &[])
    }

    /// Says that nothing about this daemon changes any more.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn frozen(&self) -> io::Result<()> {
        send(&self.socket, Kind::Frozen, ("", ""), &[])
    }

    /// Says that this daemon forwards no more.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn released(&self) -> io::Result<()> {
        send(&self.socket, Kind::Released, ("", ""), &[])
    }

    /// Says that this daemon forwards, and for how long nobody had, if that is known.
    ///
    /// # Errors
    /// The holder is gone.
    pub fn begun(&self, stood: Option<Duration>) -> io::Result<()> {
        let note = stood.map(|stood| stood.as_micros().to_string()).unwrap_or_default();
        send(&self.socket, Kind::Begun, ("", &note), &[])
    }

    /// Waits for what the holder wants. `None`: it has ended.
    pub fn wait(&self) -> Option<Order> {
        loop {
            let message = receive(&self.socket, RecvFlags::empty()).ok()??;
            match message.kind {
                Kind::Freeze => return Some(Order::Freeze),
                Kind::Thaw => return Some(Order::Thaw),
                Kind::HandOver => return Some(Order::HandOver),
                Kind::Go => return Some(Order::Go),
                Kind::Leave => return Some(Order::Leave),
                // Of a later minor version.
                _ => {}
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other side can be understood.
///
/// # Errors
/// Why not, and what to do.
pub(crate) fn check_version(theirs: &str) -> Result<(), String> {
    match theirs.parse::<Version>() {
        Ok(version) if version.major == VERSION.major => Ok(()),
        _ => Err(format!(
            "one side speaks version {VERSION} and the other {theirs:?}; start the holder anew \
             (systemctl restart vswitchd), which ends connections this once"
        )),
    }
}
