//! What is refused, with a reason, and what only some switches do.

use anyhow::{Result, ensure};

use crate::fixture::{Lab, UDP};

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() -> Result<()> {
    let lab = Lab::with_ports(2)?;
    let long = "00".repeat(9000);
    let cases: [(&[&str], &str); 10] = [
        (&["lab", "port", "add", "p1", "--number", "9"], "p1"),
        (&["lab", "port", "add", "p9", "--number", "2"], "p2"),
        (&["lab", "port", "add", "p9", "--number", "4294967295"], "numbers are"),
        (&["lab", "port", "add", "a/b"], "a/b"),
        (&["port", "add", "eth0"], "lab port add"),
        (&["lab", "inject", "p9", UDP], "p9"),
        (&["lab", "inject", "p1", &long], "too long"),
        (&["lab", "inject", "p1", "--flow", "in_port=p2,arp"], "in_port"),
        (&["lab", "inject", "p1", "--flow", "tcp,tp_dst=99999"], "99999"),
        (&["lab", "output", "p9"], "p9"),
    ];
    lab.refuses(&cases)?;
    lab.check_conservation()
}

#[test]
fn a_switch_of_interfaces_is_no_lab() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.start(&["--socket", "lab.sock", "--state-dir", "state", "--log", "warn"])?;
    let before = lab.text(&["flow", "dump"])?;
    let by_hand: [&[&str]; 4] = [
        &["flow", "add", "actions=drop"],
        &["group", "add", "group_id=1,type=all"],
        &["meter", "add", "meter=1,kbps,bands=type=drop,rate=1"],
        &["bundle", "flow del"],
    ];
    for words in by_hand {
        let said = lab.refusal(words)?;
        ensure!(said.contains("vswitchd --virtual") && said.contains("--standalone"), "{words:?}: {said}");
    }
    ensure!(lab.text(&["flow", "dump"])? == before, "it was done all the same");
    only_a_lab_does_these(&lab)
}

/// Commands about wires and clocks.
pub(crate) fn only_a_lab_does_these(lab: &Lab) -> Result<()> {
    let cases: [&[&str]; 4] = [
        &["lab", "port", "add", "p1"],
        &["lab", "inject", "p1", UDP],
        &["lab", "clock", "stop"],
        &["lab", "output", "p1"],
    ];
    for words in cases {
        let said = lab.refusal(words)?;
        ensure!(said.contains("vswitchd --virtual"), "{words:?}: {said}");
    }
    Ok(())
}

#[test]
fn a_standalone_switch_can_begin_as_a_learning_one() -> Result<()> {
    let mut lab = Lab::new()?;
    let args = [
        "--standalone",
        "--fail-mode",
        "standalone",
        "--socket",
        "lab.sock",
        "--state-dir",
        "state",
        "--log",
        "warn",
    ];
    lab.start(&args)?;
    let flows = lab.text(&["flow", "dump"])?;
    ensure!(flows.trim().ends_with("priority=0 actions=NORMAL"), "{flows}");
    // Whoever takes the rule away does not get it back.
    lab.text(&["flow", "del", "--all"])?;
    lab.stop()?;
    lab.start(&args)?;
    ensure!(lab.text(&["flow", "dump"])?.is_empty());
    Ok(())
}
