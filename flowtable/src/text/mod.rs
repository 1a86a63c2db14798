//! Flow text: matches, actions, rules, groups and meters in the syntax of ovs-ofctl(8), read and
//! printed, and cache entries in that of datapath dumps, printed. What Open vSwitch does not have
//! looks alike: ranges in matches (`tp_dst=1000-2000`), named sets (`nw_src=$web-hosts`).
//!
//! What is printed reads back as the same. What is not understood is refused, with its
//! place, the reason and, for a misspelt word, the nearest right one; nothing is ever
//! skipped silently, since a match that loses an item lets more packets through.
//! Start with `cursor.rs` (the lexer); `matching.rs` and `action.rs` are the two
//! grammars, `value.rs` and `names.rs` their words. Lines that dumps print can be read
//! as they are: their statistics are accepted and ignored.

mod action;
mod change;
mod connection;
mod controller;
mod ct;
mod cursor;
mod datapath;
mod group;
mod key;
mod learn;
mod matching;
mod membership;
mod meter;
mod names;
mod option;
mod packet_in;
mod print;
mod set;
mod special;
mod spread;
mod suggest;
mod table;
mod value;

use std::{fmt, sync::Arc};

pub use change::{ChangeKind, parse_change};
pub use connection::{parse_connection_filter, print_connection, protocol_name};
pub use datapath::{print_megaflow_match, print_program};
pub use group::{
    parse_deleted_groups, parse_group, parse_inserted_buckets, parse_removed_buckets, print_group,
};
pub use meter::{parse_deleted_meters, parse_meter, print_meter};
pub use option::{parse_mapped_option, parse_unmapped_option};
pub use packet_in::print_packet_in;
pub use set::{SetChangeKind, parse_set, parse_set_change, print_member, print_set};
pub(crate) use suggest::nearest;
pub use table::{parse_table_settings, print_table_settings};

use self::{
    cursor::{Cursor, Form, Piece},
    matching::MatchReader,
};
use crate::{
    field::Field,
    flow::{Action, Match, Origin, Rule, RuleFlags, RuleLife, RuleStats},
    key::FlowKey,
    port::PortTable,
    table::{Filter, FragmentMode},
    types::{GroupId, PortNo, Priority, TableId},
};

/// Words of dumps that say how a rule has fared, not what it is.
const STATISTICS: &[&str] = &[
    "duration",
    "n_packets",
    "n_bytes",
    "n_offload_packets",
    "n_offload_bytes",
    "idle_age",
    "hard_age",
    "used",
];

/// Text was not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextError {
    /// Where: offset in bytes from the start.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
    /// The nearest right spelling.
    pub suggestion: Option<String>,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "character {}: {}", self.at + 1, self.reason)?;
        match &self.suggestion {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TextError {}

/// Reads a rule: `table=0,priority=100,ip,nw_dst=10.0.0.0/8,actions=output:2`.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_flow(text: &str, ports: &PortTable) -> Result<Rule, TextError> {
    let mut flow = FlowReader::new(ports);
    let actions = flow.read(text)?;
    let Some(actions) = actions else {
        return Err(Piece { text: "", at: text.len() }.error("the rule has no actions; `actions=drop` drops"));
    };
    if flow.out_port.is_some() || flow.out_group.is_some() {
        return Err(Piece::whole("").error("`out_port` and `out_group` choose rules; a rule has neither"));
    }
    if flow.cookie.1 != u64::MAX {
        return Err(Piece::whole("").error("the cookie of a rule has no mask"));
    }
    let matching = flow.matching.finish()?;
    let actions = action::parse(actions, ports, Some(&matching))?;
    Ok(Rule {
        table: flow.table.unwrap_or(TableId::FIRST),
        priority: flow.priority.unwrap_or(Priority::DEFAULT),
        matching,
        actions,
        cookie: flow.cookie.0,
        origin: Arc::new(Origin::default()),
        life: flow.life,
        stats: Arc::new(RuleStats::default()),
    })
}

