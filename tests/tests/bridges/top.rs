//! Who has most of the traffic: `vswitchctl top` under a mix.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use ferroflow_tests::stop;
use serde_json::Value;

use crate::LIMIT;
use crate::star::{Kind, Star, on_star};

/// What is sent again and again: from, to, source port, datagrams and their length.
const MIX: [(usize, usize, u16, usize, usize); 4] =
    [(1, 2, 6001, 200, 1200), (2, 3, 6002, 200, 60), (3, 4, 6003, 20, 1200), (4, 1, 6004, 10, 200)];

/// Flow and rate of the first answer that has any, by this measure.
fn top(star: &Star, by: &str, sampling: &str) -> Result<Value> {
    stop::wait_for("somebody has most of it", LIMIT, || {
        let words = ["top", "--interval", "1", "--count", "1", "--by", by, "--sampling", sampling];
        let answer = star.switch.control.json(&words)?;
        let has_all = answer["flows"].as_array().is_some_and(|flows| flows.len() >= MIX.len());
        Ok(if has_all { Ok(answer) } else { Err(answer.to_string()) })
    })
}

#[test]
fn the_heaviest_flow_and_pair_are_named_by_bytes_and_by_packets() -> Result<()> {
    let kind = Kind { n_hosts: 4, ..Kind::default() };
    on_star("the_heaviest_flow", kind, |star| {
        star.add_ports()?;
        for n in 2..=4 {
            star.wait_for_ping(1, n)?;
        }
        let star = &*star;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    for (from, to, source, n, len) in MIX {
                        star.send((from, to), source, (n, len))?;
                    }
                }
                Ok(())
            });
            let result = check(star);
            over.store(true, Ordering::Relaxed);
            let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
            result.and(sent)
        })
    })
}

fn check(star: &Star) -> Result<()> {
    for sampling in ["1", "8"] {
        let answer = top(star, "bytes", sampling)?;
        let (flow, pair) = (&answer["flows"][0], &answer["pairs"][0]);
        ensure!(flow["in_port"] == "p1", "{answer:#}");
        let headers = flow["flow"].as_str().unwrap_or_default();
        for part in ["udp", "nw_src=10.0.0.1", "nw_dst=10.0.0.2", "tp_src=6001", "tp_dst=7000"] {
            ensure!(headers.contains(part), "no {part}: {answer:#}");
        }
        ensure!((&pair["in_port"], &pair["out_port"]) == (&"p1".into(), &"p2".into()), "{answer:#}");
        // Datagrams of 1200 bytes are 1242 long as frames, 200 of 430 packets, and most of the bytes.
        let share = |name: &str| {
            let of = |value: &Value| value[name].as_f64().unwrap_or_default();
            of(flow) / of(&answer["total"])
        };
        if sampling == "1" {
            let (packets, bits) = (share("packets_per_second"), share("bits_per_second"));
            ensure!(
                (0.35..0.60).contains(&packets) && (0.70..0.95).contains(&bits),
                "{packets} {bits}: {answer:#}"
            );
        }
    }
    // By packets two are alike: one of them is the first, and both are in front.
    let answer = top(star, "packets", "1")?;
    let first: Vec<_> = (0..2).map(|idx| answer["flows"][idx]["in_port"].clone()).collect();
    ensure!(first.contains(&"p1".into()) && first.contains(&"p2".into()), "{answer:#}");
    Ok(())
}
