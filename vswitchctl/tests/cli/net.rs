//! Commands for the logical network.

use ferroflow_proto::northbound::{ChassisReceipt, Resource, resource::Spec};
use serde_json::Value;
use vswitchctl::CtlError;

use crate::{Place, fake_controller::FakeController};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two-switches.yaml");

fn applied(chassis: &str, applied: bool) -> ChassisReceipt {
    ChassisReceipt { chassis: format!("chassis/{chassis}"), applied, errors: Vec::new(), connected: applied }
}

#[tokio::test]
async fn the_example_is_created_then_unchanged_then_updated() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    let first = place.run(&["apply", "-f", EXAMPLE]).await;
    assert!(first.starts_with("switches/db created\nswitches/web created\nrouters/r1 created\n"), "{first}");
    assert!(first.ends_with("switches/db/acls/no-telnet created\n12 created\nrevision 1\n"), "{first}");
    assert_eq!(controller.change(|state| state.transactions.len()), 1);

    let second = place.run(&["apply", "-f", EXAMPLE]).await;
    assert!(second.ends_with("12 unchanged\nrevision 1\n"), "{second}");

    let text = std::fs::read_to_string(EXAMPLE).unwrap().replace("priority: 1000", "priority: 900");
    let third = place.run(&["apply", "-f", &place.write("net.yaml", &text)]).await;
    assert!(third.contains("switches/db/acls/no-telnet updated\n"), "{third}");
    assert!(third.ends_with("1 updated, 11 unchanged\nrevision 2\n"), "{third}");
}

#[tokio::test]
async fn what_the_controller_adds_is_no_change() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    controller.change(|state| {
        let port = state.resources.get_mut("switches/web/ports/web-1").unwrap();
        let Some(Spec::LogicalSwitchPort(port)) = &mut port.spec else { panic!("no port") };
        (port.up, port.tunnel_key, port.chassis) = (true, 7, "chassis/host-1".into());
    });
    let again = place.run(&["apply", "-f", EXAMPLE]).await;
    assert!(again.contains("12 unchanged\n"), "{again}");
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    let text = place.run(&["apply", "-f", EXAMPLE, "--dry-run", "--wait"]).await;
    assert!(text.starts_with("switches/db created (dry run)\n") && text.ends_with("12 created\n"), "{text}");
    assert_eq!(controller.names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_diff_tells_fields_and_changes_nothing() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    assert_eq!(place.run(&["diff", "-f", EXAMPLE]).await, "");
    let text = std::fs::read_to_string(EXAMPLE).unwrap().replace("priority: 1000", "priority: 900");
    let file = place.write("net.yaml", &text);
    let (text, error) = place.try_run(&["diff", "-f", &file]).await;
    assert_eq!(text, "~ switches/db/acls/no-telnet\n    - priority: 1000\n    + priority: 900\n");
    assert!(matches!(error, Err(CtlError::Differs { n: 1, .. })));
    assert_eq!(controller.change(|state| state.revision), 1);
}

#[tokio::test]
async fn an_explanation_names_the_object_and_its_exit_code_says_no() {
    let place = Place::new();
    let _controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    let text = place.run(&["explain", "web-1", "db-1", "--proto", "tcp", "--port", "80"]).await;
    assert!(text.ends_with("  arrives\nthey can talk, by revision 1\n"), "{text}");
    assert!(text.starts_with("web-1 (switches/web/ports/web-1) to db-1 ():\n"), "{text}");
    let (text, error) = place.try_run(&["explain", "web-1", "db-1", "--proto", "tcp", "--port", "23"]).await;
    assert!(text.contains("dropped by switches/db/acls/no-telnet"), "{text}");
    assert!(matches!(error, Err(CtlError::CannotTalk)));
}

#[tokio::test]
async fn a_trace_goes_on_at_other_hosts() {
    let place = Place::new();
    let _controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    let text = place.run(&["trace", "--from", "web-1", "tcp,nw_dst=10.0.2.11"]).await;
    let wanted = "host h1\nswitches/web/ports/web-1\n\nverdict: forwarded\n\n\
                  host h2: in by the tunnel from h1\n\nverdict: forwarded\n\n\
                  host h3: in by the tunnel from h1\n  not traced: it is not connected\n\n\
                  in all: forwarded, by db-1 on h2\n";
    assert_eq!(text, wanted);
}

