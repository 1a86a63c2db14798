//! Actions, in the order of ovs-actions(7).

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use super::{Learn, Part, Term, masked};
use crate::field::Field;

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To a port.
    Output(u32),
    /// To the input port.
    InPort,
    /// To all ports but the input port.
    Flood,
    /// To where the station is, or everywhere.
    Normal,
    /// To the port that some bits name.
    OutputReg(Part),
    /// To a port, the first bytes only.
    Truncated {
        /// The port.
        port: u32,
        /// Bytes that are left.
        max_len: u32,
    },
    /// To a port by a queue.
    Enqueue {
        /// The port.
        port: u32,
        /// The queue.
        queue: u32,
    },
    /// Later outputs use a queue.
    SetQueue(u32),
    /// Later outputs use no queue.
    PopQueue,
    /// To all controllers, the whole packet.
    Controller,
    /// To one controller.
    Tell(Tell),
    /// Sets bits of a field.
    Set(Term),
    /// Sets bits of a field, as `load` writes it.
    Load(Part, u128),
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
        /// By the addresses of the connection's first packet.
        ct: bool,
    },
    /// Goes on in a later table after all other actions.
    Goto(u8),
    /// Actions whose changes are undone.
    Clone(Vec<Step>),
    /// Ends the walk.
    Exit,
    /// Decrements the TTL.
    DecTtl,
    /// The same; these controllers are told when it has run out.
    DecTtlOrTell(Vec<u16>),
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
    /// Pushes a label, with this EtherType.
    PushMpls(u16),
    /// Pops a label; this EtherType is left.
    PopMpls(u16),
    /// Decrements the label's TTL.
    DecMplsTtl,
    /// Sets the tunnel key.
    SetTunnel(u64),
    /// Puts bits on the stack.
    Push(Part),
    /// Takes bits from the stack.
    Pop(Part),
    /// Removes a Geneve option.
    DeleteField(Field),
    /// Writes the number of a link.
    Multipath(Multipath),
    /// Sends to one of several ports, or writes its number.
    Bundle(Bundle),
    /// A way to satisfy a clause of a conjunction.
    Conjunction {
        /// The conjunction.
        id: u32,
        /// The clause, from 1.
        clause: u8,
        /// Clauses that it has.
        n_clauses: u8,
    },
    /// To a group.
    Group(u32),
    /// Through a meter.
    Meter(u32),
    /// Through the connection tracker.
    Ct(Ct),
    /// Forgets what the tracker said.
    CtClear,
    /// Bytes.
    Note(Vec<u8>),
    /// Writes to a bit whether the frame is longer than so many bytes.
    CheckPktLarger(u16, Part),
    /// Makes a rule out of the packet.
    Learn(Learn),
    /// Shortens the rule's life when a connection ends.
    FinTimeout,
    /// Tells collectors, sometimes.
    Sample,
    /// Empties the action set.
    ClearActions,
    /// Adds to the action set.
    WriteActions(Vec<Step>),
    /// Sets bits of the metadata.
    WriteMetadata(u64, u64),
}

/// To one controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tell {
    /// Bytes of the packet.
    pub max_len: Option<u16>,
    /// A reason other than "action".
    pub reason: Option<&'static str>,
    /// Which controller.
    pub id: u16,
    /// For the controller.
    pub userdata: Vec<u8>,
}

/// What a choice hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hashed {
    EthSrc,
    SymmetricL4,
    SymmetricL3L4,
    SymmetricL3L4Udp,
    NwSrc,
    NwDst,
}

impl Hashed {
    fn name(self) -> &'static str {
        match self {
            Self::EthSrc => "eth_src",
            Self::SymmetricL4 => "symmetric_l4",
            Self::SymmetricL3L4 => "symmetric_l3l4",
            Self::SymmetricL3L4Udp => "symmetric_l3l4+udp",
            Self::NwSrc => "nw_src",
            Self::NwDst => "nw_dst",
        }
    }
}

/// Writes the number of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipath {
    /// What is hashed.
    pub hashed: Hashed,
    /// Part of the hash.
    pub basis: u16,
    /// `modulo_n` and its like.
    pub algorithm: &'static str,
    /// How many there are.
    pub n_links: u32,
    /// Argument of the algorithm.
    pub argument: u32,
    /// Where it is written.
    pub dst: Part,
}

