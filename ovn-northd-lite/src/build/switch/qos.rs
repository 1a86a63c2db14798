//! Quality of service: what the ACLs have let pass is marked, and dropped beyond a rate. Of
//! several rules that match the one with the highest priority counts. Each host measures
//! for itself.

use crate::{
    actions::SetMeter,
    build::{
        sink::FlowSink,
        stage::{Stage, SwitchIn, SwitchOut},
        topology::{QosInput, SwitchTraits},
    },
    expr::check_match,
    model::AclDirection,
};

/// Added to the priority of each rule, so that the default fits below.
const OFFSET: u16 = 1;

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    for stage in [Stage::from(SwitchIn::Qos), SwitchOut::Qos.into()] {
        sink.add(stage, 0, "1", "next;", &switch.object, "No rule is about the packet's quality of service.");
    }
}

pub(super) fn rule(input: &QosInput<'_>, sink: &mut FlowSink) {
    let rule = input.rule;
    // What cannot be read matches nothing: the rule neither allows nor denies.
    if check_match(&rule.matching).is_err() {
        return;
    }
    let stage = match rule.direction {
        AclDirection::FromLport => Stage::from(SwitchIn::Qos),
        AclDirection::ToLport => SwitchOut::Qos.into(),
    };
    let meter = rule.bandwidth.map(|bandwidth| SetMeter(bandwidth).to_string());
    let (dscp, matching, why) = match (rule.dscp, &meter) {
        (Some(dscp), meter) => {
            let matching = format!("ip && ({})", rule.matching);
            let why = if meter.is_some() {
                "The packet is marked, and dropped beyond the rate."
            } else {
                "The packet is marked."
            };
            (Some(format!("ip.dscp = {dscp};")), matching, why)
        }
        (None, Some(_)) => (None, rule.matching.clone(), "The packet is dropped beyond the rate."),
        (None, None) => return,
    };
    let actions: Vec<_> = meter.into_iter().chain(dscp).chain(["next;".to_owned()]).collect();
    let priority = rule.priority.get().saturating_add(OFFSET);
    sink.add(stage, priority, matching, actions.join(" "), &input.object, why);
}
