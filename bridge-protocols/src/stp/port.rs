//! A port's variables (IEEE 802.1D-2004 §17.15 to §17.20), and what concerns it alone.

use super::{
    Bpdu, Config, Configuration, PortConfig, PortId, PortStatus, Priority, SenderRole, State, Times,
};

/// Seconds that a port waits for the neighbour's version to show (§17.13.9).
pub(super) const MIGRATE_TIME: u16 = 3;

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nothing: it is down.
    Disabled,
    /// It leads to the root.
    Root,
    /// It leads its LAN to the root.
    Designated,
    /// It would lead to the root if another one failed.
    Alternate,
    /// It would lead its LAN to the root if another one of this bridge failed.
    Backup,
}

impl Role {
    /// Name, as in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Root => "root",
            Self::Designated => "designated",
            Self::Alternate => "alternate",
            Self::Backup => "backup",
        }
    }
}

/// Where a port's vector comes from (`infoIs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Info {
    Disabled,
    /// What was received is too old.
    Aged,
    Mine,
    Received,
}

/// Where the machine of topology changes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Inactive,
    Learning,
    Active,
}

/// Where the machine of protocol versions is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Migration {
    Checking,
    SelectingStp,
    Sensing,
}

/// The variables of a port.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) config: PortConfig,
    pub(super) id: PortId,
    pub(super) agree: bool,
    pub(super) agreed: bool,
    pub(super) disputed: bool,
    pub(super) forward: bool,
    pub(super) forwarding: bool,
    pub(super) learn: bool,
    pub(super) learning: bool,
    pub(super) mcheck: bool,
    pub(super) new_info: bool,
    pub(super) oper_edge: bool,
    pub(super) proposed: bool,
    pub(super) proposing: bool,
    pub(super) rcvd_tc: bool,
    pub(super) rcvd_tc_ack: bool,
    pub(super) rcvd_tcn: bool,
    pub(super) re_root: bool,
    pub(super) reselect: bool,
    pub(super) selected: bool,
    pub(super) send_rstp: bool,
    pub(super) sync: bool,
    pub(super) synced: bool,
    pub(super) tc_ack: bool,
    pub(super) tc_prop: bool,
    pub(super) updt_info: bool,
    pub(super) info: Info,
    pub(super) role: Role,
    pub(super) selected_role: Role,
    pub(super) change: Change,
    pub(super) migration: Migration,
    /// Version of the unit that arrived last, until the machine of versions has seen it.
    pub(super) rcvd_rstp: bool,
    pub(super) rcvd_stp: bool,
    /// What arrived and is not dealt with.
    pub(super) message: Option<Bpdu>,
    pub(super) priority: Priority,
    pub(super) times: Times,
    pub(super) designated_priority: Priority,
    pub(super) designated_times: Times,
    pub(super) edge_delay_while: u16,
    pub(super) fd_while: u16,
    pub(super) hello_when: u16,
    pub(super) mdelay_while: u16,
    pub(super) rb_while: u16,
    pub(super) rcvd_info_while: u16,
    pub(super) rr_while: u16,
    pub(super) tc_while: u16,
    pub(super) tx_count: u16,
    /// The machine of roles has begun with the role.
    pub(super) has_begun: bool,
    n_sent: u64,
    n_received: u64,
    pub(super) n_transitions: u64,
}

impl Port {
    /// A port as every machine begins with it.
    pub(super) fn new(config: PortConfig, number: u16, bridge: &Config) -> Self {
        Self {
            config,
            id: PortId::new(config.priority, number),
            agree: false,
            agreed: false,
            disputed: false,
            forward: false,
            forwarding: false,
            learn: false,
            learning: false,
            mcheck: false,
            new_info: true,
            oper_edge: config.is_edge,
            proposed: false,
            proposing: false,
            rcvd_tc: false,
            rcvd_tc_ack: false,
            rcvd_tcn: false,
            re_root: true,
            reselect: true,
            selected: false,
            send_rstp: bridge.is_rapid,
            sync: true,
            synced: false,
            tc_ack: false,
            tc_prop: false,
            updt_info: false,
            info: Info::Disabled,
            role: Role::Disabled,
            selected_role: Role::Disabled,
            change: Change::Inactive,
            migration: Migration::Checking,
            rcvd_rstp: false,
            rcvd_stp: false,
            message: None,
            priority: Priority::default(),
            times: bridge.times(),
            designated_priority: Priority::default(),
            designated_times: bridge.times(),
            edge_delay_while: MIGRATE_TIME,
            fd_while: bridge.max_age,
            hello_when: 0,
            mdelay_while: MIGRATE_TIME,
            rb_while: 0,
            rcvd_info_while: 0,
            rr_while: bridge.forward_delay,
            tc_while: 0,
            tx_count: 0,
            has_begun: true,
            n_sent: 0,
            n_received: 0,
            n_transitions: 0,
        }
    }

