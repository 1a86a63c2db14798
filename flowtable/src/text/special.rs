//! Reads and prints `fin_timeout(...)`, `check_pkt_larger(...)->bit` and `sample(...)`.

use super::{
    TextError,
    action::writable,
    cursor::{Cursor, Form, Piece},
    names, value,
};
use crate::{
    field::SubField,
    flow::{Action, Sample, SampleDirection},
    port::PortTable,
};

/// Reads the arguments of `fin_timeout`.
pub(super) fn parse_fin_timeout(arguments: Piece<'_>) -> Result<Action, TextError> {
    let (mut idle_timeout, mut hard_timeout) = (0, 0);
    let mut cursor = Cursor::new(arguments);
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        match name.text {
            "idle_timeout" => idle_timeout = value::integer(form.value(name)?)?,
            "hard_timeout" => hard_timeout = value::integer(form.value(name)?)?,
            _ => {
                let known = ["idle_timeout", "hard_timeout"];
                return Err(name.misspelt(format!("`fin_timeout` has no `{}`", name.text), known));
            }
        }
    }
    Ok(Action::FinTimeout { idle_timeout, hard_timeout })
}

/// Prints `fin_timeout`.
pub(super) fn print_fin_timeout(idle_timeout: u16, hard_timeout: u16) -> String {
    let all = [("idle_timeout", idle_timeout), ("hard_timeout", hard_timeout)];
    let set = all.iter().filter(|(_, seconds)| *seconds != 0);
    let items: Vec<_> = set.map(|(name, seconds)| format!("{name}={seconds}")).collect();
    format!("fin_timeout({})", items.join(","))
}

/// Reads `(1500)->reg0[0]`.
pub(super) fn parse_check_pkt_larger(name: Piece<'_>, form: Form<'_>) -> Result<Action, TextError> {
    let wrong = || name.error("write check_pkt_larger(1500)->reg0[0]");
    let text = form.value(name)?;
    let (bound, target) = text.split_once("->").ok_or_else(wrong)?;
    let bound = bound.trim();
    let inner = bound.text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).ok_or_else(wrong)?;
    let max_len = value::integer(Piece { text: inner, at: bound.at + 1 })?;
    let dst = names::sub_field(target)?;
    writable(target.trim(), dst.field)?;
    if dst.n_bits != 1 {
        return Err(target.error("the answer is a single bit: reg0[0]"));
    }
    Ok(Action::CheckPktLarger { max_len, dst })
}

/// Prints `check_pkt_larger`.
pub(super) fn print_check_pkt_larger(max_len: u16, dst: SubField) -> String {
    format!("check_pkt_larger({max_len})->{dst}")
}

/// Reads the arguments of `sample`.
pub(super) fn parse_sample(arguments: Piece<'_>, ports: &PortTable) -> Result<Sample, TextError> {
    let mut sample = Sample::default();
    let mut cursor = Cursor::new(arguments);
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        match name.text {
            "probability" => sample.probability = value::integer(form.value(name)?)?,
            "collector_set_id" => sample.collector_set = value::integer(form.value(name)?)?,
            "obs_domain_id" => sample.obs_domain = value::integer(form.value(name)?)?,
            "obs_point_id" => sample.obs_point = value::integer(form.value(name)?)?,
            "sampling_port" => sample.sampling_port = Some(names::port(form.value(name)?, ports)?),
            "ingress" | "egress" => {
                form.bare(name)?;
                let is_ingress = name.text == "ingress";
                sample.direction =
                    if is_ingress { SampleDirection::Ingress } else { SampleDirection::Egress };
            }
            _ => {
                let known = [
                    "probability",
                    "collector_set_id",
                    "obs_domain_id",
                    "obs_point_id",
                    "sampling_port",
                    "ingress",
                    "egress",
                ];
                return Err(name.misspelt(format!("`sample` has no `{}`", name.text), known));
            }
        }
    }
    if sample.probability == 0 {
        return Err(arguments.error("a sample needs a probability from 1 to 65535"));
    }
    Ok(sample)
}

/// Prints `sample`.
pub(super) fn print_sample(sample: &Sample) -> String {
    let Sample { probability, collector_set, obs_domain, obs_point, sampling_port, direction } = sample;
    let mut text = format!(
        "sample(probability={probability},collector_set_id={collector_set},obs_domain_id={obs_domain},obs_point_id={obs_point}"
    );
    if let Some(port) = sampling_port {
        text += &format!(",sampling_port={}", names::print_port(port.get().into()));
    }
    if let Some(name) = direction.name() {
        text += &format!(",{name}");
    }
    text + ")"
}
