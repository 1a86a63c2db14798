//! How connections are tracked: limits, timeouts and checks that were set by hand. They
//! outlive the process; the connections do not.

use std::{collections::BTreeMap, time::Duration};

use flowtable::conntrack::{Conntrack, MAX_TIMEOUT, N_POLICIES, State};
use serde::{Deserialize, Serialize};

use super::Host;
use crate::state::StateError;

/// What was set; nothing: as it is by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackingSettings {
    /// Connections each zone may have that has no limit of its own.
    pub default_zone_limit: Option<u32>,
    /// Connections a zone may have.
    pub zone_limits: BTreeMap<u16, u32>,
    /// Connections that packets of one input port may make.
    pub port_limit: Option<u32>,
    /// Connections there may be.
    pub total_limit: Option<u32>,
    /// Seconds, by policy and state.
    pub timeouts: BTreeMap<u8, BTreeMap<String, u64>>,
    /// The policy of new connections of a zone.
    pub zone_policies: BTreeMap<u16, u8>,
    /// Segments outside of TCP's windows are invalid.
    pub checks_sequence: bool,
    /// TCP connections may be picked up in their middle.
    pub picks_up: bool,
    /// Packets with a wrong checksum are invalid.
    pub checks_checksums: bool,
}

impl Default for TrackingSettings {
    fn default() -> Self {
        Self {
            default_zone_limit: None,
            zone_limits: BTreeMap::new(),
            port_limit: None,
            total_limit: None,
            timeouts: BTreeMap::new(),
            zone_policies: BTreeMap::new(),
            checks_sequence: true,
            picks_up: true,
            checks_checksums: true,
        }
    }
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackingChange {
    /// A zone's own limit, or none.
    ZoneLimit(u16, Option<u32>),
    /// That of zones without one.
    DefaultZoneLimit(Option<u32>),
    /// Of each input port.
    PortLimit(Option<u32>),
    /// Of all.
    TotalLimit(Option<u32>),
    /// How long connections of a state are kept, by a policy.
    Timeout(u8, String, u64),
    /// A policy as it was.
    ResetPolicy(u8),
    /// The policy of a zone.
    ZonePolicy(u16, u8),
    /// Whether TCP's windows are checked.
    ChecksSequence(bool),
    /// Whether connections are picked up.
    PicksUp(bool),
    /// Whether checksums are checked.
    ChecksChecksums(bool),
}

/// A setting was refused; then none is made.
#[derive(Debug, thiserror::Error)]
pub enum TrackingError {
    /// No such policy.
    #[error("policy {0}: timeout policies are 0 to {max}", max = N_POLICIES - 1)]
    Policy(u8),
    /// No such state.
    #[error("there is no state `{0}`; vswitchctl ct timeout list shows them")]
    State(String),
    /// Too long.
    #[error("{0} seconds: a timeout is 1 to {max} seconds", max = MAX_TIMEOUT.as_secs())]
    Timeout(u64),
    /// The settings could not be saved.
    #[error("{0}")]
    Save(#[from] StateError),
}

impl TrackingSettings {
    fn change(&mut self, change: TrackingChange) -> Result<(), TrackingError> {
        match change {
            TrackingChange::ZoneLimit(zone, Some(limit)) => {
                self.zone_limits.insert(zone, limit);
            }
            TrackingChange::ZoneLimit(zone, None) => {
                self.zone_limits.remove(&zone);
            }
            TrackingChange::DefaultZoneLimit(limit) => self.default_zone_limit = limit,
            TrackingChange::PortLimit(limit) => self.port_limit = limit,
            TrackingChange::TotalLimit(limit) => self.total_limit = limit,
            TrackingChange::Timeout(policy, state, seconds) => {
                check_policy(policy)?;
                if find_state(&state).is_none() {
                    return Err(TrackingError::State(state));
                }
                if seconds == 0 || Duration::from_secs(seconds) > MAX_TIMEOUT {
                    return Err(TrackingError::Timeout(seconds));
                }
                self.timeouts.entry(policy).or_default().insert(state, seconds);
            }
            TrackingChange::ResetPolicy(policy) => {
                check_policy(policy)?;
                self.timeouts.remove(&policy);
            }
            TrackingChange::ZonePolicy(zone, 0) => {
                self.zone_policies.remove(&zone);
            }
            TrackingChange::ZonePolicy(zone, policy) => {
                check_policy(policy)?;
                self.zone_policies.insert(zone, policy);
            }
            TrackingChange::ChecksSequence(on) => self.checks_sequence = on,
            TrackingChange::PicksUp(on) => self.picks_up = on,
            TrackingChange::ChecksChecksums(on) => self.checks_checksums = on,
        }
        Ok(())
    }

