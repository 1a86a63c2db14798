//! What collectors are told of the packets that an ACL decides about.

use std::collections::BTreeMap;

use super::Policy;
use crate::{
    actions,
    build::sink::FlowSink,
    model::{Acl, Sample, SampleCollector},
};

/// Bits of a datapath's key, above which is the application.
const KEY_BITS: u32 = 24;

/// The actions that tell them.
pub(super) struct Told {
    /// Of packets that belong to no connection that the ACL has allowed.
    pub(super) new: String,
    /// Of those that do.
    pub(super) established: String,
}

impl Told {
    /// Of an ACL; hosts are told of the collectors.
    pub(super) fn of(
        policy: &Policy<'_>,
        acl: &Acl,
        collectors: &BTreeMap<String, SampleCollector>,
        sink: &mut FlowSink,
    ) -> Self {
        let mut of = |sample: &Option<Sample>, application: fn(&SampleCollector) -> u8| {
            let Some(sample) = sample else { return String::new() };
            let known = sample.collectors.iter().filter_map(|id| Some((id, collectors.get(id)?)));
            let told = known.map(|(id, collector)| {
                sink.collector(id);
                let domain = u32::from(application(collector)) << KEY_BITS | policy.switch.key.get();
                let sample = actions::Sample {
                    probability: collector.probability,
                    collector_set: collector.set,
                    obs_domain: domain,
                    obs_point: sample.point,
                };
                sample.to_string()
            });
            told.collect::<Vec<_>>().join(" ")
        };
        Self {
            new: of(&acl.samples.new, |collector| collector.new_application),
            established: of(&acl.samples.established, |collector| collector.established_application),
        }
    }

    /// Somebody is told something.
    pub(super) fn is_any(&self) -> bool {
        !self.new.is_empty() || !self.established.is_empty()
    }
}

/// What is kept with the connections that an ACL allows; 0: nothing. Answers are known by it.
pub(super) fn label(acl: &Acl) -> u32 {
    acl.samples.established.as_ref().map_or(acl.label, |sample| sample.point)
}
