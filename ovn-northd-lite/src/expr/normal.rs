//! From an expression to matches: negations are pushed to the comparisons, comparisons
//! become masks together with what their field needs, and the whole becomes an OR of
//! ANDs, each of them one [`Match`].
//!
//! A negation stays within the packets a field exists for, as in OVN: `!(tcp.dst == 80)`
//! is `tcp && tcp.dst != 80`. A negated predicate is the opposite of what the predicate
//! stands for: `!tcp` holds for everything that is not TCP.

use std::{cell::RefCell, collections::HashMap, ptr};

use flowtable::{
    field::{Field, SubField},
    flow::{Match, Membership, Values},
    key::{FlowKey, FlowMask, low_bits},
    set::{SetKind, SetName as NameOfSet, ValueRange},
};

use super::{
    ExprError,
    ast::{Constant, Expr, Operand, Relation},
    interval::IntervalSet,
    sets::SetName,
    symbols::Kind,
};

/// Largest number of matches an expression as it is written may become. A rule set of that
/// size for one ACL is a mistake that would slow every host.
pub const MAX_MATCHES: usize = 4096;
/// Largest number of matches with the members of sets in it.
const MAX_WITH_SETS: usize = 16 * MAX_MATCHES;
/// Most ways to combine lists for which a rule each is made; with more, a conjunction is.
const MAX_PRODUCT: usize = 16;
/// Longest list that is no clause of its own.
const MAX_SHORT: usize = 2;
/// Most ways to combine two lists that are worth trying: many contradict each other.
const MAX_COMBINATIONS: usize = 16 * MAX_MATCHES;
/// From so many values in a row on they are a range.
const MAX_FEW: u128 = 4;
/// Longest list that is searched for matches that others make superfluous.
const MAX_ABSORB: usize = 256;

/// Knows the keys of a datapath's ports and groups.
pub type Resolver<'a> = &'a dyn Fn(&str) -> Option<u16>;
/// Knows the switch's set with the members of a set that an expression names, of the kind
/// that a field has; when the flag is set, with all values but those.
pub type SetNamer<'a> = &'a dyn Fn(SetName<'_>, SetKind, bool) -> Option<NameOfSet>;

impl Expr {
    /// The matches of which at least one holds exactly when the expression does. A port
    /// the resolver does not know makes its comparison false.
    ///
    /// # Errors
    /// What cannot be expressed: sets, and too many matches.
    pub fn to_matches(&self, ports: Resolver<'_>) -> Result<Vec<Match>, ExprError> {
        let list = Normaliser { ports, sets: &|_, _, _| None }.list(self, false)?;
        Ok(list.iter().map(Conjunction::to_match).collect())
    }

    /// As [`Expr::to_matches`], but where several long lists have to hold at once they
    /// stay lists: n + m matches and not n times m. Sets stay sets.
    ///
    /// # Errors
    /// As [`Expr::to_matches`], for each list; a set that there is not.
    pub fn to_matches_by_clause(
        &self,
        ports: Resolver<'_>,
        sets: SetNamer<'_>,
    ) -> Result<Vec<Matches>, ExprError> {
        let normaliser = Normaliser { ports, sets };
        match self {
            Self::Or(parts) => {
                let parts = parts.iter().map(|part| part.to_matches_by_clause(ports, sets));
                Ok(parts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
            }
            Self::And(_) => {
                let mut flat = Vec::new();
                flatten(self, &mut flat);
                normaliser.clauses(&flat)
            }
            _ => {
                let list = normaliser.list(self, false)?;
                Ok(vec![Matches::Any(list.iter().map(Conjunction::to_match).collect())])
            }
        }
    }
}

/// What an expression becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matches {
    /// Any of these holds.
    Any(Vec<Match>),
    /// Of each clause one holds.
    All {
        /// 2 to 64 lists.
        clauses: Vec<Vec<Match>>,
        /// What all matches of all clauses have in common.
        common: Match,
    },
}

impl Matches {
    /// No packet matches.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Any(list) => list.is_empty(),
            Self::All { clauses, .. } => clauses.iter().any(Vec::is_empty),
        }
    }
}