#[tokio::test]
async fn an_export_applies_to_the_same_network() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    place.run(&["switch-port", "set", "web-2", "--disable", "--label", "a=b c"]).await;
    let specs = |controller: &FakeController| {
        let spec = |resource: Resource| (resource.labels, resource.spec);
        controller.names().iter().map(|name| spec(controller.get(name))).collect::<Vec<_>>()
    };
    let file = place.write("export.yaml", &place.run(&["export"]).await);

    let elsewhere = Place::new();
    let other = FakeController::start(&elsewhere);
    elsewhere.run(&["apply", "-f", &file]).await;
    assert_eq!(other.names(), controller.names());
    assert_eq!(specs(&other), specs(&controller));

    // JSON is YAML.
    let json = place.write("export.json", &place.run(&["export", "-o", "json"]).await);
    assert!(elsewhere.run(&["apply", "-f", &json]).await.contains("12 unchanged\n"));
}

#[tokio::test]
async fn pruning_deletes_what_has_the_labels_and_left_the_file() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["switch", "add", "other"]).await;
    let file = |text: &str| place.write("net.yaml", text);
    let all = "labels: {app: x}\nswitches: {a: {ports: {a1: , a2: }}, b: {ports: {b1: }}}\n";
    place.run(&["apply", "-f", &file(all)]).await;

    let less = "labels: {app: x}\nswitches: {a: {ports: {a1: }}}\n";
    let prune = ["apply", "-f", &file(less), "--prune", "-l", "app=x"];
    let dry = place.run(&[prune.as_slice(), &["--dry-run"]].concat()).await;
    let told = "switches/a/ports/a2 deleted";
    assert!(dry.contains(told) && dry.contains("3 deleted, 2 unchanged"), "{dry}");
    assert_eq!(controller.names().len(), 6);

    place.run(&prune).await;
    assert_eq!(controller.names(), ["switches/a", "switches/a/ports/a1", "switches/other"]);
}

#[tokio::test]
async fn pruning_never_takes_what_it_was_not_shown() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    let all = "labels: {app: x}\nswitches: {a: , b: }\n";
    place.run(&["apply", "-f", &place.write("all.yaml", all)]).await;
    place.run(&["switch-port", "add", "b", "foreign"]).await;

    let less = place.write("less.yaml", "labels: {app: x}\nswitches: {a: }\n");
    let error = place.fail(&["apply", "-f", &less, "--prune", "-l", "app=x"]).await.to_string();
    assert!(error.contains("pruning would delete switches/b/ports/foreign"), "{error}");

    // An object changed since it was found stops the whole transaction.
    place.run(&["switch-port", "del", "foreign"]).await;
    controller.change(|state| state.disturbed.push("switches/b".into()));
    let error = place.fail(&["apply", "-f", &less, "--prune", "-l", "app=x"]).await.to_string();
    assert_eq!(error, "switches/b has changed");

    let stray = place.write("stray.yaml", "switches: {a: }\n");
    let error = place.fail(&["apply", "-f", &stray, "--prune", "-l", "app=x"]).await.to_string();
    assert!(error.contains("switches/a lacks the label app=x"), "{error}");
    assert_eq!(controller.names(), ["switches/a", "switches/b"]);
}

#[tokio::test]
async fn a_file_may_name_router_ports_it_does_not_have() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["router", "add", "r9"]).await;
    let network = ["--mac", "0a:00:00:00:09:01", "--network", "10.9.0.1/24"];
    place.run(&[["router-port", "add", "r9", "r9-a"].as_slice(), &network].concat()).await;
    let file = place.write("a.yaml", "switches: {a: {ports: {a-to-r9: {router_port: r9-a}}}}");
    place.run(&["apply", "-f", &file]).await;
    let Some(Spec::LogicalSwitchPort(port)) = controller.get("switches/a/ports/a-to-r9").spec else {
        panic!("no port")
    };
    assert_eq!(port.router_port, "routers/r9/ports/r9-a");

    let file = place.write("a.yaml", "switches: {a: {ports: {a-to-r9: {router_port: r9-b}}}}");
    let error = place.fail(&["apply", "-f", &file]).await;
    assert_eq!(error.to_string(), "there is no router port \"r9-b\"; did you mean r9-a?");
}

