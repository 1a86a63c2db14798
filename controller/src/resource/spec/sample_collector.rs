//! Who is told of sampled packets, and which of them an ACL tells of.

use std::{collections::BTreeSet, net::SocketAddr};

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::model::{AclAction, Sample, SampleCollector, Samples};

use super::each;
use crate::resource::{FieldError, Kind, Name, Shown, limits};

/// Largest number of a set: hosts have numbers of their own above.
const MAX_SET: u32 = i32::MAX as u32;

pub(super) fn parse(collector: &pb::SampleCollector) -> Result<SampleCollector, FieldError> {
    let set = collector.set_id;
    if set == 0 || set > MAX_SET {
        return Err(FieldError::new("set_id", format!("{set} is out of range; use 1 to {MAX_SET}")));
    }
    let probability = match u16::try_from(collector.probability) {
        Ok(0) => u16::MAX,
        Ok(probability) => probability,
        Err(_) => {
            let reason = format!("{} is out of range; say how many of 65535", collector.probability);
            return Err(FieldError::new("probability", reason));
        }
    };
    let targets = each("targets", &collector.targets, limits::MAX_SAMPLE_TARGETS, target)?;
    if targets.is_empty() {
        return Err(FieldError::new("targets", "nobody would be told; write one like 192.0.2.9:4739"));
    }
    Ok(SampleCollector {
        set,
        probability,
        targets: targets.into_iter().collect(),
        new_application: application("new_application", collector.new_application)?,
        established_application: application("established_application", collector.established_application)?,
    })
}

fn target(text: &str) -> Result<SocketAddr, String> {
    let is_usable = |target: &SocketAddr| {
        let ip = target.ip();
        target.port() > 0 && !ip.is_unspecified() && !ip.is_multicast()
    };
    text.parse().ok().filter(is_usable).ok_or_else(|| {
        format!("{} is nowhere to send to; write one like 192.0.2.9:4739 or [2001:db8::9]:4739", Shown(text))
    })
}

fn application(field: &'static str, number: u32) -> Result<u8, FieldError> {
    u8::try_from(number)
        .map_err(|_| FieldError::new(field, format!("{number} is out of range; use 0 to 255")))
}

/// What an ACL tells of.
pub(super) fn samples(acl: &pb::Acl, action: AclAction) -> Result<Samples, FieldError> {
    let new = acl.sample_new.as_ref().map(|wire| sample("sample_new", wire)).transpose()?;
    let established =
        acl.sample_established.as_ref().map(|wire| sample("sample_established", wire)).transpose()?;
    let wrong = |reason| Err(FieldError::new("sample_established", reason));
    if established.is_some() && !matches!(action, AclAction::Allow | AclAction::AllowRelated) {
        return wrong("only what is allowed becomes a connection; leave it out, or say sample_new");
    }
    if established.is_some() && acl.label != 0 {
        return wrong(
            "its observation point is kept with connections in place of a label; leave the label 0",
        );
    }
    Ok(Samples { new, established })
}

fn sample(field: &str, sample: &pb::AclSample) -> Result<Sample, FieldError> {
    if sample.observation_point == 0 {
        let reason = "collectors know the ACL by it; use 1 or more, which no other ACL has";
        return Err(FieldError::new(format!("{field}.observation_point"), reason));
    }
    let field = format!("{field}.collectors");
    if sample.collectors.is_empty() {
        return Err(FieldError::new(field, "nobody would be told; write sample-collectors/{id}"));
    }
    let collectors = each(&field, &sample.collectors, limits::MAX_SAMPLE_COLLECTORS, |text| {
        let name = Name::parse(text).ok().filter(|name| name.kind() == Kind::SampleCollector);
        let wrong = || format!("{} is not the name of one; write {}", Shown(text), Kind::SampleCollector);
        name.map(|name| name.id().to_owned()).ok_or_else(wrong)
    })?;
    let collectors: BTreeSet<_> = collectors.into_iter().collect();
    Ok(Sample { point: sample.observation_point, collectors })
}
