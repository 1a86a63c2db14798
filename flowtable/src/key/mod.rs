//! The flow key: what the switch knows of a packet when it decides.
//!
//! A [`FlowKey`] holds the packet's headers in canonical form (tags unwrapped,
//! absent headers zero), the metadata it came with (port, tunnel, connection) and
//! the pipeline's scratch space (registers). It is plain old data without padding,
//! so that the classifier and the caches can treat it as words, and every field is
//! in network byte order, so that sub-fields, masks and prefixes work the same way
//! on all of them.
//!
//! A [`FlowMask`] has the same layout; a set bit means "this bit mattered". The
//! law of the whole switch is about masks: a superfluous set bit costs an entry, a
//! missing one is a hole in the firewall. Nobody therefore sets mask bits by hand.
//! While a packet is translated its key is inside a [`Tracked`], and the only way to
//! read a field is [`Tracked::read`], which records it.
//!
//! Like Open vSwitch, fields of headers that cannot be together share storage
//! (`arp_spa` is `nw_src`, `icmp_type` is `tp_src`); the field's prerequisites tell
//! which is meant (see [`crate::field`]).
//!
//! Here: what a key and a mask are. `place.rs` where fields are in them · `tracked.rs` keys whose
//! reads are recorded.

mod place;
mod tracked;

use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout,
    network_endian::{U16, U32, U64, U128},
};

use self::place::Place;
pub(crate) use self::tracked::Examined;
pub use self::tracked::Tracked;
use crate::field::Field;

/// Number of general registers (features of OVS 3.7 and later: 32).
pub const N_REGS: usize = 32;
/// Number of MPLS label stack entries that can be matched.
pub const N_MPLS: usize = 3;
/// Bytes for Geneve option fields `tun_metadata0..63`, four bytes each.
pub const TUN_METADATA_LEN: usize = 256;

/// Headers and metadata of one packet; see the module's essay.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FlowKey {
    // Where the packet is.
    /// Port it came in by.
    pub in_port: U32,
    /// Which recirculation it continues from; 0: fresh from a port.
    pub recirc_id: U32,
    /// Mark of the packet outside the switch.
    pub pkt_mark: U32,
    /// Queue priority.
    pub skb_priority: U32,

    // L2.
    /// Destination MAC address.
    pub eth_dst: [u8; 6],
    /// Source MAC address.
    pub eth_src: [u8; 6],
    /// EtherType after all tags, or 0x05ff for 802.2 without SNAP.
    pub eth_type: U16,
    /// TPID of the outer tag; 0: untagged.
    pub vlan_tpid: U16,
    /// TCI of the outer tag with bit 12 (CFI) set; 0: untagged.
    pub vlan_tci: U16,
    /// TPID of the inner tag.
    pub cvlan_tpid: U16,
    /// TCI of the inner tag with bit 12 set; 0: none.
    pub cvlan_tci: U16,
    /// Bit 0: IP fragment; bit 1: not the first one.
    pub nw_frag: u8,
    /// Number of MPLS label stack entries, at most [`N_MPLS`].
    pub n_mpls: u8,
    /// MPLS label stack, outermost first.
    pub mpls: [U32; N_MPLS],

    // L3.
    /// IPv6 flow label, 20 bits.
    pub ipv6_label: U32,
    /// IPv4 source, or ARP sender protocol address.
    pub nw_src: U32,
    /// IPv4 destination, or ARP target protocol address.
    pub nw_dst: U32,
    /// IPv6 source.
    pub ipv6_src: U128,
    /// IPv6 destination.
    pub ipv6_dst: U128,
    /// IP protocol, IPv6 next header, or ARP operation (low byte).
    pub nw_proto: u8,
    /// DSCP and ECN.
    pub nw_tos: u8,
    /// TTL or hop limit.
    pub nw_ttl: u8,
    /// Type of the first ND link-layer address option (1 source, 2 target), 0: none.
    pub nd_options_type: u8,

    // L4.
    /// Source port, or ICMP/ICMPv6/IGMP type.
    pub tp_src: U16,
    /// Destination port, or ICMP/ICMPv6 code.
    pub tp_dst: U16,
    /// TCP flags, 12 bits.
    pub tcp_flags: U16,
    /// ARP sender hardware address, or ND source link-layer address.
    pub arp_sha: [u8; 6],
    /// ARP target hardware address, or ND target link-layer address.
    pub arp_tha: [u8; 6],
    /// Bytes of the frame, Ethernet header included; the switch fills it in.
    pub frame_len: U16,
    /// ND target address.
    pub nd_target: U128,
    /// ND reserved field (R, S, O flags).
    pub nd_reserved: U32,

    // Connection.
    /// Connection mark.
    pub ct_mark: U32,
    /// Connection label.
    pub ct_label: U128,
    /// Connection state bits, see [`ct_state`].
    pub ct_state: U16,
    /// Zone the packet was last tracked in.
    pub ct_zone: U16,
    /// Original direction: source, IPv4.
    pub ct_nw_src: U32,
    /// Original direction: destination, IPv4.
    pub ct_nw_dst: U32,
    /// Original direction: source port or ICMP type.
    pub ct_tp_src: U16,
    /// Original direction: destination port or ICMP code.
    pub ct_tp_dst: U16,
    /// Original direction: source, IPv6.
    pub ct_ipv6_src: U128,
    /// Original direction: destination, IPv6.
    pub ct_ipv6_dst: U128,
    /// Original direction: protocol.
    pub ct_nw_proto: u8,

    // Tunnel the packet came by, or shall leave by.
    /// Outer DSCP and ECN.
    pub tun_tos: u8,
    /// Outer TTL.
    pub tun_ttl: u8,
    /// VXLAN group policy flags.
    pub tun_gbp_flags: u8,
    /// VXLAN group policy id.
    pub tun_gbp_id: U16,
    /// Bit 0 OAM, 1 don't fragment, 2 checksum, 3 key present.
    pub tun_flags: U16,
    /// Tunnel key (VNI).
    pub tun_id: U64,
    /// Outer source, IPv4.
    pub tun_src: U32,
    /// Outer destination, IPv4.
    pub tun_dst: U32,
    /// Outer source, IPv6.
    pub tun_ipv6_src: U128,
    /// Outer destination, IPv6.
    pub tun_ipv6_dst: U128,

    // Scratch space of the pipeline, zero at its start.
    /// 64 bits that travel with the packet through the tables.
    pub metadata: U64,
    /// General registers.
    pub regs: [U32; N_REGS],
    /// Id of the conjunction that matched.
    pub conj_id: U32,
    /// Output port of the action set.
    pub actset_output: U32,
    /// Hash for select groups.
    pub dp_hash: U32,
    /// Type of the packet: 0 Ethernet, else (name space << 16 | type).
    pub packet_type: U32,

    // Geneve options.
    /// Which of `tun_metadata0..63` are present.
    pub tun_metadata_present: U64,
    /// Values of `tun_metadata0..63`, four bytes each.
    pub tun_metadata: [u8; TUN_METADATA_LEN],
}

