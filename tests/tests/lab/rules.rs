//! Rules, tables, groups, meters and sets.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::fixture::{Lab, UDP, frames, list, number};

#[test]
fn groups_and_meters_do_what_they_say_and_count_it() -> Result<()> {
    let lab = Lab::with_ports(3)?;
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&[
        "bundle",
        "meter add meter=1,pktps,burst,bands=type=drop,rate=1,burst_size=2",
        "group add group_id=7,type=all,bucket=bucket_id:3,actions=output:p2,bucket=bucket_id:4,actions=output:p3",
        "flow add in_port=p1,actions=meter:1,group:7",
    ])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP, UDP, UDP])?;
    ensure!(frames(&answer, "p2").len() == 2 && frames(&answer, "p3").len() == 2, "{answer}");
    ensure!(answer["drops"][0]["reason"] == "metered", "{answer}");
    let groups = lab.json(&["group", "stats"])?;
    ensure!(number(&groups[0]["n_references"]) == 1, "{groups}");
    let buckets: Vec<_> = list(&groups[0]["buckets"])
        .iter()
        .map(|bucket| (number(&bucket["bucket_id"]), number(&bucket["n_packets"])))
        .collect();
    // Those that the meter drops had come to the group.
    ensure!(buckets == [(3, 3), (4, 3)], "{groups}");
    let meters = lab.json(&["meter", "stats", "1"])?;
    ensure!(
        number(&meters[0]["n_packets"]) == 3 && number(&meters[0]["bands"][0]["n_packets"]) == 1,
        "{meters}"
    );
    ensure!(number(&meters[0]["n_rules"]) == 1, "{meters}");
    let text = lab.text(&["group", "stats", "7"])?;
    ensure!(text.contains("ref_count=1") && text.contains("bucket4:packet_count=3"), "{text}");
    ensure!(lab.text(&["meter", "stats"])?.contains("0: packet_count:1"));

    lab.text(&["group", "insert-buckets", "group_id=7,command_bucket_id=first,bucket=output:in_port"])?;
    lab.text(&["group", "remove-buckets", "group_id=7,command_bucket_id=4"])?;
    lab.text(&["lab", "clock", "advance", "10"])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!((frames(&answer, "p1").len(), frames(&answer, "p3").len()) == (1, 0), "{answer}");
    lab.text(&["group", "mod", "group_id=7,type=all,bucket=bucket_id:3,actions=output:p3"])?;
    let groups = lab.json(&["group", "stats"])?;
    ensure!(number(&groups[0]["buckets"][0]["n_packets"]) == 4, "its counters are gone: {groups}");

    let cases: [(&[&str], &str); 8] = [
        (&["group", "add", "group_id=7,type=all"], "exists"),
        (&["group", "mod", "group_id=8,type=all"], "no group 8"),
        (&["group", "add", "group_id=9,tpye=all"], "did you mean `type`"),
        (&["group", "add", "group_id=9,type=all,bucket=group:9"], "leads to itself"),
        (&["meter", "add", "meter=9,kpbs,bands=type=drop,rate=1"], "did you mean `kbps`"),
        (&["group", "dump", "99"], "no group 99"),
        (&["meter", "stats", "99"], "no meter 99"),
        (&["group", "del"], "--all"),
    ];
    lab.refuses(&cases)?;
    lab.text(&["group", "mod", "--may-create", "group_id=8,type=all"])?;
    lab.text(&["group", "del", "7"])?;
    ensure!(lab.text(&["flow", "dump"])?.is_empty(), "a rule without its group");
    lab.text(&["group", "del", "--all"])?;
    ensure!(lab.json(&["group", "dump"])?.as_array().is_some_and(Vec::is_empty));
    lab.check_conservation()
}

