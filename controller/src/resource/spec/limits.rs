//! Bounds on what packets ask hosts for.

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::{
    model::{Limits, Rate},
    punt::Service,
};

use super::check_count;
use crate::resource::{FieldError, Shown};

pub(super) fn parse(wire: &pb::ControlPlaneLimits) -> Result<Limits, FieldError> {
    check_count("limits", wire.limits.len(), Service::CLASSES.len())?;
    let mut limits = Limits::new();
    for (i, limit) in wire.limits.iter().enumerate() {
        let wrong = |field: &str, reason: String| FieldError::new(format!("limits[{i}].{field}"), reason);
        let class = Service::CLASSES.iter().find(|(_, class)| *class == limit.class);
        let Some((service, _)) = class else {
            let known: Vec<_> = Service::CLASSES.iter().map(|(_, class)| *class).collect();
            let reason = format!("{} is not a class; there are: {}", Shown(&limit.class), known.join(", "));
            return Err(wrong("class", reason));
        };
        if limit.rate == 0 {
            return Err(wrong("rate", "a rate is at least one packet per second".to_owned()));
        }
        let burst = if limit.burst == 0 { limit.rate } else { limit.burst };
        if limits.insert(*service, Rate { pps: limit.rate, burst }).is_some() {
            return Err(wrong("class", format!("{} is there twice; keep one", Shown(&limit.class))));
        }
    }
    Ok(limits)
}
