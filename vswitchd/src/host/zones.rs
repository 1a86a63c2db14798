//! What the network says of connections: how many there may be of whom, and which end because
//! their backend is no more.

use std::{collections::HashSet, net::IpAddr};

use flowtable::conntrack::Connection;
use ovn_northd_lite::{
    SouthboundDelta,
    backends::{Served, is_set},
    model::{Protocol, Vip},
    southbound::Southbound,
};

use super::Host;

/// Backends that an update takes away, before it is applied.
pub(super) fn gone_backends(delta: &SouthboundDelta, view: &Southbound) -> HashSet<Served> {
    let changed = delta.sets.iter().filter(|(name, _)| is_set(name));
    let changed = changed.flat_map(|(_, change)| &change.removed);
    let removed = delta.removed.sets.iter().filter(|name| is_set(name));
    let removed = removed.filter_map(|name| view.sets.get(name)).flatten();
    changed.chain(removed).filter_map(|member| Served::parse(member)).collect()
}

/// The service that a connection is to, and the backend that it has, by an IP protocol.
fn served(connection: &Connection) -> (u8, (IpAddr, u16), (IpAddr, u16)) {
    let (original, reply) = (&connection.original, &connection.reply);
    let service = (original.address(original.dst), original.dst_port);
    (original.proto, service, (reply.address(reply.src), reply.src_port))
}

/// The connection is to a backend.
fn is_of(gone: &HashSet<Served>, connection: &Connection) -> bool {
    let (proto, (vip, vip_port), (backend, backend_port)) = served(connection);
    let protocol = Protocol::ALL.into_iter().find(|protocol| number(*protocol) == proto);
    let of = |protocol, ports: Option<(u16, u16)>| Served {
        protocol,
        vip: Vip { ip: vip, port: ports.map(|(vip, _)| vip) },
        backend: Vip { ip: backend, port: ports.map(|(_, backend)| backend) },
    };
    let by_port = protocol.map(|protocol| of(protocol, Some((vip_port, backend_port))));
    // Of a service without ports the protocol says nothing.
    let by_address = Protocol::ALL.into_iter().map(|protocol| of(protocol, None));
    connection.dnat && by_port.into_iter().chain(by_address).any(|served| gone.contains(&served))
}

/// Number of a protocol in IP's headers.
const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

impl Host {
    /// Ends the connections to backends that are no more.
    pub(super) fn end_connections(&self, gone: &HashSet<Served>) {
        if gone.is_empty() {
            return;
        }
        let now = self.dataplane.now();
        let n_ended = self.dataplane.conntrack().flush_where(now, |connection| is_of(gone, connection));
        tracing::info!(n_ended, "connections to backends that are no more");
    }

    /// Follows a change of how many connections zones may have.
    pub(super) fn follow_zone_limits(&mut self) {
        let limits = self.lowering.zone_limits();
        if limits == self.zone_limits {
            return;
        }
        let before = std::mem::replace(&mut self.zone_limits, limits);
        let tracker = self.dataplane.conntrack();
        for zone in before.keys().filter(|zone| !self.zone_limits.contains_key(zone)) {
            tracker.set_zone_limit(Some(*zone), self.tracking.zone_limits.get(zone).copied());
        }
        self.apply_zone_limits();
    }

    /// What was set by hand goes before what the network says.
    pub(super) fn apply_zone_limits(&self) {
        let tracker = self.dataplane.conntrack();
        let own = &self.tracking.zone_limits;
        for (zone, limit) in self.zone_limits.iter().filter(|(zone, _)| !own.contains_key(zone)) {
            tracker.set_zone_limit(Some(*zone), Some(*limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flowtable::conntrack::{State, Tuple};
    use ovn_northd_lite::SetChange;

    use super::*;

    fn connection(proto: u8, vip: ([u8; 4], u16), backend: ([u8; 4], u16)) -> Connection {
        let bits = |ip: [u8; 4]| u32::from_be_bytes(ip).into();
        let client = ([10, 0, 0, 9], 4000);
        let tuple = |src: ([u8; 4], u16), dst: ([u8; 4], u16)| Tuple {
            zone: 3,
            proto,
            ipv6: false,
            src: bits(src.0),
            dst: bits(dst.0),
            src_port: src.1,
            dst_port: dst.1,
        };
        Connection {
            original: tuple(client, vip),
            reply: tuple(backend, client),
            state: State::UdpSingle,
            has_replied: true,
            snat: false,
            dnat: true,
            master: None,
            alg: None,
            mark: 0,
            label: 0,
            policy: 0,
            in_port: 1,
            expires_in: std::time::Duration::from_secs(1),
        }
    }

    #[test]
    fn connections_end_whose_backend_goes_and_no_others() {
        let mut view = Southbound::default();
        view.sets.insert("%whole".to_owned(), BTreeSet::from(["tcp 10.96.0.2 10.0.0.6".to_owned()]));
        let mut delta = SouthboundDelta::default();
        let removed = BTreeSet::from(["tcp 10.96.0.1:80 10.0.0.5:8080".to_owned(), "x".to_owned()]);
        delta.sets.insert("%lb".to_owned(), SetChange { removed, ..SetChange::default() });
        delta.removed.sets.insert("%whole".to_owned());
        delta.removed.sets.insert("$other".to_owned());
        let gone = gone_backends(&delta, &view);
        assert_eq!(gone.len(), 2);
        let (vip, backend) = (([10, 96, 0, 1], 80), ([10, 0, 0, 5], 8080));
        assert!(is_of(&gone, &connection(6, vip, backend)));
        assert!(!is_of(&gone, &connection(17, vip, backend)), "another protocol");
        assert!(!is_of(&gone, &connection(6, vip, ([10, 0, 0, 6], 8080))), "another backend");
        assert!(!is_of(&gone, &Connection { dnat: false, ..connection(6, vip, backend) }));
        let (vip, backend) = (([10, 96, 0, 2], 53), ([10, 0, 0, 6], 53));
        assert!(is_of(&gone, &connection(17, vip, backend)), "all of the address");
    }
}
