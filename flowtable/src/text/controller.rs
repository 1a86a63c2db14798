//! Reads and prints `controller(...)`.

use std::fmt::Write as _;

use super::{
    TextError,
    cursor::{Cursor, Form, Piece},
    value,
};
use crate::flow::{PuntReason, ToController, WHOLE_PACKET};

/// Most bytes of userdata, or of a note: what fits an OpenFlow action.
pub(super) const MAX_BYTES: usize = 65_000;

/// Reads the arguments.
pub(super) fn parse(arguments: Piece<'_>) -> Result<ToController, TextError> {
    let mut to = ToController::default();
    let mut cursor = Cursor::new(arguments);
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        match name.text {
            "max_len" => to.max_len = value::integer(form.value(name)?)?,
            "id" => to.controller = value::integer(form.value(name)?)?,
            "reason" => to.reason = reason(form.value(name)?)?,
            "userdata" => {
                let Form::Value(text) = form else { return Err(name.error("write userdata=01.02.03")) };
                to.userdata = bytes(text)?;
            }
            "pause" => {
                form.bare(name)?;
                to.pause = true;
            }
            "meter_id" => to.meter = Some(super::action::meter_id(form.value(name)?)?),
            _ => {
                let known = ["max_len", "id", "reason", "userdata", "pause", "meter_id"];
                return Err(name.misspelt(format!("`controller` has no `{}`", name.text), known));
            }
        }
    }
    Ok(to)
}

fn reason(text: Piece<'_>) -> Result<PuntReason, TextError> {
    let names = PuntReason::ALL.iter().map(|reason| reason.name());
    let found = PuntReason::ALL.iter().find(|reason| reason.name() == text.text);
    found.copied().ok_or_else(|| text.misspelt(format!("there is no reason `{}`", text.text), names))
}

/// Hexadecimal bytes, with or without dots between them.
pub(super) fn bytes(text: Piece<'_>) -> Result<Vec<u8>, TextError> {
    let wrong = || text.error(format!("`{}` is not bytes like 01.02.ff", text.text));
    let digits: Vec<u8> = text.text.bytes().filter(|byte| *byte != b'.').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > MAX_BYTES {
        return Err(wrong());
    }
    let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(wrong);
    pairs.iter().map(|[high, low]| Ok((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}

/// Bytes as [`bytes`] reads them.
pub(super) fn print_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (idx, byte) in bytes.iter().enumerate() {
        let dot = if idx > 0 { "." } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{dot}{byte:02x}");
    }
    text
}

/// Prints the action.
pub(super) fn print(to: &ToController) -> String {
    let ToController { max_len, reason, controller, userdata, pause, meter } = to;
    let mut items = Vec::new();
    if *max_len != WHOLE_PACKET {
        items.push(format!("max_len={max_len}"));
    }
    if *reason != PuntReason::Action {
        items.push(format!("reason={reason}"));
    }
    if *controller != 0 {
        items.push(format!("id={controller}"));
    }
    if !userdata.is_empty() {
        items.push(format!("userdata={}", print_bytes(userdata)));
    }
    items.extend(pause.then(|| "pause".to_owned()));
    items.extend(meter.map(|meter| format!("meter_id={meter}")));
    format!("controller({})", items.join(","))
}
