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
        if self.save_workloads(added.iter().map(|(interface, _)| interface)).is_err() {
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
        if self.lab.is_some() || interfaces.iter().any(|name| self.is_of_uplink(name)) {
            return interfaces.iter().map(|interface| self.remove_port(interface)).collect();
        }
        let taken: Vec<_> =
            interfaces.iter().map(|interface| (interface, self.ports.remove(interface))).collect();
        let known = taken.iter().filter(|(_, port)| port.is_some()).map(|(interface, _)| *interface);
        let is_any = known.clone().next().is_some();
        if is_any && self.save_workloads(known).is_err() {
            for (interface, port) in taken {
                self.ports.extend(port.map(|port| (interface.clone(), port)));
            }
            return interfaces.iter().map(|interface| self.remove_port(interface)).collect();
        }
        let (mut removed, mut remains) = (Vec::new(), Vec::new());
        for (interface, port) in taken {
            if let Some(port) = port.as_ref().filter(|port| port.is_attached()) {
                remains.extend(self.let_go_of_port(port.id()));
            }
            removed.push(port.map(drop).ok_or_else(|| PortError::NotFound(interface.clone())));
        }
        // Their interfaces are about to be deleted, and others wait for the host.
        // Without a thread, they wait.
        let _ = std::thread::Builder::new().name("closing".to_owned()).spawn(move || drop(remains));
        if is_any {
            self.link_ports();
            self.ports_changed();
        }
        removed
    }
}
