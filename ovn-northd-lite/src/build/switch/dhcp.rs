//! DHCP for workloads: the host that a workload is on answers for the network, with what
//! the port's options say, or the switch's. A client is served for its own MAC address and
//! its first address in the options' network. One that is in the network outside is served
//! by the host that has its port, by what comes from there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    build::{
        address::{link_local, one_of},
        sink::FlowSink,
        stage::SwitchIn,
        switch::arp_reply,
        topology::{SwitchPortInput, SwitchTraits},
    },
    dhcp::{OptionV4, Value},
    expr::lexer::quote,
    model::{Access, DhcpOptions, DhcpV4, DhcpV6, IpNetwork, PortAddresses, PortServices, SwitchPortKind},
};

pub(super) fn switch(switch: &SwitchTraits, sink: &mut FlowSink) {
    let (ask, answer) = (SwitchIn::DhcpOptions, SwitchIn::DhcpResponse);
    sink.add(ask, 0, "1", "next;", &switch.object, "Not a question for the network's DHCP.");
    sink.add(answer, 0, "1", "next;", &switch.object, "Not an answer of the network's DHCP.");
}

pub(super) fn port(input: &SwitchPortInput<'_>, sink: &mut FlowSink) {
    let SwitchPortInput { switch, id, port, object, dhcp, .. } = input;
    let SwitchPortKind::Workload { addresses, access, .. } = &port.kind else { return };
    let place = match access {
        Access::External(_) => {
            let networks: Vec<_> = switch.networks.iter().map(|network| quote(network)).collect();
            if networks.is_empty() {
                return;
            }
            format!("inport == {} && is_chassis_resident({})", one_of(&networks), quote(id))
        }
        _ => format!("inport == {}", quote(id)),
    };
    for address in addresses.iter().filter(|_| port.enabled && access.has_frames()) {
        let is_external = matches!(access, Access::External(_));
        let client = Client { object, place: &place, is_external, address, services: &port.services };
        for (options_id, options) in dhcp {
            match options {
                DhcpOptions::V4(options) => client.v4(options_id, options, sink),
                DhcpOptions::V6(options) => client.v6(options_id, options, sink),
            }
        }
    }
}

/// A workload with one of its MAC addresses.
struct Client<'a> {
    object: &'a str,
    /// Packets from where it is, on the host that answers it.
    place: &'a str,
    is_external: bool,
    address: &'a PortAddresses,
    services: &'a PortServices,
}

impl Client<'_> {
    fn first_in(&self, network: &IpNetwork) -> Option<IpAddr> {
        self.address.ips.iter().copied().find(|ip| network.contains(*ip))
    }

    fn from(&self) -> String {
        format!("{} && eth.src == {}", self.place, self.address.mac)
    }

    /// Who is told where the server is. In a network outside that is this client alone: the
    /// address may be somebody's there.
    fn asks(&self) -> String {
        if self.is_external { self.from() } else { self.place.to_owned() }
    }

    fn v4(&self, options_id: &str, dhcp: &DhcpV4, sink: &mut FlowSink) {
        let Some(IpAddr::V4(ip)) = self.first_in(&dhcp.network) else { return };
        let (server, mac) = (dhcp.server_ip, dhcp.server_mac);
        let mut options = dhcp.options.clone();
        if let Some(name) = &self.services.hostname {
            options.insert(OptionV4::HOSTNAME, Value::Text(name.clone()));
        }
        let options: Vec<_> =
            options.iter().map(|(option, value)| format!("{} = {}", option.name(), value.print())).collect();
        let from = self.from();
        let question = format!(
            "{from} && ip4.dst == {{{}, {server}}} && udp.src == 68 && udp.dst == 67 && !ip.is_frag",
            Ipv4Addr::BROADCAST
        );
        let ask = format!("reg0[3] = put_dhcp_opts(offerip = {ip}, {}); next;", options.join(", "));
        let why = format!("The port's DHCP is dhcp-options/{options_id}.");
        sink.add(SwitchIn::DhcpOptions, 100, question, ask, self.object, &why);
        let matching = format!("{from} && ip4 && udp.src == 68 && udp.dst == 67 && reg0[3] == 1");
        let actions = format!(
            "eth.dst = eth.src; eth.src = {mac}; ip4.src = {server}; udp.src = 67; udp.dst = 68; {BACK}"
        );
        sink.add(SwitchIn::DhcpResponse, 100, matching, actions, self.object, ANSWERED);
        // Clients renew by unicast: where no router has the server's address, which is asked
        // before, nobody else says where it is.
        let matching = format!("{} && arp.op == 1 && arp.tpa == {server} && eth.bcast", self.asks());
        let reply = arp_reply(mac, &format!("arp.tpa = arp.spa; arp.spa = {server};"));
        let why = "The address is that of the network's DHCP.";
        sink.add(SwitchIn::L2Lkup, 75, matching, reply, self.object, why);
    }

    fn v6(&self, options_id: &str, dhcp: &DhcpV6, sink: &mut FlowSink) {
        let ip = match self.first_in(&dhcp.network) {
            Some(IpAddr::V6(ip)) => Some(ip).filter(|_| !dhcp.is_stateless),
            _ => return,
        };
        let mac = dhcp.server_mac;
        let ip = ip.map(|ip| format!("ia_addr = {ip}"));
        let server = format!("server_id = {mac}");
        let options =
            dhcp.options.iter().map(|(option, value)| format!("{} = {}", option.name(), value.print()));
        let arguments: Vec<_> = ip.into_iter().chain([server]).chain(options).collect();
        let from = self.from();
        let question =
            format!("{from} && ip6.dst == {ALL_SERVERS} && udp.src == 546 && udp.dst == 547 && !ip.is_frag");
        let ask = format!("reg0[3] = put_dhcpv6_opts({}); next;", arguments.join(", "));
        let why = format!("The port's DHCP is dhcp-options/{options_id}.");
        sink.add(SwitchIn::DhcpOptions, 100, question, ask, self.object, &why);
        let matching = format!("{from} && ip6 && udp.src == 546 && udp.dst == 547 && reg0[3] == 1");
        let actions = format!(
            "eth.dst = eth.src; eth.src = {mac}; ip6.dst = ip6.src; ip6.src = {}; udp.src = 547; udp.dst = 546; {BACK}",
            link_local(mac)
        );
        sink.add(SwitchIn::DhcpResponse, 100, matching, actions, self.object, ANSWERED);
    }
}

/// Where clients look for servers and relays (RFC 8415 §7.1).
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// To where it came from, past the ACLs: they have judged the question.
const BACK: &str = "outport = inport; flags.loopback = 1; flags.from_ctrl = 1; output;";
const ANSWERED: &str = "The host has answered; the answer goes back.";
