//! From statements to actions of the switch.

use flowtable::{
    field::{Field, SubField},
    flow::{Action, CtZone},
    group::Group,
    meter::MeterConfig,
    types::{MeterId, TableId},
};

use super::{Statement, answer::Continuation};
use crate::{
    expr::{Constant, Operand, Resolver},
    lower::zones,
    punt::Service,
    southbound::Pipeline,
};

/// Where an exchange keeps one side meanwhile, by width: registers 16 to 31 are the
/// lowering's own, no logical flow names them.
const SCRATCH: [Field; 3] = [Field::Reg24, Field::Xreg12, Field::Xxreg6];
/// Deepest nesting of actions in braces.
pub(super) const MAX_NESTING: usize = 4;

/// What statements mean depends on the flow they are of.
#[derive(Clone, Copy)]
pub(crate) struct Flow<'a> {
    /// Keys of the datapath's ports and groups.
    pub(crate) ports: Resolver<'a>,
    /// Table the flow is in.
    pub(crate) table: TableId,
    /// Table of a stage: pipeline or the flow's own, stage or the following one.
    pub(crate) stage: &'a dyn Fn(Option<Pipeline>, Option<u8>) -> Option<TableId>,
    /// Table that `output;` leads to.
    pub(crate) output: TableId,
    /// The flow is a router's.
    pub(crate) is_router: bool,
    /// Number that no other flow here has: of its group, and of its continuation.
    pub(crate) number: u32,
    /// Meter of packets that the flow sends to the host's responder.
    pub(crate) meter: &'a dyn Fn(Service) -> MeterId,
}

/// What statements become.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lowered {
    /// The actions; none of them: drop.
    pub(crate) actions: Vec<Action>,
    /// Groups that the actions name.
    pub(crate) groups: Vec<Group>,
    /// The meter that the flow has for itself.
    pub(crate) meter: Option<MeterConfig>,
    /// Rules for packets that the responder makes.
    pub(crate) continuations: Vec<Continuation>,
}

impl Lowered {
    /// Takes in what a part of the list became, but for its actions.
    ///
    /// # Errors
    /// Both want a meter.
    pub(super) fn absorb(&mut self, part: Self) -> Result<Vec<Action>, String> {
        self.groups.extend(part.groups);
        self.continuations.extend(part.continuations);
        part.meter.map_or(Ok(()), |meter| self.meter(meter).map(drop))?;
        Ok(part.actions)
    }

    /// The flow has this meter for itself.
    ///
    /// # Errors
    /// It has one.
    pub(super) fn meter(&mut self, meter: MeterConfig) -> Result<MeterId, String> {
        let id = meter.id;
        match self.meter.replace(meter) {
            None => Ok(id),
            Some(_) => Err("one flow can have one meter".to_owned()),
        }
    }
}

impl Flow<'_> {
    /// Table of the next stage.
    pub(super) fn next(&self) -> Result<TableId, String> {
        (self.stage)(None, None).ok_or_else(|| "there is no next stage".to_owned())
    }

    /// Zone of connections whose sources are not translated: a router's own, or that of the
    /// port.
    pub(super) fn balance_zone(&self) -> CtZone {
        zones::from_register(if self.is_router { zones::DNAT } else { zones::PORT })
    }
}

/// The actions of a flow.
///
/// # Errors
/// Says what does not exist on this chassis: a port, a stage.
pub(crate) fn lower(statements: &[Statement], flow: &Flow<'_>) -> Result<Lowered, String> {
    let mut lowered = Lowered::default();
    list(statements, flow, &mut lowered)?;
    Ok(lowered)
}