#[tokio::test]
async fn names_resolve() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    for name in ["db-1", "db/db-1", "switches/db/ports/db-1"] {
        let port: Value =
            serde_json::from_str(&place.run(&["-o", "json", "switch-port", "show", name]).await).unwrap();
        assert_eq!(port["name"], "switches/db/ports/db-1");
        assert_eq!(port["addresses"][0], "0a:00:00:00:02:0b 10.0.2.11");
    }
    let error = place.fail(&["switch-port", "show", "bd-1"]).await;
    assert_eq!(error.to_string(), "there is no switch port \"bd-1\"; did you mean db-1?");
    assert_eq!(error.hint().unwrap(), "see vswitchctl switch-port list");
    let error = place.fail(&["switch", "show", "wbe"]).await;
    assert_eq!(error.to_string(), "there is no switch \"wbe\"; did you mean web?");
    let error = place.fail(&["switch-port", "del", "web/nothing-like-it"]).await;
    assert_eq!(error.to_string(), "there is no switch port \"nothing-like-it\"");

    let acl = ["--direction", "to-lport", "--priority", "1", "--match", "ip", "--action", "allow"];
    place.run(&[["acl", "add", "web/no-telnet"].as_slice(), &acl].concat()).await;
    let error = place.fail(&["acl", "del", "no-telnet"]).await;
    assert_eq!(
        error.to_string(),
        "ACL \"no-telnet\" is ambiguous: switches/db/acls/no-telnet, switches/web/acls/no-telnet"
    );
    assert_eq!(
        place.run(&["acl", "del", "db/no-telnet"]).await.lines().next(),
        Some("switches/db/acls/no-telnet deleted")
    );
    assert_eq!(controller.names().len(), 12);
}

#[tokio::test]
async fn lists_turn_pages_and_obey_labels_and_parents() {
    let place = Place::new();
    let _controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    place.run(&["switch-port", "set", "web-1", "--label", "tier=front"]).await;
    assert_eq!(place.run(&["switch-port", "list"]).await.lines().count(), 7);
    assert_eq!(place.run(&["switch-port", "list", "web"]).await.lines().count(), 4);
    let chosen = place.run(&["switch-port", "list", "-l", "tier=front"]).await;
    assert_eq!(
        chosen,
        "\
SWITCH  PORT   KEY  STATE  CHASSIS  ADDRESSES                    LABELS
web     web-1  0    down   -        0a:00:00:00:01:0b 10.0.1.11  tier=front
"
    );
    assert!(place.fail(&["switch-port", "list", "wob"]).await.to_string().contains("did you mean web?"));
}

#[tokio::test]
async fn adding_twice_is_an_error_unless_it_may_exist() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    assert_eq!(place.run(&["switch", "add", "web"]).await, "switches/web created\nrevision 1\n");
    let error = place.fail(&["switch", "add", "web"]).await;
    assert_eq!(error.to_string(), "switches/web exists already");
    assert!(error.hint().unwrap().contains("--may-exist"));
    assert_eq!(
        place.run(&["switch", "add", "web", "--may-exist"]).await,
        "switches/web unchanged\nrevision 1\n"
    );
    // What is taken may also be an address or the id of a port, by another object.
    controller.change(|state| state.taken = true);
    for may_exist in [&[][..], &["--may-exist"]] {
        let error = place.fail(&[["switch", "add", "db"].as_slice(), may_exist].concat()).await;
        assert_eq!(error.to_string(), "switches/db: it is another's");
    }
}

#[tokio::test]
async fn deleting_what_is_not_there_is_an_error_unless_if_exists() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    for args in [["switch", "del", "none"], ["switch-port", "del", "none"], ["acl", "del", "db/none"]] {
        assert!(place.fail(&args).await.is_not_found(), "{args:?}");
        let text = place.run(&[args.as_slice(), &["--if-exists"]].concat()).await;
        assert_eq!(text, format!("{} absent\n", args[2]));
    }
    place.run(&["switch", "del", "db"]).await;
    assert!(controller.names().iter().all(|name| !name.starts_with("switches/db")));
}

