//! What the user wrote with `docker network create -o`.

use std::net::IpAddr;

use address_pool::Network;
use serde_json::Value;

use crate::{protocol::Map, refusal::Refusal};

/// Docker's own options have names that begin so; unknown ones are not for this driver.
const DOCKERS: &str = "com.docker.";
/// Where Docker puts what the user wrote.
pub(crate) const GENERIC: &str = "com.docker.network.generic";
/// `--internal`
const INTERNAL: &str = "com.docker.network.internal";
/// MTU, by the name that Docker's own drivers have.
const MTU: &str = "com.docker.network.driver.mtu";
/// The switch that was made for a network of a swarm, as its manager tells the others.
pub(crate) const SWARM_SWITCH: &str = "swarm-switch";
/// Our own names, for the error.
const KNOWN: &str = "switch, gateway, routes, mtu";

/// How packets leave the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WayOut {
    /// They do not (`--internal`).
    None,
    /// By a router of the logical network, which has the gateway's address.
    Router,
    /// By the host: Docker joins containers to its gateway bridge as well.
    Host,
}

/// What a network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkOptions {
    /// `switches/{id}`; `None`: one is made.
    pub switch: Option<String>,
    /// How packets leave.
    pub way_out: WayOut,
    /// Networks behind the gateway, whatever the way out.
    pub routes: Vec<Network>,
    /// MTU; 0: what tunnels carry.
    pub mtu: u32,
}

impl NetworkOptions {
    /// Reads them.
    ///
    /// # Errors
    /// Which is wrong, and how to write it.
    pub fn read(options: &Map) -> Result<Self, Refusal> {
        let mut read = Self { switch: None, way_out: WayOut::Host, routes: Vec::new(), mtu: 0 };
        let (mut way_out, mut is_swarms) = (None, false);
        let written = options.get(GENERIC).and_then(Value::as_object);
        for (name, value) in written.into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            match name.as_str() {
                "switch" => read.switch = Some(switch(value)?),
                SWARM_SWITCH => (read.switch, is_swarms) = (Some(switch(value)?), true),
                "gateway" => way_out = Some(gateway(value)?),
                "routes" => read.routes = routes(value)?,
                "mtu" | MTU => read.mtu = mtu(value)?,
                name if name.starts_with(DOCKERS) => {}
                name => {
                    return Err(Refusal::new(format!(
                        "-o {}: this driver knows {KNOWN}",
                        name.escape_debug()
                    )));
                }
            }
        }
        let is_internal = options.get(INTERNAL).is_some_and(is_true);
        read.way_out = match (is_internal, way_out) {
            (true, None) => WayOut::None,
            (true, Some(_)) => {
                return Err(Refusal::new("-o gateway: an internal network has no way out; leave one out"));
            }
            (false, Some(way_out)) => way_out,
            // A switch that is there has its routers; one that is made has none.
            (false, None) if read.switch.is_some() && !is_swarms => WayOut::Router,
            (false, None) => WayOut::Host,
        };
        Ok(read)
    }
}

/// Docker writes `true`, or "true".
fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str() == Some("true"))
}

fn switch(text: &str) -> Result<String, Refusal> {
    let id = text.strip_prefix("switches/").unwrap_or(text);
    let is_id =
        !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_id {
        return Ok(format!("switches/{id}"));
    }
    Err(Refusal::new(format!("-o switch={}: name a logical switch, as web", text.escape_debug())))
}

fn gateway(text: &str) -> Result<WayOut, Refusal> {
    match text {
        "router" => Ok(WayOut::Router),
        "host" => Ok(WayOut::Host),
        _ => Err(Refusal::new(format!(
            "-o gateway={}: write router (one of the logical network has the gateway's address) or host",
            text.escape_debug()
        ))),
    }
}

fn routes(text: &str) -> Result<Vec<Network>, Refusal> {
    text.split(',')
        .map(|route| route.trim().parse().map_err(|error| Refusal::new(format!("-o routes: {error}"))))
        .collect()
}

fn mtu(text: &str) -> Result<u32, Refusal> {
    text.parse().map_err(|_| Refusal::new(format!("-o mtu={}: write a number of bytes", text.escape_debug())))
}

/// The address of `10.0.0.1/24`; `None`: there is none, or it is not one.
pub fn address_of(text: &str) -> Option<IpAddr> {
    text.split('/').next().and_then(|address| address.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: Value) -> Result<NetworkOptions, Refusal> {
        NetworkOptions::read(&serde_json::from_value(options).unwrap())
    }

    #[test]
    fn a_named_switch_has_a_router_and_a_made_one_has_not() {
        let plain = read(json!({"com.docker.network.enable_ipv6": false})).unwrap();
        assert_eq!((plain.switch, plain.way_out, plain.mtu), (None, WayOut::Host, 0));
        let named = read(json!({ GENERIC: {"switch": "web", MTU: "1400", "com.docker.x": "1"} })).unwrap();
        assert_eq!(named.switch.as_deref(), Some("switches/web"));
        assert_eq!((named.way_out, named.mtu), (WayOut::Router, 1400));
        let host =
            read(json!({ GENERIC: {"switch": "switches/web", "gateway": "host", "routes": "10.0.2.0/24"} }));
        assert_eq!(host.unwrap().way_out, WayOut::Host);
        assert_eq!(
            read(json!({ INTERNAL: true, GENERIC: {"switch": "web"} })).unwrap().way_out,
            WayOut::None
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (options, word) in [
            (json!({ GENERIC: {"swich": "web"} }), "swich"),
            (json!({ GENERIC: {"switch": "a/b"} }), "a/b"),
            (json!({ GENERIC: {"switch": ""} }), "switch"),
            (json!({ GENERIC: {"gateway": "10.0.0.1"} }), "router"),
            (json!({ GENERIC: {"routes": "10.0.0.1/8"} }), "10.0.0.1/8"),
            (json!({ GENERIC: {"mtu": "big"} }), "big"),
            (json!({ INTERNAL: true, GENERIC: {"gateway": "host"} }), "internal"),
        ] {
            let text = read(options).unwrap_err().text;
            assert!(text.contains(word), "{text}");
        }
    }
}
