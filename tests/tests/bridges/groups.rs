//! Who hears which group: the kernel's members by IGMP and MLD, our querier, and the kernel's as a router.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::Daemon;
use ferroflow_tests::stop;
use serde_json::Value;

use crate::star::{Kind, Star, on_star};
use crate::tcpdump::Tcpdump;
use crate::{LIMIT, PROBE};

const GROUP_V4: &str = "239.1.2.3";
const GROUP_V6: &str = "ff15::1:2:3";
const PORT: u16 = 5353;
/// How long hosts take to answer a query at most, and some time for it (RFC 3376 §8.3, RFC 3810 §9.3).
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Datagrams of a question to a group.
const N_ASKED: u64 = 3;

/// The group in a family.
fn group(is_v6: bool) -> SocketAddr {
    let group: IpAddr =
        if is_v6 { GROUP_V6 } else { GROUP_V4 }.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    SocketAddr::new(group, PORT)
}

/// A host's address in a family.
fn own(n: usize, is_v6: bool) -> IpAddr {
    let v6 = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n as u16);
    if is_v6 { v6.into() } else { Star::address(n).into() }
}

/// Addresses of IPv6 as well, and the ports.
fn prepare(star: &Star) -> Result<()> {
    for n in 1..=star.hosts.len() {
        star.host(n).ip(&["address", "add", &format!("{}/64", own(n, true)), "dev", "eth0", "nodad"])?;
    }
    star.add_ports()?;
    star.wait_for_ping(1, 2)
}

/// A host becomes a member, as the kernel says it.
fn join(star: &Star, n: usize, is_v6: bool) -> Result<Daemon> {
    let mut command = star.host(n).command("setpriv");
    command.args(["--pdeathsig", "KILL", "--", PROBE, "group-echo"]);
    command.args([group(is_v6).to_string(), own(n, is_v6).to_string()]);
    Daemon::spawn(command, "a member".to_owned(), &star.dir.join("members.log"))
}

