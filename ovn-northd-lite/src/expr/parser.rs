//! From words to a checked [`Expr`].

use flowtable::key::low_bits;

use super::{
    ExprError,
    ast::{Constant, Expr, Operand, Relation},
    lexer::{Notation, Token, tokens},
    symbols::{self, Kind},
};

/// Deepest nesting of parentheses and `!`.
const MAX_DEPTH: usize = 100;

/// Parses a match expression.
///
/// # Errors
/// Says where the text is wrong, why, and what may have been meant.
pub fn parse(text: &str) -> Result<Expr, ExprError> {
    let mut parser = Parser::new(text)?;
    let expr = parser.expression(false, 0)?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.error(format!("expected `&&`, `||` or the end, not {}", other.describe()))),
    }
}

/// Reads a number or address on its own.
pub fn constant(text: &str) -> Option<Constant> {
    let mut parser = Parser::new(text).ok()?;
    let constant = parser.constant().ok()?;
    (*parser.peek() == Token::End).then_some(constant)
}

/// A place in a list of words; the action language uses it too.
pub(crate) struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
}

impl Parser {
    pub(crate) fn new(text: &str) -> Result<Self, ExprError> {
        Ok(Self { tokens: tokens(text)?, next: 0 })
    }

    /// The next word.
    pub(crate) fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    /// Position of the next word.
    pub(crate) fn position(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |(position, _)| *position)
    }

    /// Takes the next word.
    pub(crate) fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    /// Takes the next word if it is this mark.
    pub(crate) fn take_mark(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Token::Punctuation(found) if *found == mark);
        self.next += usize::from(found);
        found
    }

    /// Takes this mark or fails.
    pub(crate) fn expect_mark(&mut self, mark: &str) -> Result<(), ExprError> {
        if self.take_mark(mark) {
            return Ok(());
        }
        Err(self.error(format!("expected `{mark}`, not {}", self.peek().describe())))
    }

    /// An error at the next word.
    pub(crate) fn error(&self, reason: impl Into<String>) -> ExprError {
        ExprError::new(self.position(), reason)
    }

    /// `a && b && …` or `a || b || …`; the two together need parentheses.
    fn expression(&mut self, negated: bool, depth: usize) -> Result<Expr, ExprError> {
        let first = self.term(negated, depth)?;
        let operator = match self.peek() {
            Token::Punctuation(mark @ ("&&" | "||")) => *mark,
            _ => return Ok(first),
        };
        let mut parts = vec![first];
        while self.take_mark(operator) {
            parts.push(self.term(negated, depth)?);
        }
        if matches!(self.peek(), Token::Punctuation("&&" | "||")) {
            return Err(self.error("`&&` and `||` together need parentheses that say which comes first"));
        }
        Ok(if operator == "&&" { Expr::And(parts) } else { Expr::Or(parts) })
    }

    fn term(&mut self, negated: bool, depth: usize) -> Result<Expr, ExprError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("nested more than {MAX_DEPTH} deep")));
        }
        if self.take_mark("!") {
            return Ok(Expr::Not(Box::new(self.term(!negated, depth + 1)?)));
        }
        if self.take_mark("(") {
            let inner = self.expression(negated, depth + 1)?;
            self.expect_mark(")")?;
            return Ok(inner);
        }
        let position = self.position();
        match self.peek() {
            Token::Name(name) if name == "is_chassis_resident" => self.resident(),
            Token::Name(_) => {
                let field = self.operand()?;
                match self.relation() {
                    Some(op) => {
                        let values = self.values()?;
                        compare(position, field, op, values, negated)
                    }
                    None => test(position, field),
                }
            }
            Token::End => Err(self.error("the expression is incomplete")),
            _ => self.constant_first(negated),
        }
    }

    /// `is_chassis_resident("port")`
    fn resident(&mut self) -> Result<Expr, ExprError> {
        self.take();
        self.expect_mark("(")?;
        let position = self.position();
        let Token::Text(port) = self.take() else {
            return Err(ExprError::new(position, "expected the name of a port in quotes"));
        };
        self.expect_mark(")")?;
        Ok(Expr::Resident(port))
    }

    /// `constant op field`, and the range `constant op field op constant`.
    fn constant_first(&mut self, negated: bool) -> Result<Expr, ExprError> {
        let position = self.position();
        let values = self.values()?;
        let Some(op) = self.relation() else {
            return match values.as_slice() {
                [Constant::Number { value: value @ (0 | 1), mask: None, notation: Notation::Decimal }] => {
                    Ok(Expr::Bool(*value == 1))
                }
                _ => Err(self.error(format!(
                    "expected a comparison such as `==` after a constant, not {}",
                    self.peek().describe()
                ))),
            };
        };
        if !matches!(self.peek(), Token::Name(_)) {
            return Err(self.error(format!("expected a field name, not {}", self.peek().describe())));
        }
        let field = self.operand()?;
        let lower = compare(position, field, op.mirrored(), values, negated)?;
        let second = self.position();
        let Some(op_2) = self.relation() else { return Ok(lower) };
        let rising = |op| matches!(op, Relation::Lt | Relation::Le);
        let falling = |op| matches!(op, Relation::Gt | Relation::Ge);
        if !(rising(op) && rising(op_2) || falling(op) && falling(op_2)) {
            return Err(ExprError::new(second, "a range needs two `<` or `<=`, or two `>` or `>=`"));
        }
        let values = self.values()?;
        Ok(Expr::And(vec![lower, compare(position, field, op_2, values, negated)?]))
    }

    fn relation(&mut self) -> Option<Relation> {
        let Token::Punctuation(mark) = self.peek() else { return None };
        let op = match *mark {
            "==" => Relation::Eq,
            "!=" => Relation::Ne,
            "<" => Relation::Lt,
            "<=" => Relation::Le,
            ">" => Relation::Gt,
            ">=" => Relation::Ge,
            _ => return None,
        };
        self.next += 1;
        Some(op)
    }

    /// A name with optional `[bit]` or `[first..last]`.
    pub(crate) fn operand(&mut self) -> Result<Operand, ExprError> {
        let position = self.position();
        let Token::Name(name) = self.take() else {
            return Err(ExprError::new(position, "expected a field name"));
        };
        let Some(symbol) = symbols::find(&name) else {
            let suggestion = symbols::suggestion(&name);
            return Err(ExprError::new(position, format!("there is no field `{name}`{suggestion}")));
        };
        if !self.take_mark("[") {
            return Ok(Operand { symbol, bits: None });
        }
        let at = self.position();
        let first = self.bit()?;
        let last = if self.take_mark("..") { self.bit()? } else { first };
        self.expect_mark("]")?;
        let n_bits = match symbol.kind {
            Kind::Number { max_bits, .. } => max_bits,
            Kind::Port(_) | Kind::Predicate(_) => {
                return Err(ExprError::new(at, format!("`{name}` is not a number and has no bits")));
            }
        };
        if first > last || last >= n_bits {
            return Err(ExprError::new(
                at,
                format!("`{name}` has the bits 0 to {}, the lower one written first", n_bits - 1),
            ));
        }
        let bits = Some((first, last - first + 1)).filter(|bits| *bits != (0, n_bits));
        if bits.is_some() && !(Operand { symbol, bits }).is_maskable() {
            return Err(ExprError::new(at, format!("`{name}` can only be used as a whole")));
        }
        Ok(Operand { symbol, bits })
    }

    fn bit(&mut self) -> Result<u32, ExprError> {
        let position = self.position();
        match self.take() {
            Token::Constant(value, Notation::Decimal) if value < 128 => Ok(value as u32),
            other => {
                Err(ExprError::new(position, format!("expected a bit number, not {}", other.describe())))
            }
        }
    }

    /// One constant or a set of them.
    fn values(&mut self) -> Result<Vec<Constant>, ExprError> {
        if !self.take_mark("{") {
            return Ok(vec![self.constant()?]);
        }
        let mut values = Vec::new();
        loop {
            if self.take_mark("}") {
                break;
            }
            values.push(self.constant()?);
            if !self.take_mark(",") {
                self.expect_mark("}")?;
                break;
            }
        }
        if values.is_empty() {
            return Err(self.error("a set needs at least one member"));
        }
        Ok(values)
    }

    /// A number or address with an optional mask, a text, `$name`, `@name` or `^name`.
    pub(crate) fn constant(&mut self) -> Result<Constant, ExprError> {
        let position = self.position();
        let (value, notation) = match self.take() {
            Token::Constant(value, notation) => (value, notation),
            Token::Text(text) => return Ok(Constant::Port(text)),
            Token::AddressSet(name) => return Ok(Constant::AddressSet(name)),
            Token::PortGroup(name) => return Ok(Constant::PortGroup(name)),
            Token::Variable(name) => return Ok(Constant::Variable(name)),
            other => {
                return Err(ExprError::new(
                    position,
                    format!("expected a constant, not {}", other.describe()),
                ));
            }
        };
        if !self.take_mark("/") {
            return Ok(Constant::Number { value, mask: None, notation });
        }
        let mask = self.mask(notation)?;
        if value & !mask != 0 {
            let kept = Constant::Number { value: value & mask, mask: Some(mask), notation };
            return Err(ExprError::new(
                position,
                format!("the value has bits outside its mask; write {kept}, or leave out the mask"),
            ));
        }
        Ok(Constant::Number { value, mask: Some(mask), notation })
    }

    /// What follows a `/`: a prefix length after an IP address, else a mask in the same
    /// notation.
    fn mask(&mut self, notation: Notation) -> Result<u128, ExprError> {
        let position = self.position();
        let wrong = |reason: String| Err(ExprError::new(position, reason));
        let width = match notation {
            Notation::Ipv4 => 32,
            Notation::Ipv6 => 128,
            Notation::Decimal | Notation::Hex | Notation::Mac => 0,
        };
        match self.take() {
            Token::Constant(len, Notation::Decimal) if width > 0 => match u32::try_from(len) {
                Ok(len) if len <= width => Ok(low_bits(width) & !low_bits(width - len)),
                _ => wrong(format!("the prefix length must be 0 to {width}, not {len}")),
            },
            Token::Constant(mask, found) if found == notation => Ok(mask),
            Token::Constant(mask, Notation::Decimal | Notation::Hex) if width == 0 => Ok(mask),
            other => wrong(format!("expected a mask, not {}", other.describe())),
        }
    }
}

