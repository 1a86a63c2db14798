//! Links between bridges: two ports, each of which names the other as its other end.

use dataplane::PortId;
use flowtable::types::{BridgeId, PortNo};

use super::{Host, Port, PortError, ports::NewPort};

impl Host {
    /// Adds one end of a link, whose other end has this name; frames cross as soon as that
    /// is there and names this one. The same again changes nothing.
    ///
    /// # Errors
    /// [`PortError`] says what to do; then nothing has changed.
    pub fn add_patch(
        &mut self,
        bridge: BridgeId,
        name: &str,
        peer: &str,
        number: Option<PortNo>,
    ) -> Result<PortId, PortError> {
        if !self.is_handmade {
            return Err(PortError::NoLinks);
        }
        if self.is_of_uplink(name) {
            return Err(PortError::IsUplink(name.to_owned()));
        }
        if name == peer {
            return Err(PortError::OwnPeer(name.to_owned()));
        }
        if let Some(present) = self.ports.get(name) {
            return self.same_again(name, present, (bridge, number, Some(peer)), ("", ""));
        }
        let id = PortId::new(bridge, self.choose_number(bridge, number)?);
        self.attach_workload(name, NewPort { id, peer: Some(peer.to_owned()), ..NewPort::default() })?;
        Ok(id)
    }

    /// Joins the two ends of each link that has both.
    pub(super) fn link_ports(&mut self) {
        for (name, port) in self.ports.iter().filter(|(_, port)| port.peer.is_some()) {
            // The only error: the port is not attached.
            let _ = self.dataplane.link(port.id(), self.other_end(name, port));
        }
    }

    /// The other end of a port's link, when that is there and names this one.
    fn other_end(&self, name: &str, port: &Port) -> Option<PortId> {
        let other = self.ports.get(port.peer.as_ref()?)?;
        (other.peer.as_deref() == Some(name)).then(|| other.id())
    }

    /// Where a packet comes in next that leaves by this port.
    pub fn peer_of(&self, id: PortId) -> Option<PortId> {
        let (name, port) = self.ports.iter().find(|(_, port)| port.id() == id && port.peer.is_some())?;
        self.other_end(name, port)
    }
}