#[test]
fn rules_are_chosen_summed_and_compared() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    lab.text(&["lab", "clock", "stop"])?;
    lab.text(&[
        "flow",
        "add",
        "table=0,cookie=0x11,priority=9,udp,idle_timeout=60,send_flow_rem,actions=output:p2",
        "table=0,cookie=0x12,priority=9,tcp,actions=drop",
        "table=3,cookie=0x21,ip,nw_dst=10.0.0.1,actions=output:p1",
    ])?;
    lab.text(&["lab", "inject", "p1", UDP, UDP])?;
    let chosen = |words: &[&str]| -> Result<Vec<u64>> {
        let flows = lab.json(&[&["flow", "dump"], words].concat())?;
        let cookie = |flow: &Value| {
            u64::from_str_radix(flow["cookie"].as_str().unwrap_or_default().trim_start_matches("0x"), 16)
        };
        let mut cookies = list(&flows).iter().map(cookie).collect::<Result<Vec<_>, _>>()?;
        cookies.sort_unstable();
        Ok(cookies)
    };
    ensure!(chosen(&["ip"])?.len() == 3 && chosen(&["table=0,ip"])? == [0x11, 0x12]);
    ensure!(chosen(&["cookie=0x10/0xf0"])? == [0x11, 0x12] && chosen(&["out_port=p1"])? == [0x21]);
    ensure!(chosen(&["--strict", "table=0,priority=9,udp"])? == [0x11]);
    ensure!(chosen(&["--strict", "table=0,priority=9,ip"])?.is_empty());
    ensure!(lab.text(&["flow", "dump", "udp"])?.contains(", idle_timeout=60, send_flow_rem, priority=9,udp"));
    let sum = format!("packet_count=2 byte_count={} flow_count=2", UDP.len());
    ensure!(lab.text(&["flow", "sum", "table=0"])?.trim() == sum, "{}", lab.text(&["flow", "sum"])?);
    ensure!(number(&lab.json(&["flow", "aggregate"])?["n_flows"]) == 3);

    fs::write(
        lab.dir.join("rules"),
        "cookie=0x11,priority=9,udp,idle_timeout=60,send_flow_rem,actions=output:p2\n\
         cookie=0x12,priority=9,tcp,actions=output:p2\ntable=4,actions=drop\n",
    )?;
    let finished = lab.run(&["flow", "diff", "@rules"])?;
    ensure!(finished.status.code() == Some(1), "{}", finished.stderr);
    let wanted = "-cookie=0x12, table=0, priority=9,tcp actions=drop\n\
                  -cookie=0x21, table=3, priority=32768,ip,nw_dst=10.0.0.1 actions=output:1\n\
                  +cookie=0x0, table=4, priority=32768 actions=drop\n\
                  +cookie=0x12, table=0, priority=9,tcp actions=output:2\n";
    ensure!(finished.stdout == wanted, "{}", finished.stdout);
    lab.text(&["flow", "replace", "@rules"])?;
    ensure!(lab.text(&["flow", "diff", "@rules"])?.is_empty());
    fs::write(lab.dir.join("rules"), "ip,actions=drop\n\nip,acitons=drop\n")?;
    let said = lab.refusal(&["flow", "diff", "@rules"])?;
    ensure!(said.contains("rules:3: character 4"), "{said}");
    ensure!(lab.refusal(&["flow", "dump", "tabel=0"])?.contains("did you mean `table`"));
    ensure!(lab.refusal(&["flow", "dump", "--strict", "ip"])?.contains("table=0"));
    lab.check_conservation()
}

