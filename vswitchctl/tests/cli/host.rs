//! Commands for one host's switch.

use serde_json::Value;

use crate::{Place, fake_host::FakeHost};

#[tokio::test]
async fn a_trace_is_an_indented_walk_with_its_end() {
    let place = Place::new();
    let host = FakeHost::start(&place);
    let text = place.run(&["trace", "--in-port", "switches/web/ports/web-1", "tcp,tp_dst=23"]).await;
    assert_eq!(
        text,
        "\
table 0, priority 100: in_port=2
    from physical-in
    actions resubmit(,8)
  table 8: no rule matches
    output:4 is another host
  table 44, priority 2000: tcp,tp_dst=23
      from ls_out_acl_eval, logical flow 0x1f, switches/db/acls/no-telnet
      actions drop

verdict: dropped
  reason: acl-drop: an ACL says drop
  by: ls_out_acl_eval, logical flow 0x1f, switches/db/acls/no-telnet
megaflow: in_port(2),tcp(dst=23)
  actions: drop
"
    );
    assert_eq!(
        host.asked(),
        "TraceRequest { in_port: \"web-1\", why: false, ct_next: [], bridge: \"\", from_underlay: false, packet: Some(Flow(\"tcp,tp_dst=23\")) }"
    );
}

#[tokio::test]
async fn a_trace_of_bytes_in_json() {
    let place = Place::new();
    let host = FakeHost::start(&place);
    let text = place.run(&["-o", "json", "trace", "--frame", "0a:00 01"]).await;
    let trace: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(trace["verdict"], "dropped");
    assert_eq!(trace["drop"]["origin"]["object"], "switches/db/acls/no-telnet");
    assert_eq!(trace["steps"][3]["table"], 44);
    assert_eq!(trace["steps"][1]["priority"], Value::Null);
    assert_eq!(
        host.asked(),
        "TraceRequest { in_port: \"\", why: false, ct_next: [], bridge: \"\", from_underlay: false, packet: Some(Frame([10, 0, 1])) }"
    );
}

#[tokio::test]
async fn what_the_switch_refuses_is_told_in_its_words() {
    let place = Place::new();
    let _host = FakeHost::start(&place);
    assert_eq!(place.fail(&["trace", "x"]).await.to_string(), "at column 1: \"x\" is no field");
    let error = place.fail(&["port", "add", "lo"]).await;
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("lo: a loopback cannot be attached", 1));
}

#[tokio::test]
async fn drops_are_sorted_by_how_many_they_are() {
    let place = Place::new();
    let _host = FakeHost::start(&place);
    assert_eq!(
        place.run(&["drops"]).await,
        "\
PORT        PACKETS  BYTES  COPIES  REASON         OBJECT                      STAGE            MEANING
veth-web-1  40       60     0       port-security  switches/db/acls/no-telnet  ls_out_acl_eval  an ACL says drop
veth-web-1  3        180    0       acl-drop       switches/db/acls/no-telnet  ls_out_acl_eval  an ACL says drop
"
    );
    assert_eq!(place.run(&["drops", "--reason", "acl-drop"]).await.lines().count(), 2);
    assert_eq!(place.run(&["drops", "--port", "other"]).await.lines().count(), 1);
    let yaml = place.run(&["-o", "yaml", "drops", "--reason", "acl-drop"]).await;
    assert!(yaml.contains("n_packets: 3\n") && yaml.contains("logical_flow: '0x1f'\n"), "{yaml}");
}

#[tokio::test]
async fn flows_are_lines_that_ovs_users_know() {
    let place = Place::new();
    let host = FakeHost::start(&place);
    assert_eq!(
        place.run(&["flow", "dump", "table=44"]).await,
        "\
cookie=0x1f, table=44, n_packets=3, n_bytes=180, priority=2000,tcp,reg15=0x1,metadata=0x2,tp_dst=23 actions=drop  \
# ls_out_acl_eval, logical flow 0x1f, switches/db/acls/no-telnet
cookie=0x0, table=64, n_packets=0, n_bytes=0, priority=0 actions=resubmit(,65)
"
    );
    assert_eq!(
        host.asked(),
        "DumpFlowsRequest { table: None, filter: \"table=44\", strict: false, bridge: \"\" }"
    );
    place.run(&["flow", "dump"]).await;
    assert_eq!(host.asked(), "DumpFlowsRequest { table: None, filter: \"\", strict: false, bridge: \"\" }");
}

