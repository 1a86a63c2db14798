//! DHCP, DNS and router advertisements, as a workload sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ovn_northd_lite::{
    dhcp::{OptionV4, OptionV6},
    model::{
        AddressMode, DefaultPolicy, DhcpOptions, DhcpV4, DhcpV6, Names, Preference, Rate, RouterAdvertisement,
    },
    punt::Service,
    southbound::Advertises,
};
use proptest::prelude::*;

use super::*;

const SERVER: MacAddr = MacAddr::new([0x0a, 0, 0, 0, 1, 1]);
const XID: [u8; 4] = [1, 2, 3, 4];

/// Workloads `a` and `c` on one switch with everything that hosts answer, and a router.
fn served() -> Northbound {
    let mut nb = network();
    for id in ["join", "far"] {
        nb.switches.remove(id);
    }
    nb.routers.remove("r2");
    let port = |last: u8, ips: &[&str]| SwitchPortKind::Workload {
        access: Default::default(),
        addresses: vec![PortAddresses {
            mac: mac(last),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        }],
        unknown: false,
        port_security: Vec::new(),
        chassis: Some("h1".to_owned()),
        additional: Default::default(),
    };
    let near = nb.switches.get_mut("near").unwrap();
    let kind = port(9, &["10.0.0.9", "2001:db8::9"]);
    let c = SwitchPort {
        key: PortKey::new(7).unwrap(),
        kind,
        enabled: true,
        services: Default::default(),
        options: Default::default(),
        hears: Default::default(),
    };
    near.ports.insert("c".to_owned(), c);
    near.ports.get_mut("a").unwrap().services.hostname = Some("web-a".to_owned());
    near.services.dhcp = [Some("four".to_owned()), Some("six".to_owned())];
    near.services.names.insert("zone".to_owned());
    nb.dhcp_options.insert("four".to_owned(), DhcpOptions::V4(four()));
    nb.dhcp_options.insert("six".to_owned(), DhcpOptions::V6(six(false)));
    let records: [(&str, &[&str]); 2] =
        [("web.example", &["10.0.0.80", "2001:db8::80"]), ("only4.example", &["10.0.0.81"])];
    let records =
        records.map(|(name, ips)| (name.to_owned(), ips.iter().map(|ip| ip.parse().unwrap()).collect()));
    nb.names.insert("zone".to_owned(), Names { records: records.into(), ttl: 60 });
    let r1 = nb.routers.get_mut("r1").unwrap().ports.get_mut("r1-near").unwrap();
    r1.advertisement = Some(advertisement());
    nb
}

fn four() -> DhcpV4 {
    let options = [
        ("server_id", "10.0.0.1"),
        ("netmask", "255.255.255.0"),
        ("router", "10.0.0.1"),
        ("dns_server", "10.0.0.53,10.0.0.54"),
        ("lease_time", "3600"),
        ("mtu", "1442"),
        ("domain_name", "example"),
        ("classless_static_route", "10.9.0.0/16,10.0.0.1,0.0.0.0/0,10.0.0.1"),
        ("next_server", "10.0.0.69"),
        ("bootfile_name", "plain.pxe"),
        ("bootfile_name_alt", "http://10.0.0.69/ipxe"),
    ];
    let options = options.map(|(name, text)| {
        let option = OptionV4::named(name).unwrap();
        (option, option.parse(text).unwrap())
    });
    DhcpV4 {
        network: prefix("10.0.0.0/24"),
        server_ip: Ipv4Addr::new(10, 0, 0, 1),
        server_mac: SERVER,
        options: options.into(),
    }
}

fn six(is_stateless: bool) -> DhcpV6 {
    let options = [("dns_server", "2001:db8::53"), ("domain_search", "example"), ("lease_time", "1000")];
    let options = options.map(|(name, text)| {
        let option = OptionV6::named(name).unwrap();
        (option, option.parse(text).unwrap())
    });
    DhcpV6 { network: prefix("2001:db8::/64"), server_mac: SERVER, is_stateless, options: options.into() }
}

fn advertisement() -> RouterAdvertisement {
    RouterAdvertisement {
        mode: AddressMode::Stateless,
        mtu: Some(1442),
        rdnss: vec!["2001:db8::53".parse().unwrap()],
        dnssl: vec!["example".to_owned()],
        routes: Vec::new(),
        preference: Preference::High,
        lifetime: 1800,
        interval: Some((200, 600)),
    }
}

