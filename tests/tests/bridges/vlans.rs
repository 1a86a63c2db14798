//! Tags: Open vSwitch gets the same frames as ours, port by port, and each receiver is to see the same of both.
//!
//! ```text
//!   PREFIX-switch: vswitchd   p1 ----- ours | PREFIX-h1 | theirs ----- p1   PREFIX-peer: Open vSwitch
//!                             p2 ----- ours | PREFIX-h2 | theirs ----- p2
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::netns::{self, End, Netns};
use ferroflow_tests::raw_frames::{any_frames, wire};
use ferroflow_tests::{scenario, stop};
use oracle::ovs::package::Package;
use socket2::{SockAddr, Socket};

use crate::ovs::OpenVSwitch;
use crate::switch::Switch;
use crate::tcpdump::Tcpdump;
use crate::{LIMIT, MTU};

/// For experiments (IEEE 802, §9.2.3).
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;
/// What says that a frame is of this test; its number follows.
const MARK: &[u8; 8] = b"ferroflo";
const INTERFACES: [&str; 2] = ["ours", "theirs"];
/// Between two frames, so that nobody is overrun.
const PAUSE: Duration = Duration::from_millis(2);
/// How long after the last frame that is to come another one may be under way.
const SETTLE: Duration = Duration::from_millis(500);

/// Tags of a frame, outermost first: type, then priority and VLAN.
type Tags = &'static [(u16, u16)];

/// How a port takes part, in words that both understand: mode, tag, trunks; zero or nothing is not said.
type Port = (&'static str, u16, &'static str);

/// A host with an interface to each bridge.
struct Place {
    netns: Netns,
    sender: Socket,
    /// The interfaces, as sockets name them.
    wires: Vec<SockAddr>,
}

