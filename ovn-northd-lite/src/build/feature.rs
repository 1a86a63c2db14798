//! What a feature is: one function from what it names to flows.
//!
//! A network is compiled in units: the switch itself, each of its ports, each of its ACLs
//! and so on. The kind of a feature says of which units it makes flows, and the type of
//! its argument is all that it can see, so it is also the list of what it depends on.
//! When something changes, [`crate::Compiler`] builds the units again that can see it.
//!
//! What a feature needs to know of the whole datapath (is there a load balancer, are
//! connections tracked) is in the datapath's traits: small, owned, compared by value. When
//! they change, all units of the datapath are built again, and when they come out the
//! same, none.

use super::{
    gateway, router,
    sink::FlowSink,
    switch,
    topology::{
        AclInput, NatInput, NeighbourInput, PolicyInput, QosInput, RouteInput, RouterBalancerInput,
        RouterGroupInput, RouterPorts, RouterScope, SwitchBalancerInput, SwitchGroupInput, SwitchPortInput,
        SwitchScope, SwitchTraits,
    },
    unit::{DatapathHead, Item, Output},
};

/// Makes flows of what it is shown.
type Build<Input> = fn(&Input, &mut FlowSink);

/// A feature of switches.
#[derive(Clone, Copy)]
pub(crate) enum SwitchFeature {
    /// Once for the switch.
    Switch(Build<SwitchTraits>),
    /// For each port.
    Port(for<'a> fn(&SwitchPortInput<'a>, &mut FlowSink)),
    /// For the ACLs with the same match and precedence.
    Acl(for<'a> fn(&AclInput<'a>, &mut FlowSink)),
    /// For each rule about quality of service.
    Qos(for<'a> fn(&QosInput<'a>, &mut FlowSink)),
    /// For each load balancer that its workloads use.
    Balancer(for<'a> fn(&SwitchBalancerInput<'a>, &mut FlowSink)),
    /// For each group that somebody wants to hear.
    Group(for<'a> fn(&SwitchGroupInput<'a>, &mut FlowSink)),
}

/// A feature of routers. All of them see the router's ports.
#[derive(Clone, Copy)]
pub(crate) enum RouterFeature {
    /// Once for the router.
    Router(for<'a> fn(&RouterPorts<'a>, &mut FlowSink)),
    /// For the static routes with the same prefix.
    Route(for<'a> fn(&RouteInput<'a>, &mut FlowSink)),
    /// For each policy.
    Policy(for<'a> fn(&PolicyInput<'a>, &mut FlowSink)),
    /// For each address translation.
    Nat(for<'a> fn(&NatInput<'a>, &mut FlowSink)),
    /// For each of its load balancers.
    Balancer(for<'a> fn(&RouterBalancerInput<'a>, &mut FlowSink)),
    /// For each group that somebody on its networks wants to hear.
    Group(for<'a> fn(&RouterGroupInput<'a>, &mut FlowSink)),
    /// For each other port of the switches linked to its ports.
    Neighbour(for<'a> fn(&NeighbourInput<'a>, &mut FlowSink)),
}

