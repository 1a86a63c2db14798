//! `ct limit`, `ct timeout` and `ct check`: how connections are tracked.

use clap::{Args, Subcommand, ValueEnum};
use ferroflow_proto::host::{
    ConntrackSetting, ConntrackTimeout, GetConntrackResponse, OptionalLimit, SetConntrackRequest,
    StateTimeout, ZoneLimit, ZonePolicy, conntrack_setting::Setting,
};
use serde::Serialize;

use super::{
    stats::{ZoneView, get},
    write_pairs,
};
use crate::{
    error::CtlError,
    output::Tabular,
    session::{Session, host_answer},
};

/// How many connections there may be.
#[derive(Debug, Subcommand)]
pub enum Limit {
    /// List the limits, with the connections of each zone
    List,
    /// Set a limit; connections beyond it stay, new ones are refused as ct-limit
    Set(SetLimit),
    /// Take a limit away
    Del {
        /// Of what: zone=N, default (zones without one), port (each input port), total
        #[arg(value_name = "WHAT", value_parser = parse_scope)]
        scope: Scope,
    },
}

/// A limit.
#[derive(Debug, Args)]
pub struct SetLimit {
    /// Of what: zone=N, default (zones without one), port (each input port), total
    #[arg(value_name = "WHAT", value_parser = parse_scope)]
    scope: Scope,
    /// How many connections
    #[arg(value_name = "N")]
    limit: u32,
}

/// What a limit is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A zone.
    Zone(u16),
    /// Each zone without one.
    Default,
    /// Each input port.
    Port,
    /// All.
    Total,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    match text {
        "default" => Ok(Scope::Default),
        "port" => Ok(Scope::Port),
        "total" => Ok(Scope::Total),
        _ => text
            .strip_prefix("zone=")
            .and_then(|zone| zone.parse().ok())
            .map(Scope::Zone)
            .ok_or_else(|| "a limit is of zone=N (0 to 65535), default, port or total".into()),
    }
}

impl Scope {
    fn setting(self, limit: Option<u32>) -> Setting {
        let limit_of_all = OptionalLimit { limit };
        match self {
            Self::Zone(zone) => Setting::ZoneLimit(ZoneLimit { zone: zone.into(), limit }),
            Self::Default => Setting::DefaultZoneLimit(limit_of_all),
            Self::Port => Setting::PortLimit(limit_of_all),
            Self::Total => Setting::TotalLimit(limit_of_all),
        }
    }
}

impl Limit {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let answer = match self {
            Self::List => get(session).await?,
            Self::Set(SetLimit { scope, limit }) => set(session, scope.setting(Some(limit))).await?,
            Self::Del { scope } => set(session, scope.setting(None)).await?,
        };
        let view = LimitsView::from(answer);
        session.print(&view, |out| {
            let text =
                |limit: Option<u32>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
            let scopes = [
                ("default", text(view.default_zone_limit)),
                ("port", text(view.port_limit)),
                ("total", text(view.total_limit)),
            ];
            write_pairs(out, &scopes)?;
            view.zones.iter().try_for_each(|zone| {
                let limit = text(zone.limit.or(view.default_zone_limit));
                writeln!(out, "zone={},limit={limit},count={}", zone.zone, zone.n_connections)
            })
        })
    }
}

/// What is shown of limits.
#[derive(Debug, Serialize)]
struct LimitsView {
    default_zone_limit: Option<u32>,
    port_limit: Option<u32>,
    total_limit: Option<u32>,
    zones: Vec<ZoneView>,
}

impl From<GetConntrackResponse> for LimitsView {
    fn from(answer: GetConntrackResponse) -> Self {
        Self {
            default_zone_limit: answer.default_zone_limit,
            port_limit: answer.port_limit,
            total_limit: answer.total_limit,
            zones: answer.zones.into_iter().map(ZoneView::from).collect(),
        }
    }
}

