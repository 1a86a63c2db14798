//! `port`: interfaces attached to the switch, and the logical ports they are for.

use clap::{Args, Subcommand, ValueEnum};
use ferroflow_proto::host::{
    AddPortRequest, ListPortsRequest, ModifyPortRequest, Port, PortCounters, PortQueue, PortQueues, PortVlan,
    RemovePortRequest,
};
use serde::Serialize;

use super::{
    guest::{Guest, GuestView},
    rate,
};
use crate::{
    address::Daemon,
    error::CtlError,
    name::{Noun, Reference},
    net::binding::wait_until_up,
    output::{Tabular, printable, short, yes},
    session::{Session, host_answer},
};

/// Interfaces attached to the switch.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List ports with their counters
    List(List),
    /// Attach an interface, or add one end of a link to another bridge; adding it again
    /// changes nothing
    Add(Add),
    /// Change how a port takes part in forwarding
    Mod(Mod),
    /// Detach an interface
    Del(Del),
}

/// Which ports to list.
#[derive(Debug, Args)]
pub struct List {
    /// Also ports that are gone, with what they counted
    #[arg(long)]
    removed: bool,
}

/// An interface to attach.
#[derive(Debug, Args)]
pub struct Add {
    /// Name of the interface
    interface: String,
    /// Not an interface, but one end of a link to another bridge: the name of its other end,
    /// which names this one
    #[arg(long, value_name = "PORT", conflicts_with_all = ["logical_port", "network"])]
    peer: Option<String>,
    /// The switch port it is for
    #[arg(long, value_name = "PORT")]
    logical_port: Option<String>,
    /// How the interface is attached
    #[arg(long, value_enum, default_value_t = Kind::Auto, conflicts_with = "peer")]
    kind: Kind,
    #[command(flatten)]
    guest: Guest,
    /// The network outside that it leads to, as ports of type localnet and l2gateway name it
    #[arg(long, value_name = "NAME", conflicts_with = "logical_port")]
    network: Option<String>,
    /// Its number in rules, or LOCAL for the host's own; the lowest that is free by default
    #[arg(long, value_name = "N", value_parser = parse_number)]
    number: Option<u32>,
}

/// How an interface is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The way that suits the interface
    Auto,
    /// By AF_XDP: for small packets by the million
    Afxdp,
    /// By a packet socket: TCP crosses in pieces of 64 KiB
    Packet,
    /// A TAP device, made if it is not there: as `packet`, and faster
    Tap,
    /// No interface: the network device of a virtual machine, by --socket
    VhostUser,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Afxdp => "afxdp",
            Self::Packet => "packet",
            Self::Tap => "tap",
            Self::VhostUser => "vhost-user",
        }
    }
}

/// How a port is to take part in forwarding; what is not said stays.
#[derive(Debug, Args)]
pub struct Mod {
    /// Its name
    name: String,
    /// Whether it takes part at all
    #[arg(long, value_enum)]
    enable: Option<Switched>,
    /// Whether it takes packets
    #[arg(long, value_enum)]
    receive: Option<Switched>,
    /// Whether packets may leave by it
    #[arg(long, value_enum)]
    forward: Option<Switched>,
    /// Whether its packets go to controllers when a table has no rule for them and says so
    #[arg(long, value_enum)]
    packet_in: Option<Switched>,
    /// Whether NORMAL sends nothing from it to other such ports
    #[arg(long, value_enum)]
    protect: Option<Switched>,
    /// Whether it gets flooded packets
    #[arg(long, value_enum)]
    flood: Option<Switched>,
    /// What tags frames have, for NORMAL
    #[arg(long, value_enum)]
    vlan_mode: Option<VlanMode>,
    /// VLAN of frames without a tag
    #[arg(long, value_name = "VLAN", requires = "vlan_mode", default_value_t = 0, hide_default_value = true)]
    tag: u32,
    /// VLANs of a trunk, or customers' VLANs of a tunnel, with commas between them
    /// [default: all]
    #[arg(long, value_name = "VLANS", value_delimiter = ',', requires = "vlan_mode")]
    trunks: Vec<u32>,
    /// What it may receive, in bits per second: 100M, with a burst in bits 100M/10M, or none;
    /// what comes beyond is dropped
    #[arg(long, value_name = "RATE[/BURST]", value_parser = rate::parse)]
    receive_rate: Option<rate::Rate>,
    /// What it may send; what is to leave beyond waits in queues
    #[arg(long, value_name = "RATE[/BURST]", value_parser = rate::parse)]
    send_rate: Option<rate::Rate>,
    /// A queue that set_queue and enqueue name: 1:min=10M,max=50M,priority=0; repeat it for
    /// others. Queues that are not named are gone
    #[arg(long, value_name = "QUEUE", value_parser = rate::parse_queue)]
    queue: Vec<PortQueue>,
    /// No queues any more
    #[arg(long, conflicts_with = "queue")]
    no_queues: bool,
    /// When frames that leave without a VLAN have a tag for their priority
    #[arg(long, value_enum, requires = "vlan_mode")]
    priority_tags: Option<PriorityTags>,
}

