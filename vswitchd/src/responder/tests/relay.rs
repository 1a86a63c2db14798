//! DHCP messages that a relay passes on, and those that it does not.

use std::net::Ipv4Addr;

use flowtable::{
    flow::{Match, ToController},
    program::Punt,
};
use ovn_northd_lite::dhcp::{Relay, Toward};

use super::*;
use crate::responder::{dhcp_relay::relay, packet::Context};

const AT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 5);
const CLIENT: MacAddr = MacAddr::new([0x0a, 0, 0, 0, 0, 5]);

/// A message with these fields: operation, hops, flags, address given, relay.
fn message(op: u8, (hops, flags): (u8, u8), given: [u8; 4], relay: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![op, 1, 6, hops, 1, 2, 3, 4, 0, 0, flags, 0, 0, 0, 0, 0];
    bytes.extend(given);
    bytes.extend([0; 4]);
    bytes.extend(relay.octets());
    bytes.extend(CLIENT.octets());
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, 1, 255]);
    bytes
}

/// What becomes of a message.
fn passed(toward: Toward, message: &[u8]) -> Reply {
    let end = |mac, ip: Ipv4Addr, port| End { mac, ip: ip.into(), port };
    let (from, to) = match toward {
        Toward::Server => {
            (end(CLIENT, Ipv4Addr::UNSPECIFIED, 68), end(MacAddr::BROADCAST, Ipv4Addr::BROADCAST, 67))
        }
        Toward::Client => (end(mac(9), SERVER, 67), end(mac(1), AT, 67)),
    };
    let request = Request { service: Service::DhcpRelay, continuation: 1, table: 8 };
    let userdata = [request.encode(), Relay { toward, relay: AT, server: SERVER }.encode()].concat();
    let bytes = build::udp(&from, &to, message);
    let punt = Punt {
        to: ToController { userdata, ..ToController::default() },
        table: TableId::new(8).unwrap(),
        cookie: 0,
        metadata: Match::any(),
        next: None,
    };
    let (in_port, n_bytes) = (PortNo::new(1).unwrap(), bytes.len());
    let packet_in = PacketIn { in_port, punt: Arc::new(punt), bytes, n_bytes, continuation: None };
    relay(&Context::new(&packet_in, request))
}

fn made(reply: Reply) -> Vec<u8> {
    let Reply::Made(frame) = reply else { panic!("{reply:?}") };
    frame
}

#[test]
fn a_question_goes_to_the_server_in_the_relays_name() {
    let question = message(1, (0, 0), [0; 4], Ipv4Addr::UNSPECIFIED);
    let frame = made(passed(Toward::Server, &question));
    assert_eq!((&frame[26..30], &frame[30..34]), (&AT.octets()[..], &SERVER.octets()[..]));
    assert_eq!(&frame[34..38], [0, 67, 0, 67], "from a server's port to a server's port");
    let payload = &frame[42..];
    assert_eq!((payload[3], &payload[24..28]), (1, &AT.octets()[..]), "one hop more, and who passed it on");
    assert_eq!(&payload[28..], &question[28..]);
}

#[test]
fn an_answer_goes_to_the_client_or_to_everybody() {
    let answer = |flags, given| message(2, (0, flags), given, AT);
    let frame = made(passed(Toward::Client, &answer(0, [10, 0, 0, 5])));
    assert_eq!((&frame[..6], &frame[30..34]), (&CLIENT.octets()[..], &[10, 0, 0, 5][..]));
    assert_eq!((&frame[26..30], &frame[34..38]), (&AT.octets()[..], &[0, 67, 0, 68][..]));
    for frame in
        [answer(0x80, [10, 0, 0, 5]), answer(0, [0; 4])].map(|answer| made(passed(Toward::Client, &answer)))
    {
        assert_eq!((&frame[..6], &frame[30..34]), (&[0xff; 6][..], &[0xff; 4][..]));
    }
}

#[test]
fn what_is_of_other_relays_or_makes_no_sense_is_not_passed_on() {
    let question = message(1, (0, 0), [0; 4], Ipv4Addr::UNSPECIFIED);
    let of_another = message(1, (0, 0), [0; 4], Ipv4Addr::new(10, 0, 0, 77));
    let too_far = message(1, (16, 0), [0; 4], Ipv4Addr::UNSPECIFIED);
    let mut in_anothers_name = question.clone();
    in_anothers_name[33] = 6;
    for odd in
        [&of_another[..], &too_far, &in_anothers_name, &question[..239], &message(2, (0, 0), [0; 4], AT), &[]]
    {
        assert_eq!(passed(Toward::Server, odd), Reply::Silent);
    }
    let for_another = message(2, (0, 0), [10, 0, 0, 5], Ipv4Addr::new(10, 0, 0, 77));
    for odd in [&for_another[..], &question, &[2; 28], &[]] {
        assert_eq!(passed(Toward::Client, odd), Reply::Silent);
    }
}
