//! A daemon, and when it may be started again.

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A daemon that has forwarded for so long was all right.
const GOOD_LIFE: Duration = Duration::from_millis(100);
/// The second pause in a row; the first is none.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Deaths in a row after which memory is not handed on: it may be what kills.
const FORGET_MEMORY_AFTER: u32 = 4;
/// And ports neither.
const FORGET_ALL_AFTER: u32 = 8;

/// A daemon that runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) socket: Option<OwnedFd>,
    /// Since when it forwards.
    pub(crate) begun: Option<Instant>,
}

impl Daemon {
    pub(crate) fn start(command: &[OsString]) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::other("there is no command"))?;
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn()?;
        Ok(Self { child, socket: None, begun: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself; until it is waited for, its id is nobody else's.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends it, and waits for that.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// It has forwarded long enough.
    pub(crate) fn was_good(&self) -> bool {
        self.begun.is_some_and(|begun| begun.elapsed() >= GOOD_LIFE)
    }
}

/// What is handed on to the next daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inheritance {
    All,
    /// All but memory.
    Ports,
    Nothing,
}

/// Deaths in a row, and what follows from them.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    n_deaths: u32,
}

impl BackOff {
    /// A daemon has died. Answers how long to wait for the next one, and what that is given.
    pub(crate) fn died(&mut self, was_good: bool) -> (Duration, Inheritance) {
        self.n_deaths = if was_good { 1 } else { self.n_deaths.saturating_add(1) };
        let pause = match self.n_deaths {
            0 | 1 => Duration::ZERO,
            n => FIRST_PAUSE.saturating_mul(1 << (n - 2).min(10)).min(LONGEST_PAUSE),
        };
        let inheritance = match self.n_deaths {
            n if n > FORGET_ALL_AFTER => Inheritance::Nothing,
            n if n > FORGET_MEMORY_AFTER => Inheritance::Ports,
            _ => Inheritance::All,
        };
        (pause, inheritance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_costs_no_pause_and_the_next_ones_more_and_more() {
        let mut back_off = BackOff::default();
        let mut died = |was_good| back_off.died(was_good);
        for _ in 0..100 {
            assert_eq!(died(true), (Duration::ZERO, Inheritance::All));
        }
        let millis = |n| Duration::from_millis(n);
        assert_eq!(died(false), (millis(10), Inheritance::All));
        assert_eq!(died(false), (millis(20), Inheritance::All));
        assert_eq!(died(false), (millis(40), Inheritance::All));
        assert_eq!(died(false), (millis(80), Inheritance::Ports));
        assert_eq!([died(false), died(false), died(false)].map(|(_, what)| what), [Inheritance::Ports; 3]);
        assert_eq!(died(false), (LONGEST_PAUSE, Inheritance::Nothing));
        assert_eq!(died(true), (Duration::ZERO, Inheritance::All));
    }

    #[test]
    fn a_daemon_is_asked_to_end_and_waited_for() {
        let mut daemon = Daemon::start(&["sleep".into(), "60".into()]).unwrap();
        assert!(daemon.ended().is_none() && !daemon.was_good());
        daemon.terminate();
        let deadline = Instant::now() + Duration::from_secs(10);
        while daemon.ended().is_none() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(Daemon::start(&["/nowhere/vswitchd".into()]).is_err());
    }
}