/// Chooses a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What is hashed; nothing: the first that is up.
    pub hashed: Option<Hashed>,
    /// Part of the hash.
    pub basis: u16,
    /// The ports.
    pub members: Vec<u32>,
    /// Where its number is written; nothing: it is sent to.
    pub dst: Option<Part>,
}

/// What is asked of the connection tracker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ct {
    /// The connection is to be remembered.
    pub commit: bool,
    /// Even if it is the answer to another.
    pub force: bool,
    /// A copy goes on there.
    pub table: Option<u8>,
    /// The name space.
    pub zone: Zone,
    /// Translation.
    pub nat: Option<Nat>,
    /// What is written to `ct_mark` and `ct_label`.
    pub exec: Vec<Step>,
}

/// Where the number of a zone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// Here.
    Number(u16),
    /// In 16 bits of a field.
    In(Part),
}

impl Default for Zone {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// A translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// That of the connection.
    Existing,
    /// For new connections, this one.
    To {
        /// The source's, not the destination's.
        source: bool,
        /// IPv6.
        ipv6: bool,
        /// The address.
        address: u128,
        /// The port.
        port: Option<u16>,
    },
}

pub(super) fn list(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    for (idx, step) in steps.iter().enumerate() {
        if idx > 0 {
            f.write_str(",")?;
        }
        write!(f, "{step}")?;
    }
    Ok(())
}

fn within(f: &mut fmt::Formatter<'_>, name: &str, steps: &[Step]) -> fmt::Result {
    write!(f, "{name}(")?;
    list(f, steps)?;
    f.write_str(")")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(".")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output(port) => write!(f, "output:{port}"),
            Self::InPort => f.write_str("IN_PORT"),
            Self::Flood => f.write_str("FLOOD"),
            Self::Normal => f.write_str("NORMAL"),
            Self::OutputReg(part) => write!(f, "output:{part}"),
            Self::Truncated { port, max_len } => write!(f, "output(port={port},max_len={max_len})"),
            Self::Enqueue { port, queue } => write!(f, "enqueue:{port}:{queue}"),
            Self::SetQueue(queue) => write!(f, "set_queue:{queue}"),
            Self::PopQueue => f.write_str("pop_queue"),
            Self::Controller => f.write_str("CONTROLLER"),
            Self::Tell(tell) => write!(f, "{tell}"),
            Self::Set(Term { field, value, mask }) => {
                f.write_str("set_field:")?;
                masked(f, *field, *value, *mask)?;
                // The name `dl_vlan_pcp` is not one that every protocol can set.
                let name = if *field == Field::VlanPcp { "vlan_pcp".to_owned() } else { field.name() };
                write!(f, "->{name}")
            }
            Self::Load(part, value) => write!(f, "load:{value:#x}->{part}"),
            Self::Move { src, dst } => write!(f, "move:{src}->{dst}"),
            Self::Resubmit { port, table, ct } => {
                let port = port.map_or(String::new(), |port| port.to_string());
                write!(f, "resubmit({port},{table}{})", if *ct { ",ct" } else { "" })
            }
            Self::Goto(table) => write!(f, "goto_table:{table}"),
            Self::Clone(steps) => within(f, "clone", steps),
            Self::Exit => f.write_str("exit"),
            Self::DecTtl => f.write_str("dec_ttl"),
            Self::DecTtlOrTell(ids) => {
                let ids: Vec<_> = ids.iter().map(u16::to_string).collect();
                write!(f, "dec_ttl({})", ids.join(","))
            }
            Self::PushVlan(tpid) => write!(f, "push_vlan:{tpid:#06x}"),
            Self::PopVlan => f.write_str("pop_vlan"),
            Self::ModVlanVid(vid) => write!(f, "mod_vlan_vid:{vid}"),
            // With the bit that says "present".
            Self::SetVlanVid(vid) => write!(f, "set_field:{:#x}->vlan_vid", vid | 0x1000),
            Self::ModVlanPcp(pcp) => write!(f, "mod_vlan_pcp:{pcp}"),
            Self::PushMpls(eth_type) => write!(f, "push_mpls:{eth_type:#06x}"),
            Self::PopMpls(eth_type) => write!(f, "pop_mpls:{eth_type:#06x}"),
            Self::DecMplsTtl => f.write_str("dec_mpls_ttl"),
            Self::SetTunnel(id) => write!(f, "set_tunnel:{id:#x}"),
            _ => self.more(f),
        }
    }
}

