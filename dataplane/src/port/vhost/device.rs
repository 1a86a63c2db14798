//! Opening a port for a guest: its socket, and the thread that speaks with the guest's side.
//!
//! The thread sleeps but for messages. It reconnects as long as the port is there: a guest that
//! goes and comes back, or one that was cut off and starts anew, needs nobody's help.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use flowtable::types::MacAddr;

use super::{
    fault::Fault,
    message::{HEADER_LEN, Header, Request},
    queue::{VhostOutlet, VhostQueue},
    session::Session,
    shared::Shared,
};
use crate::{
    port::{AnyOutlet, AnyQueue, AttachError, Hold, Opened, PortReport, metrics::PortMetrics},
    sys::{
        event::{PollSet, Readiness, Waker},
        passed_files,
    },
};

/// Most pairs of queues of a port.
pub const MAX_QUEUE_PAIRS: u16 = 64;
/// Of a guest that says no other.
const DEFAULT_MTU: u32 = 1500;
/// How long the rest of a message may take.
const MESSAGE_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait before the next attempt to reach a guest's side that is not there.
const RETRY: Duration = Duration::from_millis(200);
/// The same after a guest was cut off: it is not to keep the host busy with its return.
const PENALTY: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
/// Longest sleep: it only bounds the harm of a lost wake-up.
const MAX_SLEEP: Duration = Duration::from_secs(5);

/// A port for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostPort {
    /// The socket between the switch and the guest's side.
    pub socket: PathBuf,
    /// The switch makes the socket and listens; otherwise the guest's side does.
    pub listens: bool,
    /// Pairs of queues that the guest may have, from 1 to [`MAX_QUEUE_PAIRS`].
    pub n_queues: u16,
    /// Largest L3 packet to the guest, unless its side says another; `None`: 1500 bytes.
    pub mtu: Option<u32>,
}

/// Keeps the thread going.
#[derive(Debug)]
pub(crate) struct VhostHold {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// To be removed with the port.
    made: Option<PathBuf>,
}

impl Drop for VhostHold {
    fn drop(&mut self) {
        self.shared.end();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a vhost-user port had panicked");
        }
        if let Some(path) = &self.made {
            let _ = fs::remove_file(path);
        }
    }
}

/// Opens a port for a guest. Whether the guest is there shows later.
pub(crate) fn open(name: &str, port: &VhostPort) -> Result<Opened, AttachError> {
    let failed = |source: io::Error| AttachError::Socket { socket: port.socket.clone(), source };
    let n_pairs = usize::from(port.n_queues.clamp(1, MAX_QUEUE_PAIRS));
    let mtu = port.mtu.unwrap_or(DEFAULT_MTU);
    let metrics = Arc::new(PortMetrics::new(mtu, n_pairs, n_pairs));
    metrics.set_down(Some("nobody has connected yet".to_owned()));
    let shared = Arc::new(Shared::new(n_pairs, Arc::clone(&metrics), Waker::new().map_err(failed)?));
    let listener = if port.listens { Some(listen(&port.socket).map_err(failed)?) } else { None };
    let made = port.listens.then(|| port.socket.clone());
    let speaker = Speaker {
        name: name.to_owned(),
        socket: port.socket.clone(),
        listener,
        shared: Arc::clone(&shared),
        poll_set: PollSet::default(),
    };
    let thread =
        thread::Builder::new().name(format!("vhost-{name}")).spawn(|| speaker.run()).map_err(failed)?;
    let hold = VhostHold { shared: Arc::clone(&shared), thread: Some(thread), made };
    let queue = |pair| AnyQueue::Vhost(VhostQueue::new(Arc::clone(&shared), pair));
    let outlet = |pair| AnyOutlet::Vhost(VhostOutlet::new(Arc::clone(&shared), pair));
    let mode = if port.listens { "vhost-user-server" } else { "vhost-user-client" };
    Ok(Opened {
        kind: "vhost-user",
        report: PortReport { mode: mode.to_owned(), mac: mac_of(&port.socket), mtu },
        metrics,
        queues: (0..n_pairs).map(queue).collect(),
        outlets: (0..n_pairs).map(outlet).collect(),
        hold: Some(Hold::Vhost { _hold: hold }),
        interface: None,
    })
}

/// An address for the switch's end: locally administered, the same whenever the port is there.
fn mac_of(socket: &Path) -> MacAddr {
    let hash = socket.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    MacAddr::new([0x02, a, b, c, d, e])
}

