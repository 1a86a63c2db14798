//! Random calls of the real northbound service: sensible ones, wrong ones and hostile ones (`words.rs`).
//!
//! What must hold after each: nothing has panicked; what was refused has changed nothing; what was
//! acknowledged is there, and what is there was acknowledged; the same once more changes nothing. Now and
//! then all of it is compared with a dull copy, and with what the store holds.

mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{AddAssign, ControlFlow},
    sync::Arc,
};

use controller::{
    access::{Access, Caller, OWNER, Who},
    controller::Controller,
    network,
    northbound::Northbound,
    resource::Kind,
    state::ChassisStatus,
    store::LogLimits,
};
use ferroflow_proto::northbound::{
    self as pb, northbound_service_server::NorthboundService as _, operation::Op as Asked, resource::Spec,
};
use tokio::runtime::{Builder, Runtime};
use tonic::{Code, Request, Status};

use self::words::Words;
use crate::{model::Net, parallel, random::Random, store::Disk, workload};

/// After so many calls all is compared.
const COMPARED: u64 = 400;
/// After so many calls the network is compiled.
const COMPILED: u64 = 50;
/// Calls of one world; then another one begins, so that none grows too large.
const WORLD: u64 = 5_000;
/// The one who has nothing at first.
const TENANT: &str = "stranger";
/// Little is kept of the log, so that it is cut.
const LOG: LogLimits = LogLimits { n_revisions: 50, n_changes: 1000 };

/// What came of calls.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// Those that changed something.
    pub written: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Those that were said twice.
    pub repeated: u64,
    /// Those of somebody to whom nothing belongs.
    pub strangers: u64,
    /// Times that all was compared.
    pub compared: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.written += other.written;
        self.refused += other.refused;
        self.repeated += other.repeated;
        self.strangers += other.strangers;
        self.compared += other.compared;
    }
}

/// Makes so many calls on so many threads; each 5000 of them are a world of a seed, from this one on. `tell` hears
/// how far it is.
///
/// # Errors
/// What did not hold, and the seed that shows it again.
pub fn run(
    seed: u64,
    n_calls: u64,
    n_threads: usize,
    mut tell: impl FnMut(&Counts),
) -> Result<Counts, String> {
    let seeds = seed..seed.saturating_add(n_calls.div_ceil(WORLD));
    let work = |of: u64| world(of, WORLD.min(n_calls - (of - seed) * WORLD));
    let (mut counts, mut failure) = (Counts::default(), None);
    parallel::each(seeds, n_threads, work, |seed, done| {
        let what = match done {
            Some(Ok(more)) => {
                counts += more;
                tell(&counts);
                return ControlFlow::Continue(());
            }
            Some(Err(what)) => what,
            None => "a panic, told above".to_owned(),
        };
        failure = Some(format!("calls of seed {seed}: {what}"));
        ControlFlow::Break(())
    });
    failure.map_or(Ok(counts), Err)
}

fn world(seed: u64, n_calls: u64) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut api = Api::new(seed)?;
    for n in 0..n_calls {
        api.call(&mut counts).map_err(|what| format!("call {n}: {what}"))?;
        counts.calls += 1;
        if (n + 1) % COMPILED == 0 {
            network::follow(&api.controller);
        }
        if (n + 1) % COMPARED == 0 || n + 1 == n_calls {
            api.compare().map_err(|what| format!("after call {n}: {what}"))?;
            counts.compared += 1;
        }
    }
    Ok(counts)
}

/// A service, and a dull copy of what it should have.
struct Api {
    words: Words,
    disk: Disk,
    controller: Arc<Controller>,
    northbound: Northbound,
    runtime: Runtime,
    /// What sensible calls are about.
    net: Net,
    copy: BTreeMap<String, pb::Resource>,
}