impl Step {
    fn more(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push(part) => write!(f, "push:{part}"),
            Self::Pop(part) => write!(f, "pop:{part}"),
            Self::DeleteField(field) => write!(f, "delete_field:{}", field.name()),
            Self::Multipath(Multipath { hashed, basis, algorithm, n_links, argument, dst }) => {
                let hashed = hashed.name();
                write!(f, "multipath({hashed},{basis},{algorithm},{n_links},{argument},{dst})")
            }
            Self::Bundle(bundle) => write!(f, "{bundle}"),
            Self::Conjunction { id, clause, n_clauses } => {
                write!(f, "conjunction({id},{clause}/{n_clauses})")
            }
            Self::Group(id) => write!(f, "group:{id}"),
            Self::Meter(id) => write!(f, "meter:{id}"),
            Self::Ct(ct) => write!(f, "{ct}"),
            Self::CtClear => f.write_str("ct_clear"),
            Self::Note(bytes) => write!(f, "note:{}", hex(bytes)),
            Self::CheckPktLarger(len, Part { field, start, .. }) => {
                write!(f, "check_pkt_larger({len})->{}[{start}]", field.name())
            }
            Self::Learn(learn) => write!(f, "{learn}"),
            Self::FinTimeout => f.write_str("fin_timeout(idle_timeout=10)"),
            Self::Sample => f.write_str("sample(probability=100,collector_set_id=1)"),
            Self::ClearActions => f.write_str("clear_actions"),
            Self::WriteActions(steps) => within(f, "write_actions", steps),
            Self::WriteMetadata(value, mask) => write!(f, "write_metadata:{value:#x}/{mask:#x}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_len, reason, id, userdata } = self;
        let mut items = vec![format!("id={id}")];
        items.extend(max_len.map(|max_len| format!("max_len={max_len}")));
        items.extend(reason.map(|reason| format!("reason={reason}")));
        items.extend((!userdata.is_empty()).then(|| format!("userdata={}", hex(userdata))));
        write!(f, "controller({})", items.join(","))
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hashed, basis, members, dst } = self;
        let name = if dst.is_some() { "bundle_load" } else { "bundle" };
        let (fields, algorithm) = match hashed {
            Some(hashed) => (hashed.name(), "hrw"),
            None => ("eth_src", "active_backup"),
        };
        write!(f, "{name}({fields},{basis},{algorithm},ofport,")?;
        if let Some(dst) = dst {
            write!(f, "{dst},")?;
        }
        let members: Vec<_> = members.iter().map(u32::to_string).collect();
        write!(f, "members:{})", members.join(","))
    }
}

impl fmt::Display for Ct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commit, force, table, zone, nat, exec } = self;
        f.write_str("ct(")?;
        match zone {
            Zone::Number(zone) => write!(f, "zone={zone}")?,
            Zone::In(part) => write!(f, "zone={part}")?,
        }
        if *commit {
            f.write_str(",commit")?;
        }
        if *force {
            f.write_str(",force")?;
        }
        if let Some(table) = table {
            write!(f, ",table={table}")?;
        }
        match nat {
            None => {}
            Some(Nat::Existing) => f.write_str(",nat")?,
            Some(Nat::To { source, ipv6, address, port }) => {
                let which = if *source { "src" } else { "dst" };
                let port = port.map_or(String::new(), |port| format!(":{port}"));
                if !*ipv6 {
                    write!(f, ",nat({which}={}{port})", Ipv4Addr::from_bits(*address as u32))?;
                } else if port.is_empty() {
                    write!(f, ",nat({which}={})", Ipv6Addr::from_bits(*address))?;
                } else {
                    write!(f, ",nat({which}=[{}]{port})", Ipv6Addr::from_bits(*address))?;
                }
            }
        }
        if !exec.is_empty() {
            f.write_str(",")?;
            within(f, "exec", exec)?;
        }
        f.write_str(")")
    }
}
