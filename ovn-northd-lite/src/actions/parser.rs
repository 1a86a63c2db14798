//! From text to checked statements: fields can be written, sizes agree.

use flowtable::conntrack::NatKind;

use super::{
    Answer, Balance, Bind, Check, CheckAffinity, CheckLength, CommitAffinity, Connection, Log, Neighbour,
    Sample, Select, Serve, SetMeter, Statement, Station, Translate, answer, lower::MAX_NESTING, serve,
};
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
const VERBS: &[&str] = &[
    "next",
    "output",
    "drop",
    "clone",
    "ct_clear",
    "ct_next",
    "ct_commit",
    "ct_commit_to_zone",
    "ct_dnat",
    "ct_snat",
    "ct_lb_mark",
    "get_arp",
    "get_nd",
    "put_arp",
    "put_nd",
    "arp",
    "nd_ns",
    "icmp4",
    "icmp6",
    "tcp_reset",
    "reject",
    "log",
    "sample",
    "set_meter",
    "handle_svc_check",
    "handle_bfd_msg",
    "bind_vport",
    "commit_lb_aff",
    "put_fdb",
];

/// Parses an action list.
///
/// # Errors
/// Says where the text is wrong, why, and what may have been meant.
pub fn parse(text: &str) -> Result<Vec<Statement>, ExprError> {
    let mut parser = Parser::new(text)?;
    let statements = list(&mut parser, 0)?;
    match parser.peek() {
        Token::End => Ok(statements),
        other => Err(parser.error(format!("expected an action, not {}", other.describe()))),
    }
}

/// Statements up to the end of the text or the closing brace.
fn list(parser: &mut Parser, depth: usize) -> Result<Vec<Statement>, ExprError> {
    let ends = |parser: &Parser| matches!(parser.peek(), Token::End | Token::Punctuation("}"));
    let mut statements = Vec::new();
    while !ends(parser) {
        let position = parser.position();
        let statement = statement(parser, depth)?;
        parser.expect_mark(";")?;
        if statement == Statement::Drop && (!statements.is_empty() || !ends(parser)) {
            return Err(ExprError::new(position, "`drop;` goes with no other action"));
        }
        statements.push(statement);
    }
    if statements.is_empty() {
        return Err(parser.error("there is no action; write `drop;` to drop"));
    }
    Ok(statements)
}

/// `{ … }`.
fn braces(parser: &mut Parser, depth: usize) -> Result<Vec<Statement>, ExprError> {
    if depth >= MAX_NESTING {
        return Err(parser.error(format!("nested more than {MAX_NESTING} deep")));
    }
    parser.expect_mark("{")?;
    let inner = list(parser, depth + 1)?;
    parser.expect_mark("}")?;
    Ok(inner)
}

fn statement(parser: &mut Parser, depth: usize) -> Result<Statement, ExprError> {
    let Token::Name(name) = parser.peek().clone() else {
        return Err(parser.error(format!("expected an action, not {}", parser.peek().describe())));
    };
    if !VERBS.contains(&name.as_str()) {
        let verb = nearest(&name, VERBS.iter().copied()).filter(|_| !name.contains(['.', '[']));
        if let Some(verb) = verb.filter(|_| crate::expr::symbols::find(&name).is_none()) {
            return Err(parser.error(format!("there is no action `{name}`; did you mean `{verb}`?")));
        }
        return assignment(parser);
    }
    let position = parser.position();
    parser.take();
    if let Some(service) = answer::service(&name) {
        let mtu = Answer::mtu(parser, service)?;
        return Ok(Statement::Answer(Answer { service, mtu, inner: braces(parser, depth)? }));
    }
    match name.as_str() {
        "output" => Ok(Statement::Output),
        "drop" => Ok(Statement::Drop),
        "clone" => braces(parser, depth).map(Statement::Clone),
        "ct_clear" => Ok(Statement::CtClear),
        "ct_next" => Ok(Statement::Connection(Connection::Next)),
        "ct_commit" => Connection::commit(position, braces(parser, depth)?).map(Statement::Connection),
        "ct_commit_to_zone" => Connection::commit_to(parser).map(Statement::Connection),
        "log" => Log::parse(parser).map(Statement::Log),
        "sample" => Sample::parse(parser).map(Statement::Sample),
        "commit_lb_aff" => CommitAffinity::parse(parser).map(Statement::CommitAffinity),
        "put_fdb" => Station::put(parser).map(Statement::Station),
        "bind_vport" => Bind::parse(parser).map(Statement::Bind),
        "handle_svc_check" => Check::health(parser).map(Statement::Check),
        "handle_bfd_msg" => Check::liveness(parser).map(Statement::Check),
        "set_meter" => SetMeter::parse(parser).map(Statement::Meter),
        "ct_dnat" => Translate::parse(parser, NatKind::Destination).map(Statement::Translate),
        "ct_snat" => Translate::parse(parser, NatKind::Source).map(Statement::Translate),
        "ct_lb_mark" => Balance::parse(parser).map(Statement::Balance),
        "get_arp" | "get_nd" => Neighbour::get(parser).map(Statement::Neighbour),
        "put_arp" | "put_nd" => Neighbour::put(parser).map(Statement::Neighbour),
        _ => next(parser),
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
    if let Token::Name(name) = parser.peek().clone() {
        if let "select" | "lookup_arp" | "lookup_nd" | "lookup_arp_ip" | "chk_lb_aff" | "check_pkt_larger"
        | "get_fdb" = name.as_str()
        {
            parser.take();
            return match name.as_str() {
                "get_fdb" => Station::get(parser, dst).map(Statement::Station),
                "select" => Select::parse(parser, dst).map(Statement::Select),
                "check_pkt_larger" => CheckLength::parse(parser, dst).map(Statement::CheckLength),
                "chk_lb_aff" => CheckAffinity::parse(parser, dst).map(Statement::CheckAffinity),
                "lookup_arp_ip" => Neighbour::lookup_ip(parser, dst).map(Statement::Neighbour),
                _ => Neighbour::lookup(parser, dst).map(Statement::Neighbour),
            };
        }
        if let Some(function) = serve::FUNCTIONS.iter().find(|(known, _)| *known == name) {
            parser.take();
            return Serve::parse(parser, dst, *function).map(Statement::Serve);
        }
        let src = parser.operand()?;
        check_sizes(position, dst, src)?;
        return Ok(Statement::Copy { dst, src });
    }
    let value = parser.constant()?;
    let whole = match &value {
        Constant::Number { mask, .. } => mask.is_none(),
        Constant::Port(_) => true,
        Constant::AddressSet(_) | Constant::PortGroup(_) | Constant::Variable(_) => false,
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
        Kind::Predicate(_) => false,
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
