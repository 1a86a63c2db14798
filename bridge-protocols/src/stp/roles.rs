//! The choice of roles for all ports of a bridge (IEEE 802.1D-2004 §17.21.25, §17.28).

use super::{
    Bridge, PortId, Priority, Times,
    port::{Info, Port, Role},
    vector::SECOND,
};

impl Bridge {
    /// Chooses the root and what each port is for.
    pub(super) fn choose_roles(&mut self) {
        self.ports.values_mut().for_each(|port| port.reselect = false);
        let own = self.config.id;
        let mine = Priority { root: own, cost: 0, bridge: own, port: PortId::default() };
        let paths = self.ports.values().filter_map(|port| path(port, &mine).map(|path| (path, port)));
        let best = paths.min_by_key(|(path, port)| (*path, port.id)).filter(|(path, _)| *path < mine);
        let (root, times) = match best {
            Some((priority, port)) => ((priority, port.id), relayed(port.times)),
            None => ((mine, PortId::default()), self.config.times()),
        };
        self.root = root;
        self.root_times = times;
        let (priority, root_port) = root;
        let is_root = priority.root == own;
        for port in self.ports.values_mut() {
            port.designated_priority = Priority { bridge: own, port: port.id, ..priority };
            port.designated_times = Times { hello_time: self.config.times().hello_time, ..times };
            let is_root_port = !is_root && port.id == root_port;
            port.choose_role(is_root_port);
        }
        self.ports.values_mut().for_each(|port| port.selected = true);
    }
}

impl Port {
    fn choose_role(&mut self, is_root_port: bool) {
        let is_mine = self.priority.bridge.address == self.designated_priority.bridge.address;
        let (role, update) = match self.info {
            Info::Disabled => (Role::Disabled, self.updt_info),
            Info::Aged => (Role::Designated, true),
            Info::Mine => {
                let differs =
                    (self.priority, self.times) != (self.designated_priority, self.designated_times);
                (Role::Designated, differs || self.updt_info)
            }
            Info::Received if is_root_port => (Role::Root, false),
            Info::Received if self.designated_priority < self.priority => (Role::Designated, true),
            Info::Received if is_mine => (Role::Backup, false),
            Info::Received => (Role::Alternate, false),
        };
        (self.selected_role, self.updt_info) = (role, update);
    }
}

/// What a way to the root by this port is worth, if there is one that is not by this bridge.
fn path(port: &Port, mine: &Priority) -> Option<Priority> {
    let is_known = port.info == Info::Received && port.priority.bridge.address != mine.bridge.address;
    is_known.then(|| Priority { cost: port.priority.cost.saturating_add(port.config.cost), ..port.priority })
}

/// The root's times, a bridge further.
fn relayed(times: Times) -> Times {
    Times { message_age: times.message_age.saturating_add(SECOND) / SECOND * SECOND, ..times }
}
