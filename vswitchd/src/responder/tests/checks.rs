//! Health checks, as the backend of a load balancer sees them.

use ovn_northd_lite::{
    model::{
        Backend, DefaultPolicy, HealthCheck, LoadBalancer, PortCheck, ProbePoint, Protocol, Service, Vip,
    },
    punt::MONITOR_MAC,
};

use super::*;

/// Every second, for half a second; two answers bring it online, three failures offline.
const CHECK: HealthCheck = HealthCheck { interval: 2, timeout: 1, n_successes: 2, n_failures: 3 };
const SECOND: u64 = 1_000_000_000;

/// `a` serves at 10.0.0.5:8080 and [2001:db8::5]:8080; its switch denies everything.
fn checked(protocol: Protocol) -> Northbound {
    let mut nb = network();
    nb.switches.get_mut("near").unwrap().default_policy = DefaultPolicy::Drop;
    let point = |source: &str| ProbePoint {
        switch: "near".to_owned(),
        port: "a".to_owned(),
        source: source.parse().unwrap(),
    };
    let service = |vip: &str, ip: &str| {
        let backend = Backend { ip: ip.parse().unwrap(), port: Some(8080), online: false };
        (Vip { ip: vip.parse().unwrap(), port: Some(80) }, Service { backends: vec![backend] })
    };
    let balancer = LoadBalancer {
        vips: [service("192.0.2.1", "10.0.0.5"), service("2001:db8:1::1", "2001:db8::5")].into(),
        protocol,
        health_check: Some(CHECK),
        probe_points: [
            ("10.0.0.5".parse().unwrap(), point("10.0.0.250")),
            ("2001:db8::5".parse().unwrap(), point("2001:db8::250")),
        ]
        .into(),
        ..LoadBalancer::default()
    };
    nb.load_balancers.insert("lb".to_owned(), balancer);
    nb.switches.get_mut("near").unwrap().load_balancers.insert("lb".to_owned());
    nb
}

fn asked(nb: &Northbound) -> Vec<Asked> {
    let sb = compile(nb, &BTreeMap::new());
    let binding = &sb.bindings["a"];
    let asked = |probe: &ovn_northd_lite::southbound::Probe| Asked {
        id: "a".to_owned(),
        datapath: binding.datapath,
        port: binding.key,
        probe: probe.clone(),
    };
    binding.probes.iter().map(asked).collect()
}

fn ready(protocol: Protocol) -> Net {
    let nb = checked(protocol);
    let mut net = Net::of(&nb);
    net.responder.set_checks(net.now, asked(&nb));
    net
}

impl Net {
    /// Time goes on; what workloads receive.
    fn pass(&mut self, nanos: u64) -> Vec<(u32, Vec<u8>)> {
        self.now = Timestamp::from_nanos(self.now.nanos() + nanos);
        let mut sink = Collect::default();
        let effects = self.responder.tick(self.now);
        self.apply(effects, &mut sink);
        self.settle(&mut sink);
        sink.0
    }

    fn online(&self) -> Vec<(&str, bool)> {
        self.health.iter().map(|known| (known.backend.as_str(), known.online)).collect()
    }
}

/// The frame turned around, with other TCP flags and the next number acknowledged.
fn answer(frame: &[u8], flags: u8) -> Vec<u8> {
    let is_v4 = frame[12..14] == [8, 0];
    let (addresses, len, transport) = if is_v4 { (26, 4, 34) } else { (22, 16, 54) };
    let mut back = frame.to_vec();
    back[..6].copy_from_slice(&frame[6..12]);
    back[6..12].copy_from_slice(&frame[..6]);
    back[addresses..addresses + len].copy_from_slice(&frame[addresses + len..][..len]);
    back[addresses + len..][..len].copy_from_slice(&frame[addresses..][..len]);
    back[transport..transport + 2].copy_from_slice(&frame[transport + 2..][..2]);
    back[transport + 2..][..2].copy_from_slice(&frame[transport..][..2]);
    if frame[if is_v4 { 23 } else { 20 }] == 6 {
        let sequence = u32::from_be_bytes(frame[transport + 4..][..4].try_into().unwrap());
        back[transport + 8..][..4].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
        back[transport + 13] = flags;
    }
    back
}

fn flags_of(frame: &[u8]) -> u128 {
    key(frame).get(Field::TcpFlags)
}