/// The parts of an AND, and of those ANDs that are parts of it.
fn flatten<'a>(expr: &'a Expr, parts: &mut Vec<&'a Expr>) {
    match expr {
        Expr::And(inner) => inner.iter().for_each(|part| flatten(part, parts)),
        part => parts.push(part),
    }
}

/// Bits that must all have given values, as words of the key in rising order, and fields
/// whose values must be in ranges and sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Conjunction {
    words: Vec<Word>,
    /// Rising, none twice.
    memberships: Vec<Membership>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Word {
    idx: usize,
    mask: u64,
    value: u64,
}

impl Conjunction {
    /// The masked bits of a sub-field, both right-aligned.
    fn of(place: SubField, value: u128, mask: u128) -> Self {
        let (mut key, mut bits) = (FlowKey::zero(), FlowMask::empty());
        key.set(place.field, (value & mask) << place.start);
        bits.add(place.field, (mask & low_bits(place.n_bits)) << place.start);
        let words = bits.words().iter().zip(key.words()).enumerate();
        let words = words.filter(|(_, (mask, _))| **mask != 0).map(|(idx, (mask, value))| Word {
            idx,
            mask: *mask,
            value: *value,
        });
        Self { words: words.collect(), memberships: Vec::new() }
    }

    /// A whole field has one of these values.
    fn within(field: Field, values: Values) -> Self {
        Self { words: Vec::new(), memberships: vec![Membership::new(field, values)] }
    }

    /// Both at once; `None` if they contradict each other.
    fn and(&self, other: &Self) -> Option<Self> {
        let mut words: Vec<Word> = Vec::with_capacity(self.words.len() + other.words.len());
        let (mut left, mut right) = (self.words.iter().peekable(), other.words.iter().peekable());
        let memberships = joined(&self.memberships, &other.memberships)?;
        loop {
            let word = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if a.idx == b.idx => {
                    if (a.value ^ b.value) & a.mask & b.mask != 0 {
                        return None;
                    }
                    let word = Word { idx: a.idx, mask: a.mask | b.mask, value: a.value | b.value };
                    left.next();
                    right.next();
                    word
                }
                (Some(a), Some(b)) if a.idx > b.idx => *right.next()?,
                (Some(_), _) => *left.next()?,
                (None, Some(_)) => *right.next()?,
                (None, None) => return Self { words, memberships }.settled(),
            };
            words.push(word);
        }
    }

    /// Without ranges of fields whose value is given; `None` if it is in none of them.
    fn settled(mut self) -> Option<Self> {
        let given = |field: Field| {
            let mut mask = FlowMask::empty();
            mask.add(field, field.all_bits());
            let mut bits = mask.words().iter().enumerate().filter(|(_, mask)| **mask != 0);
            let is_given = |(idx, mask): (usize, &u64)| {
                self.words.iter().any(|word| word.idx == idx && mask & !word.mask == 0)
            };
            bits.all(is_given).then(|| {
                let mut key = FlowKey::zero();
                self.words.iter().for_each(|word| key.words_mut()[word.idx] = word.value);
                key.get(field)
            })
        };
        let mut open = Vec::with_capacity(self.memberships.len());
        for membership in &self.memberships {
            match (&membership.values, given(membership.field)) {
                (Values::Range(range), Some(value)) if range.contains(value) => {}
                (Values::Range(_), Some(_)) => return None,
                _ => open.push(membership.clone()),
            }
        }
        self.memberships = open;
        Some(self)
    }

    /// Whatever `other` holds for, this holds for too.
    fn implied_by(&self, other: &Self) -> bool {
        let bits = self.words.iter().all(|a| {
            other.words.iter().any(|b| b.idx == a.idx && a.mask & !b.mask == 0 && b.value & a.mask == a.value)
        });
        bits && self.memberships.iter().all(|membership| other.memberships.contains(membership))
    }

    fn to_match(&self) -> Match {
        let (mut key, mut mask) = (FlowKey::zero(), FlowMask::empty());
        for word in &self.words {
            key.words_mut()[word.idx] = word.value;
            mask.words_mut()[word.idx] = word.mask;
        }
        let bits = Match::from_key(&key, &mask);
        self.memberships.iter().fold(bits, |matching, Membership { field, values }| match values {
            Values::Range(range) => matching.with_range(*field, *range),
            Values::Set(set) => matching.with_set(*field, set.clone()),
        })
    }
}

