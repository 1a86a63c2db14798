//! Neighbours of routers, and groups that workloads want to hear: what hosts have heard of
//! them, kept in the store, so that the other hosts are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use ferroflow_proto::chassis as pb;
use flowtable::types::MacAddr;

use crate::{
    access::Author,
    controller::Controller,
    resource::{Kind, Name, limits::MAX_HEARD},
    state::{Heard, Record, Refusal, State},
};

/// What of a port's neighbours is new; `None`: nobody has heard of it any more.
type Changes = BTreeMap<Name, BTreeMap<IpAddr, Option<Heard>>>;

/// What a chassis said that has to wait: what it heard, and how long the first of it.
pub(super) type Later = Option<(Duration, Vec<pb::Neighbour>)>;

/// Writes what a chassis has heard, where it is new. What is about no router port, or more
/// than one has room for, is left out; who changes all the time has to wait.
pub(super) fn settle(
    controller: &Controller,
    chassis: &str,
    mut said: pb::Neighbours,
    now: Instant,
) -> Result<Later, Refusal> {
    let later = moderate(controller, &mut said, now);
    if changes(&controller.state(), chassis, &said).is_empty() {
        return Ok(later);
    }
    controller.write(&Author::chassis(chassis, "neighbours"), false, |draft| {
        for (port, heard) in changes(draft.state(), chassis, &said) {
            draft.set_heard(&port, heard);
        }
        Ok(())
    })?;
    Ok(later)
}

/// Takes out what has to wait. In a list of all it counts as what is known.
fn moderate(controller: &Controller, said: &mut pb::Neighbours, now: Instant) -> Later {
    let state = controller.state();
    let mut later: Later = None;
    for one in &mut said.heard {
        let Some((record, ip, mac)) = known(&state, None, one) else { continue };
        let Some(present) = record.heard.get(&ip).filter(|present| present.mac != mac) else { continue };
        if let Err(wait) = controller.moderation.admit(&record.name, ip, now) {
            let (shortest, waiting) = later.get_or_insert((wait, Vec::new()));
            *shortest = wait.min(*shortest);
            waiting.push(one.clone());
            one.mac = present.mac.to_string();
        }
    }
    later
}

fn changes(state: &State, chassis: &str, said: &pb::Neighbours) -> Changes {
    let mut changes = Changes::new();
    let heard: Vec<_> = said.heard.iter().filter_map(|one| known(state, Some(chassis), one)).collect();
    if said.full {
        let named: BTreeSet<_> = heard.iter().map(|(record, ip, _)| (record.name.as_str(), *ip)).collect();
        for record in state.iter().filter(|record| !record.heard.is_empty()) {
            let own = record.heard.iter().filter(|(_, heard)| heard.chassis == chassis);
            let gone = own.filter(|(ip, _)| !named.contains(&(record.name.as_str(), **ip)));
            for (ip, _) in gone {
                changes.entry(record.name.clone()).or_default().insert(*ip, None);
            }
        }
    }
    for (record, ip, mac) in heard {
        let present = record.heard.get(&ip);
        let news = changes.entry(record.name.clone()).or_default();
        let has_room = present.is_some() || record.heard.len() + news.len() < MAX_HEARD;
        // A group that is heard behind a port which has moved is the new host's to say.
        let is_moved = |heard: &Heard| is_group(ip) && heard.chassis != chassis;
        if present.is_none_or(|heard| heard.mac != mac || is_moved(heard)) && has_room {
            news.insert(ip, Some(Heard { mac, chassis: chassis.to_owned() }));
        }
    }
    for (record, ip, mac) in said.gone.iter().filter_map(|one| known(state, None, one)) {
        // Who has heard it last says when it is over.
        let is_own = |heard: &&Heard| heard.mac == mac && heard.chassis == chassis;
        if record.heard.get(&ip).filter(is_own).is_some() {
            changes.entry(record.name.clone()).or_default().insert(ip, None);
        }
    }
    changes.retain(|_, heard| !heard.is_empty());
    changes
}

/// A neighbour of a router port that there is, or a group of a switch port that is on this
/// chassis, if one is named.
fn known<'a>(
    state: &'a State,
    chassis: Option<&str>,
    said: &pb::Neighbour,
) -> Option<(&'a Record, IpAddr, MacAddr)> {
    let record: &Record = state.port(&said.port)?;
    let ip: IpAddr = said.ip.parse().ok()?;
    let is_sound = match record.name.kind() {
        Kind::RouterPort => true,
        Kind::SwitchPort => {
            let is_own = |chassis: &str| {
                let binding = record.binding.as_ref();
                !record.is_workload() || binding.is_some_and(|binding| binding.chassis == chassis)
            };
            is_group(ip) && chassis.is_none_or(is_own)
        }
        _ => false,
    };
    Some((record, ip, said.mac.parse().ok()?)).filter(|_| is_sound)
}

