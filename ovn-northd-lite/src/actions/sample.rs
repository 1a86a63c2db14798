//! `sample(probability=65535, collector_set=7, obs_domain=16777217, obs_point=42);`: the
//! collectors of a set are told of some packets. The packet goes on. OVN writes the upper 8
//! bits of the domain alone, and puts the key of the datapath below them itself.

use std::fmt;

use flowtable::flow::{self, Action};

use super::lower::Lowered;
use crate::expr::{ExprError, Notation, lexer::Token, parser::Parser};

/// Some packets for collectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many of 65 535 packets.
    pub(crate) probability: u16,
    /// Which collectors.
    pub(crate) collector_set: u32,
    /// Observation domain.
    pub(crate) obs_domain: u32,
    /// Observation point.
    pub(crate) obs_point: u32,
}

impl Sample {
    /// What follows `sample`.
    pub(super) fn parse(parser: &mut Parser) -> Result<Self, ExprError> {
        let mut sample = Self { probability: 0, collector_set: 0, obs_domain: 0, obs_point: 0 };
        let first = parser.position();
        parser.expect_mark("(")?;
        loop {
            let position = parser.position();
            let key = parser.take();
            parser.expect_mark("=")?;
            let (Token::Name(key), Token::Constant(number, Notation::Decimal)) = (key, parser.take()) else {
                return Err(unknown(position));
            };
            let number = u32::try_from(number).map_err(|_| unknown(position))?;
            match key.as_str() {
                "probability" => {
                    sample.probability = u16::try_from(number).map_err(|_| unknown(position))?;
                }
                "collector_set" => sample.collector_set = number,
                "obs_domain" => sample.obs_domain = number,
                "obs_point" => sample.obs_point = number,
                _ => return Err(unknown(position)),
            }
            if !parser.take_mark(",") {
                break;
            }
        }
        parser.expect_mark(")")?;
        if sample.probability == 0 || sample.collector_set == 0 {
            let reason = "`sample` needs a `probability` and a `collector_set`, from 1 on";
            return Err(ExprError::new(first, reason));
        }
        Ok(sample)
    }

    pub(super) fn lower(self, out: &mut Lowered) {
        let Self { probability, collector_set, obs_domain, obs_point } = self;
        let sample =
            flow::Sample { probability, collector_set, obs_domain, obs_point, ..flow::Sample::default() };
        out.actions.push(Action::Sample(sample));
    }
}

fn unknown(position: usize) -> ExprError {
    let reason = "expected `probability=` (up to 65535), `collector_set=`, `obs_domain=` or `obs_point=`, each \
                  with a number";
    ExprError::new(position, reason)
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { probability, collector_set, obs_domain, obs_point } = self;
        write!(
            f,
            "sample(probability={probability}, collector_set={collector_set}, obs_domain={obs_domain}, \
             obs_point={obs_point});"
        )
    }
}