/// All of both; ranges of one field become one. `None` if they have nothing in common.
fn joined(a: &[Membership], b: &[Membership]) -> Option<Vec<Membership>> {
    let mut all = a.to_vec();
    for membership in b {
        let Values::Range(range) = membership.values else {
            all.push(membership.clone());
            continue;
        };
        let same = all.iter_mut().find_map(|known| match &mut known.values {
            Values::Range(other) if known.field == membership.field => Some(other),
            _ => None,
        });
        match same {
            Some(other) => {
                *other = ValueRange::new(other.first().max(range.first()), other.last().min(range.last()))?
            }
            None => all.push(membership.clone()),
        }
    }
    all.sort_unstable();
    all.dedup();
    Some(all)
}

type List = Vec<Conjunction>;

struct Normaliser<'a> {
    ports: Resolver<'a>,
    sets: SetNamer<'a>,
}

impl Normaliser<'_> {
    fn list(&self, expr: &Expr, negated: bool) -> Result<List, ExprError> {
        match expr {
            Expr::Bool(value) if *value != negated => Ok(vec![Conjunction::default()]),
            Expr::Bool(_) => Ok(Vec::new()),
            Expr::Resident(_) if negated => Ok(vec![Conjunction::default()]),
            Expr::Resident(_) => Ok(Vec::new()),
            Expr::Not(inner) => self.list(inner, !negated),
            Expr::And(parts) => self.joined(parts, negated, !negated),
            Expr::Or(parts) => self.joined(parts, negated, negated),
            Expr::Test(operand) => self.test(operand, negated),
            Expr::Compare { field, op, values } => self.compare(field, *op, values, negated),
        }
    }

    /// All parts at once, by clauses if they are long. Short ones are multiplied out first:
    /// among them is what the fields of the actions need.
    fn clauses(&self, parts: &[&Expr]) -> Result<Vec<Matches>, ExprError> {
        let mut lists = self.lists(parts, false, true)?;
        lists.sort_by_key(Vec::len);
        let n_short = lists.partition_point(|list| list.len() <= MAX_SHORT);
        let long = lists.split_off(n_short);
        let common =
            lists.iter().try_fold(vec![Conjunction::default()], |product, list| and(&product, list))?;
        let n_matches = long.iter().fold(1, |n: usize, list| n.saturating_mul(list.len()));
        let n_rules = long.iter().map(Vec::len).sum();
        let is_clausal = (2..=64).contains(&long.len()) && n_matches > MAX_PRODUCT.max(n_rules);
        if !is_clausal {
            let product = long.iter().try_fold(common, |product, list| and(&product, list))?;
            return Ok(vec![Matches::Any(product.iter().map(Conjunction::to_match).collect())]);
        }
        let within = |common: &Conjunction| {
            let clause = |list: &List| {
                let list = list.iter().filter_map(|one| one.and(common));
                list.map(|one| one.to_match()).collect::<Vec<_>>()
            };
            Matches::All { clauses: long.iter().map(clause).collect(), common: common.to_match() }
        };
        Ok(common.iter().map(within).filter(|matches| !matches.is_empty()).collect())
    }

    /// All parts at once, or at least one of them.
    fn joined(&self, parts: &[Expr], negated: bool, all: bool) -> Result<List, ExprError> {
        let mut lists = self.lists(&parts.iter().collect::<Vec<_>>(), negated, all)?;
        if !all {
            return bounded(lists.into_iter().flatten().collect());
        }
        lists.sort_by_key(Vec::len);
        let mut product = vec![Conjunction::default()];
        for list in &lists {
            product = and(&product, list)?;
        }
        Ok(product)
    }

    /// A list for each part. Comparisons of the same field are joined as intervals first.
    fn lists(&self, parts: &[&Expr], negated: bool, all: bool) -> Result<Vec<List>, ExprError> {
        let mut intervals: Vec<(Operand, IntervalSet)> = Vec::new();
        let mut lists = Vec::new();
        for part in parts {
            let Some((field, set)) = interval_of(part, negated) else {
                lists.push(self.list(part, negated)?);
                continue;
            };
            match intervals.iter_mut().find(|(known, _)| *known == field) {
                Some((_, known)) if all => *known = known.intersection(&set),
                Some((_, known)) => *known = known.union(&set),
                None => intervals.push((field, set)),
            }
        }
        for (field, set) in intervals {
            lists.push(self.with_needs(&field, masks_of(&field, &set)?)?);
        }
        Ok(lists)
    }

    fn test(&self, operand: &Operand, negated: bool) -> Result<List, ExprError> {
        if let Some(meaning) = operand.symbol.meaning() {
            return if negated { self.list(meaning, true) } else { known(meaning) };
        }
        let Some(place) = operand.place() else { return Err(no_field(operand)) };
        self.with_needs(operand, vec![Conjunction::of(place, u128::from(!negated), 1)])
    }

    fn compare(
        &self,
        field: &Operand,
        op: Relation,
        values: &[Constant],
        negated: bool,
    ) -> Result<List, ExprError> {
        if let Some(set) = intervals(field, op, values, negated) {
            return self.with_needs(field, masks_of(field, &set)?);
        }
        let Some(place) = field.place() else { return Err(no_field(field)) };
        let op = if negated { op.negated() } else { op };
        let mut list = if op == Relation::Ne { vec![Conjunction::default()] } else { Vec::new() };
        for value in values {
            match (value, op) {
                (Constant::Number { value, mask, .. }, Relation::Ne) => {
                    list = and(&list, &differing(place, *value, mask.unwrap_or(u128::MAX)))?;
                }
                (Constant::Number { value, mask, .. }, _) => {
                    list.push(Conjunction::of(place, *value, mask.unwrap_or(u128::MAX)));
                }
                (Constant::Port(name), _) => {
                    let key = (self.ports)(name);
                    list.extend(key.map(|key| Conjunction::of(place, key.into(), u128::MAX)));
                }
                (Constant::AddressSet(name), _) => {
                    let set = self.set(field, SetName::Addresses(name), op == Relation::Ne)?;
                    if op == Relation::Ne {
                        list = and(&list, &vec![set])?;
                    } else {
                        list.push(set);
                    }
                }
                (Constant::Variable(name), _) => return Err(SetName::Variable(name).missing()),
                (Constant::PortGroup(name), _) => list.push(self.set(field, SetName::Ports(name), false)?),
            }
        }
        self.with_needs(field, list)
    }

    /// The field's value is in a set, or is not.
    fn set(&self, field: &Operand, name: SetName<'_>, negated: bool) -> Result<Conjunction, ExprError> {
        let found =
            field.set_kind().and_then(|(field, kind)| Some((field, (self.sets)(name, kind, negated)?)));
        let (field, set) = found.ok_or_else(|| name.missing())?;
        Ok(Conjunction::within(field, Values::Set(set)))
    }

    /// The list within the packets that have the field.
    fn with_needs(&self, field: &Operand, list: List) -> Result<List, ExprError> {
        match field.symbol.prerequisite() {
            Some(needs) => and(&known(needs)?, &list),
            None => bounded(list),
        }
    }
}

