//! Collectors that are none of ours: those of nfdump read NetFlow, IPFIX and sFlow, and count what was sent.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::{Daemon, has_command};
use ferroflow_tests::{command, stop};

use crate::LIMIT;
use crate::star::{Kind, Star, on_star};

/// Headers of IP and UDP, and what Ethernet has around them: its header, and its checksum, which sFlow counts.
const UDP_HEADERS: u64 = 28;
const ETHERNET: u64 = 14 + 4;
/// Headers of IP and ICMP.
const PING_LEN: u64 = 28 + 56;
/// Protocols.
const ICMP: &str = "1";
const UDP: &str = "17";
/// Longer than any test: a collector closes its file when it ends.
const ONE_FILE: &str = "86400";

/// A collector in the switch's namespace, with the files that it writes.
struct Collector {
    daemon: Daemon,
    dir: PathBuf,
    target: String,
}

impl Collector {
    /// nfcapd for flows, sfcapd for samples.
    fn start(star: &Star, program: &str, port: u16) -> Result<Self> {
        ensure!(has_command(program), "there is no `{program}`; apt-get install nfdump nfdump-sflow");
        let dir = star.dir.join(program);
        fs::create_dir_all(&dir)?;
        let mut command = star.switch.netns.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program, "-b", "127.0.0.1", "-t", ONE_FILE, "-p"]);
        command.arg(port.to_string()).arg("-w").arg(&dir);
        let mut daemon = Daemon::spawn(command, program.to_owned(), &dir.with_extension("log"))?;
        stop::wait_for("the collector listens", LIMIT, || {
            daemon.check()?;
            let mut listeners = star.switch.netns.command("ss");
            let listeners = command::output(listeners.args(["-lun"]), LIMIT)?;
            let is_there = listeners.contains(&format!("127.0.0.1:{port} "));
            Ok(if is_there { Ok(()) } else { Err(listeners) })
        })?;
        Ok(Self { daemon, dir, target: format!("[\"127.0.0.1:{port}\"]") })
    }

    /// Ends it: what it was told.
    fn end(&mut self) -> Result<Vec<Record>> {
        self.daemon.stop()?;
        let mut nfdump = std::process::Command::new("nfdump");
        let fields =
            ["ra", "in", "out", "pr", "sa", "sp", "da", "dp", "pkt", "byt"].map(|name| format!("%{name}"));
        nfdump.args(["-q", "-N", "-o", &format!("fmt:{}", fields.join("|")), "-R"]).arg(&self.dir);
        let text = command::output(&mut nfdump, LIMIT)?;
        text.lines()
            .filter(|line| line.contains('|'))
            .map(|line| Record::parse(line).context(line.to_owned()))
            .collect()
    }
}

/// A record, as nfdump prints it.
#[derive(Debug, Clone)]
struct Record {
    exporter: String,
    ways: (String, String),
    flow: Flow,
    n_packets: u64,
    n_bytes: u64,
}

/// Protocol, source and destination.
type Flow = (String, String, String);

impl Record {
    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split('|').map(str::trim).collect();
        let [exporter, way_in, way_out, protocol, source, from, destination, to, n_packets, n_bytes] =
            words[..]
        else {
            anyhow::bail!("another number of fields");
        };
        let number = match protocol {
            "ICMP" => ICMP,
            "UDP" => UDP,
            other => other,
        };
        // What nfdump shows as ports of ICMP are type and code.
        let end = |address: &str, port: &str| {
            if number == ICMP { address.to_owned() } else { format!("{address}:{port}") }
        };
        Ok(Self {
            exporter: exporter.to_owned(),
            ways: (way_in.to_owned(), way_out.to_owned()),
            flow: (number.to_owned(), end(source, from), end(destination, to)),
            n_packets: n_packets.parse().with_context(|| format!("packets: {n_packets}"))?,
            n_bytes: n_bytes.parse().with_context(|| format!("bytes: {n_bytes}"))?,
        })
    }
}

/// Packets and bytes of each flow, whatever number of records tell of it.
fn sums(records: &[Record]) -> BTreeMap<Flow, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for record in records {
        let sum: &mut (u64, u64) = sums.entry(record.flow.clone()).or_default();
        *sum = (sum.0 + record.n_packets, sum.1 + record.n_bytes);
    }
    sums
}

/// Sends: what flows there are then, each with its packets and their bytes of IP.
fn traffic(star: &Star) -> Result<BTreeMap<Flow, (u64, u64)>> {
    let mut flows = BTreeMap::new();
    let at = |host: usize, port: u16| format!("{}:{port}", Star::address(host));
    for (from, to, source, n, len) in
        [(1, 2, 5001, 10, 100), (1, 2, 5002, 1, 1000), (2, 1, 5003, 70, 20), (3, 1, 5004, 200, 1400)]
    {
        star.send((from, to), source, (n, len))?;
        let sum = (n as u64, n as u64 * (len as u64 + UDP_HEADERS));
        flows.insert((UDP.to_owned(), at(from, source), at(to, 7000)), sum);
    }
    ensure!(star.ping(3, 2, 12)? == 12, "pings were lost");
    for (from, to) in [(3, 2), (2, 3)] {
        let [from, to] = [from, to].map(|host| Star::address(host).to_string());
        flows.insert((ICMP.to_owned(), from, to), (12, 12 * PING_LEN));
    }
    Ok(flows)
}

