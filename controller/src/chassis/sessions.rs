//! Sessions of router ports with next hops: what the hosts that run them say, kept in the
//! store, because which routes there are depends on it.

use std::{collections::BTreeMap, net::IpAddr};

use ferroflow_proto::chassis as pb;
use ovn_northd_lite::model::{Candidate, Gateway};

use crate::{
    access::Author,
    controller::Controller,
    resource::{Name, Spec},
    state::{Record, Refusal, SessionState, State},
};

/// Writes what a chassis says of sessions, where it is new. What is not its business is left
/// out.
pub(super) fn settle(
    controller: &Controller,
    chassis: &str,
    said: &[pb::SessionState],
) -> Result<(), Refusal> {
    if changes(&controller.state(), chassis, said).is_empty() {
        return Ok(());
    }
    controller.write(&Author::chassis(chassis, "sessions"), false, |draft| {
        for (port, news) in changes(draft.state(), chassis, said) {
            draft.set_sessions(&port, news);
        }
        Ok(())
    })?;
    Ok(())
}

fn changes(
    state: &State,
    chassis: &str,
    said: &[pb::SessionState],
) -> BTreeMap<Name, BTreeMap<IpAddr, SessionState>> {
    let mut changes: BTreeMap<Name, BTreeMap<IpAddr, SessionState>> = BTreeMap::new();
    for one in said {
        let session = i32::try_from(one.state).ok().and_then(|raw| SessionState::try_from(raw).ok());
        let Some((session, peer)) = session.zip(one.peer.parse().ok()) else { continue };
        let Some(record) = state.port(&one.port).filter(|record| may_have(state, record, chassis)) else {
            continue;
        };
        let Spec::RouterPort(port) = &record.spec else { continue };
        if port.monitored.contains_key(&peer) && record.sessions.get(&peer) != Some(&session) {
            changes.entry(record.name.clone()).or_default().insert(peer, session);
        }
    }
    changes
}

/// A chassis is one of those that a router port may be on.
fn may_have(state: &State, port: &Record, chassis: &str) -> bool {
    let Spec::RouterPort(spec) = &port.spec else { return false };
    let router = port.name.parent().and_then(|router| state.get(&router));
    let only = router.and_then(|router| match &router.spec {
        Spec::Router(router) => router.chassis.as_deref(),
        _ => None,
    });
    match only {
        Some(only) => only == chassis,
        None => match &spec.gateway {
            Gateway::Hosts(hosts) => is_among(hosts, chassis),
            Gateway::Group(id) => {
                let group = Name::parse(&format!("ha-chassis-groups/{id}")).ok();
                let group = group.and_then(|name| state.get(&name)).map(|record| &record.spec);
                matches!(group, Some(Spec::HaChassisGroup(hosts)) if is_among(hosts, chassis))
            }
        },
    }
}

fn is_among(hosts: &[Candidate], chassis: &str) -> bool {
    hosts.iter().any(|candidate| candidate.chassis == chassis)
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::{self as nb, resource::Spec as Wire};

    use super::*;
    use crate::store::{LogLimits, MemoryStore};

    #[test]
    fn only_who_may_have_the_port_says_how_its_sessions_are() {
        let controller = Controller::open(Box::new(MemoryStore::default()), LogLimits::default()).unwrap();
        let port = nb::LogicalRouterPort {
            mac: "0a:00:00:00:00:01".to_owned(),
            networks: vec!["192.0.2.254/24".to_owned()],
            bfd_sessions: vec![nb::BfdSession { peer: "192.0.2.7".to_owned(), ..Default::default() }],
            ..Default::default()
        };
        let router = nb::LogicalRouter { chassis: "chassis/h1".to_owned(), ..Default::default() };
        for (name, wire) in [
            ("routers/r", Wire::LogicalRouter(router)),
            ("routers/r/ports/out", Wire::LogicalRouterPort(port)),
        ] {
            let resource = nb::Resource { name: name.to_owned(), spec: Some(wire), ..Default::default() };
            controller
                .write(&Author::controller("test"), false, |draft| Ok(draft.create(0, resource.clone())?))
                .unwrap();
        }
        let say = |chassis: &str, peer: &str, state: SessionState| {
            let (port, peer) = ("out".to_owned(), peer.to_owned());
            let said = pb::SessionState { port, peer, state: i32::from(state) as u32 };
            settle(&controller, chassis, &[said]).unwrap();
            controller.state().port("out").unwrap().sessions.clone()
        };
        let peer: IpAddr = [192, 0, 2, 7].into();
        assert!(say("h2", "192.0.2.7", SessionState::Up).is_empty(), "it has not the router");
        assert!(say("h1", "192.0.2.8", SessionState::Up).is_empty(), "nobody asked for that one");
        assert_eq!(say("h1", "192.0.2.7", SessionState::Up), [(peer, SessionState::Up)].into());
        let revision = controller.state().revision();
        assert_eq!(say("h1", "192.0.2.7", SessionState::Up), [(peer, SessionState::Up)].into());
        assert_eq!(controller.state().revision(), revision, "what is known is not written again");
        let shown = controller.state().port("out").unwrap().to_wire(|_| Default::default());
        let Some(Wire::LogicalRouterPort(shown)) = shown.spec else { panic!("a router port") };
        assert_eq!(shown.bfd_sessions[0].state(), SessionState::Up);
        assert_eq!(say("h1", "192.0.2.7", SessionState::Down), [(peer, SessionState::Down)].into());
    }
}
