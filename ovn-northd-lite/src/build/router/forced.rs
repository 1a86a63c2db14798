//! Sources that a router of one chassis hides behind an address of its own: of connections
//! that it balances, or whose destination it translates. Answers come back to it then,
//! whatever way the backend would send them. What a load balancer says about the sources of
//! its connections is kept with each of them, as in OVN.

use std::net::IpAddr;

use super::ip_input::stand_in;
use crate::{
    build::{
        balancer::family,
        sink::FlowSink,
        stage::{RouterIn, RouterOut},
        topology::RouterPorts,
    },
    model::Responder,
};

pub(super) fn router(input: &RouterPorts<'_>, sink: &mut FlowSink) {
    let (object, options) = (&input.router.object, &input.router.options);
    if input.router.connects {
        let known = "ct.est && !ct.rel && !ct.new && !ct.rpl && ct_mark.natted";
        let why = "What was said about the connection's source when it began holds on.";
        for (mark, flag) in [("skip_snat", "skip_snat_for_lb"), ("force_snat", "force_snat_for_lb")] {
            let matching = format!("{known} && ct_mark.{mark}");
            sink.add(RouterIn::Dnat, 70, matching, format!("flags.{flag} = 1; next;"), object, why);
        }
        let why = "The load balancer wants the connection's source to be left alone.";
        sink.add(RouterOut::Snat, 65_000, "flags.skip_snat_for_lb == 1", "next;", object, why);
    }
    let of =
        [("force_snat_for_lb", &options.balancer_sources), ("force_snat_for_dnat", &options.dnat_sources)];
    for (flag, sources) in of {
        for source in sources {
            hide(*source, flag, object, sink);
            stand_in(input, (*source, Responder::Reachable), object, sink);
        }
    }
}

fn hide(source: IpAddr, flag: &str, object: &str, sink: &mut FlowSink) {
    let family = family(source);
    let why = "It may be the answer of somebody from whom the source was hidden.";
    sink.add(RouterIn::UnSnat, 110, format!("{family}.dst == {source}"), "ct_snat;", object, why);
    let why = "The connection's source is hidden from who serves it.";
    let matching = format!("flags.{flag} == 1 && {family}");
    sink.add(RouterOut::Snat, 64_000, matching, format!("ct_snat({source});"), object, why);
}
