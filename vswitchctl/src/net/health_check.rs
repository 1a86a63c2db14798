//! How backends of load balancers are asked whether they serve, as it is typed and kept in
//! files: `5/20/3/3`, and `10.0.2.11=db-1@10.0.2.254`.

use std::{fmt, str::FromStr};

use ferroflow_proto::northbound as pb;
use serde::{Deserialize, Serialize};

use crate::name::{Noun, Reference};

/// How they are asked; 0 is the usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HealthCheck {
    interval: u32,
    timeout: u32,
    success_count: u32,
    failure_count: u32,
}

impl FromStr for HealthCheck {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/').map(str::trim).map(|part| match part {
            "" => Ok(0),
            _ => part.parse().map_err(|_| format!("{part:?} is not a number")),
        });
        let mut next = || parts.next().unwrap_or(Ok(0));
        let check =
            Self { interval: next()?, timeout: next()?, success_count: next()?, failure_count: next()? };
        match parts.next() {
            None => Ok(check),
            Some(_) => Err("a check is INTERVAL/TIMEOUT/SUCCESSES/FAILURES".to_owned()),
        }
    }
}

impl fmt::Display for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = |value: u32, usual: u32| if value == 0 { usual } else { value };
        let (interval, timeout) = (usual(self.interval, 5), usual(self.timeout, 20));
        let (good, bad) = (usual(self.success_count, 3), usual(self.failure_count, 3));
        write!(f, "{interval}/{timeout}/{good}/{bad}")
    }
}

impl HealthCheck {
    /// What the API says.
    pub fn read(check: &pb::HealthCheck) -> Self {
        let pb::HealthCheck { interval, timeout, success_count, failure_count } = *check;
        Self { interval, timeout, success_count, failure_count }
    }

    /// For the API.
    pub fn write(&self) -> pb::HealthCheck {
        let Self { interval, timeout, success_count, failure_count } = *self;
        pb::HealthCheck { interval, timeout, success_count, failure_count }
    }
}

/// Where a backend is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProbePoint {
    backend: String,
    /// The backend's port.
    pub port: String,
    source: String,
}

impl FromStr for ProbePoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (backend, rest) = text.split_once('=')?;
            let (port, source) = rest.split_once('@')?;
            Some((backend, port, source))
        };
        let (backend, port, source) = parts()
            .ok_or_else(|| format!("{text:?} is not BACKEND=PORT@SOURCE, 10.0.2.11=db-1@10.0.2.254"))?;
        Ok(Self { backend: backend.to_owned(), port: port.to_owned(), source: source.to_owned() })
    }
}

impl fmt::Display for ProbePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = match Noun::SwitchPort.refer(&self.port) {
            // Ids of ports are unique.
            Ok(Reference::Full(name)) => crate::output::short(&name).to_owned(),
            Ok(Reference::Id(_)) | Err(_) => self.port.clone(),
        };
        write!(f, "{}={port}@{}", self.backend, self.source)
    }
}

impl ProbePoint {
    /// What the API says.
    pub fn read(point: &pb::ProbePoint) -> Self {
        let pb::ProbePoint { backend_ip, logical_port, source_ip } = point.clone();
        Self { backend: backend_ip, port: logical_port, source: source_ip }
    }

    /// For the API.
    pub fn write(&self) -> pb::ProbePoint {
        let Self { backend, port, source } = self.clone();
        pb::ProbePoint { backend_ip: backend, logical_port: port, source_ip: source }
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

as_text!(HealthCheck);
as_text!(ProbePoint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_and_points_read_as_they_print() {
        for (text, whole) in
            [("1/2/3/4", "1/2/3/4"), ("", "5/20/3/3"), ("2", "2/20/3/3"), ("//1", "5/20/1/3")]
        {
            let check: HealthCheck = text.parse().unwrap();
            assert_eq!(check.to_string(), whole);
            assert_eq!(HealthCheck::read(&check.write()), check);
        }
        assert!("1/2/3/4/5".parse::<HealthCheck>().is_err() && "x".parse::<HealthCheck>().is_err());
        let point: ProbePoint = "2001:db8::5=switches/db/ports/db-1@2001:db8::fe".parse().unwrap();
        assert_eq!(point.to_string(), "2001:db8::5=db-1@2001:db8::fe");
        assert_eq!(ProbePoint::read(&point.write()), point);
        for wrong in ["", "10.0.0.5=db-1", "db-1@10.0.0.1"] {
            assert!(wrong.parse::<ProbePoint>().is_err(), "{wrong:?} was taken");
        }
    }
}
