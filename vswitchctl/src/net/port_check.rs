//! What workloads are asked by their hosts, as it is typed and kept in files:
//! `tcp:10.0.2.11:80@10.0.2.250,5/20/3/3`, `icmp:10.0.2.11@10.0.2.250`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ferroflow_proto::northbound::{self as pb, Resource, port_health_check::Protocol};
use serde::{Deserialize, Serialize};

use crate::{
    error::CtlError,
    net::{health_check::HealthCheck, object::unknown_value},
};

/// A question to a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortCheck {
    protocol: Word,
    ip: String,
    port: u32,
    source: String,
    times: Option<HealthCheck>,
}

/// By what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Icmp,
    Tcp,
    Udp,
}

const WORDS: [(&str, Word, Protocol); 3] = [
    ("icmp", Word::Icmp, Protocol::Unspecified),
    ("tcp", Word::Tcp, Protocol::Tcp),
    ("udp", Word::Udp, Protocol::Udp),
];

impl FromStr for PortCheck {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is not PROTOCOL:ADDRESS@SOURCE[,TIMES], tcp:10.0.2.11:80@10.0.2.250,5/20/3/3")
        };
        let (word, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (asked, rest) = rest.split_once('@').ok_or_else(wrong)?;
        let (source, times) = match rest.split_once(',') {
            Some((source, times)) => (source, Some(times.parse()?)),
            None => (rest, None),
        };
        let (_, protocol, _) = *WORDS.iter().find(|(name, ..)| *name == word).ok_or_else(wrong)?;
        let (ip, port) = match protocol {
            Word::Icmp => (asked.parse::<IpAddr>().map_err(|_| wrong())?, 0),
            Word::Tcp | Word::Udp => {
                let asked: SocketAddr = asked.parse().map_err(|_| wrong())?;
                (asked.ip(), asked.port().into())
            }
        };
        Ok(Self { protocol, ip: ip.to_string(), port, source: source.to_owned(), times })
    }
}

impl fmt::Display for PortCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, times, .. } = self;
        write!(f, "{}@{source}", self.asked(":"))?;
        times.map_or(Ok(()), |times| write!(f, ",{times}"))
    }
}

impl PortCheck {
    /// What the API says.
    ///
    /// # Errors
    /// [`CtlError`] when the protocol is not one that is known here.
    pub fn read(resource: &Resource, check: &pb::PortHealthCheck) -> Result<Self, CtlError> {
        let known = Protocol::try_from(check.protocol).ok();
        let known = WORDS.iter().find(|(.., wire)| known == Some(*wire)).map(|(_, word, _)| *word);
        let protocol =
            known.ok_or_else(|| unknown_value(resource, "protocol of a health check", check.protocol))?;
        let times = check.times.as_ref().map(HealthCheck::read);
        let (ip, source) = (check.ip.clone(), check.source_ip.clone());
        Ok(Self { protocol, ip, port: check.port, source, times })
    }

    /// For the API.
    pub fn write(&self) -> pb::PortHealthCheck {
        let wire = WORDS.iter().find(|(_, word, _)| *word == self.protocol).map(|(.., wire)| *wire);
        pb::PortHealthCheck {
            protocol: wire.unwrap_or_default().into(),
            ip: self.ip.clone(),
            port: self.port,
            source_ip: self.source.clone(),
            times: self.times.as_ref().map(HealthCheck::write),
            ..Default::default()
        }
    }

    /// By what it is asked, and what.
    pub fn asked(&self, between: &str) -> String {
        let name = WORDS.iter().find(|(_, word, _)| *word == self.protocol).map_or("", |(name, ..)| name);
        let ip = &self.ip;
        match self.protocol {
            Word::Icmp => format!("{name}{between}{ip}"),
            Word::Tcp | Word::Udp if ip.contains(':') => format!("{name}{between}[{ip}]:{}", self.port),
            Word::Tcp | Word::Udp => format!("{name}{between}{ip}:{}", self.port),
        }
    }
}

impl TryFrom<String> for PortCheck {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<PortCheck> for String {
    fn from(check: PortCheck) -> Self {
        check.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_read_as_they_print() {
        for text in [
            "icmp:10.0.2.11@10.0.2.250",
            "icmp:2001:db8::5@2001:db8::fe,1/2/3/4",
            "tcp:10.0.2.11:80@10.0.2.250,5/20/3/3",
            "udp:[2001:db8::5]:53@2001:db8::fe",
        ] {
            let check: PortCheck = text.parse().unwrap();
            assert_eq!(check.to_string(), text);
            assert_eq!(PortCheck::read(&Resource::default(), &check.write()).unwrap(), check);
        }
        for wrong in
            ["", "icmp", "icmp:10.0.0.5", "sctp:10.0.0.5:7@10.0.0.9", "tcp:10.0.0.5@10.0.0.9", "icmp:x@y"]
        {
            assert!(wrong.parse::<PortCheck>().is_err(), "{wrong:?} was taken");
        }
    }
}
