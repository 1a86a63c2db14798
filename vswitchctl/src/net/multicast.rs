//! How a switch listens to who wants to hear which group: options of `switch`, and its form in
//! files.

use clap::Args;
use ferroflow_proto::northbound as pb;
use serde::{Deserialize, Serialize};

/// Options about groups.
#[derive(Debug, Args)]
pub struct MulticastOptions {
    /// Send what is for a group to those alone that want to hear it: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    mcast_snoop: Option<bool>,
    /// Send groups that nobody wants to hear to all ports: true or false
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    mcast_flood_unregistered: Option<bool>,
    /// Groups that one host remembers at most
    #[arg(long, value_name = "N")]
    mcast_table_size: Option<u32>,
    /// Seconds after which a workload is forgotten that does not say any more what it hears
    #[arg(long, value_name = "SECONDS")]
    mcast_idle_timeout: Option<u32>,
    /// Have hosts ask their workloads, from this MAC address; "" to have them not ask
    #[arg(long, value_name = "MAC")]
    mcast_querier: Option<String>,
    /// IPv4 address that asks
    #[arg(long, value_name = "IP")]
    mcast_ip4_src: Option<String>,
    /// Link-local IPv6 address that asks
    #[arg(long, value_name = "IP")]
    mcast_ip6_src: Option<String>,
    /// Seconds between two questions
    #[arg(long, value_name = "SECONDS")]
    mcast_query_interval: Option<u32>,
    /// Seconds that an answer may take
    #[arg(long, value_name = "SECONDS")]
    mcast_query_max_response: Option<u32>,
}

/// How a switch listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snooping {
    /// Groups that nobody wants to hear go to all ports.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flood_unregistered: bool,
    /// Groups that one host remembers at most; 0: the usual number.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub table_size: u32,
    /// Seconds after which a workload is forgotten; 0: the usual time.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub idle_timeout: u32,
    /// Hosts ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub querier: Option<Querier>,
}

/// How hosts ask their workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Querier {
    /// MAC address that asks.
    pub mac: String,
    /// IPv4 address that asks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip4: String,
    /// IPv6 address that asks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip6: String,
    /// Seconds between two questions; 0: the usual time.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub interval: u32,
    /// Seconds that an answer may take; 0: the usual time.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub max_response: u32,
}

fn is_usual(number: &u32) -> bool {
    *number == 0
}

impl MulticastOptions {
    /// Something is said.
    pub fn is_given(&self) -> bool {
        let texts = [&self.mcast_querier, &self.mcast_ip4_src, &self.mcast_ip6_src];
        let numbers = [
            self.mcast_table_size,
            self.mcast_idle_timeout,
            self.mcast_query_interval,
            self.mcast_query_max_response,
        ];
        let switches = [self.mcast_snoop, self.mcast_flood_unregistered];
        texts.iter().any(|text| text.is_some())
            || numbers.iter().any(Option::is_some)
            || switches.iter().any(Option::is_some)
    }

    /// Makes the changes.
    pub fn apply(&self, to: &mut Option<Snooping>) {
        if !self.is_given() {
            return;
        }
        if self.mcast_snoop == Some(false) {
            *to = None;
            return;
        }
        let to = to.get_or_insert_default();
        to.flood_unregistered = self.mcast_flood_unregistered.unwrap_or(to.flood_unregistered);
        to.table_size = self.mcast_table_size.unwrap_or(to.table_size);
        to.idle_timeout = self.mcast_idle_timeout.unwrap_or(to.idle_timeout);
        self.ask(&mut to.querier);
    }

    fn ask(&self, to: &mut Option<Querier>) {
        match self.mcast_querier.as_deref() {
            Some("") => {
                *to = None;
                return;
            }
            Some(mac) => mac.clone_into(&mut to.get_or_insert_default().mac),
            None => {}
        }
        for (field, text) in [
            ((|querier| &mut querier.ip4) as fn(&mut Querier) -> &mut String, &self.mcast_ip4_src),
            (|querier| &mut querier.ip6, &self.mcast_ip6_src),
        ] {
            if let Some(text) = text {
                field(to.get_or_insert_default()).clone_from(text);
            }
        }
        for (field, number) in [
            ((|querier| &mut querier.interval) as fn(&mut Querier) -> &mut u32, self.mcast_query_interval),
            (|querier| &mut querier.max_response, self.mcast_query_max_response),
        ] {
            if let Some(number) = number {
                *field(to.get_or_insert_default()) = number;
            }
        }
    }
}

impl Snooping {
    /// From the API.
    pub fn read(wire: &pb::MulticastSnooping) -> Self {
        let pb::MulticastSnooping { flood_unregistered, table_size, idle_timeout, querier } = wire.clone();
        let querier = querier.map(|pb::MulticastQuerier { interval, max_response, mac, ip4, ip6 }| Querier {
            mac,
            ip4,
            ip6,
            interval,
            max_response,
        });
        Self { flood_unregistered, table_size, idle_timeout, querier }
    }

    /// For the API.
    pub fn write(&self) -> pb::MulticastSnooping {
        let Self { flood_unregistered, table_size, idle_timeout, querier } = self.clone();
        let querier = querier.map(|Querier { mac, ip4, ip6, interval, max_response }| pb::MulticastQuerier {
            interval,
            max_response,
            mac,
            ip4,
            ip6,
        });
        pb::MulticastSnooping { flood_unregistered, table_size, idle_timeout, querier }
    }

    /// What `show` prints.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let number = |number: u32| if number == 0 { String::new() } else { number.to_string() };
        let unknown = if self.flood_unregistered { "to all ports" } else { "dropped" };
        let mut fields = vec![
            ("multicast", "to those that want to hear it".to_owned()),
            ("unregistered", unknown.to_owned()),
            ("groups at most", number(self.table_size)),
            ("idle timeout", number(self.idle_timeout)),
        ];
        if let Some(Querier { mac, ip4, ip6, interval, max_response }) = &self.querier {
            fields.extend([
                ("querier", [mac.as_str(), ip4, ip6].join(" ").trim_end().to_owned()),
                ("query interval", number(*interval)),
                ("max response", number(*max_response)),
            ]);
        }
        fields.retain(|(_, text)| !text.is_empty());
        fields
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: MulticastOptions,
    }

    fn applied(to: Option<Snooping>, words: &str) -> Option<Snooping> {
        let line = Line::try_parse_from(std::iter::once("x").chain(words.split_whitespace())).unwrap();
        let mut to = to;
        line.options.apply(&mut to);
        to
    }

    #[test]
    fn options_change_what_they_name_and_no_more() {
        assert_eq!(applied(None, ""), None);
        let on = applied(None, "--mcast-snoop");
        assert_eq!(on, Some(Snooping::default()));
        let asking = applied(on, "--mcast-querier 0a:00:00:00:00:99 --mcast-ip4-src 10.0.0.9");
        let querier = asking.clone().unwrap().querier.unwrap();
        assert_eq!((querier.mac.as_str(), querier.ip4.as_str()), ("0a:00:00:00:00:99", "10.0.0.9"));
        let later = applied(asking.clone(), "--mcast-query-interval 20 --mcast-flood-unregistered");
        assert_eq!(later.as_ref().unwrap().querier.as_ref().unwrap().interval, 20);
        assert_eq!(Snooping::read(&later.clone().unwrap().write()), later.unwrap());
        assert_eq!(applied(asking.clone(), "--mcast-querier=").unwrap().querier, None);
        assert_eq!(applied(asking, "--mcast-snoop=false"), None);
    }
}
