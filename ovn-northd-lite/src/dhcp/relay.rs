//! What a host's responder is told of a relay: between clients on a network of a router and a
//! server elsewhere.

use std::net::Ipv4Addr;

/// Length of a relay as bytes: direction, relay, server.
const LEN: usize = 9;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Toward {
    /// From a client.
    Server = 1,
    /// From the server.
    Client = 2,
}

/// A relay (RFC 2131 §4.1, RFC 1542 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Relay {
    /// Which way the message goes.
    pub toward: Toward,
    /// Address of the router on the clients' network.
    pub relay: Ipv4Addr,
    /// The server.
    pub server: Ipv4Addr,
}

impl Relay {
    /// As bytes.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = vec![self.toward as u8];
        bytes.extend(self.relay.octets());
        bytes.extend(self.server.octets());
        bytes
    }

    /// From bytes; `None` when they are no relay.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [toward, a, b, c, d, e, f, g, h] = <[u8; LEN]>::try_from(bytes).ok()?;
        let toward = [Toward::Server, Toward::Client].into_iter().find(|known| *known as u8 == toward)?;
        Some(Self { toward, relay: [a, b, c, d].into(), server: [e, f, g, h].into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_come_back_and_nonsense_does_not() {
        for toward in [Toward::Server, Toward::Client] {
            let relay = Relay { toward, relay: [10, 0, 1, 1].into(), server: [10, 0, 2, 5].into() };
            let bytes = relay.encode();
            assert_eq!(Relay::decode(&bytes), Some(relay));
            assert_eq!(Relay::decode(&bytes[1..]), None);
            assert_eq!(Relay::decode(&[bytes, vec![0]].concat()), None);
        }
        assert_eq!(Relay::decode(&[0; LEN]), None);
    }
}
