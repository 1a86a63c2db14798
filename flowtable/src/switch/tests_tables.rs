//! The tables of `testdata/tables/`, which Open vSwitch is shown as well (crate `oracle`): each file
//! says by which ports packets leave.

use std::{fs, path::Path};

use super::{tests::Collector, *};
use crate::{
    build,
    pipeline::random::port,
    port::{PortInfo, PortRole, PortTable},
    table::{Change, GroupChange, Tables},
    testing::rules_of,
    text::{parse_flow, parse_group, parse_key},
    types::Epoch,
};

const SIZES: [SwitchConfig; 2] =
    [SwitchConfig { n_sessions: 0, n_megaflows: 0 }, SwitchConfig { n_sessions: 64, n_megaflows: 64 }];
/// A packet of a file: its port, what it is, the ports that copies leave by.
type Case<'a> = (u32, &'a str, Vec<u32>);

/// Bytes of payload.
const PAYLOAD_LEN: usize = 8;

fn ports() -> PortTable {
    let mut ports = PortTable::default();
    for raw in 1..=5 {
        let (name, role) = (format!("p{raw}"), PortRole::Workload);
        ports.insert(port(raw), PortInfo { name, role, up: true, mtu: 1500, partial_checksums: false });
    }
    ports
}

fn cases(file: &str) -> Vec<Case<'_>> {
    let number = |word: &str| word.parse::<u32>().unwrap();
    let case = |line| {
        let (packet, sent) = str::split_once(line, " =>").unwrap();
        let (port, flow) = packet.trim().split_once(' ').unwrap();
        (number(port), flow, sent.split_whitespace().map(number).collect())
    };
    file.lines().filter_map(|line| line.strip_prefix('>')).map(case).collect()
}

fn tables(file: &str, ports: &PortTable) -> Tables {
    let change = |line: &str| match line.starts_with("group_id") {
        true => Change::Group(GroupChange::Set(parse_group(line, ports).unwrap())),
        false => Change::Add(parse_flow(line, ports).unwrap_or_else(|error| panic!("{line}: {error}"))),
    };
    Tables::default().transact(rules_of(file).into_iter().map(change).collect()).unwrap()
}

fn check(name: &str, file: &str, config: SwitchConfig) {
    let ports = ports();
    let mut tables = tables(file, &ports);
    let mut switch = Switch::with_seed(config, 1).with_conntrack(Arc::new(Conntrack::new(
        crate::conntrack::Config::default(),
        crate::conntrack::Storage::on_heap(64),
    )));
    let now = Timestamp::from_nanos(0);
    for (idx, (raw, flow, leaves)) in cases(file).into_iter().enumerate() {
        let epoch = Epoch::new(idx as u64 + 1).unwrap();
        let snapshot = Arc::new(Snapshot {
            epoch,
            tables: Arc::new(tables.clone()),
            ports: Arc::new(ports.clone()),
            ..Snapshot::default()
        });
        let key = parse_key(flow, &ports).unwrap_or_else(|error| panic!("{flow}: {error}"));
        let frame = build::frame_from_key(&key, PAYLOAD_LEN);
        let (mut batch, mut sink) = (vec![build::packet(&frame, port(raw))], Collector::default());
        switch.process(now, &snapshot, port(raw), &mut batch, &mut sink);
        let mut sent: Vec<u32> = sink.out.iter().map(|(port, _)| port.get()).collect();
        sent.sort_unstable();
        assert_eq!(sent, leaves, "{name}: {raw} {flow}");
        if let Some(commit) = tables.learn(&switch.take_learned(), now).commit {
            tables = commit.tables;
        }
    }
}

#[test]
fn tables_do_what_their_files_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tables");
    let (mut n_files, mut n_packets) = (0, 0);
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "flows") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for config in SIZES {
            check(&path.display().to_string(), &text, config);
        }
        n_files += 1;
        n_packets += cases(&text).len();
    }
    assert!(n_files >= 10 && n_packets > 50, "{n_files} files, {n_packets} packets");
}
