//! Reads and prints `learn(...)`.

use super::{
    TextError,
    action::writable,
    cursor::{Cursor, Form, Piece},
    names, value,
};
use crate::{
    field::{Field, Format, SubField},
    flow::{Learn, LearnSource, LearnSpec},
    key::low_bits,
    port::PortTable,
    types::{Priority, TableId},
};

/// Options that take a value.
const OPTIONS: &[&str] = &[
    "table",
    "priority",
    "cookie",
    "idle_timeout",
    "hard_timeout",
    "fin_idle_timeout",
    "fin_hard_timeout",
    "limit",
    "result_dst",
];
/// Options that stand for themselves.
const FLAGS: &[&str] = &["send_flow_rem", "delete_learned"];
/// Specs that are not a field.
const SPECS: &[&str] = &["load", "output"];
/// Specs of an action.
const MAX_SPECS: usize = 256;

/// Reads the arguments.
pub(super) fn parse(arguments: Piece<'_>, ports: &PortTable) -> Result<Learn, TextError> {
    let mut learn = Learn::default();
    let mut cursor = Cursor::new(arguments);
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        if OPTIONS.contains(&name.text) {
            option(&mut learn, name, form.value(name)?)?;
        } else if FLAGS.contains(&name.text) {
            form.bare(name)?;
            learn.send_flow_rem |= name.text == "send_flow_rem";
            learn.delete_learned |= name.text == "delete_learned";
        } else {
            learn.specs.push(spec(name, form, ports)?);
        }
        if learn.specs.len() > MAX_SPECS {
            return Err(name.error(format!("more than {MAX_SPECS} parts of a rule")));
        }
    }
    Ok(learn)
}

fn option(learn: &mut Learn, name: Piece<'_>, text: Piece<'_>) -> Result<(), TextError> {
    match name.text {
        "table" => {
            let table = TableId::new(value::integer(text)?);
            learn.table = table.map_err(|error| text.error(error.to_string()))?;
        }
        "priority" => {
            let priority = Priority::new(value::integer(text)?);
            learn.priority = priority.map_err(|error| text.error(error.to_string()))?;
        }
        "cookie" => learn.cookie = value::integer(text)?,
        "idle_timeout" => learn.idle_timeout = value::integer(text)?,
        "hard_timeout" => learn.hard_timeout = value::integer(text)?,
        "fin_idle_timeout" => learn.fin_idle_timeout = value::integer(text)?,
        "fin_hard_timeout" => learn.fin_hard_timeout = value::integer(text)?,
        "limit" => learn.limit = value::integer(text)?,
        _ => {
            let dst = names::sub_field(text)?;
            writable(text, dst.field)?;
            if dst.n_bits != 1 {
                return Err(text.error("the result is a single bit: result_dst=reg0[0]"));
            }
            learn.result_dst = Some(dst);
        }
    }
    Ok(())
}

fn spec(name: Piece<'_>, form: Form<'_>, ports: &PortTable) -> Result<LearnSpec, TextError> {
    match name.text {
        "load" => load(form.value(name)?),
        "output" => Ok(LearnSpec::Output(names::sub_field(form.value(name)?)?)),
        _ => matched(name, form, ports),
    }
}

/// `load:5->reg0[0..3]`, `load:in_port[]->reg0[0..15]`.
fn load(text: Piece<'_>) -> Result<LearnSpec, TextError> {
    let (source, target) = text.rsplit_once("->").ok_or_else(|| text.error("expected `value->field`"))?;
    let dst = names::sub_field(target)?;
    writable(target.trim(), dst.field)?;
    let source = source.trim();
    let src = if is_number(source) { number(source, dst)? } else { from_field(source, dst)? };
    Ok(LearnSpec::Load { dst, src })
}