/// Adds the actions of a list.
pub(super) fn list(statements: &[Statement], flow: &Flow<'_>, out: &mut Lowered) -> Result<(), String> {
    for (idx, statement) in statements.iter().enumerate() {
        let is_last = idx + 1 == statements.len();
        match statement {
            Statement::Drop => {}
            Statement::Output => out.actions.push(go_to(flow.output, flow.table, is_last)),
            Statement::Next { pipeline, stage } => {
                let table = (flow.stage)(*pipeline, *stage)
                    .ok_or_else(|| format!("there is no stage for `{statement}`"))?;
                out.actions.push(go_to(table, flow.table, is_last));
            }
            Statement::Set { dst, value } => out.actions.push(set(dst, value, flow.ports)?),
            Statement::Copy { dst, src } => {
                out.actions.push(Action::Move { src: place(src)?, dst: place(dst)? });
            }
            Statement::Exchange(a, b) => {
                let (a, b) = (place(a)?, place(b)?);
                let scratch = scratch(a.n_bits).ok_or_else(|| format!("`{statement}` is too wide"))?;
                out.actions.push(Action::Move { src: a, dst: scratch });
                out.actions.push(Action::Move { src: b, dst: a });
                out.actions.push(Action::Move { src: scratch, dst: b });
            }
            Statement::DecTtl => out.actions.push(Action::DecTtl),
            Statement::Clone(inner) => {
                let mut copy = Lowered::default();
                list(inner, &Flow { table: LAST, ..*flow }, &mut copy)?;
                let copy = out.absorb(copy)?;
                out.actions.push(Action::Clone(copy));
            }
            Statement::CtClear => out.actions.push(Action::CtClear),
            Statement::Translate(translate) => translate.lower(flow, out)?,
            Statement::Connection(connection) => connection.lower(flow, out)?,
            Statement::Log(log) => log.lower(flow, out)?,
            Statement::Sample(sample) => sample.lower(out),
            Statement::Meter(meter) => meter.lower(flow, out)?,
            Statement::Check(check) => check.lower(flow, out),
            Statement::Bind(bind) => bind.lower(flow, out)?,
            Statement::CheckLength(check) => check.lower(out)?,
            Statement::CheckAffinity(check) => check.lower(out),
            Statement::CommitAffinity(commit) => commit.lower(flow, out),
            Statement::Station(station) => station.lower(flow, out),
            Statement::Balance(balance) => balance.lower(flow, out)?,
            Statement::Select(select) => select.lower(flow, out)?,
            Statement::Neighbour(neighbour) => neighbour.lower(flow, out)?,
            Statement::Answer(answer) => answer.lower(flow, out)?,
            Statement::Serve(serve) => {
                return serve.lower(statements.get(idx + 1..).unwrap_or_default(), flow, out);
            }
        }
    }
    Ok(())
}

/// No table comes after it: nothing in a clone is a jump that does not come back.
const LAST: TableId = match TableId::new(254) {
    Ok(table) => table,
    Err(_) => panic!("not a table"),
};

/// A jump: the last one of a list to a later table need not come back.
fn go_to(table: TableId, from: TableId, is_last: bool) -> Action {
    if is_last && table > from { Action::GotoTable(table) } else { resubmit(table) }
}

/// Looks up in a table and comes back.
pub(super) fn resubmit(table: TableId) -> Action {
    Action::Resubmit { port: None, table: Some(table) }
}

fn set(dst: &Operand, value: &Constant, ports: Resolver<'_>) -> Result<Action, String> {
    let place = place(dst)?;
    let value = match value {
        Constant::Number { value, .. } => *value,
        // No port at all.
        Constant::Port(name) if name.is_empty() => 0,
        Constant::Port(name) => ports(name).ok_or_else(|| format!("there is no port `{name}`"))?.into(),
        Constant::AddressSet(_) | Constant::PortGroup(_) | Constant::Variable(_) => {
            return Err(format!("{value} is not one value"));
        }
    };
    Ok(Action::SetField { field: place.field, value: value << place.start, mask: place.bits() })
}

/// The bits that an operand names.
pub(super) fn place(operand: &Operand) -> Result<SubField, String> {
    operand.place().ok_or_else(|| format!("`{operand}` is not a field"))
}

fn scratch(n_bits: u32) -> Option<SubField> {
    SCRATCH.iter().find_map(|field| SubField::new(*field, 0, n_bits))
}
