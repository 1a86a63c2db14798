//! What Open vSwitch's dumps print, and what those of OVN look like, is read as it is: pasted rules
//! load unchanged.

use flowtable::{
    table::{Change, GroupChange, MeterChange, Tables},
    text,
};
use oracle::{
    ovs::{Ovs, Protocol, package::Package},
    rng::Rng,
    rules::{Features, Repertoire, rules},
};

use super::{PORTS, pair::ports};

/// Lines in the manner of `br-int` under newer releases of OVN: their registers and vocabulary.
const NEWER: &str = include_str!("dumps/ovn-newer.txt");
/// What `ovs-ofctl dump-flows br-int` said of a host of OVN 23.03, of Debian: three switches, one of them
/// with a localnet port, a router with a gateway and all kinds of NAT, load balancers, ACLs, DHCP, DNS, QoS.
const OVN: [&str; 2] = [include_str!("dumps/ovn-openflow10.txt"), include_str!("dumps/ovn-openflow15.txt")];
/// Groups and meters of the same host.
const OVN_GROUPS: &str = include_str!("dumps/ovn-groups.txt");
const OVN_METERS: &str = include_str!("dumps/ovn-meters.txt");

/// Rule sets that go to Open vSwitch and come back as dumps.
const N_RULE_SETS: u64 = 60;

/// Reads a line as it is, and what we print of it means the same.
fn read(line: &str) -> Result<(), String> {
    let ports = ports();
    let rule = text::parse_flow(line, &ports).map_err(|error| error.to_string())?;
    for printed in [text::print_flow(&rule), text::print_flow_with_stats(&rule)] {
        let back = text::parse_flow(&printed, &ports).map_err(|error| format!("{printed}: {error}"))?;
        let parts = |rule: &flowtable::flow::Rule| {
            (rule.table, rule.priority, rule.cookie, rule.matching.clone(), rule.actions.clone())
        };
        if parts(&back) != parts(&rule) || back.life != rule.life {
            return Err(format!("it prints as something else: {printed}"));
        }
    }
    Ok(())
}

/// The rules of a dump, without what heads it.
fn lines(dump: &str) -> impl Iterator<Item = &str> {
    dump.lines().map(str::trim).filter(|line| line.contains("actions=") && !line.starts_with('#'))
}

