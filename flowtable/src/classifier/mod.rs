//! Finds the rule of highest priority that matches a packet, and records no more of
//! the packet than the answer needs.
//!
//! [`TupleSpace`] is what the tables use; [`Reference`] is its dull twin, the oracle of
//! the tests. What is recorded decides how wide the cached megaflow is: a bit too many
//! costs a cache entry, a bit too few lets packets through that no rule allows. All
//! access to the packet therefore goes through [`Tracked`].
//!
//! Rules of equal priority that match the same packet have different matches. The one with
//! the smaller mask wins, masks being compared word by word in the order of the flow key;
//! with the same mask, the one whose ranges and sets come first. OpenFlow leaves this
//! undefined; here it does not depend on the history of the table.
//!
//! Rules of conjunctions are kept apart (`conjunction.rs`): they match nothing by
//! themselves.
//!
//! # Ranges and sets
//! A match is masked bits and any number of *memberships*: "this field's value is in that
//! range, or in the set of that name". Masks are what hashing needs; ranges and sets do
//! not hash. Three ways around that are known, and none is taken here:
//! - *Prefixes.* A range of ports is up to 30 of them, of addresses up to 254, and a rule
//!   with three ranges the product. Counters and timeouts would then be of pieces, and a
//!   set of ten thousand addresses would be ten thousand rules for each rule that names it.
//! - *Conjunctions* keep that to a sum, but put it in the table as rules of their own, and
//!   each change of a member touches as many rules as name the set.
//! - *Labels for all values* (one search per field gives an elementary interval, tables of
//!   combinations give the rule) search fast, but one new range can cut every interval, and
//!   the interval that a packet is in depends on rules that have nothing to do with it: its
//!   megaflow would shrink with each range of the table.
//!
//! What is done: a subtable is for one mask *and one list of fields with memberships*.
//! Hashing the masked bits leads to a bucket, the rules that could match so far. Within it
//! the ranges and sets themselves are the labels (`bucket.rs`): a bucket branches by the
//! first field's, each arm by the next field's, and at the end are rules that say the same.
//! A rule is in one place, however many ranges it has; rules that share a range or a set
//! share its arm, so each is looked at once per lookup. Arms know their highest priority
//! and are tried by it, as subtables are: what cannot win is not examined.
//!
//! A few rules are not worth a branch: they are compared one by one, which examines less too.
//!
//! *Which arms?* A few ranges are compared one by one. Many are in a trie of the prefixes
//! that they are made of: a walk along the value's bits meets all ranges around it. A set
//! is a trie of its members' prefixes; it belongs to the tables as a whole
//! ([`Sets`]), once, and the arm has only its name. A change of members
//! is therefore a change of one trie, by as much as has changed. No rule and no classifier
//! is touched, all versions share them, and the statistics stay. The sets of a branch are
//! searched one by one while they are few, each once per lookup for a field. For many the
//! tables have one trie more, of the members of all sets of a kind (`set/owners.rs`): it
//! tells which sets the value is in, and the branch takes the arms of those.
//!
//! *What is recorded?* Each answer, yes or no, rests on some leading bits of the value:
//! the bits of the largest aligned block around it in which all values have the same
//! answer. For one range that is arithmetic (`ValueRange::search`), for a trie it is where
//! the walk ends; members that fill a prefix together are as good as one. (With many sets these are the bits that tell apart all sets of the kind;
//! that is more than needed, and never less.) With `tp_dst=1000-2000`, port 1600 needs 8 bits (1536 to 1791) and port
//! 40000 one. Twins that agree in those bits take the same walk and need the same bits, so
//! that a block has one megaflow. Ranges and sets come after all masked bits, so that a
//! packet pays only for those of rules which otherwise match.
//!
//! # Cost
//! With `k` fields a lookup in a bucket walks one trie per field and arm that holds, at most
//! as many as the field has bits; a rule costs one arm per field and, where there are many
//! ranges, their prefixes in the trie: a sum. Members cost their prefixes, once.
//!
//! Not here: tables and transactions ([`crate::table`]), the cache of megaflows.

mod branch;
mod bucket;
mod conjunction;
mod paged_map;
mod prefix_trie;
mod reference;
mod subtable;
mod tuple_space;

use std::{cmp::Ordering, sync::Arc};

pub use reference::Reference;
pub(crate) use tuple_space::RulePlace;
pub use tuple_space::TupleSpace;

use crate::{
    flow::{Match, Rule},
    key::Tracked,
    set::Sets,
    types::Priority,
};

/// Rules of one table, searchable.
pub trait Classifier {
    /// Adds a rule; gives back the rule of same priority and match that it replaces.
    fn insert(&mut self, rule: Arc<Rule>) -> Option<Arc<Rule>>;

    /// Takes the rule of this priority and match out.
    fn remove(&mut self, priority: Priority, matching: &Match) -> Option<Arc<Rule>>;

    /// The rule of this priority and match.
    fn get(&self, priority: Priority, matching: &Match) -> Option<&Arc<Rule>>;

    /// The rule of highest priority that matches, where sets hold what is in `sets`;
    /// records what was examined.
    fn lookup<'a>(&'a self, sets: &'a Sets, key: &mut Tracked) -> Option<&'a Arc<Rule>>;

    /// All rules, in no particular order.
    fn rules(&self) -> impl Iterator<Item = &Arc<Rule>>;
}

/// Order of matches: decides between rules of equal priority.
fn match_order(a: &Match, b: &Match) -> Ordering {
    let masks = |m: &Match| m.words().iter().map(|word| (word.idx, word.mask)).collect::<Vec<_>>();
    let fields = |m: &Match| m.memberships().iter().map(|membership| membership.field).collect::<Vec<_>>();
    masks(a).cmp(&masks(b)).then_with(|| fields(a).cmp(&fields(b))).then_with(|| value_order(a, b))
}

/// The part of that order which is left where masks and fields are the same.
fn value_order(a: &Match, b: &Match) -> Ordering {
    let values =
        |m: &Match| m.memberships().iter().map(|membership| membership.values.clone()).collect::<Vec<_>>();
    values(a).cmp(&values(b))
}

#[cfg(test)]
mod tests;