/// When frames that leave without a VLAN have a tag all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PriorityTags {
    /// Never
    No,
    /// When their priority is not 0
    IfNonzero,
    /// Always
    Always,
}

impl PriorityTags {
    fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::IfNonzero => "if-nonzero",
            Self::Always => "always",
        }
    }
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switched {
    /// Yes
    On,
    /// No
    Off,
}

/// What tags frames of a port have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VlanMode {
    /// Tags as they are
    Trunk,
    /// No tags; all are in the VLAN --tag
    Access,
    /// A trunk; what has no tag is in the VLAN --tag, and leaves with a tag
    NativeTagged,
    /// A trunk; what has no tag is in the VLAN --tag, and leaves without one
    NativeUntagged,
    /// All is in the VLAN --tag; tags are the customer's, and stay (QinQ)
    Dot1qTunnel,
}

impl VlanMode {
    fn name(self) -> &'static str {
        match self {
            Self::Trunk => "trunk",
            Self::Access => "access",
            Self::NativeTagged => "native-tagged",
            Self::NativeUntagged => "native-untagged",
            Self::Dot1qTunnel => "dot1q-tunnel",
        }
    }
}

/// An interface to detach.
#[derive(Debug, Args)]
pub struct Del {
    /// Name of the interface
    interface: String,
    /// Succeed when it is not attached
    #[arg(long)]
    if_exists: bool,
}

impl Command {
    /// Whether `--wait` means something to it.
    pub fn takes_wait(&self) -> bool {
        matches!(self, Self::Add(add) if add.logical_port.is_some())
    }

    /// Does it.
    pub async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        match self {
            Self::List(list) => list.run(session).await,
            Self::Add(add) => add.run(session).await,
            Self::Mod(change) => change.run(session).await,
            Self::Del(del) => del.run(session).await,
        }
    }
}

impl List {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut host = session.host().await?;
        let request = ListPortsRequest { removed: self.removed, bridge: session.bridge() };
        let answer = host_answer(host.list_ports(session.request(request)).await)?;
        let ports: Vec<PortView> = answer.ports.into_iter().map(PortView::from).collect();
        session.print_rows(&ports)
    }
}

impl Add {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let logical_port = self.logical_port.as_deref().map(logical_port_id).transpose()?.unwrap_or_default();
        let mut host = session.host().await?;
        let port_no = self.number.unwrap_or_default();
        let request = session.request(AddPortRequest {
            interface: self.interface,
            logical_port: logical_port.clone(),
            port_no,
            kind: self.kind.name().to_owned(),
            vhost_user: self.guest.message(self.kind)?,
            network: self.network.unwrap_or_default(),
            bridge: session.bridge(),
            peer: self.peer.unwrap_or_default(),
        });
        let answer = host_answer(host.add_port(request).await)?;
        let Some(port) = answer.port.map(PortView::from) else {
            return Err(CtlError::Newer { daemon: Daemon::Host, what: "an answer without its port".into() });
        };
        session.print(&port, |out| writeln!(out, "{}", printable(&port.sentence())))?;
        if logical_port.is_empty() { Ok(()) } else { wait_until_up(session, &logical_port).await }
    }
}

