//! The machines of a port but that of roles: versions, edges, information, states, changes of
//! the tree, transmission (IEEE 802.1D-2004 §17.24 to §17.31).

use super::{
    Bpdu, Bridge, Config, Configuration, PortConfig, SenderRole, Times,
    port::{Change, Info, MIGRATE_TIME, Migration, Port, Role},
    vector::SECOND,
};

impl Bridge {
    /// A step of each machine of a port; `false`: there was none to take.
    pub(super) fn step(&mut self, number: u16) -> bool {
        let config = self.config;
        let Some(port) = self.ports.get_mut(&number) else { return false };
        let mut stepped = port.migrate(&config);
        stepped |= port.detect_edge();
        stepped |= port.inform();
        stepped |= self.change_role(number);
        let Some(port) = self.ports.get_mut(&number) else { return false };
        stepped |= port.change_state();
        stepped | self.tell_change(number)
    }

    /// Machine of topology changes (§17.31).
    fn tell_change(&mut self, number: u16) -> bool {
        let root_times = self.root_times;
        let Some(port) = self.ports.get_mut(&number) else { return false };
        let is_active_role = matches!(port.role, Role::Root | Role::Designated);
        let is_told = port.rcvd_tc || port.rcvd_tcn || port.rcvd_tc_ack || port.tc_prop;
        let (mut propagates, mut flushes) = (false, false);
        match port.change {
            Change::Inactive if port.learn => port.change = Change::Learning,
            Change::Inactive => return false,
            Change::Learning if is_active_role && port.forward && !port.oper_edge => {
                port.change = Change::Active;
                port.begin_change(&root_times);
                port.new_info = true;
                propagates = true;
            }
            Change::Learning if is_told => port.forget_change(),
            Change::Learning if !(is_active_role || port.learn || port.learning) => {
                port.change = Change::Inactive;
                (port.tc_while, port.tc_ack) = (0, false);
                flushes = true;
            }
            Change::Learning => return false,
            Change::Active if !is_active_role || port.oper_edge => {
                port.change = Change::Learning;
                port.forget_change();
            }
            Change::Active if port.rcvd_tcn => {
                port.rcvd_tcn = false;
                port.rcvd_tc = true;
                port.begin_change(&root_times);
            }
            Change::Active if port.rcvd_tc => {
                port.rcvd_tc = false;
                port.tc_ack |= port.role == Role::Designated;
                propagates = true;
            }
            Change::Active if port.tc_prop => {
                port.begin_change(&root_times);
                port.tc_prop = false;
                flushes = true;
            }
            Change::Active if port.rcvd_tc_ack => {
                (port.tc_while, port.rcvd_tc_ack) = (0, false);
            }
            Change::Active => return false,
        }
        if flushes {
            self.flushes.push(number);
        }
        if propagates {
            self.n_changes += 1;
            self.ports
                .iter_mut()
                .filter(|(other, _)| **other != number)
                .for_each(|(_, port)| port.tc_prop = true);
        }
        true
    }

    /// Machine of transmission (§17.26).
    pub(super) fn transmit(&mut self, number: u16) {
        let hold = self.config.tx_hold_count;
        let Some(port) = self.ports.get_mut(&number).filter(|port| port.config.enabled) else { return };
        if !port.selected || port.updt_info {
            return;
        }
        if port.hello_when == 0 {
            let is_due = port.role == Role::Designated || port.role == Role::Root && port.tc_while != 0;
            port.new_info |= is_due;
            port.hello_when = port.hello_time();
        }
        if !port.new_info || port.tx_count >= hold {
            return;
        }
        let bpdu = match port.role {
            _ if port.send_rstp && port.role != Role::Disabled => Bpdu::Configuration(port.says(true)),
            Role::Designated => Bpdu::Configuration(port.says(false)),
            Role::Root => Bpdu::TopologyChange,
            Role::Disabled | Role::Alternate | Role::Backup => return,
        };
        port.new_info = false;
        port.tc_ack &= bpdu == Bpdu::TopologyChange;
        port.count_sent();
        self.frames.push((number, bpdu));
    }
}

impl Port {
    /// Machine of versions (§17.24).
    fn migrate(&mut self, config: &Config) -> bool {
        let enabled = self.config.enabled;
        match self.migration {
            Migration::Checking if self.mdelay_while == 0 => self.migration = Migration::Sensing,
            Migration::Checking if !enabled && self.mdelay_while != MIGRATE_TIME => self.check(config),
            Migration::Checking => return false,
            Migration::SelectingStp if self.mdelay_while == 0 || !enabled || self.mcheck => {
                self.migration = Migration::Sensing;
            }
            Migration::SelectingStp => return false,
            Migration::Sensing if !enabled || self.mcheck => self.check(config),
            Migration::Sensing if config.is_rapid && !self.send_rstp && self.rcvd_rstp => self.check(config),
            Migration::Sensing if self.send_rstp && self.rcvd_stp => {
                self.migration = Migration::SelectingStp;
                (self.send_rstp, self.mdelay_while) = (false, MIGRATE_TIME);
            }
            Migration::Sensing => return false,
        }
        if self.migration == Migration::Sensing {
            (self.rcvd_rstp, self.rcvd_stp) = (false, false);
        }
        true
    }

    fn check(&mut self, config: &Config) {
        self.migration = Migration::Checking;
        (self.mcheck, self.send_rstp, self.mdelay_while) = (false, config.is_rapid, MIGRATE_TIME);
    }