impl Api {
    fn new(seed: u64) -> Result<Self, String> {
        let disk = Disk::new(LOG, false);
        let controller = Controller::open_with(disk.link(0), LOG, Access::default());
        let controller = controller.map_err(|error| error.to_string())?;
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let words = Words { random: Random::new(seed) };
        let northbound = Northbound::new(Arc::clone(&controller));
        let mut api =
            Self { words, disk, controller, northbound, runtime, net: Net::default(), copy: BTreeMap::new() };
        for op in workload::foundation(&mut api.words.random, words::ROOM) {
            api.net.apply(&op);
            let request = pb::TransactRequest { operations: op.words(&api.net), ..Default::default() };
            let answer = api.northbound.transact_now(&Caller::local(), request.clone());
            api.take(&request, &answer.map_err(|status| status.to_string())?);
        }
        Ok(api)
    }

    fn revision(&self) -> u64 {
        self.controller.state().revision().get()
    }

    fn call(&mut self, counts: &mut Counts) -> Result<(), String> {
        let before = self.revision();
        let refused = match self.words.random.below(20) {
            0 => self.read().err(),
            1 => self.one(before)?.err(),
            2 => {
                counts.strangers += 1;
                self.stranger(before)?
            }
            _ => {
                let (request, sense) = self.words.transaction(&self.net, before);
                let done = self.transact(&request)?;
                if done.is_ok() && !request.validate_only {
                    sense.iter().for_each(|op| self.net.apply(op));
                    self.net.end();
                }
                if self.words.random.percent(15) && is_repeatable(&request) {
                    counts.repeated += 1;
                    self.repeat(&request)?;
                }
                done.err()
            }
        };
        let after = self.revision();
        counts.refused += u64::from(refused.is_some());
        counts.written += u64::from(after > before);
        if after != self.disk.newest() {
            return Err(format!(
                "the controller is at revision {after}, the store at {}",
                self.disk.newest()
            ));
        }
        if let Some(status) = refused {
            if after != before {
                return Err(format!("revision {after} was made by what was refused: {status}"));
            }
            if matches!(status.code(), Code::Internal | Code::Unknown | Code::Unavailable | Code::DataLoss) {
                return Err(format!("not the caller's fault, and refused: {status}"));
            }
            if status.message().is_empty() {
                return Err("refused without a word".to_owned());
            }
        }
        if self.controller.ending().borrow().is_some() {
            return Err("the controller ends".to_owned());
        }
        Ok(())
    }

    /// A transaction; the outer error is one of the service.
    fn transact(&mut self, request: &pb::TransactRequest) -> Result<Result<(), Status>, String> {
        let before = self.revision();
        let answer = match self.northbound.transact_now(&Caller::local(), request.clone()) {
            Ok(answer) => answer,
            Err(status) => return Ok(Err(status)),
        };
        let after = self.revision();
        if answer.revision != after || after > before + 1 || request.validate_only && after != before {
            return Err(format!(
                "answered with revision {}, {before} before, {after} after: {request:?}",
                answer.revision
            ));
        }
        if !request.validate_only {
            self.take(request, &answer);
        }
        Ok(Ok(()))
    }