/// All lines can be read.
fn read_all<'a>(lines: impl Iterator<Item = &'a str>) -> usize {
    let mut wrong = Vec::new();
    let mut n = 0;
    for line in lines {
        n += 1;
        if let Err(error) = read(line) {
            wrong.push(format!("{line}\n    {error}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {n}:\n{}", wrong.len(), wrong.join("\n"));
    n
}

#[test]
fn dumps_in_the_manner_of_ovn_are_read_as_they_are() {
    let n = read_all(lines(NEWER));
    assert!(n >= 60, "only {n} lines");
}

#[test]
fn dumps_of_ovn_are_read_as_they_are_and_taken() {
    let ports = ports();
    let groups = OVN_GROUPS.lines().map(str::trim).filter(|line| line.starts_with("group_id"));
    let groups = groups.map(|line| {
        let group = text::parse_group(line, &ports).unwrap_or_else(|error| panic!("{line}: {error}"));
        Change::Group(GroupChange::Set(group))
    });
    // A meter begins a line, and its bands are lines as well.
    let meter = OVN_METERS.lines().skip(1).collect::<Vec<_>>().join(" ");
    let meter = text::parse_meter(&meter).unwrap_or_else(|error| panic!("{meter}: {error}"));
    let mut changes: Vec<Change> = groups.collect();
    changes.push(Change::Meter(MeterChange::Set(meter)));
    let extra = Tables::default().transact(changes).unwrap_or_else(|error| panic!("{error}"));
    for dump in OVN {
        let n = read_all(lines(dump));
        let rules = lines(dump).map(|line| Change::Add(text::parse_flow(line, &ports).unwrap()));
        let tables = extra.clone().transact(rules.collect()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(tables.len(), n, "each line is a rule of its own");
        assert!(n > 800, "only {n} rules");
    }
}

/// What a rule does, as Open vSwitch prints it: without statistics, in order.
fn meaning(dump: &str) -> Vec<String> {
    let mut rules: Vec<String> = lines(dump)
        .map(|line| {
            let words = line.split(", ").filter(|word| {
                !["duration=", "n_packets=", "n_bytes=", "idle_age=", "hard_age="]
                    .iter()
                    .any(|name| word.starts_with(name))
            });
            words.collect::<Vec<_>>().join(", ")
        })
        .collect();
    rules.sort();
    rules
}

/// Rules of a dump, and whether they went back: what ours prints of it loads in Open vSwitch and is the
/// dump again, if Open vSwitch takes its own dump.
fn round_trip(ovs: &mut Ovs, protocol: Protocol, groups: &str) -> (usize, bool) {
    let dump = ovs.dump_flows().unwrap();
    let n = read_all(lines(&dump));
    let printed: Vec<String> =
        lines(&dump).map(|line| text::print_flow(&text::parse_flow(line, &ports()).unwrap())).collect();
    let pasted: Vec<&str> = lines(&dump).collect();
    if ovs.set_rules(protocol, groups, &pasted.join("\n")).is_err() {
        return (n, false);
    }
    ovs.set_rules(protocol, groups, &printed.join("\n"))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", printed.join("\n")));
    assert_eq!(meaning(&ovs.dump_flows().unwrap()), meaning(&dump));
    (n, true)
}

#[test]
fn what_open_vswitch_dumps_is_read_as_it_is() {
    let Some(package) = Package::get_or_skip("dumps of Open vSwitch").unwrap() else { return };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let (mut n_rules, mut n_groups, mut n_sets, mut n_back) = (0, 0, 0, 0);
    for seed in 0..N_RULE_SETS {
        let mut rng = Rng::new(seed);
        let protocol = rng.pick(&[Protocol::OpenFlow10, Protocol::OpenFlow13]);
        let tracking = rng.one_in(3);
        let features = Features {
            groups: rng.one_in(2),
            conjunctions: rng.one_in(3),
            odds: true,
            punts: true,
            choices: true,
            tracking,
            nat: tracking,
            ..Features::default()
        };
        let repertoire =
            Repertoire { ports: PORTS, tunnel: None, loops: false, protocol: Some(protocol), features };
        let rules = rules(&mut rng, &repertoire);
        let lines = |lines: Vec<String>| lines.join("\n");
        let groups = lines(rules.groups.iter().rev().map(ToString::to_string).collect());
        let flows = lines(rules.flows.iter().map(ToString::to_string).collect());
        if ovs.set_rules(protocol, &groups, &flows).is_err() {
            // It asks more of a rule than that its packets have what it changes.
            continue;
        }
        n_sets += 1;
        let (n, went_back) = round_trip(&mut ovs, protocol, &groups);
        n_rules += n;
        n_back += u64::from(went_back);
        let dump = ovs.dump_groups().unwrap();
        for line in dump.lines().map(str::trim).filter(|line| line.starts_with("group_id")) {
            let group = text::parse_group(line, &ports()).unwrap_or_else(|error| panic!("{line}: {error}"));
            let back = text::parse_group(&text::print_group(&group), &ports()).unwrap();
            assert_eq!(back, group, "{line}");
            n_groups += 1;
        }
    }
    eprintln!(
        "{n_sets} rule sets, {n_rules} rules and {n_groups} groups of dumps; {n_back} rule sets went back"
    );
    assert!(n_back > N_RULE_SETS / 6, "only {n_back} rule sets went back");
    assert!(n_sets > N_RULE_SETS / 4 && n_groups > 0, "only {n_sets} rule sets, {n_groups} groups");
}

#[test]
fn what_ovn_would_dump_means_the_same_to_open_vswitch() {
    let Some(package) = Package::get_or_skip("OVN's vocabulary in Open vSwitch").unwrap() else { return };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    ovs.map_ovn_option().unwrap();
    let groups = "group_id=1,type=select,selection_method=dp_hash,bucket=bucket_id:0,weight:100,actions=output:1\n\
                  group_id=2,type=all,bucket=bucket_id:0,actions=output:2";
    let meter = "meter=1,pktps,bands=type=drop,rate=100";
    // A tag by its number is other actions in OpenFlow 1.5 than the ones we print; they do the same.
    let pasted: Vec<&str> = lines(NEWER).filter(|line| !line.contains("mod_vlan_vid")).collect();
    let given: Vec<String> =
        pasted.iter().map(|line| text::print_flow(&text::parse_flow(line, &ports()).unwrap())).collect();
    // First what was pasted, then what ours makes of it.
    let mut dumps = [meaning_of(&mut ovs, groups, meter, &pasted.join("\n"))].to_vec();
    dumps.push(meaning_of(&mut ovs, groups, meter, &given.join("\n")));
    assert_eq!(dumps[0], dumps[1]);
    assert!(dumps[0].len() >= 60, "only {} rules", dumps[0].len());
    read_all(lines(&ovs.dump_flows().unwrap()));
}

fn meaning_of(ovs: &mut Ovs, groups: &str, meter: &str, flows: &str) -> Vec<String> {
    if let Err(error) = ovs.set_rules(Protocol::OpenFlow15, groups, &format!("{meter}\n{flows}")) {
        let mut is_refused =
            |flow: &&str| ovs.set_rules(Protocol::OpenFlow15, groups, &format!("{meter}\n{flow}")).is_err();
        let refused: Vec<&str> = flows.lines().filter(|flow| is_refused(flow)).collect();
        panic!("{error:#}\nrefused:\n{}", refused.join("\n"));
    }
    meaning(&ovs.dump_flows().unwrap())
}
