//! The states of connections, and how long each is kept without a packet.

use std::{
    sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// Timeout policies there can be; 0 is that of zones without one of their own.
pub const N_POLICIES: usize = 16;
/// Longest timeout: half of what a moment in milliseconds of 32 bits can tell apart.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(20 * 24 * 3600);

/// Declares the states: variant, name, default timeout in seconds.
macro_rules! states {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $secs:literal;)*) => {
        /// State of a connection; each has a timeout.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum State { $($(#[$doc])* $variant,)* }

        impl State {
            /// All states.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in dumps and policies.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How long it is kept, unless a policy says otherwise.
            pub const fn default_timeout(self) -> Duration {
                match self { $(Self::$variant => Duration::from_secs($secs),)* }
            }
        }
    };
}

states! {
    /// The first SYN was seen.
    TcpSynSent = "tcp_syn_sent", 30;
    /// Both SYNs were seen.
    TcpSynRecv = "tcp_syn_recv", 30;
    /// The handshake is over.
    TcpEstablished = "tcp_established", 86_400;
    /// One side has finished.
    TcpFinWait = "tcp_fin_wait", 900;
    /// Both sides have finished, not both know it.
    TcpClosing = "tcp_closing", 45;
    /// Both sides have finished and know it.
    TcpTimeWait = "tcp_time_wait", 45;
    /// It was reset.
    TcpClosed = "tcp_closed", 30;
    /// One UDP packet was seen.
    UdpFirst = "udp_first", 60;
    /// Several were seen, no answer.
    UdpSingle = "udp_single", 60;
    /// Both sides have spoken.
    UdpMultiple = "udp_multiple", 30;
    /// An ICMP request was seen.
    IcmpFirst = "icmp_first", 60;
    /// It was answered.
    IcmpReply = "icmp_reply", 30;
    /// An SCTP association is being made.
    SctpInit = "sctp_init", 30;
    /// An SCTP association.
    SctpEstablished = "sctp_established", 86_400;
    /// An SCTP association is being ended.
    SctpClosing = "sctp_closing", 45;
    /// One packet of another protocol was seen.
    OtherFirst = "other_first", 60;
    /// Several were seen, no answer.
    OtherSingle = "other_single", 60;
    /// Both sides have spoken.
    OtherMultiple = "other_multiple", 30;
}

const N_STATES: usize = State::ALL.len();

impl State {
    /// The state with this number.
    pub(super) fn from_raw(raw: u8) -> Self {
        Self::ALL.get(usize::from(raw)).copied().unwrap_or(Self::OtherFirst)
    }

    /// Nothing is lost with a connection in this state but the memory of it.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::TcpTimeWait | Self::TcpClosed | Self::SctpClosing)
    }
}

/// The timeouts of all policies, and which policy each zone has. Can be changed at any
/// time; a connection takes a new timeout with its next packet.
#[derive(Debug)]
pub(super) struct Policies {
    /// Milliseconds, by policy and state.
    timeouts: Box<[AtomicU32]>,
    zones: Box<[AtomicU8]>,
}

impl Policies {
    pub(super) fn new() -> Self {
        let timeouts = (0..N_POLICIES).flat_map(|_| State::ALL);
        Self {
            timeouts: timeouts.map(|state| AtomicU32::new(millis(state.default_timeout()))).collect(),
            zones: (0..=u16::MAX).map(|_| AtomicU8::new(0)).collect(),
        }
    }

    pub(super) fn set(&self, policy: u8, state: State, timeout: Duration) {
        let place = self.timeouts.get(usize::from(policy) * N_STATES + state as usize);
        if let Some(place) = place {
            place.store(millis(timeout), Relaxed);
        }
    }

    pub(super) fn set_zone(&self, zone: u16, policy: u8) {
        if let Some(place) = self.zones.get(usize::from(zone)) {
            place.store(policy, Relaxed);
        }
    }

    pub(super) fn of_zone(&self, zone: u16) -> u8 {
        self.zones.get(usize::from(zone)).map_or(0, |policy| policy.load(Relaxed))
    }

    /// Milliseconds.
    pub(super) fn get(&self, policy: u8, state: State) -> u32 {
        let place = self.timeouts.get(usize::from(policy) * N_STATES + state as usize);
        place.map_or_else(|| millis(state.default_timeout()), |timeout| timeout.load(Relaxed))
    }
}

fn millis(timeout: Duration) -> u32 {
    timeout.min(MAX_TIMEOUT).as_millis() as u32
}
