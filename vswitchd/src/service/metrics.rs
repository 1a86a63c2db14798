//! What this host counts, as Prometheus reads it. Names and labels: docs/metrics.md.
//!
//! Labels are bridges, ports, workers, peers and reasons: what an operator has made, never what
//! packets say. Counters of ports that are gone stay in the sums over reasons, so that those
//! only rise.

use std::collections::BTreeMap;

use dataplane::{PortId, PortStatus, TX_DROP_REASONS, WorkerPerf, WorkerStatus};
use ferroflow_proto::host as pb;
use flowtable::drop::DropReason;
use supervision::{exposition::Page, http::Subject};

use super::{conntrack, dump};
use crate::host::{Host, SharedHost};

/// A host that is looked at.
pub struct Metrics(SharedHost);

impl Metrics {
    /// Of a host.
    pub fn new(host: SharedHost) -> Self {
        Self(host)
    }
}

impl Subject for Metrics {
    async fn metrics(&self) -> String {
        self.0.with(|host| page(host)).await
    }

    async fn readiness(&self) -> Result<(), String> {
        self.0.with(|host| readiness(host)).await
    }
}

/// It forwards what it is to forward.
fn readiness(host: &Host) -> Result<(), String> {
    let waits = host.identity().controller.is_some() && !host.is_connected() && host.applied_revision() == 0;
    match waits {
        true => Err("no network is known, and the controller does not answer".to_owned()),
        false => Ok(()),
    }
}

fn page(host: &Host) -> String {
    let mut page = Page::new("ferroflow_vswitchd");
    about_host(&mut page, host);
    about_ports(&mut page, host);
    about_drops(&mut page, host);
    about_workers(&mut page, &host.dataplane().workers(), &host.dataplane().perf());
    about_connections(&mut page, &conntrack::status(host));
    about_peers(&mut page, host);
    page.into_text()
}

fn about_host(page: &mut Page, host: &Host) {
    page.info("build_info", "Version of the daemon.", &[("version", env!("CARGO_PKG_VERSION"))]);
    let identity = host.identity();
    let endpoint = identity.endpoint.as_ref().map(|(_, ip)| ip.to_string()).unwrap_or_default();
    let labels = [("chassis", identity.chassis.as_str()), ("encap_ip", &endpoint)];
    page.info("chassis_info", "Who this host is.", &labels);
    if identity.controller.is_some() {
        let connected = u8::from(host.is_connected());
        page.gauge("controller_connected", "A stream to the controller is up.").set(connected);
    }
    page.gauge("applied_revision", "Revision of the network that the tables realise.")
        .set(host.applied_revision());
    page.gauge("unrealised_objects", "Objects that could not be realised.").set(host.errors().len());
    page.counter("repairs_total", "Times that what packets see was put right.").set(host.n_repairs());
    let mut rules = page.gauge("rules", "Rules of the tables.");
    for bridge in host.bridges() {
        rules.add(&[("bridge", bridge.name())], bridge.tables().len());
    }
}

