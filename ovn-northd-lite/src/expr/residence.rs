//! `is_chassis_resident("port")` depends on the chassis that asks: there it becomes true or
//! false before the expression becomes matches.

use super::ast::Expr;

impl Expr {
    /// The expression on a chassis of which `is_here` tells whether a port is on it. What
    /// becomes certain by that goes: the rest may be what cannot be negated.
    #[must_use]
    pub fn with_residents(self, is_here: &dyn Fn(&str) -> bool) -> Self {
        match self {
            Self::Resident(port) => Self::Bool(is_here(&port)),
            Self::Not(inner) => match inner.with_residents(is_here) {
                Self::Bool(value) => Self::Bool(!value),
                inner => Self::Not(Box::new(inner)),
            },
            Self::And(parts) => joined(parts, is_here, false).unwrap_or_else(Self::And),
            Self::Or(parts) => joined(parts, is_here, true).unwrap_or_else(Self::Or),
            Self::Bool(_) | Self::Test(_) | Self::Compare { .. } => self,
        }
    }
}

/// The parts without those that say nothing, or what one of them decides alone: `decider`.
fn joined(parts: Vec<Expr>, is_here: &dyn Fn(&str) -> bool, decider: bool) -> Result<Expr, Vec<Expr>> {
    let mut rest = Vec::with_capacity(parts.len());
    for part in parts {
        match part.with_residents(is_here) {
            Expr::Bool(value) if value == decider => return Ok(Expr::Bool(decider)),
            Expr::Bool(_) => {}
            part => rest.push(part),
        }
    }
    match rest.len() {
        0 => Ok(Expr::Bool(!decider)),
        1 => Ok(rest.remove(0)),
        _ => Err(rest),
    }
}

#[cfg(test)]
mod tests {
    use crate::expr::parse;

    #[test]
    fn residence_is_decided_wherever_it_stands() {
        let text = r#"ip4 && !(is_chassis_resident("a") || (ip.proto == 6 && is_chassis_resident("b")))"#;
        let expr = parse(text).unwrap();
        assert_eq!(expr.to_string(), text);
        let on = |here: &'static str| expr.clone().with_residents(&|port| port == here).to_matches(&|_| None);
        assert_eq!(on("a").unwrap(), [], "`a` is here");
        let anywhere_else = parse("ip4").unwrap().to_matches(&|_| None).unwrap();
        assert_eq!(on("c").unwrap(), anywhere_else);
        let not_tcp = parse("ip4 && ip.proto != 6").unwrap().to_matches(&|_| None).unwrap();
        assert_eq!(on("b").unwrap().len(), not_tcp.len());
    }
}