/// Sends; then each flow has been told of, with all of its packets and bytes.
fn check_flows(
    star: &Star,
    settings: &[String],
    collector: &mut Collector,
    end: &str,
) -> Result<Vec<Record>> {
    star.wait_for_ping(1, 2)?;
    star.wait_for_ping(2, 3)?;
    star.wait_for_ping(3, 1)?;
    star.switch.set(&settings.iter().map(String::as_str).collect::<Vec<_>>())?;
    let expected = traffic(star)?;
    // What is left is told of when nobody is to be told any more.
    star.switch.set(&[end])?;
    let records = collector.end()?;
    let told = sums(&records);
    for (flow, (n_packets, n_bytes)) in &expected {
        ensure!(
            told.get(flow) == Some(&(*n_packets, *n_bytes)),
            "{flow:?}: sent {n_packets} with {n_bytes} bytes, told of {:?}\n{records:#?}\n{}",
            told.get(flow),
            collector.daemon.log_tail(20)
        );
    }
    let others: Vec<_> = told.keys().filter(|flow| !expected.contains_key(*flow)).collect();
    // Somebody may have asked for an address once more, but nobody has sent IP.
    ensure!(others.iter().all(|(protocol, ..)| *protocol != UDP && *protocol != ICMP), "{others:?}");
    ensure!(records.iter().all(|record| record.exporter == "127.0.0.1"), "{records:#?}");
    Ok(records)
}

fn ways_of(records: &[Record], source: &str) -> Option<(String, String)> {
    records.iter().find(|record| record.flow.1 == source).map(|record| record.ways.clone())
}

#[test]
fn nfcapd_counts_by_netflow_what_was_sent() -> Result<()> {
    let kind = Kind { n_hosts: 3, ..Kind::default() };
    on_star("nfcapd_counts_by_netflow", kind, |star| {
        star.add_ports()?;
        let mut collector = Collector::start(star, "nfcapd", 2055)?;
        let settings = [format!("netflow.targets={}", collector.target)];
        let records = check_flows(star, &settings, &mut collector, "netflow=null")?;
        let ways = ways_of(&records, "10.0.0.3:5004");
        ensure!(ways == Some(("3".to_owned(), "1".to_owned())), "from port 3 to port 1: {ways:?}");
        Ok(())
    })
}

#[test]
fn nfcapd_counts_by_ipfix_what_was_sent() -> Result<()> {
    let kind = Kind { n_hosts: 3, ..Kind::default() };
    on_star("nfcapd_counts_by_ipfix", kind, |star| {
        star.add_ports()?;
        let mut collector = Collector::start(star, "nfcapd", 4739)?;
        let settings = [format!("ipfix.targets={}", collector.target), "ipfix.sampling=1".to_owned()];
        let records = check_flows(star, &settings, &mut collector, "ipfix=null")?;
        let ways = ways_of(&records, "10.0.0.3:5004");
        ensure!(ways == Some(("3".to_owned(), "1".to_owned())), "from port 3 to port 1: {ways:?}");
        Ok(())
    })
}

#[test]
fn sfcapd_counts_by_sflow_what_was_sent() -> Result<()> {
    let kind = Kind { n_hosts: 3, ..Kind::default() };
    on_star("sfcapd_counts_by_sflow", kind, |star| {
        star.add_ports()?;
        star.wait_for_ping(1, 2)?;
        star.wait_for_ping(2, 3)?;
        star.wait_for_ping(3, 1)?;
        let mut collector = Collector::start(star, "sfcapd", 6343)?;
        // Each packet is a sample, and stands for itself.
        star.switch.set(&[
            &format!("sflow.targets={}", collector.target),
            "sflow.sampling=1",
            "sflow.polling=0",
            "sflow.source=127.0.0.9",
            "sflow.agent=192.0.2.9",
        ])?;
        let expected = traffic(star)?;
        // Samples go by themselves, every now and then.
        std::thread::sleep(Duration::from_secs(2));
        star.switch.set(&["sflow=null"])?;
        let records = collector.end()?;
        let told = sums(&records);
        for (flow, (n_packets, n_bytes)) in &expected {
            // Of samples, bytes are those of frames.
            let wanted = (*n_packets, n_bytes + n_packets * ETHERNET);
            ensure!(
                told.get(flow) == Some(&wanted),
                "{flow:?}: sent {wanted:?}, told of {:?}",
                told.get(flow)
            );
        }
        // It sends from where it was told to; what else it calls itself, nfdump does not keep.
        ensure!(records.iter().all(|record| record.exporter == "127.0.0.9"), "{:?}", records.first());
        ensure!(records.iter().any(|record| record.ways.0 == "3"), "{:?}", records.first());
        Ok(())
    })
}
