//! What a change costs in a large network: time to compile it and to make the messages for
//! the hosts that it concerns, and the length of these messages.
//!
//! Tenants have a router, ten switches of a hundred ports each, ACLs with an address set and
//! a port group, and twenty hosts. Run by `cargo xtask bench --compile`.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
};

use controller::{chassis::encode_change, store::Revision};
use flowtable::types::{MacAddr, Priority};
use nix::time::{ClockId, clock_gettime};
use ovn_northd_lite::{
    Compiler, Dirty, Views,
    key::{DatapathKey, PortKey},
    model::{
        Acl, AclAction, AclDirection, DefaultPolicy, IpNetwork, LogicalRouter, LogicalSwitch, Northbound,
        PortAddresses, PortGroup, PortSecurity, RouterPort, SetMember, SwitchPort, SwitchPortKind,
    },
    southbound::ChassisRecord,
};
use prost::Message as _;
use serde_json::{Value, json};

/// Switches of a tenant, ports of a switch, hosts of a tenant.
const SWITCHES: u32 = 10;
const PORTS: u32 = 100;
const HOSTS: u32 = 20;
/// Changes of each kind.
const CHANGES: u32 = 1000;

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let option = |name: &str| env::args().skip_while(|arg| arg != name).nth(1);
    let number = |name: &str| option(name).and_then(|text| text.parse::<u32>().ok());
    if let Some(n_tenants) = number("--one") {
        println!("{}", measure(n_tenants));
        return;
    }
    let n_tenants = number("--tenants").unwrap_or(100);
    let n_turns = number("--turns").unwrap_or(3).max(1);
    let (mut halves, mut wholes) = (Vec::new(), Vec::new());
    for _ in 0..n_turns {
        halves.push(in_process(n_tenants / 2));
        wholes.push(in_process(n_tenants));
    }
    let (half, whole) = (median(&halves), median(&wholes));
    for report in [&half, &whole] {
        println!("{}", text(report));
    }
    let changes = |report: &Value| report["changes"].as_array().cloned().unwrap_or_default();
    for (half, whole) in changes(&half).iter().zip(&changes(&whole)) {
        let p50 = |change: &Value| change["p50_us"].as_f64().unwrap_or_default();
        let name = whole["change"].as_str().unwrap_or_default();
        println!("p50 with twice the network, {name}: {:+.1} %", (p50(whole) / p50(half) - 1.0) * 100.0);
    }
    let of = |report: &Value| -> f64 {
        let changes = report["changes"].as_array().into_iter().flatten();
        changes.filter_map(|change| change["p50_us"].as_f64()).sum()
    };
    println!("p50 of all kinds with twice the network: {:+.1} %", (of(&whole) / of(&half) - 1.0) * 100.0);
    if let Some(directory) = option("--save") {
        let text = serde_json::to_string_pretty(&json!([half, whole])).expect("plain values");
        fs::write(format!("{directory}/compile.json"), text + "\n").expect("the directory can be written");
    }
}

/// Of each number the median of several runs.
fn median(runs: &[Value]) -> Value {
    let Some(first) = runs.first() else { return Value::Null };
    match first {
        Value::Object(fields) => {
            let field = |name: &String| runs.iter().map(|run| run[name].clone()).collect::<Vec<_>>();
            fields.keys().map(|name| (name.clone(), median(&field(name)))).collect()
        }
        Value::Array(items) => {
            let item = |n: usize| runs.iter().map(|run| run[n].clone()).collect::<Vec<_>>();
            (0..items.len()).map(|n| median(&item(n))).collect()
        }
        Value::Number(_) => {
            let mut runs = runs.to_vec();
            runs.sort_by(|a, b| a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()));
            runs.swap_remove(runs.len() / 2)
        }
        other => other.clone(),
    }
}