    /// Machine that finds edges (§17.25).
    fn detect_edge(&mut self) -> bool {
        let PortConfig { enabled, is_edge, auto_edge, .. } = self.config;
        if !enabled {
            let differs = self.oper_edge != is_edge;
            self.oper_edge = is_edge;
            self.edge_delay_while = MIGRATE_TIME;
            return differs;
        }
        let is_alone = self.edge_delay_while == 0 && auto_edge && self.send_rstp && self.proposing;
        if self.oper_edge || !is_alone {
            return false;
        }
        self.oper_edge = true;
        true
    }

    /// Machine of information (§17.27).
    fn inform(&mut self) -> bool {
        if !self.config.enabled {
            self.message = None;
            if self.info == Info::Disabled {
                return false;
            }
            (self.proposing, self.proposed, self.agree, self.agreed) = (false, false, false, false);
            self.rcvd_info_while = 0;
            self.info = Info::Disabled;
            self.reselects();
            return true;
        }
        if self.info == Info::Disabled {
            self.info = Info::Aged;
            self.reselects();
            return true;
        }
        if self.selected && self.updt_info {
            self.update();
            return true;
        }
        if self.info == Info::Received
            && self.rcvd_info_while == 0
            && self.message.is_none()
            && !self.updt_info
        {
            self.info = Info::Aged;
            self.reselects();
            return true;
        }
        match self.message.take_if(|_| !self.updt_info) {
            Some(Bpdu::TopologyChange) => self.rcvd_tcn = true,
            Some(Bpdu::Configuration(said)) => self.hear(&said),
            None => return false,
        }
        true
    }

    /// What is mine becomes the port's word.
    fn update(&mut self) {
        (self.proposing, self.proposed) = (false, false);
        let designated = self.designated_priority;
        self.agreed = self.agreed && self.is_better_or_same(Info::Mine, &designated);
        self.synced = self.synced && self.agreed;
        (self.priority, self.times) = (self.designated_priority, self.designated_times);
        (self.updt_info, self.info, self.new_info) = (false, Info::Mine, true);
    }

    /// Another bridge says something.
    fn hear(&mut self, said: &Configuration) {
        let is_new = said.priority.is_superior_to(&self.priority)
            || said.priority == self.priority && said.times != self.times;
        match said.role {
            SenderRole::Designated if is_new => {
                (self.agreed, self.proposing) = (false, false);
                self.record_proposal(said);
                self.set_tc_flags(said);
                self.agree = self.agree && self.is_better_or_same(Info::Received, &said.priority);
                (self.priority, self.times) = (said.priority, said.times);
                self.keep_info();
                self.info = Info::Received;
                self.reselects();
            }
            SenderRole::Designated if said.priority == self.priority => {
                self.record_proposal(said);
                self.set_tc_flags(said);
                self.keep_info();
            }
            // Whoever says so and learns has not heard this port: it must not forward either.
            SenderRole::Designated if said.is_rapid && said.learning => {
                (self.disputed, self.agreed) = (true, false);
            }
            // It does not know better; it is told.
            SenderRole::Designated => self.new_info = true,
            SenderRole::Root | SenderRole::AlternateOrBackup if said.priority >= self.priority => {
                self.record_agreement(said);
                self.set_tc_flags(said);
            }
            SenderRole::Root | SenderRole::AlternateOrBackup | SenderRole::Unknown => {}
        }
    }

    /// §17.21.23: so long holds what was received.
    fn keep_info(&mut self) {
        let Times { message_age, max_age, hello_time, .. } = self.times;
        let is_young = message_age.saturating_add(SECOND) <= max_age;
        self.rcvd_info_while = if is_young { Times::secs(hello_time).saturating_mul(3) } else { 0 };
    }

    /// Machine of states (§17.30).
    fn change_state(&mut self) -> bool {
        let before = (self.learning, self.forwarding);
        self.learning = self.learn;
        self.forwarding = self.forward && self.learn;
        self.n_transitions += u64::from(self.forwarding && !before.1);
        before != (self.learning, self.forwarding)
    }

    /// §17.21.7: from now on the neighbours are told of a change for a while.
    fn begin_change(&mut self, root: &Times) {
        if self.tc_while != 0 {
            return;
        }
        if self.send_rstp {
            self.tc_while = self.hello_time() + 1;
            self.new_info = true;
        } else {
            self.tc_while = Times::secs(root.max_age) + Times::secs(root.forward_delay);
        }
    }

    fn forget_change(&mut self) {
        (self.rcvd_tc, self.rcvd_tcn, self.rcvd_tc_ack, self.tc_prop) = (false, false, false, false);
    }

    /// What a port says of itself.
    fn says(&self, is_rapid: bool) -> Configuration {
        let role = match self.role {
            Role::Designated => SenderRole::Designated,
            Role::Root => SenderRole::Root,
            Role::Alternate | Role::Backup => SenderRole::AlternateOrBackup,
            Role::Disabled => SenderRole::Unknown,
        };
        Configuration {
            is_rapid,
            role: if is_rapid { role } else { SenderRole::Designated },
            topology_change: self.tc_while != 0,
            topology_change_ack: !is_rapid && self.tc_ack,
            proposal: is_rapid && self.proposing,
            agreement: is_rapid && self.agree,
            learning: is_rapid && self.learning,
            forwarding: is_rapid && self.forwarding,
            priority: self.designated_priority,
            times: self.designated_times,
        }
    }
}
