//! Linux as a firewall between a client's and a server's network: three namespaces, forwarding, and rules
//! that write what nf_conntrack thinks of a packet into the packet itself, where the receiver reads it.
//!
//! A packet that does not arrive was dropped, which must not be guessed by waiting: behind each packet a
//! second one is sent, the *fence*, on the same processor and the same way, where nothing overtakes.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ferroflow_tests::command::{self, SHORT};
use ferroflow_tests::netns::{self, Netns};
use ferroflow_tests::say;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::packet::{self, End, UDP};
use crate::pair::Outcome;
use crate::{Class, Family, Opinion, Side};

/// Set to `1` by whoever accepts that the comparison is skipped where it cannot be made.
const OFFLINE: &str = "FERROFLOW_OFFLINE";
/// A packet is over when its fence has arrived; when that does not, something is wrong.
const FENCE_LIMIT: Duration = Duration::from_secs(5);
/// Port of fences.
const FENCE: u16 = 9;

/// Interfaces: namespace, name, address, hardware address.
const CLIENT: [&str; 4] = ["c0", "192.0.2.1/30", "fd00:c::1/64", "0a:00:00:00:0c:01"];
const CLIENT_SIDE: [&str; 4] = ["r0", "192.0.2.2/30", "fd00:c::2/64", "0a:00:00:00:0c:02"];
const SERVER_SIDE: [&str; 4] = ["r1", "192.0.2.5/30", "fd00:5::1/64", "0a:00:00:00:05:01"];
const SERVER: [&str; 4] = ["s0", "192.0.2.6/30", "fd00:5::2/64", "0a:00:00:00:05:02"];

/// The firewall, and the two places that packets are sent from.
pub(crate) struct Kernel {
    router: Netns,
    _ends: [Netns; 2],
    /// By side and family.
    senders: [[Socket; 2]; 2],
    receivers: [[Socket; 2]; 2],
    n_fences: u16,
}

/// A connection as /proc/net/nf_conntrack has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// State of TCP and SCTP.
    pub(crate) state: String,
    pub(crate) has_replied: bool,
    pub(crate) original: (End, End),
    pub(crate) reply: (End, End),
}

impl Kernel {
    /// The firewall, unless it cannot be and that was said to be all right.
    ///
    /// # Errors
    /// When something is missing, with its name.
    pub(crate) fn get_or_skip(prefix: &str, nat: &str) -> Result<Option<Self>> {
        let missing = missing();
        if missing.is_empty() {
            return Self::start(prefix, nat).map(Some);
        }
        let missing = missing.join("; ");
        if std::env::var_os(OFFLINE).is_some_and(|value| value == "1") {
            say(&format!("SKIPPED the comparison with nf_conntrack: {missing}, and {OFFLINE}=1 is set"));
            return Ok(None);
        }
        bail!("{missing}; {OFFLINE}=1 skips the comparison with nf_conntrack")
    }

