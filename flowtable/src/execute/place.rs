//! Where fields are in a frame.
//!
//! Most fields are at a fixed place in their header; a table made at compile time says
//! where ([`Form`]). VLAN tags and the options of neighbour discovery are looked for.
//! Each [`Place`] is some 16-bit words at an even offset from its header, so that what a
//! change does to a checksum is a difference of words.

use zerocopy::FromBytes;

use crate::{
    drop::DropReason,
    field::Field,
    headers::{Headers, L3},
    parse::{TAG_PRESENT, is_nd, is_tag, nd_options},
    wire::{Ethernet, Icmp, Tag, ip_proto, nd},
};

/// Offset of the options in a solicitation or advertisement.
const ND_OPTIONS: usize = Icmp::LEN + 16;
/// Bits of ICMP type and code on the wire; the key has 16 for each.
const ICMP_BITS: u8 = 8;

/// Which checksum covers a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    Nothing,
    /// The IPv4 header's.
    Header,
    /// The IPv4 header's, and that of L4 through its pseudo header.
    Address,
    /// L4's.
    Segment,
}

/// Where a field is, from the start of its header or of the frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) offset: u16,
    /// Number of 16-bit words that hold it: 1 to 3, or 8.
    pub(super) n_words: u8,
    /// Bits to the right of it within the words; none in 8 words.
    pub(super) shift: u8,
    /// Width on the wire.
    pub(super) n_bits: u8,
    pub(super) cover: Cover,
}

/// A header that a field can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Absent,
    Ethernet,
    Arp,
    Mpls,
    Ipv4,
    Ipv6,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
}

/// How a field is found.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// At a place in a header.
    Fixed(Header, Place),
    /// In the outermost tag.
    Tag,
    /// In a solicitation or advertisement.
    Neighbour,
    /// Not at all: frames do not have it, or it must not change.
    NotInFrames,
}

const N_FIELDS: usize = Field::ALL.len();
/// The forms of all fields in order, where L3 is not IPv6 and where it is.
static FORMS: [[Form; N_FIELDS]; 2] = [forms(false), forms(true)];

const fn forms(ipv6: bool) -> [Form; N_FIELDS] {
    let mut forms = [Form::NotInFrames; N_FIELDS];
    let mut idx = 0;
    while idx < N_FIELDS {
        forms[idx] = form(Field::ALL[idx], ipv6);
        idx += 1;
    }
    forms
}

const fn form(field: Field, ipv6: bool) -> Form {
    use Cover::{Address, Nothing, Segment};
    let (header, offset, n_words, shift, cover) = match field {
        Field::EthDst => (Header::Ethernet, 0, 3, 0, Nothing),
        Field::EthSrc => (Header::Ethernet, 6, 3, 0, Nothing),
        Field::VlanTci | Field::VlanVid | Field::VlanPcp | Field::VlanVidOxm => return Form::Tag,
        Field::MplsLabel | Field::MplsTc | Field::MplsTtl => (Header::Mpls, 0, 2, 0, Nothing),

        Field::NwSrc => (Header::Ipv4, 12, 2, 0, Address),
        Field::NwDst => (Header::Ipv4, 16, 2, 0, Address),
        Field::Ipv6Src => (Header::Ipv6, 8, 8, 0, Address),
        Field::Ipv6Dst => (Header::Ipv6, 24, 8, 0, Address),
        Field::Ipv6Label => (Header::Ipv6, 0, 2, 0, Nothing),
        Field::NwTos | Field::IpDscp | Field::NwEcn if ipv6 => (Header::Ipv6, 0, 2, 20, Nothing),
        Field::NwTos | Field::IpDscp | Field::NwEcn => (Header::Ipv4, 0, 1, 0, Cover::Header),
        Field::NwTtl if ipv6 => (Header::Ipv6, 6, 1, 0, Nothing),
        Field::NwTtl => (Header::Ipv4, 8, 1, 8, Cover::Header),

        Field::ArpOp => (Header::Arp, 6, 1, 0, Nothing),
        Field::ArpSha => (Header::Arp, 8, 3, 0, Nothing),
        Field::ArpSpa => (Header::Arp, 14, 2, 0, Nothing),
        Field::ArpTha => (Header::Arp, 18, 3, 0, Nothing),
        Field::ArpTpa => (Header::Arp, 24, 2, 0, Nothing),

        Field::TcpSrc => (Header::Tcp, 0, 1, 0, Segment),
        Field::TcpDst => (Header::Tcp, 2, 1, 0, Segment),
        Field::UdpSrc => (Header::Udp, 0, 1, 0, Segment),
        Field::UdpDst => (Header::Udp, 2, 1, 0, Segment),
        Field::SctpSrc => (Header::Sctp, 0, 1, 0, Segment),
        Field::SctpDst => (Header::Sctp, 2, 1, 0, Segment),
        Field::IcmpType => (Header::Icmp, 0, 1, 8, Segment),
        Field::IcmpCode => (Header::Icmp, 0, 1, 0, Segment),
        Field::Icmpv6Type => (Header::Icmpv6, 0, 1, 8, Segment),
        Field::Icmpv6Code => (Header::Icmpv6, 0, 1, 0, Segment),
        Field::NdTarget | Field::NdReserved | Field::NdSll | Field::NdTll | Field::NdOptionsType => {
            return Form::Neighbour;
        }
        _ => return Form::NotInFrames,
    };
    let info = field.info();
    let n_bits = match header {
        Header::Icmp | Header::Icmpv6 => ICMP_BITS,
        _ => info.n_bits as u8,
    };
    Form::Fixed(header, Place { offset, n_words, shift: shift + info.shift as u8, n_bits, cover })
}

