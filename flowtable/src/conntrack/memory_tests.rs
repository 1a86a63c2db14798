//! What a connection costs: tables that are full of established connections, and the bytes of
//! all their storage. And that whatever a slot keeps of a tuple makes the whole of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::{drop::DropReason, key::ct_state, wire::ip_proto};

const N_SLOTS: usize = 256;
pub(super) const COMMIT: Request = Request {
    zone: 7,
    commit: true,
    force: false,
    nat: None,
    mark: (5, !0),
    label: (3 << 100 | 1, !0),
    policy: None,
    in_port: 1,
    alg: None,
};
/// Documentation prefix (RFC 3849).
const PREFIX: u128 = 0x2001_0db8 << 96;

pub(super) fn now() -> Timestamp {
    Timestamp::from_nanos(1_000_000_000)
}

pub(super) fn first(n: u16, ipv6: bool, proto: u8) -> View {
    let net = if ipv6 { PREFIX } else { 0x0a00_0000 };
    let (src, dst) = (net | u128::from(n), net | 0xff_0000);
    let (src_port, dst_port) = match proto {
        ip_proto::ICMP => (n, 8 << 8),
        ip_proto::ICMPV6 => (n, 128 << 8),
        ip_proto::TCP | ip_proto::UDP => (1000 + n, 80),
        _ => (0, 0),
    };
    let l4 = match proto {
        ip_proto::TCP => L4::Tcp(Segment { flags: 2, seq: 1, ack: 0, window: 1000, scale: None, len: 0 }),
        ip_proto::UDP => L4::Udp,
        ip_proto::ICMP | ip_proto::ICMPV6 => L4::Icmp,
        _ => L4::Other,
    };
    View { tuple: Tuple { zone: 0, ipv6, proto, src, dst, src_port, dst_port }, l4 }
}

/// Makes a connection that both sides have spoken in.
fn establish(tracker: &Conntrack, view: &View, nat: Option<Nat>) -> Result<(), DropReason> {
    let verdict = tracker.track(now(), &Request { nat, ..COMMIT }, view)?;
    let sent = verdict.rewrite.map_or(view.tuple, |rewrite| rewrite.outer);
    let reply = |l4| View { tuple: Tuple { zone: 0, ..sent }.reversed(), l4 };
    let look = Request { nat: nat.map(|_| Nat::Existing), commit: false, ..COMMIT };
    let answer = match view.l4 {
        L4::Tcp(segment) => L4::Tcp(Segment { flags: 0x12, seq: 100, ack: 2, ..segment }),
        l4 => l4,
    };
    let verdict = tracker.track(now(), &look, &reply(answer))?;
    assert_eq!(
        verdict.state & !ct_state::DNAT & !ct_state::SNAT,
        ct_state::TRK | ct_state::EST | ct_state::RPL
    );
    assert_eq!((verdict.mark, verdict.label), (5, 3 << 100 | 1));
    if let L4::Tcp(segment) = view.l4 {
        let third = L4::Tcp(Segment { flags: 0x10, seq: 2, ack: 101, ..segment });
        tracker.track(now(), &look, &View { l4: third, ..*view })?;
    }
    Ok(())
}

pub(super) fn to(kind: NatKind, ipv6: bool) -> Nat {
    let address = match ipv6 {
        true => IpAddr::V6(Ipv6Addr::from_bits(PREFIX | 0xee_0000)),
        false => IpAddr::V4(Ipv4Addr::new(10, 0xee, 0, 1)),
    };
    let (addresses, ports) = (Some((address, address)), None);
    Nat::New(NatRange { kind, addresses, ports, order: NatOrder::Keep, persistent: false })
}

/// Bytes that a connection costs when the table takes no more of its kind.
fn bytes_when_full(ipv6: bool, proto: u8, nat: Option<Nat>) -> usize {
    let storage = Storage::on_heap(N_SLOTS);
    let n_bytes = storage.n_bytes();
    let tracker = Conntrack::new(Config { seed: 3, ..Config::default() }, storage);
    let made = (0..u16::MAX).find(|n| match establish(&tracker, &first(*n, ipv6, proto), nat) {
        Ok(()) => false,
        Err(reason) => {
            assert_eq!(reason, DropReason::CtFull);
            true
        }
    });
    let n_connections = tracker.dump(now(), &Filter::default()).len();
    assert_eq!(made, Some(n_connections as u16), "all that were made are there");
    n_bytes / n_connections
}

