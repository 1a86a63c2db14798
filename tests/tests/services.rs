//! What hosts answer for the network, asked by programs that others wrote: DHCP by three clients, names by
//! `dig` beside a real resolver, router advertisements by the kernel.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ferroflow_tests::daemon::{Daemon, Life, has_command};
use ferroflow_tests::fabric::Fabric;
use ferroflow_tests::netns::Netns;
use ferroflow_tests::{checks, command, say, scenario, stop};
use socket2::{Domain, Protocol, Socket, Type};

const PROBE: &str = env!("CARGO_BIN_EXE_ff-probe");
/// How long a client may take to get its lease; some wait a moment before they ask.
const CLIENT_LIMIT: Duration = Duration::from_secs(40);
/// How long a packet's effect may take to be seen.
const SOON: Duration = Duration::from_secs(15);
/// Debian's names of the programs and of their packages.
const CLIENTS: [(&str, &str); 5] = [
    ("dhclient", "isc-dhcp-client"),
    ("dhcpcd", "dhcpcd-base"),
    ("busybox", "busybox"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
];

/// Whether the programs that a scenario talks to are here; says so when not.
fn has(name: &str, programs: &[&str]) -> bool {
    let missing = CLIENTS.iter().find(|(program, _)| programs.contains(program) && !has_command(program));
    if let Some((program, package)) = missing {
        say(&format!("SKIPPED {name}: there is no `{program}`; apt-get install {package}"));
    }
    missing.is_none()
}

/// Changes the network; the last command waits until it is in force.
fn configure(fabric: &Fabric, lines: &str) -> Result<()> {
    fabric.control.configure(lines)
}

/// The script that clients call instead of changing this machine: it notes what it was told.
struct Notes {
    script: PathBuf,
    notes: PathBuf,
}

impl Notes {
    /// `then` is what the script does besides.
    fn new(fabric: &Fabric, name: &str, then: &str) -> Result<Self> {
        let dir = &fabric.plan().dir;
        let (script, notes) = (dir.join(format!("{name}.sh")), dir.join(format!("{name}.notes")));
        let text =
            format!("#!/bin/sh\n{{ echo \"event=$1\"; env; }} >> {}\n{then}\nexit 0\n", notes.display());
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(Self { script, notes })
    }

    fn script(&self) -> Result<&str> {
        self.script.to_str().context("a path that is not text")
    }

    /// The last value of each variable.
    fn read(&self) -> Result<BTreeMap<String, String>> {
        let text = fs::read_to_string(&self.notes).context("the client has called nobody")?;
        Ok(text.lines().filter_map(|line| line.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect())
    }

    /// The values that a variable had, in order.
    fn all(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(&self.notes).unwrap_or_default();
        let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        values.map(str::to_owned).collect()
    }

    fn expect(&self, wanted: &[(&str, &str)]) -> Result<()> {
        let notes = self.read()?;
        for (name, value) in wanted {
            let found = notes.get(*name).map_or("nothing", String::as_str);
            ensure!(found == *value, "{name} is {found:?}, not {value:?}: {notes:#?}");
        }
        Ok(())
    }
}

/// Runs a client to its end.
fn client(netns: &Netns, words: &[&str]) -> Result<()> {
    let (program, words) = words.split_first().context("no client")?;
    let finished = command::run(netns.command(program).args(words), CLIENT_LIMIT)?;
    ensure!(finished.status.success(), "{program}: {} {}", finished.status, command::complaint(&finished));
    Ok(())
}

const DHCP: &str = "
    dhcp-options add web4 --cidr 10.0.1.0/24 --option server_id=10.0.1.1 --option router=10.0.1.1 \
        --option dns_server=10.0.1.53,10.0.1.54 --option mtu=1400 --option domain_name=shop.example \
        --option ntp_server=10.0.1.123 --option lease_time=3600 \
        --option classless_static_route=10.9.0.0/16,10.0.1.9,0.0.0.0/0,10.0.1.1
    switch-port set web-1 --hostname web-one
    switch set web --dhcpv4 web4
";

#[test]
fn three_dhcp_clients_get_the_same() -> Result<()> {
    let name = "three_dhcp_clients_get_the_same";
    if !has(name, &["dhclient", "dhcpcd", "busybox"]) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        configure(fabric, DHCP)?;
        // Each host serves its own: the network's DHCP works without the controller.
        fabric.controller().context("no controller")?.kill()?;
        for (workload, address, hostname) in [("web-1", "10.0.1.11", "web-one"), ("web-2", "10.0.1.12", "")] {
            let netns = &fabric.workload(workload)?.netns;
            netns.ip(&["addr", "flush", "dev", "eth0", "scope", "global"])?;
            let routes = "10.9.0.0/16 10.0.1.9 0.0.0.0/0 10.0.1.1";
            let udhcpc = Notes::new(fabric, &format!("udhcpc-{workload}"), "")?;
            let words = ["busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-O", "121", "-O", "mtu", "-s"];
            client(netns, &[&words[..], &[udhcpc.script()?]].concat())?;
            let common = [("mtu", "1400"), ("domain", "shop.example"), ("lease", "3600"), ("event", "bound")];
            udhcpc.expect(&common)?;
            udhcpc.expect(&[
                ("ip", address),
                ("router", "10.0.1.1"),
                ("mask", "24"),
                ("staticroutes", routes),
            ])?;
            udhcpc.expect(&[("dns", "10.0.1.53 10.0.1.54"), ("serverid", "10.0.1.1")])?;
            let dhcpcd = Notes::new(fabric, &format!("dhcpcd-{workload}"), "")?;
            client(
                netns,
                &[
                    "dhcpcd",
                    "-4",
                    "-1",
                    "-B",
                    "-t",
                    "30",
                    "-f",
                    "/dev/null",
                    "--noconfigure",
                    "--noarp",
                    "-c",
                    dhcpcd.script()?,
                    "eth0",
                ],
            )?;
            dhcpcd
                .expect(&[("new_ip_address", address), ("new_domain_name_servers", "10.0.1.53 10.0.1.54")])?;
            dhcpcd.expect(&[("new_dhcp_server_identifier", "10.0.1.1"), ("new_subnet_cidr", "24")])?;
            let dhclient = Notes::new(fabric, &format!("dhclient-{workload}"), "")?;
            dhclient_once(fabric, netns, &dhclient, &["-4"])?;
            dhclient.expect(&[
                ("new_ip_address", address),
                ("new_routers", "10.0.1.1"),
                ("reason", "BOUND"),
            ])?;
            dhclient.expect(&[("new_interface_mtu", "1400"), ("new_dhcp_lease_time", "3600")])?;
            if !hostname.is_empty() {
                dhclient.expect(&[("new_host_name", hostname)])?;
            }
        }
        fabric.start_controller()?;
        checks::conservation(fabric).map(drop)
    })
}