    /// Its part in the choice of roles has to be looked at again.
    pub(super) fn reselects(&mut self) {
        (self.reselect, self.selected) = (true, false);
    }

    pub(super) fn configure(&mut self, config: PortConfig, number: u16) {
        let was_edge = self.config.is_edge;
        self.config = config;
        self.id = PortId::new(config.priority, number);
        if config.is_edge && !was_edge {
            self.oper_edge = true;
        }
        self.reselects();
    }

    /// Machine of timers (§17.22).
    pub(super) fn tick(&mut self) {
        for timer in [
            &mut self.edge_delay_while,
            &mut self.fd_while,
            &mut self.hello_when,
            &mut self.mdelay_while,
            &mut self.rb_while,
            &mut self.rcvd_info_while,
            &mut self.rr_while,
            &mut self.tc_while,
            &mut self.tx_count,
        ] {
            *timer = timer.saturating_sub(1);
        }
    }

    /// Machine of reception (§17.23).
    pub(super) fn take(&mut self, bpdu: &Bpdu) {
        self.n_received += 1;
        let is_rapid = matches!(bpdu, Bpdu::Configuration(said) if said.is_rapid);
        (self.rcvd_rstp, self.rcvd_stp) = (is_rapid, !is_rapid);
        self.oper_edge = false;
        self.edge_delay_while = MIGRATE_TIME;
        self.message = Some(*bpdu);
    }

    pub(super) fn count_sent(&mut self) {
        self.n_sent += 1;
        self.tx_count += 1;
    }

    /// Seconds that a port listens or learns, by the root's times.
    pub(super) fn fwd_delay(&self) -> u16 {
        Times::secs(self.designated_times.forward_delay)
    }

    pub(super) fn hello_time(&self) -> u16 {
        Times::secs(self.designated_times.hello_time)
    }

    pub(super) fn max_age(&self) -> u16 {
        Times::secs(self.designated_times.max_age)
    }

    /// §17.20.5: with a neighbour that speaks RSTP, a hello is long enough.
    pub(super) fn forward_delay(&self) -> u16 {
        if self.send_rstp { self.hello_time() } else { self.fwd_delay() }
    }

    /// §17.20.4.
    pub(super) fn edge_delay(&self) -> u16 {
        if self.config.is_point_to_point { MIGRATE_TIME } else { self.max_age() }
    }

    /// §17.21.1: what was received, or is mine, is still as good.
    pub(super) fn is_better_or_same(&self, known: Info, message: &Priority) -> bool {
        let mine = || self.designated_priority <= self.priority;
        match known {
            Info::Received => self.info == Info::Received && *message <= self.priority,
            Info::Mine => self.info == Info::Mine && mine(),
            Info::Aged | Info::Disabled => false,
        }
    }

    pub(super) fn record_agreement(&mut self, said: &Configuration) {
        self.agreed = said.is_rapid && self.config.is_point_to_point && said.agreement;
        if self.agreed {
            self.proposing = false;
        }
    }

    pub(super) fn record_proposal(&mut self, said: &Configuration) {
        if said.role == SenderRole::Designated && said.proposal && self.config.is_point_to_point {
            self.proposed = true;
        }
    }

    pub(super) fn set_tc_flags(&mut self, said: &Configuration) {
        self.rcvd_tc |= said.topology_change;
        self.rcvd_tc_ack |= said.topology_change_ack;
    }

    pub(super) fn status(&self, _number: u16) -> PortStatus {
        let state = match (self.learning, self.forwarding) {
            (_, true) => State::Forwarding,
            (true, false) => State::Learning,
            (false, false) => State::Discarding,
        };
        PortStatus {
            id: self.id,
            role: self.role,
            state,
            is_edge: self.oper_edge,
            is_rapid: self.send_rstp,
            priority: self.priority,
            n_units: (self.n_sent, self.n_received),
            n_transitions: self.n_transitions,
        }
    }
}