impl Mod {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let switched = [self.enable, self.receive, self.forward, self.packet_in, self.protect, self.flood];
        let has_rates = self.receive_rate.is_some() || self.send_rate.is_some();
        let has_queues = self.no_queues || !self.queue.is_empty();
        if switched.iter().all(Option::is_none) && self.vlan_mode.is_none() && !has_rates && !has_queues {
            let all = "--enable, --receive, --forward, --packet-in, --protect, --flood, --vlan-mode, --receive-rate, --send-rate, --queue or --no-queues";
            return Err(CtlError::Usage(format!("say what: {all}")));
        }
        let is_on = |switched: Switched| switched == Switched::On;
        let vlan = self.vlan_mode.map(|mode| PortVlan {
            mode: mode.name().to_owned(),
            tag: self.tag,
            trunks: self.trunks.clone(),
            priority_tags: self.priority_tags.map_or("", PriorityTags::name).to_owned(),
        });
        let request = ModifyPortRequest {
            interface: self.name,
            forwards: self.forward.map(is_on),
            floods: self.flood.map(is_on),
            receives: self.receive.map(is_on),
            enabled: self.enable.map(is_on),
            packet_ins: self.packet_in.map(is_on),
            protected: self.protect.map(is_on),
            vlan,
            receive_rate: self.receive_rate.map(rate::Rate::message),
            send_rate: self.send_rate.map(rate::Rate::message),
            queues: has_queues.then_some(PortQueues { queues: self.queue }),
        };
        let mut host = session.host().await?;
        let answer = host_answer(host.modify_port(session.request(request)).await)?;
        let Some(port) = answer.port.map(PortView::from) else {
            return Err(CtlError::Newer { daemon: Daemon::Host, what: "an answer without its port".into() });
        };
        session.print(&port, |out| writeln!(out, "{}", printable(&port.settings())))
    }
}

impl Del {
    async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut host = session.host().await?;
        let request = RemovePortRequest { interface: self.interface.clone(), allow_missing: self.if_exists };
        host_answer(host.remove_port(session.request(request)).await)?;
        let detached = Detached { name: self.interface, attached: false };
        session.print(&detached, |out| writeln!(out, "{} detached", detached.name))
    }
}

/// Number of the host's own port in OpenFlow.
const LOCAL: u32 = 0xfffe;

/// Reads the number that a port is to have.
pub(super) fn parse_number(text: &str) -> Result<u32, String> {
    if text.eq_ignore_ascii_case("local") {
        return Ok(LOCAL);
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "a port has a number from 1, or LOCAL".into())
}

/// The id by which a host knows the switch port that was typed as `text`.
fn logical_port_id(text: &str) -> Result<String, CtlError> {
    match Noun::SwitchPort.refer(text)? {
        Reference::Id(id) => Ok(id),
        Reference::Full(name) => Ok(short(&name).to_owned()),
    }
}

/// What is shown of a port that was taken away.
#[derive(Debug, Serialize)]
pub(super) struct Detached {
    pub(super) name: String,
    pub(super) attached: bool,
}

/// What is shown of a port.
#[derive(Debug, Serialize)]
pub struct PortView {
    bridge: String,
    port_no: u32,
    name: String,
    kind: String,
    role: String,
    logical_port: Option<String>,
    /// Network outside that it leads to.
    network: Option<String>,
    up: bool,
    /// Why it is down, where that is known.
    why_down: Option<String>,
    mode: String,
    mtu: u32,
    /// Name of the other end of its link.
    peer: Option<String>,
    /// How its virtual machine is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<GuestView>,
    /// It takes part at all.
    enabled: bool,
    /// It takes packets.
    receives: bool,
    /// Its packets go to controllers for want of a rule.
    packet_ins: bool,
    /// NORMAL sends nothing from it to other such ports.
    protected: bool,
    /// Packets may leave by it.
    forwards: bool,
    /// It gets flooded packets.
    floods: bool,
    vlan: VlanView,
    #[serde(flatten)]
    rates: rate::RatesView,
    counters: CountersView,
}

/// What is shown of a port's tags.
#[derive(Debug, Serialize)]
struct VlanView {
    mode: String,
    tag: u32,
    trunks: Vec<u32>,
    priority_tags: String,
}

impl From<PortVlan> for VlanView {
    fn from(vlan: PortVlan) -> Self {
        let PortVlan { mode, tag, trunks, priority_tags } = vlan;
        let priority_tags = if priority_tags.is_empty() { "no".to_owned() } else { priority_tags };
        Self { mode, tag, trunks, priority_tags }
    }
}

/// What is shown of a port's counters.
#[derive(Debug, Serialize)]
struct CountersView {
    rx_packets: u64,
    rx_bytes: u64,
    rx_forwarded: u64,
    rx_dropped: u64,
    tx_packets: u64,
    tx_bytes: u64,
    tx_dropped: u64,
    rx_kernel_dropped: u64,
}

impl From<PortCounters> for CountersView {
    fn from(counters: PortCounters) -> Self {
        Self {
            rx_packets: counters.rx_packets,
            rx_bytes: counters.rx_bytes,
            rx_forwarded: counters.rx_forwarded,
            rx_dropped: counters.rx_dropped,
            tx_packets: counters.tx_packets,
            tx_bytes: counters.tx_bytes,
            tx_dropped: counters.tx_dropped,
            rx_kernel_dropped: counters.rx_kernel_dropped,
        }
    }
}