    fn start(prefix: &str, nat: &str) -> Result<Self> {
        let [client, router, server] =
            ["client", "router", "server"].map(|name| Netns::create(&format!("{prefix}-{name}")));
        let (client, router, server) = (client?, router?, server?);
        join((&client, CLIENT), (&router, CLIENT_SIDE))?;
        join((&router, SERVER_SIDE), (&server, SERVER))?;
        for (via, client_net, server_net) in [
            (
                ["192.0.2.1", "192.0.2.6"],
                ["10.1.0.0/16", "203.0.113.0/24"],
                ["10.2.0.0/16", "198.51.100.0/24"],
            ),
            (["fd00:c::1", "fd00:5::2"], ["fd01::/16", "fd03::/16"], ["fd02::/16", "fd04::/16"]),
        ] {
            for (via, nets) in via.into_iter().zip([client_net, server_net]) {
                for net in nets {
                    router.ip(&["route", "add", net, "via", via])?;
                }
            }
        }
        for (netns, via) in [(&client, ["192.0.2.2", "fd00:c::2"]), (&server, ["192.0.2.5", "fd00:5::1"])] {
            for via in via {
                netns.ip(&["route", "add", "default", "via", via])?;
            }
        }
        router.set_sysctls(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.netfilter.nf_conntrack_tcp_be_liberal", "0"),
            ("net.netfilter.nf_conntrack_tcp_loose", "1"),
            ("net.netfilter.nf_conntrack_checksum", "1"),
        ])?;
        command::output(router.command("nft").arg(rules(nat)), SHORT).context("rules of the firewall")?;
        let (senders, receivers) = (
            [open(&client, sender)?, open(&server, sender)?],
            [open(&client, receiver)?, open(&server, receiver)?],
        );
        let mut kernel = Self { router, _ends: [client, server], senders, receivers, n_fences: 0 };
        kernel.stay_on_one_processor()?;
        Ok(kernel)
    }

    /// Each processor has a queue of its own: on one of them order is kept.
    fn stay_on_one_processor(&mut self) -> Result<()> {
        let mut one = CpuSet::new();
        let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
        let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        one.set(first.context("no processor")?)?;
        Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
    }

    /// Sends a packet from one side; what the other receives, and what the tracker said. Nothing when it
    /// was dropped.
    pub(crate) fn send(&mut self, from: Side, family: Family, bytes: &[u8]) -> Result<Outcome> {
        let (mark, to) = {
            let read = packet::read(bytes)?;
            (read.mark, read.dst.ip)
        };
        self.transmit(from, family, bytes, to)?;
        if let Some(found) =
            self.receive(from.other(), family, |read| read.dst.port != FENCE && read.mark == mark)?
        {
            return Ok(Some(found));
        }
        Ok(self.until_fence(from, family, mark)?.pop())
    }

    /// Sends fragments of one packet; all that the other side receives of it.
    pub(crate) fn send_all(
        &mut self,
        from: Side,
        family: Family,
        pieces: &[Vec<u8>],
    ) -> Result<Vec<(Opinion, Vec<u8>)>> {
        let Some(first) = pieces.first() else { return Ok(Vec::new()) };
        let (mark, to) = {
            let read = packet::read(first)?;
            (read.mark, read.dst.ip)
        };
        pieces.iter().try_for_each(|piece| self.transmit(from, family, piece, to))?;
        self.until_fence(from, family, mark)
    }

    /// What arrives of the packets with a mark until a fence does that is sent now.
    fn until_fence(&mut self, from: Side, family: Family, mark: u16) -> Result<Vec<(Opinion, Vec<u8>)>> {
        self.n_fences = self.n_fences.wrapping_add(1);
        let n = self.n_fences;
        let (src, dst) = family.fence(from);
        let fence = packet::udp(End { ip: src, port: FENCE }, End { ip: dst, port: FENCE }, n, b"fence");
        self.transmit(from, family, &fence, dst)?;
        let is_fence =
            |read: &packet::Read| read.proto == UDP && read.src.ip == src && read.dst.port == FENCE;
        let start = Instant::now();
        let mut found = Vec::new();
        while start.elapsed() < FENCE_LIMIT {
            let next = self
                .receive(from.other(), family, |read| read.mark == if is_fence(read) { n } else { mark })?;
            match next {
                Some((_, bytes)) if is_fence(&packet::read(&bytes)?) => return Ok(found),
                Some(packet) => found.push(packet),
                None => std::thread::yield_now(),
            }
        }
        bail!("a packet that nothing should drop did not arrive")
    }

    fn transmit(&self, from: Side, family: Family, bytes: &[u8], to: IpAddr) -> Result<()> {
        let to: SockAddr = SocketAddr::new(to, 0).into();
        let sent = self.senders[from as usize][family as usize].send_to(bytes, &to);
        sent.with_context(|| format!("cannot send {bytes:02x?}")).map(drop)
    }

    /// The next packet that is there already and wanted.
    fn receive(
        &self,
        at: Side,
        family: Family,
        is_wanted: impl Fn(&packet::Read) -> bool,
    ) -> Result<Outcome> {
        let mut socket = &self.receivers[at as usize][family as usize];
        let mut buffer = [0; 2048];
        loop {
            let len = match socket.read(&mut buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("cannot receive"),
            };
            let Ok(read) = packet::read(&buffer[..len]) else { continue };
            if is_wanted(&read) {
                return Ok(Some((opinion(read.dscp), buffer[..len].to_vec())));
            }
        }
    }

    /// The connections there are.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        let text = self.router.inside(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"))??;
        text.lines().map(|line| entry(line).with_context(|| format!("not a connection: {line}"))).collect()
    }
}

/// What the comparison needs and the host does not have.
fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !std::path::Path::new("/proc/thread-self/net/nf_conntrack").exists() {
        missing.push("the kernel has no nf_conntrack (CONFIG_NF_CONNTRACK and CONFIG_NF_CONNTRACK_PROCFS; modprobe nf_conntrack)");
    }
    if !ferroflow_tests::daemon::has_command("nft") {
        missing.push("there is no nft (Debian: apt-get install nftables)");
    }
    missing
}

