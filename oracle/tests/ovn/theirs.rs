//! The network in the words of ovn-nbctl(8), and what ovn-trace(8) says.

use oracle::ovs::ovn::Ovn;

use crate::{
    Verdict,
    packet::{Probe, Speech},
    world::{SWITCHES, World, router_mac, router_networks},
};

/// Replaces the network.
pub(crate) fn set(ovn: &Ovn, world: &World) {
    for kind in ["Logical_Switch", "Logical_Router", "Port_Group", "Address_Set"] {
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
        let between = (world.routers.len() > 1).then_some(None);
        for switch in switches.iter().copied().map(Some).chain(between) {
            let on = switch.map_or("j", |switch| SWITCHES[switch]);
            let [v4, v6] = router_networks(router, switch);
            commands
                .push(format!("lrp-add r{router} r{router}-{on} {} {v4} {v6}", router_mac(router, switch)));
            commands.push(format!("lsp-add {on} {on}-r{router}"));
            commands.push(format!("lsp-set-type {on}-r{router} router"));
            commands.push(format!("lsp-set-addresses {on}-r{router} router"));
            commands.push(format!("lsp-set-options {on}-r{router} router-port=r{router}-{on}"));
        }
    }
    for route in &world.routes {
        let policy = if route.is_by_source { "src-ip" } else { "dst-ip" };
        let hop = route.hop.as_deref().unwrap_or("discard");
        commands.push(format!("--policy={policy} lr-route-add r{} {} {hop}", route.router, route.prefix));
    }
    for (set, members) in world.sets.iter().enumerate() {
        let members: Vec<_> = members.iter().map(|member| format!("\"{member}\"")).collect();
        commands.push(format!("create Address_Set name=as{set} 'addresses={}'", members.join(",")));
    }
    for (group, members) in world.groups.iter().enumerate() {
        let members: Vec<_> = members.iter().map(|port| world.ports[*port].id()).collect();
        commands.push(format!("pg-add g{group} {}", members.join(" ")));
    }
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

/// What becomes of a packet, and how ovn-trace tells it.
pub(crate) fn trace(ovn: &Ovn, world: &World, probe: &Probe) -> (String, Verdict) {
    let port = &world.ports[probe.from];
    let version = if probe.is_v4 { 4 } else { 6 };
    let said = match probe.speech {
        Speech::Tcp(dst) => format!("tcp.src == 49152 && tcp.dst == {dst} && tcp.flags == 2"),
        Speech::Udp(dst) => format!("udp.src == 49152 && udp.dst == {dst}"),
        Speech::Ping if probe.is_v4 => "icmp4.type == 8 && icmp4.code == 0".to_owned(),
        Speech::Ping => "icmp6.type == 128 && icmp6.code == 0".to_owned(),
    };
    let Probe { eth_src, eth_dst, src, dst, .. } = probe;
    let packet = format!(
        "inport == \"{}\" && eth.src == {eth_src} && eth.dst == {eth_dst} && ip{version}.src == {src} && \
         ip{version}.dst == {dst} && ip.ttl == 64 && {said}",
        port.id()
    );
    let state = if probe.is_established { "est" } else { "new" };
    let text = ovn.trace(SWITCHES[port.switch], &packet, state).unwrap();
    let (steps, made) = steps(&text);
    let made_any = |words: &[&str]| made.iter().any(|word| words.contains(word));
    let outputs = steps.iter().filter_map(|step| step.strip_prefix("output(\"")?.split('"').next());
    let verdict = Verdict {
        ports: outputs.map(str::to_owned).collect(),
        is_refused: made_any(&ANSWERS),
        asks: made_any(&QUESTIONS),
    };
    (text, verdict)
}

/// Packets that OVN makes of the one that is traced.
const ANSWERS: [&str; 3] = ["tcp_reset", "icmp4", "icmp6"];
const QUESTIONS: [&str; 2] = ["arp", "nd_ns"];

/// The steps of the packet itself, and the words that make another of it. What becomes of the other stands in
/// a block further in: its way is not compared, and ovn-trace takes it for the first packet there.
fn steps(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut steps, mut made) = (Vec::new(), Vec::new());
    let mut block_at = None;
    for line in text.lines() {
        let step = line.trim_start();
        let depth = line.len() - step.len();
        if let Some(at) = block_at {
            if depth > at || step.is_empty() {
                continue;
            }
            block_at = None;
        }
        match step.split_once([' ', ';']) {
            Some((word, rest)) if ANSWERS.contains(&word) || QUESTIONS.contains(&word) => {
                made.push(word);
                block_at = (rest == "{").then_some(depth);
            }
            _ => steps.push(step),
        }
    }
    (steps, made)
}
