//! Hosts that reach each other by VXLAN, which tells less than Geneve does.

use flowtable::program::TunnelKind;

use super::*;
use crate::{model::Northbound, southbound::ChassisRecord};

fn pair(nb: &Northbound) -> (Host, Host) {
    let by = |chassis| Host::by(TunnelKind::Vxlan, nb, (chassis, &[]));
    (by("h1"), by("h2"))
}

#[test]
fn a_ping_crosses_to_another_chassis_and_back() {
    let (h1, h2) = pair(&small());
    let outcome = h1.send("a", echo((0x05, "10.0.0.5"), (0xf0, "10.0.1.6")));
    let [(TUNNEL, sent)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    check(&sent, &[(Field::TunId, 2), (Field::TunDst, ip("192.0.2.2")), (Field::TunGbpId, 2)]);
    let outcome = h2.deliver(&outcome.tunnelled[0]);
    let [(port, key)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, h2.port("d"));
    check(&key, &[(Field::EthDst, hw(0x16)), (Field::NwTtl, 63)]);
    let outcome = h2.send("d", echo((0x16, "10.0.1.6"), (0xf1, "10.0.0.5")));
    let outcome = h1.deliver(&outcome.tunnelled[0]);
    let [(port, _)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    assert_eq!(port, h1.port("a"));
}

#[test]
fn a_question_for_all_reaches_the_others_members_alone() {
    let (h1, h2) = pair(&small());
    let outcome = h1.send("a", arp_request((0x05, "0.0.0.0"), "10.0.0.5"));
    let [(TUNNEL, sent)] = outcome.out[..] else { panic!("{:?}", outcome.drops) };
    check(&sent, &[(Field::TunId, 1), (Field::TunGbpId, 0x8000)]);
    let outcome = h2.deliver(&outcome.tunnelled[0]);
    let ports: Vec<_> = outcome.out.iter().map(|(port, _)| *port).collect();
    assert_eq!(ports, [h2.port("b")]);
}

/// The small network, where what is for `d` must not come in by `c`.
fn with_rule(matching: &str) -> Northbound {
    let mut nb = small();
    let acl = acl(AclDirection::ToLport, 1000, matching, AclAction::Drop);
    nb.switches.get_mut("db").unwrap().acls.insert("x".to_owned(), acl);
    nb
}

#[test]
fn a_rule_for_the_port_of_origin_lets_nothing_through_that_it_may_be_about() {
    let question = || echo((0x15, "10.0.1.5"), (0x16, "10.0.1.6"));
    for matching in ["outport == \"d\" && inport == \"c\"", "outport == \"d\" && inport == {\"c\", \"d\"}"] {
        let nb = with_rule(matching);
        let (h1, h2) = pair(&nb);
        let [error] = &h2.lowered.errors[..] else { panic!("{matching}: {:?}", h2.lowered.errors) };
        assert_eq!(error.object, "switches/db/acls/x");
        assert!(error.reason.contains("VXLAN does not tell"), "{error}");
        let outcome = h2.deliver(&h1.send("c", question()).tunnelled[0]);
        assert_eq!(outcome.out, [], "{matching}");
        assert!(outcome.drops[0].contains("switches/db/acls/x"), "{:?}", outcome.drops);
        // By Geneve nothing is unknown.
        let geneve = |chassis| Host::by(TunnelKind::Geneve, &nb, (chassis, &[]));
        assert_eq!(geneve("h2").lowered.errors, []);
    }
    // What is for others is not touched, nor is a rule of another kind.
    for matching in ["outport == \"none\" && inport == \"c\"", "ip4.src == 10.0.9.9"] {
        let (h1, h2) = pair(&with_rule(matching));
        let outcome = h2.deliver(&h1.send("c", question()).tunnelled[0]);
        assert_eq!(outcome.out.len(), 1, "{matching}: {:?}", outcome.drops);
    }
}

#[test]
fn the_receiver_likes_best_what_it_names_first() {
    let (geneve, vxlan) = (PortNo::new(2).unwrap(), PortNo::new(3).unwrap());
    let has = |tunnel, vxlan| LocalPorts { tunnel, vxlan, ..LocalPorts::default() };
    let likes = |encap_types: &[TunnelKind]| {
        let encap_types = encap_types.to_vec();
        ChassisRecord { encap_types, ..ChassisRecord::at([192, 0, 2, 1]) }
    };
    let both = has(Some(geneve), Some(vxlan));
    let (by_geneve, by_vxlan) = ((TunnelKind::Geneve, geneve), (TunnelKind::Vxlan, vxlan));
    assert_eq!(tunnel_to(&likes(&[]), &both), Some(by_geneve));
    assert_eq!(tunnel_to(&likes(&[TunnelKind::Vxlan, TunnelKind::Geneve]), &both), Some(by_vxlan));
    assert_eq!(tunnel_to(&likes(&[TunnelKind::Geneve, TunnelKind::Vxlan]), &both), Some(by_geneve));
    let old = has(Some(geneve), None);
    assert_eq!(tunnel_to(&likes(&[TunnelKind::Vxlan, TunnelKind::Geneve]), &old), Some(by_geneve));
    assert_eq!(tunnel_to(&likes(&[TunnelKind::Vxlan]), &old), None);
    let mut sb = compile(&small(), &hosts());
    sb.chassis.values_mut().for_each(|record| record.encap_types = vec![TunnelKind::Vxlan]);
    let ports = [("a".to_owned(), PortNo::new(1).unwrap())].into();
    let local = LocalPorts { chassis: "h1".to_owned(), ports, tunnel: Some(geneve), ..LocalPorts::default() };
    let lowered = lower(&chassis_view(&sb, "h1"), &local);
    assert!(lowered.errors.iter().any(|error| error.to_string().contains("reached by vxlan")));
}