impl Place {
    fn new(prefix: &str, n: usize, bridges: [&Netns; 2]) -> Result<Self> {
        let netns = silent(&format!("{prefix}-h{n}"))?;
        let mut wires = Vec::new();
        for (interface, bridge) in INTERFACES.into_iter().zip(bridges) {
            netns::link(End::new(&netns, interface), End::new(bridge, &format!("p{n}")), MTU)?;
            wires.push(wire(&netns, interface)?);
            // The other one is alone as well when it says something.
            netns.ip(&["link", "set", interface, "down"])?;
        }
        for interface in INTERFACES {
            netns.ip(&["link", "set", interface, "up"])?;
        }
        let sender = netns.inside(any_frames)??;
        Ok(Self { netns, sender, wires })
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        for wire in &self.wires {
            ensure!(self.sender.send_to(frame, wire)? == frame.len(), "a frame was cut");
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// A namespace where nobody says anything by himself.
fn silent(name: &str) -> Result<Netns> {
    let netns = Netns::create(name)?;
    let none = ["all", "default"].map(|which| format!("net.ipv6.conf.{which}.disable_ipv6"));
    netns.set_sysctls(&none.each_ref().map(|name| (name.as_str(), "1")))?;
    Ok(netns)
}

/// Both bridges with the same ports.
struct Pair {
    places: Vec<Place>,
    /// Those who are customers: what a provider's tag of theirs means is nobody's agreement.
    customers: BTreeSet<usize>,
    // What runs ends before its namespace goes.
    switch: Switch,
    _ovs: OpenVSwitch,
    _peer: Netns,
    dir: PathBuf,
    _guard: scenario::Dir,
}

impl Pair {
    fn start(prefix: &str, ports: &[Port], package: Package) -> Result<Self> {
        let dir = scenario::dir(prefix);
        let guard = scenario::Dir::create(&dir)?;
        let (switch, peer) = (silent(&format!("{prefix}-switch"))?, silent(&format!("{prefix}-peer"))?);
        let mut places = Vec::new();
        for n in 1..=ports.len() {
            places.push(Place::new(prefix, n, [&switch, &peer])?);
        }
        let ovs = OpenVSwitch::start(package, &peer, &dir)?;
        // It looks at two tags only when it is told to.
        ovs.vsctl(&peer, &["set", "Open_vSwitch", ".", "other_config:vlan-limit=2"])?;
        ovs.vsctl(&peer, &["add-br", "br", "--", "set", "bridge", "br", "datapath_type=netdev"])?;
        let switch = Switch::start(switch, &dir, &["--fail-mode", "standalone"])?;
        for (n, (mode, tag, trunks)) in ports.iter().enumerate() {
            let (name, tag) = (format!("p{}", n + 1), tag.to_string());
            let mut ours = vec!["port", "mod", &name, "--vlan-mode", mode];
            let mut theirs = vec![format!("vlan_mode={mode}")];
            if tag != "0" {
                ours.extend(["--tag", &tag]);
                theirs.push(format!("tag={tag}"));
            }
            if !trunks.is_empty() {
                ours.extend(["--trunks", trunks]);
                theirs.push(format!("trunks={trunks}"));
            }
            switch.control.text(&["port", "add", &name])?;
            switch.control.text(&ours)?;
            let theirs = theirs.iter().map(String::as_str);
            let words: Vec<&str> = ["add-port", "br", &name].into_iter().chain(theirs).collect();
            ovs.vsctl(&peer, &words)?;
        }
        let is_customer = |n: &usize| ports.get(*n).is_some_and(|(mode, ..)| *mode == "dot1q-tunnel");
        let customers = (0..ports.len()).filter(is_customer).collect();
        Ok(Self { places, customers, switch, _ovs: ovs, _peer: peer, dir, _guard: guard })
    }

    /// Tags that somebody sends.
    fn kinds<'k>(&self, from: usize, kinds: &'k [Tags]) -> impl Iterator<Item = Tags> + use<'k> {
        let is_customer = self.customers.contains(&from);
        let is_providers = |tags: &Tags| tags.first().is_some_and(|(kind, _)| *kind == S_TAG);
        kinds.iter().copied().filter(move |tags| !(is_customer && is_providers(tags)))
    }

    /// Sends all kinds of frames from everywhere to everywhere. Gives how many arrived somewhere.
    fn compare(&mut self, kinds: &[Tags]) -> Result<usize> {
        let mut looking = Vec::new();
        for place in &self.places {
            let at = |interface| look(place, interface, &self.dir);
            looking.push([at(INTERFACES[0])?, at(INTERFACES[1])?]);
        }
        let mut sent: Vec<(usize, Tags)> = Vec::new();
        // First each is heard in all its VLANs, so that what follows does not depend on who is faster.
        for (from, place) in self.places.iter().enumerate() {
            for tags in self.kinds(from, kinds) {
                place.send(&frame([0xff; 6], station(from), tags, sent.len() as u32))?;
                sent.push((from, tags));
            }
        }
        self.agree(&looking, &sent)?;
        let nobody = station(99);
        for (from, place) in self.places.iter().enumerate() {
            for tags in self.kinds(from, kinds) {
                for to in (0..self.places.len()).map(station).chain([[0xff; 6], nobody]) {
                    place.send(&frame(to, station(from), tags, sent.len() as u32))?;
                    sent.push((from, tags));
                }
            }
        }
        let n_arrived = self.agree(&looking, &sent)?;
        self.switch.check()?;
        Ok(n_arrived)
    }

    /// All who look see the same of both, and nothing else comes.
    fn agree(&self, looking: &[[Tcpdump; 2]], sent: &[(usize, Tags)]) -> Result<usize> {
        let wait = |what: &str| {
            stop::wait_for(what, LIMIT, || {
                let mut n_arrived = 0;
                for (to, [ours, theirs]) in looking.iter().enumerate() {
                    let (ours, theirs) = (seen(ours)?, seen(theirs)?);
                    if let Err(why) = same(to, &ours, &theirs, sent) {
                        return Ok(Err(why));
                    }
                    n_arrived += ours.len();
                }
                Ok(Ok(n_arrived))
            })
        };
        wait("both bridges agree")?;
        std::thread::sleep(SETTLE);
        wait("both bridges still agree")
    }
}

/// Frames by their numbers.
type Seen = BTreeMap<u32, BTreeSet<Vec<u8>>>;

fn look(place: &Place, interface: &str, dir: &Path) -> Result<Tcpdump> {
    Tcpdump::start(&place.netns, interface, dir, "")
}

/// Frames of this test that somebody has seen.
fn seen(by: &Tcpdump) -> Result<Seen> {
    let mut seen = Seen::new();
    for (frame, _) in by.frames()? {
        let Some(mark) = frame.windows(MARK.len()).position(|window| window == MARK) else { continue };
        let number =
            frame.get(mark + MARK.len()..mark + MARK.len() + 4).and_then(|bytes| bytes.try_into().ok());
        let number = number.map(u32::from_be_bytes).context("a frame lacks its end")?;
        ensure!(seen.entry(number).or_default().insert(frame), "frame {number} came twice");
    }
    Ok(seen)
}

fn same(to: usize, ours: &Seen, theirs: &Seen, sent: &[(usize, Tags)]) -> Result<(), String> {
    let numbers: BTreeSet<u32> = ours.keys().chain(theirs.keys()).copied().collect();
    let differs = |number: &&u32| ours.get(*number) != theirs.get(*number);
    let Some(number) = numbers.iter().find(differs) else { return Ok(()) };
    let (from, tags) = sent.get(*number as usize).copied().unwrap_or_default();
    let show = |seen: &Seen| seen.get(number).map(|frames| format!("{frames:02x?}"));
    Err(format!(
        "frame {number} of p{} with {tags:x?} at p{}: ours {:?}, theirs {:?}",
        from + 1,
        to + 1,
        show(ours),
        show(theirs)
    ))
}

fn station(place: usize) -> [u8; 6] {
    [0x02, 0, 0, 0, 0x77, place as u8 + 1]
}

fn frame(to: [u8; 6], from: [u8; 6], tags: Tags, number: u32) -> Vec<u8> {
    let mut frame = [to, from].concat();
    for (kind, tci) in tags {
        frame.extend([kind.to_be_bytes(), tci.to_be_bytes()].concat());
    }
    frame.extend(ETHER_TYPE);
    frame.extend(MARK);
    frame.extend(number.to_be_bytes());
    // No shorter than Ethernet has it, even without its tags.
    frame.resize(frame.len().max(64), 0x5a);
    frame
}

fn compare(name: &str, ports: &[Port], kinds: &[Tags], n_least: usize) -> Result<()> {
    let Some(package) = Package::get_or_skip(name)? else { return Ok(()) };
    scenario::run(name, |prefix| {
        let mut pair = Pair::start(prefix, ports, package)?;
        let result = pair.compare(kinds);
        let n_arrived = result.with_context(|| pair.switch.told())?;
        ensure!(n_arrived > n_least, "only {n_arrived} frames arrived anywhere");
        Ok(())
    })
}

#[test]
fn open_vswitch_sends_the_same_frames_to_the_same_ports_with_the_same_tags() -> Result<()> {
    let ports: [Port; 6] = [
        ("access", 10, ""),
        ("access", 10, ""),
        ("access", 20, ""),
        ("trunk", 0, "10,20"),
        ("native-untagged", 10, "10,20"),
        ("native-tagged", 20, "20,30"),
    ];
    let kinds: [Tags; 8] = [
        &[],
        // A priority without a VLAN.
        &[(C_TAG, 5 << 13)],
        &[(C_TAG, 10)],
        &[(C_TAG, 3 << 13 | 10)],
        &[(C_TAG, 20)],
        &[(C_TAG, 30)],
        &[(C_TAG, 99)],
        &[(C_TAG, 20), (C_TAG, 7)],
    ];
    compare("open_vswitch_sends_the_same_frames", &ports, &kinds, 300)
}

#[test]
fn open_vswitch_puts_the_same_tags_around_customers_frames() -> Result<()> {
    let ports: [Port; 4] = [
        ("dot1q-tunnel", 100, ""),
        ("dot1q-tunnel", 100, ""),
        ("dot1q-tunnel", 200, ""),
        ("trunk", 0, "100,200"),
    ];
    let kinds: [Tags; 6] = [
        &[],
        &[(C_TAG, 10)],
        &[(C_TAG, 3 << 13 | 10)],
        &[(S_TAG, 100), (C_TAG, 10)],
        &[(S_TAG, 200)],
        &[(S_TAG, 99), (C_TAG, 10)],
    ];
    compare("open_vswitch_puts_the_same_tags", &ports, &kinds, 60)
}