    /// A tenant sees nothing of what is not his own, and changes nothing of it.
    fn stranger(&mut self, revision: u64) -> Result<Option<Status>, String> {
        let caller = Caller { who: Who::Tenant(TENANT.to_owned()), ..Caller::local() };
        let others = |copy: &BTreeMap<String, pb::Resource>| -> BTreeMap<String, pb::Resource> {
            let is_others = |name: &String| !is_tenants(copy, name);
            copy.iter().filter(|(name, _)| is_others(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let before = all_of(&self.controller);
        let (request, _) = self.words.transaction(&self.net, revision);
        let answer = self.northbound.transact_now(&caller, request.clone());
        let after = all_of(&self.controller);
        // His own ports that are gone have left the groups, whosever these are.
        let mut expected = others(&before);
        leave_groups(&mut expected, |port| after.contains_key(port));
        if expected != others(&after) {
            return Err(format!("a tenant has changed what is not his own: {request:?}"));
        }
        let listed = self.runtime.block_on(self.northbound.list_resources(by(&caller, self.words.list())));
        let seen = listed.map(|listed| listed.into_inner().resources).unwrap_or_default();
        if let Some(seen) = seen.iter().find(|seen| !is_tenants(&after, &seen.name)) {
            return Err(format!("a tenant sees {}, which is not his own", seen.name));
        }
        Ok(match answer {
            Err(status) => Some(status),
            Ok(answer) => {
                let mut request = request;
                // What is not his own is not there, so it need not be deleted.
                request.operations.retain(|operation| match &operation.op {
                    Some(Asked::Delete(pb::Delete { name, .. })) => {
                        !before.contains_key(name) || is_tenants(&before, name)
                    }
                    _ => true,
                });
                if !request.validate_only {
                    self.take(&request, &answer);
                }
                None
            }
        })
    }

    /// The same again changes nothing.
    fn repeat(&mut self, request: &pb::TransactRequest) -> Result<(), String> {
        let before = self.revision();
        // Refused, since it is there, or done without a change.
        let _ = self.northbound.transact_now(&Caller::local(), request.clone());
        let after = self.revision();
        if after == before {
            Ok(())
        } else {
            Err(format!("said twice, it made revision {after}: {request:?}"))
        }
    }

    /// A call for one resource.
    fn one(&mut self, revision: u64) -> Result<Result<(), Status>, String> {
        let (request, _) = self.words.transaction(&self.net, revision);
        let Some(op) = request.operations.first().and_then(|operation| operation.op.clone()) else {
            return Ok(Ok(()));
        };
        let validate_only = request.validate_only;
        let (northbound, wanted) = (self.northbound.clone(), op.clone());
        let answer = self.runtime.block_on(async move {
            match wanted {
                Asked::Create(pb::Create { resource }) => {
                    let request = called(pb::CreateResourceRequest { resource, validate_only });
                    let answer = northbound.create_resource(request).await?.into_inner();
                    Ok::<_, Status>((answer.resource, answer.revision))
                }
                Asked::Update(pb::Update { resource, update_mask, allow_missing }) => {
                    let request = called(pb::UpdateResourceRequest {
                        resource,
                        update_mask,
                        allow_missing,
                        validate_only,
                    });
                    let answer = northbound.update_resource(request).await?.into_inner();
                    Ok((answer.resource, answer.revision))
                }
                Asked::Delete(pb::Delete { name, allow_missing }) => {
                    let request = called(pb::DeleteResourceRequest { name, allow_missing, validate_only });
                    Ok((None, northbound.delete_resource(request).await?.into_inner().revision))
                }
            }
        });
        Ok(match answer {
            Err(status) => Err(status),
            Ok((resource, revision)) => {
                if revision != self.revision() {
                    return Err(format!("answered with revision {revision} at {}", self.revision()));
                }
                if !validate_only {
                    let operations = vec![pb::Operation { op: Some(op) }];
                    let resources = resource.into_iter().collect();
                    let answer = pb::TransactResponse { revision, resources, effect: None };
                    self.take(&pb::TransactRequest { operations, ..Default::default() }, &answer);
                }
                Ok(())
            }
        })
    }

    /// A call that only reads.
    fn read(&mut self) -> Result<(), Status> {
        let revision = self.revision();
        let northbound = self.northbound.clone();
        match self.words.random.below(3) {
            0 => {
                let request = self.words.get();
                self.runtime.block_on(northbound.get_resource(called(request))).map(drop)
            }
            1 => {
                let request = self.words.list();
                self.runtime.block_on(northbound.list_resources(called(request))).map(drop)
            }
            _ => {
                let request = self.words.receipt(revision);
                self.runtime.block_on(northbound.get_receipt(called(request))).map(drop)
            }
        }
    }

    /// Has the copy follow what was acknowledged.
    fn take(&mut self, request: &pb::TransactRequest, answer: &pb::TransactResponse) {
        let mut results = answer.resources.iter();
        for operation in &request.operations {
            match &operation.op {
                Some(Asked::Create(_) | Asked::Update(_)) => {
                    if let Some(resource) = results.next() {
                        self.copy.insert(resource.name.clone(), resource.clone());
                    }
                }
                Some(Asked::Delete(pb::Delete { name, .. })) => self.forget(name),
                None => {}
            }
        }
        let ports: BTreeSet<_> = self.copy.keys().filter(|name| name.contains("/ports/")).cloned().collect();
        leave_groups(&mut self.copy, |port| ports.contains(port));
    }

    /// What is deleted goes with all below it.
    fn forget(&mut self, name: &str) {
        let below = format!("{name}/");
        self.copy.retain(|other, _| other != name && !other.starts_with(&below));
    }

    /// The service, the store and the copy have the same.
    fn compare(&self) -> Result<(), String> {
        let served = all_of(&self.controller);
        let read = Controller::open_with(self.disk.link(1), LOG, Access::default());
        let stored = all_of(&*read.map_err(|error| format!("the store cannot be read: {error}"))?);
        let copy: BTreeMap<_, _> =
            self.copy.iter().map(|(name, resource)| (name.clone(), plain(resource.clone()))).collect();
        for (what, other) in [("the store", &stored), ("what was acknowledged", &copy)] {
            if let Some(name) =
                served.keys().chain(other.keys()).find(|name| served.get(*name) != other.get(*name))
            {
                return Err(format!("{name}: {:?}, {what}: {:?}", served.get(name), other.get(name)));
            }
        }
        Ok(())
    }
}

/// A call by somebody on this machine.
fn called<M>(message: M) -> Request<M> {
    by(&Caller::local(), message)
}

fn by<M>(caller: &Caller, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Arc::new(caller.clone()));
    request
}

/// A resource is the tenant's: the one at the root of its name says so.
fn is_tenants(all: &BTreeMap<String, pb::Resource>, name: &str) -> bool {
    let root = name.match_indices('/').nth(1).map_or(name, |(at, _)| &name[..at]);
    all.get(root).and_then(|resource| resource.labels.get(OWNER)).is_some_and(|owner| owner == TENANT)
}

/// Ports that are gone leave their groups; what is made again in the same transaction stays.
fn leave_groups(resources: &mut BTreeMap<String, pb::Resource>, is_there: impl Fn(&str) -> bool) {
    for resource in resources.values_mut() {
        if let Some(Spec::PortGroup(group)) = &mut resource.spec {
            group.ports.retain(|port| is_there(port));
        }
    }
}

/// Said twice, it has to be as said once: what is deleted and made anew would be another one.
fn is_repeatable(request: &pb::TransactRequest) -> bool {
    let deletes = |operation: &pb::Operation| matches!(operation.op, Some(Asked::Delete(_)));
    request.operations.iter().all(deletes) || !request.operations.iter().any(deletes)
}

fn all_of(controller: &Controller) -> BTreeMap<String, pb::Resource> {
    let state = controller.state();
    let users = state.iter().filter(|record| record.name.kind() != Kind::Chassis);
    let resources = users.map(|record| plain(record.to_wire(|_| ChassisStatus::default())));
    resources.map(|resource| (resource.name.clone(), resource)).collect()
}

/// Without the revision that changed it last, which a port that goes changes of its groups.
fn plain(mut resource: pb::Resource) -> pb::Resource {
    resource.update_revision = 0;
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_called_is_done_as_a_whole_or_not_at_all() {
        // `cargo xtask test` says how many.
        let asked = std::env::var("FERROFLOW_CALLS").ok().map(|number| number.parse().unwrap());
        let n_calls = asked.unwrap_or(3_000);
        let counts = run(1, n_calls, parallel::processors(), |_| ()).unwrap();
        println!("{counts:?}");
        assert_eq!(counts.calls, n_calls);
        assert!(counts.written > n_calls / 20 && counts.refused > n_calls / 10, "{counts:?}");
        assert!(counts.repeated > n_calls / 50 && counts.compared > 2, "{counts:?}");
        assert!(counts.strangers > n_calls / 40, "{counts:?}");
    }
}