/// Finds the fields of one frame.
pub(super) struct Finder {
    forms: &'static [Form; N_FIELDS],
    l3: Header,
    l4: Header,
    l3_at: u16,
    l4_at: u16,
    n_pops: usize,
}

impl Finder {
    /// For a frame of which `n_pops` VLAN tags are about to be removed.
    pub(super) fn new(headers: &Headers, n_pops: usize) -> Self {
        let l3 = match headers.l3 {
            L3::Opaque => Header::Absent,
            L3::Arp => Header::Arp,
            L3::Mpls => Header::Mpls,
            L3::Ipv4 => Header::Ipv4,
            L3::Ipv6 => Header::Ipv6,
        };
        let l4 = match headers.l4_proto {
            ip_proto::TCP => Header::Tcp,
            ip_proto::UDP => Header::Udp,
            ip_proto::SCTP => Header::Sctp,
            ip_proto::ICMP => Header::Icmp,
            ip_proto::ICMPV6 => Header::Icmpv6,
            _ => Header::Absent,
        };
        let forms = &FORMS[usize::from(l3 == Header::Ipv6)];
        Self { forms, l3, l4, l3_at: headers.l3_at as u16, l4_at: headers.l4_at as u16, n_pops }
    }

    /// A field at a fixed place, from the start of its header; nothing when the frame
    /// does not have it or it has to be looked for.
    ///
    /// The place is handed out by reference on purpose: one that is put together on the
    /// stack costs more than the edit.
    #[inline]
    pub(super) fn fixed(&self, field: Field) -> Option<(u16, &'static Place)> {
        let Form::Fixed(header, place) = &self.forms[field as usize] else { return None };
        match *header {
            Header::Ethernet => Some((0, place)),
            header if header == self.l3 => Some((self.l3_at, place)),
            header if header == self.l4 => Some((self.l4_at, place)),
            _ => None,
        }
    }

    /// A field without a fixed place, from the start of the frame.
    #[cold]
    pub(super) fn search(
        &self,
        frame: &[u8],
        headers: &Headers,
        field: Field,
    ) -> Result<Option<Place>, DropReason> {
        match self.forms[field as usize] {
            Form::Fixed(..) => Ok(None),
            Form::Tag => Ok(tag(frame, field, self.n_pops)),
            Form::Neighbour => Ok(neighbour(frame, headers, field)),
            Form::NotInFrames => Err(DropReason::Unsupported),
        }
    }
}

/// The outermost tag that remains after the pops.
fn tag(frame: &[u8], field: Field, n_pops: usize) -> Option<Place> {
    let at = Ethernet::LEN - 2 + n_pops * Tag::LEN;
    let (tag, _) = Tag::ref_from_prefix(frame.get(at..)?).ok()?;
    let info = field.info();
    // Bit 12 says "present" in the key; the frame's DEI is in its place, and stays.
    let n_bits = if field == Field::VlanVidOxm { TAG_PRESENT.trailing_zeros() } else { info.n_bits };
    is_tag(tag.tpid.get()).then_some(Place {
        offset: at as u16 + 2,
        n_words: 1,
        shift: info.shift as u8,
        n_bits: n_bits as u8,
        cover: Cover::Nothing,
    })
}

/// Fields of neighbour discovery. Those of options the message does not have are absent.
fn neighbour(frame: &[u8], headers: &Headers, field: Field) -> Option<Place> {
    let segment = headers.segment(frame);
    let (icmp, _) = Icmp::ref_from_prefix(segment).ok()?;
    let options = segment.get(ND_OPTIONS..)?;
    if headers.l4_proto != ip_proto::ICMPV6 || !is_nd(icmp) {
        return None;
    }
    let option = |kind: Option<u8>| {
        let found = nd_options(options).find(|option| kind.is_none_or(|kind| kind == option.kind));
        found.map(|option| ND_OPTIONS + option.offset)
    };
    let (offset, n_words, shift) = match field {
        Field::NdReserved => (4, 2, 0),
        Field::NdTarget => (Icmp::LEN, 8, 0),
        Field::NdSll => (option(Some(nd::SOURCE_LINK))? + 2, 3, 0),
        Field::NdTll => (option(Some(nd::TARGET_LINK))? + 2, 3, 0),
        _ => (option(None)?, 1, 8),
    };
    let offset = u16::try_from(headers.l4_at + offset).ok()?;
    Some(Place { offset, n_words, shift, n_bits: field.info().n_bits as u8, cover: Cover::Segment })
}
