//! The action language of logical flows: OVN's, see ovn-sb(5), table `Logical_Flow`,
//! column `actions`, as far as the compiler uses it. Text → statements ([`parse`]) →
//! actions of the switch (`lower`).

mod affinity;
mod answer;
mod balance;
mod bind;
mod check;
mod connection;
mod length;
mod log;
mod lower;
mod meter;
mod neighbour;
mod parser;
mod sample;
mod serve;
mod station;
mod translate;

use std::fmt;

pub use self::{
    affinity::{CheckAffinity, CommitAffinity},
    answer::Answer,
    balance::{Balance, Select},
    bind::Bind,
    check::Check,
    connection::Connection,
    length::CheckLength,
    log::Log,
    meter::SetMeter,
    neighbour::Neighbour,
    sample::Sample,
    serve::Serve,
    station::Station,
    translate::Translate,
};
pub(crate) use lower::{Flow, Lowered, lower};
pub(crate) use neighbour::KNOWN;
pub use parser::parse;

use crate::{
    expr::{Constant, Operand},
    southbound::Pipeline,
};

/// One statement of an action list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `next;`, `next(4);`, `next(pipeline=egress, table=4);`: go on in a stage.
    Next {
        /// Pipeline; `None`: the flow's own.
        pipeline: Option<Pipeline>,
        /// Stage; `None`: the one after the flow's.
        stage: Option<u8>,
    },
    /// `output;`: send to `outport`.
    Output,
    /// `drop;`: nothing more happens to the packet.
    Drop,
    /// `field = constant;`
    Set {
        /// What is written.
        dst: Operand,
        /// What it becomes.
        value: Constant,
    },
    /// `field = field;`
    Copy {
        /// What is written.
        dst: Operand,
        /// What it becomes a copy of.
        src: Operand,
    },
    /// `field <-> field;`
    Exchange(Operand, Operand),
    /// `ip.ttl--;`
    DecTtl,
    /// `clone { … };`: do this with a copy.
    Clone(Vec<Self>),
    /// `ct_clear;`: forget what is known of the connection.
    CtClear,
    /// `ct_dnat;`, `ct_snat;`
    Translate(Translate),
    /// `ct_next;`, `ct_commit { … };`
    Connection(Connection),
    /// `log(…);`
    Log(Log),
    /// `sample(…);`
    Sample(Sample),
    /// `set_meter(…);`
    Meter(SetMeter),
    /// `handle_svc_check(inport);`, `handle_bfd_msg();`
    Check(Check),
    /// `bind_vport("vip", inport);`
    Bind(Bind),
    /// `field = check_pkt_larger(1414);`
    CheckLength(CheckLength),
    /// `reg9[6] = chk_lb_aff();`
    CheckAffinity(CheckAffinity),
    /// `commit_lb_aff(…);`
    CommitAffinity(CommitAffinity),
    /// `put_fdb(…);`, `outport = get_fdb(eth.dst);`
    Station(Station),
    /// `ct_lb_mark;`
    Balance(Balance),
    /// `field = select(1, 2);`
    Select(Select),
    /// `get_arp(…);`, `field = lookup_arp(…);`, `put_arp(…);`
    Neighbour(Neighbour),
    /// `icmp4 { … };`, `arp { … };`, `reject { … };`
    Answer(Answer),
    /// `field = put_dhcp_opts(…);`, `field = dns_lookup();`
    Serve(Serve),
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next { pipeline: None, stage: None } => f.write_str("next;"),
            Self::Next { pipeline: None, stage: Some(stage) } => write!(f, "next({stage});"),
            Self::Next { pipeline: Some(pipeline), stage } => {
                let pipeline = match pipeline {
                    Pipeline::Ingress => "ingress",
                    Pipeline::Egress => "egress",
                };
                write!(f, "next(pipeline={pipeline}")?;
                stage.map_or(Ok(()), |stage| write!(f, ", table={stage}"))?;
                f.write_str(");")
            }
            Self::Output => f.write_str("output;"),
            Self::Drop => f.write_str("drop;"),
            Self::Set { dst, value } => write!(f, "{dst} = {value};"),
            Self::Copy { dst, src } => write!(f, "{dst} = {src};"),
            Self::Exchange(a, b) => write!(f, "{a} <-> {b};"),
            Self::DecTtl => f.write_str("ip.ttl--;"),
            Self::Clone(inner) => write!(f, "clone {{ {} }};", print(inner)),
            Self::CtClear => f.write_str("ct_clear;"),
            Self::Translate(translate) => translate.fmt(f),
            Self::Connection(connection) => connection.fmt(f),
            Self::Log(log) => log.fmt(f),
            Self::Sample(sample) => sample.fmt(f),
            Self::Meter(meter) => meter.fmt(f),
            Self::Check(check) => check.fmt(f),
            Self::Bind(bind) => bind.fmt(f),
            Self::CheckLength(check) => check.fmt(f),
            Self::CheckAffinity(check) => check.fmt(f),
            Self::CommitAffinity(commit) => commit.fmt(f),
            Self::Station(station) => station.fmt(f),
            Self::Balance(balance) => balance.fmt(f),
            Self::Select(select) => select.fmt(f),
            Self::Neighbour(neighbour) => neighbour.fmt(f),
            Self::Answer(answer) => answer.fmt(f),
            Self::Serve(serve) => serve.fmt(f),
        }
    }
}

/// The text of an action list.
pub fn print(statements: &[Statement]) -> String {
    statements.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
