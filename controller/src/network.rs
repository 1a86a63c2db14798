//! The network as compiled last: follows the state revision by revision and hands each
//! chassis what has changed for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ovn_northd_lite::{
    Compiler, Dirty, SouthboundDelta, Views,
    explain::{Case, ExplainError, Question},
    southbound::Southbound,
};

use crate::{
    compile::Model,
    controller::{Controller, Ending},
    state::State,
    store::Revision,
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
fn follow(controller: &Controller) {
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

/// The compiled network.
#[derive(Default)]
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
    pub(crate) fn view(&self, chassis: &str) -> (Revision, Southbound) {
        let view = self.views.of(self.compiler.southbound(), chassis);
        (self.revision.unwrap_or(Revision::ZERO), view)
    }

    /// All that it takes to answer a question about the network, and its revision.
    pub(crate) fn case(&self, question: Question) -> (Revision, Result<Case, ExplainError>) {
        let case = Case::new(&self.model.network, self.compiler.southbound(), question);
        (self.revision.unwrap_or(Revision::ZERO), case)
    }

    #[cfg(test)]
    pub(crate) fn model(&self) -> &Model {
        &self.model
    }
}
