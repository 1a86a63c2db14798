//! The network as compiled last: follows the state revision by revision and hands each
//! chassis what has changed for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ovn_northd_lite::{
    Compiler, Dirty, SouthboundDelta, Views, Workers,
    explain::{Case, Cases, ExplainError, Question},
    key::DatapathKey,
    model::Northbound,
    southbound::{LogicalFlow, Southbound},
};

use crate::{
    compile::Model,
    controller::{Controller, Ending},
    resource::Kind,
    state::{Change, Record, State},
    store::Revision,
    threads,
};

/// So many revisions of a store that controllers share are compiled one by one.
const MAX_APART: usize = 16;

/// Compiles each revision until the controller ends. Revisions that come while it is
/// busy are compiled together.
pub async fn run(controller: Arc<Controller>) {
    let mut revisions = controller.revisions();
    let mut ending = controller.ending();
    loop {
        revisions.borrow_and_update();
        let shared = Arc::clone(&controller);
        let step = tokio::task::spawn_blocking(move || follow(&shared));
        if let Err(error) = step.await {
            controller.end(Ending::Failed(format!("the compiler failed: {error}")));
            return;
        }
        tokio::select! {
            _ = revisions.changed() => {}
            _ = ending.wait_for(Option::is_some) => return,
        }
    }
}

/// Compiles what is new and tells the chassis.
///
/// Where several controllers share a store, each compiles by itself, and a chassis may hear revisions from one that
/// another has compiled together, and in which it has seen no change: one undoes the other. So that a
/// receipt asks for that chassis everywhere, a few revisions are compiled one by one.
pub fn follow(controller: &Controller) {
    let apart = if controller.store().is_shared() { MAX_APART } else { 1 };
    // Held until all is told: who asks for a whole view then gets no change twice.
    let mut network = controller.network();
    loop {
        let state = controller.state();
        let newest = state.revision();
        let (revision, told) = network.step(&state, apart, |id| controller.registry.listens(id));
        drop(state);
        for id in network.gone() {
            controller.registry.retract(&id);
        }
        let affected = told.keys().cloned().collect();
        for (id, delta) in told {
            controller.registry.publish(&id, revision, delta);
        }
        controller.receipts.compiled(revision, affected);
        if revision >= newest {
            return;
        }
    }
}

/// What chassis are to be told; those that are told the same share it.
pub(crate) type Told = BTreeMap<String, Option<Arc<SouthboundDelta>>>;

/// What changes would do.
pub(crate) struct Rehearsal {
    /// Flows that would be there, and that would not be there any more.
    pub(crate) added: BTreeMap<u64, Arc<LogicalFlow>>,
    pub(crate) removed: BTreeMap<u64, Arc<LogicalFlow>>,
    /// Of the datapaths of these.
    pub(crate) names: BTreeMap<DatapathKey, String>,
    /// Hosts that have something of it.
    pub(crate) chassis: BTreeSet<String>,
    /// Questions, to be answered without the network.
    pub(crate) before: Cases,
    pub(crate) after: Cases,
}

/// The compiled network.
pub struct Network {
    /// `None`: nothing compiled yet.
    revision: Option<Revision>,
    model: Model,
    compiler: Compiler,
    views: Views,
    /// Chassis that there were at the last step.
    chassis: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            revision: None,
            model: Model::default(),
            compiler: Compiler::with(Workers(threads::share_out)),
            views: Views::default(),
            chassis: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }
}

