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
    state::{Change, State},
    store::Revision,
    threads,
};

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
pub fn follow(controller: &Controller) {
    // Held until all is told: who asks for a whole view then gets no change twice.
    let mut network = controller.network();
    let (revision, told) = network.step(&controller.state(), |id| controller.registry.listens(id));
    for id in network.gone() {
        controller.registry.retract(&id);
    }
    let affected = told.keys().cloned().collect();
    for (id, delta) in told {
        controller.registry.publish(&id, revision, delta);
    }
    controller.receipts.compiled(revision, affected);
}

/// What chassis are to be told.
pub(crate) type Told = BTreeMap<String, Option<SouthboundDelta>>;

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
    /// the change of its view, or `None` when it does not listen.
    pub(crate) fn step(&mut self, state: &State, listens: impl Fn(&str) -> bool) -> (Revision, Told) {
        let dirty = match self.revision.map(|revision| state.changes_since(revision)) {
            Some(Ok(revised)) => {
                let mut dirty = Dirty::default();
                for change in revised.flat_map(|revised| &revised.changes) {
                    self.model.apply(change, &mut dirty);
                }
                dirty
            }
            None | Some(Err(_)) => self.model.rebuild(state.iter().map(|record| &**record)),
        };
        let revision = state.revision();
        let delta = self.compiler.update(&self.model.network, &self.model.chassis, &dirty);
        for id in &delta.removed.chassis {
            self.chassis.remove(id);
            self.gone.insert(id.clone());
        }
        self.chassis.extend(delta.chassis.keys().cloned());
        let told = self.views.update(self.compiler.southbound(), &delta, listens);
        self.revision = Some(revision);
        (revision, told)
    }

    /// Chassis that have gone since the last call.
    fn gone(&mut self) -> BTreeSet<String> {
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|id| !self.chassis.contains(id));
        gone
    }

    /// The whole view of a chassis, and the revision it is at.
    pub fn view(&self, chassis: &str) -> (Revision, Southbound) {
        let view = self.views.of(self.compiler.southbound(), chassis);
        (self.revision.unwrap_or(Revision::ZERO), view)
    }

    /// All that it takes to answer a question about the network, and its revision.
    pub(crate) fn case(&self, question: Question) -> (Revision, Result<Case, ExplainError>) {
        let case = Case::new(&self.model.network, self.compiler.southbound(), question);
        (self.revision.unwrap_or(Revision::ZERO), case)
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