/// `eth_type=0x800`, `eth_dst[]=eth_src[]`, `vlan_tci[0..11]`.
fn matched(name: Piece<'_>, form: Form<'_>, ports: &PortTable) -> Result<LearnSpec, TextError> {
    let is_part = name.text.contains('[');
    if !is_part && Field::by_name(name.text).is_none() && names::field(name).is_err() {
        let known = OPTIONS.iter().chain(FLAGS).chain(SPECS).copied();
        let what = format!("`learn` has no `{}`, nor is there such a field", name.text);
        return Err(name.misspelt(what, known.chain(names::field_names())));
    }
    let dst = wide(names::sub_field(name)?);
    let src = match form {
        Form::Bare => LearnSource::Field(dst),
        Form::Arguments(arguments) => return Err(arguments.error(format!("write {}=value", name.text))),
        Form::Value(text) if text.text.contains('[') => from_field(text, dst)?,
        Form::Value(text) if is_part => number(text, dst)?,
        Form::Value(_) => {
            let text = form.value(name)?;
            let (value, mask) = value::value_and_mask(dst.field, text, ports)?;
            if mask != dst.field.all_bits() {
                return Err(text.error("a value to learn has no mask; name the bits: nw_dst[8..31]=…"));
            }
            LearnSource::Value(value)
        }
    };
    Ok(LearnSpec::Match { dst, src })
}

/// The input port is matched whole; its name in Open vSwitch is that of its lower 16 bits.
fn wide(sub: SubField) -> SubField {
    if sub.field == Field::InPort && (sub.start, sub.n_bits) == (0, 16) {
        SubField::whole(sub.field)
    } else {
        sub
    }
}

fn is_number(text: Piece<'_>) -> bool {
    text.text.starts_with(|c: char| c.is_ascii_digit())
}

fn number(text: Piece<'_>, dst: SubField) -> Result<LearnSource, TextError> {
    value::number_up_to(text, low_bits(dst.n_bits)).map(LearnSource::Value)
}

fn from_field(text: Piece<'_>, dst: SubField) -> Result<LearnSource, TextError> {
    let src = names::sub_field(text)?;
    let src = if dst == SubField::whole(Field::InPort) { wide(src) } else { src };
    if !dst.takes_learned(src) {
        return Err(text.error(format!("cannot learn {} bits as {} bits", src.n_bits, dst.n_bits)));
    }
    Ok(LearnSource::Field(src))
}

/// Prints the action.
pub(super) fn print(learn: &Learn) -> String {
    let Learn { table, priority, cookie, send_flow_rem, delete_learned, result_dst, .. } = learn;
    let mut items = vec![format!("table={table}")];
    let numbers = [
        ("idle_timeout", u32::from(learn.idle_timeout)),
        ("hard_timeout", learn.hard_timeout.into()),
        ("fin_idle_timeout", learn.fin_idle_timeout.into()),
        ("fin_hard_timeout", learn.fin_hard_timeout.into()),
        ("limit", learn.limit),
    ];
    let numbers = numbers.iter().filter(|(_, number)| *number != 0);
    items.extend(numbers.map(|(name, number)| format!("{name}={number}")));
    items.extend((*priority != Priority::DEFAULT).then(|| format!("priority={priority}")));
    items.extend((*cookie != 0).then(|| format!("cookie={cookie:#x}")));
    items.extend(send_flow_rem.then(|| "send_flow_rem".to_owned()));
    items.extend(delete_learned.then(|| "delete_learned".to_owned()));
    items.extend(result_dst.map(|dst| format!("result_dst={dst}")));
    items.extend(learn.specs.iter().map(print_spec));
    format!("learn({})", items.join(","))
}

fn print_spec(spec: &LearnSpec) -> String {
    match spec {
        LearnSpec::Match { dst, src: LearnSource::Field(src) } if src == dst => dst.to_string(),
        LearnSpec::Match { dst, src: LearnSource::Field(src) } => format!("{dst}={src}"),
        LearnSpec::Match { dst, src: LearnSource::Value(value) } => print_matched(*dst, *value),
        LearnSpec::Load { dst, src: LearnSource::Field(src) } => format!("load:{src}->{dst}"),
        LearnSpec::Load { dst, src: LearnSource::Value(value) } => format!("load:{value:#x}->{dst}"),
        LearnSpec::Output(sub) => format!("output:{sub}"),
    }
}

/// A value in its own form, where that form says all bits.
fn print_matched(dst: SubField, value: u128) -> String {
    let format = dst.field.info().format;
    let is_plain = matches!(
        format,
        Format::Decimal | Format::Hex | Format::Mac | Format::Ipv4 | Format::Ipv6 | Format::Port
    );
    if dst == SubField::whole(dst.field) && is_plain && value <= value::largest(dst.field) {
        format!("{}={}", dst.field, value::print(dst.field, value, dst.field.all_bits()))
    } else {
        format!("{dst}={value:#x}")
    }
}
