//! Looking the packet up again from within a rule's actions.

use super::{
    MAX_DEPTH, Tracer,
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    field::Field,
    key::Tracked,
    types::{PortNo, TableId},
};

impl<T: Tracer> Walk<'_, T> {
    pub(super) fn resubmit(&mut self, port: Option<PortNo>, table: Option<TableId>) -> Result<(), Abort> {
        self.begin_resubmit(port, table, None)
    }

    /// Looks up with the original tuple of the packet's connection, where it has one.
    pub(super) fn resubmit_ct(&mut self, port: Option<PortNo>, table: Option<TableId>) -> Result<(), Abort> {
        self.see_payload()?;
        let tuple: &[(Field, Field)] = match (self.key.read(Field::EthType), self.key.read(Field::CtNwProto))
        {
            (_, 0) => &[],
            (0x0800, _) => &[(Field::CtNwSrc, Field::NwSrc), (Field::CtNwDst, Field::NwDst)],
            (0x86dd, _) => &[(Field::CtIpv6Src, Field::Ipv6Src), (Field::CtIpv6Dst, Field::Ipv6Dst)],
            _ => &[],
        };
        if tuple.is_empty() {
            return self.resubmit(port, table);
        }
        let saved = self.key.clone();
        let ports = [(Field::CtTpSrc, Field::TcpSrc), (Field::CtTpDst, Field::TcpDst)];
        let proto = (Field::CtNwProto, Field::NwProto);
        for (from, to) in tuple.iter().copied().chain(ports).chain([proto]) {
            let value = self.key.read(from);
            self.key.write(to, value);
        }
        self.begin_resubmit(port, table, Some(&saved))
    }

    /// `restore`: the key to go on with once the rule is found.
    fn begin_resubmit(
        &mut self,
        port: Option<PortNo>,
        table: Option<TableId>,
        restore: Option<&Tracked>,
    ) -> Result<(), Abort> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let current = frame.rule.table;
        let table = table.unwrap_or(current);
        let depth = frame.depth + usize::from(table <= current);
        if depth > MAX_DEPTH {
            return Err(Abort(DropReason::DepthExceeded));
        }
        let nesting = frame.nesting + 1;
        self.enter(table, depth, nesting, port.filter(|port| *port != PortNo::IN_PORT))?;
        if let Some(saved) = restore {
            self.key.restore(saved);
        }
        Ok(())
    }
}
