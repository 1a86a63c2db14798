//! How often it is written that a neighbour has another MAC address. Two hosts that hear
//! different ones would else write by turns, and every host would be told each time.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::resource::Name;

/// Changes of a neighbour that are written at once: it moves, and perhaps back.
const BURST: u32 = 4;
/// After these, one each so often.
const EVERY: Duration = Duration::from_secs(10);
/// Neighbours that are remembered before those are forgotten that have been quiet.
const ROOM: usize = 4096;

/// Neighbours that have changed of late: until when their next changes are paid for.
#[derive(Debug, Default)]
pub struct Moderation(Mutex<BTreeMap<(Name, IpAddr), Instant>>);

impl Moderation {
    /// A neighbour of a router port changes now.
    ///
    /// # Errors
    /// How long that has to wait.
    pub(super) fn admit(&self, port: &Name, ip: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ROOM {
            known.retain(|_, paid| *paid > now);
        }
        let paid = known.entry((port.clone(), ip)).or_insert(now);
        let ahead = paid.saturating_duration_since(now);
        let allowed = EVERY * (BURST - 1);
        if ahead > allowed {
            return Err(ahead - allowed);
        }
        *paid = now + ahead + EVERY;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_changes_all_the_time_is_written_at_a_rate_and_others_at_once() {
        let moderation = Moderation::default();
        let port = Name::parse("routers/r/ports/out").unwrap();
        let (flapping, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let start = Instant::now();
        let mut written = Vec::new();
        for second in 0..120 {
            let now = start + Duration::from_secs(second);
            match moderation.admit(&port, flapping, now) {
                Ok(()) => written.push(second),
                Err(wait) => {
                    assert!(wait <= EVERY && wait > Duration::ZERO, "{wait:?}");
                    // What waits as long as it is told, is written then.
                    let later = Moderation(Mutex::new(moderation.0.lock().unwrap().clone()));
                    assert!(later.admit(&port, flapping, now + wait).is_ok());
                }
            }
            if second == 60 {
                assert!(moderation.admit(&port, other, now).is_ok());
            }
        }
        assert_eq!(written, [0, 1, 2, 3, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110]);
    }
}