/// The list of an expression of the symbol table, which is made once: nearly each
/// comparison needs one.
fn known(expr: &'static Expr) -> Result<List, ExprError> {
    thread_local! {
        static LISTS: RefCell<HashMap<*const Expr, List>> = RefCell::default();
    }
    let found = LISTS.with_borrow(|lists| lists.get(&ptr::from_ref(expr)).cloned());
    if let Some(list) = found {
        return Ok(list);
    }
    let list = Normaliser { ports: &|_| None, sets: &|_, _, _| None }.list(expr, false)?;
    LISTS.with_borrow_mut(|lists| lists.insert(ptr::from_ref(expr), list.clone()));
    Ok(list)
}

fn no_field(operand: &Operand) -> ExprError {
    ExprError::new(0, format!("`{operand}` is not a field"))
}

/// Every combination of the two that does not contradict itself.
fn and(a: &List, b: &List) -> Result<List, ExprError> {
    if a.len().saturating_mul(b.len()) > MAX_COMBINATIONS {
        return Err(too_many());
    }
    bounded(a.iter().flat_map(|a| b.iter().filter_map(|b| a.and(b))).collect())
}

/// The list without what is superfluous, if it is short enough.
fn bounded(mut list: List) -> Result<List, ExprError> {
    list.sort_unstable();
    list.dedup();
    if list.len() <= MAX_ABSORB {
        let all = list.clone();
        list.retain(|one| !all.iter().any(|other| other != one && other.implied_by(one)));
    }
    if list.len() > MAX_WITH_SETS { Err(too_many()) } else { Ok(list) }
}

