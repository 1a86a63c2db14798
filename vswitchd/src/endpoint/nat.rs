//! What the host's kernel does where the host is a gateway of containers: it translates what
//! leaves, and leads ports of the host to containers. One table of nftables is ours, and is
//! replaced as a whole.

use std::{fmt::Write as _, io, net::IpAddr};

use super::{Prefix, Published, Translator};

/// The table.
const TABLE: &str = "inet ferroflow";
/// What the names of the gateways' interfaces begin with.
pub(super) const GATEWAYS: &str = "vh";

/// The host as a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gateway {
    /// Its interface on the switch.
    pub interface: String,
    /// Its addresses there.
    pub addresses: Vec<Prefix>,
}

/// A container with ports of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The ports.
    pub published: Vec<Published>,
}

/// Has the kernel do this and nothing else.
///
/// # Errors
/// There is no `nft`, or it refuses.
pub(super) async fn apply(
    translator: &Translator,
    gateways: &[Gateway],
    targets: &[Target],
) -> io::Result<()> {
    translator.apply(ruleset(gateways, targets)).await
}

/// Lets packets that a container sends to itself by 127.0.0.1 of the host, and those that
/// others send through the host, pass it.
///
/// # Errors
/// The kernel refuses.
pub(super) fn allow_forwarding(gateway: &Gateway) -> io::Result<()> {
    let set = |name: &str| std::fs::write(format!("/proc/sys/net/{name}"), "1");
    for Prefix { address, .. } in &gateway.addresses {
        match address {
            IpAddr::V4(_) => {
                set("ipv4/ip_forward")?;
                set(&format!("ipv4/conf/{}/route_localnet", gateway.interface))?;
            }
            IpAddr::V6(_) => set("ipv6/conf/all/forwarding")?,
        }
    }
    Ok(())
}

/// The table as nft reads it. Adding it first is what makes deleting it succeed.
fn ruleset(gateways: &[Gateway], targets: &[Target]) -> String {
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\n");
    if gateways.is_empty() {
        return text;
    }
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "table {TABLE} {{
 chain published {{
{}}}
 chain prerouting {{ type nat hook prerouting priority dstnat; fib daddr type local jump published; }}
 chain output {{ type nat hook output priority -100; fib daddr type local jump published; }}
 chain postrouting {{
  type nat hook postrouting priority srcnat;
{}}}
 chain forward {{
  type filter hook forward priority filter;
{}  iifname \"{GATEWAYS}*\" oifname \"{GATEWAYS}*\" ct status & dnat == 0 drop;
 }}
}}
",
        published_rules(targets),
        leaving_rules(gateways),
        gateways
            .iter()
            .map(|Gateway { interface, .. }| format!(
                "  iifname \"{interface}\" oifname \"{interface}\" accept;\n"
            ))
            .collect::<String>(),
    );
    text
}

fn published_rules(targets: &[Target]) -> String {
    let mut text = String::new();
    for Target { addresses, published } in targets {
        for Published { transport, host_ip, host_port, port } in published {
            for is_v4 in [true, false] {
                let to = addresses.iter().find(|address| address.is_ipv4() == is_v4);
                let is_meant = host_ip.is_none_or(|ip| ip.is_ipv4() == is_v4);
                let Some(to) = to.filter(|_| is_meant) else { continue };
                let (family, to) = if is_v4 { ("ip", to.to_string()) } else { ("ip6", format!("[{to}]")) };
                let on = host_ip.map(|ip| format!("{family} daddr {ip} ")).unwrap_or_default();
                let transport = transport.text();
                let _ = writeln!(text, "  {on}{transport} dport {host_port} dnat {family} to {to}:{port};");
            }
        }
    }
    text
}

fn leaving_rules(gateways: &[Gateway]) -> String {
    let mut text = String::new();
    for Gateway { interface, addresses } in gateways {
        // From one container by a port of the host to another: the answer has to come back
        // the same way, not directly.
        let _ = writeln!(
            text,
            "  iifname \"{interface}\" oifname \"{interface}\" ct status & dnat != 0 masquerade;"
        );
        let _ = writeln!(text, "  oifname \"{interface}\" ip saddr 127.0.0.0/8 masquerade;");
        for Prefix { address, len } in addresses {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            let _ = writeln!(text, "  {family} saddr {address}/{len} oifname != \"{GATEWAYS}*\" masquerade;");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::published::Transport;

    #[test]
    fn each_family_leads_to_its_own_address_and_nothing_is_left_of_nothing() {
        let gateway = Gateway {
            interface: "vh1".to_owned(),
            addresses: vec!["10.0.1.100/24".parse().unwrap(), "fd00::64/64".parse().unwrap()],
        };
        let published = |host_ip: &str, host_port| Published {
            transport: Transport::Tcp,
            host_ip: host_ip.parse().ok(),
            host_port,
            port: 80,
        };
        let target = Target {
            addresses: vec!["10.0.1.101".parse().unwrap(), "fd00::65".parse().unwrap()],
            published: vec![published("", 8080), published("192.0.2.1", 8081)],
        };
        let text = ruleset(&[gateway], &[target]);
        let dnat: Vec<_> = text.lines().filter(|line| line.contains(" dnat ip")).map(str::trim).collect();
        assert_eq!(
            dnat,
            [
                "tcp dport 8080 dnat ip to 10.0.1.101:80;",
                "tcp dport 8080 dnat ip6 to [fd00::65]:80;",
                "ip daddr 192.0.2.1 tcp dport 8081 dnat ip to 10.0.1.101:80;",
            ]
        );
        assert!(text.contains("ip6 saddr fd00::64/64 oifname != \"vh*\" masquerade;"));
        assert_eq!(ruleset(&[], &[]), "add table inet ferroflow\ndelete table inet ferroflow\n");
    }
}
