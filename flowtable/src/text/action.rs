//! Reads and prints actions: `set_field:5->reg0,resubmit(,2)`.

use super::{
    TextError, ct,
    cursor::{Cursor, Form, Piece},
    matching, names, value,
};
use crate::{
    field::{Field, SubField},
    flow::{Action, Match},
    port::PortTable,
    table::{MAX_ACTIONS, MAX_NESTING},
    types::{PortNo, TableId},
};

/// Names of the actions that are understood.
const NAMES: &[&str] = &[
    "output",
    "set_field",
    "load",
    "move",
    "mod_dl_src",
    "mod_dl_dst",
    "mod_nw_src",
    "mod_nw_dst",
    "mod_nw_tos",
    "mod_nw_ecn",
    "mod_nw_ttl",
    "mod_tp_src",
    "mod_tp_dst",
    "mod_vlan_vid",
    "mod_vlan_pcp",
    "set_vlan_vid",
    "set_vlan_pcp",
    "strip_vlan",
    "pop_vlan",
    "push_vlan",
    "dec_ttl",
    "set_tunnel",
    "set_tunnel64",
    "resubmit",
    "goto_table",
    "clone",
    "ct",
    "ct_clear",
    "drop",
];

/// Actions and instructions of Open vSwitch that this switch does not have yet.
const UNSUPPORTED: &[&str] = &[
    "apply_actions",
    "bundle",
    "bundle_load",
    "check_pkt_larger",
    "clear_actions",
    "conjunction",
    "controller",
    "debug_recirc",
    "debug_slow",
    "dec_mpls_ttl",
    "dec_nsh_ttl",
    "decap",
    "delete_field",
    "encap",
    "enqueue",
    "exit",
    "fin_timeout",
    "group",
    "learn",
    "meter",
    "multipath",
    "nat",
    "note",
    "pop",
    "pop_mpls",
    "pop_queue",
    "push",
    "push_mpls",
    "sample",
    "set_mpls_label",
    "set_mpls_tc",
    "set_mpls_ttl",
    "set_queue",
    "unroll_xlate",
    "write_actions",
    "write_metadata",
];

/// Reads a list of actions. `matching` is that of the rule, for what depends on the
/// protocol; without it such actions are refused.
pub(super) fn parse(
    list: Piece<'_>,
    ports: &PortTable,
    matching: Option<&Match>,
) -> Result<Vec<Action>, TextError> {
    let mut n_actions = 0;
    ActionReader { ports, matching, n_actions: &mut n_actions, depth: 0 }.list(list)
}

struct ActionReader<'r> {
    ports: &'r PortTable,
    matching: Option<&'r Match>,
    n_actions: &'r mut usize,
    depth: usize,
}