#[test]
fn tables_sets_fragments_options_and_ports_have_settings_that_last() -> Result<()> {
    let mut lab = Lab::new()?;
    let args = ["--virtual", "--socket", "lab.sock", "--state-dir", "state", "--log", "warn"];
    lab.start(&args)?;
    for port in ["p1", "p2", "p3"] {
        lab.text(&["lab", "port", "add", port])?;
    }
    lab.text(&["table", "set", "1", "--name", "hosts", "--max-rules", "1", "--miss", "continue"])?;
    lab.text(&["set", "add", "servers", "type=ipv4", "10.0.0.1,10.0.9.0/24"])?;
    lab.text(&["frags", "nx-match"])?;
    let options = "{class=0xffff,type=0x1,len=4}->tun_metadata1,{class=0xffff,type=0x2}->tun_metadata9";
    lab.text(&["tlv-map", "add", options])?;
    lab.text(&["tlv-map", "del", "{class=0xffff,type=0x1}"])?;
    lab.text(&[
        "bundle",
        "flow add ip,actions=resubmit(,1)",
        "flow add table=1,ip,nw_dst=$servers,actions=output:p2",
        "flow add table=2,actions=flood",
        "set insert servers 10.0.0.7",
    ])?;
    let said = lab.refusal(&["flow", "add", "table=1,arp,actions=drop"])?;
    ensure!(said.contains("full"), "{said}");
    let goes = |to: &str| -> Result<(usize, usize)> {
        let flow = format!("udp,nw_dst={to}");
        let answer = lab.json(&["lab", "inject", "p1", "--flow", &flow])?;
        Ok((frames(&answer, "p2").len(), frames(&answer, "p3").len()))
    };
    ensure!(goes("10.0.0.7")? == (1, 0) && goes("10.0.9.9")? == (1, 0) && goes("10.0.0.8")? == (1, 1));
    lab.text(&["set", "remove", "servers", "10.0.0.7"])?;
    ensure!(goes("10.0.0.7")? == (1, 1), "it is still in the set");
    let said = lab.refusal(&["set", "del", "servers"])?;
    ensure!(said.contains("servers"), "{said}");
    let tables = lab.json(&["table", "list"])?;
    let second = &tables[1];
    ensure!(
        second["name"] == "hosts" && number(&second["n_lookups"]) == 4 && number(&second["n_matches"]) == 2,
        "{tables}"
    );

    lab.text(&["port", "mod", "p3", "--flood", "off"])?;
    ensure!(goes("10.0.0.8")? == (1, 0), "it is flooded");
    lab.text(&["port", "mod", "p2", "--forward", "off"])?;
    let answer = lab.json(&["lab", "inject", "p1", "--flow", "udp,nw_dst=10.0.0.1"])?;
    ensure!(answer["drops"][0]["reason"] == "port-down", "{answer}");
    lab.text(&["port", "mod", "p2", "--forward", "on"])?;
    let set =
        lab.text(&["port", "mod", "p1", "--vlan-mode", "native-untagged", "--tag", "5", "--trunks", "6,7"])?;
    ensure!(set.trim() == "p1: forward on, flood on, vlan-mode native-untagged, tag 5, trunks 6,7", "{set}");

    let state = |lab: &Lab| -> Result<[String; 6]> {
        let ports = lab.json(&["port", "list"])?;
        let ports = list(&ports)
            .iter()
            .map(|port| format!("{} {} {}", port["floods"], port["forwards"], port["vlan"]));
        Ok([
            lab.text(&["set", "list"])?,
            lab.text(&["frags"])?,
            lab.text(&["tlv-map", "list"])?,
            lab.json(&["table", "list"])?[1]["name"].to_string(),
            lab.json(&["table", "list"])?[1]["max_rules"].to_string(),
            ports.collect(),
        ])
    };
    let before = state(&lab)?;
    ensure!(
        before[0].trim() == "servers type=ipv4 10.0.0.1,10.0.9.0/24" && before[1].trim() == "nx-match",
        "{before:?}"
    );
    ensure!(
        before[2].lines().collect::<Vec<_>>()
            == [
                "{class=0x102,type=0x80,len=4}->tun_metadata0",
                "{class=0xffff,type=0x2,len=4}->tun_metadata9"
            ],
        "{before:?}"
    );
    lab.check_conservation()?;
    lab.stop()?;
    lab.start(&args)?;
    ensure!(state(&lab)? == before, "{:?} instead of {before:?}", state(&lab)?);

    let cases: [(&[&str], &str); 14] = [
        (&["tlv-map", "add", "{class=1,typ=2,len=4}->tun_metadata1"], "did you mean `type`"),
        (&["tlv-map", "add", "{class=1,type=2,len=8}->tun_metadata1"], "room for 4 bytes"),
        (&["tlv-map", "add", "{class=1,type=2,len=4}->tun_metadata9"], "belongs to another"),
        (&["tlv-map", "del", "{class=0x102,type=0x80}"], "logical networks need"),
        (&["port", "mod", "p1"], "--flood"),
        (&["table", "set", "1"], "--max-rules"),
        (&["table", "set", "255", "--miss", "drop"], "255"),
        (&["table", "set", "2", "--name", "hosts"], "hosts"),
        (&["frags", "nomral"], "did you mean `normal`"),
        (&["set", "add", "x", "10.0.0.1"], "type"),
        (&["set", "insert", "severs", "10.0.0.1"], "servers"),
        (&["port", "mod", "p1", "--vlan-mode", "access", "--tag", "4096"], "0 to 4095"),
        (&["port", "mod", "p9", "--flood", "on"], "p9"),
        (&["port", "mod", "p1", "--tag", "4"], "vlan-mode"),
    ];
    lab.refuses(&cases)?;
    Ok(())
}