/// A DHCPv4 message of workload `a`, with these options.
fn discover(kind: u8, client_ip: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(XID);
    bytes.extend([0, 0, 0, 0]);
    bytes.extend(client_ip);
    bytes.extend([0; 12]);
    bytes.extend(mac(5).octets());
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, 53, 1, kind]);
    for (code, value) in options {
        bytes.extend([*code, value.len() as u8]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes
}

/// From `a` to everybody, or to one.
fn from_client(src: &str, dst: (MacAddr, &str), payload: &[u8]) -> Vec<u8> {
    let from = End { mac: mac(5), ip: src.parse().unwrap(), port: 68 };
    build::udp(&from, &End { mac: dst.0, ip: dst.1.parse().unwrap(), port: 67 }, payload)
}

fn broadcast(payload: &[u8]) -> Vec<u8> {
    from_client("0.0.0.0", (MacAddr::BROADCAST, "255.255.255.255"), payload)
}

/// What a server's message says: type, offered address, options.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    kind: u8,
    ip: [u8; 4],
    options: Vec<(u8, Vec<u8>)>,
}

impl Answer {
    fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }
}

/// Checks the frame and takes the message apart, by a reader of its own.
fn read4(frame: &[u8]) -> Answer {
    let key = key(frame);
    assert_eq!(frame[..12], [mac(5).octets(), SERVER.octets()].concat());
    assert_eq!((key.get(Field::UdpSrc), key.get(Field::UdpDst)), (67, 68));
    assert_eq!(key.get(Field::NwSrc), v4("10.0.0.1"));
    check_sums(frame);
    check_udp(frame);
    let message = &frame[42..];
    assert_eq!((&message[..4], &message[4..8]), (&[2, 1, 6, 0][..], &XID[..]));
    assert_eq!(message[28..34], mac(5).octets());
    assert_eq!(message[236..240], [99, 130, 83, 99]);
    let (mut options, mut rest) = (Vec::new(), &message[240..]);
    while rest[0] != 255 {
        let len = usize::from(rest[1]);
        options.push((rest[0], rest[2..2 + len].to_vec()));
        rest = &rest[2 + len..];
    }
    assert!(rest[1..].iter().all(|byte| *byte == 0), "nothing behind the end");
    let kind = options.iter().find(|(code, _)| *code == 53).unwrap().1[0];
    Answer { kind, ip: message[16..20].try_into().unwrap(), options }
}

fn check_udp(frame: &[u8]) {
    let key = key(frame);
    let (at, pseudo) = match key.eth_type.get() {
        0x0800 => {
            let len = frame.len() - 34;
            let (src, dst) = (key.get(Field::NwSrc) as u32, key.get(Field::NwDst) as u32);
            (34, flowtable::checksum::pseudo_ipv4(src, dst, 17, len))
        }
        _ => {
            let len = frame.len() - 54;
            (54, flowtable::checksum::pseudo_ipv6(key.get(Field::Ipv6Src), key.get(Field::Ipv6Dst), 17, len))
        }
    };
    assert_eq!(pseudo.bytes(&frame[at..]).checksum(), 0, "UDP");
}