/// How long connections are kept without a packet. A policy is chosen by
/// `ct(commit,timeout=N)`, or for a whole zone.
#[derive(Debug, Subcommand)]
pub enum Timeout {
    /// List the timeouts of policy 0, and where other policies differ from the defaults
    List,
    /// Set a timeout; connections take it with their next packet
    Set {
        /// The policy, 0 to 15; 0 is that of zones without one
        policy: u32,
        /// State of connections, such as udp_first or tcp_established
        state: String,
        /// How long
        #[arg(value_name = "SECONDS")]
        seconds: u64,
    },
    /// Give a policy the default timeouts again
    Reset {
        /// The policy, 0 to 15
        policy: u32,
    },
    /// Say which policy the new connections of a zone have
    Zone {
        /// The zone
        zone: u32,
        /// The policy, 0 to 15
        policy: u32,
    },
}

impl Timeout {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let answer = match self {
            Self::List => get(session).await?,
            Self::Set { policy, state, seconds } => {
                set(session, Setting::Timeout(StateTimeout { policy, state, seconds })).await?
            }
            Self::Reset { policy } => set(session, Setting::ResetPolicy(policy)).await?,
            Self::Zone { zone, policy } => {
                set(session, Setting::ZonePolicy(ZonePolicy { zone, policy })).await?
            }
        };
        let timeouts: Vec<TimeoutView> = answer.timeouts.into_iter().map(TimeoutView::from).collect();
        session.print_rows(&timeouts)
    }
}

/// What is shown of a timeout.
#[derive(Debug, Serialize)]
struct TimeoutView {
    policy: u32,
    state: String,
    seconds: u64,
    /// Not the default.
    set: bool,
}

impl From<ConntrackTimeout> for TimeoutView {
    fn from(timeout: ConntrackTimeout) -> Self {
        let ConntrackTimeout { policy, state, seconds, set } = timeout;
        Self { policy, state, seconds, set }
    }
}

impl Tabular for TimeoutView {
    const HEADINGS: &'static [&'static str] = &["POLICY", "STATE", "SECONDS", "SET"];

    fn cells(&self) -> Vec<String> {
        let set = if self.set { "yes" } else { "default" };
        vec![self.policy.to_string(), self.state.clone(), self.seconds.to_string(), set.to_owned()]
    }
}

/// What is asked of packets.
#[derive(Debug, Args)]
pub struct Check {
    /// Which; none: tells all
    #[arg(value_enum, requires = "on")]
    what: Option<Checked>,
    /// Whether
    #[arg(value_enum)]
    on: Option<Switched>,
}

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Checked {
    /// Segments outside of the windows are invalid
    Sequence,
    /// Connections may be picked up in their middle
    PickUp,
    /// Packets with a wrong checksum are invalid
    Checksums,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switched {
    /// Yes
    On,
    /// No
    Off,
}

impl Check {
    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let answer = match (self.what, self.on) {
            (Some(what), Some(on)) => {
                let on = on == Switched::On;
                let setting = match what {
                    Checked::Sequence => Setting::ChecksSequence(on),
                    Checked::PickUp => Setting::PicksUp(on),
                    Checked::Checksums => Setting::ChecksChecksums(on),
                };
                set(session, setting).await?
            }
            _ => get(session).await?,
        };
        let view = CheckView {
            sequence: answer.checks_sequence,
            pick_up: answer.picks_up,
            checksums: answer.checks_checksums,
        };
        session.print(&view, |out| {
            let text = |on: bool| if on { "on" } else { "off" }.to_owned();
            let pairs = [
                ("sequence", text(view.sequence)),
                ("pick-up", text(view.pick_up)),
                ("checksums", text(view.checksums)),
            ];
            write_pairs(out, &pairs)
        })
    }
}

/// What is shown of checks.
#[derive(Debug, Serialize)]
struct CheckView {
    sequence: bool,
    pick_up: bool,
    checksums: bool,
}

async fn set(session: &Session<'_>, setting: Setting) -> Result<GetConntrackResponse, CtlError> {
    let mut conntrack = session.conntrack().await?;
    let settings = vec![ConntrackSetting { setting: Some(setting) }];
    host_answer(conntrack.set_conntrack(session.request(SetConntrackRequest { settings })).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_a_scope() {
        assert_eq!(parse_scope("zone=7"), Ok(Scope::Zone(7)));
        assert_eq!(parse_scope("total"), Ok(Scope::Total));
        for text in ["", "zone", "zone=", "zone=65536", "7", "zone=-1"] {
            assert!(parse_scope(text).is_err(), "{text:?} was taken");
        }
    }
}
