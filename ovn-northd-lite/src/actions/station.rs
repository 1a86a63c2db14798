//! Stations: `put_fdb(inport, eth.src, 300);` has the switch remember by which port a MAC
//! address was seen, for as long as it is seen again within that many seconds (0: for ever);
//! `outport = get_fdb(eth.dst);` goes where the destination was seen last, and says in
//! `reg0[11]` whether that is known.

use std::fmt;

use flowtable::{
    field::{Field, SubField},
    flow::{Action, Learn, LearnSource, LearnSpec},
};

use super::{
    length::short,
    lower::{Flow, Lowered, resubmit},
};
use crate::{
    expr::{ExprError, Operand, parser::Parser},
    lower::STATIONS,
};

/// Whether the destination has been seen.
const KNOWN: SubField = SubField { field: Field::Reg0, start: 11, n_bits: 1 };
/// Stations that are remembered behind one port, on a host. Frames to those beyond it go to
/// all ports that take unknown addresses.
const MAX_STATIONS: u32 = 4096;

/// What is done about stations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Station {
    /// `outport = get_fdb(eth.dst);`
    Get,
    /// `put_fdb(inport, eth.src, 300);`
    Put {
        /// Seconds.
        age: u16,
    },
}

impl Station {
    /// What follows `outport = get_fdb`.
    pub(super) fn get(parser: &mut Parser, dst: Operand) -> Result<Self, ExprError> {
        if dst.symbol.name != "outport" {
            return Err(parser.error(format!("`get_fdb` is about `outport`, not `{dst}`")));
        }
        parser.expect_mark("(")?;
        expect(parser, "eth.dst")?;
        parser.expect_mark(")")?;
        Ok(Self::Get)
    }

    /// What follows `put_fdb`.
    pub(super) fn put(parser: &mut Parser) -> Result<Self, ExprError> {
        parser.expect_mark("(")?;
        expect(parser, "inport")?;
        parser.expect_mark(",")?;
        expect(parser, "eth.src")?;
        parser.expect_mark(",")?;
        let age = short(parser)?;
        parser.expect_mark(")")?;
        Ok(Self::Put { age })
    }

    pub(super) fn lower(self, flow: &Flow<'_>, out: &mut Lowered) {
        let whole = SubField::whole;
        match self {
            Self::Get => {
                out.actions.push(Action::SetField { field: KNOWN.field, value: 0, mask: KNOWN.bits() });
                out.actions.push(resubmit(STATIONS));
            }
            Self::Put { age } => {
                let same =
                    |dst, src| LearnSpec::Match { dst: whole(dst), src: LearnSource::Field(whole(src)) };
                let specs = vec![
                    same(Field::Metadata, Field::Metadata),
                    same(Field::EthDst, Field::EthSrc),
                    LearnSpec::Load {
                        dst: whole(Field::Reg15),
                        src: LearnSource::Field(whole(Field::Reg14)),
                    },
                    LearnSpec::Load { dst: KNOWN, src: LearnSource::Value(1) },
                ];
                let learn = Learn {
                    table: STATIONS,
                    cookie: flow.number.into(),
                    hard_timeout: age,
                    limit: MAX_STATIONS,
                    specs,
                    ..Learn::default()
                };
                out.actions.push(Action::Learn(Box::new(learn)));
            }
        }
    }
}

fn expect(parser: &mut Parser, name: &str) -> Result<(), ExprError> {
    let operand = parser.operand()?;
    if operand.to_string() == name {
        return Ok(());
    }
    Err(parser.error(format!("expected `{name}`, not `{operand}`")))
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => f.write_str("outport = get_fdb(eth.dst);"),
            Self::Put { age } => write!(f, "put_fdb(inport, eth.src, {age});"),
        }
    }
}
