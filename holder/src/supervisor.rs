//! The holder's loop: waits for its daemons and for signals, and does what follows.

use std::{
    fs,
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
        socket_with, sockopt,
    },
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::{
    client::check_version,
    options::Options,
    process::{BackOff, Daemon, Inheritance},
    store::{Entry, Store},
    upgrade::{Step, Upgrade},
    wire::{Kind, Message, VERSION, receive, send},
};

/// How long a daemon may take to end when asked to.
const GRACE: Duration = Duration::from_secs(8);
/// How long one may take that another has replaced.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// How long a daemon may take to read what it is told.
const SEND_LIMIT: Duration = Duration::from_secs(2);
/// Files of the holder at most.
const MAX_OPEN_FILES: u64 = 65_536;

/// The holder cannot work.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Its socket.
    #[error("cannot listen at {path}: {source}; --socket names another path")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon.
    #[error("cannot start {program}: {source}")]
    Start {
        /// What was to be started.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// Signals or waiting.
    #[error("the kernel refuses: {0}")]
    System(#[from] io::Error),
}

/// Signals that have come.
#[derive(Debug, Default)]
struct Signals {
    child: Arc<AtomicBool>,
    upgrade: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

/// Which daemon something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Current,
    Next,
}

/// The holder.
#[derive(Debug)]
pub struct Supervisor {
    options: Options,
    listener: OwnedFd,
    woken: UnixStream,
    signals: Signals,
    store: Store,
    current: Option<Daemon>,
    upgrade: Option<Upgrade>,
    /// One that another has replaced, and when it has to be gone.
    leaving: Option<(Daemon, Instant)>,
    back_off: BackOff,
    /// When the next daemon is to be started.
    start_at: Option<Instant>,
    /// Some daemon has forwarded.
    has_worked: bool,
    /// It was told to stop, and when the daemon has to be gone.
    stop_by: Option<Instant>,
    n_restarts: u64,
    /// When the last one was found dead, until the next one forwards.
    died_at: Option<Instant>,
}

impl Supervisor {
    /// A holder that listens; no daemon runs yet.
    ///
    /// # Errors
    /// [`SupervisorError`] says what to do.
    pub fn new(options: Options) -> Result<Self, SupervisorError> {
        raise_file_limit();
        let wrong = |source| SupervisorError::Socket { path: options.socket.clone(), source };
        let listener = listen_at(&options).map_err(wrong)?;
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let signals = Signals::default();
        let flags = [
            (SIGCHLD, &signals.child),
            (SIGHUP, &signals.upgrade),
            (SIGTERM, &signals.stop),
            (SIGINT, &signals.stop),
        ];
        for (signal, flag) in flags {
            // The flag first: who is woken finds it set.
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Self {
            options,
            listener,
            woken,
            signals,
            store: Store::default(),
            current: None,
            upgrade: None,
            leaving: None,
            back_off: BackOff::default(),
            start_at: Some(Instant::now()),
            has_worked: false,
            stop_by: None,
            n_restarts: 0,
            died_at: None,
        })
    }

    /// Runs until it is told to stop, or a daemon ends that cannot be meant to. Answers the exit
    /// code.
    ///
    /// # Errors
    /// The first daemon cannot be started, or the kernel refuses to wait.
    pub fn run(mut self) -> Result<u8, SupervisorError> {
        let code = self.supervise();
        let next = self.upgrade.take().map(|upgrade| upgrade.next);
        for mut daemon in [self.current.take(), next].into_iter().flatten() {
            daemon.kill();
        }
        if let Some((mut daemon, _)) = self.leaving.take() {
            daemon.kill();
        }
        let _ = fs::remove_file(&self.options.socket);
        code
    }

    fn supervise(&mut self) -> Result<u8, SupervisorError> {
        loop {
            if self.signals.stop.swap(false, Relaxed) {
                self.stop();
            }
            if self.signals.upgrade.swap(false, Relaxed) {
                self.start_upgrade();
            }
            if self.signals.child.swap(false, Relaxed)
                && let Some(code) = self.reap()
            {
                return Ok(code);
            }
            self.watch_time()?;
            if self.stop_by.is_some() && self.current.is_none() {
                return Ok(0);
            }
            self.wait()?;
        }
    }

    /// Waits for something, and takes what daemons say.
    fn wait(&mut self) -> Result<(), SupervisorError> {
        let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|wait| Timespec {
            tv_sec: wait.as_secs().cast_signed(),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        let sockets = [self.socket_of(Who::Current), self.socket_of(Who::Next)];
        let mut files = vec![
            PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
        ];
        let present: Vec<_> = [Who::Current, Who::Next]
            .into_iter()
            .zip(sockets)
            .filter_map(|(who, fd)| Some((who, fd?)))
            .collect();
        files.extend(present.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        match poll(&mut files, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let ready: Vec<_> = files.iter().map(|file| !file.revents().is_empty()).collect();
        let speakers: Vec<_> =
            present.iter().zip(&ready[2..]).filter(|(_, ready)| **ready).map(|((who, _), _)| *who).collect();
        if ready[0] {
            let mut bytes = [0; 64];
            while self.woken.read(&mut bytes).is_ok_and(|n| n > 0) {}
        }
        if ready[1] {
            self.admit();
        }
        // The successor last: what the first has said comes before.
        speakers.into_iter().for_each(|who| self.listen_to(who));
        Ok(())
    }

    fn socket_of(&self, who: Who) -> Option<BorrowedFd<'_>> {
        let daemon = match who {
            Who::Current => self.current.as_ref(),
            Who::Next => self.upgrade.as_ref().map(|upgrade| &upgrade.next),
        };
        daemon?.socket.as_ref().map(OwnedFd::as_fd)
    }

    fn daemon(&mut self, who: Who) -> Option<&mut Daemon> {
        match who {
            Who::Current => self.current.as_mut(),
            Who::Next => self.upgrade.as_mut().map(|upgrade| &mut upgrade.next),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let upgrade = self.upgrade.as_ref().map(Upgrade::deadline);
        let leaving = self.leaving.as_ref().map(|(_, by)| *by);
        [self.start_at, upgrade, leaving, self.stop_by].into_iter().flatten().min()
    }

    /// Does what is due.
    fn watch_time(&mut self) -> Result<(), SupervisorError> {
        let now = Instant::now();
        if self.leaving.as_ref().is_some_and(|(_, by)| *by <= now)
            && let Some((mut daemon, _)) = self.leaving.take()
        {
            say(&format!("the daemon {} that was replaced does not end; killed", daemon.pid()));
            daemon.kill();
        }
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.deadline() <= now) {
            self.give_up("the successor took too long");
        }
        if self.stop_by.is_some_and(|by| by <= now)
            && let Some(mut daemon) = self.current.take()
        {
            say(&format!("the daemon {} does not end; killed", daemon.pid()));
            daemon.kill();
        }
        if self.start_at.is_some_and(|at| at <= now) {
            self.start_at = None;
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), SupervisorError> {
        match Daemon::start(&self.options.command) {
            Ok(daemon) => self.current = Some(daemon),
            Err(source) if !self.has_worked => {
                return Err(SupervisorError::Start { program: self.program(), source });
            }
            Err(error) => {
                say(&format!("cannot start {}: {error}; trying again", self.program()));
                let (pause, _) = self.back_off.died(false);
                self.start_at = Some(Instant::now() + pause.max(Duration::from_millis(100)));
            }
        }
        Ok(())
    }

    fn program(&self) -> String {
        self.options.command.first().map(|program| program.display().to_string()).unwrap_or_default()
    }

    /// Somebody wants to speak to the holder: one of its own daemons may.
    fn admit(&mut self) {
        let Ok(socket) = accept_with(&self.listener, SocketFlags::CLOEXEC) else { return };
        let peer = sockopt::socket_peercred(&socket).map(|peer| peer.pid.as_raw_nonzero().get());
        let pid = peer.ok().and_then(|pid| u32::try_from(pid).ok());
        for who in [Who::Current, Who::Next] {
            if let Some(daemon) = self.daemon(who).filter(|daemon| Some(daemon.pid()) == pid) {
                // One way is enough; another one of the same process is none of ours.
                if daemon.socket.is_none() {
                    // One that does not listen must not keep the holder from the others.
                    let _ = sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(SEND_LIMIT));
                    daemon.socket = Some(socket);
                    return;
                }
            }
        }
        let why = "only daemons that this holder has started, once each; start vswitchd by vswitch-holder";
        let _ = send(&socket, Kind::Refused, ("", why), &[]);
    }

    /// Takes all that a daemon has said so far.
    fn listen_to(&mut self, who: Who) {
        loop {
            let Some(socket) = self.socket_of(who) else { return };
            match receive(socket, RecvFlags::DONTWAIT) {
                Ok(Some(message)) => self.take(who, message),
                Ok(None) => return self.disconnect(who),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    say(&format!("a daemon says what cannot be understood: {error}"));
                    return self.disconnect(who);
                }
            }
            // The successor has become the daemon, or is none any more.
            if who == Who::Next && self.upgrade.is_none() {
                return;
            }
        }
    }

    /// A daemon has closed its socket, by ending, most likely; that is seen to when it is waited for.
    fn disconnect(&mut self, who: Who) {
        if let Some(daemon) = self.daemon(who) {
            daemon.socket = None;
        }
        if who == Who::Next {
            self.give_up("the successor has gone away");
        }
    }

    fn take(&mut self, who: Who, message: Message) {
        let Message { kind, name, note, files } = message;
        match (who, kind) {
            (_, Kind::Hello) => self.greet(who, &note),
            (_, Kind::Keep) => {
                if let Err(error) = self.store.keep(name, Entry { note, files }) {
                    say(&error);
                }
            }
            (_, Kind::Forget) => self.store.forget(&name),
            (Who::Current, Kind::Frozen) => self.frozen(),
            (Who::Next, Kind::Prepared) => {
                self.step(Step::Preparing, Step::HandingOver, Who::Current, Kind::HandOver)
            }
            (Who::Current, Kind::Released) => {
                self.step(Step::HandingOver, Step::Beginning, Who::Next, Kind::Go)
            }
            (Who::Current, Kind::Begun) => self.begun(),
            (Who::Next, Kind::Begun) => self.promote(&note),
            // Late answers of an upgrade that was given up.
            _ => {}
        }
    }

    /// A daemon says hello.
    fn greet(&mut self, who: Who, version: &str) {
        if let Err(why) = check_version(version) {
            say(&format!("a daemon is refused: {why}"));
            self.tell(who, Kind::Refused, &why);
            return;
        }
        match who {
            Who::Current => self.hand_out(who, Kind::Welcome),
            Who::Next => self.step(Step::Starting, Step::Freezing, Who::Current, Kind::Freeze),
        }
    }

    /// The first daemon stands still.
    fn frozen(&mut self) {
        if let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.step == Step::Freezing) {
            upgrade.step = Step::Preparing;
            self.hand_out(Who::Next, Kind::Succeed);
        }
    }

    /// Gives a daemon all that is held.
    fn hand_out(&mut self, who: Who, greeting: Kind) {
        let Some(socket) = self.socket_of(who) else { return };
        let hand_out = || -> io::Result<()> {
            send(socket, greeting, ("", &VERSION.to_string()), &[])?;
            for (name, entry) in self.store.iter() {
                let files: Vec<_> = entry.files.iter().map(OwnedFd::as_fd).collect();
                send(socket, Kind::Entry, (name, &entry.note), &files)?;
            }
            send(socket, Kind::End, ("", ""), &[])
        };
        if let Err(error) = hand_out() {
            say(&format!("a daemon cannot be given what is held: {error}"));
        }
    }

    fn tell(&mut self, who: Who, kind: Kind, note: &str) {
        let Some(socket) = self.socket_of(who) else { return };
        if let Err(error) = send(socket, kind, ("", note), &[]) {
            say(&format!("a daemon cannot be told {kind:?}: {error}"));
        }
    }

    /// From one step of an upgrade to the next, which somebody is told.
    fn step(&mut self, from: Step, to: Step, who: Who, kind: Kind) {
        let Some(upgrade) = self.upgrade.as_mut().filter(|upgrade| upgrade.step == from) else { return };
        upgrade.step = to;
        if to == Step::HandingOver {
            upgrade.handed_over = Some(Instant::now());
        }
        self.tell(who, kind, "");
    }

    fn begun(&mut self) {
        self.has_worked = true;
        if let Some(died) = self.died_at.take() {
            let pid = self.current.as_ref().map_or(0, Daemon::pid);
            say(&format!("the daemon {pid} forwards, {} us after that", died.elapsed().as_micros()));
        }
        if let Some(daemon) = &mut self.current {
            daemon.begun = Some(Instant::now());
        }
    }

    /// The successor forwards: it is the daemon from now on. It may say for how long nobody had.
    fn promote(&mut self, note: &str) {
        if self.upgrade.as_ref().is_none_or(|upgrade| upgrade.step != Step::Beginning) {
            return;
        }
        self.tell(Who::Current, Kind::Leave, "");
        let Some(upgrade) = self.upgrade.take() else { return };
        let old = self.current.replace(upgrade.next);
        self.leaving = old.map(|daemon| (daemon, Instant::now() + LEAVE_LIMIT));
        self.begun();
        let stood = stood(note, upgrade.handed_over.map_or(Duration::ZERO, |at| at.elapsed()));
        say(&format!(
            "upgraded in {} ms; packets waited for {} us",
            upgrade.started.elapsed().as_millis(),
            stood.as_micros()
        ));
    }

    fn start_upgrade(&mut self) {
        let can =
            self.current.as_ref().is_some_and(|daemon| daemon.begun.is_some() && daemon.socket.is_some());
        if !can || self.upgrade.is_some() || self.stop_by.is_some() {
            say(
                "no upgrade now: there is no daemon that forwards and knows this holder, or one is under way",
            );
            return;
        }
        if let Some((mut daemon, _)) = self.leaving.take() {
            daemon.kill();
        }
        match Daemon::start(&self.options.command) {
            Ok(next) => self.upgrade = Some(Upgrade::new(next)),
            Err(error) => say(&format!("no upgrade: cannot start {}: {error}", self.program())),
        }
    }

    /// The successor is ended, and the first daemon goes on.
    fn give_up(&mut self, why: &str) {
        let Some(mut upgrade) = self.upgrade.take() else { return };
        say(&format!("no upgrade: {why}; the daemon before goes on"));
        // First it must be certain that nobody else forwards.
        upgrade.next.kill();
        if upgrade.has_frozen() {
            self.tell(Who::Current, Kind::Thaw, "");
        }
    }

    /// Sees to daemons that have ended. Answers the exit code when that is the end.
    fn reap(&mut self) -> Option<u8> {
        if self.leaving.as_mut().is_some_and(|(daemon, _)| daemon.ended().is_some()) {
            self.leaving = None;
        }
        if self.upgrade.as_mut().is_some_and(|upgrade| upgrade.next.ended().is_some()) {
            self.give_up("the successor has ended");
        }
        let status = self.current.as_mut()?.ended()?;
        // What it has said before it ended counts.
        self.listen_to(Who::Current);
        let daemon = self.current.take()?;
        if self.stop_by.is_some() {
            return Some(code_of(status));
        }
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.step == Step::Beginning) {
            // It has let go already; the successor forwards, or will at once.
            self.current = self.upgrade.take().map(|upgrade| upgrade.next);
            return None;
        }
        // The one that was to succeed it has prepared for what is not any more.
        self.give_up("the daemon has ended meanwhile");
        if status.success() || !self.has_worked {
            return Some(code_of(status));
        }
        self.died_at = Some(Instant::now());
        let (pause, inheritance) = self.back_off.died(daemon.was_good());
        match inheritance {
            Inheritance::All => {}
            Inheritance::Ports => self.store.forget_memory(),
            Inheritance::Nothing => self.store.forget_all(),
        }
        self.n_restarts += 1;
        say(&format!(
            "the daemon {} has died ({status}); starting the next one in {} ms, which is given {} of what \
             is held ({} names); restart {}",
            daemon.pid(),
            pause.as_millis(),
            match inheritance {
                Inheritance::All => "all",
                Inheritance::Ports => "the ports",
                Inheritance::Nothing => "nothing",
            },
            self.store.len(),
            self.n_restarts
        ));
        self.start_at = Some(Instant::now() + pause);
        None
    }

    /// Asks the daemon to end.
    fn stop(&mut self) {
        self.give_up("the holder was told to stop");
        self.start_at = None;
        self.stop_by.get_or_insert(Instant::now() + GRACE);
        if let Some(daemon) = &self.current {
            daemon.terminate();
        }
    }
}

