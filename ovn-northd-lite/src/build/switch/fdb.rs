//! Stations behind ports that take frames to unknown addresses, and behind networks
//! outside that are to be learned: each host remembers by which port it saw them last, from
//! what its own ports send and from what other hosts send it. Frames to them go there, and
//! no longer to all ports that take unknown addresses. The addresses that ports are given
//! go before: nobody can take one over by speaking with it.

use crate::{
    build::{
        sink::FlowSink,
        stage::{SwitchIn, SwitchOut},
        topology::{SwitchPortInput, SwitchTraits},
    },
    expr::lexer::quote,
};

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    let (object, why) = (&switch.object, "Nothing is to be remembered of who sent it.");
    sink.add(SwitchIn::PutFdb, 0, "1", "next;", object, why);
    sink.add(SwitchOut::PutFdb, 0, "1", "next;", object, why);
    if switch.has_stations {
        let why = "Nobody was given the address; some station may have been seen with it.";
        sink.add(SwitchIn::L2Lkup, 0, "1", "outport = get_fdb(eth.dst); next;", object, why);
        let why = "A station has been seen there with the address.";
        sink.add(SwitchIn::L2Unknown, 50, "reg0[11] == 1", "output;", object, why);
    }
}

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    if !input.port.enabled || !input.port.has_stations() {
        return;
    }
    let inport = format!("inport == {}", quote(input.id));
    let put = format!("put_fdb(inport, eth.src, {}); next;", input.switch.options.station_age);
    let why = "The port may have any station behind it: where this one is is remembered.";
    sink.add(SwitchIn::PutFdb, 100, inport.clone(), put.clone(), &input.object, why);
    let why = "A station on another host has spoken: where it is is remembered.";
    let there = format!("{inport} && flags.from_tunnel");
    sink.add(SwitchOut::PutFdb, 100, there, put, &input.object, why);
}
