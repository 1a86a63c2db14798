//! Reads and prints `ct(commit,table=1,zone=reg0[0..15],nat(src=10.0.0.1),exec(...))`.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    TextError,
    cursor::{Cursor, Form, Piece},
    names, print, value,
};
use crate::{
    conntrack::{Alg, N_POLICIES, Nat, NatKind, NatOrder, NatRange},
    flow::{Action, Ct, CtZone},
    types::TableId,
};

const OPTIONS: &[&str] = &["commit", "force", "table", "zone", "nat", "exec", "alg", "timeout"];
const NAT_OPTIONS: &[&str] = &["src", "dst", "hash", "random", "persistent"];

/// Reads a `ct` action. `read_list` reads the list within `exec`.
pub(super) fn parse(
    name: Piece<'_>,
    form: Form<'_>,
    mut read_list: impl FnMut(Piece<'_>) -> Result<Vec<Action>, TextError>,
) -> Result<Ct, TextError> {
    let mut ct = Ct::default();
    let options = match form {
        Form::Bare => return Ok(ct),
        Form::Arguments(options) => options,
        Form::Value(_) => return Err(name.error("write ct(options)")),
    };
    let mut cursor = Cursor::new(options);
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        match name.text {
            "commit" => form.bare(name).map(|()| ct.commit = true)?,
            "force" => form.bare(name).map(|()| ct.force = true)?,
            "table" => ct.table = Some(table(form.value(name)?)?),
            "zone" => ct.zone = zone(form.value(name)?)?,
            "nat" => ct.nat = Some(nat(name, form)?),
            "exec" => match form {
                Form::Arguments(list) => ct.exec = read_list(list)?,
                _ => return Err(name.error("write exec(actions)")),
            },
            "timeout" => ct.timeout = Some(policy(form.value(name)?)?),
            "alg" => ct.alg = Some(alg(form.value(name)?)?),
            _ => {
                let reason = format!("`ct` has no option `{}`", name.text);
                return Err(name.misspelt(reason, OPTIONS.iter().copied()));
            }
        }
    }
    Ok(ct)
}

fn table(text: Piece<'_>) -> Result<TableId, TextError> {
    TableId::new(value::integer(text)?).map_err(|error| text.error(error.to_string()))
}

fn alg(text: Piece<'_>) -> Result<Alg, TextError> {
    let found = Alg::ALL.iter().copied().find(|alg| alg.name() == text.text);
    let names = || Alg::ALL.iter().map(|alg| alg.name());
    found.ok_or_else(|| text.misspelt(format!("there is no helper `{}`", text.text), names()))
}

fn policy(text: Piece<'_>) -> Result<u8, TextError> {
    value::number_up_to(text, N_POLICIES as u128 - 1).map(|policy| policy as u8)
}

fn zone(text: Piece<'_>) -> Result<CtZone, TextError> {
    if text.text.starts_with(|c: char| c.is_ascii_digit()) {
        return value::integer(text).map(CtZone::Literal);
    }
    let sub = names::sub_field(text)?;
    if sub.n_bits != 16 {
        return Err(text.error(format!("a zone has 16 bits, `{}` has {}", text.text, sub.n_bits)));
    }
    Ok(CtZone::Field(sub))
}

fn nat(name: Piece<'_>, form: Form<'_>) -> Result<Nat, TextError> {
    let options = match form {
        Form::Bare => return Ok(Nat::Existing),
        Form::Arguments(options) => options,
        Form::Value(_) => return Err(name.error("write nat(src=address)")),
    };
    let mut range = None;
    let (mut order, mut persistent) = (NatOrder::Keep, false);
    let mut cursor = Cursor::new(options);
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        match name.text {
            "src" | "dst" if range.is_some() => {
                return Err(name.error("`nat` has one of `src` and `dst`, once"));
            }
            "src" => range = Some((NatKind::Source, addresses(name, form)?)),
            "dst" => range = Some((NatKind::Destination, addresses(name, form)?)),
            "hash" => form.bare(name).map(|()| order = NatOrder::Hash)?,
            "random" => form.bare(name).map(|()| order = NatOrder::Random)?,
            "persistent" => form.bare(name).map(|()| persistent = true)?,
            _ => {
                let reason = format!("`nat` has no option `{}`", name.text);
                return Err(name.misspelt(reason, NAT_OPTIONS.iter().copied()));
            }
        }
    }
    match range {
        Some((kind, (addresses, ports))) => {
            Ok(Nat::New(NatRange { kind, addresses, ports, order, persistent }))
        }
        None if order != NatOrder::Keep || persistent => Err(options.error("expected `src` or `dst`")),
        None => Ok(Nat::Existing),
    }
}