/// What `a` gets for a message, if it gets one.
fn ask4(net: &mut Net, frame: &[u8]) -> Option<(Answer, Vec<u8>)> {
    let sent = net.send(A, frame);
    match &sent[..] {
        [] => None,
        [(A, frame)] => Some((read4(frame), frame.clone())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_gets_its_address_and_all_options() {
    let mut net = Net::of(&served());
    let (offer, frame) = ask4(&mut net, &broadcast(&discover(1, [0; 4], &[]))).expect("an offer");
    assert_eq!((offer.kind, offer.ip), (2, [10, 0, 0, 5]));
    assert_eq!(key(&frame).get(Field::NwDst), v4("10.0.0.5"));
    assert_eq!(frame[42 + 20..][..4], [10, 0, 0, 69], "next server");
    for (code, wanted) in [
        (1, &[255, 255, 255, 0][..]),
        (3, &[10, 0, 0, 1]),
        (6, &[10, 0, 0, 53, 10, 0, 0, 54]),
        (12, b"web-a"),
        (15, b"example"),
        (26, &[5, 162]),
        (51, &[0, 0, 14, 16]),
        (54, &[10, 0, 0, 1]),
        (58, &[0, 0, 7, 8]),
        (59, &[0, 0, 12, 78]),
        (67, b"plain.pxe"),
        (121, &[16, 10, 9, 10, 0, 0, 1, 0, 10, 0, 0, 1]),
    ] {
        assert_eq!(offer.option(code), Some(wanted), "option {code}");
    }
    assert!(offer.options.iter().all(|(code, _)| *code < 253), "{:?}", offer.options);
    let request = discover(3, [0; 4], &[(50, &[10, 0, 0, 5]), (54, &[10, 0, 0, 1])]);
    let (ack, _) = ask4(&mut net, &broadcast(&request)).expect("an answer");
    assert_eq!((ack.kind, ack.ip), (5, [10, 0, 0, 5]));
    // Renewing by unicast, to the router's address and whoever has it; then by broadcast.
    let renew = discover(3, [10, 0, 0, 5], &[]);
    for to in [(mac(0xf1), "10.0.0.1"), (MacAddr::BROADCAST, "255.255.255.255")] {
        let (ack, frame) = ask4(&mut net, &from_client("10.0.0.5", to, &renew)).expect("an answer");
        assert_eq!((ack.kind, ack.ip), (5, [10, 0, 0, 5]));
        assert_eq!(key(&frame).get(Field::NwDst), v4("10.0.0.5"));
    }
    // Only parameters: no address, no lease.
    let (ack, _) = ask4(&mut net, &broadcast(&discover(8, [10, 0, 0, 5], &[]))).expect("an answer");
    assert_eq!((ack.kind, ack.ip, ack.option(51)), (5, [0; 4], None));
    assert_eq!(ack.option(3), Some(&[10, 0, 0, 1][..]));
}

#[test]
fn a_wrong_address_is_refused_and_other_servers_are_left_alone() {
    let mut net = Net::of(&served());
    for (client_ip, options) in [
        ([0; 4], &[(50, &[10, 0, 0, 77][..])][..]),
        ([0; 4], &[(50, &[10, 0, 0, 77]), (54, &[10, 0, 0, 1])]),
        ([10, 0, 0, 77], &[]),
        ([0; 4], &[]),
    ] {
        let (nak, frame) = ask4(&mut net, &broadcast(&discover(3, client_ip, options))).expect("a refusal");
        assert_eq!((nak.kind, nak.ip), (6, [0; 4]));
        assert_eq!(key(&frame).get(Field::NwDst), v4("255.255.255.255"));
        assert_eq!((nak.option(51), nak.option(3)), (None, None));
    }
    let other = discover(3, [0; 4], &[(50, &[10, 0, 0, 5]), (54, &[10, 0, 0, 2])]);
    assert_eq!(ask4(&mut net, &broadcast(&other)), None);
    for kind in [4, 7, 2, 5, 0, 99] {
        let message = discover(kind, [10, 0, 0, 5], &[(54, &[10, 0, 0, 1])]);
        assert_eq!(ask4(&mut net, &broadcast(&message)), None, "message {kind}");
    }
    let mut relayed = discover(1, [0; 4], &[]);
    relayed[27] = 9;
    assert_eq!(ask4(&mut net, &broadcast(&relayed)), None);
    let mut foreign = discover(1, [0; 4], &[]);
    foreign[33] = 9;
    assert_eq!(ask4(&mut net, &broadcast(&foreign)), None, "another station's address");
}

#[test]
fn what_a_client_says_of_itself_is_heard() {
    let mut net = Net::of(&served());
    let mut message = discover(1, [0; 4], &[(55, &[121, 6, 3]), (61, b"me"), (175, &[1])]);
    message[10] = 0x80;
    let (offer, frame) = ask4(&mut net, &broadcast(&message)).expect("an offer");
    assert_eq!(key(&frame).get(Field::NwDst), v4("255.255.255.255"));
    let at = |code| offer.options.iter().position(|(known, _)| *known == code).unwrap();
    assert!(at(121) < at(6) && at(6) < at(3) && at(3) < at(15), "{:?}", offer.options);
    assert_eq!(offer.option(61), Some(&b"me"[..]));
    assert_eq!(offer.option(67), Some(&b"http://10.0.0.69/ipxe"[..]));
    // What does not fit stays out, what was asked for first comes in.
    let mut nb = served();
    let mut large = four();
    for name in ["root_path", "wpad", "path_prefix"] {
        let option = OptionV4::named(name).unwrap();
        large.options.insert(option, option.parse(&"x".repeat(250)).unwrap());
    }
    nb.dhcp_options.insert("four".to_owned(), DhcpOptions::V4(large));
    let mut net = Net::of(&nb);
    let (offer, frame) = ask4(&mut net, &broadcast(&discover(1, [0; 4], &[(55, &[252])]))).expect("an offer");
    assert!(frame.len() <= 14 + 576, "{}", frame.len());
    assert!(offer.option(252).is_some() && offer.option(17).is_none());
    let message = discover(1, [0; 4], &[(57, &1400_u16.to_be_bytes())]);
    let (offer, _) = ask4(&mut net, &broadcast(&message)).expect("an offer");
    assert!(offer.option(252).is_some() && offer.option(17).is_some());
}

#[test]
fn answers_pass_a_switch_that_denies_and_nobody_else_does_so() {
    let mut nb = served();
    let near = nb.switches.get_mut("near").unwrap();
    near.default_policy = DefaultPolicy::Drop;
    let acl = |matching: &str| Acl {
        direction: AclDirection::FromLport,
        tier: 0,
        priority: Priority::new(5).unwrap(),
        matching: matching.to_owned(),
        action: AclAction::AllowRelated,
        label: 0,
        log: None,
        after_lb: false,
        persists: false,
        samples: Default::default(),
    };
    near.acls.insert("ask".to_owned(), acl("udp.dst == {67, 547, 53}"));
    near.acls.insert("any".to_owned(), acl("inport == \"c\""));
    let mut net = Net::of(&nb);
    let (offer, _) = ask4(&mut net, &broadcast(&discover(1, [0; 4], &[]))).expect("an offer");
    assert_eq!(offer.kind, 2);
    // Somebody who sends from the servers' ports is nobody's server.
    for port in [67, 53, 547] {
        let from = End { mac: mac(9), ip: "10.0.0.9".parse().unwrap(), port };
        let sent = net.send(C, &build::udp(&from, &end(5, "10.0.0.5", 68), b"a forged answer"));
        assert_eq!(sent, [], "from port {port}");
    }
    let known = net.send(A, &query(&question("web.example", 1), 0x0053));
    assert_eq!(known.len(), 1, "{:?}", net.switch.drops());
}

#[test]
fn a_flood_of_one_does_not_take_the_others_answers() {
    let mut net = Net::of(&served());
    let mut sink = Collect::default();
    let mut flood = discover(1, [0; 4], &[]);
    flood[28..34].copy_from_slice(&mac(9).octets());
    let from = End { mac: mac(9), ip: "0.0.0.0".parse().unwrap(), port: 68 };
    let to = End { mac: MacAddr::BROADCAST, ip: "255.255.255.255".parse().unwrap(), port: 67 };
    let flood = build::udp(&from, &to, &flood);
    let port = PortNo::new(C).unwrap();
    for _ in 0..1000 {
        net.n_sent += 1;
        net.switch.process(net.now, &net.snapshot, port, &mut vec![packet(&flood, port)], &mut sink);
        net.settle(&mut sink);
    }
    assert_eq!(sink.0.len(), 50, "a quarter of what may come at once");
    let (offer, _) = ask4(&mut net, &broadcast(&discover(1, [0; 4], &[]))).expect("an offer");
    assert_eq!(offer.kind, 2);
}

#[test]
fn a_datapath_has_bounds_of_its_own() {
    let mut nb = served();
    nb.limits.insert("tight".to_owned(), [(Service::DhcpV4, Rate { pps: 1, burst: 8 })].into());
    nb.switches.get_mut("near").unwrap().services.limits = Some("tight".to_owned());
    let mut net = Net::of(&nb);
    let mut answers = 0;
    for _ in 0..9 {
        answers += u32::from(ask4(&mut net, &broadcast(&discover(1, [0; 4], &[]))).is_some());
    }
    // A port's quarter of the burst, in half a second.
    assert_eq!(answers, 2);
}

/// A DHCPv6 message of workload `a`.
fn solicit(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut payload = vec![kind, 7, 7, 7];
    for (code, value) in options {
        payload.extend(code.to_be_bytes());
        payload.extend((value.len() as u16).to_be_bytes());
        payload.extend(*value);
    }
    let from = End { mac: mac(5), ip: "fe80::5".parse().unwrap(), port: 546 };
    let to = End { mac: MacAddr::new([0x33, 0x33, 0, 1, 0, 2]), ip: "ff02::1:2".parse().unwrap(), port: 547 };
    build::udp(&from, &to, &payload)
}

type Options6 = Vec<(u16, Vec<u8>)>;

fn read_options6(mut rest: &[u8]) -> Options6 {
    let mut options = Vec::new();
    while let [a, b, c, d, more @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*c, *d]));
        options.push((u16::from_be_bytes([*a, *b]), more[..len].to_vec()));
        rest = &more[len..];
    }
    assert!(rest.is_empty());
    options
}