/// Number of 64-bit words in a key.
pub const N_WORDS: usize = size_of::<FlowKey>() / 8;
const _: () = assert!(size_of::<FlowKey>().is_multiple_of(8) && N_WORDS <= 96);

/// Bits of `ct_state` (ovs-fields(7)).
pub mod ct_state {
    /// First packet of a connection that is not committed.
    pub const NEW: u16 = 0x01;
    /// Packet of a connection that both sides have spoken in.
    pub const EST: u16 = 0x02;
    /// Packet related to another connection.
    pub const REL: u16 = 0x04;
    /// Packet of the reply direction.
    pub const RPL: u16 = 0x08;
    /// Packet that fits no connection and cannot start one.
    pub const INV: u16 = 0x10;
    /// Packet that has been tracked.
    pub const TRK: u16 = 0x20;
    /// Source address was translated.
    pub const SNAT: u16 = 0x40;
    /// Destination address was translated.
    pub const DNAT: u16 = 0x80;
}

/// Bits of `nw_frag`.
pub mod nw_frag {
    /// The packet is a fragment.
    pub const ANY: u8 = 1;
    /// The packet is a fragment other than the first.
    pub const LATER: u8 = 2;
}

impl FlowKey {
    /// A key with every field zero.
    pub fn zero() -> Self {
        Self::new_zeroed()
    }

    /// Notes how long the frame is; one that is longer than any counts as the longest.
    pub fn set_frame_len(&mut self, n_bytes: usize) {
        self.frame_len.set(n_bytes.min(usize::from(u16::MAX)) as u16);
    }

    /// The key as words, in memory order.
    pub fn words(&self) -> &[u64; N_WORDS] {
        zerocopy::transmute_ref!(self)
    }

    /// The key as words, to write.
    pub fn words_mut(&mut self) -> &mut [u64; N_WORDS] {
        zerocopy::transmute_mut!(self)
    }

    /// Value of a field, right-aligned.
    #[inline]
    pub fn get(&self, field: Field) -> u128 {
        field_in(field, |idx| self.words()[idx])
    }

    /// Sets a field; bits of `value` beyond the field's width are ignored.
    #[inline]
    pub fn set(&mut self, field: Field, value: u128) {
        Place::of(field).set(self.words_mut(), value);
    }
}

impl std::fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("FlowKey");
        for field in Field::ALL {
            let value = self.get(*field);
            if value != 0 {
                out.field(field.info().name, &format_args!("{value:#x}"));
            }
        }
        out.finish()
    }
}

/// Which bits of a key matter; the same layout as [`FlowKey`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlowMask(FlowKey);

impl FlowMask {
    /// Nothing matters.
    pub fn empty() -> Self {
        Self(FlowKey::zero())
    }

    /// The bits of a field that matter, right-aligned.
    pub fn get(&self, field: Field) -> u128 {
        self.0.get(field)
    }

    /// Makes the given bits of a field matter, besides those that do already.
    #[inline]
    pub fn add(&mut self, field: Field, bits: u128) {
        Place::of(field).add(self.words_mut(), bits);
    }

    /// Makes the given bits of a field not matter.
    pub fn remove(&mut self, field: Field, bits: u128) {
        self.0.set(field, self.0.get(field) & !bits);
    }

    /// Makes all that matters in `other` matter here too.
    pub fn union(&mut self, other: &Self) {
        for (word, more) in self.0.words_mut().iter_mut().zip(other.0.words()) {
            *word |= more;
        }
    }

    /// Everything that matters in `other` matters here.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.words().iter().zip(other.0.words()).all(|(mine, theirs)| theirs & !mine == 0)
    }

    /// The mask, field by field.
    pub(crate) fn fields(&self) -> &FlowKey {
        &self.0
    }

    /// The mask as words, in memory order.
    pub fn words(&self) -> &[u64; N_WORDS] {
        self.0.words()
    }

    /// The mask as words, to write.
    pub fn words_mut(&mut self) -> &mut [u64; N_WORDS] {
        self.0.words_mut()
    }
}

impl std::fmt::Debug for FlowMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Value of a field, right-aligned, in a key or mask of which this gives the words.
#[inline]
pub(crate) fn field_in(field: Field, word: impl Fn(usize) -> u64) -> u128 {
    Place::of(field).get(word)
}

/// The lowest `n` bits set.
pub const fn low_bits(n: u32) -> u128 {
    if n >= 128 { u128::MAX } else { (1 << n) - 1 }
}