impl Network {
    /// Compiles what has changed since the last step; for each chassis that it concerns,
    /// the change of its view, or `None` when it does not listen. Of several revisions, and no more than
    /// `apart`, it is the first.
    ///
    /// It also concerns a chassis that a port has been bound to anew, even where it had the port at the
    /// last step and its view is as before: the port is up when the chassis has acknowledged that revision.
    pub(crate) fn step(
        &mut self,
        state: &State,
        apart: usize,
        listens: impl Fn(&str) -> bool,
    ) -> (Revision, Told) {
        let mut revision = state.revision();
        let before = self.revision();
        let mut bound = BTreeSet::new();
        let mut note = |record: &Record| {
            let anew = record.binding.as_ref().filter(|binding| binding.since > before);
            bound.extend(anew.map(|binding| binding.chassis.clone()));
        };
        let dirty = match self.revision.map(|revision| state.changes_since(revision)) {
            Some(Ok(revised)) => {
                let mut dirty = Dirty::default();
                let mut revised: Vec<_> = revised.collect();
                if revised.len() <= apart {
                    revised.truncate(1);
                    revision = revised.first().map_or(revision, |first| first.revision);
                }
                for change in revised.into_iter().flat_map(|revised| &revised.changes) {
                    self.model.apply(change, &mut dirty);
                    change.after.as_deref().into_iter().for_each(&mut note);
                }
                dirty
            }
            None | Some(Err(_)) => {
                state.iter_kind(Kind::SwitchPort).for_each(|record| note(record));
                self.model.rebuild(state.iter().map(|record| &**record))
            }
        };
        let delta = self.compiler.update(&self.model.network, &self.model.chassis, &dirty);
        for id in &delta.removed.chassis {
            self.chassis.remove(id);
            self.gone.insert(id.clone());
        }
        self.chassis.extend(delta.chassis.keys().cloned());
        let mut told = self.views.update(self.compiler.southbound(), &delta, &listens);
        for id in bound.into_iter().filter(|id| self.chassis.contains(id)) {
            let nothing = listens(&id).then(Arc::default);
            told.entry(id).or_insert(nothing);
        }
        self.revision = Some(revision);
        (revision, told)
    }

    /// Chassis that have gone since the last call.
    fn gone(&mut self) -> BTreeSet<String> {
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|id| !self.chassis.contains(id));
        gone
    }

    /// What was compiled last; zero: nothing yet.
    pub fn revision(&self) -> Revision {
        self.revision.unwrap_or(Revision::ZERO)
    }

    /// The whole view of a chassis, and the revision it is at.
    pub fn view(&self, chassis: &str) -> (Revision, Southbound) {
        let view = self.views.of(self.compiler.southbound(), chassis);
        (self.revision(), view)
    }

    /// All that it takes to answer a question about the network, and its revision.
    pub(crate) fn case(&self, question: Question) -> (Revision, Result<Case, ExplainError>) {
        let case = Case::new(&self.model.network, self.compiler.southbound(), question);
        (self.revision(), case)
    }

    /// What changes would do to the network; it is as before when this returns. Nothing when they
    /// are not those of the next revision.
    ///
    /// # Cost
    /// That of compiling them twice, and of copying what the questions are about.
    pub(crate) fn rehearse(
        &mut self,
        based_on: Revision,
        changes: &[Change],
        questions: &[Question],
    ) -> Option<Rehearsal> {
        if self.revision != Some(based_on) {
            return None;
        }
        let before = Cases::new(&self.model.network, self.compiler.southbound(), questions.to_vec());
        let there = self.compile(changes.iter().cloned());
        let after = Cases::new(&self.model.network, self.compiler.southbound(), questions.to_vec());
        let undone = |Change { name, before, after }: Change| Change { name, before: after, after: before };
        let back = self.compile(changes.iter().cloned().map(undone));
        let sb = self.compiler.southbound();
        let names = there.flows.values().chain(back.flows.values()).map(|flow| flow.datapath);
        let names = names.filter_map(|key| {
            let datapath = sb.datapaths.get(&key).or_else(|| there.datapaths.get(&key))?;
            Some((key, datapath.name.clone()))
        });
        let names = names.collect();
        let chassis = self.views.concerned_by(&there);
        // What comes back is what had gone.
        let (added, removed) = (there.flows, back.flows);
        Some(Rehearsal { added, removed, names, chassis, before, after })
    }

    fn compile(&mut self, changes: impl Iterator<Item = Change>) -> SouthboundDelta {
        let mut dirty = Dirty::default();
        changes.for_each(|change| self.model.apply(&change, &mut dirty));
        self.compiler.update(&self.model.network, &self.model.chassis, &dirty)
    }

    /// The network as compiled last.
    pub(crate) fn northbound(&self) -> &Northbound {
        &self.model.network
    }

    #[cfg(test)]
    pub(crate) fn southbound(&self) -> &Southbound {
        self.compiler.southbound()
    }

    #[cfg(test)]
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }
}