/// Runs Debian's client until it has what it wants.
fn dhclient_once(fabric: &Fabric, netns: &Netns, notes: &Notes, more: &[&str]) -> Result<()> {
    let mut dhclient = dhclient(fabric, netns, notes, more)?;
    stop::wait_for("dhclient has its lease", CLIENT_LIMIT, || {
        // What it has without state it calls renewed.
        let has_it = |reason: &String| reason.starts_with("BOUND") || reason == "RENEW6";
        if notes.all("reason").iter().any(has_it) {
            return Ok(Ok(()));
        }
        dhclient.check()?;
        Ok(Err(dhclient.log_tail(5)))
    })?;
    // It is ended here, if it has not by itself: without state there is nothing more to do.
    drop(dhclient);
    Ok(())
}

fn dhclient(fabric: &Fabric, netns: &Netns, notes: &Notes, more: &[&str]) -> Result<Daemon> {
    let dir = &fabric.plan().dir;
    let config = dir.join("dhclient.conf");
    let options = "subnet-mask, routers, domain-name, domain-name-servers, host-name, interface-mtu, \
                   dhcp6.name-servers, dhcp6.domain-search";
    fs::write(&config, format!("initial-interval 2;\nrequest {options};\n"))?;
    let [config, leases, pid] =
        [config, notes.notes.with_extension("leases"), notes.notes.with_extension("pid")]
            .map(|path| path.display().to_string());
    let words = ["-d", "-1", "-cf", &config, "-lf", &leases, "-pf", &pid, "-sf", notes.script()?];
    let words = [&words[..], more, &["eth0"]].concat();
    let program = command::output(Command::new("sh").args(["-c", "command -v dhclient"]), command::SHORT)?;
    Daemon::start(netns, &PathBuf::from(program.trim()), &words, &dir.join("dhclient.log"), Life::WithParent)
}

