//! Prints what the caches hold in the syntax of datapath dumps: which packets an entry
//! is for, and what it does with them.

use super::{ct, value};
use crate::{
    field::{Field, FieldInfo, Format},
    flow::{Sample, ToController},
    key::{FlowKey, FlowMask},
    program::{
        CtPass, Emit, Extras, FieldEdit, LabelEdit, MeterStep, Program, SampleStep, TunnelHeader, VlanTag,
    },
};

/// Fields of one header with their names within it.
type Header = &'static [(&'static str, Field)];

const ETH: Header = &[("src", Field::EthSrc), ("dst", Field::EthDst)];
const MPLS: Header =
    &[("label", Field::MplsLabel), ("tc", Field::MplsTc), ("ttl", Field::MplsTtl), ("bos", Field::MplsBos)];
const IPV4: Header = &[
    ("src", Field::NwSrc),
    ("dst", Field::NwDst),
    ("proto", Field::NwProto),
    ("tos", Field::NwTos),
    ("ttl", Field::NwTtl),
    ("frag", Field::NwFrag),
];
const IPV6: Header = &[
    ("src", Field::Ipv6Src),
    ("dst", Field::Ipv6Dst),
    ("label", Field::Ipv6Label),
    ("proto", Field::NwProto),
    ("tclass", Field::NwTos),
    ("hlimit", Field::NwTtl),
    ("frag", Field::NwFrag),
];
const ARP: Header = &[
    ("sip", Field::ArpSpa),
    ("tip", Field::ArpTpa),
    ("op", Field::ArpOp),
    ("sha", Field::ArpSha),
    ("tha", Field::ArpTha),
];
const TCP: Header = &[("src", Field::TcpSrc), ("dst", Field::TcpDst)];
const UDP: Header = &[("src", Field::UdpSrc), ("dst", Field::UdpDst)];
const SCTP: Header = &[("src", Field::SctpSrc), ("dst", Field::SctpDst)];
const ICMP: Header = &[("type", Field::IcmpType), ("code", Field::IcmpCode)];
const ICMPV6: Header = &[("type", Field::Icmpv6Type), ("code", Field::Icmpv6Code)];
const ND: Header = &[
    ("target", Field::NdTarget),
    ("sll", Field::NdSll),
    ("tll", Field::NdTll),
    ("reserved", Field::NdReserved),
    ("options_type", Field::NdOptionsType),
];
const TUNNEL: Header = &[
    ("tun_id", Field::TunId),
    ("src", Field::TunSrc),
    ("dst", Field::TunDst),
    ("ipv6_src", Field::TunIpv6Src),
    ("ipv6_dst", Field::TunIpv6Dst),
    ("tos", Field::TunTos),
    ("ttl", Field::TunTtl),
    ("gbp_id", Field::TunGbpId),
    ("gbp_flags", Field::TunGbpFlags),
    ("flags", Field::TunFlags),
    ("options", Field::TunMetadataPresent),
];
/// Metadata with a group of its own.
const METADATA: Header = &[
    ("recirc_id", Field::RecircId),
    ("dp_hash", Field::DpHash),
    ("skb_priority", Field::SkbPriority),
    ("skb_mark", Field::PktMark),
    ("ct_state", Field::CtState),
    ("ct_zone", Field::CtZone),
    ("ct_mark", Field::CtMark),
    ("ct_label", Field::CtLabel),
];
const CT_TUPLE: Header = &[
    ("src", Field::CtNwSrc),
    ("dst", Field::CtNwDst),
    ("ipv6_src", Field::CtIpv6Src),
    ("ipv6_dst", Field::CtIpv6Dst),
    ("proto", Field::CtNwProto),
    ("tp_src", Field::CtTpSrc),
    ("tp_dst", Field::CtTpDst),
];

/// Which packets a megaflow is for: the fields that have masked bits, by header.
pub fn print_megaflow_match(key: &FlowKey, mask: &FlowMask) -> String {
    let view = View { key, mask };
    let mut groups = Vec::new();
    for (name, field) in METADATA {
        groups.extend(view.single(name, *field));
    }
    groups.extend(view.header("ct_tuple", CT_TUPLE));
    groups.extend(view.tunnel());
    groups.extend(view.single("in_port", Field::InPort));
    // Ethernet goes without saying, as in ovs-dpctl.
    if key.get(Field::PacketType) != 0 {
        groups.extend(view.single("packet_type", Field::PacketType));
    }
    groups.extend(view.header("eth", ETH));
    let inner = view.above_vlan();
    groups.push(view.vlans(inner));
    groups.retain(|group| !group.is_empty());
    groups.join(",")
}

