//! What the controller counts, as Prometheus reads it. Names and labels: docs/metrics.md.

use std::{collections::BTreeMap, sync::Arc};

use supervision::{exposition::Page, http::Subject};

use crate::{controller::Controller, resource::Kind};

/// A controller that is looked at.
pub struct Metrics(Arc<Controller>);

impl Metrics {
    /// Of a controller.
    pub fn new(controller: Arc<Controller>) -> Self {
        Self(controller)
    }
}

impl Subject for Metrics {
    async fn metrics(&self) -> String {
        let controller = Arc::clone(&self.0);
        // The state may be held by a write for a while.
        tokio::task::spawn_blocking(move || page(&controller)).await.unwrap_or_default()
    }

    async fn readiness(&self) -> Result<(), String> {
        match &*self.0.ending().borrow() {
            Some(ending) => Err(format!("it ends: {ending:?}")),
            None => Ok(()),
        }
    }
}

fn page(controller: &Controller) -> String {
    let mut page = Page::new("ferroflow_controller");
    page.info("build_info", "Version of the daemon.", &[("version", env!("CARGO_PKG_VERSION"))]);
    let (revision, objects, chassis) = {
        let state = controller.state();
        let mut objects: BTreeMap<_, u64> = Kind::ALL.iter().map(|kind| (kind.spec_field(), 0)).collect();
        let mut chassis = Vec::new();
        for record in state.iter() {
            *objects.entry(record.name.kind().spec_field()).or_default() += 1;
            if record.name.kind() == Kind::Chassis {
                chassis.push(record.name.id().to_owned());
            }
        }
        (state.revision(), objects, chassis)
    };
    page.gauge("revision", "Revision of the network.").set(revision);
    let mut family = page.gauge("objects", "Objects of the network.");
    for (kind, n) in objects {
        family.add(&[("kind", kind)], n);
    }
    let status: Vec<_> = chassis.iter().map(|id| (id, controller.chassis_status(id))).collect();
    let mut connected = page.gauge("chassis_connected", "The host holds a stream.");
    for (id, status) in &status {
        connected.add(&[("chassis", id)], u8::from(status.connected));
    }
    let mut applied = page.gauge("chassis_applied_revision", "Last revision that the host has acknowledged.");
    for (id, status) in &status {
        applied.add(&[("chassis", id)], status.applied);
    }
    let mut errors = page.gauge("chassis_errors", "Objects that the host could not realise.");
    for (id, _) in &status {
        errors.add(&[("chassis", id)], controller.registry.errors(id).len());
    }
    page.into_text()
}
