//! Small networks, and what is said about who can talk to whom in them.

use std::collections::BTreeMap;

use super::*;
use crate::{
    compile,
    fixture::{acl, balancer, hosts, nat, network, small},
    model::{
        AclAction, AclDirection, DefaultPolicy, NatKind, PortGroup, RouteMatch, RouteTarget, StaticRoute,
    },
};

fn ask(nb: &Northbound, from: &str, to: &str, speech: Speech) -> Explanation {
    let question = Question { from: from.to_owned(), to: to.to_owned(), address: None, speech };
    explain(nb, &compile(nb, &hosts()), &question).unwrap()
}

fn explain(nb: &Northbound, sb: &Southbound, question: &Question) -> Result<Explanation, ExplainError> {
    Case::new(nb, sb, question.clone())?.explain()
}

fn objects(way: &Way) -> Vec<&str> {
    way.steps.iter().map(|step| step.object.as_str()).collect()
}

#[test]
fn workloads_that_nothing_keeps_apart_talk_through_switch_and_router() {
    let nb = small();
    for (from, to) in [("a", "b"), ("a", "c"), ("d", "b")] {
        for speech in [Speech::Tcp(80), Speech::Udp(53), Speech::Ping] {
            let answer = ask(&nb, from, to, speech);
            assert!(answer.is_yes(), "{from} {to} {speech:?}: {answer:#?}");
        }
    }
    let way = ask(&nb, "a", "c", Speech::Tcp(80)).there;
    assert!(objects(&way).contains(&"routers/r/ports/r-web"), "{:?}", objects(&way));
    assert_eq!(way.destination, IpAddr::from([10, 0, 1, 5]));
}

#[test]
fn the_acl_that_drops_is_named_and_each_direction_has_its_own() {
    let mut nb = small();
    let web = nb.switches.get_mut("web").unwrap();
    let denial = acl(AclDirection::ToLport, 1000, "outport == \"b\" && tcp.dst == 23", AclAction::Drop);
    web.acls.insert("no-telnet".into(), denial);
    let refused = ask(&nb, "a", "b", Speech::Tcp(23));
    assert!(matches!(refused.there.outcome, Outcome::Dropped { .. }), "{refused:#?}");
    let cause = refused.there.steps.last().unwrap();
    assert_eq!(cause.object, "switches/web/acls/no-telnet");
    assert_eq!((refused.is_yes(), refused.back), (false, None));
    assert!(ask(&nb, "a", "b", Speech::Tcp(24)).is_yes());

    // The answer is what is not allowed: no connection is kept for it.
    let one_way = acl(AclDirection::FromLport, 1000, "inport == \"d\" && tcp", AclAction::Drop);
    nb.switches.get_mut("db").unwrap().acls.insert("mute".into(), one_way);
    let answer = ask(&nb, "a", "d", Speech::Tcp(80));
    assert_eq!(answer.there.outcome, Outcome::Arrives);
    let back = answer.back.unwrap();
    assert_eq!(back.steps.last().unwrap().object, "switches/db/acls/mute", "{back:#?}");
}

#[test]
fn answers_of_allowed_connections_come_back_through_a_default_that_drops() {
    let mut nb = small();
    let mut group = PortGroup { default_policy: DefaultPolicy::Drop, ..PortGroup::default() };
    group.ports = [("c".to_owned(), "db".to_owned())].into();
    let allow = acl(AclDirection::ToLport, 10, "outport == @g && tcp.dst == 5432", AclAction::AllowRelated);
    group.acls.insert("in".into(), allow);
    nb.port_groups.insert("g".into(), group);
    let allowed = ask(&nb, "a", "c", Speech::Tcp(5432));
    assert!(allowed.is_yes(), "{allowed:#?}");
    let refused = ask(&nb, "a", "c", Speech::Tcp(5433));
    assert_eq!(refused.there.steps.last().unwrap().object, "port-groups/g", "{refused:#?}");
    // The other way round the group's default is in the way as well.
    assert!(!ask(&nb, "c", "a", Speech::Ping).is_yes());
}