/// Makes a socket that only the switch's own user can connect to. One that is left over from a
/// process that is gone is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let is_left_over = || {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        is_socket && UnixStream::connect(path).err().is_some_and(refused)
    };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over() => {
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        listener => listener?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Speaks with the guest's side.
struct Speaker {
    name: String,
    socket: PathBuf,
    /// When the switch listens.
    listener: Option<UnixListener>,
    shared: Arc<Shared>,
    poll_set: PollSet,
}

impl Speaker {
    fn run(mut self) {
        let mut last_fault: Option<String> = None;
        while !self.shared.is_ending() {
            let stream = match self.connect() {
                Ok(stream) => stream,
                Err(error) => {
                    self.say_why(&error, last_fault.as_deref());
                    let listener = self.listener.as_ref().map(AsRawFd::as_raw_fd);
                    let longest = if listener.is_some() { MAX_SLEEP } else { RETRY };
                    self.wait(listener, longest);
                    continue;
                }
            };
            tracing::info!(port = self.name, "the guest's side has connected");
            match self.serve(stream) {
                None => {}
                Some(Fault::HungUp) => {
                    tracing::info!(port = self.name, "the guest's side has gone");
                    last_fault = None;
                }
                Some(fault) => {
                    tracing::warn!(port = self.name, %fault, "the guest is cut off");
                    self.shared.metrics.set_down(Some(format!("the guest was cut off: {fault}")));
                    last_fault = Some(fault.to_string());
                    self.pause(PENALTY);
                }
            }
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = match &self.listener {
            Some(listener) => listener.accept()?.0,
            None => UnixStream::connect(&self.socket)?,
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(MESSAGE_LIMIT))?;
        stream.set_write_timeout(Some(MESSAGE_LIMIT))?;
        Ok(stream)
    }

    /// Says why nobody is connected.
    fn say_why(&self, error: &io::Error, last_fault: Option<&str>) {
        let socket = self.socket.display();
        let why = match &self.listener {
            Some(_) => format!("nobody has connected to {socket}"),
            None => format!("nobody listens at {socket}: {error}"),
        };
        let before =
            last_fault.map_or_else(String::new, |fault| format!("; before, it was cut off: {fault}"));
        self.shared.metrics.set_down(Some(why + &before));
    }

    /// Does what the guest's side asks for until it goes, does something wrong (then that is
    /// the answer), or the port ends.
    fn serve(&mut self, mut stream: UnixStream) -> Option<Fault> {
        let mut session = Session::new(Arc::clone(&self.shared));
        // Of the guest before.
        let _ = self.shared.take_fault();
        self.shared.metrics.set_down(Some("the guest has not started its device".to_owned()));
        while !self.shared.is_ending() {
            if let Some((ring, fault)) = self.shared.take_fault() {
                tracing::warn!(port = self.name, ring, "a ring is broken");
                return Some(fault);
            }
            if self.wait(Some(stream.as_raw_fd()), MAX_SLEEP)
                && let Err(fault) = answer(&mut stream, &mut session)
            {
                return Some(fault);
            }
        }
        None
    }

    /// Sleeps until there is something to read, somebody rings or the time is up. True: there
    /// is something to read.
    fn wait(&mut self, fd: Option<i32>, longest: Duration) -> bool {
        let Self { shared, poll_set, .. } = self;
        poll_set.clear();
        poll_set.add(shared.bell.fd());
        fd.into_iter().for_each(|fd| poll_set.add(fd));
        shared.bell.prepare();
        if !shared.is_ending() && !shared.has_fault() {
            poll_set.wait(longest);
        }
        shared.bell.finish();
        poll_set.results().nth(1).is_some_and(|readiness| readiness != Readiness::Idle)
    }

    /// Sleeps, unless the port ends.
    fn pause(&mut self, duration: Duration) {
        let _ = self.shared.take_fault();
        self.wait(None, duration);
    }
}

/// Reads a message, does what it says, and answers.
fn answer(stream: &mut UnixStream, session: &mut Session) -> Result<(), Fault> {
    let mut bytes = [0; HEADER_LEN];
    let (n_read, files) = passed_files::receive(stream, &mut bytes)?;
    if n_read == 0 {
        return Err(Fault::HungUp);
    }
    stream.read_exact(&mut bytes[n_read..])?;
    let header = Header::parse(&bytes)?;
    let mut payload = [0; super::message::MAX_PAYLOAD_LEN];
    let payload =
        payload.get_mut(..header.len).ok_or(Fault::Length { kind: header.kind, len: header.len })?;
    stream.read_exact(payload)?;
    let request = Request::parse(header.kind, payload)?;
    if files.len() != request.n_files() {
        return Err(Fault::Files { kind: header.kind, n: files.len() });
    }
    if let Some(reply) = session.handle(&request, files, header.needs_reply)? {
        stream.write_all(&reply.bytes(header.kind))?;
    }
    Ok(())
}
