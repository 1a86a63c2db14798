//! Tables as people write them, and those of our own tests: files that `flowtable` tests as well.

use std::{fs, path::Path};

use flowtable::{build, text};
use oracle::{
    frame,
    interpreter::Outcome,
    ovs::{Ovs, Protocol, package::Package},
    rng::Rng,
    rules::Features,
    syntax::Rules,
    traffic::{Arrival, arrival},
};

use super::{
    PORTS,
    pair::{Pair, ports},
    random::comparable,
};

/// Bytes of payload of the packets that the files describe.
const PAYLOAD_LEN: usize = 8;
/// Random packets besides for each file whose tables neither learn nor look into stacks that may be cut off.
const N_RANDOM: usize = 150;

/// The files of `flowtable/testdata/tables/`, whose README says what is in them.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../flowtable/testdata/tables");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "flows"))
        .map(|path| {
            (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// A packet that a line describes, and the ports that it leaves by.
fn case(line: &str) -> (Arrival, Vec<u32>) {
    let (packet, sent) = line.split_once(" =>").unwrap();
    let (port, flow) = packet.trim().split_once(' ').unwrap();
    let key = text::parse_key(flow, &ports()).unwrap_or_else(|error| panic!("{flow}: {error}"));
    let frame = build::frame_from_key(&key, PAYLOAD_LEN);
    let sent = sent.split_whitespace().map(|port| port.parse().unwrap()).collect();
    (Arrival { port: port.parse().unwrap(), frame }, sent)
}

#[test]
fn tables_that_people_write_do_the_same_in_open_vswitch() {
    let Some(package) = Package::get_or_skip("the comparison of tables with Open vSwitch").unwrap() else {
        return;
    };
    let mut ovs = Ovs::start(package, PORTS).unwrap();
    let mut rng = Rng::new(7);
    let (mut n_files, mut n_packets) = (0, 0);
    for (name, file) in files() {
        let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '>']));
        let lines = lines.collect::<Vec<_>>().join("\n");
        let mut pair = Pair::new(&mut ovs, Protocol::OpenFlow15, &lines);
        for line in file.lines().filter_map(|line| line.strip_prefix('>')) {
            let (arrival, leaves) = case(line);
            let sent: Vec<u32> = pair.send(&arrival).iter().map(|(port, _)| *port).collect();
            assert_eq!(sent, leaves, "{name}: {line}");
            pair.settle();
            n_packets += 1;
        }
        n_files += 1;
        if ["ct(", "NORMAL", "learn(", "mpls"].iter().any(|word| lines.contains(word)) {
            continue;
        }
        // A third tag is what neither can match, and only one makes.
        let is_full = |arrival: &Arrival| frame::view(&arrival.frame).is_some_and(|view| view.tags.len() > 1);
        let arrivals = (0..N_RANDOM).map(|_| arrival(&mut rng)).filter(sound);
        let arrivals: Vec<Arrival> =
            arrivals.filter(|arrival| !(lines.contains("push_vlan") && is_full(arrival))).collect();
        // Also when they have seen it before.
        for arrival in arrivals.iter().chain(&arrivals) {
            pair.send(arrival);
        }
        n_packets += 2 * arrivals.len();
    }
    eprintln!("{n_files} tables, {n_packets} packets");
    assert!(n_files >= 10 && n_packets > 1000, "{n_files} tables, {n_packets} packets");
}

/// No fragments, and nothing of which docs/differences-from-ovs.md speaks.
pub(crate) fn sound(arrival: &Arrival) -> bool {
    comparable(&Outcome::default(), &Features::default(), &Rules::default(), arrival)
        && frame::view(&arrival.frame).is_some_and(|view| {
            let extended = view.eth_type == 0x86dd && arrival.frame.get(view.l3 + 6) == Some(&44);
            view.frag == 0 && !extended
        })
}
