//! Numbers and header layouts as they are on the wire. No logic lives here: what a
//! header means is in [`crate::parse`], how it is changed in [`crate::execute`].

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32, U128},
};

/// EtherTypes (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// Ethernet frames inside a tunnel.
    pub const ETHERNET: u16 = 0x6558;
    /// Reverse ARP.
    pub const RARP: u16 = 0x8035;
    /// A customer VLAN tag.
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag.
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS.
    pub const MPLS: u16 = 0x8847;
    /// MPLS with an upstream-assigned label.
    pub const MPLS_UPSTREAM: u16 = 0x8848;
    /// Smallest number that is a type; smaller ones are the length of an 802.3 frame.
    pub const MIN: u16 = 0x0600;
    /// Stands in a key for "802.2 without SNAP"; never on the wire.
    pub const LLC: u16 = 0x05ff;
}

/// IP protocols and IPv6 extension headers (IANA protocol numbers).
pub mod ip_proto {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Nothing follows.
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// ICMPv6 types of neighbour discovery (RFC 4861 §4).
pub mod nd {
    /// Neighbour solicitation.
    pub const SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const ADVERTISEMENT: u8 = 136;
    /// Option: source link-layer address.
    pub const SOURCE_LINK: u8 = 1;
    /// Option: target link-layer address.
    pub const TARGET_LINK: u8 = 2;
}

/// Declares headers: plain old data, unaligned, in wire order.
macro_rules! headers {
    ($($(#[$doc:meta])* $name:ident[$len:literal] { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }

        const _: () = assert!(size_of::<$name>() == $len);

        impl $name {
            /// Bytes on the wire.
            pub const LEN: usize = $len;
        }
    )*};
}

headers! {
    /// Ethernet II header without tags.
    Ethernet[14] {
        /// Destination.
        dst: [u8; 6],
        /// Source.
        src: [u8; 6],
        /// Type, or length below 0x600.
        eth_type: U16,
    }
    /// VLAN tag together with the EtherType in front of it.
    Tag[4] {
        /// Kind of tag.
        tpid: U16,
        /// Priority, drop eligibility and id.
        tci: U16,
    }
    /// ARP for Ethernet and IPv4 (RFC 826).
    Arp[28] {
        /// 1: Ethernet.
        hardware: U16,
        /// 0x0800: IPv4.
        protocol: U16,
        /// 6.
        hardware_len: u8,
        /// 4.
        protocol_len: u8,
        /// 1 request, 2 reply.
        op: U16,
        /// Sender hardware address.
        sha: [u8; 6],
        /// Sender protocol address.
        spa: U32,
        /// Target hardware address.
        tha: [u8; 6],
        /// Target protocol address.
        tpa: U32,
    }
    /// IPv4 header without options (RFC 791 §3.1).
    Ipv4[20] {
        /// Version and header length in words.
        version_ihl: u8,
        /// DSCP and ECN.
        tos: u8,
        /// Length of header and payload.
        total_len: U16,
        /// Identification.
        id: U16,
        /// Flags and fragment offset.
        fragment: U16,
        /// Time to live.
        ttl: u8,
        /// Protocol.
        proto: u8,
        /// Header checksum.
        checksum: U16,
        /// Source.
        src: U32,
        /// Destination.
        dst: U32,
    }
    /// IPv6 header (RFC 8200 §3).
    Ipv6[40] {
        /// Version, traffic class, flow label.
        flow: U32,
        /// Length of what follows.
        payload_len: U16,
        /// Next header.
        next: u8,
        /// Hop limit.
        hop_limit: u8,
        /// Source.
        src: U128,
        /// Destination.
        dst: U128,
    }
    /// IPv6 fragment header (RFC 8200 §4.5).
    Ipv6Fragment[8] {
        /// Next header.
        next: u8,
        /// Zero.
        reserved: u8,
        /// Offset in units of 8 bytes, 2 zero bits, "more fragments".
        offset: U16,
        /// Identification.
        id: U32,
    }
    /// TCP header without options (RFC 9293 §3.1).
    Tcp[20] {
        /// Source port.
        src: U16,
        /// Destination port.
        dst: U16,
        /// Sequence number.
        seq: U32,
        /// Acknowledgement number.
        ack: U32,
        /// Header length in words (4 bits), flags (12 bits).
        control: U16,
        /// Window.
        window: U16,
        /// Checksum.
        checksum: U16,
        /// Urgent pointer.
        urgent: U16,
    }
    /// UDP header (RFC 768).
    Udp[8] {
        /// Source port.
        src: U16,
        /// Destination port.
        dst: U16,
        /// Length of header and payload.
        len: U16,
        /// Checksum; 0: none.
        checksum: U16,
    }
    /// SCTP common header (RFC 9260 §3.1).
    Sctp[12] {
        /// Source port.
        src: U16,
        /// Destination port.
        dst: U16,
        /// Verification tag.
        tag: U32,
        /// CRC32c, least significant byte first.
        checksum: [u8; 4],
    }
    /// ICMP, ICMPv6 and IGMP: the part they have in common.
    Icmp[8] {
        /// Type.
        kind: u8,
        /// Code; for IGMP the maximal response time.
        code: u8,
        /// Checksum.
        checksum: U16,
        /// Depends on the type: identifier and sequence number, ND flags, a group.
        body: U32,
    }
}

/// Flags and offset in [`Ipv4::fragment`].
pub mod ipv4_fragment {
    /// Don't fragment.
    pub const DONT: u16 = 0x4000;
    /// More fragments follow.
    pub const MORE: u16 = 0x2000;
    /// Offset in units of 8 bytes.
    pub const OFFSET: u16 = 0x1fff;
}