#[tokio::test]
async fn set_changes_only_what_it_was_given() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    let text = place.run(&["acl", "set", "no-telnet", "--priority", "5", "--label", "why=test"]).await;
    assert_eq!(text, "switches/db/acls/no-telnet updated\nrevision 2\n");
    let acl = controller.get("switches/db/acls/no-telnet");
    assert_eq!(acl.labels["why"], "test");
    let Some(Spec::Acl(acl)) = acl.spec else { panic!("no ACL") };
    assert_eq!((acl.priority, acl.r#match.as_str()), (5, "outport == \"db-1\" && tcp.dst == 23"));
    let mask = controller.change(|state| format!("{:?}", state.transactions.last().unwrap().operations));
    assert!(mask.contains("paths: [\"labels\", \"priority\"]"), "{mask}");

    let error = place.fail(&["acl", "set", "no-telnet"]).await;
    assert!(matches!(error, CtlError::Usage(_)) && error.exit_code() == 2, "{error}");
}

#[tokio::test]
async fn sets_and_groups_are_edited_member_by_member_and_have_acls() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    place.run(&["address-set", "add", "ops", "--address", "10.0.0.0/8", "--address", "::1"]).await;
    let edit = ["--add", "10.0.0.0/8", "--add", "192.0.2.1", "--remove", "::1", "--remove", "::2"];
    place.run(&[["address-set", "set", "ops"].as_slice(), &edit].concat()).await;
    let Some(Spec::AddressSet(set)) = controller.get("address-sets/ops").spec else { panic!("no set") };
    assert_eq!(set.addresses, ["10.0.0.0/8", "192.0.2.1"]);

    let ports = ["--port", "web-1", "--port", "db/db-1", "--default", "drop"];
    place.run(&[["port-group", "add", "shop"].as_slice(), &ports].concat()).await;
    place.run(&["port-group", "set", "shop", "--remove", "db-1", "--add", "web-2"]).await;
    let Some(Spec::PortGroup(group)) = controller.get("port-groups/shop").spec else { panic!("no group") };
    assert_eq!(group.ports, ["switches/web/ports/web-1", "switches/web/ports/web-2"]);
    assert_eq!(group.default_policy, 1);

    let acl = ["--direction", "to-lport", "--priority", "9", "--action", "allow-related", "--tier", "1"];
    let matching = ["--match", "outport == @shop && ip4.src == $ops", "--log", "--severity", "notice"];
    place.run(&[["acl", "add", "@shop", "ops"].as_slice(), &acl, &matching].concat()).await;
    place.run(&["acl", "set", "@shop/ops", "--label-number", "7", "--log-name", "ops-in"]).await;
    let Some(Spec::Acl(acl)) = controller.get("port-groups/shop/acls/ops").spec else { panic!("no ACL") };
    assert_eq!((acl.tier, acl.label, acl.log, acl.log_name.as_str()), (1, 7, true, "ops-in"));
    assert_eq!(
        place.run(&["acl", "list", "@shop"]).await,
        "\
SWITCH  ACL  DIRECTION  TIER  PRIORITY  ACTION         MATCH                                LABELS
@shop   ops  to-lport   1     9         allow-related  outport == @shop && ip4.src == $ops  -
"
    );
    let shown = place.run(&["port-group", "show", "shop"]).await;
    assert!(shown.contains("default:  drop\nport:     switches/web/ports/web-1\n"), "{shown}");
    assert!(shown.ends_with("ip4.src == $ops  -\n"), "{shown}");

    let exported = place.run(&["export"]).await;
    let again = place.run(&["apply", "-f", &place.write("again.yaml", &exported)]).await;
    assert!(again.contains("15 unchanged\n"), "{again}");
    place.run(&["port-group", "del", "shop"]).await;
    assert!(controller.names().iter().all(|name| !name.starts_with("port-groups")));
}

#[tokio::test]
async fn groups_are_named_by_their_users() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    place.run(&["load-balancer", "add", "lb", "--vip", "10.96.0.1:80=", "--event", "--add-route"]).await;
    place.run(&["load-balancer-group", "add", "lg", "--load-balancer", "lb"]).await;
    place.run(&["switch", "set", "web", "--load-balancer-group", "lg"]).await;
    place.run(&["load-balancer-group", "set", "lg", "--add", "lb2", "--remove", "lb"]).await;
    let Some(Spec::LoadBalancerGroup(group)) = controller.get("load-balancer-groups/lg").spec else {
        panic!("no group")
    };
    assert_eq!(group.load_balancers, ["load-balancers/lb2"]);
    let text = place.run(&["switch", "show", "web"]).await;
    assert!(text.contains("load balancer group:  lg\n"), "{text}");
    place.run(&["ha-chassis-group", "add", "hg", "--chassis", "h1=20", "--chassis", "h2=10"]).await;
    let text = place.run(&["ha-chassis-group", "list"]).await;
    assert!(text.contains("h1=20 h2=10"), "{text}");
    // Group and list take each other's place.
    let gateway = |controller: &FakeController| match controller.get("routers/r1/ports/r1-web").spec {
        Some(Spec::LogicalRouterPort(port)) => (port.ha_chassis_group, port.gateway_chassis.len()),
        _ => panic!("no port"),
    };
    place.run(&["router-port", "set", "r1-web", "--gateway", "h1=1"]).await;
    assert_eq!(gateway(&controller), (String::new(), 1));
    place.run(&["router-port", "set", "r1-web", "--ha-chassis-group", "hg"]).await;
    assert_eq!(gateway(&controller), ("ha-chassis-groups/hg".to_owned(), 0));
    place.run(&["router-port", "set", "r1-web", "--no-gateways"]).await;
    assert_eq!(gateway(&controller), (String::new(), 0));
    let both =
        ["vswitchctl", "router-port", "set", "r1-web", "--ha-chassis-group", "hg", "--gateway", "h1=1"];
    assert!(<vswitchctl::Cli as clap::Parser>::try_parse_from(both).is_err());
}

