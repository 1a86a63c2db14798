//! What collectors are told of the packets that ACLs decide about, by IPFIX, with real packets.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::{Daemon, Life};
use ferroflow_tests::provider::{Provider, greeter, on_hosts, reach};
use ferroflow_tests::stop;
use serde_json::Value;

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 2);
/// Where hosts tell of samples: to themselves.
const COLLECTOR: &str = "127.0.0.1:4739";

/// A collector on each host.
fn collectors(net: &Provider) -> Result<Vec<Daemon>> {
    let probe = &net.plan().programs.probe;
    let words: Vec<&str> = probe.words.iter().map(String::as_str).collect();
    let words = [words.as_slice(), &["ipfix-listen", COLLECTOR]].concat();
    let start = |idx: usize| {
        let log = net.plan().dir.join(format!("told-{idx}.log"));
        Daemon::start(net.host_netns(idx), &probe.program, &words, &log, Life::WithParent)
    };
    (0..2).map(start).collect()
}

/// Packets that a host has told of, by observation domain and point, and by the source or destination port.
fn told(net: &Provider, host: usize, (domain, point): (u64, u64), port: (&str, u64)) -> Result<u64> {
    let log = fs::read_to_string(net.plan().dir.join(format!("told-{host}.log")))?;
    let mut n_packets = 0;
    for line in log.lines() {
        let record: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let number = |name: &str| record.get(name).and_then(Value::as_u64).context("a field is missing");
        if (number("domain")?, number("point")?, number(port.0)?) == (domain, point, port.1) {
            n_packets += number("packets")?;
        }
    }
    Ok(n_packets)
}

#[test]
fn collectors_hear_of_connections_that_begin_and_go_on() -> Result<()> {
    on_hosts(("collectors_hear_of_connections_that_begin_and_go_on", PROBE), 2, |net| {
        net.configure(&[
            "switch add lan --tunnel-key 77",
            "switch-port add lan a --address 0a:00:00:00:04:01,10.0.4.1",
            "switch-port add lan b --address 0a:00:00:00:04:02,10.0.4.2",
            "sample-collector add all --set 7 --target 127.0.0.1:4739 --new-application 3 --established-application 4",
            "acl add lan web --direction to-lport --priority 5 --match tcp.dst==8080 --action allow-related \
             --sample-new 42:all --sample-established 43:all",
            "acl add lan no --direction to-lport --priority 4 --match tcp.dst==9090 --action drop \
             --sample-new 44:all",
        ])?;
        let a = net.workload(0, "a", ("0a:00:00:00:04:01", "10.0.4.1/24"), None)?;
        let b = net.workload(1, "b", ("0a:00:00:00:04:02", "10.0.4.2/24"), None)?;
        net.wait_converged()?;
        reach(net.netns(a), B)?;
        let mut collectors = collectors(net)?;
        let _server = greeter(net.plan(), net.netns(b), SocketAddrV4::new(B, 8080), "b")?;
        let probe = &net.plan().programs.probe;
        let answers = probe.ask_servers(net.netns(a), SocketAddrV4::new(B, 8080), 3)?;
        ensure!(answers.values().sum::<u64>() == 3, "{answers:?}");
        let refused = SocketAddrV4::new(B, 9090);
        probe.connect(net.netns(a), refused, Duration::from_millis(300))?;
        ensure!(net.host(1).control.dropped_by("switches/lan/acls/no")? > 0, "a sample is no way out");
        // While somebody is told by it, it stays.
        let gone = net.control.attempt(&["sample-collector", "del", "all"])?;
        ensure!(!gone.status.success() && gone.stderr.contains("switches/lan/acls/"), "{}", gone.stderr);
        // Who is told no more hears the last word.
        net.configure(&[
            "acl set lan/web --no-samples",
            "acl set lan/no --no-samples",
            "sample-collector del all --wait",
        ])?;
        let (new, established) = (3 << 24 | 77, 4 << 24 | 77);
        let wanted = [
            ((new, 42), ("to", 8080), 3),
            ((established, 43), ("to", 8080), 6),
            ((established, 43), ("from", 8080), 6),
            ((new, 44), ("to", 9090), 1),
        ];
        for (place, port, n_least) in wanted {
            stop::wait_for(&format!("samples of {place:?} {port:?}"), Duration::from_secs(10), || {
                collectors[1].check()?;
                let n = told(net, 1, place, port)?;
                Ok(if n >= n_least { Ok(()) } else { Err(format!("{n} packets, not {n_least}")) })
            })?;
        }
        // Each connection begins once; and the client's host has no such ACL.
        ensure!(told(net, 1, (new, 42), ("from", 8080))? == 0, "an answer is no new connection");
        let others = fs::read_to_string(net.plan().dir.join("told-0.log"))?;
        ensure!(others.is_empty(), "the other host told of {others}");
        net.check_conservation()
    })
}