impl ActionReader<'_> {
    fn list(&mut self, list: Piece<'_>) -> Result<Vec<Action>, TextError> {
        let mut actions = Vec::new();
        let mut dropped: Option<Piece<'_>> = None;
        let mut cursor = Cursor::new(list);
        while let Some(name) = cursor.name()? {
            let form = cursor.form()?;
            if name.text == "drop" {
                form.bare(name)?;
                dropped = Some(name);
            } else {
                actions.push(self.action(name, form)?);
            }
            *self.n_actions += 1;
            if *self.n_actions > MAX_ACTIONS {
                return Err(name.error(format!("more than {MAX_ACTIONS} actions")));
            }
            if let Some(drop) = dropped.filter(|_| !actions.is_empty()) {
                return Err(drop.error("`drop` must be the only action"));
            }
        }
        Ok(actions)
    }

    fn action(&mut self, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        let number = |max| value::number_up_to(form.value(name)?, max);
        let text = name.text.to_ascii_lowercase();
        Ok(match text.as_str() {
            "output" => self.output(name, form)?,
            "set_field" => self.set_field(form.value(name)?)?,
            "load" => load(form.value(name)?)?,
            "move" => move_bits(form.value(name)?)?,
            "mod_dl_src" => self.set(Field::EthSrc, form.value(name)?)?,
            "mod_dl_dst" => self.set(Field::EthDst, form.value(name)?)?,
            "mod_nw_src" => self.set(Field::NwSrc, form.value(name)?)?,
            "mod_nw_dst" => self.set(Field::NwDst, form.value(name)?)?,
            "mod_nw_tos" => whole(Field::IpDscp, matching::dscp(form.value(name)?)?),
            "mod_nw_ecn" => self.set(Field::NwEcn, form.value(name)?)?,
            "mod_nw_ttl" => self.set(Field::NwTtl, form.value(name)?)?,
            "mod_tp_src" => self.set(self.transport(name, true)?, form.value(name)?)?,
            "mod_tp_dst" => self.set(self.transport(name, false)?, form.value(name)?)?,
            // These add a tag where there is none: they set its "present" bit.
            "mod_vlan_vid" => tci(number(0xfff)?, 0xfff),
            "mod_vlan_pcp" => tci(number(7)? << 13, 0xe000),
            "set_vlan_vid" => whole(Field::VlanVid, number(0xfff)?),
            "set_vlan_pcp" => whole(Field::VlanPcp, number(7)?),
            "strip_vlan" | "pop_vlan" => {
                form.bare(name)?;
                Action::PopVlan
            }
            "push_vlan" => Action::PushVlan(value::integer(form.value(name)?)?),
            "dec_ttl" => dec_ttl(name, form)?,
            "set_tunnel" | "set_tunnel64" => Action::SetTunnel(value::integer(form.value(name)?)?),
            "resubmit" => self.resubmit(name, form)?,
            "goto_table" => Action::GotoTable(table(form.value(name)?)?),
            "clone" => self.clone_list(name, form)?,
            "ct" => Action::Ct(Box::new(ct::parse(name, form, |list| self.nested(name, list))?)),
            "ct_clear" => {
                form.bare(name)?;
                Action::CtClear
            }
            _ => self.bare_port(name, form)?,
        })
    }

    fn output(&self, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        if let Form::Arguments(arguments) = form {
            return Err(arguments.error("truncating output is not supported yet; write output:port"));
        }
        let target = form.value(name)?;
        if target.text.contains('[') {
            return names::sub_field(target).map(Action::OutputReg);
        }
        names::port(target, self.ports).map(Action::Output)
    }

    fn set_field(&self, text: Piece<'_>) -> Result<Action, TextError> {
        let (value, name) = arrow(text)?;
        if name.text.contains('[') {
            return Err(
                name.error("set_field sets a whole field or, with value/mask, bits of it; see `load`")
            );
        }
        if names::BY_PROTOCOL.contains(&name.text) {
            return self.set(self.transport(name, name.text == "tp_src")?, value);
        }
        let field = writable(name, names::field(name)?)?;
        match field {
            Field::NwTos => Ok(whole(Field::IpDscp, matching::dscp(value)?)),
            _ => self.set(field, value),
        }
    }

    fn set(&self, field: Field, text: Piece<'_>) -> Result<Action, TextError> {
        let (value, mask) = value::value_and_mask(field, text, self.ports)?;
        if mask == 0 {
            return Err(text.error("the mask chooses no bits"));
        }
        Ok(Action::SetField { field, value, mask })
    }

    fn transport(&self, name: Piece<'_>, is_src: bool) -> Result<Field, TextError> {
        self.matching.and_then(|matching| matching::transport_field(matching, is_src)).ok_or_else(|| {
            let field = if is_src { "tcp_src" } else { "tcp_dst" };
            name.error(format!("the match names no protocol with ports; write set_field:80->{field}"))
        })
    }

    fn resubmit(&self, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        let port = |text: Piece<'_>| {
            // "The port it came in by" is what leaving the port out means, too.
            names::port(text, self.ports).map(|port| (port != PortNo::IN_PORT).then_some(port))
        };
        let Form::Arguments(arguments) = form else {
            return Ok(Action::Resubmit { port: port(form.value(name)?)?, table: None });
        };
        let (port_text, table_text) = match arguments.split_once(",") {
            Some((port, table)) => (port.trim(), Some(table.trim())),
            None => (arguments.trim(), None),
        };
        if let Some((_, more)) = table_text.and_then(|text| text.split_once(",")) {
            return Err(more.error("resubmit with a connection's original tuple (`ct`) is not supported yet"));
        }
        let port = if port_text.text.is_empty() { None } else { port(port_text)? };
        let table = match table_text {
            // 255 is the current table.
            Some(text) if !text.text.is_empty() && !matches!(value::number(text), Ok(255)) => {
                Some(table(text)?)
            }
            _ => None,
        };
        Ok(Action::Resubmit { port, table })
    }

    fn clone_list(&mut self, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        let Form::Arguments(inner) = form else { return Err(name.error("write clone(actions)")) };
        self.nested(name, inner).map(Action::Clone)
    }

    /// A list within an action.
    fn nested(&mut self, name: Piece<'_>, inner: Piece<'_>) -> Result<Vec<Action>, TextError> {
        if self.depth >= MAX_NESTING {
            return Err(name.error(format!("clones are nested deeper than {MAX_NESTING}")));
        }
        let depth = self.depth + 1;
        let mut reader =
            ActionReader { ports: self.ports, matching: self.matching, n_actions: self.n_actions, depth };
        reader.list(inner)
    }

    /// A port on its own is an output; anything else is not known.
    fn bare_port(&self, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        let port = names::port(name, self.ports);
        match (port, form) {
            (Ok(port), Form::Bare) => Ok(Action::Output(port)),
            // What dumps print: packets go to the controller whole.
            (Ok(PortNo::CONTROLLER), Form::Value(text)) if text.text == "65535" => {
                Ok(Action::Output(PortNo::CONTROLLER))
            }
            _ if UNSUPPORTED.iter().any(|known| known.eq_ignore_ascii_case(name.text)) => {
                Err(name.error(format!("the action `{}` is not supported yet", name.text)))
            }
            (Ok(_), _) => Err(name.error(format!("write output:{}", name.text))),
            (Err(_), _) => {
                let reserved = names::RESERVED_PORTS.iter().map(|(name, _)| *name);
                let known = NAMES.iter().chain(UNSUPPORTED).copied().chain(reserved);
                Err(name.misspelt(format!("there is no action or port `{}`", name.text), known))
            }
        }
    }
}

