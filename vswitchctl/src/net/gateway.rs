//! Hosts that may be a gateway, as they are typed and kept in files: `host-1=20`.

use ferroflow_proto::northbound::GatewayChassis;
use serde::{Deserialize, Serialize};

use crate::{name::Noun, output::short};

/// A host that may be a gateway: its id, and how much it is preferred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Candidate {
    chassis: String,
    priority: u32,
}

impl std::str::FromStr for Candidate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not CHASSIS=PRIORITY, for example host-1=20");
        let (chassis, priority) = text.rsplit_once('=').ok_or_else(wrong)?;
        let priority = priority.parse().map_err(|_| wrong())?;
        let Ok(crate::name::Reference::Full(name)) = Noun::Chassis.refer(chassis) else {
            return Err(wrong());
        };
        Ok(Self { chassis: short(&name).to_owned(), priority })
    }
}

impl TryFrom<String> for Candidate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Candidate> for String {
    fn from(candidate: Candidate) -> Self {
        candidate.to_string()
    }
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.chassis, self.priority)
    }
}

/// What the API says.
pub fn read(list: &[GatewayChassis]) -> Vec<Candidate> {
    let one = |candidate: &GatewayChassis| Candidate {
        chassis: short(&candidate.chassis).to_owned(),
        priority: candidate.priority,
    };
    list.iter().map(one).collect()
}

/// For the API.
pub fn write(list: &[Candidate]) -> Vec<GatewayChassis> {
    let one = |candidate: &Candidate| GatewayChassis {
        chassis: Noun::Chassis.top(&candidate.chassis),
        priority: candidate.priority,
    };
    list.iter().map(one).collect()
}

/// In one line.
pub fn print(list: &[Candidate]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_read_as_they_print_and_nonsense_does_not() {
        let candidate: Candidate = "chassis/host-1=20".parse().unwrap();
        assert_eq!(candidate.to_string(), "host-1=20");
        assert_eq!(read(&write(std::slice::from_ref(&candidate))), [candidate]);
        for wrong in ["", "host-1", "host-1=", "=20", "host-1=x", "switches/a=1", "h=-1"] {
            assert!(wrong.parse::<Candidate>().is_err(), "{wrong:?} was taken");
        }
    }
}