/// Reads what chooses rules: `table=3,cookie=0x10/0xf0,ip`. Nothing chooses all.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_filter(text: &str, ports: &PortTable) -> Result<Filter, TextError> {
    let mut flow = FlowReader::new(ports);
    flow.cookie = (0, 0);
    if let Some(actions) = flow.read(text)? {
        return Err(actions.error("a choice of rules has no actions"));
    }
    if flow.priority.is_some() {
        return Err(Piece::whole("").error("rules cannot be chosen by priority"));
    }
    if flow.life != RuleLife::default() {
        return Err(Piece::whole("").error("rules cannot be chosen by timeouts, importance or flags"));
    }
    let (cookie, cookie_mask) = flow.cookie;
    let (table, out_port, out_group) = (flow.table, flow.out_port, flow.out_group);
    Ok(Filter { table, matching: flow.matching.finish()?, cookie, cookie_mask, out_port, out_group })
}

/// Reads a match: `tcp,tp_dst=80`.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_match(text: &str, ports: &PortTable) -> Result<Match, TextError> {
    matching::parse(Piece::whole(text), ports)
}

/// Reads actions: `dec_ttl,output:2`; `drop` or nothing is the empty list.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_actions(text: &str, ports: &PortTable) -> Result<Vec<Action>, TextError> {
    action::parse(Piece::whole(text), ports, None)
}

/// Reads the description of a packet, `in_port=1,tcp,nw_src=10.0.0.1,tp_dst=80`, and
/// completes it: EtherType and protocol follow from shorthands, the TTL is 64.
///
/// # Errors
/// Says where the text is wrong, and why; a mask is.
pub fn parse_key(text: &str, ports: &PortTable) -> Result<FlowKey, TextError> {
    key::parse(text, ports)
}

/// Prints what of a packet's key is not zero, in the syntax that [`parse_key`] reads.
pub fn print_headers(key: &FlowKey) -> String {
    key::print_headers(key)
}

/// Reads how rules see fragments: `normal`, `drop` or `nx-match`.
///
/// # Errors
/// Offers the nearest mode.
pub fn parse_fragment_mode(text: &str) -> Result<FragmentMode, TextError> {
    let found = FragmentMode::ALL.iter().copied().find(|mode| mode.name() == text.trim());
    found.ok_or_else(|| {
        let names = FragmentMode::ALL.iter().map(|mode| mode.name());
        Piece::whole(text).trim().misspelt("expected normal, drop or nx-match", names)
    })
}

/// Prints a field's value under a mask, as matches have it.
pub(crate) fn print_field_value(field: Field, value: u128, mask: u128) -> String {
    value::print(field, value, mask)
}

/// Reads the state bits of a connection by their names: `trk,new` or `est|rpl`.
///
/// # Errors
/// Says where the text is wrong, and why.
pub fn parse_ct_state(text: &str) -> Result<u16, TextError> {
    value::ct_state(Piece::whole(text))
}

/// Prints state bits of a connection by their names: `new|trk`.
pub fn print_ct_state(bits: u16) -> String {
    value::print_ct_state(bits)
}

/// Prints actions so that [`parse_actions`] reads the same.
pub fn print_actions(actions: &[Action]) -> String {
    print::actions(actions)
}

/// Prints a rule so that [`parse_flow`] reads the same, without statistics and origin.
pub fn print_flow(rule: &Rule) -> String {
    print_with(rule, "")
}

/// Prints a rule like [`print_flow`], with its statistics.
pub fn print_flow_with_stats(rule: &Rule) -> String {
    let (n_packets, n_bytes) = rule.stats.get();
    print_with(rule, &format!(" n_packets={n_packets}, n_bytes={n_bytes},"))
}

fn print_with(rule: &Rule, stats: &str) -> String {
    let Rule { table, priority, cookie, life, .. } = rule;
    // With statistics it is what a rule is now, without what it was made as.
    let life = if stats.is_empty() { *life } else { rule.current_life() };
    let life = print_life(&life);
    let matching = matching::print(&rule.matching);
    let comma = if matching.is_empty() { "" } else { "," };
    let actions = print::actions(&rule.actions);
    format!(
        "cookie={cookie:#x}, table={table},{stats}{life} priority={priority}{comma}{matching} actions={actions}"
    )
}