#[test]
fn a_lease_is_renewed_and_taken_away() -> Result<()> {
    let name = "a_lease_is_renewed_and_taken_away";
    if !has(name, &["dhclient"]) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        let lease = "--option lease_time=12 --option T1=3 --option T2=8";
        let options = "--option server_id=10.0.1.1 --option router=10.0.1.1";
        configure(
            fabric,
            &format!(
                "dhcp-options add web4 --cidr 10.0.1.0/24 {options} {lease}\nswitch set web --dhcpv4 web4"
            ),
        )?;
        let netns = &fabric.workload("web-1")?.netns;
        netns.ip(&["addr", "flush", "dev", "eth0", "scope", "global"])?;
        let configure_address = "case \"$reason\" in BOUND|RENEW|REBIND|REBOOT) \
            ip addr replace \"$new_ip_address/24\" dev eth0; ip route replace default via \"$new_routers\";; \
            EXPIRE|FAIL) ip addr flush dev eth0 scope global;; esac";
        let notes = Notes::new(fabric, "dhclient", configure_address)?;
        let mut dhclient = dhclient(fabric, netns, &notes, &["-4"])?;
        let wait_for = |dhclient: &mut Daemon, what: &str, is_it: &dyn Fn(&[String]) -> bool| {
            stop::wait_for(what, CLIENT_LIMIT, || {
                dhclient.check()?;
                let reasons = notes.all("reason");
                Ok(if is_it(&reasons) {
                    Ok(())
                } else {
                    Err(format!("{reasons:?} {}", dhclient.log_tail(5)))
                })
            })
        };
        wait_for(&mut dhclient, "two renewals", &|reasons| {
            reasons.iter().filter(|reason| *reason == "RENEW").count() >= 2
        })?;
        // With what the client has set up, it reaches the other host and the other network.
        checks::ping(fabric, "web-1", "web-2", 56)?;
        checks::ping(fabric, "web-1", "db-2", 56)?;
        // The port gets another address: the next renewal is refused, and the client begins anew.
        let entry = "'0a:00:00:00:01:0b 10.0.1.99'";
        configure(fabric, &format!("switch-port set web-1 --address {entry} --no-port-security"))?;
        wait_for(&mut dhclient, "the old lease to end", &|reasons| {
            reasons.iter().any(|reason| reason == "EXPIRE")
        })?;
        wait_for(&mut dhclient, "the new lease", &|_| {
            notes.all("new_ip_address").last().is_some_and(|ip| ip == "10.0.1.99")
        })?;
        dhclient.kill()?;
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn dhcpv6_with_and_without_state() -> Result<()> {
    let name = "dhcpv6_with_and_without_state";
    if !has(name, &["dhclient"]) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        configure(
            fabric,
            "
            dhcp-options add web6 --cidr 2001:db8:1::/64 --option dns_server=2001:db8:1::53 \
                --option domain_search=shop.example,example --option lease_time=3600
            switch-port set web-1 --address '0a:00:00:00:01:0b 10.0.1.11 2001:db8:1::11' --no-port-security
            switch-port set web-2 --address '0a:00:00:00:01:0c 10.0.1.12 2001:db8:1::12' \
                --port-security '0a:00:00:00:01:0c 10.0.1.12 2001:db8:1::12'
            switch set web --dhcpv6 web6
        ",
        )?;
        for (workload, address) in [("web-1", "2001:db8:1::11"), ("web-2", "2001:db8:1::12")] {
            let netns = &fabric.workload(workload)?.netns;
            wait_for_link_local(netns)?;
            let notes = Notes::new(fabric, &format!("six-{workload}"), "")?;
            dhclient_once(fabric, netns, &notes, &["-6"])?;
            notes.expect(&[("new_ip6_address", address), ("new_dhcp6_name_servers", "2001:db8:1::53")])?;
            notes
                .expect(&[("new_dhcp6_domain_search", "shop.example. example."), ("new_max_life", "3600")])?;
        }
        configure(fabric, "dhcp-options set web6 --option dhcpv6_stateless=true")?;
        let netns = &fabric.workload("web-1")?.netns;
        let notes = Notes::new(fabric, "stateless", "")?;
        dhclient_once(fabric, netns, &notes, &["-6", "-S"])?;
        notes.expect(&[("new_dhcp6_name_servers", "2001:db8:1::53")])?;
        ensure!(notes.all("new_ip6_address").is_empty(), "an address without state");
        checks::conservation(fabric).map(drop)
    })
}

