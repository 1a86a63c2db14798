//! Prints actions, as `action.rs` reads them.

use super::{controller, ct, learn, names, special, spread, value};
use crate::{
    field::{Field, SubField},
    flow::Action,
    types::{PortNo, TableId},
};

/// Prints actions; `action::parse` reads them back as the same.
pub(super) fn actions(actions: &[Action]) -> String {
    if actions.is_empty() {
        return "drop".to_owned();
    }
    actions.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Prints one action.
pub(super) fn one(action: &Action) -> String {
    match action {
        Action::Output(port) if port.get() >= PortNo::UNSET.get() => match *port {
            PortNo::NONE | PortNo::UNSET => format!("output:{}", names::print_port(port.get().into())),
            _ => names::print_port(port.get().into()),
        },
        Action::Output(port) => format!("output:{port}"),
        Action::OutputReg(sub) => format!("output:{sub}"),
        Action::SetField { field, value, mask } => print_set(*field, value & mask, *mask),
        Action::Move { src, dst } => format!("move:{src}->{dst}"),
        Action::Resubmit { port, table } => {
            let port = port.map(|port| names::print_port(port.get().into()));
            match (port, table) {
                (Some(port), None) => format!("resubmit:{port}"),
                (port, Some(table)) => format!("resubmit({},{table})", port.unwrap_or_default()),
                (None, None) => "resubmit(,255)".to_owned(),
            }
        }
        Action::ResubmitCt { port, table } => {
            let port = port.map_or_else(String::new, |port| names::print_port(port.get().into()));
            format!("resubmit({port},{},ct)", table.map_or(255, TableId::get))
        }
        Action::GotoTable(table) => format!("goto_table:{table}"),
        Action::Clone(actions) if actions.is_empty() => "clone()".to_owned(),
        Action::Clone(actions) => format!("clone({})", self::actions(actions)),
        Action::DecTtl => "dec_ttl".to_owned(),
        Action::PushVlan(tpid) => format!("push_vlan:{tpid:#06x}"),
        Action::PopVlan => "pop_vlan".to_owned(),
        Action::SetTunnel(key) => format!("set_tunnel:{key:#x}"),
        Action::OutputTruncated { port, max_len } => {
            format!("output(port={},max_len={max_len})", names::print_port(port.get().into()))
        }
        Action::Enqueue { port, queue } => {
            format!("enqueue:{}:{queue}", names::print_port(port.get().into()))
        }
        Action::SetQueue(queue) => format!("set_queue:{queue}"),
        Action::PopQueue => "pop_queue".to_owned(),
        Action::Controller(to) => controller::print(to),
        Action::DecTtlOrTell(ids) => {
            format!("dec_ttl({})", ids.iter().map(u16::to_string).collect::<Vec<_>>().join(","))
        }
        Action::PushMpls(eth_type) => format!("push_mpls:{eth_type:#06x}"),
        Action::PopMpls(eth_type) => format!("pop_mpls:{eth_type:#06x}"),
        Action::DecMplsTtl => "dec_mpls_ttl".to_owned(),
        Action::Push(sub) => format!("push:{sub}"),
        Action::Pop(sub) => format!("pop:{sub}"),
        Action::DeleteField(field) => format!("delete_field:{field}"),
        Action::Exit => "exit".to_owned(),
        Action::Note(bytes) => format!("note:{}", controller::print_bytes(bytes)),
        Action::Multipath(multipath) => spread::print_multipath(multipath),
        Action::Bundle(bundle) => spread::print_bundle(bundle),
        Action::Conjunction { id, clause, n_clauses } => format!("conjunction({id},{clause}/{n_clauses})"),
        Action::Ct(ct) => ct::print(ct),
        Action::CtClear => "ct_clear".to_owned(),
        Action::Learn(learn) => learn::print(learn),
        Action::FinTimeout { idle_timeout, hard_timeout } => {
            special::print_fin_timeout(*idle_timeout, *hard_timeout)
        }
        Action::CheckPktLarger { max_len, dst } => special::print_check_pkt_larger(*max_len, *dst),
        Action::Sample(sample) => special::print_sample(sample),
        Action::Group(id) => format!("group:{id}"),
        Action::Meter(id) => format!("meter:{id}"),
        Action::ClearActions => "clear_actions".to_owned(),
        Action::WriteActions(actions) if actions.is_empty() => "write_actions(drop)".to_owned(),
        Action::WriteActions(actions) => format!("write_actions({})", self::actions(actions)),
        Action::WriteMetadata { value, mask: u64::MAX } => format!("write_metadata:{value:#x}"),
        Action::WriteMetadata { value, mask } => format!("write_metadata:{:#x}/{mask:#x}", value & mask),
    }
}

/// `set_field`, or `load` where a part of a field is set that takes no mask.
fn print_set(field: Field, value: u128, mask: u128) -> String {
    let start = mask.trailing_zeros();
    let is_part = field == Field::NwTos || !field.info().maskable && mask != field.all_bits();
    match SubField::new(field, start, mask.count_ones()) {
        Some(sub) if is_part && sub.bits() == mask => format!("load:{:#x}->{sub}", value >> start),
        _ => {
            // What is matched as `dl_vlan_pcp` Open vSwitch sets by its name in OpenFlow only.
            let name = if field == Field::VlanPcp { "vlan_pcp".to_owned() } else { field.to_string() };
            format!("set_field:{}->{name}", value::print(field, value, mask))
        }
    }
}