/// Measures in a process of its own: what the allocator has seen before makes a difference.
fn in_process(n_tenants: u32) -> Value {
    let mut command = Command::new(env::current_exe().expect("Linux tells it"));
    let output = command.args(["--one", &n_tenants.to_string()]).output().expect("it runs already");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn text(report: &Value) -> String {
    let mut text = format!(
        "{} ports on {} hosts, {} logical flows: compiled in {:.0} ms, views of all hosts in {:.0} ms, {:.0} MiB\n",
        report["ports"],
        report["hosts"],
        report["logical_flows"],
        report["whole_ms"].as_f64().unwrap_or_default(),
        report["views_ms"].as_f64().unwrap_or_default(),
        report["memory_mib"].as_f64().unwrap_or_default(),
    );
    text.push_str("change                       p50 us    p99 us  hosts  bytes to one\n");
    for change in report["changes"].as_array().into_iter().flatten() {
        let number = |name: &str| change[name].as_f64().unwrap_or_default();
        text.push_str(&format!(
            "{:26} {:8.0} {:9.0} {:6} {:13}\n",
            change["change"].as_str().unwrap_or_default(),
            number("p50_us"),
            number("p99_us"),
            number("hosts"),
            number("max_bytes_per_host"),
        ));
    }
    text
}

/// One kind of change.
struct Kind {
    name: &'static str,
    /// Microseconds.
    p50: f64,
    p99: f64,
    /// Hosts that a change concerns, at most.
    n_hosts: usize,
    /// Bytes to a host, at most.
    max_len: usize,
}

impl Kind {
    fn json(&self) -> Value {
        let Self { name, p50, p99, n_hosts, max_len } = self;
        json!({
            "change": name, "p50_us": p50, "p99_us": p99, "hosts": n_hosts, "max_bytes_per_host": max_len,
        })
    }
}

/// Nanoseconds that the kernel gave this thread.
fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

struct World {
    nb: Northbound,
    hosts: BTreeMap<String, ChassisRecord>,
    compiler: Compiler,
    views: Views,
}

impl World {
    /// Compiles a change: nanoseconds, and the lengths of the messages.
    fn compile(&mut self, dirty: &Dirty) -> (u64, Vec<usize>) {
        let before = now_ns();
        let delta = self.compiler.update(&self.nb, &self.hosts, dirty);
        let told = self.views.update(self.compiler.southbound(), &delta, |_| true).into_values().flatten();
        let messages: Vec<_> =
            told.map(|delta| encode_change(Revision::ZERO, &delta).encode_to_vec()).collect();
        let spent = now_ns() - before;
        (spent, messages.iter().map(Vec::len).collect())
    }

    fn kind(&mut self, name: &'static str, mut change: impl FnMut(&mut Northbound, u32) -> Dirty) -> Kind {
        let (mut times, mut n_hosts, mut max_len) = (Vec::new(), 0, 0);
        for n in 0..CHANGES {
            let dirty = change(&mut self.nb, n);
            let (spent, lens) = self.compile(&dirty);
            times.push(spent);
            n_hosts = lens.len().max(n_hosts);
            max_len = lens.into_iter().max().unwrap_or(0).max(max_len);
        }
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
        Kind { name, p50: at(0.5), p99: at(0.99), n_hosts, max_len }
    }
}

fn measure(n_tenants: u32) -> Value {
    let hosts: BTreeMap<_, _> = (0..n_tenants * 10).map(|n| (host(n), record(n))).collect();
    let (mut nb, mut dirty) = (Northbound::default(), Dirty::default());
    for tenant in 0..n_tenants {
        add_tenant(&mut nb, tenant, n_tenants * 10);
    }
    dirty.switches.extend(nb.switches.keys().cloned());
    dirty.routers.extend(nb.routers.keys().cloned());
    dirty.address_sets.extend(nb.address_sets.keys().cloned());
    dirty.port_groups.extend(nb.port_groups.keys().cloned());
    dirty.chassis.extend(hosts.keys().cloned());
    let mut world = World { nb, hosts, compiler: Compiler::new(), views: Views::default() };
    let before = now_ns();
    let delta = world.compiler.update(&world.nb, &world.hosts, &dirty);
    // As after a start: no host listens yet, all of them will ask for the whole.
    drop(world.views.update(world.compiler.southbound(), &delta, |_| false));
    let whole = (now_ns() - before) as f64 / 1e6;
    drop(delta);
    let before = now_ns();
    world.hosts.keys().for_each(|id| drop(world.views.of(world.compiler.southbound(), id)));
    let views = (now_ns() - before) as f64 / 1e6;
    let n_switches = n_tenants * SWITCHES;
    let n_hosts = n_tenants * 10;
    let switch_of = move |n: u32| n * 7919 % n_switches;
    let kinds = [
        world.kind("add a port", |nb, n| {
            let (id, port) = (switch_of(n), PORTS + n);
            let added = a_port(id, port, n_hosts);
            nb.switches.get_mut(&switch(id)).expect("it is there").ports.insert(port_id(id, port), added);
            Dirty { switch_ports: [(switch(id), port_id(id, port))].into(), ..Dirty::default() }
        }),
        world.kind("remove a port", |nb, n| {
            let (id, port) = (switch_of(n), PORTS + n);
            nb.switches.get_mut(&switch(id)).expect("it is there").ports.remove(&port_id(id, port));
            Dirty { switch_ports: [(switch(id), port_id(id, port))].into(), ..Dirty::default() }
        }),
        world.kind("add an ACL", |nb, n| {
            let (id, acl) = (switch(switch_of(n)), format!("new{n}"));
            let new = an_acl(switch_of(n) / SWITCHES, n, 40_000 + n);
            nb.switches.get_mut(&id).expect("it is there").acls.insert(acl.clone(), new);
            Dirty { switch_acls: [(id, acl)].into(), ..Dirty::default() }
        }),
        world.kind("remove an ACL", |nb, n| {
            let (id, acl) = (switch(switch_of(n)), format!("new{n}"));
            nb.switches.get_mut(&id).expect("it is there").acls.remove(&acl);
            Dirty { switch_acls: [(id, acl)].into(), ..Dirty::default() }
        }),
        // The switch has not named it before; of ten such changes one is of a set that its hosts have to learn.
        world.kind("add an ACL of a new set", |nb, n| {
            let (id, acl) = (switch(switch_of(n)), format!("new{n}"));
            let set = (switch_of(n) / SWITCHES + 7 + n / n_switches) % n_tenants;
            let new = an_acl(set, n, 40_000 + n);
            nb.switches.get_mut(&id).expect("it is there").acls.insert(acl.clone(), new);
            Dirty { switch_acls: [(id, acl)].into(), ..Dirty::default() }
        }),
        world.kind("add a set member", |nb, n| {
            let id = format!("web{}", n % n_tenants);
            nb.address_sets.get_mut(&id).expect("it is there").insert(member(100_000 + n));
            Dirty { address_sets: [id].into(), ..Dirty::default() }
        }),
        world.kind("remove a set member", |nb, n| {
            let id = format!("web{}", n % n_tenants);
            nb.address_sets.get_mut(&id).expect("it is there").remove(&member(100_000 + n));
            Dirty { address_sets: [id].into(), ..Dirty::default() }
        }),
    ];
    let n_flows = world.compiler.southbound().flows.len();
    json!({
        "ports": n_switches * PORTS, "hosts": n_hosts, "logical_flows": n_flows, "whole_ms": whole,
        "views_ms": views, "memory_mib": resident(),
        "changes": kinds.iter().map(Kind::json).collect::<Vec<_>>(),
    })
}

fn host(n: u32) -> String {
    format!("host-{n}")
}

fn record(n: u32) -> ChassisRecord {
    ChassisRecord::at(Ipv4Addr::from(0xc000_0000 + n))
}

fn switch(id: u32) -> String {
    format!("switch-{id}")
}

fn port_id(switch: u32, port: u32) -> String {
    format!("port-{switch}-{port}")
}

fn mac(n: u32) -> MacAddr {
    let [a, b, c, d] = n.to_be_bytes();
    MacAddr::new([0x0a, 0, a, b, c, d])
}

fn member(n: u32) -> SetMember {
    SetMember::Ip(IpNetwork { addr: Ipv4Addr::from(0x0b00_0000 + n).into(), prefix_len: 32 })
}

fn a_port(switch: u32, port: u32, n_hosts: u32) -> SwitchPort {
    let (tenant, within) = (switch / SWITCHES, switch % SWITCHES);
    let n = switch << 12 | port;
    let ip: IpAddr = Ipv4Addr::from(0x0a00_0000 + within * 0x1_0000 + 10 + port).into();
    let kind = SwitchPortKind::Workload {
        addresses: vec![PortAddresses { mac: mac(n), ips: vec![ip] }],
        unknown: false,
        port_security: vec![PortSecurity { mac: mac(n), ips: vec![IpNetwork { addr: ip, prefix_len: 32 }] }],
        chassis: Some(host((tenant * 10 + (port + within) % HOSTS) % n_hosts)),
        additional: Default::default(),
        access: Default::default(),
    };
    SwitchPort {
        key: PortKey::new(port as u16 + 2).expect("small"),
        kind,
        enabled: true,
        services: Default::default(),
        options: Default::default(),
        hears: Default::default(),
    }
}

fn an_acl(tenant: u32, n: u32, port: u32) -> Acl {
    Acl {
        direction: if n.is_multiple_of(2) { AclDirection::ToLport } else { AclDirection::FromLport },
        tier: 0,
        priority: Priority::new(1000 + (n % 20) as u16).expect("small"),
        matching: format!("ip4.src == $web{tenant} && tcp.dst == {port}"),
        action: AclAction::AllowRelated,
        label: 0,
        log: None,
        after_lb: false,
        persists: false,
        samples: Default::default(),
    }
}

fn add_tenant(nb: &mut Northbound, tenant: u32, n_hosts: u32) {
    let mut router = LogicalRouter {
        key: DatapathKey::new(0x10_0000 + tenant).expect("small"),
        enabled: true,
        ports: BTreeMap::new(),
        static_routes: Vec::new(),
        chassis: None,
        policies: BTreeMap::new(),
        nats: BTreeMap::new(),
        load_balancers: Default::default(),
        balancer_groups: Default::default(),
        limits: None,
        options: Default::default(),
    };
    let router_id = format!("router-{tenant}");
    let mut group = PortGroup { default_policy: DefaultPolicy::Allow, ..PortGroup::default() };
    for within in 0..SWITCHES {
        let id = tenant * SWITCHES + within;
        let mut ports: BTreeMap<_, _> =
            (0..PORTS).map(|port| (port_id(id, port), a_port(id, port, n_hosts))).collect();
        group.ports.insert(port_id(id, 0), switch(id));
        let (end, up) = (format!("down-{id}"), format!("up-{id}"));
        let kind = SwitchPortKind::Router { router: router_id.clone(), port: end.clone() };
        let key = PortKey::new(1).expect("small");
        ports.insert(
            up,
            SwitchPort {
                key,
                kind,
                enabled: true,
                services: Default::default(),
                options: Default::default(),
                hears: Default::default(),
            },
        );
        let addr = Ipv4Addr::from(0x0a00_0001 + within * 0x1_0000).into();
        let networks = vec![IpNetwork { addr, prefix_len: 16 }];
        let key = PortKey::new(within as u16 + 1).expect("small");
        router.ports.insert(
            end,
            RouterPort {
                key,
                mac: mac(0xf000_0000 | id),
                networks,
                enabled: true,
                gateway: Default::default(),
                advertisement: None,
                static_macs: BTreeMap::new(),
                mtu: None,
                mtu_bypass: String::new(),
                route_table: String::new(),
                hears_all: false,
                monitored: Default::default(),
                resides: false,
                bridges: false,
                dhcp_server: None,
            },
        );
        let key = DatapathKey::new(id + 1).expect("small");
        let acls = (0..10).map(|n| (format!("acl{n}"), an_acl(tenant, n, 1000 + n))).collect();
        let new = LogicalSwitch {
            key,
            ports,
            acls,
            default_policy: DefaultPolicy::Allow,
            qos_rules: BTreeMap::new(),
            load_balancers: Default::default(),
            balancer_groups: Default::default(),
            services: Default::default(),
            options: Default::default(),
        };
        nb.switches.insert(switch(id), new);
    }
    nb.routers.insert(router_id, router);
    nb.port_groups.insert(format!("group{tenant}"), group);
    nb.address_sets.insert(format!("web{tenant}"), (0..100).map(member).collect());
}
