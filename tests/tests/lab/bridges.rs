//! Several bridges, and links between them.

use anyhow::{Result, ensure};

use crate::fixture::{Lab, UDP, frames, list, number};

/// Two bridges with a link between them: `p1` on `br0`, `q1` on `br1`.
fn linked() -> Result<Lab> {
    let lab = Lab::with_ports(1)?;
    for words in [
        "bridge add br1",
        "lab port add br1 q1 --number 1",
        "port add br0 to-br1 --peer to-br0 --number 9",
        "port add br1 to-br0 --peer to-br1 --number 9",
    ] {
        lab.text(&words.split(' ').collect::<Vec<_>>())?;
    }
    Ok(lab)
}

#[test]
fn bridges_are_switches_of_their_own_with_links_between_them() -> Result<()> {
    let lab = linked()?;
    // Each has its own tables, groups, meters and sets, though their numbers are the same.
    lab.text(&[
        "flow",
        "add",
        "br0",
        "ip,in_port=p1,actions=mod_nw_tos:32,output:9",
        "in_port=9,actions=p1",
    ])?;
    lab.text(&["group", "add", "br1", "group_id=1,type=all,bucket=output:q1,bucket=output:q1"])?;
    lab.text(&[
        "flow",
        "add",
        "br1",
        "in_port=9,udp,nw_tos=32,actions=group:1",
        "in_port=1,actions=output:9",
    ])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(number(&answer["n_forwarded"]) == 1 && frames(&answer, "q1").len() == 2, "{answer}");
    let back = lab.json(&["lab", "inject", "br1", "1", UDP])?;
    ensure!(frames(&back, "p1") == [UDP], "{back}");
    let stats = lab.json(&["group", "stats", "br1", "1"])?;
    ensure!(number(&list(&stats)[0]["n_packets"]) == 1, "{stats}");
    ensure!(list(&lab.json(&["group", "dump", "br0"])?).is_empty());
    ensure!(list(&lab.json(&["megaflow", "dump", "br1"])?).len() == 2);

    // A trace goes on in the other bridge, with the packet as it gets there.
    let traced = lab.json(&["trace", "--in-port", "p1", "udp,nw_dst=10.0.0.2"])?;
    let hop = &list(&traced["hops"])[0];
    ensure!(hop["bridge"] == "br1" && hop["in_port"] == "to-br0" && hop["from"] == "to-br1", "{traced}");
    ensure!(hop["steps"][0]["match"] == "udp,in_port=9,nw_tos=32", "{traced}");
    ensure!(traced["verdict"] == "forwarded", "{traced}");
    let traced = lab.json(&["trace", "--in-port", "p1", "tcp,nw_dst=10.0.0.2"])?;
    ensure!(
        traced["verdict"] == "dropped" && traced["hops"][0]["drop"]["reason"] == "table-miss",
        "{traced}"
    );

    // What is dropped there is counted there.
    let answer = lab.json(&["lab", "inject", "p1", "--flow", "tcp,nw_dst=10.0.0.2"])?;
    let drop = &list(&answer["drops"])[0];
    ensure!(
        drop["bridge"] == "br1" && drop["port"] == "to-br0" && drop["reason"] == "table-miss",
        "{answer}"
    );
    let said = lab.refusal(&["flow", "dump"])?;
    ensure!(said.contains("several bridges, br0, br1"), "{said}");
    let said = lab.refusal(&["bridge", "add", "tcp"])?;
    ensure!(said.contains("word of rules"), "{said}");
    lab.check_conservation()?;

    // A link with one end leads nowhere, and says so.
    lab.text(&["port", "del", "to-br0"])?;
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(list(&answer["drops"])[0]["reason"] == "port-down", "{answer}");
    lab.text(&["bridge", "del", "br1"])?;
    ensure!(list(&lab.json(&["port", "list"])?).len() == 2, "its ports have gone with it");
    ensure!(lab.text(&["flow", "dump"])?.lines().count() == 2, "there is only one again");
    lab.check_conservation()
}

#[test]
fn links_can_form_a_circle_and_the_packet_ends_under_a_name() -> Result<()> {
    let lab = linked()?;
    lab.text(&["port", "add", "br0", "a2", "--peer", "b2"])?;
    lab.text(&["port", "add", "br1", "b2", "--peer", "a2"])?;
    for bridge in ["br0", "br1"] {
        lab.text(&["flow", "add", bridge, "actions=flood"])?;
    }
    let answer = lab.json(&["lab", "inject", "p1", UDP])?;
    ensure!(number(&answer["n_forwarded"]) == 1 && !frames(&answer, "q1").is_empty(), "{answer}");
    let reasons: Vec<_> = list(&answer["drops"]).iter().map(|drop| drop["reason"].as_str()).collect();
    ensure!(reasons.contains(&Some("depth-exceeded")), "{answer}");
    let traced = lab.json(&["trace", "--in-port", "p1", "udp,nw_dst=10.0.0.2"])?;
    ensure!(number(&traced["n_omitted_hops"]) > 0, "{traced}");
    lab.check_conservation()
}