pub(super) fn too_many() -> ExprError {
    ExprError::new(
        0,
        format!("the expression needs more than {MAX_MATCHES} matches; split it, or use prefixes and ranges"),
    )
}

/// One conjunction per masked bit that may differ.
fn differing(place: SubField, value: u128, mask: u128) -> List {
    let mask = mask & low_bits(place.n_bits);
    (0..place.n_bits)
        .map(|bit| 1 << bit)
        .filter(|bit| mask & bit != 0)
        .map(|bit| Conjunction::of(place, !value, bit))
        .collect()
}

/// The set as conjunctions.
fn masks_of(field: &Operand, set: &IntervalSet) -> Result<List, ExprError> {
    let Some(place) = field.place() else { return Err(no_field(field)) };
    let whole = field.set_kind().map(|(field, _)| field);
    if let Some(field) = whole.filter(|_| !field.is_maskable()) {
        return Ok(set.parts().flat_map(|(lo, hi)| pieces(field, place, (lo, hi))).collect());
    }
    if field.is_maskable() {
        let parts = set.parts().flat_map(|(lo, hi)| match whole.zip(ValueRange::new(lo, hi)) {
            Some((field, range)) if range.n_wild().is_none() => {
                vec![Conjunction::within(field, Values::Range(range))]
            }
            _ => {
                let masks = set.masks_of((lo, hi)).into_iter();
                masks.map(|(value, mask)| Conjunction::of(place, value, mask)).collect()
            }
        });
        return Ok(parts.collect());
    }
    let Some(values) = set.values(MAX_MATCHES) else {
        return Err(ExprError::new(
            0,
            format!(
                "`{field}` can only be matched as a whole, which needs more than {MAX_MATCHES} matches here; \
                 test what is wanted instead of what is not"
            ),
        ));
    };
    Ok(values.into_iter().map(|value| Conjunction::of(place, value, u128::MAX)).collect())
}

/// Numbers of a field that only matches as a whole: a few of them one by one, more as a
/// range.
fn pieces(field: Field, place: SubField, (lo, hi): (u128, u128)) -> List {
    match ValueRange::new(lo, hi) {
        Some(range) if hi - lo >= MAX_FEW => vec![Conjunction::within(field, Values::Range(range))],
        _ => (lo..=hi).map(|value| Conjunction::of(place, value, u128::MAX)).collect(),
    }
}

/// A comparison of a number as the numbers it holds for.
fn interval_of(expr: &Expr, negated: bool) -> Option<(Operand, IntervalSet)> {
    match expr {
        Expr::Compare { field, op, values } => Some((*field, intervals(field, *op, values, negated)?)),
        Expr::Not(inner) => interval_of(inner, !negated),
        Expr::Bool(_) | Expr::And(_) | Expr::Or(_) | Expr::Test(_) | Expr::Resident(_) => None,
    }
}

/// The numbers a comparison holds for; `None` if its masks make no intervals, or it is not
/// about numbers.
fn intervals(field: &Operand, op: Relation, values: &[Constant], negated: bool) -> Option<IntervalSet> {
    if !matches!(field.symbol.kind, Kind::Number { .. }) {
        return None;
    }
    let n_bits = field.max_bits();
    let max = low_bits(n_bits);
    let mut parts = Vec::with_capacity(values.len());
    for value in values {
        let Constant::Number { value, mask, .. } = value else { return None };
        let (value, mask) = (*value, mask.unwrap_or(max) & max);
        match op {
            Relation::Eq | Relation::Ne => parts.push(IntervalSet::masked(n_bits, value, mask)?),
            Relation::Lt | Relation::Ge => parts.extend(value.checked_sub(1).map(|hi| (0, hi))),
            Relation::Le | Relation::Gt => parts.push((0, value)),
        }
    }
    let set = IntervalSet::new(n_bits, parts);
    let inverted = matches!(op, Relation::Ne | Relation::Ge | Relation::Gt);
    Some(if inverted != negated { set.complement() } else { set })
}