#[test]
fn a_connection_costs_128_bytes_all_in() {
    use ip_proto::{ICMP, ICMPV6, TCP, UDP};
    for kind in [None, Some(NatKind::Source), Some(NatKind::Destination)] {
        for (ipv6, proto) in
            [(false, UDP), (false, TCP), (false, ICMP), (false, 47), (true, UDP), (true, ICMPV6), (true, 47)]
        {
            // Of a protocol without ports, one to each address.
            let nat =
                kind.filter(|kind| proto != 47 && (!matches!(kind, NatKind::Destination) || proto != ICMPV6));
            let n_bytes = bytes_when_full(ipv6, proto, nat.map(|kind| to(kind, ipv6)));
            assert_eq!(n_bytes, 128, "ipv6 {ipv6}, protocol {proto}, {nat:?}");
        }
    }
    assert_eq!(bytes_when_full(true, TCP, None), 128);
    // Here both the numbers of TCP and a third address have to be kept.
    assert_eq!(bytes_when_full(true, TCP, Some(to(NatKind::Source, true))), 256);
}

fn any_tuple() -> impl Strategy<Value = Tuple> {
    let proto = prop::sample::select(vec![1, 6, 17, 47, 58, 132]);
    (any::<(u16, bool, u128, u128, u16, u16)>(), proto).prop_map(|(any, proto)| {
        let (zone, ipv6, src, dst, src_port, dst_port) = any;
        let cut = |address: u128| if ipv6 { address } else { address & 0xffff_ffff };
        Tuple { zone, ipv6, proto, src: cut(src), dst: cut(dst), src_port, dst_port }
    })
}

proptest! {
    /// Both tuples come out of a slot as they went in, whatever of them is kept where, and no
    /// other tuple is taken for one of them.
    #[test]
    fn a_slot_gives_back_its_tuples(
        one in any_tuple(),
        (new, port) in any::<(u128, u16)>(),
        translated in 0_u8..3,
        related in any::<bool>(),
        flip in 0_u32..128,
    ) {
        let new = if one.ipv6 { new } else { new & 0xffff_ffff };
        let plain = one.reversed();
        let (other, nat) = match translated {
            0 => (plain, 0),
            1 => (Tuple { dst: new, dst_port: port, ..plain }, kind::SNAT),
            _ => (Tuple { src: new, src_port: port, ..plain }, kind::DNAT),
        };
        let family = if one.ipv6 { kind::IPV6 } else { 0 };
        let kind = kind::USED | family | nat | if related { kind::RELATED } else { 0 };
        let (slot, second) = (Slot::default(), Slot::default());
        let has_second = kind::has_extension(kind, one.proto);
        slot.publish(slot.fill(&[one, other], kind, 3, has_second.then_some((1, &second))));
        let extension = has_second.then_some(&second);
        for (direction, tuple) in [one, other].iter().enumerate() {
            prop_assert_eq!(slot.tuple(direction, extension), *tuple);
            prop_assert!(slot.holds(direction, tuple, |_| extension));
            let near = [
                Tuple { src: tuple.src ^ 1 << (if one.ipv6 { flip } else { flip % 32 }), ..*tuple },
                Tuple { dst: tuple.dst ^ 1 << (if one.ipv6 { flip } else { flip % 32 }), ..*tuple },
                Tuple { src_port: tuple.src_port ^ 1 << (flip % 16), ..*tuple },
                Tuple { dst_port: tuple.dst_port ^ 1 << (flip % 16), ..*tuple },
                Tuple { zone: tuple.zone ^ 1 << (flip % 16), ..*tuple },
                Tuple { proto: tuple.proto ^ 1 << (flip % 8), ..*tuple },
                Tuple { ipv6: !tuple.ipv6, ..*tuple },
            ];
            for other in near {
                prop_assert!(!slot.holds(direction, &other, |_| extension), "{:?}", other);
            }
        }
    }
}