/// A line of the log, which is the daemon's, too.
fn say(text: &str) {
    eprintln!("vswitch-holder: {text}");
}

/// For how long no daemon forwarded: as the one that does now says, and no longer than it seemed.
fn stood(note: &str, seemed: Duration) -> Duration {
    note.parse().map_or(seemed, |micros| seemed.min(Duration::from_micros(micros)))
}

fn code_of(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Listens where only root may speak; what a holder that is gone has left there is replaced.
fn listen_at(options: &Options) -> io::Result<OwnedFd> {
    if let Some(dir) = options.socket.parent() {
        fs::create_dir_all(dir)?;
    }
    let address = SocketAddrUnix::new(&options.socket)?;
    let new = || socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    if let Ok(metadata) = fs::symlink_metadata(&options.socket) {
        use std::os::unix::fs::FileTypeExt as _;
        let exists = io::Error::from(io::ErrorKind::AlreadyExists);
        if !metadata.file_type().is_socket() || rustix::net::connect(new()?, &address).is_ok() {
            return Err(exists);
        }
        fs::remove_file(&options.socket)?;
    }
    let listener = new()?;
    bind(&listener, &address)?;
    fs::set_permissions(&options.socket, fs::Permissions::from_mode(0o600))?;
    listen(&listener, 8)?;
    Ok(listener)
}

/// Lets the holder have files for many ports.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.unwrap_or(MAX_OPEN_FILES).min(MAX_OPEN_FILES));
    // What does not fit is refused by the kernel, file by file.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_tells_how_long_nobody_forwarded_is_believed_within_reason() {
        let seemed = Duration::from_micros(900);
        let said =
            ["", "x", "-1", "250", "1000000", "99999999999999999999999"].map(|note| stood(note, seemed));
        assert_eq!(said.map(|stood| stood.as_micros()), [900, 900, 900, 250, 900, 900]);
    }
}