/// Waits until the interface may use its own link-local address.
fn wait_for_link_local(netns: &Netns) -> Result<()> {
    stop::wait_for("a link-local address", SOON, || {
        let text = netns.ip(&["-6", "addr", "show", "dev", "eth0", "scope", "link", "-tentative"])?;
        Ok(if text.contains("fe80::") { Ok(()) } else { Err(text) })
    })
}

#[test]
fn a_switch_gives_addresses_on_two_hosts() -> Result<()> {
    let name = "a_switch_gives_addresses_on_two_hosts";
    if !has(name, &["busybox"]) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        configure(
            fabric,
            &format!(
                "{DHCP}
            switch set web --subnet 10.0.1.0/24 --exclude 10.0.1.2..10.0.1.199
            switch-port set web-1 --address '0a:00:00:00:01:0b dynamic' --no-port-security
            switch-port set web-2 --address '0a:00:00:00:01:0c dynamic' --no-port-security
        "
            ),
        )?;
        let mut addresses = Vec::new();
        for workload in ["web-1", "web-2"] {
            let netns = &fabric.workload(workload)?.netns;
            netns.ip(&["addr", "flush", "dev", "eth0", "scope", "global"])?;
            let notes = Notes::new(
                fabric,
                workload,
                "[ \"$1\" = bound ] && ip addr add \"$ip/$mask\" dev eth0 && ip route replace default via \"$router\"",
            )?;
            let words = ["busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-s"];
            client(netns, &[&words[..], &[notes.script()?]].concat())?;
            addresses.push(notes.read()?.remove("ip").context("no address")?);
        }
        ensure!(addresses == ["10.0.1.200", "10.0.1.201"], "{addresses:?}");
        // What was given is theirs: across hosts, and through the router.
        for (from, to) in [("web-1", "10.0.1.201"), ("web-2", "10.0.1.200"), ("db-1", "10.0.1.201")] {
            let netns = &fabric.workload(from)?.netns;
            let to: Ipv4Addr = to.parse()?;
            let answers = fabric.plan().programs.probe.ping(netns, to, 3, 56)?;
            ensure!(answers.n_received == 3, "{from} to {to}: {answers:?}");
        }
        let shown = fabric.control.text(&["switch-port", "show", "web-2"])?;
        ensure!(shown.contains("0a:00:00:00:01:0c 10.0.1.201"), "{shown}");
        let full = fabric.control.attempt(&["switch", "set", "web", "--exclude", "10.0.1.2..10.0.1.254"])?;
        let complaint = command::complaint(&full);
        ensure!(complaint.contains("switches/web has no address left in 10.0.1.0/24"), "{complaint}");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn a_server_elsewhere_serves_by_a_relay() -> Result<()> {
    let name = "a_server_elsewhere_serves_by_a_relay";
    if !has(name, &["busybox", "dnsmasq"]) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        let server = fabric.workload("db-1")?;
        let program = command::output(Command::new("sh").args(["-c", "command -v dnsmasq"]), command::SHORT)?;
        let dir = &fabric.plan().dir;
        let leases = format!("--dhcp-leasefile={}", dir.join("leases").display());
        let words = [
            "--keep-in-foreground",
            "--port=0",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--log-dhcp",
            "--dhcp-authoritative",
            "--dhcp-range=10.0.1.0,static,255.255.255.0,1h",
            "--dhcp-host=0a:00:00:00:01:0c,10.0.1.12",
            "--dhcp-option=3,10.0.1.1",
            &leases,
        ];
        let log = dir.join("dhcp-server.log");
        let mut dnsmasq =
            Daemon::start(&server.netns, &PathBuf::from(program.trim()), &words, &log, Life::WithParent)?;
        // The client is on the other host, and its network is not the server's.
        let netns = &fabric.workload("web-2")?.netns;
        netns.ip(&["addr", "flush", "dev", "eth0", "scope", "global"])?;
        let notes = Notes::new(fabric, "relayed", "")?;
        let ask = ["busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "4", "-T", "1", "-s"];
        let ask = [&ask[..], &[notes.script()?]].concat();
        ensure!(client(netns, &ask).is_err(), "nobody passes the question on yet");
        let server_at = server.plan.address;
        configure(fabric, &format!("router-port set r1-web --dhcp-relay {server_at}"))?;
        client(netns, &ask).with_context(|| dnsmasq.log_tail(20))?;
        notes.expect(&[("ip", "10.0.1.12"), ("router", "10.0.1.1"), ("serverid", &server_at.to_string())])?;
        dnsmasq.check()?;
        // Clients that hear broadcasts alone, by the bounds that the network sets.
        configure(
            fabric,
            "control-plane-limits add tight --limit dhcpv4-relay=40/40
             router set r1 --limits tight",
        )?;
        let all = Notes::new(fabric, "broadcast", "")?;
        client(netns, &[&ask[..ask.len() - 1], &[all.script()?, "-B"]].concat())
            .with_context(|| dnsmasq.log_tail(20))?;
        all.expect(&[("ip", "10.0.1.12")])?;
        dnsmasq.kill()?;
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn names_are_resolved_beside_a_real_resolver() -> Result<()> {
    let name = "names_are_resolved_beside_a_real_resolver";
    if !has(name, &["dig", "dnsmasq"]) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        // The resolver is a workload of the other network, on the other host.
        let resolver = fabric.workload("db-2")?;
        let (address, elsewhere) =
            (resolver.plan.address.to_string(), "--address=/elsewhere.example/192.0.2.9");
        let program = command::output(Command::new("sh").args(["-c", "command -v dnsmasq"]), command::SHORT)?;
        let conf =
            ["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file="];
        let listen = format!("--listen-address={address}");
        let known = "--address=/web-1.shop.example/192.0.2.66";
        let words = [&conf[..], &["--user=root", "--bind-interfaces", &listen, elsewhere, known]].concat();
        let log = fabric.plan().dir.join("dnsmasq.log");
        let _dnsmasq =
            Daemon::start(&resolver.netns, &PathBuf::from(program.trim()), &words, &log, Life::WithParent)?;
        let dig = |from: &str, words: &str| -> Result<String> {
            let netns = &fabric.workload(from)?.netns;
            let mut command = netns.command("dig");
            command.arg(format!("@{address}")).args(["+time=2", "+tries=2"]).args(words.split(' '));
            command::output(&mut command, SOON)
        };
        let short = |from: &str, words: &str| {
            Ok::<_, anyhow::Error>(dig(from, &format!("+short {words}"))?.trim().to_owned())
        };
        stop::wait_for("dnsmasq answers", SOON, || match short("web-1", "elsewhere.example") {
            Ok(found) if found == "192.0.2.9" => Ok(Ok(())),
            Ok(found) => Ok(Err(found)),
            Err(error) => Ok(Err(format!("{error:#}"))),
        })?;
        ensure!(short("web-1", "web-1.shop.example")? == "192.0.2.66", "nothing is known yet");
        configure(
            fabric,
            "
            names add zone --record web-1.shop.example=10.0.1.11,2001:db8:1::11 --record four.shop.example=10.0.1.4
            switch set web --names zone
        ",
        )?;
        for (words, wanted) in [
            ("web-1.shop.example", "10.0.1.11"),
            ("WEB-1.Shop.Example", "10.0.1.11"),
            ("web-1.shop.example AAAA", "2001:db8:1::11"),
            ("four.shop.example AAAA", ""),
            ("-x 10.0.1.11", "web-1.shop.example."),
            ("-x 2001:db8:1::11", "web-1.shop.example."),
            // Others are the resolver's, and so is everything by TCP.
            ("elsewhere.example", "192.0.2.9"),
            ("+tcp web-1.shop.example", "192.0.2.66"),
        ] {
            for from in ["web-1", "web-2"] {
                let found = short(from, words)?;
                ensure!(found == wanted, "{from} asks for {words}: {found:?}, not {wanted:?}");
            }
        }
        let whole = dig("web-2", "+bufsize=1232 web-1.shop.example")?;
        for wanted in ["status: NOERROR", "flags: qr aa rd ra", "EDNS: version: 0", "300\tIN\tA\t10.0.1.11"] {
            ensure!(whole.contains(wanted), "no {wanted:?} in {whole}");
        }
        // Names are of one switch; a new record is in force when its command returns.
        ensure!(short("db-1", "web-1.shop.example")? == "192.0.2.66", "db does not name the list");
        configure(
            fabric,
            "names set zone --record new.shop.example=10.0.1.77 --no-record four.shop.example",
        )?;
        ensure!(short("web-2", "new.shop.example")? == "10.0.1.77", "a new record");
        checks::conservation(fabric).map(drop)
    })
}

#[test]
fn the_kernel_makes_addresses_and_routes_of_advertisements() -> Result<()> {
    scenario::on_fabric("the_kernel_makes_addresses_and_routes_of_advertisements", PROBE, |fabric| {
        configure(
            fabric,
            "
            switch set web --subnet 10.0.1.0/24 --ipv6-prefix 2001:db8:1::/64
            switch-port set web-1 --address '0a:00:00:00:01:0b dynamic 10.0.1.11' --no-port-security
            switch-port set web-2 --address '0a:00:00:00:01:0c dynamic 10.0.1.12' --no-port-security
            router-port set r1-web --network 10.0.1.1/24 --network 2001:db8:1::1/64 --ra slaac --ra-mtu 1380 \
                --ra-rdnss 2001:db8:1::53 --ra-dnssl shop.example \
                --ra-route 2001:db8:77::/48=high --ra-preference low --ra-lifetime 600
        ",
        )?;
        let addresses =
            [("web-1", "2001:db8:1:0:800:ff:fe00:10b"), ("web-2", "2001:db8:1:0:800:ff:fe00:10c")];
        for (workload, address) in addresses {
            let netns = &fabric.workload(workload)?.netns;
            // Down and up again: the kernel asks for routers.
            netns.ip(&["link", "set", "dev", "eth0", "down"])?;
            netns.set_sysctls(&[
                ("net.ipv6.conf.eth0.accept_ra", "2"),
                ("net.ipv6.conf.eth0.accept_ra_rt_info_max_plen", "64"),
                ("net.ipv6.conf.eth0.addr_gen_mode", "0"),
            ])?;
            netns.ip(&["link", "set", "dev", "eth0", "up"])?;
            let has = |what: &str, words: &[&str], wanted: &[&str]| {
                stop::wait_for(what, SOON, || {
                    let text = netns.ip(words)?;
                    let is_it = wanted.iter().all(|wanted| text.contains(wanted));
                    Ok(if is_it { Ok(()) } else { Err(format!("{workload}: {text}")) })
                })
            };
            has("an address", &["-6", "addr", "show", "dev", "eth0", "-tentative"], &[address])?;
            let gateway = "via fe80::800:ff:fe00:101";
            has("a default route", &["-6", "route", "show", "default"], &[gateway, "pref low", "mtu 1380"])?;
            has("a route", &["-6", "route", "show", "2001:db8:77::/48"], &[gateway, "pref high"])?;
        }
        for (from, to) in [("web-1", addresses[1].1), ("web-2", addresses[0].1), ("web-1", "2001:db8:1::1")] {
            let mut ping = fabric.workload(from)?.netns.command("ping");
            ping.args(["-6", "-c", "3", "-i", "0.2", "-W", "3", to]);
            command::output(&mut ping, SOON).with_context(|| format!("{from} to {to}"))?;
        }
        balances_over_ipv6(fabric, addresses[1].1.parse()?)?;
        // Unasked: what a workload forgets comes back by itself, on either host.
        configure(fabric, "router-port set r1-web --ra-periodic 3-4")?;
        tells_resolvers(&fabric.workload("web-1")?.netns)?;
        for (workload, _) in addresses {
            let netns = &fabric.workload(workload)?.netns;
            netns.ip(&["-6", "route", "flush", "default"])?;
            stop::wait_for("the route to come back", SOON, || {
                let text = netns.ip(&["-6", "route", "show", "default"])?;
                Ok(if text.contains("fe80::800:ff:fe00:101") { Ok(()) } else { Err(text) })
            })?;
        }
        checks::conservation(fabric).map(drop)
    })
}

/// A service with IPv6 addresses, of a backend on the other host.
fn balances_over_ipv6(fabric: &Fabric, backend: Ipv6Addr) -> Result<()> {
    configure(
        fabric,
        &format!(
            "load-balancer add six --vip [2001:db8:96::1]:80=[{backend}]:8080
             switch set web --load-balancer six"
        ),
    )?;
    let (client, server) = (&fabric.workload("web-1")?.netns, &fabric.workload("web-2")?.netns);
    let listener = server.inside(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 8080)))??;
    let service: SocketAddr = "[2001:db8:96::1]:80".parse()?;
    let stream = client.inside(|| TcpStream::connect_timeout(&service, SOON))??;
    let (_, seen) = listener.accept()?;
    ensure!(stream.local_addr()?.ip() == seen.ip(), "the server sees {seen}");
    configure(fabric, "switch set web --no-load-balancers")
}

