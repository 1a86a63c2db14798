//! Why packets are dropped: every drop in the switch has one of these names, a counter,
//! and, where a rule did it, that rule's origin. There is no reason "unknown".

use std::fmt;

/// Declares the reasons: variant, name, sentence.
macro_rules! drop_reasons {
    ($($variant:ident = $name:literal, $why:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $why] $variant,)* }

        impl DropReason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Name in counters and commands.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The reason in one sentence.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => $why,)* }
            }
        }
    };
}

drop_reasons! {
    Malformed = "malformed", "The frame is shorter than its headers say, or contradicts itself.";
    RuleDrop = "rule-drop", "A rule with no output matched; its origin names the object.";
    TableMiss = "table-miss", "No rule of the table matched.";
    Fragment = "fragment", "The packet is an IP fragment, and the switch is set to drop those.";
    NoSuchPort = "no-such-port", "The output port does not exist.";
    PortDown = "port-down", "The output port is down.";
    SamePort = "same-port", "The output port is the port the packet came in by.";
    TtlExpired = "ttl-expired", "The TTL or hop limit ran out.";
    DepthExceeded = "depth-exceeded", "Rules resubmitted or cloned, or links led from bridge to bridge, more often than the limit: they may be a loop.";
    TooManyResubmits = "too-many-resubmits", "Rules resubmitted more often than the limit: they may be a loop.";
    TooManyMeters = "too-many-meters", "Rules sent the packet through more meters than the limit.";
    ActionSetFull = "action-set-full", "Rules wrote more actions into the action set than the limit.";
    NoSuchGroup = "no-such-group", "The group does not exist.";
    NoLiveBucket = "no-live-bucket", "No bucket of the group could take the packet: their ports are down, or they have no weight.";
    NoSuchMeter = "no-such-meter", "The meter does not exist.";
    Metered = "metered", "The packet exceeded the rate of a meter, which is named beside the rule.";
    TooManyOutputs = "too-many-outputs", "Rules made more copies of the packet than the limit.";
    TooManyEffects = "too-many-effects", "Rules made the packet change more rules and stations than the limit.";
    StackOverflow = "stack-overflow", "Rules pushed more on the packet's stack than the limit.";
    MissQuota = "miss-quota", "The port has sent more packets of flows that nobody knew yet than its quota lets through.";
    PuntQueueFull = "punt-queue-full", "The queue of packets for the controller was full, or the port's share of it.";
    TunnelUnknownPeer = "tunnel-unknown-peer", "A tunnelled packet came from a host that is not a configured peer.";
    TunnelMalformed = "tunnel-malformed", "A tunnelled packet has a wrong outer or tunnel header, or an unknown critical option.";
    TunnelNotForUs = "tunnel-not-for-us", "A packet on the underlay is not a tunnelled packet for this host.";
    TunnelNoRoute = "tunnel-no-route", "The host has no route or no neighbour for the tunnel's remote address.";
    NoHeadroom = "no-headroom", "The buffer has no room for the headers to be pushed.";
    NoBuffer = "no-buffer", "No free buffer for a copy.";
    TooBig = "too-big", "The packet is larger than the output port's MTU.";
    TxRingFull = "tx-ring-full", "The output port's ring stayed full.";
    TxError = "tx-error", "The kernel refused the frame.";
    CtFull = "ct-full", "All connections the tracker has room for are established.";
    CtLimit = "ct-limit", "The zone or the input port has as many connections as it may have.";
    CtNatExhausted = "ct-nat-exhausted", "No free translation is left for a new connection.";
    AlgSplit = "alg-split", "A command that a helper must read is cut between segments: its sender will send it again, as a whole.";
    FragmentInvalid = "fragment-invalid", "A fragment is tiny, not in units of 8 bytes, without the whole L4 header at the packet's start, or beyond the largest packet.";
    FragmentOverlap = "fragment-overlap", "Fragments of a packet overlap: it is dropped, with all that still comes of it.";
    FragmentDuplicate = "fragment-duplicate", "The fragment is there already.";
    FragmentLimit = "fragment-limit", "The packet has too many fragments, or the fragments of its zone or port that wait take more memory than they may.";
    FragmentTimeout = "fragment-timeout", "The rest of the fragment's packet did not come in time.";
    RecircLimit = "recirculation-limit", "The packet was recirculated more often than the limit: rules may be a loop.";
    ReservedAddress = "reserved-address", "The frame is for bridges themselves (01:80:c2:00:00:00 to 0f, and some of vendors), and NORMAL does not forward those.";
    NeighbourUnknown = "neighbour-unknown", "The next hop did not say its MAC address in time, or too many packets waited for it.";
    PortClosed = "port-closed", "The input port takes no packets: it is set so, or disabled.";
    PortBlocked = "port-blocked", "The spanning tree does not let frames pass the port: they would go in circles.";
    BondStandby = "bond-standby", "The frame came by a member of a bond that is not used, or is the bond's own frame that came back.";
    BondDown = "bond-down", "No member of the bond can be used.";
    MirrorPort = "mirror-port", "The port gets what a mirror copies, and takes nothing.";
    GroupUnknown = "group-unknown", "Nobody has asked for the group's packets.";
    PortProtected = "port-protected", "Both ports are protected, and NORMAL sends nothing from one such port to another.";
    NotInVlan = "not-in-vlan", "The port does not take frames of this VLAN.";
    RateLimit = "rate-limit", "The port has received more than the rate that it is limited to.";
    QueueFull = "queue-full", "The queue in which the packet was to wait for its turn to leave was full: more came than the port's rate lets through.";
    Unsupported = "unsupported", "The rule asks for an action that this switch cannot do yet.";
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
