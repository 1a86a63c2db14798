//! Services of load balancers that have other addresses, ports or backends on each chassis.

use std::str::FromStr;

use clap::Args;
use ferroflow_proto::northbound as pb;
use serde::{Deserialize, Serialize};

/// Options of a load balancer's services that variables stand for.
#[derive(Debug, Args)]
pub struct TemplateOptions {
    /// A service that differs by chassis, `^ADDRESS=BACKEND,BACKEND` or `^ADDRESS:PORT=…`, where ports and
    /// backends may be `^VARIABLE` too; `6:` before it: of IPv6; may be repeated
    #[arg(long = "template", value_name = "SERVICE")]
    pub templates: Vec<TemplateService>,
}

/// A service; its form in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateService {
    /// A variable, `^NAME`.
    pub address: String,
    /// A port, or a variable; empty: all that is sent to the address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub port: String,
    /// Backends, and variables.
    #[serde(default)]
    pub backends: Vec<String>,
    /// Its addresses are IPv6.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ipv6: bool,
}

impl FromStr for TemplateService {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ipv6, rest) = text.strip_prefix("6:").map_or((false, text), |rest| (true, rest));
        let (place, backends) =
            rest.split_once('=').ok_or("a service is ^ADDRESS=BACKEND,BACKEND or ^ADDRESS:PORT=…")?;
        let (address, port) = place.split_once(':').unwrap_or((place, ""));
        let backends = backends.split(',').filter(|backend| !backend.is_empty());
        let backends = backends.map(str::to_owned).collect();
        Ok(Self { address: address.to_owned(), port: port.to_owned(), backends, ipv6 })
    }
}

impl TemplateService {
    /// From the API.
    pub fn read(service: &pb::TemplateService) -> Self {
        let pb::TemplateService { address, port, backends, ipv6 } = service.clone();
        Self { address, port, backends, ipv6 }
    }

    /// As the API has it.
    pub fn write(&self) -> pb::TemplateService {
        let Self { address, port, backends, ipv6 } = self.clone();
        pb::TemplateService { address, port, backends, ipv6 }
    }

    /// As it is typed.
    pub fn text(&self) -> String {
        let family = if self.ipv6 { "6:" } else { "" };
        let port = if self.port.is_empty() { String::new() } else { format!(":{}", self.port) };
        format!("{family}{}{port}={}", self.address, self.backends.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_they_are_typed() {
        for text in ["^node:80=^b", "^node=10.0.0.1,^b", "6:^node:^port=[2001:db8::1]:80", "^node:80="] {
            assert_eq!(text.parse::<TemplateService>().unwrap().text(), text);
        }
        assert!("^node".parse::<TemplateService>().is_err());
    }
}