/// An advertisement has the resolver and the domain (RFC 8106 §5).
fn tells_resolvers(netns: &Netns) -> Result<()> {
    let resolver: Ipv6Addr = "2001:db8:1::53".parse()?;
    let (resolver, domain) = (resolver.octets(), b"\x04shop\x07example\0");
    netns.inside(|| -> Result<()> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_read_timeout(Some(SOON))?;
        let (mut room, start) = ([0; 2048], Instant::now());
        while start.elapsed() < SOON {
            let len = (&socket).read(&mut room)?;
            let message = &room[..len];
            if message.first() == Some(&134) {
                let has = |what: &[u8]| message.windows(what.len()).any(|window| window == what);
                ensure!(has(&resolver) && has(domain), "{message:02x?}");
                return Ok(());
            }
        }
        bail!("no advertisement")
    })?
}

#[test]
fn a_flood_leaves_the_neighbours_dhcp_alone() -> Result<()> {
    let name = "a_flood_leaves_the_neighbours_dhcp_alone";
    if !has(name, &["busybox"]) {
        return Ok(());
    }
    scenario::on_fabric(name, PROBE, |fabric| {
        configure(
            fabric,
            "
            dhcp-options add web4 --cidr 10.0.1.0/24 --option server_id=10.0.1.1
            dhcp-options add db4 --cidr 10.0.2.0/24 --option server_id=10.0.2.1
            switch set db --dhcpv4 db4
            switch set web --dhcpv4 web4
        ",
        )?;
        // Both on the first host, which is the one that answers.
        let flood = discover([0x0a, 0, 0, 0, 2, 0x0b]);
        let (flooder, client_netns) = (&fabric.workload("db-1")?.netns, &fabric.workload("web-1")?.netns);
        let notes = Notes::new(fabric, "udhcpc", "")?;
        let n_sent = std::thread::scope(|scope| -> Result<u64> {
            let until = Instant::now() + Duration::from_secs(8);
            let flood = &flood;
            let flooding = scope.spawn(move || flooder.inside(|| send_until(flood, until)));
            std::thread::sleep(Duration::from_secs(2));
            let words = ["busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "2", "-T", "2", "-s"];
            // Two tries of two seconds: the first answers that come.
            client(client_netns, &[&words[..], &[notes.script()?]].concat())?;
            flooding.join().map_err(|_| anyhow::anyhow!("the flood's thread panicked"))??
        })?;
        notes.expect(&[("ip", "10.0.1.11")])?;
        ensure!(n_sent > 10_000, "{n_sent} packets are no flood");
        let drops = fabric.host(0).control.drops()?;
        let metered = drops.iter().filter(|drop| drop.port == "db-1" && drop.reason.contains("meter"));
        let n_metered: u64 = metered.map(|drop| drop.n_packets).sum();
        ensure!(n_metered > n_sent / 2, "{n_metered} of {n_sent}: {drops:?}");
        checks::conservation(fabric).map(drop)
    })
}

/// A DHCP client's first message.
fn discover(mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 1, 2, 3, 4];
    message.resize(28, 0);
    message.extend(mac);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    message
}

fn send_until(message: &[u8], until: Instant) -> Result<u64> {
    let socket = UdpSocket::bind(("0.0.0.0", 68))?;
    socket.set_broadcast(true)?;
    let mut n_sent = 0;
    while Instant::now() < until {
        for _ in 0..50 {
            match socket.send_to(message, ("255.255.255.255", 67)) {
                Ok(_) => n_sent += 1,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) if error.raw_os_error() == Some(105) => {}
                Err(error) => bail!("cannot send: {error}"),
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(n_sent)
}
