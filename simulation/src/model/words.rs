//! What users say, in the words of the API.

use ferroflow_proto::northbound::{self as pb, acl, operation::Op as Asked, resource::Spec};

use super::{
    Acl, Action, Balancer, Group, Mac, Nat, NatKind, Net, Op, Owner, Port, Switch, Term, ipv6, nat_ip,
    router_ip, router_mac,
};

/// A MAC address as text.
pub(super) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn resource(name: String, spec: Spec) -> pb::Resource {
    pb::Resource { name, spec: Some(spec), ..Default::default() }
}

fn put(name: String, spec: Spec) -> pb::Operation {
    let resource = Some(resource(name, spec));
    let update = pb::Update { resource, update_mask: None, allow_missing: true };
    pb::Operation { op: Some(Asked::Update(update)) }
}

fn delete(name: String) -> pb::Operation {
    pb::Operation { op: Some(Asked::Delete(pb::Delete { name, allow_missing: true })) }
}

fn port_name(switch: u8, id: &str) -> String {
    format!("switches/s{switch}/ports/{id}")
}

fn acl_name(owner: Owner, id: u8) -> String {
    match owner {
        Owner::Switch(switch) => format!("switches/s{switch}/acls/a{id}"),
        Owner::Group(group) => format!("port-groups/g{group}/acls/a{id}"),
    }
}

impl Op {
    /// As operations of a transaction.
    pub fn words(&self, net: &Net) -> Vec<pb::Operation> {
        match self {
            Self::Switch(id, switch) => vec![put(format!("switches/s{id}"), switch_spec(switch))],
            Self::NoSwitch(id) => vec![delete(format!("switches/s{id}"))],
            Self::Port(id, port) => vec![put(port_name(port.switch, id), port_spec(port))],
            Self::NoPort(switch, id) => vec![delete(port_name(*switch, id))],
            Self::Router(id, enabled) => {
                let router = pb::LogicalRouter { enabled: Some(*enabled), ..Default::default() };
                vec![put(format!("routers/r{id}"), Spec::LogicalRouter(router))]
            }
            Self::Link(router, switch, gateways) => {
                let (ours, theirs) = link_names(*router, *switch);
                let (near, far) = link_specs(*router, *switch, gateways, &ours);
                vec![put(ours, near), put(theirs, far)]
            }
            Self::NoLink(router, switch) => {
                let (ours, theirs) = link_names(*router, *switch);
                vec![delete(theirs), delete(ours)]
            }
            Self::Nat(router, id, nat) => vec![put(nat_name(*router, *id), nat_spec(*router, *id, nat))],
            Self::NoNat(router, id) => vec![delete(nat_name(*router, *id))],
            Self::Acl(owner, id, acl) => vec![put(acl_name(*owner, *id), acl_spec(acl))],
            Self::NoAcl(owner, id) => vec![delete(acl_name(*owner, *id))],
            Self::Set(id, members) => vec![put(format!("address-sets/as{id}"), set_spec(members))],
            Self::Group(id, group) => vec![put(format!("port-groups/g{id}"), group_spec(group, net))],
            Self::Balancer(id, balancer) => {
                vec![put(format!("load-balancers/lb{id}"), balancer_spec(balancer))]
            }
            Self::NoBalancer(id) => vec![delete(format!("load-balancers/lb{id}"))],
        }
    }
}