#[cfg(test)]
mod tests {
    use ferroflow_proto::northbound::{self as pb, resource::Spec};

    use super::*;
    use crate::{
        access::Author,
        resource::Name,
        state::Draft,
        store::{LogLimits, MemoryStore},
    };

    fn write(controller: &Controller, work: impl Fn(&mut Draft<'_>)) -> Revision {
        let author = Author::controller("test");
        let written = controller.write(&author, false, |draft| {
            work(draft);
            Ok(())
        });
        written.unwrap().revision
    }

    fn put(draft: &mut Draft<'_>, name: &str, spec: Spec) {
        let resource = pb::Resource { name: name.to_owned(), spec: Some(spec), ..Default::default() };
        draft.update(0, resource, &[], true).unwrap();
    }

    fn acl(draft: &mut Draft<'_>) {
        let spec = pb::Acl {
            direction: pb::acl::Direction::ToLport.into(),
            r#match: "ip4".to_owned(),
            action: pb::acl::Action::Drop.into(),
            ..Default::default()
        };
        put(draft, "switches/s/acls/x", Spec::Acl(spec));
    }

    fn bind(controller: &Controller, port: &str, to: Option<&str>) -> Revision {
        let name = Name::parse(&format!("switches/s/ports/{port}")).unwrap();
        write(controller, |draft| draft.bind(&name, to.map(|chassis| (chassis, false))))
    }

    /// A switch with ports `a` at `h1` and `b` at `h2`.
    fn two_hosts(limits: LogLimits) -> (Arc<Controller>, Network) {
        let controller = Controller::open(Box::new(MemoryStore::new(limits)), limits).unwrap();
        write(&controller, |draft| {
            put(draft, "switches/s", Spec::LogicalSwitch(Default::default()));
            for port in ["a", "b"] {
                let name = format!("switches/s/ports/{port}");
                put(draft, &name, Spec::LogicalSwitchPort(Default::default()));
            }
            for (id, ip) in [("h1", "192.0.2.1"), ("h2", "192.0.2.2")] {
                let chassis = pb::Chassis { encap_ip: ip.to_owned(), ..Default::default() };
                draft.register(Name::chassis(id).unwrap(), chassis).unwrap();
            }
        });
        bind(&controller, "a", Some("h1"));
        bind(&controller, "b", Some("h2"));
        let mut network = Network::default();
        network.step(&controller.state(), 1, |_| true);
        (controller, network)
    }

    #[test]
    fn a_chassis_is_told_that_a_port_has_come_back_to_it_though_its_view_is_as_before() {
        let short = LogLimits { n_revisions: 1, ..LogLimits::default() };
        for limits in [LogLimits::default(), short] {
            let (controller, mut network) = two_hosts(limits);
            bind(&controller, "a", Some("h2"));
            let since = bind(&controller, "a", Some("h1"));
            let (revision, told) = network.step(&controller.state(), 1, |_| true);
            assert_eq!(revision, since);
            assert_eq!(told.get("h1"), Some(&Some(Arc::default())));
            let up = write(&controller, |draft| {
                draft.bind(&Name::parse("switches/s/ports/a").unwrap(), Some(("h1", true)));
            });
            assert!(up > since, "it is known to be up");
            let (_, told) = network.step(&controller.state(), 1, |_| true);
            assert_eq!(told, Told::new());
        }
    }

    #[test]
    fn what_one_revision_undoes_of_another_concerns_a_chassis_where_they_are_compiled_apart() {
        for (apart, concerned) in [(1, [0, 0]), (2, [2, 2])] {
            let (controller, mut network) = two_hosts(LogLimits::default());
            let first = write(&controller, acl);
            let last = write(&controller, |draft| draft.delete(0, "switches/s/acls/x", false).unwrap());
            let mut seen = Vec::new();
            while network.revision() < last {
                let (revision, told) = network.step(&controller.state(), apart, |_| true);
                seen.push((revision, told.len()));
            }
            let wanted = [(first, concerned[0]), (last, concerned[1])];
            assert_eq!(seen, wanted[2 - apart.min(seen.len())..], "apart: {apart}");
        }
    }
}