fn about_ports(page: &mut Page, host: &Host) {
    let statuses = host.dataplane().ports();
    let known: BTreeMap<_, _> =
        host.workload_ports().map(|(_, port)| (port.id(), port.logical_port.as_str())).collect();
    let id = |status: &PortStatus| PortId::new(status.bridge, status.port);
    let mut info = page.gauge("interface_info", "What an interface is.");
    for status in &statuses {
        let logical_port = known.get(&id(status)).copied().unwrap_or_default();
        let (bridge, number) = (host.bridge_name(status.bridge), status.port.to_string());
        let labels = [
            ("bridge", bridge),
            ("interface", status.name.as_str()),
            ("port", &number),
            ("kind", status.kind),
            ("mode", &status.mode),
            ("logical_port", logical_port),
        ];
        info.add(&labels, 1);
    }
    let gauge = |page: &mut Page, name: &str, help: &str, of: &dyn Fn(&PortStatus) -> u64| {
        let mut family = page.gauge(name, help);
        for status in &statuses {
            let bridge = host.bridge_name(status.bridge);
            family.add(&[("bridge", bridge), ("interface", &status.name)], of(status));
        }
    };
    gauge(page, "interface_up", "It has a link.", &|status| status.up.into());
    gauge(page, "interface_mtu_bytes", "Largest L3 packet it takes.", &|status| status.mtu.into());
    // What an earlier port of this name counted is its own.
    let counts: Vec<_> = statuses
        .iter()
        .map(|status| {
            let mut counts = host.counted_before(&status.name);
            counts += status.counters;
            (host.bridge_name(status.bridge), status.name.as_str(), counts)
        })
        .collect();
    type Of = fn(&dataplane::PortCounts) -> u64;
    let families: [(&str, &str, Of); 7] = [
        ("interface_rx_packets_total", "Packets received.", |counts| counts.rx_packets),
        ("interface_rx_bytes_total", "Their bytes.", |counts| counts.rx_bytes),
        ("interface_rx_forwarded_total", "Received packets that left.", |counts| counts.rx_forwarded),
        ("interface_rx_dropped_total", "Received packets that did not.", |counts| counts.rx_dropped),
        ("interface_rx_missed_total", "Packets that the kernel dropped before.", |counts| {
            counts.rx_kernel_dropped
        }),
        ("interface_tx_packets_total", "Packets sent.", |counts| counts.tx_packets),
        ("interface_tx_bytes_total", "Their bytes.", |counts| counts.tx_bytes),
    ];
    for (name, help, of) in families {
        let mut family = page.counter(name, help);
        for (bridge, interface, counts) in &counts {
            family.add(&[("bridge", bridge), ("interface", interface)], of(counts));
        }
    }
    let mut dropped =
        page.counter("interface_tx_dropped_total", "Packets that were to be sent and were not.");
    for (bridge, interface, counts) in &counts {
        for (reason, n) in TX_DROP_REASONS.iter().zip(counts.tx_dropped) {
            dropped.add(&[("bridge", bridge), ("interface", interface), ("reason", reason.name())], n);
        }
    }
}

/// By reason, with those of ports that are gone: each reason is there from the start.
fn about_drops(page: &mut Page, host: &Host) {
    let mut sums: BTreeMap<DropReason, (u64, u64, u64)> =
        DropReason::ALL.iter().map(|reason| (*reason, (0, 0, 0))).collect();
    let departed = host.departed().iter().flat_map(|departed| departed.drops.clone());
    for row in host.drops().into_iter().map(|(_, row)| row).chain(departed) {
        let sum = sums.entry(row.reason).or_default();
        *sum = (sum.0 + row.n_packets, sum.1 + row.n_bytes, sum.2 + row.n_copies);
    }
    type Of = fn(&(u64, u64, u64)) -> u64;
    let families: [(&str, &str, Of); 3] = [
        ("drop_packets_total", "Received packets of which nothing left.", |sum| sum.0),
        ("drop_bytes_total", "Their bytes, and those of lost copies.", |sum| sum.1),
        ("drop_copies_total", "Copies that were lost of packets that did leave.", |sum| sum.2),
    ];
    for (name, help, of) in families {
        let mut family = page.counter(name, help);
        for (reason, sum) in &sums {
            family.add(&[("reason", reason.name())], of(sum));
        }
    }
}