fn ask6(net: &mut Net, frame: &[u8]) -> Option<(u8, Options6)> {
    let sent = net.send(A, frame);
    let [(A, frame)] = &sent[..] else {
        assert!(sent.is_empty(), "{sent:?}");
        return None;
    };
    let key = key(frame);
    assert_eq!((key.get(Field::UdpSrc), key.get(Field::UdpDst)), (547, 546));
    assert_eq!(
        (key.get(Field::Ipv6Src), key.get(Field::Ipv6Dst)),
        (v6("fe80::800:ff:fe00:101"), v6("fe80::5"))
    );
    check_udp(frame);
    assert_eq!(frame[63..66], [7, 7, 7]);
    Some((frame[62], read_options6(&frame[66..])))
}

const CLIENT: (u16, &[u8]) = (1, &[0, 3, 0, 1, 10, 0, 0, 0, 0, 5]);
const OWN: (u16, &[u8]) = (2, &[0, 3, 0, 1, 0x0a, 0, 0, 0, 1, 1]);
const IA: (u16, &[u8]) = (3, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);

/// The address of an association, with its lifetime.
fn given(options: &Options6) -> Vec<(Ipv6Addr, u32)> {
    let association = options.iter().find(|(code, _)| *code == 3).map(|(_, value)| value[12..].to_vec());
    let inner = read_options6(&association.unwrap_or_default());
    let address = |(code, value): &(u16, Vec<u8>)| {
        (*code == 5).then(|| {
            let ip = <[u8; 16]>::try_from(&value[..16]).unwrap();
            (Ipv6Addr::from(ip), u32::from_be_bytes(value[20..24].try_into().unwrap()))
        })
    };
    inner.iter().filter_map(address).collect()
}

