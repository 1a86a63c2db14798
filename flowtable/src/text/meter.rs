//! Reads and prints meters: `meter=1,kbps,burst,bands=type=drop,rate=1000,burst_size=100`.

use super::{
    TextError, action,
    cursor::{Cursor, Form, Piece},
    value,
};
use crate::{
    meter::{BandConfig, BandKind, MeterConfig, MeterUnit},
    table::{MAX_BANDS, MeterChange},
};

const ITEMS: &[&str] = &[
    "meter",
    "kbps",
    "pktps",
    "burst",
    "stats",
    "bands",
    "band",
    "type",
    "rate",
    "burst_size",
    "prec_level",
];

/// Reads a meter.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_meter(text: &str) -> Result<MeterConfig, TextError> {
    let mut reader = MeterReader::default();
    let mut cursor = Cursor::new(Piece::whole(text));
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        reader.item(name, form)?;
    }
    let Some(id) = reader.id else { return Err(Piece::whole("").error("a meter needs `meter=number`")) };
    let unit = reader.unit.unwrap_or_default();
    let bands = reader.bands.iter().map(|band| band.finish(reader.burst)).collect::<Result<_, _>>()?;
    Ok(MeterConfig { id, unit, burst: reader.burst, stats: reader.stats, bands, port_share: 0 })
}

/// Reads which meters to delete: `meter=1`; `all`, `meter=all` or nothing are all of them.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_deleted_meters(text: &str) -> Result<MeterChange, TextError> {
    let text = text.trim();
    if matches!(text, "" | "all" | "meter=all") {
        return Ok(MeterChange::DeleteAll);
    }
    let mut reader = MeterReader::default();
    let mut cursor = Cursor::new(Piece::whole(text));
    while let Some(name) = cursor.name()? {
        let form = cursor.form()?;
        reader.item(name, form)?;
    }
    let only_id = reader.bands.is_empty() && reader.unit.is_none() && !reader.burst && !reader.stats;
    match reader.id {
        Some(id) if only_id => Ok(MeterChange::Delete(id)),
        Some(_) => Err(Piece::whole("").error("a meter is deleted by its number alone: `meter=1`")),
        None => Err(Piece::whole("").error("say which meter: `meter=number`, or `all`")),
    }
}

/// Prints a meter so that [`parse_meter`] reads the same.
pub fn print_meter(meter: &MeterConfig) -> String {
    let unit = match meter.unit {
        MeterUnit::Kbps => "kbps",
        MeterUnit::Pktps => "pktps",
    };
    let flags = [(meter.burst, " burst"), (meter.stats, " stats")];
    let flags: String = flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect();
    let bands: Vec<_> = meter.bands.iter().map(print_band).collect();
    format!("meter={} {unit}{flags} bands={}", meter.id, bands.join(" "))
}

fn print_band(band: &BandConfig) -> String {
    let BandConfig { kind, rate, burst_size } = band;
    let mut text = match kind {
        BandKind::Drop => format!("type=drop rate={rate}"),
        BandKind::DscpRemark(_) => format!("type=dscp_remark rate={rate}"),
    };
    if *burst_size != 0 {
        text += &format!(" burst_size={burst_size}");
    }
    if let BandKind::DscpRemark(level) = kind {
        text += &format!(" prec_level={level}");
    }
    text
}

#[derive(Default)]
struct MeterReader<'a> {
    id: Option<crate::types::MeterId>,
    unit: Option<MeterUnit>,
    burst: bool,
    stats: bool,
    bands: Vec<BandReader<'a>>,
}

struct BandReader<'a> {
    kind: Piece<'a>,
    rate: Option<u32>,
    burst_size: Option<Piece<'a>>,
    level: Option<u8>,
}

impl<'a> MeterReader<'a> {
    fn item(&mut self, name: Piece<'a>, form: Form<'a>) -> Result<(), TextError> {
        match name.text {
            "meter" => self.id = Some(action::meter_id(form.value(name)?)?),
            "kbps" => self.unit(name, form, MeterUnit::Kbps)?,
            "pktps" => self.unit(name, form, MeterUnit::Pktps)?,
            "burst" => {
                form.bare(name)?;
                self.burst = true;
            }
            "stats" => {
                form.bare(name)?;
                self.stats = true;
            }
            // What comes behind them are the first band's items: `bands=type=drop`.
            "band" | "bands" => match form {
                Form::Value(text) if text.text.is_empty() => {}
                Form::Value(text) => {
                    let mut cursor = Cursor::new(text);
                    if let Some(inner) = cursor.name()? {
                        let form = cursor.form()?;
                        if matches!(inner.text, "band" | "bands") {
                            return Err(inner.error("`bands` within `bands`"));
                        }
                        self.item(inner, form)?;
                    }
                }
                _ => return Err(name.error("write bands=type=drop,rate=1000")),
            },
            "type" => {
                if self.bands.len() >= MAX_BANDS {
                    return Err(name.error(format!("more than {MAX_BANDS} bands")));
                }
                let kind = form.value(name)?;
                self.bands.push(BandReader { kind, rate: None, burst_size: None, level: None });
            }
            "rate" => self.band(name)?.rate = Some(value::integer(form.value(name)?)?),
            "burst_size" => self.band(name)?.burst_size = Some(form.value(name)?),
            "prec_level" => self.band(name)?.level = Some(value::integer(form.value(name)?)?),
            text => return Err(name.misspelt(format!("a meter has no `{text}`"), ITEMS.iter().copied())),
        }
        Ok(())
    }

    fn unit(&mut self, name: Piece<'_>, form: Form<'_>, unit: MeterUnit) -> Result<(), TextError> {
        form.bare(name)?;
        if self.unit.is_some_and(|known| known != unit) {
            return Err(name.error("a meter counts `kbps` or `pktps`, not both"));
        }
        self.unit = Some(unit);
        Ok(())
    }

    fn band(&mut self, name: Piece<'_>) -> Result<&mut BandReader<'a>, TextError> {
        let last = self.bands.last_mut();
        last.ok_or_else(|| name.error("a band begins with `type=drop` or `type=dscp_remark`"))
    }
}

impl BandReader<'_> {
    fn finish(&self, has_burst: bool) -> Result<BandConfig, TextError> {
        let kind = match (self.kind.text, self.level) {
            ("drop", None) => BandKind::Drop,
            ("drop", Some(_)) => return Err(self.kind.error("only dscp_remark has a `prec_level`")),
            ("dscp_remark", Some(level @ 1..=2)) => BandKind::DscpRemark(level),
            ("dscp_remark", _) => return Err(self.kind.error("dscp_remark needs `prec_level` 1 or 2")),
            (text, _) => {
                let known = ["drop", "dscp_remark"];
                return Err(self.kind.misspelt(format!("there is no band type `{text}`"), known));
            }
        };
        let Some(rate) = self.rate.filter(|rate| *rate > 0) else {
            return Err(self.kind.error("a band needs a `rate` of at least 1"));
        };
        let burst_size = self.burst_size.map(value::integer).transpose()?.unwrap_or(0);
        match self.burst_size {
            Some(text) if burst_size != 0 && !has_burst => {
                Err(text.error("`burst_size` needs the flag `burst`"))
            }
            _ => Ok(BandConfig { kind, rate, burst_size }),
        }
    }
}