#[tokio::test]
async fn megaflows_tell_their_rules_when_asked() {
    let place = Place::new();
    let _host = FakeHost::start(&place);
    let line = "worker 1: in_port(2),eth_type(0x0800), packets:5, bytes:490, epoch:5, actions:3\n";
    assert_eq!(place.run(&["megaflow", "dump"]).await, line);
    assert_eq!(
        place.run(&["megaflow", "dump", "--origins"]).await,
        format!("{line}    ls_in_l2_lkup, logical flow 0x7, switches/web/ports/web-2\n")
    );
}

#[tokio::test]
async fn ports_come_and_go() {
    let place = Place::new();
    let host = FakeHost::start(&place);
    assert_eq!(
        place.run(&["port", "add", "veth-web-1", "--logical-port", "web/web-1"]).await,
        "veth-web-1 is port 2 for web-1 (generic-copy)\n"
    );
    assert_eq!(
        host.asked(),
        "AddPortRequest { interface: \"veth-web-1\", logical_port: \"web-1\", port_no: 0, bridge: \"\", peer: \"\", kind: \"auto\", vhost_user: None, network: \"\" }"
    );
    let list = place.run(&["port", "list"]).await;
    assert!(list.lines().next().unwrap().starts_with("BRIDGE  PORT  NAME        ROLE"), "{list}");
    assert!(
        list.contains("br0     2     veth-web-1  workload  web-1         yes  generic-copy  1500  9   7"),
        "{list}"
    );
    assert_eq!(place.run(&["port", "del", "veth-web-1", "--if-exists"]).await, "veth-web-1 detached\n");
    assert_eq!(host.asked(), "RemovePortRequest { interface: \"veth-web-1\", allow_missing: true }");
}

#[tokio::test]
async fn the_status_says_what_is_wrong() {
    let place = Place::new();
    let _host = FakeHost::start(&place);
    let text = place.run(&["status"]).await;
    assert!(text.contains("controller:      http://192.0.2.9:6641, NOT connected\n"), "{text}");
    assert!(text.contains("tables:          321 rules, epoch 5\n"), "{text}");
    assert!(text.ends_with("\nnot realised:\n  switches/db/acls/x: reject needs conntrack\n"), "{text}");
    let status: Value = serde_json::from_str(&place.run(&["status", "-o", "json"]).await).unwrap();
    assert_eq!(status["workers"][0]["n_idle_polls"], 4);
}

#[tokio::test]
async fn bridges_are_named_by_an_option_and_listed() {
    let place = Place::new();
    let host = FakeHost::start(&place);
    assert_eq!(
        place.run(&["bridge", "list"]).await,
        "\
NAME  FAIL-MODE  RULES  STATIONS  PORTS
br0   secure     0      0         -
br1   secure     0      0         -
"
    );
    assert_eq!(
        place.run(&["bridge", "add", "br2", "--fail-mode", "standalone"]).await,
        "br2: fail mode standalone, 0 rules\n"
    );
    assert_eq!(place.run(&["bridge", "del", "br1"]).await, "br1 removed\n");
    assert!(place.run(&["bridge", "show", "br1"]).await.starts_with("name:"));
    assert!(place.fail(&["bridge", "show"]).await.to_string().contains("br0, br1"));
    place.run(&["--bridge", "br1", "flow", "dump", "ip"]).await;
    assert_eq!(
        host.asked(),
        "DumpFlowsRequest { table: None, filter: \"ip\", strict: false, bridge: \"br1\" }"
    );
    place.run(&["port", "add", "to-br0", "--bridge", "br1", "--peer", "to-br1"]).await;
    assert_eq!(
        host.asked(),
        "AddPortRequest { interface: \"to-br0\", logical_port: \"\", port_no: 0, bridge: \"br1\", peer: \"to-br1\", kind: \"auto\", vhost_user: None, network: \"\" }"
    );
}
