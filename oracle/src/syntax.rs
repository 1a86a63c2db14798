//! Rules as the oracle has them: plain trees, printed in the syntax of ovs-ofctl(8). The text is what
//! the switch and Open vSwitch read; the interpreter takes the tree.

use std::fmt;

use crate::field::{Field, Form};

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Its table.
    pub table: u8,
    /// Its priority, different from that of each other rule of the table.
    pub priority: u16,
    /// Which packets.
    pub matching: Matching,
    /// What to do.
    pub steps: Vec<Step>,
}

/// Which packets a rule is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    /// Protocol keyword.
    pub kind: Option<Kind>,
    /// What else must hold.
    pub terms: Vec<Term>,
}

/// Some bits of a field have given values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The field.
    pub field: Field,
    /// The bits' values.
    pub value: u128,
    /// The bits.
    pub mask: u128,
}

/// Protocol keywords of ovs-fields(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Arp,
    Ip,
    Ipv6,
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Tcp6,
    Udp6,
    Sctp6,
    Icmp6,
    Mpls,
}

impl Kind {
    /// Keyword, EtherType, IP protocol.
    pub fn meaning(self) -> (&'static str, u16, Option<u8>) {
        match self {
            Self::Arp => ("arp", 0x0806, None),
            Self::Ip => ("ip", 0x0800, None),
            Self::Ipv6 => ("ipv6", 0x86dd, None),
            Self::Tcp => ("tcp", 0x0800, Some(6)),
            Self::Udp => ("udp", 0x0800, Some(17)),
            Self::Sctp => ("sctp", 0x0800, Some(132)),
            Self::Icmp => ("icmp", 0x0800, Some(1)),
            Self::Tcp6 => ("tcp6", 0x86dd, Some(6)),
            Self::Udp6 => ("udp6", 0x86dd, Some(17)),
            Self::Sctp6 => ("sctp6", 0x86dd, Some(132)),
            Self::Icmp6 => ("icmp6", 0x86dd, Some(58)),
            Self::Mpls => ("mpls", 0x8847, None),
        }
    }
}

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To a port.
    Output(u32),
    /// To the input port.
    InPort,
    /// To all ports but the input port.
    Flood,
    /// To the port that some bits name.
    OutputReg(Part),
    /// Sets bits of a field.
    Set(Term),
    /// Copies bits.
    Move {
        /// From here.
        src: Part,
        /// To there.
        dst: Part,
    },
    /// Looks up in a table, as if received by the port.
    Resubmit {
        /// Another input port for this lookup.
        port: Option<u32>,
        /// The table.
        table: u8,
    },
    /// Goes on in a later table after all other actions.
    Goto(u8),
    /// Actions whose changes are undone.
    Clone(Vec<Step>),
    /// Decrements the TTL.
    DecTtl,
    /// Pushes a tag with this TPID.
    PushVlan(u16),
    /// Pops the outer tag.
    PopVlan,
    /// Sets the VLAN id, with a new tag where there is none.
    ModVlanVid(u16),
    /// The same, as OpenFlow 1.2 and later say it.
    SetVlanVid(u16),
    /// Sets the VLAN priority, with a new tag where there is none.
    ModVlanPcp(u8),
    /// Sets the tunnel key.
    SetTunnel(u64),
}

/// Some bits of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The field.
    pub field: Field,
    /// Lowest bit.
    pub start: u32,
    /// Number of bits.
    pub n_bits: u32,
}

impl Part {
    /// All bits of a field.
    pub fn whole(field: Field) -> Self {
        Self { field, start: 0, n_bits: field.n_bits() }
    }
}

/// The lowest `n` bits.
pub fn ones(n: u32) -> u128 {
    if n >= 128 { u128::MAX } else { (1 << n) - 1 }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table={},priority={}", self.table, self.priority)?;
        if let Some(kind) = self.matching.kind {
            write!(f, ",{}", kind.meaning().0)?;
        }
        for Term { field, value, mask } in &self.matching.terms {
            write!(f, ",{}={}", field.name(), written(*field, *value))?;
            if *mask != ones(field.n_bits()) {
                write!(f, "/{}", written(*field, *mask))?;
            }
        }
        f.write_str(",actions=")?;
        if self.steps.is_empty() { f.write_str("drop") } else { list(f, &self.steps) }
    }
}

fn list(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    for (idx, step) in steps.iter().enumerate() {
        if idx > 0 {
            f.write_str(",")?;
        }
        write!(f, "{step}")?;
    }
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(port) => write!(f, "output:{port}"),
            Self::InPort => f.write_str("IN_PORT"),
            Self::Flood => f.write_str("FLOOD"),
            Self::OutputReg(part) => write!(f, "output:{part}"),
            Self::Set(Term { field, value, mask }) => {
                write!(f, "set_field:{}", written(*field, *value))?;
                if *mask != ones(field.n_bits()) {
                    write!(f, "/{}", written(*field, *mask))?;
                }
                // The name `dl_vlan_pcp` is not one that every protocol can set.
                let name = if *field == Field::VlanPcp { "vlan_pcp".to_owned() } else { field.name() };
                write!(f, "->{name}")
            }
            Self::Move { src, dst } => write!(f, "move:{src}->{dst}"),
            Self::Resubmit { port: None, table } => write!(f, "resubmit(,{table})"),
            Self::Resubmit { port: Some(port), table } => write!(f, "resubmit({port},{table})"),
            Self::Goto(table) => write!(f, "goto_table:{table}"),
            Self::Clone(steps) => {
                f.write_str("clone(")?;
                list(f, steps)?;
                f.write_str(")")
            }
            Self::DecTtl => f.write_str("dec_ttl"),
            Self::PushVlan(tpid) => write!(f, "push_vlan:{tpid:#06x}"),
            Self::PopVlan => f.write_str("pop_vlan"),
            Self::ModVlanVid(vid) => write!(f, "mod_vlan_vid:{vid}"),
            // With the bit that says "present".
            Self::SetVlanVid(vid) => write!(f, "set_field:{:#x}->vlan_vid", vid | 0x1000),
            Self::ModVlanPcp(pcp) => write!(f, "mod_vlan_pcp:{pcp}"),
            Self::SetTunnel(id) => write!(f, "set_tunnel:{id:#x}"),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}..{}]", self.field.name(), self.start, self.start + self.n_bits - 1)
    }
}

/// A value as ovs-fields(7) writes it.
fn written(field: Field, value: u128) -> String {
    match field.form() {
        Form::Number => value.to_string(),
        Form::Hex => format!("{value:#x}"),
        Form::Mac => {
            let bytes = value.to_be_bytes();
            bytes[10..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
        }
        Form::Ipv4 => std::net::Ipv4Addr::from_bits(value as u32).to_string(),
        Form::Ipv6 => std::net::Ipv6Addr::from_bits(value).to_string(),
    }
}
