//! Reads actions: `set_field:5->reg0,resubmit(,2)`. `print.rs` prints them.

use super::{
    TextError, controller, ct,
    cursor::{Cursor, Form, Piece},
    learn, matching, names, special, spread, value,
};
use crate::{
    field::Field,
    flow::{Action, Match, ToController, WHOLE_PACKET},
    port::PortTable,
    table::{MAX_ACTIONS, MAX_NESTING},
    types::{GroupId, MeterId, PortNo, TableId},
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
    "group",
    "meter",
    "clear_actions",
    "write_actions",
    "write_metadata",
    "ct",
    "ct_clear",
    "bundle",
    "bundle_load",
    "check_pkt_larger",
    "conjunction",
    "controller",
    "dec_mpls_ttl",
    "delete_field",
    "enqueue",
    "exit",
    "fin_timeout",
    "learn",
    "multipath",
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
    "drop",
];

/// Actions and instructions of Open vSwitch that this switch does not have yet.
const UNSUPPORTED: &[&str] =
    &["apply_actions", "debug_recirc", "debug_slow", "dec_nsh_ttl", "decap", "encap", "nat", "unroll_xlate"];

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
            let has_arrow = name.text.eq_ignore_ascii_case("check_pkt_larger");
            let form = if has_arrow { Form::Value(cursor.raw()?) } else { cursor.form()? };
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
            "clone" => Action::Clone(self.nested(name, form)?),
            _ => self.more(&text, name, form)?,
        })
    }

    /// Actions that few rules have.
    fn more(&mut self, text: &str, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        Ok(match text {
            "enqueue" => self.enqueue(name, form)?,
            "set_queue" => Action::SetQueue(value::integer(form.value(name)?)?),
            "pop_queue" => bare(name, form, Action::PopQueue)?,
            "controller" => self.controller(name, form)?,
            "push_mpls" => Action::PushMpls(value::integer(form.value(name)?)?),
            "pop_mpls" => Action::PopMpls(value::integer(form.value(name)?)?),
            "dec_mpls_ttl" => bare(name, form, Action::DecMplsTtl)?,
            "set_mpls_label" => self.set(Field::MplsLabel, form.any(name)?)?,
            "set_mpls_tc" => self.set(Field::MplsTc, form.any(name)?)?,
            "set_mpls_ttl" => self.set(Field::MplsTtl, form.any(name)?)?,
            "push" => Action::Push(names::sub_field(form.any(name)?)?),
            "pop" => {
                let text = form.any(name)?;
                let sub = names::sub_field(text)?;
                writable(text, sub.field)?;
                Action::Pop(sub)
            }
            "delete_field" => Action::DeleteField(names::field(form.any(name)?)?),
            "exit" => bare(name, form, Action::Exit)?,
            "note" => match form {
                Form::Value(text) => Action::Note(controller::bytes(text)?),
                _ => return Err(name.error("write note:01.02.03")),
            },
            "multipath" => Action::Multipath(Box::new(spread::parse_multipath(form.any(name)?)?)),
            "bundle" | "bundle_load" => {
                let bundle = spread::parse_bundle(form.any(name)?, text == "bundle_load", self.ports)?;
                Action::Bundle(Box::new(bundle))
            }
            "conjunction" => conjunction(form.any(name)?)?,
            "group" => Action::Group(group_id(form.value(name)?)?),
            "meter" => Action::Meter(meter_id(form.value(name)?)?),
            "clear_actions" => {
                form.bare(name)?;
                Action::ClearActions
            }
            "write_actions" => Action::WriteActions(self.nested(name, form)?),
            "write_metadata" => write_metadata(form.value(name)?)?,
            "ct" => Action::Ct(Box::new(ct::parse(name, form, |list| self.list_within(name, list))?)),
            "ct_clear" => bare(name, form, Action::CtClear)?,
            "learn" => Action::Learn(Box::new(learn::parse(form.any(name)?, self.ports)?)),
            "fin_timeout" => special::parse_fin_timeout(form.any(name)?)?,
            "check_pkt_larger" => special::parse_check_pkt_larger(name, form)?,
            "sample" => Action::Sample(special::parse_sample(form.any(name)?, self.ports)?),
            _ => self.bare_port(name, form)?,
        })
    }

    fn enqueue(&self, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        let text = form.any(name)?;
        let parts = text.split_once(",").or_else(|| text.split_once(":"));
        let Some((port, queue)) = parts else { return Err(text.error("write enqueue(port,queue)")) };
        Ok(Action::Enqueue { port: names::port(port, self.ports)?, queue: value::integer(queue)? })
    }

    fn controller(&self, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        let to = match form {
            Form::Arguments(arguments) => controller::parse(arguments)?,
            Form::Value(_) => {
                let max_len = value::integer(form.value(name)?)?;
                ToController { max_len, ..ToController::default() }
            }
            Form::Bare => ToController::default(),
        };
        let plain = !matches!(form, Form::Arguments(_)) && to.max_len == WHOLE_PACKET;
        Ok(if plain { Action::Output(PortNo::CONTROLLER) } else { Action::Controller(Box::new(to)) })
    }

    fn output(&self, name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
        if let Form::Arguments(arguments) = form {
            return self.output_truncated(arguments);
        }
        let target = form.value(name)?;
        if target.text.contains('[') {
            return names::sub_field(target).map(Action::OutputReg);
        }
        names::port(target, self.ports).map(Action::Output)
    }

    fn output_truncated(&self, arguments: Piece<'_>) -> Result<Action, TextError> {
        let (mut port, mut max_len) = (None, None);
        let mut cursor = Cursor::new(arguments);
        while let Some(name) = cursor.name()? {
            let form = cursor.form()?;
            match name.text {
                "port" => port = Some(names::port(form.value(name)?, self.ports)?),
                "max_len" => max_len = Some(value::integer(form.value(name)?)?),
                _ => {
                    return Err(
                        name.misspelt(format!("`output` has no `{}`", name.text), ["port", "max_len"])
                    );
                }
            }
        }
        match (port, max_len) {
            (Some(port), Some(max_len)) => Ok(Action::OutputTruncated { port, max_len }),
            _ => Err(arguments.error("write output(port=1,max_len=100)")),
        }
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
        let (table_text, ct) = match table_text.and_then(|text| text.split_once(",")) {
            Some((table, flag)) if flag.trim().text == "ct" => (Some(table.trim()), true),
            Some((_, flag)) => return Err(flag.misspelt("expected `ct`", ["ct"])),
            None => (table_text, false),
        };
        let port = if port_text.text.is_empty() { None } else { port(port_text)? };
        let table = match table_text {
            // 255 is the current table.
            Some(text) if !text.text.is_empty() && !matches!(value::number(text), Ok(255)) => {
                Some(table(text)?)
            }
            _ => None,
        };
        Ok(if ct { Action::ResubmitCt { port, table } } else { Action::Resubmit { port, table } })
    }

    fn nested(&mut self, name: Piece<'_>, form: Form<'_>) -> Result<Vec<Action>, TextError> {
        let Form::Arguments(inner) = form else {
            return Err(name.error(format!("write {}(actions)", name.text)));
        };
        self.list_within(name, inner)
    }

    /// A list within an action.
    fn list_within(&mut self, name: Piece<'_>, inner: Piece<'_>) -> Result<Vec<Action>, TextError> {
        if self.depth >= MAX_NESTING {
            return Err(name.error(format!("actions are nested deeper than {MAX_NESTING}")));
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
        Form::Arguments(arguments) => {
            let (mut ids, mut rest) = (Vec::new(), Some(arguments));
            while let Some(list) = rest {
                let (id, more) = list.split_once(",").map_or((list, None), |(id, more)| (id, Some(more)));
                ids.push(value::integer(id)?);
                rest = more;
            }
            Ok(Action::DecTtlOrTell(ids))
        }
        Form::Value(_) => Err(name.error("write dec_ttl, or dec_ttl(id,id) with controllers")),
    }
}

