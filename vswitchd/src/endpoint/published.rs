//! Ports of the host that lead to containers.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// What has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// As nftables and runtimes write it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|transport| transport.text().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("protocol `{}`: write tcp, udp or sctp", text.escape_debug()))
    }
}

/// A port of the host that leads to one of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Of which protocol.
    pub transport: Transport,
    /// Address of the host; `None`: all of them.
    pub host_ip: Option<IpAddr>,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the container.
    pub port: u16,
}

impl Published {
    /// Some packet would be for both.
    pub fn collides(&self, other: &Self) -> bool {
        let ips = self.host_ip.zip(other.host_ip);
        (self.transport, self.host_port) == (other.transport, other.host_port)
            && ips.is_none_or(|(one, another)| one == another)
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, host_ip, host_port, .. } = self;
        match host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{host_port}/{}", transport.text()),
            Some(ip) => write!(f, "{ip}:{host_port}/{}", transport.text()),
            None => write!(f, "{host_port}/{}", transport.text()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(host_ip: &str, host_port: u16) -> Published {
        Published { transport: Transport::Tcp, host_ip: host_ip.parse().ok(), host_port, port: 80 }
    }

    #[test]
    fn one_for_all_addresses_collides_with_each() {
        let all = published("", 8080);
        let one = published("192.0.2.1", 8080);
        assert!(all.collides(&one) && one.collides(&all) && one.collides(&one));
        assert!(!one.collides(&published("192.0.2.2", 8080)));
        assert!(!one.collides(&published("192.0.2.1", 8081)));
        assert!(!one.collides(&Published { transport: Transport::Udp, ..one.clone() }));
        assert_eq!(published("fd00::1", 1).to_string(), "[fd00::1]:1/tcp");
        assert_eq!("TCP".parse(), Ok(Transport::Tcp));
        assert!("icmp".parse::<Transport>().is_err());
    }
}
