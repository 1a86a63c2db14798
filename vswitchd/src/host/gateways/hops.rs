//! Next hops that routers ask whether they live, by the ports that this host has.

use std::collections::BTreeMap;

use ferroflow_proto::chassis::{SessionState, Sessions};
use flowtable::{field::Field, switch::PacketIn};
use ovn_northd_lite::{
    is_resident,
    key::{DatapathKey, PortKey},
    punt::{Request, Service},
};
use tokio::sync::watch;

use crate::{
    bfd::{Hop, HopKey, State},
    host::Host,
};

impl Host {
    /// How the sessions with next hops are, as it changes.
    pub fn sessions(&self) -> watch::Receiver<Sessions> {
        self.sessions.subscribe()
    }

    /// Has sessions by the router ports that are here, and by no others.
    pub(super) fn want_hops(&self) {
        let (view, local) = (self.lowering.view(), self.local_ports());
        let asking = view.bindings.iter().filter(|(_, binding)| !binding.sessions.is_empty());
        let here = asking.filter(|(id, _)| is_resident(view, &local, id));
        let wanted: BTreeMap<HopKey, Hop> = here
            .flat_map(|(id, binding)| {
                binding.sessions.iter().map(|asked| {
                    let key = (binding.datapath, binding.key, asked.peer);
                    (key, Hop { port: id.clone(), asked: asked.clone() })
                })
            })
            .collect();
        self.bfd.want_hops(wanted);
    }

    /// Has the controller told how the sessions are, where that is new.
    pub(super) fn tell_sessions(&self) {
        let session = |(port, peer, state): (String, _, State)| SessionState {
            port,
            peer: std::net::IpAddr::to_string(&peer),
            // In the API 0 is that nobody has said anything.
            state: state as u32 + 1,
        };
        let sessions = Sessions { sessions: self.bfd.hops().into_iter().map(session).collect() };
        self.sessions.send_if_modified(|told| {
            let is_new = *told != sessions;
            *told = sessions;
            is_new
        });
    }

    /// Takes in what a next hop says; `None`: it is not that. True: the session is in another
    /// state now.
    pub(in crate::host) fn hear_hop(&self, packet_in: &PacketIn) -> Option<bool> {
        let request = Request::decode(&packet_in.punt.to.userdata);
        request.filter(|request| !self.is_handmade && request.service == Service::BfdMessage)?;
        let value = |field| packet_in.punt.metadata.get(field).0;
        let datapath = u32::try_from(value(Field::Metadata)).ok().and_then(|raw| DatapathKey::new(raw).ok());
        let port = u16::try_from(value(Field::Reg14)).ok().and_then(|raw| PortKey::new(raw).ok());
        Some(datapath.zip(port).is_some_and(|port| self.bfd.receive_from_hop(port, &packet_in.bytes)))
    }
}
