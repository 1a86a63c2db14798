//! MAC addresses that a router port need not ask for, as they are typed and kept in files:
//! `10.0.0.9=0a:00:00:00:00:09`.

use std::{fmt, str::FromStr};

use ferroflow_proto::northbound::StaticMacBinding;
use serde::{Deserialize, Serialize};

/// Says that a binding goes before what is heard.
const OVERRIDE: &str = ",override";

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StaticMac {
    ip: String,
    mac: String,
    override_dynamic: bool,
}

impl FromStr for StaticMac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, override_dynamic) = match text.strip_suffix(OVERRIDE) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (ip, mac) = rest
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not IP=MAC, for example 10.0.0.9=0a:00:00:00:00:09"))?;
        Ok(Self { ip: ip.to_owned(), mac: mac.to_owned(), override_dynamic })
    }
}

impl TryFrom<String> for StaticMac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StaticMac> for String {
    fn from(binding: StaticMac) -> Self {
        binding.to_string()
    }
}

impl fmt::Display for StaticMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, mac, override_dynamic } = self;
        write!(f, "{ip}={mac}{}", if *override_dynamic { OVERRIDE } else { "" })
    }
}

/// What the API says.
pub fn read(list: &[StaticMacBinding]) -> Vec<StaticMac> {
    let one = |StaticMacBinding { ip, mac, override_dynamic }: &StaticMacBinding| StaticMac {
        ip: ip.clone(),
        mac: mac.clone(),
        override_dynamic: *override_dynamic,
    };
    list.iter().map(one).collect()
}

/// For the API.
pub fn write(list: &[StaticMac]) -> Vec<StaticMacBinding> {
    let one = |StaticMac { ip, mac, override_dynamic }: &StaticMac| StaticMacBinding {
        ip: ip.clone(),
        mac: mac.clone(),
        override_dynamic: *override_dynamic,
    };
    list.iter().map(one).collect()
}

/// In one line.
pub fn print(list: &[StaticMac]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_read_as_they_print() {
        for text in ["10.0.0.9=0a:00:00:00:00:09", "2001:db8::9=0a:00:00:00:00:09,override"] {
            let binding: StaticMac = text.parse().unwrap();
            assert_eq!(binding.to_string(), text);
            assert_eq!(read(&write(std::slice::from_ref(&binding))), [binding]);
        }
        for wrong in ["", "10.0.0.9", ",override"] {
            assert!(wrong.parse::<StaticMac>().is_err(), "{wrong:?} was taken");
        }
    }
}
