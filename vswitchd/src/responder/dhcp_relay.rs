//! A DHCPv4 relay (RFC 1542 §4, RFC 2131 §4.1) that remembers nothing: what it has to know is told
//! with each packet. Messages of other relays are not passed on.

use std::net::{IpAddr, Ipv4Addr};

use ovn_northd_lite::dhcp::{Relay, Toward};

use super::{Reply, packet::Context, udp::Datagram};

/// Fields before the options, the cookie among them (RFC 2131 §2).
const FIXED: usize = 240;
/// Port of servers, and of relays.
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Relays that a message may pass (RFC 1542 §4.1.1).
const MAX_HOPS: u8 = 16;
/// Flag of clients that hear only broadcasts.
const BROADCAST: u8 = 0x80;
/// Where fields are in a message.
const HOPS: usize = 3;
const FLAGS: usize = 10;
const RELAY: usize = 24;
const CLIENT_MAC: usize = 28;

/// What becomes of a message.
pub(super) fn relay(context: &Context<'_>) -> Reply {
    relayed(context).map_or(Reply::Silent, Reply::Made)
}

fn relayed(context: &Context<'_>) -> Option<Vec<u8>> {
    let relay = Relay::decode(context.service_data())?;
    let datagram = Datagram::parse(context)?;
    match relay.toward {
        Toward::Server => to_server(context, &relay, &datagram),
        Toward::Client => to_client(context, &relay, &datagram),
    }
}

fn to_server(context: &Context<'_>, relay: &Relay, datagram: &Datagram<'_>) -> Option<Vec<u8>> {
    let mut message = datagram.payload.to_vec();
    let is_own = message.get(CLIENT_MAC..CLIENT_MAC + 6)? == context.source()?;
    let is_fresh = is_request(&message) && address(&message, RELAY)?.is_unspecified();
    let hops = message.get_mut(HOPS).filter(|hops| **hops < MAX_HOPS)?;
    *hops += 1;
    (is_own && is_fresh).then_some(())?;
    message.get_mut(RELAY..RELAY + 4)?.copy_from_slice(&relay.relay.octets());
    let (src, dst) = (IpAddr::V4(relay.relay), IpAddr::V4(relay.server));
    Datagram { src, dst, src_port: SERVER_PORT, dst_port: SERVER_PORT, payload: &message }.frame(context)
}

fn to_client(context: &Context<'_>, relay: &Relay, datagram: &Datagram<'_>) -> Option<Vec<u8>> {
    let message = datagram.payload;
    let is_ours = is_answer(message) && address(message, RELAY)? == relay.relay;
    is_ours.then_some(())?;
    let mac: [u8; 6] = message.get(CLIENT_MAC..CLIENT_MAC + 6)?.try_into().ok()?;
    // Its address of before, and the one it is given.
    let (client, given) = (address(message, 12)?, address(message, 16)?);
    let hears_all = message.get(FLAGS)? & BROADCAST != 0 || mac[0] & 1 != 0;
    let to = [given, client].into_iter().find(|ip| !ip.is_unspecified() && !hears_all);
    let station = if to.is_some() { mac } else { [0xff; 6] };
    let dst = IpAddr::V4(to.unwrap_or(Ipv4Addr::BROADCAST));
    let src = IpAddr::V4(relay.relay);
    let made = Datagram { src, dst, src_port: SERVER_PORT, dst_port: CLIENT_PORT, payload: message };
    let mut frame = made.frame(context)?;
    frame.get_mut(..6)?.copy_from_slice(&station);
    Some(frame)
}

/// By Ethernet, and whole.
fn is_message(message: &[u8], op: u8) -> bool {
    message.len() >= FIXED && message.starts_with(&[op, 1, 6])
}

fn is_request(message: &[u8]) -> bool {
    is_message(message, 1)
}

fn is_answer(message: &[u8]) -> bool {
    is_message(message, 2)
}

fn address(message: &[u8], at: usize) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(message.get(at..at + 4)?).ok().map(Ipv4Addr::from)
}