/// A comparison, if it has a meaning.
fn compare(
    position: usize,
    field: Operand,
    op: Relation,
    values: Vec<Constant>,
    negated: bool,
) -> Result<Expr, ExprError> {
    let wrong = |reason: String| Err(ExprError::new(position, reason));
    if matches!(field.symbol.kind, Kind::Predicate(_)) {
        return wrong(format!("`{field}` is true or false; write `{field}` or `!{field}`"));
    }
    let effective = if negated { op.negated() } else { op };
    if field.is_port() && effective != Relation::Eq {
        return wrong(format!("`{field}` may only be tested for equality, enclosing `!` considered"));
    }
    let ordered = !matches!(op, Relation::Eq | Relation::Ne);
    if ordered && values.len() > 1 {
        return wrong(format!("`{}` does not go with a set; use `==` or `!=`", op.text()));
    }
    for value in &values {
        check_value(field, value).map_err(|reason| ExprError::new(position, reason))?;
        if ordered && matches!(value, Constant::Number { mask: Some(_), .. }) {
            return wrong(format!("`{}` does not go with a mask", op.text()));
        }
        if matches!(value, Constant::Number { mask: Some(_), .. }) && !field.is_maskable() {
            return wrong(format!("`{field}` can only be compared as a whole, without a mask"));
        }
        if ordered && matches!(value, Constant::AddressSet(_)) {
            return wrong(format!("`{}` does not go with an address set", op.text()));
        }
        if ordered && matches!(value, Constant::Variable(_)) {
            return wrong(format!(
                "`{}` does not go with a variable, which may have several values",
                op.text()
            ));
        }
    }
    Ok(Expr::Compare { field, op, values })
}