#[test]
fn a_dhcpv6_client_gets_its_address() {
    let mut net = Net::of(&served());
    let own = [("2001:db8::5".parse::<Ipv6Addr>().unwrap(), 1000)];
    let (kind, options) = ask6(&mut net, &solicit(1, &[CLIENT, IA])).expect("an advertisement");
    assert_eq!((kind, given(&options)), (2, own.to_vec()));
    let option = |options: &Options6, wanted| {
        options.iter().find(|(code, _)| *code == wanted).map(|(_, value)| value.clone())
    };
    assert_eq!(option(&options, 1).unwrap(), CLIENT.1);
    assert_eq!(option(&options, 2).unwrap(), OWN.1);
    assert_eq!(option(&options, 23).unwrap(), "2001:db8::53".parse::<Ipv6Addr>().unwrap().octets());
    assert_eq!(option(&options, 24).unwrap(), b"\x07example\0");
    // At once, renewing, rebinding.
    for (message, wanted) in [
        (solicit(1, &[CLIENT, IA, (14, &[])]), 7),
        (solicit(3, &[CLIENT, OWN, IA]), 7),
        (solicit(5, &[CLIENT, OWN, IA]), 7),
        (solicit(6, &[CLIENT, IA]), 7),
    ] {
        let (kind, options) = ask6(&mut net, &message).expect("a reply");
        assert_eq!((kind, given(&options)), (wanted, own.to_vec()));
    }
    // An address of before is taken back; a prefix and a second association are refused.
    let mut old = IA.1.to_vec();
    let old_ip = "2001:db8::77".parse::<Ipv6Addr>().unwrap();
    old.extend([0, 5, 0, 24]);
    old.extend(old_ip.octets());
    old.extend([0; 8]);
    let message = solicit(5, &[CLIENT, OWN, (3, &old), IA, (25, IA.1)]);
    let (_, options) = ask6(&mut net, &message).expect("a reply");
    assert_eq!(given(&options), [own[0], (old_ip, 0)]);
    let refused: Vec<_> = options.iter().filter(|(code, _)| matches!(code, 3 | 25)).skip(1).collect();
    assert_eq!(refused.iter().map(|(_, value)| value[17]).collect::<Vec<_>>(), [2, 6]);
    // Still on the link, or not.
    let (_, options) = ask6(&mut net, &solicit(4, &[CLIENT, (3, &old)])).expect("a reply");
    assert_eq!(option(&options, 13).unwrap(), [0, 4]);
    let (kind, options) = ask6(&mut net, &solicit(8, &[CLIENT, OWN, IA])).expect("a reply");
    assert_eq!((kind, option(&options, 13).unwrap()), (7, vec![0, 0]));
    let (kind, options) = ask6(&mut net, &solicit(11, &[])).expect("a reply");
    assert_eq!((kind, given(&options), option(&options, 24).is_some()), (7, Vec::new(), true));
}

