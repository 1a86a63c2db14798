//! Messages between a daemon and its holder, by a local socket that keeps them apart (unix(7),
//! `SOCK_SEQPACKET`), and the files that go with them.
//!
//! A message is its kind, a byte; the length of its name, two bytes, least significant first; the
//! name; and a note, all that is left. Which kinds there are is said by the version: a holder and
//! a daemon whose major numbers differ do not understand each other, and the daemon is refused. A
//! minor number counts additions.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    str::FromStr,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Most files of a message.
pub const MAX_FILES: usize = 64;
/// Longest message.
const MAX_LEN: usize = 16 * 1024;
/// Longest name.
const MAX_NAME_LEN: usize = 256;
/// In front of a name.
const HEAD_LEN: usize = 3;

/// The version of these messages.
pub const VERSION: Version = Version { major: 1, minor: 1 };

/// A version of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Others with the same are understood.
    pub major: u16,
    /// Counts additions.
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        Ok(Self { major: major.parse().map_err(drop)?, minor: minor.parse().map_err(drop)? })
    }
}

/// Declares the kinds of messages.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a message says.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            fn of(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A daemon is there. The note is its version.
    Hello = 1,
    /// Hold these files by this name.
    Keep = 2,
    /// Close what has this name.
    Forget = 3,
    /// The successor could forward now.
    Prepared = 4,
    /// The daemon stands still: it forwards, and nothing about it changes.
    Frozen = 5,
    /// The daemon forwards no more.
    Released = 6,
    /// The daemon forwards. The note is for how many microseconds nobody had, if it knows (since 1.1).
    Begun = 7,
    /// To a daemon that is alone. The note is the holder's version.
    Welcome = 64,
    /// To a daemon that shall succeed another one. The note is the holder's version.
    Succeed = 65,
    /// To a daemon that is none of ours, or of another version. The note says why.
    Refused = 66,
    /// What is held by a name.
    Entry = 67,
    /// That was all that is held.
    End = 68,
    /// Stand still.
    Freeze = 69,
    /// All is as before: there will be no successor.
    Thaw = 70,
    /// Stop forwarding.
    HandOver = 71,
    /// Forward.
    Go = 72,
    /// Another one forwards now: end, and undo nothing.
    Leave = 73,
}

/// A message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) files: Vec<OwnedFd>,
}

/// Sends a message; waits until there is room for it.
///
/// # Errors
/// It is too long, or the other side is gone.
pub(crate) fn send(
    socket: impl AsFd,
    kind: Kind,
    (name, note): (&str, &str),
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let too_long = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{what} for the holder"));
    if name.len() > MAX_NAME_LEN || HEAD_LEN + name.len() + note.len() > MAX_LEN {
        return Err(too_long("a name or note is too long"));
    }
    if files.len() > MAX_FILES {
        return Err(too_long("too many files at a time"));
    }
    let [low, high] = (name.len() as u16).to_le_bytes();
    let head = [kind as u8, low, high];
    let parts = [IoSlice::new(&head), IoSlice::new(name.as_bytes()), IoSlice::new(note.as_bytes())];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(too_long("too many files at a time"));
    }
    loop {
        match sendmsg(socket.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for a message. `None`: the other side has closed the socket.
///
/// # Errors
/// The socket's, or what came is no message; what came with it is closed.
pub(crate) fn receive(socket: impl AsFd, flags: RecvFlags) -> io::Result<Option<Message>> {
    let mut bytes = vec![0; MAX_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket.as_fd(), &mut parts, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            files.extend(passed);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is too long, or has too many files",
        ));
    }
    let message = parse(&bytes[..received.bytes], files);
    message
        .map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a message of this version"))
}

fn parse(bytes: &[u8], files: Vec<OwnedFd>) -> Option<Message> {
    let (&[kind, low, high], rest) = bytes.split_first_chunk::<HEAD_LEN>()?;
    let (name, note) = rest.split_at_checked(u16::from_le_bytes([low, high]).into())?;
    if name.len() > MAX_NAME_LEN {
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some(Message { kind: Kind::of(kind)?, name: text(name)?, note: text(note)?, files })
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (near, far) = pair();
        let file = File::open("/dev/null").unwrap();
        for kind in Kind::ALL {
            let files = vec![file.as_fd(); *kind as usize % (MAX_FILES + 1)];
            send(&near, *kind, ("port/tap/x", "note 1"), &files).unwrap();
            let message = receive(&far, RecvFlags::empty()).unwrap().unwrap();
            assert_eq!((message.kind, &*message.name, &*message.note), (*kind, "port/tap/x", "note 1"));
            assert_eq!(message.files.len(), files.len());
        }
        drop(near);
        assert!(receive(&far, RecvFlags::empty()).unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let (near, _far) = pair();
        let file = File::open("/dev/null").unwrap();
        assert!(send(&near, Kind::Keep, (&"x".repeat(MAX_NAME_LEN + 1), ""), &[]).is_err());
        assert!(send(&near, Kind::Keep, ("", &"x".repeat(MAX_LEN)), &[]).is_err());
        assert!(send(&near, Kind::Keep, ("", ""), &vec![file.as_fd(); MAX_FILES + 1]).is_err());
    }

    #[test]
    fn what_is_no_message_is_an_error_and_not_the_end() {
        let (near, far) = pair();
        let mut near = File::from(near);
        for wrong in [&[0_u8][..], &[0, 0, 0], &[1, 0], &[1, 5, 0, b'x'], &[1, 1, 0, 0xff], &[1, 0, 2]] {
            near.write_all(wrong).unwrap();
            assert!(receive(&far, RecvFlags::empty()).is_err(), "{wrong:?}");
        }
        near.write_all(&vec![1; MAX_LEN + 1]).unwrap();
        assert!(receive(&far, RecvFlags::empty()).is_err());
        send(&near, Kind::Begun, ("", ""), &[]).unwrap();
        assert!(receive(&far, RecvFlags::empty()).unwrap().is_some());
    }

    #[test]
    fn versions_are_two_numbers() {
        assert_eq!(VERSION.to_string().parse(), Ok(VERSION));
        for wrong in ["", "1", "1.", ".1", "1.x", "1.70000", "-1.0"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }
}
