//! Frames that no port may send, and ports that are off.

use crate::{
    build::{
        sink::FlowSink,
        stage::{SwitchIn, SwitchOut},
        topology::{SwitchPortInput, SwitchTraits},
    },
    expr::lexer::quote,
};

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    let object = &switch.object;
    if !switch.options.vlan_passthru {
        let why = "The network has no VLANs, and the checks that follow look behind no tag.";
        sink.add(SwitchIn::PortSecL2, 100, "vlan.present", "drop;", object, why);
    }
    sink.add(
        SwitchIn::PortSecL2,
        100,
        "eth.src[40]",
        "drop;",
        object,
        "A group address cannot be a source (IEEE 802.3 §3.2.3).",
    );
    sink.add(SwitchIn::PortSecL2, 0, "1", "drop;", object, "The frame came from no port of the switch.");
}

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    if !input.port.enabled {
        let (object, id) = (&input.object, quote(input.id));
        let why = "The port is disabled.";
        sink.add(SwitchIn::PortSecL2, 110, format!("inport == {id}"), "drop;", object, why);
        sink.add(SwitchOut::PortSecL2, 150, format!("outport == {id}"), "drop;", object, why);
    }
}