/// Prints a rule's timeouts, importance and flags, as [`print_flow`] does.
pub fn print_options(life: &RuleLife) -> String {
    print_life(life).trim_start().trim_end_matches(',').to_owned()
}

fn print_life(life: &RuleLife) -> String {
    let RuleLife { idle_timeout, hard_timeout, importance, flags, .. } = *life;
    let limits = [("idle_timeout", idle_timeout), ("hard_timeout", hard_timeout), ("importance", importance)];
    let limits =
        limits.iter().filter(|(_, value)| *value != 0).map(|(name, value)| format!(" {name}={value},"));
    limits.chain(flags.names().map(|name| format!(" {name}"))).collect()
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&matching::print(self))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print::one(self))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print_flow(self))
    }
}

/// What a flow description says before its actions.
struct FlowReader<'a> {
    matching: MatchReader<'a>,
    table: Option<TableId>,
    priority: Option<Priority>,
    /// Value and mask.
    cookie: (u64, u64),
    cookie_has_mask: bool,
    life: RuleLife,
    out_port: Option<PortNo>,
    out_group: Option<GroupId>,
}

impl<'a> FlowReader<'a> {
    fn new(ports: &'a PortTable) -> Self {
        let matching = MatchReader::new(ports);
        Self {
            matching,
            table: None,
            priority: None,
            cookie: (0, u64::MAX),
            cookie_has_mask: false,
            life: RuleLife::default(),
            out_port: None,
            out_group: None,
        }
    }

    /// Reads up to the actions, and gives those back.
    fn read(&mut self, text: &'a str) -> Result<Option<Piece<'a>>, TextError> {
        let mut cursor = Cursor::new(Piece::whole(text));
        while let Some(name) = cursor.name()? {
            if matches!(name.text, "actions" | "action") {
                return cursor.rest_of_list().map(Some);
            }
            let form = cursor.form()?;
            self.item(name, form)?;
        }
        Ok(None)
    }

    fn item(&mut self, name: Piece<'a>, form: Form<'a>) -> Result<(), TextError> {
        match name.text {
            "table" => {
                let text = form.value(name)?;
                let table = TableId::new(value::integer(text)?);
                self.table = Some(table.map_err(|error| text.error(error.to_string()))?);
            }
            "priority" => {
                let text = form.value(name)?;
                let priority = Priority::new(value::integer(text)?);
                self.priority = Some(priority.map_err(|error| text.error(error.to_string()))?);
            }
            "cookie" => {
                let text = form.value(name)?;
                self.cookie = cookie(text)?;
                self.cookie_has_mask = text.text.contains('/');
            }
            word if STATISTICS.contains(&word) => {
                form.value(name)?;
            }
            "idle_timeout" => self.life.idle_timeout = value::integer(form.value(name)?)?,
            "hard_timeout" => self.life.hard_timeout = value::integer(form.value(name)?)?,
            "importance" => self.life.importance = value::integer(form.value(name)?)?,
            "out_port" => self.out_port = Some(names::port(form.value(name)?, self.matching.ports)?),
            "out_group" => self.out_group = Some(action::group_id(form.value(name)?)?),
            word => match flag(word) {
                Some(flag) => {
                    form.bare(name)?;
                    self.life.flags = self.life.flags.with(flag);
                }
                None => self.matching.item(name, form)?,
            },
        }
        Ok(())
    }
}

fn flag(name: &str) -> Option<RuleFlags> {
    RuleFlags::NAMES.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag)
}

/// A cookie with or without a mask; the mask -1 is all bits.
fn cookie(text: Piece<'_>) -> Result<(u64, u64), TextError> {
    let Some((value, mask)) = text.split_once("/") else { return Ok((value::integer(text)?, u64::MAX)) };
    let mask = if mask.text.trim() == "-1" { u64::MAX } else { value::integer(mask)? };
    Ok((value::integer(value)?, mask))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_datapath;
#[cfg(test)]
mod tests_fields;
#[cfg(test)]
mod tests_membership;
#[cfg(test)]
mod tests_round_trip;