fn bare(name: Piece<'_>, form: Form<'_>, action: Action) -> Result<Action, TextError> {
    form.bare(name).map(|()| action)
}

fn conjunction(text: Piece<'_>) -> Result<Action, TextError> {
    let wrong = || text.error("write conjunction(id,clause/clauses): conjunction(1,2/3)");
    let (id, clauses) = text.split_once(",").ok_or_else(wrong)?;
    let (clause, n_clauses) = clauses.split_once("/").ok_or_else(wrong)?;
    let (id, clause, n_clauses) = (value::integer(id)?, value::integer(clause)?, value::integer(n_clauses)?);
    Ok(Action::Conjunction { id, clause, n_clauses })
}

/// The number of a group.
pub(super) fn group_id(text: Piece<'_>) -> Result<GroupId, TextError> {
    GroupId::new(value::integer(text)?).map_err(|error| text.error(error.to_string()))
}

/// The number of a meter.
pub(super) fn meter_id(text: Piece<'_>) -> Result<MeterId, TextError> {
    if matches!(text.text, "controller" | "slowpath" | "all") {
        return Err(text.error(format!("the meter `{}` is not supported; use a number", text.text)));
    }
    MeterId::new(value::integer(text)?).map_err(|error| text.error(error.to_string()))
}

fn write_metadata(text: Piece<'_>) -> Result<Action, TextError> {
    let (bits, mask) = match text.split_once("/") {
        Some((bits, mask)) => (bits, value::integer(mask)?),
        None => (text, u64::MAX),
    };
    let bits: u64 = value::integer(bits)?;
    Ok(Action::WriteMetadata { value: bits & mask, mask })
}

/// What is before and behind `->`.
fn arrow(text: Piece<'_>) -> Result<(Piece<'_>, Piece<'_>), TextError> {
    let (before, behind) = text.rsplit_once("->").ok_or_else(|| text.error("expected `value->field`"))?;
    Ok((before.trim(), behind.trim()))
}

pub(super) fn writable(name: Piece<'_>, field: Field) -> Result<Field, TextError> {
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