#[test]
fn a_refusal_and_a_missing_route_have_names() {
    let mut nb = small();
    let refusal = acl(AclDirection::FromLport, 7, "tcp.dst == 25", AclAction::Reject);
    nb.switches.get_mut("web").unwrap().acls.insert("no-mail".into(), refusal);
    let refused = ask(&nb, "a", "c", Speech::Tcp(25));
    assert_eq!(refused.there.outcome, Outcome::Host("reject"), "{refused:#?}");
    assert_eq!(refused.there.steps.last().unwrap().object, "switches/web/acls/no-mail");

    let discard = StaticRoute {
        prefix: network("10.0.1.5/32"),
        by: RouteMatch::Destination,
        target: RouteTarget::Discard,
        symmetric: false,
        table: String::new(),
        hash_fields: Vec::new(),
        monitored: false,
        overrides: false,
    };
    nb.routers.get_mut("r").unwrap().static_routes.push(discard);
    let lost = ask(&nb, "a", "c", Speech::Udp(9));
    assert!(matches!(lost.there.outcome, Outcome::Dropped { .. }), "{lost:#?}");
    assert!(lost.there.steps.last().unwrap().object.starts_with("routers/r"), "{lost:#?}");
}

#[test]
fn load_balancers_and_translations_are_followed_there_and_back() {
    let mut nb = small();
    nb.load_balancers.insert("lb".into(), balancer("10.0.0.100:80", &["10.0.1.5:8080"]));
    nb.switches.get_mut("web").unwrap().load_balancers.insert("lb".into());
    let question = Question {
        from: "a".into(),
        to: "c".into(),
        address: Some([10, 0, 1, 200].into()),
        speech: Speech::Tcp(80),
    };
    let sb = |nb: &Northbound| compile(nb, &hosts());
    let none = explain(&nb, &sb(&nb), &question).unwrap();
    assert!(!none.is_yes(), "nobody has that address");
    nb.load_balancers.insert("lb".into(), balancer("10.0.1.200:80", &["10.0.1.5:8080"]));
    let balanced = explain(&nb, &sb(&nb), &question).unwrap();
    assert!(balanced.is_yes(), "{balanced:#?}");
    assert!(objects(&balanced.there).iter().any(|object| object.contains("load-balancers/lb")));

    let rule = nat(NatKind::Both, "10.0.1.77", "10.0.0.5/32");
    let r = nb.routers.get_mut("r").unwrap();
    (r.chassis, r.nats) = (Some("h1".into()), [("float".to_owned(), rule)].into());
    let translated = ask(&nb, "a", "c", Speech::Ping);
    assert!(translated.is_yes(), "{translated:#?}");
    let back = translated.back.as_ref().unwrap();
    assert_eq!(back.destination, IpAddr::from([10, 0, 1, 77]), "{translated:#?}");
}

#[test]
fn questions_without_sense_are_told_so() {
    let nb = small();
    let sb = compile(&nb, &BTreeMap::new());
    let wrong = |from: &str, to: &str| {
        let question =
            Question { from: from.to_owned(), to: to.to_owned(), address: None, speech: Speech::Ping };
        explain(&nb, &sb, &question).unwrap_err().to_string()
    };
    assert!(wrong("a", "nobody").starts_with("`nobody`: no switch"));
    assert!(wrong("web-r", "a").starts_with("`web-r` leads to a router or"));
    let mut lone = nb.clone();
    lone.switches.get_mut("web").unwrap().ports.remove("web-r");
    let question = Question { from: "a".into(), to: "c".into(), address: None, speech: Speech::Ping };
    let sb = compile(&lone, &BTreeMap::new());
    assert!(matches!(explain(&lone, &sb, &question), Err(ExplainError::NoRouter { .. })));
}