    /// How long connections in a state are kept, and whether that was set.
    pub fn timeout(&self, policy: u8, state: State) -> (Duration, bool) {
        let set = self.timeouts.get(&policy).and_then(|states| states.get(state.name()));
        set.map_or((state.default_timeout(), false), |seconds| (Duration::from_secs(*seconds), true))
    }

    /// Makes a tracker that these settings or `old` ones were made to heed them.
    fn apply(&self, old: &Self, tracker: &Conntrack) {
        for zone in old.zone_limits.keys().chain(self.zone_limits.keys()) {
            tracker.set_zone_limit(Some(*zone), self.zone_limits.get(zone).copied());
        }
        tracker.set_zone_limit(None, self.default_zone_limit);
        tracker.set_port_limit(self.port_limit);
        tracker.set_limit(self.total_limit);
        for policy in old.timeouts.keys().chain(self.timeouts.keys()) {
            for state in State::ALL {
                tracker.set_timeout(*policy, *state, self.timeout(*policy, *state).0);
            }
        }
        for zone in old.zone_policies.keys().chain(self.zone_policies.keys()) {
            tracker.set_zone_policy(*zone, self.zone_policies.get(zone).copied().unwrap_or_default());
        }
        tracker.set_check_sequence(self.checks_sequence);
        tracker.set_pick_up(self.picks_up);
        tracker.set_check_checksums(self.checks_checksums);
    }
}

fn check_policy(policy: u8) -> Result<(), TrackingError> {
    if usize::from(policy) < N_POLICIES { Ok(()) } else { Err(TrackingError::Policy(policy)) }
}

fn find_state(name: &str) -> Option<State> {
    State::ALL.iter().copied().find(|state| state.name() == name)
}

impl Host {
    /// How connections are tracked.
    pub fn tracking(&self) -> &TrackingSettings {
        &self.tracking
    }

    /// Changes how connections are tracked.
    ///
    /// # Errors
    /// A setting cannot be, or cannot be saved; then nothing has changed.
    pub fn change_tracking(&mut self, changes: Vec<TrackingChange>) -> Result<(), TrackingError> {
        let mut fresh = self.tracking.clone();
        changes.into_iter().try_for_each(|change| fresh.change(change))?;
        self.state.save_tracking(&fresh)?;
        fresh.apply(&self.tracking, self.dataplane.conntrack());
        self.tracking = fresh;
        self.apply_zone_limits();
        Ok(())
    }

    pub(super) fn restore_tracking(&mut self) {
        let Some(saved) = self.state.tracking() else { return };
        saved.apply(&self.tracking, self.dataplane.conntrack());
        self.tracking = saved;
    }
}

#[cfg(test)]
mod tests {
    use flowtable::conntrack::{Config, Storage};

    use super::*;

    #[test]
    fn what_is_taken_back_is_as_it_was() {
        let tracker = Conntrack::new(Config::default(), Storage::on_heap(8));
        let mut settings = TrackingSettings::default();
        let changes = [
            TrackingChange::ZoneLimit(7, Some(3)),
            TrackingChange::Timeout(2, "udp_first".to_owned(), 5),
            TrackingChange::ZonePolicy(7, 2),
            TrackingChange::PortLimit(Some(1)),
        ];
        changes.into_iter().for_each(|change| settings.change(change).unwrap());
        settings.apply(&TrackingSettings::default(), &tracker);
        assert_eq!(settings.timeout(2, State::UdpFirst), (Duration::from_secs(5), true));
        assert_eq!(settings.timeout(2, State::UdpSingle), (State::UdpSingle.default_timeout(), false));
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<TrackingSettings>(&text).unwrap(), settings);
        let back = [
            TrackingChange::ZoneLimit(7, None),
            TrackingChange::ResetPolicy(2),
            TrackingChange::ZonePolicy(7, 0),
            TrackingChange::PortLimit(None),
        ];
        back.into_iter().for_each(|change| settings.change(change).unwrap());
        assert_eq!(settings, TrackingSettings::default());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut settings = TrackingSettings::default();
        for wrong in [
            TrackingChange::Timeout(16, "udp_first".to_owned(), 5),
            TrackingChange::Timeout(0, "udp_frist".to_owned(), 5),
            TrackingChange::Timeout(0, "udp_first".to_owned(), 0),
            TrackingChange::Timeout(0, "udp_first".to_owned(), u64::MAX),
            TrackingChange::ZonePolicy(1, 99),
            TrackingChange::ResetPolicy(16),
        ] {
            assert!(settings.change(wrong.clone()).is_err(), "{wrong:?} was taken");
        }
        assert_eq!(settings, TrackingSettings::default());
    }
}
