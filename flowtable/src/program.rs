//! What the fast path does with a packet: the result of a translation, flat and
//! without decisions.
//!
//! A [`Program`] is a list of [`Emit`]s. Each describes one copy that leaves,
//! *relative to the packet as it was received*: which header bits change, which tag is
//! pushed or popped, by which tunnel and port it goes. Emits do not build on each other,
//! so there is no order to get wrong and nothing to restore between copies; the last
//! one takes the received buffer itself. No emit: the packet is dropped, and
//! [`Program::drop`] says why.

use std::{net::IpAddr, ops::Range, sync::Arc};

use crate::{
    conntrack::Request,
    drop::DropReason,
    fdb::Station,
    field::Field,
    flow::{Learned, Match, Rule, Sample, ToController},
    meter::Meter,
    pipeline::Frozen,
    types::{PortNo, TableId, Vni},
    wire::ip_proto,
};

/// All copies of a packet that leave.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// One for each copy, in the order of the output actions.
    pub emits: Vec<Emit>,
    /// Meters that measure the packet first, and decide which of the emits are carried out.
    pub meters: Vec<MeterStep>,
    /// Why nothing leaves, when `emits` is empty; and for packets that leave, nothing.
    pub drop: Option<DropCause>,
    /// What else each packet changes.
    pub effects: Vec<Effect>,
    /// Copies of some packets for collectors.
    pub samples: Vec<SampleStep>,
}

impl Program {
    /// Drops.
    pub(crate) fn dropping(reason: DropReason) -> Self {
        Self { drop: Some(DropCause { reason, rule: None }), ..Self::default() }
    }
}

/// What a packet changes besides itself. A program has effects only as long as they are
/// news: once they are done it is translated again, and what is left to do for each packet
/// is counting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It makes a rule.
    Learn(Arc<Learned>),
    /// It tells where its source is.
    Station(Station),
}

/// A copy of some packets that goes to collectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleStep {
    /// How often and to whom.
    pub sample: Sample,
    /// What the copy looks like; its port means nothing.
    pub emit: Emit,
    /// Places of meters that the packet must have passed.
    pub guards: Vec<usize>,
}

impl Program {
    /// Something happens besides what becomes of the packet.
    pub(crate) fn has_side_effects(&self) -> bool {
        !self.effects.is_empty() || !self.samples.is_empty()
    }

    /// Packets are carried out one by one and with their keys: something comes back from the
    /// connection tracker or waits for a controller, or what one packet changes concerns
    /// the next.
    pub fn is_alone(&self) -> bool {
        let waits = |emit: &Emit| {
            let punt = emit.extras.as_ref().and_then(|extras| extras.punt.as_ref());
            punt.is_some_and(|punt| punt.next.is_some())
        };
        self.is_tracked() || !self.effects.is_empty() || self.emits.iter().any(waits)
    }

    /// A copy goes to the connection tracker.
    pub fn is_tracked(&self) -> bool {
        self.emits.iter().any(|emit| emit.ct.is_some())
    }
}

/// Why a program drops.
#[derive(Debug, Clone)]
pub struct DropCause {
    /// The reason.
    pub reason: DropReason,
    /// The rule that caused it, when one did.
    pub rule: Option<Arc<Rule>>,
}

/// A meter on the way of a packet.
#[derive(Debug, Clone)]
pub struct MeterStep {
    /// The meter.
    pub meter: Arc<Meter>,
    /// The rule that has it.
    pub rule: Arc<Rule>,
    /// The emits that depend on it.
    pub emits: Range<usize>,
    /// Meters that follow which a packet does not come to when this one drops it.
    pub n_within: usize,
}

/// The same meter, rule and emits: the very same, so that statistics go the same way.
impl PartialEq for MeterStep {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.meter, &other.meter)
            && Arc::ptr_eq(&self.rule, &other.rule)
            && (&self.emits, self.n_within) == (&other.emits, other.n_within)
    }
}

/// One copy of a packet that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emit {
    /// VLAN tags to remove, 0 to 2, before anything else.
    pub n_vlan_pops: u8,
    /// VLAN tags to push after the pops, outermost last.
    pub vlan_pushes: Vec<VlanTag>,
    /// Header bits that change, in order of the headers.
    pub edits: Vec<FieldEdit>,
    /// Header to put in front, when the port is a tunnel.
    pub tunnel: Option<Arc<TunnelHeader>>,
    /// Port it leaves by; for a tunnel, the underlay's port; [`PortNo::CONTROLLER`] for a
    /// copy that goes to a controller.
    pub port: PortNo,
    /// What few copies need.
    pub extras: Option<Box<Extras>>,
    /// It does not leave but goes to the connection tracker.
    pub ct: Option<Arc<CtPass>>,
}