#[test]
fn dhcpv6_messages_for_others_and_without_state_are_left() {
    let mut net = Net::of(&served());
    let other = (2, &[0, 3, 0, 1, 9, 9, 9, 9, 9, 9][..]);
    for message in [
        solicit(3, &[CLIENT, other, IA]),
        solicit(3, &[CLIENT, IA]),
        solicit(1, &[IA]),
        solicit(1, &[CLIENT, OWN, IA]),
        solicit(2, &[CLIENT, OWN, IA]),
        solicit(7, &[CLIENT, OWN, IA]),
        solicit(12, &[CLIENT]),
    ] {
        assert_eq!(ask6(&mut net, &message), None);
    }
    let mut nb = served();
    nb.dhcp_options.insert("six".to_owned(), DhcpOptions::V6(six(true)));
    let mut net = Net::of(&nb);
    assert_eq!(ask6(&mut net, &solicit(1, &[CLIENT, IA])), None);
    assert!(ask6(&mut net, &solicit(11, &[CLIENT])).is_some());
}

/// A question as it is in a message.
fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// A message from `a` to `c`, who is the resolver.
fn query(question: &[u8], id: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(question);
    to_resolver(&message)
}

fn to_resolver(message: &[u8]) -> Vec<u8> {
    build::udp(&end(5, "10.0.0.5", 40_000), &end(9, "10.0.0.9", 53), message)
}

/// A record: its type and its data.
type NameRecord = (u16, Vec<u8>);

/// The answer: its flags, and its records.
fn resolve(net: &mut Net, frame: &[u8]) -> Result<(u16, Vec<NameRecord>), &'static str> {
    let sent = net.send(A, frame);
    match &sent[..] {
        [(C, passed)] => {
            assert_eq!(passed[14..], frame[14..], "it passes as it came");
            Err("passed on")
        }
        [(A, answer)] => {
            let key = key(answer);
            assert_eq!(answer[..12], [mac(5).octets(), mac(9).octets()].concat());
            assert_eq!((key.get(Field::UdpSrc), key.get(Field::UdpDst)), (53, 40_000));
            assert_eq!((key.get(Field::NwSrc), key.get(Field::NwDst)), (v4("10.0.0.9"), v4("10.0.0.5")));
            check_sums(answer);
            check_udp(answer);
            let (asked, message) = (&frame[42..], &answer[42..]);
            assert_eq!(message[..2], asked[..2]);
            let n_answers = message[7];
            let question_len = asked[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            assert_eq!(message[12..12 + question_len], asked[12..12 + question_len]);
            let (mut rest, mut records) = (&message[12 + question_len..], Vec::new());
            for _ in 0..n_answers {
                assert_eq!(rest[..2], [0xc0, 12]);
                assert_eq!(rest[4..10], [0, 1, 0, 0, 0, 60], "class and time to live");
                let len = usize::from(rest[11]);
                records.push((u16::from_be_bytes([rest[2], rest[3]]), rest[12..12 + len].to_vec()));
                rest = &rest[12 + len..];
            }
            assert_eq!(rest.is_empty(), message[11] == 0);
            Ok((u16::from_be_bytes([message[2], message[3]]), records))
        }
        other => panic!("{other:?} {:?}", net.switch.drops()),
    }
}

