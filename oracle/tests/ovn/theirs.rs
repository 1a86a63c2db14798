//! The network in the words of ovn-nbctl(8), and what ovn-trace(8) says.

use oracle::ovs::ovn::Ovn;

use crate::{
    Verdict,
    packet::{Probe, SRC_PORT, Speech, TTL},
    summary,
    translations::{Place, endpoint},
    world::{self, SWITCHES, World, router_mac, router_networks},
};

/// Replaces the network.
pub(crate) fn set(ovn: &Ovn, world: &World) {
    for kind in ["Logical_Switch", "Logical_Router", "Port_Group", "Address_Set", "Load_Balancer"] {
        let all = ovn.nbctl(&["--bare", "--columns=_uuid", "list", kind]).unwrap();
        let mut words: Vec<&str> = Vec::new();
        for id in all.split_whitespace() {
            words.extend(["--", "destroy", kind, id]);
        }
        if !words.is_empty() {
            ovn.nbctl(&words).unwrap();
        }
    }
    let commands = commands(world);
    let mut words: Vec<String> = Vec::new();
    for command in &commands {
        words.push("--".to_owned());
        words.extend(split(command));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    ovn.nbctl(&words).unwrap();
    ovn.sync().unwrap();
}

/// Words; what is in `'` is one.
fn split(command: &str) -> Vec<String> {
    let parts = command.split('\'').enumerate();
    parts
        .flat_map(|(n, part)| {
            if n % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        })
        .collect()
}

/// The network as commands.
pub(crate) fn commands(world: &World) -> Vec<String> {
    let mut commands: Vec<String> =
        SWITCHES[..world.n_switches].iter().map(|switch| format!("ls-add {switch}")).collect();
    for port in &world.ports {
        let id = port.id();
        let own = format!("{} {} {}", port.mac(), port.ip(true), port.ip(false));
        commands.push(format!("lsp-add {} {id}", SWITCHES[port.switch]));
        let unknown = if port.takes_unknown { " unknown" } else { "" };
        commands.push(format!("lsp-set-addresses {id} '{own}'{unknown}"));
        if port.is_secured {
            commands.push(format!("lsp-set-port-security {id} '{own}'"));
        }
    }
    if world.routers.len() > 1 {
        commands.push("ls-add j".to_owned());
    }
    for (router, switches) in world.routers.iter().enumerate() {
        commands.push(format!("lr-add r{router}"));
        if world.places[router] == Place::OneHost {
            commands.push(format!("set Logical_Router r{router} options:chassis=h"));
        }
        let between = (world.routers.len() > 1).then_some(None);
        for switch in switches.iter().copied().map(Some).chain(between) {
            let on = switch.map_or("j", |switch| SWITCHES[switch]);
            let [v4, v6] = router_networks(router, switch);
            commands
                .push(format!("lrp-add r{router} r{router}-{on} {} {v4} {v6}", router_mac(router, switch)));
            if world.places[router] == Place::Gateway(switch) {
                commands.push(format!("lrp-set-gateway-chassis r{router}-{on} h"));
            }
            if switch.is_some_and(|switch| world.red.contains(&(router, switch))) {
                commands.push(format!("lrp-set-options r{router}-{on} route_table=red"));
            }
            commands.push(format!("lsp-add {on} {on}-r{router}"));
            commands.push(format!("lsp-set-type {on}-r{router} router"));
            commands.push(format!("lsp-set-addresses {on}-r{router} router"));
            commands.push(format!("lsp-set-options {on}-r{router} router-port=r{router}-{on}"));
        }
    }
    for route in &world.routes {
        let policy = if route.is_by_source { "src-ip" } else { "dst-ip" };
        let hop = route.hop.as_deref().unwrap_or("discard");
        let table = if route.is_red { " --route-table=red" } else { "" };
        let (router, prefix) = (route.router, &route.prefix);
        commands.push(format!("--policy={policy}{table} lr-route-add r{router} {prefix} {hop}"));
    }
    for (set, members) in world.sets.iter().enumerate() {
        let members: Vec<_> = members.iter().map(|member| format!("\"{member}\"")).collect();
        commands
            .push(format!("--id=@as{set} create Address_Set name=as{set} 'addresses={}'", members.join(",")));
    }
    for (group, members) in world.groups.iter().enumerate() {
        let members: Vec<_> = members.iter().map(|port| world.ports[*port].id()).collect();
        commands.push(format!("pg-add g{group} {}", members.join(" ")));
    }
    for policy in &world.policies {
        let world::Policy { router, priority, matching, action, hop } = policy;
        let hop = hop.as_deref().unwrap_or_default();
        commands.push(format!("lr-policy-add r{router} {priority} '{matching}' {action} {hop}"));
    }
    commands.extend(translations(world));
    for acl in &world.acls {
        let (kind, owner) = match acl.group {
            Some(group) => ("port-group", format!("g{group}")),
            None => ("switch", SWITCHES[acl.switch].to_owned()),
        };
        let direction = if acl.is_inbound { "to-lport" } else { "from-lport" };
        let (priority, matching, action) = (acl.priority, &acl.matching, acl.action);
        commands.push(format!("--type={kind} acl-add {owner} {direction} {priority} '{matching}' {action}"));
    }
    commands
}

/// What changes addresses, as commands.
fn translations(world: &World) -> Vec<String> {
    let mut commands = Vec::new();
    for (n, balancer) in world.balancers.iter().enumerate() {
        let backend = balancer
            .backend
            .map(|(backend, port)| endpoint(&world.ports[backend].ip(balancer.is_v4), balancer.is_v4, port));
        let (reject, protocol) = (if balancer.is_refusing { "--reject " } else { "" }, balancer.protocol);
        let backend = backend.unwrap_or_default();
        commands.push(format!("{reject}lb-add lb{n} {} '{backend}' {protocol}", balancer.endpoint()));
        commands
            .extend(balancer.switches.iter().map(|switch| format!("ls-lb-add {} lb{n}", SWITCHES[*switch])));
        commands.extend(balancer.routers.iter().map(|router| format!("lr-lb-add r{router} lb{n}")));
    }
    for (n, nat) in world.nats.iter().enumerate() {
        let (router, kind) = (nat.router, nat.kind.name());
        let (outside, inside) = (&nat.external, &nat.logical);
        let mut row = format!("type={kind} 'external_ip=\"{outside}\"' 'logical_ip=\"{inside}\"'");
        if nat.is_stateless {
            row += " options:stateless=true";
        }
        if let Some((idx, mac)) = &nat.distributed {
            row += &format!(" logical_port={} 'external_mac=\"{mac}\"'", world.ports[*idx].id());
        }
        if let Some((set, is_exempted)) = nat.peers {
            row += &format!(" {}_ext_ips=@as{set}", if is_exempted { "exempted" } else { "allowed" });
        }
        commands.push(format!("--id=@n{n} create NAT {row}"));
        commands.push(format!("add Logical_Router r{router} nat @n{n}"));
    }
    commands
}

/// What becomes of a packet, and how ovn-trace tells it.
pub(crate) fn trace(ovn: &Ovn, world: &World, probe: &Probe) -> (String, Verdict) {
    let port = &world.ports[probe.from];
    let version = if probe.is_v4 { 4 } else { 6 };
    let said = match probe.speech {
        Speech::Tcp(dst) => format!("tcp.src == {SRC_PORT} && tcp.dst == {dst} && tcp.flags == 2"),
        Speech::Udp(dst) => format!("udp.src == {SRC_PORT} && udp.dst == {dst}"),
        Speech::Ping if probe.is_v4 => "icmp4.type == 8 && icmp4.code == 0".to_owned(),
        Speech::Ping => "icmp6.type == 128 && icmp6.code == 0".to_owned(),
    };
    let Probe { eth_src, eth_dst, src, dst, .. } = probe;
    let packet = format!(
        "inport == \"{}\" && eth.src == {eth_src} && eth.dst == {eth_dst} && ip{version}.src == {src} && \
         ip{version}.dst == {dst} && ip.ttl == {TTL} && {said}",
        port.id()
    );
    let state = if probe.is_established { "est" } else { "new" };
    let text = ovn.trace(SWITCHES[port.switch], &packet, state).unwrap();
    let verdict = summary::read(&text, probe.headers());
    (text, verdict)
}