fn about_workers(page: &mut Page, workers: &[WorkerStatus], perf: &[WorkerPerf]) {
    let ids: Vec<_> = workers.iter().map(|worker| worker.id.to_string()).collect();
    let mut lookups = page.counter("worker_lookups_total", "How packets found what to do.");
    for (worker, id) in workers.iter().zip(&ids) {
        let counters = &worker.counters;
        let results = [
            ("session", counters.n_session_hits),
            ("megaflow", counters.n_megaflow_hits),
            ("miss", counters.n_misses),
        ];
        for (result, n) in results {
            lookups.add(&[("worker", id), ("result", result)], n);
        }
    }
    type Of = fn(&WorkerStatus) -> u64;
    let counters: [(&str, &str, Of); 5] = [
        ("worker_packets_total", "Packets switched.", |worker| worker.counters.n_packets),
        ("worker_recirculations_total", "Passes after the connection tracker.", |worker| {
            worker.counters.n_recirculations
        }),
        ("worker_evictions_total", "Cache entries that made room for others.", |worker| {
            worker.counters.n_evictions
        }),
        ("worker_frames_exhausted_total", "Times that no packet buffer was free.", |worker| {
            worker.n_exhausted
        }),
        ("worker_sleeps_total", "Times it slept.", |worker| worker.n_sleeps),
    ];
    let gauges: [(&str, &str, Of); 5] = [
        ("worker_up", "Its thread runs.", |worker| worker.running.into()),
        ("worker_sessions", "Sessions in its cache.", |worker| worker.n_sessions as u64),
        ("worker_megaflows", "Megaflows in its cache.", |worker| worker.n_megaflows as u64),
        ("worker_frames", "Packet buffers.", |worker| worker.n_frames as u64),
        ("worker_frames_free", "Those that are free.", |worker| worker.n_free_frames as u64),
    ];
    for (name, help, of) in counters {
        let mut family = page.counter(name, help);
        for (worker, id) in workers.iter().zip(&ids) {
            family.add(&[("worker", id)], of(worker));
        }
    }
    for (name, help, of) in gauges {
        let mut family = page.gauge(name, help);
        for (worker, id) in workers.iter().zip(&ids) {
            family.add(&[("worker", id)], of(worker));
        }
    }
    let mut time = page.counter("worker_seconds_total", "Where its time went.");
    for perf in perf {
        let (id, hz) = (perf.id.to_string(), perf.hz.max(1) as f64);
        let states =
            [("busy", perf.busy), ("idle", perf.idle), ("asleep", perf.asleep), ("commands", perf.jobs)];
        for (state, cycles) in states {
            time.add(&[("worker", &id), ("state", state)], cycles as f64 / hz);
        }
    }
}

fn about_connections(page: &mut Page, status: &pb::GetConntrackResponse) {
    page.gauge("conntrack_connections", "Connections that are tracked.").set(status.n_connections);
    page.gauge("conntrack_slots", "Connections there is room for.").set(status.n_slots);
    let events = [
        ("created", status.n_created),
        ("expired", status.n_expired),
        ("evicted", status.n_evicted),
        ("removed", status.n_removed),
    ];
    let mut family = page.counter("conntrack_events_total", "Connections that came and went.");
    for (event, n) in events {
        family.add(&[("event", event)], n);
    }
    let refusals = [
        ("invalid", status.n_invalid),
        ("full", status.n_full),
        ("limit", status.n_limited),
        ("nat-exhausted", status.n_nat_exhausted),
    ];
    let mut family =
        page.counter("conntrack_refused_total", "Packets that no connection was found or made for.");
    for (reason, n) in refusals {
        family.add(&[("reason", reason)], n);
    }
}

fn about_peers(page: &mut Page, host: &Host) {
    let tunnels = host.tunnels();
    let mut reachable = page.gauge("tunnel_reachable", "The next hop to another host is known.");
    for tunnel in &tunnels {
        let (remote, chassis) = (tunnel.remote.to_string(), tunnel.chassis.clone().unwrap_or_default());
        let labels = [("tunnel", tunnel.name.as_str()), ("remote", &remote), ("chassis", &chassis)];
        reachable.add(&labels, u8::from(tunnel.next_hop.is_some()));
    }
    let mut alive = page.gauge("tunnel_up", "The other host lives, where that is watched.");
    for (tunnel, liveness) in tunnels.iter().filter_map(|tunnel| Some((tunnel, tunnel.liveness?))) {
        let (remote, chassis) = (tunnel.remote.to_string(), tunnel.chassis.clone().unwrap_or_default());
        let labels = [("tunnel", tunnel.name.as_str()), ("remote", &remote), ("chassis", &chassis)];
        alive.add(&labels, u8::from(liveness == "up"));
    }
    let mut active = page.gauge("gateway_active", "This host has it.");
    for gateway in dump::gateways(host) {
        let is_here = gateway.active == host.identity().chassis;
        active.add(&[("gateway", &gateway.port)], u8::from(is_here));
    }
}