fn load(text: Piece<'_>) -> Result<Action, TextError> {
    let (value, target) = arrow(text)?;
    let sub = names::sub_field(target)?;
    writable(target, sub.field)?;
    let largest = (sub.bits() & value::largest(sub.field)) >> sub.start;
    let value = value::number_up_to(value, largest)?;
    Ok(Action::SetField { field: sub.field, value: value << sub.start, mask: sub.bits() })
}

fn move_bits(text: Piece<'_>) -> Result<Action, TextError> {
    let (src, dst) = arrow(text)?;
    let action = Action::Move { src: names::sub_field(src)?, dst: names::sub_field(dst)? };
    let Action::Move { src: from, dst: to } = action else { return Ok(action) };
    writable(dst, to.field)?;
    if from.n_bits != to.n_bits {
        return Err(dst.error(format!("cannot move {} bits to {} bits", from.n_bits, to.n_bits)));
    }
    Ok(action)
}

fn dec_ttl(name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
    match form {
        Form::Bare => Ok(Action::DecTtl),
        Form::Arguments(arguments) if arguments.trim().text.is_empty() => Ok(Action::DecTtl),
        _ => Err(name.error("dec_ttl with controllers is not supported yet")),
    }
}

/// What is before and behind `->`.
fn arrow(text: Piece<'_>) -> Result<(Piece<'_>, Piece<'_>), TextError> {
    let (before, behind) = text.rsplit_once("->").ok_or_else(|| text.error("expected `value->field`"))?;
    Ok((before.trim(), behind.trim()))
}

fn writable(name: Piece<'_>, field: Field) -> Result<Field, TextError> {
    if field.info().writable { Ok(field) } else { Err(name.error(format!("`{field}` cannot be written"))) }
}

fn whole(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.all_bits() }
}

/// Sets bits of the outer tag, and that there is one.
fn tci(bits: u128, mask: u128) -> Action {
    Action::SetField { field: Field::VlanTci, value: bits | 0x1000, mask: mask | 0x1000 }
}

fn table(text: Piece<'_>) -> Result<TableId, TextError> {
    let number = value::integer(text)?;
    TableId::new(number).map_err(|error| text.error(error.to_string()))
}

/// Prints actions; `parse` reads them back as the same.
pub(super) fn print(actions: &[Action]) -> String {
    if actions.is_empty() {
        return "drop".to_owned();
    }
    actions.iter().map(print_one).collect::<Vec<_>>().join(",")
}

/// Prints one action.
pub(super) fn print_one(action: &Action) -> String {
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
        Action::GotoTable(table) => format!("goto_table:{table}"),
        Action::Clone(actions) if actions.is_empty() => "clone()".to_owned(),
        Action::Clone(actions) => format!("clone({})", print(actions)),
        Action::DecTtl => "dec_ttl".to_owned(),
        Action::PushVlan(tpid) => format!("push_vlan:{tpid:#06x}"),
        Action::PopVlan => "pop_vlan".to_owned(),
        Action::SetTunnel(key) => format!("set_tunnel:{key:#x}"),
        Action::Ct(ct) => ct::print(ct),
        Action::CtClear => "ct_clear".to_owned(),
    }
}

/// `set_field`, or `load` where a part of a field is set that takes no mask.
fn print_set(field: Field, value: u128, mask: u128) -> String {
    let start = mask.trailing_zeros();
    let is_part = field == Field::NwTos || !field.info().maskable && mask != field.all_bits();
    match SubField::new(field, start, mask.count_ones()) {
        Some(sub) if is_part && sub.bits() == mask => format!("load:{:#x}->{sub}", value >> start),
        _ => format!("set_field:{}->{field}", value::print(field, value, mask)),
    }
}
