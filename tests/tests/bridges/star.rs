//! A switch with some hosts.
//!
//! ```text
//!   PREFIX-h1: eth0 10.0.0.1 ----- p1 |
//!   PREFIX-h2: eth0 10.0.0.2 ----- p2 | PREFIX-switch: vswitchd
//!   ...                                | uplink 172.31.0.1 ----- uplink 172.31.0.2: PREFIX-beyond
//! ```

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::probe::Probe;
use ferroflow_tests::{scenario, stop};

use crate::switch::Switch;
use crate::{LIMIT, MTU, PROBE};

/// Where datagrams are sent to.
const PORT: u16 = 7000;
/// Datagrams that a socket surely holds.
const BURST: usize = 32;

/// What a star has beside its hosts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kind {
    /// Hosts.
    pub(crate) n_hosts: usize,
    /// They have IPv6 as well; otherwise nobody says anything by himself.
    pub(crate) has_ipv6: bool,
    /// There is an uplink with tunnels.
    pub(crate) has_uplink: bool,
    /// Without rules everything is dropped.
    pub(crate) is_secure: bool,
}

/// A switch and its hosts. Dropping it removes everything.
pub(crate) struct Star {
    // Dropped in this order.
    pub(crate) switch: Switch,
    pub(crate) hosts: Vec<Netns>,
    /// At the other end of the uplink.
    pub(crate) beyond: Option<Netns>,
    pub(crate) probe: Probe,
    pub(crate) dir: PathBuf,
    _guard: scenario::Dir,
}

impl Star {
    fn start(prefix: &str, kind: Kind) -> Result<Self> {
        let dir = scenario::dir(prefix);
        let guard = scenario::Dir::create(&dir)?;
        let disable_ipv6 = if kind.has_ipv6 { "0" } else { "1" };
        let netns = |part: &str| -> Result<Netns> {
            let netns = Netns::create(&format!("{prefix}-{part}"))?;
            netns.set_sysctls(&[
                ("net.ipv6.conf.all.disable_ipv6", disable_ipv6),
                ("net.ipv6.conf.default.disable_ipv6", disable_ipv6),
                ("net.ipv6.conf.default.accept_dad", "0"),
            ])?;
            Ok(netns)
        };
        let switch = netns("switch")?;
        let mut hosts = Vec::new();
        for n in 1..=kind.n_hosts {
            let host = netns(&format!("h{n}"))?;
            let address = format!("10.0.0.{n}/24");
            let end = End { address: Some(&address), ..End::new(&host, "eth0") };
            netns::link(end, End::new(&switch, &format!("p{n}")), MTU)?;
            hosts.push(host);
        }
        let mut args = vec!["--fail-mode", if kind.is_secure { "secure" } else { "standalone" }];
        let mut beyond = None;
        if kind.has_uplink {
            let other = netns("beyond")?;
            netns::link(
                End { address: Some("172.31.0.1/30"), ..End::new(&switch, "uplink") },
                End { address: Some("172.31.0.2/30"), ..End::new(&other, "uplink") },
                MTU + 50,
            )?;
            args.extend(["--uplink", "uplink", "--encap-ip", "172.31.0.1"]);
            args.extend(["--encap-type", "geneve,vxlan", "--tunnel-peer", "172.31.0.2"]);
            beyond = Some(other);
        }
        let switch = Switch::start(switch, &dir, &args)?;
        let probe = Probe { program: PROBE.into(), words: Vec::new() };
        Ok(Self { switch, hosts, beyond, probe, dir, _guard: guard })
    }

    /// The address of a host, which are counted from 1 on.
    pub(crate) fn address(n: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, n as u8)
    }

    /// A host.
    pub(crate) fn host(&self, n: usize) -> &Netns {
        &self.hosts[n - 1]
    }

    /// All hosts' ports.
    pub(crate) fn add_ports(&self) -> Result<()> {
        let names: Vec<String> = (1..=self.hosts.len()).map(|n| format!("p{n}")).collect();
        self.switch.add_ports(names.iter().map(String::as_str))
    }

    /// Answers to `n` echo requests.
    pub(crate) fn ping(&self, from: usize, to: usize, n: u64) -> Result<u64> {
        Ok(self.probe.ping(self.host(from), Self::address(to), n, 56)?.n_received)
    }

    /// One host reaches another one, sooner or later.
    pub(crate) fn wait_for_ping(&self, from: usize, to: usize) -> Result<()> {
        stop::wait_for(&format!("host {to} answers host {from}"), LIMIT, || {
            Ok(if self.ping(from, to, 1)? == 1 { Ok(()) } else { Err("no answer".to_owned()) })
        })
    }

    /// Sends so many datagrams of this length from one host to another one, who takes them: all arrive.
    pub(crate) fn send(
        &self,
        (from, to): (usize, usize),
        source: u16,
        (n, len): (usize, usize),
    ) -> Result<()> {
        let at = |host: usize, port: u16| SocketAddr::from((Self::address(host), port));
        let receiver = self.host(to).inside(|| UdpSocket::bind(at(to, PORT)))??;
        receiver.set_read_timeout(Some(Duration::from_secs(5)))?;
        let sender = self.host(from).inside(|| UdpSocket::bind(at(from, source)))??;
        sender.connect(at(to, PORT))?;
        let (payload, mut room) = (vec![0x5a; len], vec![0; len + 1]);
        let mut n_sent = 0;
        while n_sent < n {
            // No more than are surely waiting for nobody.
            let burst = BURST.min(n - n_sent);
            for _ in 0..burst {
                ensure!(sender.send(&payload)? == len, "a datagram was cut");
            }
            for _ in 0..burst {
                let received =
                    receiver.recv(&mut room).with_context(|| format!("after {n_sent} datagrams"))?;
                ensure!(received == len, "{received} bytes arrived instead of {len}");
            }
            n_sent += burst;
        }
        Ok(())
    }
}

pub(crate) fn on_star(name: &str, kind: Kind, scenario: impl FnOnce(&mut Star) -> Result<()>) -> Result<()> {
    scenario::run(name, |prefix| {
        let mut star = Star::start(prefix, kind)?;
        let result = scenario(&mut star).and_then(|()| star.switch.check());
        result.with_context(|| star.switch.told())
    })
}