/// The constant is of the field's type and fits.
pub(crate) fn check_value(field: Operand, value: &Constant) -> Result<(), String> {
    match (value, field.symbol.kind) {
        (Constant::Variable(_), _) => Ok(()),
        (Constant::Port(_) | Constant::PortGroup(_), Kind::Port(_)) => Ok(()),
        (_, Kind::Port(_)) => Err(format!("`{field}` is compared with a port's name in quotes, not {value}")),
        (Constant::Port(_) | Constant::PortGroup(_), _) => {
            Err(format!("`{field}` is a number, {value} is the name of a port"))
        }
        (Constant::AddressSet(_), _) => Ok(()),
        (Constant::Number { value: number, mask, notation }, _) => {
            let n_bits = field.max_bits();
            let needed = match notation {
                Notation::Decimal | Notation::Hex => {
                    128 - number.leading_zeros().min(mask.unwrap_or(0).leading_zeros())
                }
                Notation::Mac => 48,
                Notation::Ipv4 => 32,
                Notation::Ipv6 => 128,
            };
            let fits = match notation {
                Notation::Decimal | Notation::Hex => needed <= n_bits,
                Notation::Mac | Notation::Ipv4 | Notation::Ipv6 => needed == n_bits,
            };
            if fits { Ok(()) } else { Err(format!("`{field}` has {n_bits} bits, {value} has {needed}")) }
        }
    }
}

/// A name on its own, if it can be true or false.
fn test(position: usize, field: Operand) -> Result<Expr, ExprError> {
    let boolean = match field.symbol.kind {
        Kind::Predicate(_) => true,
        Kind::Number { .. } => field.max_bits() == 1,
        Kind::Port(_) => false,
    };
    if boolean {
        return Ok(Expr::Test(field));
    }
    Err(ExprError::new(position, format!("`{field}` must be compared with something, for example by `==`")))
}
