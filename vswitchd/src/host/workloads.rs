//! Interfaces of containers, which come and go many at a time: what depends on all ports,
//! their file and the rules, is made once for all of them.

use flowtable::types::BridgeId;

use super::{Host, PortError, PortKind, ports::Wanted};

impl Host {
    /// Attaches interfaces, each for a logical port. The same again changes nothing.
    ///
    /// # Errors
    /// Those that are refused are left out, each with its reason.
    pub fn add_workloads(&mut self, wanted: &[(String, String)]) -> Vec<Result<(), PortError>> {
        let mut added = Vec::new();
        let mut attach = |(interface, logical_port): &(String, String)| {
            let purpose = (logical_port.as_str(), "");
            match self.new_port(BridgeId::FIRST, (interface, PortKind::Auto), purpose, None)? {
                Wanted::Present(_) => {}
                Wanted::New(new) => {
                    added.push((interface.clone(), new.id));
                    self.attach_alone(interface, new).inspect_err(|_| drop(added.pop()))?;
                }
            }
            Ok(())
        };
        let attached: Vec<_> = wanted.iter().map(&mut attach).collect();
        if added.is_empty() {
            return attached;
        }
        if self.save_ports().is_err() {
            for (interface, id) in added {
                self.ports.remove(&interface);
                self.detach(id);
            }
            // One by one, each with its own reason.
            let add = |(interface, logical_port): &(String, String)| {
                let purpose = (logical_port.as_str(), "");
                self.add_port_by(BridgeId::FIRST, (interface, PortKind::Auto), purpose, None).map(drop)
            };
            return wanted.iter().map(add).collect();
        }
        self.link_ports();
        self.ports_changed();
        attached
    }

    /// Detaches interfaces.
    ///
    /// # Errors
    /// There is no such port, or the change cannot be saved; then that one is left as it is.
    pub fn remove_workloads(&mut self, interfaces: &[String]) -> Vec<Result<(), PortError>> {
        let is_uplink = |name: &String| self.is_of_uplink(name);
        let is_alone = interfaces.len() < 2 || interfaces.iter().any(is_uplink) || self.lab.is_some();
        if is_alone {
            return interfaces.iter().map(|interface| self.remove_port(interface)).collect();
        }
        let taken: Vec<_> =
            interfaces.iter().map(|interface| (interface, self.ports.remove(interface))).collect();
        if self.save_ports().is_err() {
            for (interface, port) in taken {
                self.ports.extend(port.map(|port| (interface.clone(), port)));
            }
            return interfaces.iter().map(|interface| self.remove_port(interface)).collect();
        }
        let mut removed = Vec::new();
        for (interface, port) in taken {
            if let Some(port) = port.as_ref().filter(|port| port.is_attached()) {
                self.detach(port.id());
            }
            removed.push(port.map(drop).ok_or_else(|| PortError::NotFound(interface.clone())));
        }
        self.link_ports();
        self.ports_changed();
        removed
    }
}
