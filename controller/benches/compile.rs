//! What a change costs in a large network: time to compile it and to make the messages for
//! the hosts that it concerns, and the length of these messages.
//!
//! Tenants have a router, ten switches of a hundred ports each, ACLs with an address set and
//! a port group, and twenty hosts. Run by `cargo xtask bench --compile`.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
    time::Instant,
};

use controller::{chassis::encode_change, store::Revision};
use flowtable::types::{MacAddr, Priority};
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
use serde_json::json;

/// Switches of a tenant, ports of a switch, hosts of a tenant.
const SWITCHES: u32 = 10;
const PORTS: u32 = 100;
const HOSTS: u32 = 20;
/// Changes of each kind.
const CHANGES: u32 = 1000;

fn main() {
    let option = |name: &str| std::env::args().skip_while(|arg| arg != name).nth(1);
    let save = option("--save");
    let n_tenants = option("--tenants").and_then(|text| text.parse().ok()).unwrap_or(100);
    let (half, whole) = (measure(n_tenants / 2), measure(n_tenants));
    for report in [&half, &whole] {
        println!("{}", report.text());
    }
    let of = |report: &Report| report.kinds.iter().map(|kind| kind.p50).sum::<f64>();
    println!("p50 of all kinds with twice the network: {:+.1} %", (of(&whole) / of(&half) - 1.0) * 100.0);
    if let Some(directory) = save {
        let text = serde_json::to_string_pretty(&json!([half.json(), whole.json()])).expect("plain values");
        fs::write(format!("{directory}/compile.json"), text + "\n").expect("the directory can be written");
    }
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

struct Report {
    n_ports: u32,
    n_hosts: u32,
    n_flows: usize,
    /// Milliseconds to compile it all.
    whole: f64,
    /// Resident memory in MiB.
    memory: f64,
    kinds: Vec<Kind>,
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "{} ports on {} hosts, {} logical flows: compiled in {:.0} ms, {:.0} MiB\n",
            self.n_ports, self.n_hosts, self.n_flows, self.whole, self.memory
        );
        text.push_str("change                 p50 us    p99 us  hosts  bytes to one\n");
        for Kind { name, p50, p99, n_hosts, max_len } in &self.kinds {
            text.push_str(&format!("{name:20} {p50:8.0} {p99:9.0} {n_hosts:6} {max_len:13}\n"));
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let kinds = self.kinds.iter().map(|kind| {
            json!({
                "change": kind.name, "p50_us": kind.p50, "p99_us": kind.p99,
                "hosts": kind.n_hosts, "max_bytes_per_host": kind.max_len,
            })
        });
        json!({
            "ports": self.n_ports, "hosts": self.n_hosts, "logical_flows": self.n_flows,
            "whole_ms": self.whole, "memory_mib": self.memory, "changes": kinds.collect::<Vec<_>>(),
        })
    }
}

/// Nanoseconds on the clock: Linux counts a thread's own time in steps of milliseconds only,
/// so the figures want a quiet machine.
fn now_ns() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
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
        let told = self.views.update(self.compiler.southbound(), &delta);
        let messages: Vec<_> =
            told.into_values().map(|delta| encode_change(Revision::ZERO, delta).encode_to_vec()).collect();
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

fn measure(n_tenants: u32) -> Report {
    let hosts: BTreeMap<_, _> = (0..n_tenants * 10).map(|n| (host(n), record(n))).collect();
    let (mut nb, mut dirty) = (Northbound::default(), Dirty::default());
    for tenant in 0..n_tenants {
        add_tenant(&mut nb, tenant, n_tenants * 10);
    }
    dirty.switches.extend(nb.switches.keys().cloned());
    dirty.routers.extend(nb.routers.keys().cloned());
    dirty.address_sets.extend(nb.address_sets.keys().cloned());
    dirty.port_groups.extend(nb.port_groups.keys().cloned());
    let mut world = World { nb, hosts, compiler: Compiler::new(), views: Views::default() };
    let before = now_ns();
    let delta = world.compiler.update(&world.nb, &world.hosts, &dirty);
    drop(world.views.update(world.compiler.southbound(), &delta));
    drop(delta);
    let whole = (now_ns() - before) as f64 / 1e6;
    let n_switches = n_tenants * SWITCHES;
    let n_hosts = n_tenants * 10;
    let switch_of = move |n: u32| n * 7919 % n_switches;
    let kinds = vec![
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
            nb.switches.get_mut(&id).expect("it is there").acls.insert(acl.clone(), an_acl(n, 40_000 + n));
            Dirty { switch_acls: [(id, acl)].into(), ..Dirty::default() }
        }),
        world.kind("remove an ACL", |nb, n| {
            let (id, acl) = (switch(switch_of(n)), format!("new{n}"));
            nb.switches.get_mut(&id).expect("it is there").acls.remove(&acl);
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
    Report { n_ports: n_switches * PORTS, n_hosts, n_flows, whole, memory: resident(), kinds }
}

fn host(n: u32) -> String {
    format!("host-{n}")
}

fn record(n: u32) -> ChassisRecord {
    ChassisRecord { encap_ip: Ipv4Addr::from(0xc000_0000 + n).into() }
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
        access: Default::default(),
    };
    SwitchPort {
        key: PortKey::new(port as u16 + 2).expect("small"),
        kind,
        enabled: true,
        services: Default::default(),
    }
}

fn an_acl(n: u32, port: u32) -> Acl {
    Acl {
        direction: if n.is_multiple_of(2) { AclDirection::ToLport } else { AclDirection::FromLport },
        tier: 0,
        priority: Priority::new(1000 + (n % 20) as u16).expect("small"),
        matching: format!("ip4.src == $web{} && tcp.dst == {port}", n % 50),
        action: AclAction::AllowRelated,
        label: 0,
        log: None,
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
        limits: None,
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
        ports.insert(up, SwitchPort { key, kind, enabled: true, services: Default::default() });
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
                gateway: Vec::new(),
                advertisement: None,
                static_macs: BTreeMap::new(),
            },
        );
        let key = DatapathKey::new(id + 1).expect("small");
        let acls = (0..10).map(|n| (format!("acl{n}"), an_acl(tenant + n, 1000 + n))).collect();
        let new = LogicalSwitch {
            key,
            ports,
            acls,
            default_policy: DefaultPolicy::Allow,
            qos_rules: BTreeMap::new(),
            load_balancers: Default::default(),
            services: Default::default(),
        };
        nb.switches.insert(switch(id), new);
    }
    nb.routers.insert(router_id, router);
    nb.port_groups.insert(format!("group{tenant}"), group);
    nb.address_sets.insert(format!("web{tenant}"), (0..100).map(member).collect());
}