#[tokio::test]
async fn the_status_of_the_network_names_what_a_host_lacks() {
    let place = Place::new();
    let _controller = FakeController::start(&place);
    let text = place.run(&["status", "--network"]).await;
    assert!(text.contains("h2       no"), "{text}");
    assert!(
        text.ends_with(
            "h2: not heard of since the controller started\nh2: revision 9 is not applied: switches/web\n"
        ),
        "{text}"
    );
    let json = place.run(&["status", "--network", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["chassis"][0]["pending"][0]["revision"], 9);
}

#[tokio::test]
async fn set_gives_way_to_others_and_tries_again() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["switch", "add", "web"]).await;
    controller.change(|state| state.disturbed = vec!["switches/web".into(); 3]);
    place.run(&["switch", "set", "web", "--label", "mine=1"]).await;
    let labels = controller.get("switches/web").labels;
    assert_eq!((labels["by"].as_str(), labels["mine"].as_str()), ("4", "1"));
    assert_eq!(controller.change(|state| state.transactions.len()), 1 + 4);

    controller.change(|state| state.disturbed = vec!["switches/web".into(); 20]);
    let error = place.fail(&["switch", "set", "web", "--label", "mine=2"]).await;
    assert_eq!(error.to_string(), "others keep changing switches/web; try again");
    assert_eq!(controller.get("switches/web").labels["mine"], "1");
}

#[tokio::test]
async fn waiting_ends_when_all_hosts_have_applied_it() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    controller.change(|state| {
        state.receipts = vec![
            vec![applied("h1", true), applied("h2", false)],
            vec![applied("h1", true), applied("h2", true)],
        ];
    });
    let text = place.run(&["--wait=5", "switch", "add", "web"]).await;
    assert_eq!(text, "switches/web created\nrevision 1 is applied on all 2 hosts\n");
    assert_eq!(place.run(&["receipt", "1"]).await, "revision 1 is applied on all 2 hosts\n");
    let error = place.fail(&["receipt", "9"]).await.to_string();
    assert_eq!(error, "revision 9 is yet to come");
}

#[tokio::test]
async fn waiting_in_vain_names_the_hosts() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    controller.change(|state| state.receipts = vec![vec![applied("h1", true), applied("h2", false)]]);
    let (text, result) = place.try_run(&["--wait=1", "switch", "add", "web"]).await;
    assert!(text.contains("revision 1 is applied on 1 of 2 hosts\n"), "{text}");
    let error = result.unwrap_err();
    assert!(error.to_string().ends_with("pending: h2") && error.exit_code() == 1, "{error}");
    // Without --wait, a receipt only tells.
    let json: Value = serde_json::from_str(&place.run(&["receipt", "1", "-o", "json"]).await).unwrap();
    assert_eq!(json["chassis"][1]["applied"], false);
}

#[tokio::test]
async fn reads_are_not_waited_for() {
    let place = Place::new();
    let error = place.fail(&["--wait", "switch", "list"]).await;
    assert_eq!(error.exit_code(), 2);
}

#[tokio::test]
async fn a_watch_prints_what_there_is_and_says_how_to_go_on() {
    let place = Place::new();
    let _controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    let (text, result) = place.try_run(&["watch", "switch", "acl"]).await;
    assert_eq!(
        text,
        "\
1 put switches/db default_policy=\"allow\" tunnel_key=0
1 put switches/db/acls/no-telnet action=\"drop\" direction=\"to-lport\" label_number=0 log=false log_burst=0 \
log_rate=0 match=\"outport == \\\"db-1\\\" && tcp.dst == 23\" priority=1000 severity=\"info\" tier=0
1 put switches/web default_policy=\"allow\" tunnel_key=0
"
    );
    assert!(result.unwrap_err().to_string().contains("go on with --after 1"));
    let (json, _) = place.try_run(&["watch", "-o", "json", "acl"]).await;
    let change: Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&change["event"], &change["object"]["priority"]), (&"put".into(), &1000.into()));
}