type Range = (Option<(IpAddr, IpAddr)>, Option<(u16, u16)>);

/// `10.0.0.1`, `10.0.0.1-10.0.0.9:1-99`, `[fd00::1]-[fd00::9]:1-99`, `fd00::1-fd00::9`.
fn addresses(name: Piece<'_>, form: Form<'_>) -> Result<Range, TextError> {
    if matches!(form, Form::Bare) {
        return Ok((None, None));
    }
    let text = form.value(name)?;
    let (addresses, ports) = if text.text.contains('[') {
        match text.text.rfind("]:") {
            Some(_) => text.rsplit_once(":").map_or((text, None), |(before, ports)| (before, Some(ports))),
            None => (text, None),
        }
    } else if text.text.matches(':').count() == 1 {
        text.split_once(":").map_or((text, None), |(before, ports)| (before, Some(ports)))
    } else {
        (text, None)
    };
    let (first, last) = match addresses.split_once("-") {
        Some((first, last)) => (address(first)?, address(last)?),
        None => (address(addresses)?, address(addresses)?),
    };
    if first.is_ipv4() != last.is_ipv4() || first > last {
        return Err(addresses.error("a range has its smaller address first, both of one kind"));
    }
    let Some(ports) = ports else { return Ok((Some((first, last)), None)) };
    let (low, high) = match ports.split_once("-") {
        Some((low, high)) => (value::integer::<u16>(low)?, value::integer(high)?),
        None => (value::integer(ports)?, value::integer(ports)?),
    };
    if low == 0 || low > high {
        return Err(ports.error("a range of ports has its smaller one first; 0 is no port"));
    }
    Ok((Some((first, last)), Some((low, high))))
}

fn address(text: Piece<'_>) -> Result<IpAddr, TextError> {
    let text = text.trim();
    let inner = text.text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text.text);
    let parsed = inner.parse::<Ipv4Addr>().map(IpAddr::from);
    parsed
        .or_else(|_| inner.parse::<Ipv6Addr>().map(IpAddr::from))
        .map_err(|_| text.error(format!("`{}` is not an IP address", text.text)))
}

/// Prints a `ct` action; [`parse`] reads it back as the same.
pub(super) fn print(ct: &Ct) -> String {
    let Ct { commit, force, table, zone, nat, exec, timeout, alg } = ct;
    let mut parts = Vec::new();
    parts.extend(commit.then(|| "commit".to_owned()));
    parts.extend(force.then(|| "force".to_owned()));
    parts.extend(table.map(|table| format!("table={table}")));
    match zone {
        CtZone::Literal(0) => {}
        CtZone::Literal(zone) => parts.push(format!("zone={zone}")),
        CtZone::Field(sub) => parts.push(format!("zone={sub}")),
    }
    parts.extend(nat.as_ref().map(print_nat));
    if !exec.is_empty() {
        parts.push(format!("exec({})", print::actions(exec)));
    }
    parts.extend(timeout.map(|policy| format!("timeout={policy}")));
    parts.extend(alg.map(|alg| format!("alg={}", alg.name())));
    if parts.is_empty() { "ct".to_owned() } else { format!("ct({})", parts.join(",")) }
}

pub(super) fn print_nat(nat: &Nat) -> String {
    let Nat::New(NatRange { kind, addresses, ports, order, persistent }) = nat else {
        return "nat".to_owned();
    };
    let mut text = match kind {
        NatKind::Source => "nat(src".to_owned(),
        NatKind::Destination => "nat(dst".to_owned(),
    };
    if let Some((first, last)) = addresses {
        let print = |address: &IpAddr| match address {
            IpAddr::V6(address) if ports.is_some() => format!("[{address}]"),
            address => address.to_string(),
        };
        text += &format!("={}", print(first));
        if last != first {
            text += &format!("-{}", print(last));
        }
        // Writing to a string cannot fail.
        let _ = match ports {
            Some((low, high)) if low == high => write!(text, ":{low}"),
            Some((low, high)) => write!(text, ":{low}-{high}"),
            None => Ok(()),
        };
    }
    text += match order {
        NatOrder::Keep => "",
        NatOrder::Hash => ",hash",
        NatOrder::Random => ",random",
    };
    if *persistent {
        text += ",persistent";
    }
    text + ")"
}
