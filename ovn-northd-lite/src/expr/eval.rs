//! The meaning of an expression, said plainly: what a packet's key makes of it. Slow and
//! obvious, it is the oracle for [`super::normal`].

use flowtable::key::{FlowKey, low_bits};

use super::{
    ast::{Constant, Expr, Operand, Relation},
    normal::Resolver,
};

impl Expr {
    /// The expression holds for a key. Sets, whose members are not in it, hold for none,
    /// and no port is on the chassis.
    pub fn eval(&self, key: &FlowKey, ports: Resolver<'_>) -> bool {
        self.eval_as(key, ports, false)
    }

    fn eval_as(&self, key: &FlowKey, ports: Resolver<'_>, negated: bool) -> bool {
        let parts = |parts: &[Self], all: bool| {
            if all {
                parts.iter().all(|part| part.eval_as(key, ports, negated))
            } else {
                parts.iter().any(|part| part.eval_as(key, ports, negated))
            }
        };
        match self {
            Self::Bool(value) => *value != negated,
            Self::Resident(_) => negated,
            Self::Not(inner) => inner.eval_as(key, ports, !negated),
            Self::And(list) => parts(list, !negated),
            Self::Or(list) => parts(list, negated),
            Self::Test(operand) => match operand.symbol.meaning() {
                Some(meaning) => meaning.eval_as(key, ports, negated),
                None => exists(operand, key, ports) && read(operand, key) == Some(u128::from(!negated)),
            },
            Self::Compare { field, op, values } => {
                let Some(actual) = read(field, key).filter(|_| exists(field, key, ports)) else {
                    return false;
                };
                let op = if negated { op.negated() } else { *op };
                let holds = |value: &Constant| compare(actual, op, value, ports);
                if op == Relation::Ne { values.iter().all(holds) } else { values.iter().any(holds) }
            }
        }
    }
}

/// The packet has the field.
fn exists(operand: &Operand, key: &FlowKey, ports: Resolver<'_>) -> bool {
    operand.symbol.prerequisite().is_none_or(|needs| needs.eval(key, ports))
}

fn read(operand: &Operand, key: &FlowKey) -> Option<u128> {
    let place = operand.place()?;
    let value = key.get(place.field) >> place.start & low_bits(place.n_bits);
    // A byte that the key keeps in two; no packet has more in it.
    Some(value).filter(|value| operand.is_port() || *value <= low_bits(operand.max_bits()))
}

fn compare(actual: u128, op: Relation, value: &Constant, ports: Resolver<'_>) -> bool {
    match value {
        Constant::Number { value, mask, .. } => {
            let actual = actual & mask.unwrap_or(u128::MAX);
            match op {
                Relation::Eq => actual == *value,
                Relation::Ne => actual != *value,
                Relation::Lt => actual < *value,
                Relation::Le => actual <= *value,
                Relation::Gt => actual > *value,
                Relation::Ge => actual >= *value,
            }
        }
        Constant::Port(name) => op == Relation::Eq && ports(name).map(u128::from) == Some(actual),
        Constant::AddressSet(_) | Constant::PortGroup(_) | Constant::Variable(_) => false,
    }
}