/// Ports where somebody hears this; without a group, everything.
fn hearers(protocols: &Value, group: &str) -> Vec<String> {
    let members = protocols["group_members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = members.iter().filter(|member| member["group"] == group);
    of.filter_map(|member| member["port"].as_str().map(str::to_owned)).collect()
}

fn wait_for_hearers(star: &Star, is_v6: bool, ports: &[&str], limit: Duration) -> Result<()> {
    stop::wait_for(&format!("{ports:?} hear the group"), limit, || {
        let protocols = star.switch.protocols()?;
        let hear = hearers(&protocols, if is_v6 { GROUP_V6 } else { GROUP_V4 });
        Ok(if hear == ports { Ok(()) } else { Err(protocols["group_members"].to_string()) })
    })
}

/// Host 1 asks the group: who answers, and how many datagrams to it came to host 4.
fn ask(star: &Star, is_v6: bool) -> Result<(Vec<String>, usize)> {
    let at = Tcpdump::start(star.host(4), "eth0", &star.dir, &format!("udp dst port {PORT}"))?;
    let answers = star.probe.ask_group((star.host(1), own(1, is_v6)), group(is_v6), N_ASKED)?;
    ensure!(answers.values().all(|n| *n == N_ASKED), "{answers:?}");
    Ok((answers.into_keys().collect(), at.frames()?.len()))
}

fn members(is_v6: bool) -> Result<()> {
    let kind = Kind { n_hosts: 4, has_ipv6: true, ..Kind::default() };
    on_star(if is_v6 { "members_by_mld" } else { "members_by_igmp" }, kind, |star| {
        prepare(star)?;
        star.switch.set(&["multicast.snooping=true", "multicast.fast-leave=true"])?;
        // Nobody has said anything: all hear it.
        let (answers, n) = ask(star, is_v6)?;
        ensure!(answers.is_empty() && n == N_ASKED as usize, "{answers:?}, {n}");
        let mut two = join(star, 2, is_v6)?;
        let three = join(star, 3, is_v6)?;
        wait_for_hearers(star, is_v6, &["p2", "p3"], LIMIT)?;
        let (answers, n) = ask(star, is_v6)?;
        ensure!(answers == [own(2, is_v6).to_string(), own(3, is_v6).to_string()], "{answers:?}");
        ensure!(n == 0, "host 4 has not asked for it, and has heard {n}");
        // One leaves; the kernel says so.
        two.stop()?;
        wait_for_hearers(star, is_v6, &["p3"], LIMIT)?;
        let (answers, n) = ask(star, is_v6)?;
        ensure!((answers, n) == (vec![own(3, is_v6).to_string()], 0), "only host 3 hears it");
        // What nobody wants goes to routers alone, if that is said; there is none.
        drop(three);
        wait_for_hearers(star, is_v6, &[], LIMIT)?;
        star.switch.set(&["multicast.flood-unregistered=false"])?;
        let (answers, n) = ask(star, is_v6)?;
        ensure!(answers.is_empty() && n == 0, "{answers:?}, {n}");
        // Groups of the link itself are for all, and neighbours are found.
        ensure!(star.ping(1, 4, 2)? == 2, "hosts do not find each other");
        let mut ping = star.host(1).command("ping");
        let ping = ferroflow_tests::command::run(ping.args(["-6", "-c", "2", "-W", "2", "fd00::4"]), LIMIT)?;
        ensure!(ping.status.success(), "{}", ping.stdout);
        Ok(())
    })
}

#[test]
fn the_kernels_members_by_igmp_hear_their_group_and_others_do_not() -> Result<()> {
    members(false)
}

#[test]
fn the_kernels_members_by_mld_hear_their_group_and_others_do_not() -> Result<()> {
    members(true)
}

#[test]
fn who_was_a_member_before_is_found_by_asking() -> Result<()> {
    let kind = Kind { n_hosts: 4, has_ipv6: true, ..Kind::default() };
    on_star("who_was_a_member_before", kind, |star| {
        prepare(star)?;
        let _members = [join(star, 2, false)?, join(star, 3, true)?];
        // What they say by themselves is over.
        std::thread::sleep(Duration::from_secs(3));
        let at = Tcpdump::start(star.host(4), "eth0", &star.dir, "igmp or ip6")?;
        star.switch.set(&["multicast.snooping=true", "multicast.querier=10.0.0.200"])?;
        wait_for_hearers(star, false, &["p2"], ANSWER_LIMIT)?;
        wait_for_hearers(star, true, &["p3"], ANSWER_LIMIT)?;
        // The kernel takes them for queries of the versions that it answers by default.
        let version = |n: usize, family: &str| {
            let path = format!("/proc/net/{family}");
            star.host(n).inside(|| std::fs::read_to_string(&path))?.with_context(|| path.clone())
        };
        ensure!(version(2, "igmp")?.contains(" V3"), "{}", version(2, "igmp")?);
        let frames = at.frames()?;
        let is_query = |frame: &[u8]| {
            // IGMP behind an IP header with one option; MLD behind a hop-by-hop header.
            frame.get(14) == Some(&0x46) && frame.get(38) == Some(&0x11) || frame.get(62) == Some(&130)
        };
        let n = frames.iter().filter(|(frame, _)| is_query(frame)).count();
        ensure!(n >= 2, "one of each: {n} of {}", frames.len());
        Ok(())
    })
}

#[test]
fn the_kernels_querier_is_a_router_and_hears_what_members_say() -> Result<()> {
    let kind = Kind { n_hosts: 4, ..Kind::default() };
    on_star("the_kernels_querier", kind, |star| {
        // Host 4 is a bridge that asks, with its only port to ours.
        star.host(4).ip(&["address", "flush", "dev", "eth0"])?;
        #[rustfmt::skip]
        star.host(4).ip(&[
            "link", "add", "bridge0", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1",
            "mcast_query_use_ifaddr", "1", "mcast_startup_query_interval", "100", "stp_state", "0",
        ])?;
        star.host(4).ip(&["link", "set", "eth0", "master", "bridge0"])?;
        star.host(4).ip(&["address", "add", "10.0.0.4/24", "dev", "bridge0"])?;
        star.add_ports()?;
        star.wait_for_ping(1, 2)?;
        star.switch.set(&["multicast.snooping=true", "multicast.querier=10.0.0.200"])?;
        star.host(4).ip(&["link", "set", "bridge0", "up"])?;
        stop::wait_for("its queries are heard", LIMIT, || {
            let protocols = star.switch.protocols()?;
            let hear = hearers(&protocols, "");
            Ok(if hear == ["p4"] { Ok(()) } else { Err(protocols["group_members"].to_string()) })
        })?;
        // What a member says gets to it, and not to the others; packets to the group get to it as well.
        let at = Tcpdump::start(star.host(1), "eth0", &star.dir, "igmp[0] = 0x22")?;
        let _member = join(star, 2, false)?;
        wait_for_hearers(star, false, &["p2"], LIMIT)?;
        stop::wait_for("the kernel's bridge knows of the member", LIMIT, || {
            let mut bridge = star.host(4).command("bridge");
            let known = ferroflow_tests::command::output(bridge.args(["mdb", "show"]), LIMIT)?;
            let is_known = known.lines().any(|line| line.contains("port eth0") && line.contains(GROUP_V4));
            Ok(if is_known { Ok(()) } else { Err(known) })
        })?;
        ensure!(at.frames()?.is_empty(), "who is no router has heard a report");
        let (answers, n) = ask(star, false)?;
        ensure!(answers == [Star::address(2).to_string()], "{answers:?}");
        ensure!(n == N_ASKED as usize, "the router has heard {n}");
        Ok(())
    })
}