/// A key and the bits of it that are shown.
struct View<'a> {
    key: &'a FlowKey,
    mask: &'a FlowMask,
}

impl View<'_> {
    /// `name(value)`, where the field has masked bits.
    fn single(&self, name: &str, field: Field) -> Option<String> {
        self.value(field).map(|value| format!("{name}({value})"))
    }

    /// `name(a=value,b=value)` of the fields that have masked bits; `None` without any.
    fn header(&self, name: &str, fields: Header) -> Option<String> {
        let parts: Vec<_> = fields
            .iter()
            .filter_map(|(part, field)| self.value(*field).map(|value| format!("{part}={value}")))
            .collect();
        (!parts.is_empty()).then(|| format!("{name}({})", parts.join(",")))
    }

    fn value(&self, field: Field) -> Option<String> {
        let mask = self.mask.get(field);
        (mask != 0).then(|| print_value(field, self.key.get(field) & mask, mask))
    }

    fn tunnel(&self) -> Option<String> {
        let options = (0..64).filter_map(Field::tun_metadata);
        let mut parts: Vec<_> = options
            .filter_map(|field| self.value(field).map(|value| format!("{}={value}", field.info().name)))
            .collect();
        if let Some(header) = self.header("", TUNNEL) {
            parts.insert(0, header.trim_matches(['(', ')']).to_owned());
        }
        (!parts.is_empty()).then(|| format!("tunnel({})", parts.join(",")))
    }

    /// Wraps what is behind the tags in `encap`, once for each tag.
    fn vlans(&self, inner: String) -> String {
        let tags = [(Field::CvlanTci, Field::CvlanTpid), (Field::VlanTci, Field::VlanTpid)];
        tags.into_iter().fold(inner, |inner, (tci, tpid)| {
            let is_tagged = self.key.get(tci) & self.mask.get(tci) & 0x1000 != 0;
            if !is_tagged {
                return inner;
            }
            let mut parts = Vec::new();
            let (value, mask) = (self.key.get(tci), self.mask.get(tci));
            for (name, shift, bits) in [("vid", 0, 0xfff), ("pcp", 13, 7)] {
                match mask >> shift & bits {
                    0 => {}
                    part if part == bits => parts.push(format!("{name}={}", value >> shift & bits)),
                    part => parts.push(format!("{name}={:#x}/{part:#x}", value >> shift & part)),
                }
            }
            let tpid = match self.key.get(tpid) {
                0 => 0x8100,
                tpid => tpid,
            };
            format!("eth_type({tpid:#06x}),vlan({}),encap({inner})", parts.join(","))
        })
    }

    /// From the EtherType on.
    fn above_vlan(&self) -> String {
        let eth_type = self.key.get(Field::EthType);
        let mut groups: Vec<_> = self.single("eth_type", Field::EthType).into_iter().collect();
        match eth_type {
            0x0800 => groups.extend(self.header("ipv4", IPV4)),
            0x86dd => groups.extend(self.header("ipv6", IPV6)),
            0x0806 => groups.extend(self.header("arp", ARP)),
            0x8035 => groups.extend(self.header("rarp", ARP)),
            0x8847 | 0x8848 => groups.extend(self.header("mpls", MPLS)),
            _ => {}
        }
        if matches!(eth_type, 0x0800 | 0x86dd) {
            groups.extend(self.transport(eth_type));
        }
        groups.join(",")
    }

    fn transport(&self, eth_type: u128) -> Vec<String> {
        let groups = match (self.key.nw_proto, eth_type) {
            (6, _) => [self.header("tcp", TCP), self.single("tcp_flags", Field::TcpFlags)],
            (17, _) => [self.header("udp", UDP), None],
            (132, _) => [self.header("sctp", SCTP), None],
            (1, 0x0800) => [self.header("icmp", ICMP), None],
            (58, 0x86dd) => [self.header("icmpv6", ICMPV6), self.header("nd", ND)],
            // No ports, but bits that were looked at all the same.
            _ => [self.header("tp", TCP), None],
        };
        groups.into_iter().flatten().collect()
    }
}

