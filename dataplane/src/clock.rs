//! The clock that packets, caches and timers go by: the machine's, or one that obeys.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use flowtable::types::Timestamp;

/// Where a dataplane has its time from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Clock {
    /// The machine's monotonic clock, from the dataplane's start.
    #[default]
    Machine,
    /// One that can be stopped and advanced.
    Virtual(VirtualClock),
}

/// A clock that runs like the machine's until it is stopped, and can be advanced. It
/// never goes back. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    setting: Arc<Mutex<Setting>>,
}

/// What time it was at a moment of the machine's clock, and whether it goes on from there.
#[derive(Debug, Clone, Copy)]
struct Setting {
    nanos: u64,
    at: Instant,
    stopped: bool,
}

impl Setting {
    fn now(&self) -> u64 {
        let run = if self.stopped { Duration::ZERO } else { self.at.elapsed() };
        self.nanos.saturating_add(nanos(run))
    }
}

impl VirtualClock {
    /// A clock that starts to run from zero.
    pub fn new() -> Self {
        let setting = Setting { nanos: 0, at: Instant::now(), stopped: false };
        Self { setting: Arc::new(Mutex::new(setting)) }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.lock().now())
    }

    /// It does not run.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Stops it, or lets it run on.
    pub fn set_stopped(&self, stopped: bool) {
        let mut setting = self.lock();
        *setting = Setting { nanos: setting.now(), at: Instant::now(), stopped };
    }

    /// Makes it later at once, running or not.
    pub fn advance(&self, by: Duration) {
        let mut setting = self.lock();
        setting.nanos = setting.nanos.saturating_add(nanos(by));
    }

    fn lock(&self) -> MutexGuard<'_, Setting> {
        self.setting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for VirtualClock {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.setting, &other.setting)
    }
}

impl Eq for VirtualClock {}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_clock_moves_only_when_told_to() {
        let clock = VirtualClock::new();
        let other = clock.clone();
        other.set_stopped(true);
        let stopped = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), stopped);
        other.advance(Duration::from_secs(300));
        assert_eq!(clock.now().since(stopped), Duration::from_secs(300));
        clock.set_stopped(false);
        assert!(!other.is_stopped() && clock.now() >= stopped);
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now().since(stopped) >= Duration::from_millis(300_002));
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        let clock = VirtualClock::new();
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now().nanos(), u64::MAX);
    }
}
