//! What a frame is made of, read anew from its bytes each time, with etherparse where it has a reader.

use etherparse::{
    ArpPacketSlice, Ethernet2HeaderSlice, IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice,
    Ipv6HeaderSlice, Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice, TcpHeaderSlice, UdpHeaderSlice,
};

/// Tags that are looked through.
const MAX_TAGS: usize = 2;
/// What ovs-fields(7) gives frames without an EtherType.
const NO_TYPE: u16 = 0x05ff;

/// The network header, where it is whole and consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Net {
    Other,
    Arp,
    Mpls,
    Ipv4,
    Ipv6,
}

/// A transport header that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum L4 {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
}

/// Where things are in a frame.
#[derive(Debug, Clone)]
pub struct View {
    /// Where the tags start, outermost first.
    pub tags: Vec<usize>,
    /// EtherType after the tags.
    pub eth_type: u16,
    /// Where the network header starts.
    pub l3: usize,
    /// Which it is.
    pub net: Net,
    /// End of the network packet: padding follows.
    pub end: usize,
    /// Protocol, 44 for later fragments of IPv6; 0 when there is none.
    pub proto: u8,
    /// As the field `ip_frag`: 0, 1 first, 3 later.
    pub frag: u8,
    /// Where the transport header starts, when it is one that is read.
    pub l4: Option<(L4, usize)>,
    /// Where whatever is behind the network headers starts; 0 for what cannot be told.
    pub l4_at: usize,
    /// It has a routing header.
    pub routed: bool,
    /// Type and code of ICMP and ICMPv6.
    pub icmp: Option<(u8, u8)>,
}

/// Where the parts of a neighbour discovery message are.
#[derive(Debug, Clone, Copy)]
pub struct Nd {
    /// The target address.
    pub target: usize,
    /// The source link-layer address option.
    pub source_link: Option<usize>,
    /// The target link-layer address option.
    pub target_link: Option<usize>,
}

/// Reads a frame; nothing when it has no Ethernet header.
pub fn view(frame: &[u8]) -> Option<View> {
    let ethernet = Ethernet2HeaderSlice::from_slice(frame).ok()?;
    let mut eth_type = ethernet.ether_type().0;
    let mut l3 = 14;
    let mut tags = Vec::new();
    while matches!(eth_type, 0x8100 | 0x88a8) && tags.len() < MAX_TAGS {
        let Ok(tag) = SingleVlanHeaderSlice::from_slice(&frame[l3..]) else { break };
        tags.push(l3 - 2);
        eth_type = tag.ether_type().0;
        l3 += 4;
    }
    if eth_type < 0x600 {
        (eth_type, l3) = match frame.get(l3..l3 + 8) {
            Some(&[0xaa, 0xaa, 3, 0, 0, 0, high, low]) if u16::from_be_bytes([high, low]) >= 0x600 => {
                (u16::from_be_bytes([high, low]), l3 + 8)
            }
            _ => (NO_TYPE, l3),
        };
    }
    let mut view = View {
        tags,
        eth_type,
        l3,
        net: Net::Other,
        end: frame.len(),
        proto: 0,
        frag: 0,
        l4: None,
        l4_at: 0,
        routed: false,
        icmp: None,
    };
    let packet = &frame[l3..];
    match eth_type {
        0x0806 | 0x8035 => arp(&mut view, packet),
        0x8847 | 0x8848 if packet.len() >= 4 => view.net = Net::Mpls,
        0x0800 => ipv4(&mut view, frame),
        0x86dd => ipv6(&mut view, frame),
        _ => {}
    }
    Some(view)
}

fn arp(view: &mut View, packet: &[u8]) {
    let Ok(arp) = ArpPacketSlice::from_slice(packet) else { return };
    let sizes = (arp.hw_addr_type().0, arp.proto_addr_type().0, arp.hw_addr_size(), arp.proto_addr_size());
    if sizes == (1, 0x0800, 6, 4) {
        view.net = Net::Arp;
    }
}