#[test]
fn who_accepts_connections_is_online_and_who_refuses_them_is_not() {
    let mut net = ready(Protocol::Tcp);
    for round in 0..2 {
        assert_eq!(net.online(), []);
        let questions = net.pass(if round == 0 { 0 } else { 2 * SECOND });
        assert_eq!(questions.len(), 2, "one of each family: {:?}", net.switch.drops());
        for (port, syn) in questions {
            assert_eq!((port, flags_of(&syn), &syn[6..12]), (A, 2, &MONITOR_MAC.octets()[..]));
            let sent = net.send(A, &answer(&syn, 0x12));
            let [(A, reset)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
            assert_eq!(flags_of(reset), 4);
            check_sums(reset);
            // The same again is nobody's question, and says nothing.
            assert_eq!(net.send(A, &answer(&syn, 0x12)), []);
        }
    }
    assert_eq!(net.online(), [("10.0.0.5:8080", true), ("[2001:db8::5]:8080", true)]);
    for _ in 0..3 {
        assert_eq!(net.online().iter().filter(|(_, online)| *online).count(), 2);
        for (_, syn) in net.pass(2 * SECOND) {
            assert_eq!(net.send(A, &answer(&syn, 0x14)), [], "a refusal has no answer");
        }
    }
    assert_eq!(net.online(), [("10.0.0.5:8080", false), ("[2001:db8::5]:8080", false)]);
}

#[test]
fn silence_is_no_by_tcp_and_yes_by_udp() {
    for (protocol, n_rounds, online) in [(Protocol::Tcp, 3, false), (Protocol::Udp, 2, true)] {
        let mut net = ready(protocol);
        net.pass(0);
        for _ in 0..n_rounds {
            assert_eq!(net.online(), []);
            assert_eq!(net.pass(SECOND), [], "the time for an answer is over");
            if net.health.is_empty() {
                assert_eq!(net.pass(SECOND).len(), 2);
            }
        }
        assert_eq!(net.online().iter().map(|(_, is)| *is).collect::<Vec<_>>(), [online; 2]);
    }
}

#[test]
fn an_icmp_error_says_no_by_udp() {
    let mut net = ready(Protocol::Udp);
    for round in 0..3 {
        for (_, question) in net.pass(if round == 0 { 0 } else { 2 * SECOND }) {
            if question[12..14] != [8, 0] {
                continue;
            }
            // The kernel's answer: port unreachable, with the question quoted.
            let mut error = answer(&question, 0);
            error.truncate(34);
            error[16..18].copy_from_slice(&56u16.to_be_bytes());
            error[23] = 1;
            error.extend([3, 3, 0, 0, 0, 0, 0, 0]);
            error.extend(&question[14..42]);
            assert_eq!(net.send(A, &error), []);
        }
    }
    assert!(net.online().contains(&("10.0.0.5:8080", false)), "{:?}", net.online());
}

#[test]
fn the_backend_finds_out_who_asks() {
    let mut net = ready(Protocol::Tcp);
    let sent = net.send(A, &build::arp(1, &end(5, "10.0.0.5", 0), &end(0, "10.0.0.250", 0)));
    let [(A, reply)] = &sent[..] else { panic!("{sent:?} {:?}", net.switch.drops()) };
    let sha = MONITOR_MAC.octets().iter().fold(0, |value: u128, byte| value << 8 | u128::from(*byte));
    assert_eq!((key(reply).get(Field::ArpSha), key(reply).get(Field::ArpSpa)), (sha, v4("10.0.0.250")));
}

#[test]
fn forged_and_broken_answers_say_nothing() {
    let mut net = ready(Protocol::Tcp);
    let (_, syn) = net.pass(0).remove(0);
    let good = answer(&syn, 0x12);
    for at in [26, 30, 34, 36, 42, 47] {
        let mut forged = good.clone();
        forged[at] ^= 0x40;
        net.send(A, &forged);
    }
    for len in 14..good.len() {
        net.send(A, &good[..len]);
    }
    assert_eq!(net.online(), []);
    net.pass(2 * SECOND);
    assert_eq!(net.online(), [], "one failure, no answer");
    // Somebody who is asked nothing any more is forgotten.
    net.responder.set_checks(net.now, Vec::new());
    assert_eq!(net.pass(10 * SECOND), []);
}

#[test]
fn workloads_are_asked_as_such_and_an_echo_is_an_answer() {
    let mut nb = network();
    let near = nb.switches.get_mut("near").unwrap();
    near.default_policy = DefaultPolicy::Drop;
    let check = |protocol, ip: &str, source: &str| PortCheck {
        protocol,
        ip: ip.parse().unwrap(),
        port: if protocol.is_some() { 8080 } else { 0 },
        source: source.parse().unwrap(),
        times: CHECK,
    };
    near.ports.get_mut("a").unwrap().options.checks = vec![
        check(None, "10.0.0.5", "10.0.0.250"),
        check(None, "2001:db8::5", "2001:db8::250"),
        check(Some(Protocol::Tcp), "10.0.0.5", "10.0.0.250"),
    ];
    let mut net = Net::of(&nb);
    net.responder.set_checks(net.now, asked(&nb));
    for round in 0..5 {
        let questions = net.pass(if round == 0 { 0 } else { 2 * SECOND });
        assert_eq!(questions.len(), 3, "{:?}", net.switch.drops());
        for (port, frame) in questions {
            check_sums(&frame);
            assert_eq!(port, A);
            let seen =
                [Field::NwProto, Field::IcmpType, Field::Icmpv6Type].map(|field| key(&frame).get(field));
            // An answer to a question, of whom both are asked; the third is silent.
            let Some((kind, at)) = [(1, 8, 0, 34), (58, 128, 129, 54)]
                .into_iter()
                .find(|(proto, kind, ..)| seen[0] == *proto && seen[1..].contains(kind))
                .map(|(.., answer, at)| (answer, at))
            else {
                assert_eq!(seen[0], 6);
                continue;
            };
            if round > 1 && kind == 129 {
                continue;
            }
            let mut back = answer(&frame, 0);
            // Ports are turned around there, which an echo has none of.
            back[at..at + 4].copy_from_slice(&frame[at..at + 4]);
            back[at] = kind;
            let mut other = back.clone();
            other[at + 5] ^= 1;
            assert_eq!(net.send(A, &other), [], "it is about another question");
            assert_eq!(net.send(A, &back), []);
        }
        net.pass(SECOND);
    }
    let known: Vec<_> = net
        .health
        .iter()
        .map(|known| (known.port.as_str(), &*known.vip, &*known.backend, known.online))
        .collect();
    let all = [
        ("a", "icmp", "10.0.0.5", true),
        ("a", "icmp", "2001:db8::5", false),
        ("a", "tcp", "10.0.0.5:8080", false),
    ];
    assert_eq!(known.len(), all.len());
    assert!(all.iter().all(|one| known.contains(one)), "{known:?}");
    assert!(net.health.iter().all(|known| known.balancer.is_empty()));
}
