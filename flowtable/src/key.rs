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

use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout,
    network_endian::{U16, U32, U64, U128},
};

use crate::field::{Field, SubField};

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
    pub fn get(&self, field: Field) -> u128 {
        let info = field.info();
        load(&self.as_bytes()[info.offset..info.offset + info.len]) >> info.shift & low_bits(info.n_bits)
    }

    /// Sets a field; bits of `value` beyond the field's width are ignored.
    pub fn set(&mut self, field: Field, value: u128) {
        let info = field.info();
        let bits = low_bits(info.n_bits);
        let bytes = &mut self.as_mut_bytes()[info.offset..info.offset + info.len];
        let kept = load(bytes) & !(bits << info.shift);
        store(bytes, kept | (value & bits) << info.shift);
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
    pub fn add(&mut self, field: Field, bits: u128) {
        self.0.set(field, self.0.get(field) | bits);
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

/// A key under translation: every read is recorded in the mask.
///
/// # Invariants
/// - A bit that was read and not written before is set in [`Tracked::mask`]: two
///   packets that agree in the masked bits take the same walk.
/// - A bit that was written has a value that follows from masked bits alone, so
///   reading it again adds nothing.
#[derive(Clone)]
pub struct Tracked {
    key: FlowKey,
    original: FlowKey,
    mask: FlowMask,
    written: FlowMask,
    /// Actions have looked at headers: what they did does not follow from the rules alone.
    acts_on_headers: bool,
    /// Fields whose prerequisites are recorded, a bit for each: until writes are undone, since
    /// what was written then was not recorded.
    recorded: [u64; Field::ALL.len().div_ceil(64)],
}

impl Tracked {
    /// Starts to track a packet's key.
    pub fn new(key: FlowKey) -> Self {
        let (mask, written) = (FlowMask::empty(), FlowMask::empty());
        Self { key, original: key, mask, written, acts_on_headers: false, recorded: Default::default() }
    }

    /// The whole field as it is now; un-wildcards it.
    pub fn read(&mut self, field: Field) -> u128 {
        self.read_bits(field, low_bits(field.info().n_bits))
    }

    /// The given bits of a field as they are now, others zero; un-wildcards them
    /// and the field's prerequisites.
    pub fn read_bits(&mut self, field: Field, bits: u128) -> u128 {
        self.record(field, bits);
        self.key.get(field) & bits
    }

    /// A sub-field as it is now, right-aligned; un-wildcards it.
    pub fn read_sub(&mut self, sub: SubField) -> u128 {
        self.read_bits(sub.field, sub.bits()) >> sub.start
    }

    /// Writes some bits of a field. What is written must follow from what was read.
    pub fn write_bits(&mut self, field: Field, value: u128, bits: u128) {
        let kept = self.key.get(field) & !bits;
        self.key.set(field, kept | value & bits);
        self.written.add(field, bits);
    }

    /// Writes a whole field.
    pub fn write(&mut self, field: Field, value: u128) {
        self.write_bits(field, value, low_bits(field.info().n_bits));
    }

    /// Writes a sub-field, given right-aligned.
    pub fn write_sub(&mut self, sub: SubField, value: u128) {
        self.write_bits(sub.field, value << sub.start, sub.bits());
    }

    /// The masked words of the key, for the classifier: records `mask[i]` of word
    /// `i` and answers the key's word under that mask. The caller passes whole
    /// matches, whose prerequisites are part of the match.
    pub fn read_word(&mut self, idx: usize, mask: u64) -> u64 {
        self.mask.words_mut()[idx] |= mask & !self.written.words()[idx];
        self.key.words()[idx] & mask
    }

    /// Undoes all writes since `saved` was cloned from this key. What was read stays
    /// recorded: it decided about the part of the walk that is undone.
    pub fn restore(&mut self, saved: &Self) {
        self.key = saved.key;
        self.written = saved.written;
        self.recorded = Default::default();
    }

    /// Shows `search` the field's value and un-wildcards as many of its leading bits as
    /// `search` answers. For searches that work out themselves how much they looked at
    /// (prefix tries): what they conclude must follow from those bits alone. As with
    /// [`Tracked::read_word`], prerequisites are the caller's.
    pub fn read_prefix(&mut self, field: Field, search: impl FnOnce(u128) -> u32) {
        let n_bits = search(self.key.get(field)).min(field.info().n_bits);
        self.acts_on_headers |= field == Field::FrameLen;
        let bits = field.all_bits() & !low_bits(field.info().n_bits - n_bits);
        self.mask.add(field, bits & !self.written.get(field));
    }

    /// What was done is due to what a field was that differs between fresh packets of a port and
    /// an IP version, whoever read it.
    pub(crate) fn has_acted_on_headers(&mut self) {
        self.acts_on_headers = true;
    }

    /// Some field that differs between fresh packets of a port and an IP version was read other
    /// than by a search for rules.
    pub(crate) fn acts_on_headers(&self) -> bool {
        self.acts_on_headers
    }

    /// What mattered so far.
    pub fn mask(&self) -> &FlowMask {
        &self.mask
    }

    /// Which bits have been written since the start.
    pub fn written(&self) -> &FlowMask {
        &self.written
    }

    /// The key the packet had at the start. Not for decisions: whoever looks at it
    /// must have recorded what it looks at.
    pub fn original(&self) -> &FlowKey {
        &self.original
    }

    /// The key for printing and for programs, where `written` or `mask` says which
    /// bits may be used. Not for decisions.
    pub fn peek(&self) -> &FlowKey {
        &self.key
    }

    fn record(&mut self, field: Field, bits: u128) {
        let info = field.info();
        let fresh = bits & !self.written.get(field);
        if fresh == 0 {
            return;
        }
        self.mask.add(field, fresh);
        self.acts_on_headers |= is_header(field);
        let (word, bit) = (field as usize / 64, 1 << (field as usize % 64));
        let known = self.recorded[word];
        self.recorded[word] |= bit;
        if known & bit != 0 {
            return;
        }
        for prerequisite in info.prerequisites.fields() {
            self.record(*prerequisite, low_bits(prerequisite.info().n_bits));
        }
    }
}

/// Packets of one port and one IP version, fresh and unfragmented, can differ in it.
fn is_header(field: Field) -> bool {
    let headers = std::mem::offset_of!(FlowKey, eth_dst)..std::mem::offset_of!(FlowKey, ct_mark);
    headers.contains(&field.info().offset) && !matches!(field, Field::EthType | Field::NwFrag)
}

/// The lowest `n` bits set.
pub const fn low_bits(n: u32) -> u128 {
    if n >= 128 { u128::MAX } else { (1 << n) - 1 }
}

/// A number in network byte order. Those of usual lengths are read at once.
#[inline]
pub(crate) fn load(bytes: &[u8]) -> u128 {
    match (bytes.len(), bytes.first_chunk(), bytes.first_chunk(), bytes.first_chunk()) {
        (2, Some(bytes), ..) => u16::from_be_bytes(*bytes).into(),
        (4, _, Some(bytes), _) => u32::from_be_bytes(*bytes).into(),
        (8, _, _, Some(bytes)) => u64::from_be_bytes(*bytes).into(),
        _ => match bytes.try_into() {
            Ok(bytes) => u128::from_be_bytes(bytes),
            Err(_) => bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)),
        },
    }
}

#[inline]
fn store(bytes: &mut [u8], mut value: u128) {
    match bytes.len() {
        2 => bytes.copy_from_slice(&(value as u16).to_be_bytes()),
        4 => bytes.copy_from_slice(&(value as u32).to_be_bytes()),
        8 => bytes.copy_from_slice(&(value as u64).to_be_bytes()),
        16 => bytes.copy_from_slice(&value.to_be_bytes()),
        _ => {
            for byte in bytes.iter_mut().rev() {
                *byte = value as u8;
                value >>= 8;
            }
        }
    }
}