#[test]
fn known_names_are_answered_and_others_pass() {
    let mut net = Net::of(&served());
    let v6_octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets().to_vec();
    for (name, kind, wanted) in [
        ("web.example", 1, vec![(1, vec![10, 0, 0, 80])]),
        ("wEb.eXample", 1, vec![(1, vec![10, 0, 0, 80])]),
        ("web.example", 28, vec![(28, v6_octets("2001:db8::80"))]),
        ("web.example", 255, vec![(1, vec![10, 0, 0, 80]), (28, v6_octets("2001:db8::80"))]),
        ("only4.example", 28, vec![]),
        ("only4.example", 65, vec![]),
        ("80.0.0.10.in-addr.arpa", 12, vec![(12, b"\x03web\x07example\0".to_vec())]),
        (
            "0.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            12,
            vec![(12, b"\x03web\x07example\0".to_vec())],
        ),
    ] {
        let (flags, records) = resolve(&mut net, &query(&question(name, kind), 7)).expect(name);
        assert_eq!((flags, &records), (0x8580, &wanted), "{name} {kind}");
    }
    for (name, kind) in [
        ("other.example", 1),
        ("example", 1),
        ("eb.example", 1),
        ("81.0.0.11.in-addr.arpa", 12),
        ("0.0.10.in-addr.arpa", 12),
        ("300.0.0.10.in-addr.arpa", 12),
        ("8.ip6.arpa", 12),
    ] {
        assert_eq!(resolve(&mut net, &query(&question(name, kind), 7)), Err("passed on"), "{name}");
    }
}

#[test]
fn what_is_no_plain_question_passes() {
    let mut net = Net::of(&served());
    let good = query(&question("web.example", 1), 7);
    for (at, value) in [(2, 0x80), (2, 0x28), (5, 0), (5, 2), (7, 1), (9, 1), (4, 1)] {
        let mut frame = good[42..].to_vec();
        frame[at] = value;
        assert_eq!(resolve(&mut net, &to_resolver(&frame)), Err("passed on"), "byte {at}");
    }
    let chaos = [&question("web.example", 1)[..15], &[0, 3]].concat();
    assert_eq!(resolve(&mut net, &query(&chaos, 7)), Err("passed on"));
    // A pointer to itself is no name.
    assert_eq!(resolve(&mut net, &query(&[0xc0, 12, 0, 1, 0, 1], 7)), Err("passed on"));
    for len in 0..good.len() - 43 {
        let frame = to_resolver(&good[42..42 + len]);
        assert_eq!(resolve(&mut net, &frame), Err("passed on"), "{len}");
    }
}

#[test]
fn clients_say_how_much_they_take() {
    let mut nb = served();
    let many: Vec<IpAddr> =
        (1..=60).map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()).collect();
    nb.names.get_mut("zone").unwrap().records.insert("many.example".to_owned(), many.into_iter().collect());
    let mut net = Net::of(&nb);
    let question = question("many.example", 28);
    let plain = [&[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &question[..]].concat();
    let (flags, records) = resolve(&mut net, &to_resolver(&plain)).unwrap();
    assert_eq!((flags, records.len()), (0x8780, 0), "cut off: ask by TCP");
    let extended = |len: u16, version: u8| {
        let [a, b] = len.to_be_bytes();
        let opt = [0, 0, 41, a, b, 0, version, 0x80, 0, 0, 0];
        [&[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1], &question[..], &opt].concat()
    };
    // 60 records are too many even so; a name with two fits.
    assert_eq!(resolve(&mut net, &to_resolver(&extended(4096, 0))).unwrap(), (0x8780, Vec::new()));
    let sent = net.send(A, &to_resolver(&extended(4096, 1)));
    let message = &sent[0].1[42..];
    let opt = &message[message.len() - 11..];
    assert_eq!(opt, [0, 0, 41, 4, 208, 1, 0, 0x80, 0, 0, 0], "a version that nobody knows");
}

/// A router solicitation of workload `a`.
fn solicitation(src: &str) -> Vec<u8> {
    let (src, dst) = (src.parse::<Ipv6Addr>().unwrap(), "ff02::2".parse::<Ipv6Addr>().unwrap());
    let mut icmp = vec![133, 0, 0, 0, 0, 0, 0, 0];
    let pseudo = flowtable::checksum::pseudo_ipv6(src.to_bits(), dst.to_bits(), 58, icmp.len());
    let sum = pseudo.bytes(&icmp).checksum().to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x60, 0, 0, 0, 0, icmp.len() as u8, 58, 255];
    packet.extend(src.octets());
    packet.extend(dst.octets());
    packet.extend(icmp);
    build::ethernet(MacAddr::new([0x33, 0x33, 0, 0, 0, 2]), mac(5), 0x86dd, &packet)
}

