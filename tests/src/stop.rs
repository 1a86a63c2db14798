//! The one flag that says "stop now and clean up": set by a signal handler, looked at by every wait.
//!
//! It is process-wide because a signal is. Clean-up itself does not look at it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The flag, for a signal handler to set.
pub fn flag() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)))
}

/// Somebody asked this process to stop.
pub fn requested() -> bool {
    flag().load(Ordering::Relaxed)
}

/// Turns a request to stop into an error, so that the guards up the stack clean up.
///
/// # Errors
/// When a stop was requested.
pub fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}

/// Asks `probe` again and again until it answers `Some`, a stop is requested or `limit` is over.
///
/// # Errors
/// When time is over, with `what` and the last answer of `why_not`; at a stop; when `probe` fails.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        check()?;
        match probe()? {
            Ok(value) => return Ok(value),
            Err(why_not) if start.elapsed() >= limit => {
                bail!("{what}: not within {:.0} s: {why_not}", limit.as_secs_f64())
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
