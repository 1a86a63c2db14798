//! From text to checked statements: fields can be written, sizes agree.

use super::Statement;
use crate::{
    expr::{
        Constant, ExprError, Notation, Operand,
        lexer::Token,
        nearest,
        parser::{Parser, check_value},
        symbols::Kind,
    },
    southbound::Pipeline,
};

/// Words that start a statement without a field.
const VERBS: &[&str] = &["next", "output", "drop"];

/// Parses an action list.
///
/// # Errors
/// Says where the text is wrong, why, and what may have been meant.
pub fn parse(text: &str) -> Result<Vec<Statement>, ExprError> {
    let mut parser = Parser::new(text)?;
    let mut statements = Vec::new();
    while *parser.peek() != Token::End {
        let position = parser.position();
        let statement = statement(&mut parser)?;
        parser.expect_mark(";")?;
        if statement == Statement::Drop && (!statements.is_empty() || *parser.peek() != Token::End) {
            return Err(ExprError::new(position, "`drop;` goes with no other action"));
        }
        statements.push(statement);
    }
    if statements.is_empty() {
        return Err(parser.error("there is no action; write `drop;` to drop"));
    }
    Ok(statements)
}

fn statement(parser: &mut Parser) -> Result<Statement, ExprError> {
    let Token::Name(name) = parser.peek() else {
        return Err(parser.error(format!("expected an action, not {}", parser.peek().describe())));
    };
    match name.as_str() {
        "output" => {
            parser.take();
            Ok(Statement::Output)
        }
        "drop" => {
            parser.take();
            Ok(Statement::Drop)
        }
        "next" => {
            parser.take();
            next(parser)
        }
        name => {
            let verb = nearest(name, VERBS.iter().copied()).filter(|_| !name.contains(['.', '[']));
            if let Some(verb) = verb.filter(|_| crate::expr::symbols::find(name).is_none()) {
                return Err(parser.error(format!("there is no action `{name}`; did you mean `{verb}`?")));
            }
            assignment(parser)
        }
    }
}

/// What follows `next`.
fn next(parser: &mut Parser) -> Result<Statement, ExprError> {
    let (mut pipeline, mut stage) = (None, None);
    if parser.take_mark("(") {
        loop {
            let position = parser.position();
            match parser.take() {
                Token::Constant(number, Notation::Decimal) => stage = Some(stage_number(position, number)?),
                Token::Name(key) if key == "table" => {
                    parser.expect_mark("=")?;
                    let position = parser.position();
                    match parser.take() {
                        Token::Constant(number, Notation::Decimal) => {
                            stage = Some(stage_number(position, number)?);
                        }
                        other => {
                            return Err(ExprError::new(
                                position,
                                format!("expected a stage number, not {}", other.describe()),
                            ));
                        }
                    }
                }
                Token::Name(key) if key == "pipeline" => {
                    parser.expect_mark("=")?;
                    pipeline = Some(named_pipeline(parser)?);
                }
                other => {
                    return Err(ExprError::new(
                        position,
                        format!("expected `pipeline=`, `table=` or a stage number, not {}", other.describe()),
                    ));
                }
            }
            if !parser.take_mark(",") {
                break;
            }
        }
        parser.expect_mark(")")?;
    }
    Ok(Statement::Next { pipeline, stage })
}

fn stage_number(position: usize, number: u128) -> Result<u8, ExprError> {
    u8::try_from(number).map_err(|_| ExprError::new(position, format!("there is no stage {number}")))
}

fn named_pipeline(parser: &mut Parser) -> Result<Pipeline, ExprError> {
    let position = parser.position();
    match parser.take() {
        Token::Name(name) if name == "ingress" => Ok(Pipeline::Ingress),
        Token::Name(name) if name == "egress" => Ok(Pipeline::Egress),
        other => {
            Err(ExprError::new(position, format!("expected `ingress` or `egress`, not {}", other.describe())))
        }
    }
}

/// `field = …`, `field <-> field`, `ip.ttl--`.
fn assignment(parser: &mut Parser) -> Result<Statement, ExprError> {
    let position = parser.position();
    let dst = parser.operand()?;
    if parser.take_mark("--") {
        if dst.to_string() == "ip.ttl" {
            return Ok(Statement::DecTtl);
        }
        return Err(ExprError::new(position, "only `ip.ttl` can be decremented"));
    }
    check_writable(position, dst)?;
    if parser.take_mark("<->") {
        let position = parser.position();
        let other = parser.operand()?;
        check_writable(position, other)?;
        check_sizes(position, dst, other)?;
        return Ok(Statement::Exchange(dst, other));
    }
    parser.expect_mark("=")?;
    let position = parser.position();
    if matches!(parser.peek(), Token::Name(_)) {
        let src = parser.operand()?;
        check_sizes(position, dst, src)?;
        return Ok(Statement::Copy { dst, src });
    }
    let value = parser.constant()?;
    let whole = match &value {
        Constant::Number { mask, .. } => mask.is_none(),
        Constant::Port(_) => true,
        Constant::AddressSet(_) | Constant::PortGroup(_) => false,
    };
    if !whole {
        return Err(ExprError::new(position, "only a single value can be assigned"));
    }
    check_value(dst, &value).map_err(|reason| ExprError::new(position, reason))?;
    Ok(Statement::Set { dst, value })
}

fn check_writable(position: usize, operand: Operand) -> Result<(), ExprError> {
    let writable = match operand.symbol.kind {
        Kind::Number { field, .. } | Kind::Port(field) => field.info().writable,
        Kind::Predicate(_) | Kind::Connection => false,
    };
    if writable { Ok(()) } else { Err(ExprError::new(position, format!("`{operand}` cannot be written"))) }
}

fn check_sizes(position: usize, a: Operand, b: Operand) -> Result<(), ExprError> {
    let n_bits = |operand: Operand| operand.place().map_or(0, |place| place.n_bits);
    if n_bits(a) == n_bits(b) && a.is_port() == b.is_port() {
        return Ok(());
    }
    Err(ExprError::new(position, format!("`{a}` has {} bits, `{b}` has {}", n_bits(a), n_bits(b))))
}