#[tokio::test]
async fn switches_and_routers_show_what_is_below_them() {
    let place = Place::new();
    let _controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    let text = place.run(&["switch", "show", "db"]).await;
    assert!(text.contains("db      db-to-r1  0    router  -        router port r1-db"), "{text}");
    assert!(text.contains("db      no-telnet  to-lport   0     1000      drop"), "{text}");
    let text = place.run(&["router", "show", "r1", "-o", "yaml"]).await;
    assert!(text.contains("ports:\n- name: routers/r1/ports/r1-db\n"), "{text}");
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    let file = place.write("net.yaml", "switches:\n  web:\n    prots: {}\n");
    let error = place.fail(&["apply", "-f", &file]).await.to_string();
    assert!(
        error.ends_with("net.yaml:3: unknown key \"prots\" in switches.web; did you mean \"ports\"?"),
        "{error}"
    );
    let error = place.fail(&["apply", "-f", "/nonexistent.yaml"]).await.to_string();
    assert_eq!(error, "/nonexistent.yaml: there is no such file");
    assert_eq!(controller.change(|state| state.transactions.len()), 0);
    assert!(
        place.run(&["apply", "-f", &place.write("none.yaml", "# none\n")]).await.starts_with("nothing to do")
    );
}

#[tokio::test]
async fn names_that_may_come_next_are_those_that_there_are() {
    let place = Place::new();
    let _controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    assert_eq!(place.run(&["complete-names", "--", "switch", "set"]).await, "db\nweb\n");
    assert_eq!(place.run(&["complete-names", "--", "acl", "del"]).await, "db/no-telnet\n");
    assert_eq!(
        place.run(&["complete-names", "--", "switch-port", "add", "db", "x", "--router-port"]).await,
        { "r1-db\nr1-web\n" }
    );
    assert_eq!(place.run(&["complete-names", "--", "switch", "add"]).await, "");
}

#[tokio::test]
async fn a_variable_has_values_by_chassis() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place
        .run(&["template-variable", "add", "node", "--value", "h1=10.0.0.1", "--value", "h2=10.0.0.2,80"])
        .await;
    let values = || match controller.change(|state| state.resources["template-variables/node"].spec.clone()) {
        Some(Spec::TemplateVariable(variable)) => {
            variable.values.into_iter().map(|of| (of.chassis, of.values.join(" "))).collect::<Vec<_>>()
        }
        _ => panic!("no variable"),
    };
    let of = |chassis: &str, values: &str| (format!("chassis/{chassis}"), values.to_owned());
    assert_eq!(values(), [of("h1", "10.0.0.1"), of("h2", "10.0.0.2 80")]);
    place.run(&["template-variable", "set", "node", "--value", "h3=10.0.0.3", "--no-value", "h1"]).await;
    assert_eq!(values(), [of("h2", "10.0.0.2 80"), of("h3", "10.0.0.3")]);
    let shown = place.run(&["template-variable", "show", "node"]).await;
    assert!(shown.contains("h2 10.0.0.2 80"), "{shown}");
    place.run(&["load-balancer", "add", "lb", "--template", "^node:80=10.0.0.5:8080,^near"]).await;
    let shown = place.run(&["load-balancer", "show", "lb"]).await;
    assert!(shown.contains("^node:80=10.0.0.5:8080,^near"), "{shown}");
}

#[tokio::test]
async fn a_port_has_rates_with_a_burst() {
    let place = Place::new();
    let controller = FakeController::start(&place);
    place.run(&["apply", "-f", EXAMPLE]).await;
    place.run(&["switch-port", "add", "web", "x", "--qos-max", "8M/400k", "--qos-min", "1M"]).await;
    let port = controller.change(|state| state.resources["switches/web/ports/x"].spec.clone());
    let Some(Spec::LogicalSwitchPort(port)) = port else { panic!("no port") };
    assert_eq!((port.qos_min_rate, port.qos_max_rate, port.qos_burst), (1_000_000, 8_000_000, 400_000));
    let shown = place.run(&["switch-port", "show", "x"]).await;
    assert!(shown.contains("8000000 bit"), "{shown}");
}