/// A group, or all of them.
fn is_group(ip: IpAddr) -> bool {
    ip.is_multicast() || ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::{self as nb, resource::Spec as Wire};

    use super::*;
    use crate::store::{LogLimits, MemoryStore};

    fn controller() -> std::sync::Arc<Controller> {
        let controller = Controller::open(Box::new(MemoryStore::default()), LogLimits::default()).unwrap();
        let port = nb::LogicalRouterPort {
            mac: "0a:00:00:00:00:01".to_owned(),
            networks: vec!["192.0.2.254/24".to_owned()],
            ..Default::default()
        };
        for (name, wire) in [
            ("routers/r", Wire::LogicalRouter(Default::default())),
            ("routers/r/ports/out", Wire::LogicalRouterPort(port)),
        ] {
            let resource = nb::Resource { name: name.to_owned(), spec: Some(wire), ..Default::default() };
            controller
                .write(&Author::controller("test"), false, |draft| Ok(draft.create(0, resource.clone())?))
                .unwrap();
        }
        controller
    }

    fn said(mac: u8) -> pb::Neighbours {
        let one = pb::Neighbour {
            port: "out".to_owned(),
            ip: "192.0.2.7".to_owned(),
            mac: format!("02:00:00:00:00:{mac:02x}"),
        };
        pb::Neighbours { heard: vec![one], ..Default::default() }
    }

    #[test]
    fn groups_are_told_by_the_host_that_has_the_port() {
        let controller = controller();
        let port = nb::LogicalSwitchPort { addresses: vec!["unknown".to_owned()], ..Default::default() };
        for (name, wire) in [
            ("switches/s", Wire::LogicalSwitch(Default::default())),
            ("switches/s/ports/w", Wire::LogicalSwitchPort(port)),
        ] {
            let resource = nb::Resource { name: name.to_owned(), spec: Some(wire), ..Default::default() };
            controller
                .write(&Author::controller("test"), false, |draft| Ok(draft.create(0, resource.clone())?))
                .unwrap();
        }
        let name = Name::parse("switches/s/ports/w").unwrap();
        let bind = |chassis: &str| {
            let bound = controller.write(&Author::controller("test"), false, |draft| {
                draft.bind(&name, Some((chassis, true)));
                Ok(())
            });
            bound.unwrap();
        };
        let group = |ip: &str| {
            let (port, mac) = ("w".to_owned(), MacAddr::ZERO.to_string());
            pb::Neighbour { port, ip: ip.to_owned(), mac }
        };
        let tell = |chassis: &str, heard: &[&str], gone: &[&str]| {
            let list = |ips: &[&str]| ips.iter().map(|ip| group(ip)).collect();
            let said = pb::Neighbours { full: false, heard: list(heard), gone: list(gone) };
            assert_eq!(settle(&controller, chassis, said, Instant::now()).unwrap(), None);
            let state = controller.state();
            state.port("w").unwrap().heard.keys().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        bind("h1");
        assert_eq!(tell("h1", &["239.1.2.3", "10.0.0.1"], &[]), ["239.1.2.3"], "the other is no group");
        assert_eq!(tell("h2", &["239.1.2.4"], &["239.1.2.3"]), ["239.1.2.3"], "the port is not on h2");
        // It moves; what its old host says last comes late.
        bind("h2");
        assert_eq!(tell("h2", &["239.1.2.3"], &[]), ["239.1.2.3"]);
        assert_eq!(tell("h1", &[], &["239.1.2.3"]), ["239.1.2.3"]);
        assert_eq!(tell("h2", &["0.0.0.0"], &["239.1.2.3"]), ["0.0.0.0"]);
    }

    #[test]
    fn two_hosts_that_hear_different_things_write_at_a_rate_and_the_last_word_holds() {
        let controller = controller();
        let start = Instant::now();
        let (mut waiting, mut due) = (None, start);
        for step in 0..600_u64 {
            let now = start + Duration::from_millis(step * 100);
            if now >= due
                && let Some((chassis, heard)) = waiting.take()
            {
                let said = pb::Neighbours { heard, ..Default::default() };
                assert_eq!(settle(&controller, chassis, said, now).unwrap(), None, "it has waited");
            }
            let (chassis, mac) = if step % 2 == 0 { ("h1", 1) } else { ("h2", 2) };
            if let Some((wait, heard)) = settle(&controller, chassis, said(mac), now).unwrap() {
                (waiting, due) = (Some((chassis, heard)), now + wait);
            }
        }
        // One when it is first heard of, the burst, and one each ten seconds.
        let n_written = controller.state().revision().get() - 2;
        assert!((10..=12).contains(&n_written), "{n_written}");
        // Then h2 goes silent, and h1 is right in the end.
        let quiet = start + Duration::from_secs(90);
        assert_eq!(settle(&controller, "h1", said(1), quiet).unwrap(), None);
        let state = controller.state();
        let heard = &state.port("out").unwrap().heard[&IpAddr::from([192, 0, 2, 7])];
        assert_eq!((heard.mac.octets()[5], heard.chassis.as_str()), (1, "h1"));
    }
}