/// A value as datapath dumps have it: masks in full, never as a prefix length.
fn print_value(field: Field, bits: u128, mask: u128) -> String {
    let FieldInfo { format, .. } = field.info();
    let whole = mask == field.all_bits();
    let print = |bits| value::print(field, bits, field.all_bits());
    match format {
        Format::Mac | Format::Ipv4 | Format::Ipv6 if !whole => format!("{}/{}", print(bits), print(mask)),
        Format::CtState | Format::TcpFlags | Format::TunFlags => {
            let named = value::print_named_flags(field, bits, mask);
            // Of all flags at once only those that are set are worth reading.
            let set = value::print_named_flags(field, bits, bits).filter(|_| whole);
            set.or(named).unwrap_or_else(|| value::print(field, bits, mask))
        }
        _ => value::print(field, bits, mask),
    }
}

/// What a program does with the packet. Copies that differ from the packet as received
/// stand in `clone(...)`, but for the last one, which takes the packet itself.
/// Samples come first: they are of the packet as received, like every copy.
pub fn print_program(program: &Program) -> String {
    let samples: String = program.samples.iter().map(|step| print_sample(step) + ",").collect();
    samples + &print_emits(program)
}

/// `sample(sample=10.0%,actions(userspace(flow_sample(…))))`.
fn print_sample(step: &SampleStep) -> String {
    let Sample { probability, collector_set, obs_domain, obs_point, sampling_port, .. } = step.sample;
    let share = f64::from(probability) * 100.0 / f64::from(u16::MAX);
    let port = sampling_port.map_or_else(String::new, |port| format!(",output_port={port}"));
    let changes: String = print_changes(&step.emit).iter().map(|change| format!("{change},")).collect();
    format!(
        "sample(sample={share:.1}%,actions({changes}userspace(flow_sample(probability={probability},collector_set_id={collector_set},obs_domain_id={obs_domain},obs_point_id={obs_point}{port}))))"
    )
}

fn print_emits(program: &Program) -> String {
    if program.emits.is_empty() {
        let drop = match &program.drop {
            Some(cause) => format!("drop({})", cause.reason),
            None => "drop".to_owned(),
        };
        let meters = program.meters.iter().map(|step| format!("meter({}),", step.meter.config().id));
        return meters.collect::<String>() + &drop;
    }
    let last = program.emits.len() - 1;
    let mut parts = Vec::new();
    for (idx, emit) in program.emits.iter().enumerate() {
        let text = print_emit(emit);
        let is_bare = !text.contains(',') || !emit.leaves() && text.starts_with("ct(");
        let text = if idx != last && !is_bare { format!("clone({text})") } else { text };
        parts.push(print_meters(program, idx) + &text + &")".repeat(n_closed_after(program, idx)));
    }
    if let Some(cause) = program.drop.as_ref().filter(|_| program.emits.iter().all(Emit::is_mirrored)) {
        parts.push(format!("drop({})", cause.reason));
    }
    let behind = print_meters(program, last + 1);
    if !behind.is_empty() {
        parts.push(behind.trim_end_matches(',').to_owned());
    }
    parts.join(",")
}

/// Meters in front of an emit. One that decides about a part of the emits begins a clone.
fn print_meters(program: &Program, idx: usize) -> String {
    let n_emits = program.emits.len();
    let before = program.meters.iter().filter(|step| step.emits.start == idx);
    before
        .map(|step| match (step.meter.config().id, &step.emits) {
            (id, emits) if emits.is_empty() => format!("clone(meter({id})),"),
            (id, emits) if emits.end < n_emits => format!("clone(meter({id}),"),
            (id, _) => format!("meter({id}),"),
        })
        .collect()
}

/// Clones of meters that end behind an emit.
fn n_closed_after(program: &Program, idx: usize) -> usize {
    let is_partial = |step: &&MeterStep| !step.emits.is_empty() && step.emits.end < program.emits.len();
    program.meters.iter().filter(is_partial).filter(|step| step.emits.end == idx + 1).count()
}

/// What changes about a copy.
fn print_changes(emit: &Emit) -> Vec<String> {
    let mut parts = vec!["pop_vlan".to_owned(); emit.n_vlan_pops.into()];
    parts.extend(emit.vlan_pushes.iter().map(print_push));
    parts.extend(print_edits(&emit.edits));
    parts.extend(emit.extras.iter().flat_map(|extras| print_extras(extras)));
    parts
}

fn print_emit(emit: &Emit) -> String {
    let mut parts = print_changes(emit);
    let punt = emit.extras.as_ref().and_then(|extras| extras.punt.as_ref());
    parts.push(match (&emit.tunnel, punt) {
        _ if emit.ct.is_some() => emit.ct.as_deref().map(print_pass).unwrap_or_default(),
        (Some(tunnel), _) => print_tunnel(tunnel, emit),
        (None, Some(punt)) => {
            let ToController { max_len, reason, controller, .. } = &punt.to;
            let pause = if punt.next.is_some() { ",pause" } else { "" };
            format!("userspace(controller(reason={reason},id={controller},max_len={max_len}{pause}))")
        }
        (None, None) => emit.port.to_string(),
    });
    parts.join(",")
}