impl Net {
    /// All that the API should have, without what it says by itself.
    pub fn resources(&self) -> Vec<pb::Resource> {
        let mut all = Vec::new();
        let mut add = |name: String, spec: Spec| all.push(resource(name, spec));
        for (id, switch) in &self.switches {
            add(format!("switches/s{id}"), switch_spec(switch));
        }
        for (id, port) in &self.ports {
            add(port_name(port.switch, id), port_spec(port));
        }
        for (id, enabled) in &self.routers {
            let router = pb::LogicalRouter { enabled: Some(*enabled), ..Default::default() };
            add(format!("routers/r{id}"), Spec::LogicalRouter(router));
        }
        for ((router, switch), gateways) in &self.links {
            let (ours, theirs) = link_names(*router, *switch);
            let (near, far) = link_specs(*router, *switch, gateways, &ours);
            add(ours, near);
            add(theirs, far);
        }
        for ((router, id), nat) in &self.nats {
            add(nat_name(*router, *id), nat_spec(*router, *id, nat));
        }
        for ((owner, id), acl) in &self.acls {
            add(acl_name(*owner, *id), acl_spec(acl));
        }
        for (id, members) in &self.sets {
            add(format!("address-sets/as{id}"), set_spec(members));
        }
        for (id, group) in &self.groups {
            add(format!("port-groups/g{id}"), group_spec(group, self));
        }
        for (id, balancer) in &self.balancers {
            add(format!("load-balancers/lb{id}"), balancer_spec(balancer));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn switch_spec(switch: &Switch) -> Spec {
    let policy = if switch.drops { pb::DefaultPolicy::Drop } else { pb::DefaultPolicy::Unspecified };
    let load_balancers = switch.balancers.iter().map(|id| format!("load-balancers/lb{id}")).collect();
    Spec::LogicalSwitch(pb::LogicalSwitch {
        load_balancers,
        default_policy: policy.into(),
        ..Default::default()
    })
}

fn port_spec(port: &Port) -> Spec {
    let own = format!("{} {} {}", mac_text(port.mac), port.ip, ipv6(port.ip));
    let hosts = |host: Option<u8>| host.map(|host| format!("chassis/h{host}")).into_iter().collect();
    Spec::LogicalSwitchPort(pb::LogicalSwitchPort {
        addresses: vec![own.clone()],
        port_security: if port.secure { vec![own] } else { Vec::new() },
        enabled: Some(port.enabled),
        requested_chassis: hosts(port.requested),
        requested_additional_chassis: hosts(port.additional),
        ..Default::default()
    })
}

fn link_names(router: u8, switch: u8) -> (String, String) {
    (format!("routers/r{router}/ports/r{router}s{switch}"), port_name(switch, &format!("s{switch}r{router}")))
}

fn link_specs(router: u8, switch: u8, gateways: &[u8], router_port: &str) -> (Spec, Spec) {
    let candidates = gateways.iter().zip((0..30).rev());
    let gateway_chassis = candidates
        .map(|(host, priority)| pb::GatewayChassis { chassis: format!("chassis/h{host}"), priority });
    let near = pb::LogicalRouterPort {
        mac: mac_text(router_mac(router, switch)),
        networks: vec![
            format!("{}/24", router_ip(router, switch)),
            format!("{}/120", ipv6(router_ip(router, switch))),
        ],
        gateway_chassis: gateway_chassis.collect(),
        ..Default::default()
    };
    let far = pb::LogicalSwitchPort {
        r#type: pb::logical_switch_port::Type::Router.into(),
        router_port: router_port.to_owned(),
        ..Default::default()
    };
    (Spec::LogicalRouterPort(near), Spec::LogicalSwitchPort(far))
}

fn nat_name(router: u8, id: u8) -> String {
    format!("routers/r{router}/nats/n{id}")
}

fn nat_spec(router: u8, id: u8, nat: &Nat) -> Spec {
    use pb::nat::Type;
    let (kind, logical_ip) = match nat.kind {
        NatKind::Source(switch) => (Type::Snat, format!("10.{switch}.0.0/24")),
        NatKind::Destination(ip) => (Type::Dnat, ip.to_string()),
        NatKind::Floating(ip) => (Type::DnatAndSnat, ip.to_string()),
    };
    let external_ip = nat_ip(router, id, nat.outside).to_string();
    Spec::Nat(pb::Nat { r#type: kind.into(), external_ip, logical_ip, ..Default::default() })
}

fn acl_spec(acl: &Acl) -> Spec {
    let action = match acl.action {
        Action::Allow => acl::Action::Allow,
        Action::AllowRelated => acl::Action::AllowRelated,
        Action::AllowStateless => acl::Action::AllowStateless,
        Action::Drop => acl::Action::Drop,
        Action::Reject => acl::Action::Reject,
    };
    let direction = if acl.is_from { acl::Direction::FromLport } else { acl::Direction::ToLport };
    let terms: Vec<_> = acl.terms.iter().map(|term| term_text(term, acl.is_from)).collect();
    Spec::Acl(pb::Acl {
        direction: direction.into(),
        priority: acl.priority.into(),
        r#match: terms.join(" && "),
        action: action.into(),
        ..Default::default()
    })
}

fn term_text(term: &Term, is_from: bool) -> String {
    let (own, peer) = if is_from { ("inport", "dst") } else { ("outport", "src") };
    let range = |field: &str, least: &u16, most: &u16| {
        if least == most {
            format!("{field} == {least}")
        } else {
            format!("{field} >= {least} && {field} <= {most}")
        }
    };
    match term {
        Term::Ip4 => "ip4".to_owned(),
        Term::Ip6 => "ip6".to_owned(),
        Term::Source(set, false) => format!("ip4.src == $as{set}"),
        Term::Source(set, true) => format!("ip4 && ip4.src != $as{set}"),
        Term::Destination(set) => format!("ip4.dst == $as{set}"),
        Term::Udp(least, most) => range("udp.dst", least, most),
        Term::Tcp(least, most) => range("tcp.dst", least, most),
        Term::Member(group) => format!("{own} == @g{group}"),
        Term::Peer(group) => format!("(ip4.{peer} == $g{group}_ip4 || ip6.{peer} == $g{group}_ip6)"),
        Term::Is(port) => format!("{own} == \"{port}\""),
    }
}

fn set_spec(members: &std::collections::BTreeSet<std::net::Ipv4Addr>) -> Spec {
    Spec::AddressSet(pb::AddressSet { addresses: members.iter().map(ToString::to_string).collect() })
}

fn group_spec(group: &Group, net: &Net) -> Spec {
    let policy = if group.drops { pb::DefaultPolicy::Drop } else { pb::DefaultPolicy::Unspecified };
    let members = group.ports.iter().filter_map(|id| Some(port_name(net.ports.get(id)?.switch, id)));
    Spec::PortGroup(pb::PortGroup { ports: members.collect(), default_policy: policy.into() })
}

fn balancer_spec(balancer: &Balancer) -> Spec {
    let backends = balancer
        .backends
        .iter()
        .map(|(ip, port)| pb::Backend { address: format!("{ip}:{port}"), ..Default::default() });
    let vip =
        pb::Vip { address: format!("{}:{}", balancer.vip, balancer.port), backends: backends.collect() };
    Spec::LoadBalancer(pb::LoadBalancer {
        protocol: pb::load_balancer::Protocol::Udp.into(),
        vips: vec![vip],
        ..Default::default()
    })
}