/// One unit of a switch; nothing if it does not exist.
pub(crate) fn build_switch(scope: &SwitchScope<'_>, item: &Item) -> Output {
    let mut sink = FlowSink::new(scope.traits.key);
    match item {
        Item::Datapath => {
            let SwitchTraits { object, limits, options, .. } = scope.traits;
            sink.datapath(DatapathHead {
                name: object.clone(),
                is_router: false,
                limits: limits.clone(),
                snooping: options.snooping.clone(),
                max_connections: options.max_connections,
                snat_zone: None,
            });
            each(switch::FEATURES, &mut sink, |feature, sink| {
                let SwitchFeature::Switch(build) = feature else { return };
                build(scope.traits, sink);
            });
        }
        Item::Port(id) => {
            let Some(input) = scope.port(id) else { return Output::default() };
            sink.binding(id, input.binding());
            each(switch::FEATURES, &mut sink, |feature, sink| {
                let SwitchFeature::Port(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Acls(place) => {
            let Some(input) = scope.acls(place) else { return Output::default() };
            each(switch::FEATURES, &mut sink, |feature, sink| {
                let SwitchFeature::Acl(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Qos(id) => {
            let Some(input) = scope.qos(id) else { return Output::default() };
            each(switch::FEATURES, &mut sink, |feature, sink| {
                let SwitchFeature::Qos(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Balancer(id) => {
            let Some(input) = scope.balancer(id) else { return Output::default() };
            each(switch::FEATURES, &mut sink, |feature, sink| {
                let SwitchFeature::Balancer(build) = feature else { return };
                build(&input, sink);
            });
            // Where it does nothing it has no connections.
            if input.balancer.balancer.flushes && sink.has_flows() {
                sink.backends(id);
            }
        }
        Item::Group(ip) => {
            let Some(input) = scope.group(*ip) else { return Output::default() };
            each(switch::FEATURES, &mut sink, |feature, sink| {
                let SwitchFeature::Group(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Route(..) | Item::Policy(_) | Item::Nat(_) | Item::Neighbour(..) => {}
    }
    sink.finish()
}

/// One unit of a router; nothing if it does not exist.
pub(crate) fn build_router(scope: &RouterScope<'_>, item: &Item) -> Output {
    let mut sink = FlowSink::new(scope.traits.key);
    let ports = scope.ports();
    match item {
        Item::Datapath => {
            sink.datapath(DatapathHead {
                name: scope.traits.object.clone(),
                is_router: true,
                limits: scope.traits.limits.clone(),
                snooping: None,
                max_connections: scope.traits.options.max_connections,
                snat_zone: scope.traits.options.snat_zone,
            });
            each(router::FEATURES, &mut sink, |feature, sink| {
                let RouterFeature::Router(build) = feature else { return };
                build(&ports, sink);
            });
        }
        Item::Port(id) => {
            let Some(binding) = scope.binding(id) else { return Output::default() };
            let bridges = ports.ports.get(id).is_some_and(|port| port.bridges);
            let redirect = gateway::redirect(id, &binding, bridges);
            redirect.into_iter().for_each(|(id, binding)| sink.binding(&id, binding));
            // The only host that a router is on has nobody to tell.
            if binding.chassis.is_none() {
                sink.heard(id);
            }
            sink.binding(id, binding);
        }
        Item::Route(by, prefix) => {
            let Some(input) = scope.route(*by, *prefix) else { return Output::default() };
            each(router::FEATURES, &mut sink, |feature, sink| {
                let RouterFeature::Route(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Policy(id) => {
            let Some(input) = scope.policy(id) else { return Output::default() };
            each(router::FEATURES, &mut sink, |feature, sink| {
                let RouterFeature::Policy(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Nat(id) => {
            let Some(input) = scope.nat(id) else { return Output::default() };
            each(router::FEATURES, &mut sink, |feature, sink| {
                let RouterFeature::Nat(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Balancer(id) => {
            let Some(input) = scope.balancer(id) else { return Output::default() };
            each(router::FEATURES, &mut sink, |feature, sink| {
                let RouterFeature::Balancer(build) = feature else { return };
                build(&input, sink);
            });
            // Where it does nothing it has no connections.
            if input.balancer.balancer.flushes && sink.has_flows() {
                sink.backends(id);
            }
        }
        Item::Group(ip) => {
            let Some(input) = scope.group(*ip) else { return Output::default() };
            each(router::FEATURES, &mut sink, |feature, sink| {
                let RouterFeature::Group(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Neighbour(port, switch_port) => {
            let Some(input) = scope.neighbour(port, switch_port) else { return Output::default() };
            each(router::FEATURES, &mut sink, |feature, sink| {
                let RouterFeature::Neighbour(build) = feature else { return };
                build(&input, sink);
            });
        }
        Item::Acls(_) | Item::Qos(_) => {}
    }
    sink.finish()
}

/// Runs the features in their order.
fn each<F: Copy>(features: &[F], sink: &mut FlowSink, build: impl Fn(F, &mut FlowSink)) {
    for (rank, feature) in (0..).zip(features) {
        sink.set_rank(rank);
        build(*feature, sink);
    }
}
