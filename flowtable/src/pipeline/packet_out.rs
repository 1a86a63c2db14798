//! Walks that do not begin in the first table: a controller says what to do with a packet.

use std::sync::Arc;

use super::frozen::{Frozen, Rest, Start};
use crate::{
    field::Field,
    flow::{Action, Match, Origin, PuntReason, Rule, RuleLife},
    key::FlowKey,
    table::{RuleError, check_rule},
    types::{Priority, TableId},
};

/// Stage of a packet-out, where a rule's origin is asked for.
const STAGE: &str = "packet-out";

/// A walk that carries out these actions on a packet with this key.
///
/// # Errors
/// The actions could not be a rule's for packets like this one.
pub(crate) fn begin(key: &FlowKey, actions: Vec<Action>) -> Result<Frozen, RuleError> {
    let rule = Rule {
        table: TableId::FIRST,
        priority: Priority::DEFAULT,
        matching: headers(key),
        actions: actions.clone(),
        cookie: u64::MAX,
        origin: Arc::new(Origin { stage: STAGE.to_owned(), ..Origin::default() }),
        life: RuleLife::default(),
        stats: Arc::default(),
    };
    check_rule(&rule)?;
    let rests = vec![Rest { rule: Arc::new(rule), actions, goto: None }];
    let start = Start::Rest { rests, within_clone: false };
    Ok(Frozen::at(start, PuntReason::PacketOut))
}

/// Which headers the packet has.
fn headers(key: &FlowKey) -> Match {
    let mut headers = Match::any().with(Field::EthType, key.get(Field::EthType));
    if matches!(key.eth_type.get(), 0x0800 | 0x86dd) {
        headers = headers.with(Field::NwProto, key.get(Field::NwProto));
    }
    if key.eth_type.get() == 0x86dd && key.nw_proto == 58 {
        headers = headers.with(Field::Icmpv6Type, key.get(Field::Icmpv6Type));
        headers = headers.with(Field::Icmpv6Code, key.get(Field::Icmpv6Code));
    }
    for tag in [Field::VlanTci, Field::CvlanTci] {
        if key.get(tag) & 0x1000 != 0 {
            headers = headers.with_masked(tag, 0x1000, 0x1000);
        }
    }
    headers
}