/// What few copies need beside tags, edits and a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// New MPLS labels, after the VLAN tags.
    pub labels: Option<LabelEdit>,
    /// Cut to this many bytes, before a tunnel header goes in front.
    pub max_len: Option<u32>,
    /// Queue of the port to send by.
    pub queue: Option<u32>,
    /// It goes to a controller.
    pub punt: Option<Arc<Punt>>,
}

/// A change of the label stack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelEdit {
    /// Labels to remove first.
    pub n_pops: u8,
    /// Label stack entries to push after that, outermost last.
    pub pushes: Vec<u32>,
    /// EtherType of the result.
    pub eth_type: u16,
}

/// What a controller is told beside the packet (`NXT_PACKET_IN2`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Punt {
    /// How the rule wants it sent.
    pub to: ToController,
    /// Table of the rule.
    pub table: TableId,
    /// Cookie of the rule.
    pub cookie: u64,
    /// What the packet had in the pipeline: input port, registers, metadata, tunnel and
    /// connection fields that are not zero.
    pub metadata: Match,
    /// How it goes on when the controller has answered, if it waits for that.
    pub next: Option<Arc<Frozen>>,
}

impl Emit {
    /// The packet leaves as it came.
    pub fn is_plain(&self) -> bool {
        self.leaves_frame() && self.ct.is_none()
    }

    /// The frame stays as it is: there are no edits.
    pub(crate) fn leaves_frame(&self) -> bool {
        self.n_vlan_pops == 0
            && self.vlan_pushes.is_empty()
            && self.edits.is_empty()
            && self.tunnel.is_none()
            && self.extras.is_none()
    }

    /// All that happens to the frame is that it gets a tunnel's header.
    pub(crate) fn only_tunnel(&self) -> Option<&Arc<TunnelHeader>> {
        let header = self.tunnel.as_ref()?;
        let rest = self.n_vlan_pops == 0
            && self.vlan_pushes.is_empty()
            && self.edits.is_empty()
            && self.extras.is_none()
            && self.ct.is_none();
        rest.then_some(header)
    }

    /// Something becomes of the copy: it leaves, or goes on behind the tracker.
    pub fn leaves(&self) -> bool {
        self.ct.as_ref().is_none_or(|ct| ct.next.is_some())
    }
}

/// A way through the connection tracker.
#[derive(Debug, Clone)]
pub struct CtPass {
    /// What is asked of it; the switch fills in the port.
    pub request: Request,
    /// How the packet goes on; `None`: not at all, it was only to be tracked.
    pub next: Option<Arc<Frozen>>,
    /// The switch's number for `next`, 0 as long as it has none.
    pub recirc_id: u32,
}

/// Whatever number the switch has given it.
impl PartialEq for CtPass {
    fn eq(&self, other: &Self) -> bool {
        self.request == other.request && self.next == other.next
    }
}

impl Eq for CtPass {}

/// New bits of one header field. Checksums that cover it are the executor's to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldEdit {
    /// A field that is in the frame: L2 addresses to L4 ports, ARP, ND.
    pub field: Field,
    /// New bits, right-aligned.
    pub value: u128,
    /// Which bits change.
    pub mask: u128,
}

/// A VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// 0x8100 or 0x88a8.
    pub tpid: u16,
    /// Priority and id. Bit 12, which says "present" in a flow key, is not written to
    /// the frame: drop eligibility is not something a key can express.
    pub tci: u16,
}

/// A prebuilt outer header. Its bytes are complete but for what depends on the packet:
/// lengths, the UDP source port (from the inner flow's hash) and the checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelHeader {
    /// Which encapsulation.
    pub kind: TunnelKind,
    /// Network identifier.
    pub vni: Vni,
    /// Where it goes.
    pub remote: IpAddr,
    /// Outer Ethernet, IP, UDP and tunnel header with options.
    pub bytes: Vec<u8>,
    /// Logical tunnel port it was sent to, for counters and dumps.
    pub tunnel_port: PortNo,
}

/// Encapsulations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// RFC 8926.
    Geneve,
    /// RFC 7348.
    Vxlan,
    /// RFC 2784 and RFC 2890, with Ethernet frames.
    Gre,
}

impl TunnelKind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Geneve, Self::Vxlan, Self::Gre];
    /// Those that say which port of a logical network a packet is for.
    pub const OF_NETWORKS: [Self; 2] = [Self::Geneve, Self::Vxlan];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Geneve => "geneve",
            Self::Vxlan => "vxlan",
            Self::Gre => "gre",
        }
    }

    /// What its IP header says that follows.
    pub const fn ip_proto(self) -> u8 {
        match self {
            Self::Geneve | Self::Vxlan => ip_proto::UDP,
            Self::Gre => ip_proto::GRE,
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