fn ipv4(view: &mut View, frame: &[u8]) {
    let packet = &frame[view.l3..];
    let Ok(ip) = Ipv4HeaderSlice::from_slice(packet) else { return };
    let (header_len, total_len) = (ip.slice().len(), usize::from(ip.total_len()));
    if total_len < header_len || total_len > packet.len() {
        return;
    }
    view.net = Net::Ipv4;
    view.end = view.l3 + total_len;
    view.proto = ip.protocol().0;
    view.frag = match (ip.fragments_offset().value(), ip.more_fragments()) {
        (0, false) => 0,
        (0, true) => 1,
        _ => 3,
    };
    if view.frag != 3 {
        transport(view, frame, view.l3 + header_len);
    }
}

fn ipv6(view: &mut View, frame: &[u8]) {
    let packet = &frame[view.l3..];
    let Ok(ip) = Ipv6HeaderSlice::from_slice(packet) else { return };
    let total_len = 40 + usize::from(ip.payload_length());
    if total_len > packet.len() {
        return;
    }
    view.net = Net::Ipv6;
    view.end = view.l3 + total_len;
    let (mut next, mut at) = (ip.next_header(), 40);
    loop {
        let Some(rest) = packet.get(at..total_len) else { return };
        let (following, len) = match next {
            IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS => {
                let Ok(header) = Ipv6RawExtHeaderSlice::from_slice(rest) else { return };
                view.routed |= next == IpNumber::IPV6_ROUTE_HEADER;
                (header.next_header(), header.slice().len())
            }
            IpNumber::AUTHENTICATION_HEADER => {
                // By hand: etherparse refuses lengths that hosts go along with (RFC 4302 §2.2 counts in
                // words of four bytes, less two).
                let Some(&[following, words, ..]) = rest.first_chunk::<8>() else { return };
                (IpNumber(following), (usize::from(words) + 2) * 4)
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => {
                let Ok(header) = Ipv6FragmentHeaderSlice::from_slice(rest) else { return };
                match (header.fragment_offset().value(), header.more_fragments()) {
                    (0, more) => view.frag = more.into(),
                    _ => {
                        (view.frag, view.proto) = (3, 44);
                        return;
                    }
                }
                (header.next_header(), 8)
            }
            IpNumber(proto) => {
                view.proto = proto;
                return transport(view, frame, view.l3 + at);
            }
        };
        at += len;
        next = following;
    }
}

fn transport(view: &mut View, frame: &[u8], at: usize) {
    view.l4_at = at;
    let segment = &frame[at..view.end];
    let ip4 = view.net == Net::Ipv4;
    let icmp = (segment.len() >= 8).then(|| (segment[0], segment[1]));
    view.l4 = match view.proto {
        6 => TcpHeaderSlice::from_slice(segment).is_ok().then_some((L4::Tcp, at)),
        17 => UdpHeaderSlice::from_slice(segment).is_ok().then_some((L4::Udp, at)),
        132 => (segment.len() >= 12).then_some((L4::Sctp, at)),
        1 if ip4 => icmp.map(|_| (L4::Icmp, at)),
        58 if !ip4 => icmp.map(|_| (L4::Icmpv6, at)),
        _ => None,
    };
    if matches!(view.l4, Some((L4::Icmp | L4::Icmpv6, _))) {
        view.icmp = icmp;
    }
}

impl View {
    /// The parts of a neighbour solicitation or advertisement (RFC 4861 §4.3, §4.4); nothing when the
    /// message is cut off or says a link-layer address twice.
    pub fn nd(&self, frame: &[u8]) -> Option<Nd> {
        let (Some((L4::Icmpv6, at)), Some((135 | 136, 0))) = (self.l4, self.icmp) else { return None };
        let message = frame.get(at..self.end).filter(|message| message.len() >= 24)?;
        let mut nd = Nd { target: at + 8, source_link: None, target_link: None };
        let mut offset = 24;
        while let Some(&[kind, units]) = message.get(offset..offset + 2) {
            let len = usize::from(units) * 8;
            if len == 0 || offset + len > message.len() {
                break;
            }
            let slot = match kind {
                1 => Some(&mut nd.source_link),
                2 => Some(&mut nd.target_link),
                _ => None,
            };
            if let Some(slot) = slot.filter(|_| len == 8)
                && slot.replace(at + offset).is_some()
            {
                return None;
            }
            offset += len;
        }
        Some(nd)
    }
}