fn print_extras(extras: &Extras) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(LabelEdit { n_pops, pushes, eth_type }) = &extras.labels {
        parts.resize(usize::from(*n_pops), format!("pop_mpls(eth_type={eth_type:#06x})"));
        parts.extend(pushes.iter().map(|entry| {
            let (label, tc, ttl, bos) = (entry >> 12, entry >> 9 & 7, entry & 0xff, entry >> 8 & 1);
            format!("push_mpls(label={label},tc={tc},ttl={ttl},bos={bos},eth_type={eth_type:#06x})")
        }));
    }
    parts.extend(extras.max_len.map(|max_len| format!("trunc({max_len})")));
    parts.extend(extras.queue.map(|queue| format!("queue({queue})")));
    parts
}

/// `ct(commit,zone=1),recirc(0x2)`.
fn print_pass(pass: &CtPass) -> String {
    let CtPass { request, next, recirc_id } = pass;
    let mut parts = Vec::new();
    parts.extend(request.commit.then(|| "commit".to_owned()));
    parts.extend(request.force.then(|| "force".to_owned()));
    parts.push(format!("zone={}", request.zone));
    let (mark, mask) = request.mark;
    parts.extend((mask != 0).then(|| format!("mark={mark:#x}/{mask:#x}")));
    let (label, mask) = request.label;
    parts.extend((mask != 0).then(|| format!("label={label:#x}/{mask:#x}")));
    parts.extend(request.policy.map(|policy| format!("timeout={policy}")));
    parts.extend(request.alg.map(|alg| format!("alg={}", alg.name())));
    parts.extend(request.nat.as_ref().map(ct::print_nat));
    let recirc = if next.is_some() { format!(",recirc({recirc_id:#x})") } else { String::new() };
    format!("ct({}){recirc}", parts.join(","))
}

fn print_push(tag: &VlanTag) -> String {
    let VlanTag { tpid, tci } = tag;
    format!("push_vlan(tpid={tpid:#06x},vid={},pcp={})", tci & 0xfff, tci >> 13)
}

/// `set(header(field=value))` for each header that changes.
fn print_edits(edits: &[FieldEdit]) -> Vec<String> {
    // TTL and DSCP look the same in both versions of IP; addresses tell which it is.
    let has = |fields: &[Field]| edits.iter().any(|edit| fields.contains(&edit.field));
    let (ip_name, ip) = if has(&[Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6Label, Field::NdTarget]) {
        ("ipv6", IPV6)
    } else if has(&[Field::NwSrc, Field::NwDst]) {
        ("ipv4", IPV4)
    } else {
        ("ip", IPV4)
    };
    let headers = [
        ("eth", ETH),
        ("mpls", MPLS),
        (ip_name, ip),
        ("arp", ARP),
        ("tcp", TCP),
        ("udp", UDP),
        ("sctp", SCTP),
        ("icmp", ICMP),
        ("icmpv6", ICMPV6),
        ("nd", ND),
    ];
    let print = |part: &str, edit: &FieldEdit| {
        format!("{part}={}", print_value(edit.field, edit.value & edit.mask, edit.mask))
    };
    let mut known = vec![false; edits.len()];
    let mut sets = Vec::new();
    for (name, fields) in headers {
        let mut parts = Vec::new();
        for (idx, edit) in edits.iter().enumerate() {
            if let Some((part, _)) = fields.iter().find(|(_, field)| *field == edit.field && !known[idx]) {
                known[idx] = true;
                parts.push(print(part, edit));
            }
        }
        if !parts.is_empty() {
            sets.push(format!("set({name}({}))", parts.join(",")));
        }
    }
    let others = edits.iter().zip(&known).filter(|(_, known)| !**known);
    sets.extend(others.map(|(edit, _)| format!("set({})", print(edit.field.info().name, edit))));
    sets
}

fn print_tunnel(tunnel: &TunnelHeader, emit: &Emit) -> String {
    let kind = tunnel.kind.name();
    let TunnelHeader { vni, remote, bytes, tunnel_port, .. } = tunnel;
    let size = bytes.len();
    format!(
        "tnl_push(tnl_port({tunnel_port}),{kind}(vni={:#x},dst={remote},size={size}),out_port({}))",
        vni.get(),
        emit.port
    )
}
