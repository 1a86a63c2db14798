//! Those who change the network, and those who start and move workloads.

use std::collections::BTreeSet;

use controller::access::Caller;
use ferroflow_proto::northbound as pb;
use tonic::Code;

use super::{Event, MILLI, World};
use crate::{
    model::{Acl, Net, Op},
    plant::Plant,
    workload,
};

/// Changes in one transaction, at most.
const MAX_CHANGES: u64 = 4;

impl World {
    /// What there is from the beginning.
    pub(super) fn found(&mut self) {
        let mut ops = workload::foundation(&mut self.random, self.room);
        let mut net = Net::default();
        ops.iter().for_each(|op| net.apply(op));
        for _ in 0..self.random.within(6, 12 + 2 * self.nodes.len() as u64) {
            if let Some(op) = workload::new_port(&net, &mut self.random, self.room) {
                net.apply(&op);
                ops.push(op);
            }
        }
        self.transact(0, &ops, false);
    }

    pub(super) fn user(&mut self) {
        if self.faults.healed_at.is_some() {
            return;
        }
        let pause = self.some(10 * MILLI, 220 * MILLI);
        self.after(pause, Event::User);
        let server = self.random.index(self.servers.len());
        if self.servers[server].busy_until > self.now {
            return;
        }
        let mut net = (*self.history.at(self.disk.newest())).clone();
        let mut ops = Vec::new();
        for _ in 0..self.random.within(1, MAX_CHANGES) {
            for op in workload::change(&net, &mut self.random, self.room) {
                net.apply(&op);
                ops.push(op);
            }
        }
        self.store_may_fail();
        let validate_only = self.random.percent(4);
        self.transact(server, &ops, validate_only);
    }

    /// Says something to a controller, and holds it to its answer.
    fn transact(&mut self, idx: usize, ops: &[Op], validate_only: bool) {
        let Some(running) = &self.servers[idx].running else { return };
        if ops.is_empty() {
            return;
        }
        let mut net = (*self.history.at(self.disk.newest())).clone();
        let mut operations = Vec::new();
        for op in ops {
            net.apply(op);
            if !(self.has(Plant::OneDirection) && matches!(op, Op::Acl(_, _, Acl { is_from: false, .. }))) {
                operations.extend(op.words(&net));
            }
        }
        net.end();
        let before = self.disk.newest();
        let request = pb::TransactRequest { operations, validate_only, ..Default::default() };
        let answer = running.northbound.transact_now(&Caller::local(), request);
        let newest = self.disk.newest();
        let told = answer.as_ref().map(|answer| answer.revision).map_err(tonic::Status::code);
        self.trace.add(self.now, format_args!("user at controller {idx}: {ops:?}: {told:?}"));
        if newest > before {
            self.history.record(newest, ops);
        }
        match &answer {
            Ok(answer) if newest == before => {
                let old = self.history.at(before);
                if !validate_only && *old != net && answer.revision <= before {
                    self.fail(format_args!(
                        "{ops:?} was acknowledged as revision {}, and nothing was written",
                        answer.revision
                    ));
                }
            }
            Ok(answer) if validate_only || newest != before + 1 || answer.revision != newest => {
                self.fail(format_args!(
                    "{ops:?} was acknowledged as revision {}, the store is at {newest}",
                    answer.revision
                ));
            }
            Ok(_) => self.workloads_come(ops),
            Err(status)
                if newest > before
                    && status.code() != Code::Unavailable
                    && status.code() != Code::Internal =>
            {
                self.fail(format_args!("{ops:?} was refused ({status}), and is written"));
            }
            Err(_) => {}
        }
        self.served(idx);
    }

    /// For ports that are new interfaces come, most of them, some time.
    fn workloads_come(&mut self, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Port(id, _) if self.homes_of(id).is_empty() => {
                    let living = self.living();
                    if let Some(host) = self.random.pick(&living).copied()
                        && !self.random.percent(10)
                    {
                        let delay = self.some(MILLI, 300 * MILLI);
                        self.after(delay, Event::Attach(id.clone(), host));
                    }
                }
                // Whoever is deleted may go on for a while, or for ever.
                Op::NoPort(_, id) if self.random.percent(50) => {
                    for host in self.homes_of(id) {
                        self.detach(id, host);
                    }
                }
                _ => {}
            }
        }
    }

    /// Workloads move, come and go without the network being told.
    pub(super) fn move_interfaces(&mut self) {
        if self.faults.healed_at.is_some() {
            return;
        }
        let pause = self.some(50 * MILLI, 500 * MILLI);
        self.after(pause, Event::Move);
        let (known, living): (Vec<_>, _) = (self.homes.keys().cloned().collect(), self.living());
        let (Some(port), Some(to)) = (self.random.pick(&known).cloned(), self.random.pick(&living).copied())
        else {
            return;
        };
        let homes = self.homes_of(&port);
        // Now and then the new place is ready before the old one is left.
        let is_live = self.random.percent(40);
        if is_live {
            self.attach(&port, to);
        } else {
            let delay = self.some(MILLI, 200 * MILLI);
            self.after(delay, Event::Attach(port.clone(), to));
        }
        if !is_live || self.random.percent(50) {
            homes.into_iter().filter(|home| *home != to).for_each(|home| self.detach(&port, home));
        }
    }

    /// What was on a host that does not come back is started on others.
    pub(super) fn evacuate(&mut self, host: usize) {
        let living = self.living();
        let was_there =
            |(port, homes): (&String, &mut BTreeSet<usize>)| homes.remove(&host).then(|| port.clone());
        let ports: Vec<_> = self.homes.iter_mut().filter_map(was_there).collect();
        for port in ports {
            let delay = self.some(MILLI, 800 * MILLI);
            if let Some(to) = self.random.pick(&living).copied() {
                self.after(delay, Event::Attach(port, to));
            }
        }
    }

    /// In the end no workload moves any more, and each may be anywhere.
    pub(super) fn end_movements(&mut self) {
        let net = self.history.at(self.disk.newest());
        self.transact(0, &workload::end_of_movements(&net), false);
        let net = self.history.at(self.disk.newest());
        if !workload::end_of_movements(&net).is_empty() {
            self.fail(format_args!("all is repaired, and controller 0 does not take a change"));
        }
    }

    /// In the end each workload is at one place at most.
    pub(super) fn settle_homes(&mut self) {
        self.queue.retain(|_, event| !matches!(event, Event::Attach(..)));
        let all: Vec<_> = self.homes.keys().cloned().collect();
        for port in all {
            for host in self.homes_of(&port).into_iter().skip(1) {
                self.detach(&port, host);
            }
        }
    }
}