fn check_advertisement(frame: &[u8], to: &str) {
    let key = key(frame);
    assert_eq!(frame[6..12], mac(0xf1).octets());
    assert_eq!((key.get(Field::Ipv6Src), key.get(Field::Ipv6Dst)), (v6("fe80::800:ff:fe00:f1"), v6(to)));
    assert_eq!((key.get(Field::Icmpv6Type), key.get(Field::NwTtl)), (134, 255));
    check_sums(frame);
    let message = &frame[54..];
    assert_eq!(message[5], 0x48, "other configuration, high preference");
    let prefix =
        [&[3, 4, 64, 0xc0][..], &[0xff; 8], &[0; 4], &"2001:db8::".parse::<Ipv6Addr>().unwrap().octets()];
    let prefix = prefix.concat();
    assert!(message.windows(prefix.len()).any(|window| window == prefix), "{message:?}");
}

#[test]
fn hosts_that_ask_for_routers_are_told() {
    let mut net = Net::of(&served());
    for (src, to, station) in [("fe80::5", "fe80::5", mac(5).octets()), ("::", "ff02::1", mac(5).octets())] {
        let sent = net.send(A, &solicitation(src));
        let to_asker: Vec<_> = sent.iter().filter(|(port, _)| *port == A).collect();
        let [(A, frame)] = to_asker[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
        assert_eq!(frame[..6], station);
        check_advertisement(frame, to);
    }
}

#[test]
fn routers_speak_unasked_at_their_times() {
    let mut net = Net::of(&served());
    let sb = compile(&served(), &BTreeMap::new());
    let binding = &sb.bindings["r1-near"];
    let says: Advertises = binding.advertises.clone().unwrap();
    assert_eq!(says.interval, (200, 600));
    let advertiser = Advertiser { says, is_pinned: false };
    let key = (binding.datapath, binding.key);
    net.responder.set_advertisers(net.now, [(key, advertiser.clone())].into());
    let (start, mut times) = (net.now.nanos(), Vec::new());
    for second in 0..4000 {
        net.now = Timestamp::from_nanos(start + second * 1_000_000_000);
        // What is told again is not said again.
        net.responder.set_advertisers(net.now, [(key, advertiser.clone())].into());
        let (effects, mut sink) = (net.responder.tick(net.now), Collect::default());
        let is_time = !effects.is_empty();
        net.apply(effects, &mut sink);
        net.settle(&mut sink);
        if is_time {
            times.push(second);
            let mut ports: Vec<_> = sink.0.iter().map(|(port, _)| *port).collect();
            ports.sort_unstable();
            assert_eq!(ports, [A, C], "every workload of the network");
            assert_eq!(sink.0[0].1[..6], [0x33, 0x33, 0, 0, 0, 1]);
            check_advertisement(&sink.0[0].1, "ff02::1");
        }
    }
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!((times[0], &pauses[..2]), (0, &[16, 16][..]), "the first ones come fast");
    assert!(pauses[3..].iter().all(|pause| (200..=601).contains(pause)), "{pauses:?}");
    assert!(pauses[3..].windows(2).any(|pair| pair[0] != pair[1]), "not in step: {pauses:?}");
    net.responder.set_advertisers(net.now, Default::default());
    net.now = Timestamp::from_nanos(start + 9_000_000_000_000);
    assert_eq!(net.responder.tick(net.now), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_messages_hurt_nobody(
        which in 0_usize..4,
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let messages = [
            broadcast(&discover(3, [10, 0, 0, 5], &[(50, &[10, 0, 0, 5]), (55, &[1, 3]), (57, &[2, 64]), (61, b"x")])),
            solicit(5, &[CLIENT, OWN, (3, &[IA.1, &[0, 5, 0, 24], &[0; 24]].concat()), (25, IA.1)]),
            query(&question("web.example", 255), 7),
            solicitation("fe80::5"),
        ];
        let mut frame = messages[which].clone();
        for (at, byte) in flips {
            let at = at.index(frame.len() - 14) + 14;
            frame[at] ^= byte;
        }
        frame.truncate(cut.index(frame.len()) + 1);
        thread_local! {
            static NET: std::cell::RefCell<Net> = std::cell::RefCell::new(Net::of(&served()));
        }
        NET.with_borrow_mut(|net| {
            let sent = net.send(A, &frame);
            prop_assert!(sent.len() <= 4, "{sent:?}");
            Ok(())
        })?;
    }
}
