//! What a `learn` action may say: the rule that it makes must have one meaning, whatever
//! packet it is made from.

use super::{check::Checker, error::RuleError};
use crate::{
    field::SubField,
    flow::{Learn, LearnSource, LearnSpec, Match},
    key::low_bits,
};

impl Checker<'_> {
    /// What the new rule matches by values that are given satisfies what its other parts
    /// need, since those depend on the packet.
    pub(super) fn learn(&mut self, learn: &Learn) -> Result<(), RuleError> {
        if let Some(dst) = learn.result_dst {
            self.writable_bit(dst)?;
        }
        let mut matched = Match::any();
        for spec in &learn.specs {
            match spec {
                LearnSpec::Match { dst, src } => {
                    self.source(*dst, src)?;
                    self.within(Some(matched.clone())).readable(*dst)?;
                    if !dst.field.info().maskable && dst.bits() != dst.field.all_bits() {
                        return Err(RuleError::NotMaskable { field: dst.field });
                    }
                    if let LearnSource::Value(value) = src {
                        matched = matched.with_masked(dst.field, value << dst.start, dst.bits());
                    }
                }
                LearnSpec::Load { dst, src } => {
                    self.source(*dst, src)?;
                    let checker = self.within(Some(matched.clone()));
                    checker.readable(*dst)?;
                    checker.writable(dst.field)?;
                }
                LearnSpec::Output(sub) => self.readable(*sub)?,
            }
        }
        Ok(())
    }

    fn source(&self, dst: SubField, src: &LearnSource) -> Result<(), RuleError> {
        match src {
            LearnSource::Field(sub) if !dst.takes_learned(*sub) => {
                Err(RuleError::LearnWidths { n_bits: sub.n_bits, dst })
            }
            LearnSource::Field(sub) => self.readable(*sub),
            LearnSource::Value(value) if value & !low_bits(dst.n_bits) != 0 => {
                Err(RuleError::LearnWidths { n_bits: 128 - value.leading_zeros(), dst })
            }
            LearnSource::Value(_) => Ok(()),
        }
    }
}