impl From<Port> for PortView {
    fn from(port: Port) -> Self {
        let rates = rate::RatesView::of(&port);
        Self {
            bridge: port.bridge,
            rates,
            peer: Some(port.peer).filter(|peer| !peer.is_empty()),
            enabled: port.enabled,
            receives: port.receives,
            packet_ins: port.packet_ins,
            protected: port.protected,
            port_no: port.port_no,
            name: port.name,
            kind: port.kind,
            role: port.role,
            logical_port: Some(port.logical_port).filter(|id| !id.is_empty()),
            network: Some(port.network).filter(|name| !name.is_empty()),
            up: port.up,
            why_down: Some(port.why_down).filter(|why| !why.is_empty()),
            guest: port.vhost_user.map(GuestView::from),
            mode: port.mode,
            mtu: port.mtu,
            forwards: port.forwards,
            floods: port.floods,
            vlan: port
                .vlan
                .map(VlanView::from)
                .unwrap_or_else(|| PortVlan { mode: "trunk".to_owned(), ..PortVlan::default() }.into()),
            counters: port.counters.unwrap_or_default().into(),
        }
    }
}

impl PortView {
    /// How it takes part in forwarding, in one line.
    fn settings(&self) -> String {
        let state = |on: bool| if on { "on" } else { "off" };
        let VlanView { mode, tag, trunks, priority_tags } = &self.vlan;
        let mut text = format!(
            "{}: forward {}, flood {}, vlan-mode {mode}",
            self.name,
            state(self.forwards),
            state(self.floods)
        );
        let unusual = [
            ("enable off", !self.enabled),
            ("receive off", !self.receives),
            ("packet-in off", !self.packet_ins),
            ("protect on", self.protected),
        ];
        for (what, _) in unusual.iter().filter(|(_, is)| *is) {
            text += &format!(", {what}");
        }
        if *tag != 0 {
            text += &format!(", tag {tag}");
        }
        if priority_tags != "no" {
            text += &format!(", priority-tags {priority_tags}");
        }
        if !trunks.is_empty() {
            text += &format!(", trunks {}", trunks.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        }
        text + &self.rates.text()
    }

    /// What became of a port that was added.
    pub(super) fn sentence(&self) -> String {
        let purpose = match (&self.logical_port, &self.network, &self.peer) {
            (Some(id), _, _) => format!(" for {id}"),
            (None, Some(network), _) => format!(" to the network {network}"),
            (None, None, Some(peer)) => format!(" of {}, linked to {peer}", self.bridge),
            (None, None, None) => String::new(),
        };
        format!("{} is port {}{purpose} ({})", self.name, self.port_no, self.mode)
    }
}

impl Tabular for PortView {
    const HEADINGS: &'static [&'static str] = &[
        "BRIDGE",
        "PORT",
        "NAME",
        "ROLE",
        "LOGICAL-PORT",
        "UP",
        "MODE",
        "MTU",
        "RX",
        "FORWARDED",
        "DROPPED",
        "TX",
        "TX-DROPPED",
        "KERNEL-DROPPED",
    ];

    fn cells(&self) -> Vec<String> {
        let counters = &self.counters;
        vec![
            self.bridge.clone(),
            self.port_no.to_string(),
            self.name.clone(),
            self.role.clone(),
            self.logical_port
                .clone()
                .or_else(|| Some(format!("({})", self.network.as_ref()?)))
                .unwrap_or_default(),
            yes(self.up),
            if self.mode.is_empty() { self.kind.clone() } else { self.mode.clone() },
            self.mtu.to_string(),
            counters.rx_packets.to_string(),
            counters.rx_forwarded.to_string(),
            counters.rx_dropped.to_string(),
            counters.tx_packets.to_string(),
            counters.tx_dropped.to_string(),
            counters.rx_kernel_dropped.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_knows_switch_ports_by_their_ids() {
        for text in ["web-1", "web/web-1", "switches/web/ports/web-1"] {
            assert_eq!(logical_port_id(text).unwrap(), "web-1");
        }
        assert_eq!((parse_number("7"), parse_number("LOCAL")), (Ok(7), Ok(LOCAL)));
        assert!(["0", "-1", "", "lo"].iter().all(|text| parse_number(text).is_err()));
        assert!(logical_port_id("").is_err());
        assert!(logical_port_id("routers/r1/ports/web-1").is_err());
    }
}