fn join(a: (&Netns, [&str; 4]), b: (&Netns, [&str; 4])) -> Result<()> {
    netns::link(
        netns::End { mac: Some(a.1[3]), ..netns::End::new(a.0, a.1[0]) },
        netns::End { mac: Some(b.1[3]), ..netns::End::new(b.0, b.1[0]) },
        1500,
    )?;
    for ((netns, [name, v4, v6, _]), (_, [_, peer_v4, peer_v6, peer_mac])) in [(a, b), (b, a)] {
        netns.ip(&["address", "add", v4, "dev", name])?;
        netns.ip(&["address", "add", v6, "dev", name, "nodad"])?;
        for peer in [peer_v4, peer_v6] {
            let peer = peer.split('/').next().unwrap_or(peer);
            netns.ip(&["neighbour", "add", peer, "lladdr", peer_mac, "dev", name])?;
        }
    }
    Ok(())
}

fn open(netns: &Netns, socket: fn(Family) -> std::io::Result<Socket>) -> Result<[Socket; 2]> {
    let sockets = netns.inside(|| Ok::<_, std::io::Error>([socket(Family::V4)?, socket(Family::V6)?]))?;
    sockets.context("raw sockets")
}

fn sender(family: Family) -> std::io::Result<Socket> {
    let any = Some(Protocol::from(255));
    match family {
        Family::V4 => {
            let socket = Socket::new(Domain::IPV4, Type::RAW, any)?;
            socket.set_header_included_v4(true)?;
            Ok(socket)
        }
        Family::V6 => {
            let socket = Socket::new(Domain::IPV6, Type::RAW, any)?;
            socket.set_header_included_v6(true)?;
            Ok(socket)
        }
    }
}

/// What comes in by any interface; what goes out is not seen by sockets for one kind of packets.
fn receiver(family: Family) -> std::io::Result<Socket> {
    let ethertype: u16 = match family {
        Family::V4 => 0x0800,
        Family::V6 => 0x86dd,
    };
    let socket =
        Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(ethertype.to_be()))))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(1 << 20)?;
    Ok(socket)
}

/// Rules that write into the traffic class: three bits of class, one for the reply direction.
fn rules(nat: &str) -> String {
    let mut stamps = String::new();
    for (class, name) in [(1, "new"), (2, "established"), (3, "related")] {
        for (reply, direction) in [(0, "original"), (8, "reply")] {
            for ip in ["ip", "ip6"] {
                let value = class | reply;
                stamps += &format!("ct state {name} ct direction {direction} {ip} dscp set {value}\n");
            }
        }
    }
    format!(
        "table inet firewall {{
            chain early {{ type filter hook prerouting priority -300; udp sport {FENCE} udp dport {FENCE} notrack; }}
            chain forward {{ type filter hook forward priority 0; policy accept;
                {stamps}
                ct state invalid ip dscp set 4
                ct state invalid ip6 dscp set 4
            }}
            {nat}
        }}"
    )
}

fn opinion(dscp: u8) -> Opinion {
    let class = match dscp & 7 {
        1 => Class::New,
        2 => Class::Established,
        3 => Class::Related,
        4 => Class::Invalid,
        _ => Class::Untracked,
    };
    Opinion { class, is_reply: dscp & 8 != 0 }
}

/// One line: protocol and state, a tuple, perhaps `[UNREPLIED]`, the other tuple.
fn entry(line: &str) -> Option<Entry> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let values =
        |name: &str| -> Vec<&str> { words.iter().filter_map(|word| word.strip_prefix(name)).collect() };
    let (src, dst, sport, dport) = (values("src="), values("dst="), values("sport="), values("dport="));
    // Pings have identifiers instead.
    let id = values("id=");
    let tuple = |idx: usize| {
        let end = |ip: &[&str], port: &[&str]| -> Option<End> {
            let port = port.get(idx).or(id.get(idx)).map_or(Some(0), |port| port.parse().ok())?;
            Some(End { ip: ip.get(idx)?.parse().ok()?, port })
        };
        Some((end(&src, &sport)?, end(&dst, &dport)?))
    };
    let state = words
        .get(5)
        .filter(|word| word.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit()));
    Some(Entry {
        state: (*state.unwrap_or(&"")).to_owned(),
        has_replied: !words.contains(&"[UNREPLIED]"),
        original: tuple(0)?,
        reply: tuple(1)?,
    })
}

#[test]
fn an_entry_is_read() {
    let line = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.1.0.1 dst=10.2.0.2 sport=7 dport=8 \
                src=10.2.0.2 dst=203.0.113.5 sport=8 dport=9 [ASSURED] mark=0 zone=0 use=2";
    let entry = entry(line).unwrap();
    assert_eq!((entry.state.as_str(), entry.has_replied), ("ESTABLISHED", true));
    assert_eq!((entry.original.0.port, entry.reply.1.port), (7, 9));
}
