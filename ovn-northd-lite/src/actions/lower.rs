//! From statements to actions of the switch.

use flowtable::{
    field::{Field, SubField},
    flow::Action,
    types::TableId,
};

use super::Statement;
use crate::{
    expr::{Constant, Operand, Resolver},
    southbound::Pipeline,
};

/// Where an exchange keeps one side meanwhile, by width: registers 24 to 31 are the
/// lowering's own, no logical flow names them.
const SCRATCH: [Field; 3] = [Field::Reg24, Field::Xreg12, Field::Xxreg6];

/// What statements mean depends on the flow they are of.
pub(crate) struct Lowering<'a> {
    /// Keys of the datapath's ports and groups.
    pub(crate) ports: Resolver<'a>,
    /// Table the flow is in.
    pub(crate) table: TableId,
    /// Table of a stage: pipeline or the flow's own, stage or the following one.
    pub(crate) stage: &'a dyn Fn(Option<Pipeline>, Option<u8>) -> Option<TableId>,
    /// Table that `output;` leads to.
    pub(crate) output: TableId,
}

/// The actions; none of them: drop.
///
/// # Errors
/// Says what does not exist on this chassis: a port, a stage.
pub(crate) fn lower(statements: &[Statement], flow: &Lowering<'_>) -> Result<Vec<Action>, String> {
    let mut actions = Vec::with_capacity(statements.len());
    for (idx, statement) in statements.iter().enumerate() {
        let is_last = idx + 1 == statements.len();
        match statement {
            Statement::Drop => {}
            Statement::Output => actions.push(go_to(flow.output, flow.table, is_last)),
            Statement::Next { pipeline, stage } => {
                let table = (flow.stage)(*pipeline, *stage)
                    .ok_or_else(|| format!("there is no stage for `{statement}`"))?;
                actions.push(go_to(table, flow.table, is_last));
            }
            Statement::Set { dst, value } => actions.push(set(dst, value, flow.ports)?),
            Statement::Copy { dst, src } => actions.push(Action::Move { src: place(src)?, dst: place(dst)? }),
            Statement::Exchange(a, b) => {
                let (a, b) = (place(a)?, place(b)?);
                let scratch = scratch(a.n_bits).ok_or_else(|| format!("`{statement}` is too wide"))?;
                actions.push(Action::Move { src: a, dst: scratch });
                actions.push(Action::Move { src: b, dst: a });
                actions.push(Action::Move { src: scratch, dst: b });
            }
            Statement::DecTtl => actions.push(Action::DecTtl),
        }
    }
    Ok(actions)
}

/// A jump: the last one of a list to a later table need not come back.
fn go_to(table: TableId, from: TableId, is_last: bool) -> Action {
    if is_last && table > from {
        Action::GotoTable(table)
    } else {
        Action::Resubmit { port: None, table: Some(table) }
    }
}

fn set(dst: &Operand, value: &Constant, ports: Resolver<'_>) -> Result<Action, String> {
    let place = place(dst)?;
    let value = match value {
        Constant::Number { value, .. } => *value,
        Constant::Port(name) => ports(name).ok_or_else(|| format!("there is no port `{name}`"))?.into(),
        Constant::AddressSet(_) | Constant::PortGroup(_) => return Err(format!("{value} is not one value")),
    };
    Ok(Action::SetField { field: place.field, value: value << place.start, mask: place.bits() })
}

fn place(operand: &Operand) -> Result<SubField, String> {
    operand.place().ok_or_else(|| format!("`{operand}` is not a field"))
}

fn scratch(n_bits: u32) -> Option<SubField> {
    SCRATCH.iter().find_map(|field| SubField::new(*field, 0, n_bits))
}
