//! The machine of a port's role: how it takes on the role that was chosen, and when it may
//! learn and forward in it (IEEE 802.1D-2004 §17.29).

use super::{
    Bridge,
    port::{Port, Role},
};

/// What a step of one port wants of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing to do.
    None,
    /// Only the port itself has changed.
    Own,
    /// All ports come to terms with the new root before this one agrees (§17.21.14).
    Sync,
    /// All others that were root ports lately stop forwarding (§17.21.13).
    ReRoot,
}

impl Bridge {
    /// A step of the machine; `false`: there was none to take.
    pub(super) fn change_role(&mut self, number: u16) -> bool {
        let is_rapid = self.config.is_rapid;
        let all_synced = self.ports.values().all(|port| {
            port.selected && port.role == port.selected_role && (port.synced || port.role == Role::Root)
        });
        let re_rooted = self.ports.iter().all(|(other, port)| *other == number || port.rr_while == 0);
        let Some(port) = self.ports.get_mut(&number).filter(|port| port.selected && !port.updt_info) else {
            return false;
        };
        if port.role != port.selected_role {
            port.begin_role();
            return true;
        }
        let step = match port.role {
            Role::Disabled => port.stay_disabled(),
            Role::Root => port.be_root(all_synced, re_rooted && is_rapid),
            Role::Designated => port.be_designated(),
            Role::Alternate | Role::Backup => port.be_alternate(all_synced),
        };
        match step {
            Step::None => return false,
            Step::Own => {}
            Step::Sync => self.ports.values_mut().for_each(|port| port.sync = true),
            Step::ReRoot => self.ports.values_mut().for_each(|port| port.re_root = true),
        }
        true
    }
}

impl Port {
    /// Takes on the role that was chosen.
    fn begin_role(&mut self) {
        self.role = self.selected_role;
        match self.role {
            Role::Root => self.rr_while = self.fwd_delay(),
            Role::Designated => {}
            Role::Disabled | Role::Alternate | Role::Backup => {
                (self.learn, self.forward) = (false, false);
                self.has_begun = true;
            }
        }
    }

    /// Nothing is left of what it was, so nobody waits for it.
    fn settle(&mut self, fd_while: u16) -> Step {
        let is_settled = self.fd_while == fd_while && !self.sync && !self.re_root && self.synced;
        if is_settled && !self.has_begun {
            return Step::None;
        }
        self.has_begun = false;
        (self.fd_while, self.synced, self.rr_while) = (fd_while, true, 0);
        (self.sync, self.re_root) = (false, false);
        Step::Own
    }

    fn is_still(&self) -> bool {
        !self.learning && !self.forwarding
    }

    fn stay_disabled(&mut self) -> Step {
        if self.is_still() { self.settle(self.max_age()) } else { Step::None }
    }

    fn be_alternate(&mut self, all_synced: bool) -> Step {
        if self.proposed && !self.agree {
            self.proposed = false;
            return Step::Sync;
        }
        if all_synced && !self.agree || self.proposed && self.agree {
            (self.proposed, self.agree, self.new_info) = (false, true, true);
            return Step::Own;
        }
        let hold = 2 * self.hello_time();
        if self.role == Role::Backup && self.rb_while != hold {
            self.rb_while = hold;
            return Step::Own;
        }
        if self.is_still() { self.settle(self.forward_delay()) } else { Step::None }
    }

    fn be_root(&mut self, all_synced: bool, re_rooted: bool) -> Step {
        if self.proposed && !self.agree {
            self.proposed = false;
            return Step::Sync;
        }
        if all_synced && !self.agree || self.proposed && self.agree {
            (self.proposed, self.sync) = (false, false);
            (self.agree, self.new_info) = (true, true);
            return Step::Own;
        }
        if !self.forward && !self.re_root {
            return Step::ReRoot;
        }
        let may = self.fd_while == 0 || re_rooted && self.rb_while == 0;
        if may && !self.learn {
            (self.fd_while, self.learn) = (self.forward_delay(), true);
            return Step::Own;
        }
        if may && !self.forward {
            (self.fd_while, self.forward) = (0, true);
            return Step::Own;
        }
        if self.re_root && self.forward {
            self.re_root = false;
            return Step::Own;
        }
        if self.rr_while != self.fwd_delay() {
            self.rr_while = self.fwd_delay();
            return Step::Own;
        }
        Step::None
    }

    fn be_designated(&mut self) -> Step {
        if !self.forward && !self.agreed && !self.proposing && !self.oper_edge {
            (self.proposing, self.new_info) = (true, true);
            self.edge_delay_while = self.edge_delay();
            return Step::Own;
        }
        let is_still = self.is_still();
        if !self.synced && (is_still || self.agreed || self.oper_edge) || self.sync && self.synced {
            (self.rr_while, self.synced, self.sync) = (0, true, false);
            return Step::Own;
        }
        if self.rr_while == 0 && self.re_root {
            self.re_root = false;
            return Step::Own;
        }
        let must_stop = self.sync && !self.synced || self.re_root && self.rr_while != 0 || self.disputed;
        if must_stop && !self.oper_edge && (self.learn || self.forward) {
            (self.learn, self.forward, self.disputed) = (false, false, false);
            self.fd_while = self.forward_delay();
            return Step::Own;
        }
        let may = (self.fd_while == 0 || self.agreed || self.oper_edge)
            && (self.rr_while == 0 || !self.re_root)
            && !self.sync;
        if may && !self.learn {
            (self.learn, self.fd_while) = (true, self.forward_delay());
            return Step::Own;
        }
        if may && !self.forward {
            (self.forward, self.fd_while) = (true, 0);
            self.agreed = self.send_rstp;
            return Step::Own;
        }
        Step::None
    }
}
