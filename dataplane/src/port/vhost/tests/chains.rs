//! Rings by themselves: frames as they lie in chains of every shape, and chains that cannot be.

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Layout, Offload, Packet},
    types::PortNo,
};
use proptest::{collection::vec, prelude::*};

use super::guest::{
    BASE, CSUM, EVENT_INDEX, FREE, Guest, INDIRECT, LEN, MERGEABLE, NEXT, SIZE, VERSION_1, WRITE, descriptor,
};
use crate::{
    pool::{Frame, MAX_PACKET_LEN, Pool},
    port::{
        BATCH,
        vhost::{
            chain::MAX_PARTS,
            fault::Fault,
            features::Features,
            ring::{NotSent, Vring},
        },
    },
    sys::vnet::{Record, decode},
};

const HEADER_LEN: usize = 12;

fn vring(guest: &Guest, ring: u64, features: u64) -> Vring {
    Vring::new(guest.ring(ring), Features::taken(features, 1).unwrap(), None)
}

fn receive(vring: &mut Vring, pool: &mut Pool) -> Result<(Vec<Packet<Frame>>, u64), Fault> {
    let mut batch = Vec::new();
    let refused = vring.receive((PortNo::ZERO, BATCH), pool, &mut batch)?;
    vring.publish()?;
    Ok((batch, refused))
}

/// Puts bytes into the guest's memory in parts of these lengths, and a chain of them into the
/// table at `at`, from descriptor `first` on.
fn scatter(guest: &Guest, bytes: &[u8], lens: &[usize], flags: u16, at: impl Fn(u16, &[u8]), first: u16) {
    let (mut rest, mut addr) = (bytes, FREE + 0x1_0000);
    for (idx, len) in (first..).zip(lens) {
        let (part, later) = rest.split_at((*len).min(rest.len()));
        guest.write(addr, part);
        let is_last = usize::from(idx - first) + 1 == lens.len();
        let next = if is_last { 0 } else { NEXT };
        at(idx, &descriptor(addr, *len as u32, flags | next, idx + 1));
        // A gap, so that what is read beyond a part shows.
        (rest, addr) = (later, addr + *len as u64 + 3);
    }
}

fn frame_of(len: usize) -> Vec<u8> {
    (0..len).map(|idx| (idx * 7 + idx / 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// A frame is the same however its chain is made, and a chain of a table of its own too.
    #[test]
    fn frames_come_whole_out_of_chains_of_any_shape(
        mut lens in vec(0_usize..2000, 1..20),
        in_front: [u8; HEADER_LEN],
        is_indirect: bool,
        leaves_undone: bool,
    ) {
        lens.push(HEADER_LEN + 14);
        let total: usize = lens.iter().sum();
        let mut guest = Guest::new(2);
        let frame = frame_of(total - HEADER_LEN);
        let bytes = [&in_front[..], &frame].concat();
        if is_indirect {
            let table = FREE;
            scatter(&guest, &bytes, &lens, 0, |idx, bytes| guest.write(table + u64::from(idx) * 16, bytes), 0);
            guest.set_descriptor(1, 9, &descriptor(table, lens.len() as u32 * 16, INDIRECT, 0));
        } else {
            scatter(&guest, &bytes, &lens, 0, |idx, bytes| guest.set_descriptor(1, idx, bytes), 9);
        }
        guest.post(1, 9);
        let features = if leaves_undone { VERSION_1 | CSUM } else { VERSION_1 };
        let (mut vring, mut pool) = (vring(&guest, 1, features), Pool::new(8));
        let (batch, refused) = receive(&mut vring, &mut pool).unwrap();
        prop_assert_eq!((batch.len(), refused), (1, 0));
        prop_assert_eq!(batch[0].bytes(), &frame[..]);
        let said = in_front.first_chunk().map(decode).filter(|_| leaves_undone);
        prop_assert_eq!(&batch[0].offload, &said.unwrap_or_default());
        prop_assert_eq!(batch[0].start(), HEADROOM);
        prop_assert_eq!(guest.used(1), (1, 9, 0));
    }

    /// What arrives in the guest's buffers, of whatever sizes, is the frame, and nothing else of
    /// its memory has changed.
    #[test]
    fn frames_fill_buffers_of_any_size(
        sizes in vec(10_u32..3000, 1..30),
        len in 14_usize..9000,
        csum_at: Option<(u16, u16)>,
        before in vec(any::<u8>(), 3000),
    ) {
        let mut guest = Guest::new(2);
        let buffers: Vec<_> =
            sizes.iter().enumerate().map(|(idx, size)| (guest.give(0, idx as u16, *size), *size)).collect();
        let mut vring = vring(&guest, 0, VERSION_1 | MERGEABLE);
        buffers.iter().for_each(|(addr, size)| guest.write(*addr, &before[..*size as usize]));
        let (frame, room) = (frame_of(len), sizes.iter().sum::<u32>() as usize);
        let record = csum_at.map_or(Record::NONE, |(csum_start, csum_offset)| {
            let offload = Offload { csum_partial: true, csum_start, csum_offset, gso: None };
            Record::new(&offload, &frame, &Layout::default(), 0)
        });
        let sent = vring.send(&record, &frame);
        vring.publish().unwrap();
        if room < HEADER_LEN + len {
            prop_assert!(matches!(sent, Err(NotSent::Dropped(DropReason::TxRingFull))));
            prop_assert_eq!(guest.used(0).0, 0);
            return Ok(());
        }
        prop_assert!(sent.is_ok());
        let n_buffers = usize::from(guest.used(0).0);
        let mut arrived = Vec::new();
        for (addr, size) in &buffers[..n_buffers] {
            let left = HEADER_LEN + len - arrived.len();
            arrived.extend(guest.read(*addr, left.min(*size as usize)));
        }
        prop_assert_eq!(&arrived[..10], record.bytes());
        prop_assert_eq!(u16::from_le_bytes([arrived[10], arrived[11]]) as usize, n_buffers);
        prop_assert_eq!(&arrived[HEADER_LEN..], &frame[..]);
        for (addr, size) in &buffers[n_buffers..] {
            prop_assert_eq!(guest.read(*addr, *size as usize), &before[..*size as usize]);
        }
        let (_, head, last_len) = guest.used(0);
        prop_assert_eq!(head as usize, n_buffers - 1);
        let before: u32 = sizes[..n_buffers - 1].iter().sum();
        prop_assert_eq!(last_len + before, (HEADER_LEN + len) as u32);
    }

    /// Memory full of anything: what is done ends, nothing panics, frames are of possible sizes.
    #[test]
    fn memory_full_of_anything_does_no_harm(
        words in vec(any::<[u8; 16]>(), 256),
        shapes in vec((0_u64..0x2_0000, 0_u32..4000, 0_u16..8, 0_u16..SIZE), SIZE as usize),
        is_wild: bool,
        n_available in 0_u16..=SIZE,
        features in prop::sample::select(vec![0, VERSION_1, VERSION_1 | MERGEABLE | EVENT_INDEX]),
    ) {
        let guest = Guest::new(2);
        for ring in 0..2 {
            for (idx, (addr, len, flags, next)) in shapes.iter().enumerate() {
                let wild = &words[idx];
                let tame = descriptor(FREE + addr, *len, *flags, *next);
                guest.set_descriptor(ring, idx as u16, if is_wild { wild } else { &tame });
            }
            guest.claim(ring, n_available);
        }
        words.iter().enumerate().for_each(|(idx, word)| guest.write(FREE + idx as u64 * 16, word));
        let mut pool = Pool::new(64);
        let mut from = vring(&guest, 1, features);
        if let Ok((batch, _)) = receive(&mut from, &mut pool) {
            prop_assert!(batch.iter().all(|packet| (14..=MAX_PACKET_LEN).contains(&packet.len())));
        }
        let mut to = vring(&guest, 0, features);
        for len in [14, 1500, 9000] {
            let _ = to.send(&Record::NONE, &frame_of(len));
        }
        let _ = to.publish();
    }
}

/// What the ring says when this chain is made available to be read.
fn fault_of(chain: impl FnOnce(&mut Guest)) -> Fault {
    let mut guest = Guest::new(2);
    chain(&mut guest);
    guest.post(1, 0);
    receive(&mut vring(&guest, 1, VERSION_1), &mut Pool::new(4)).unwrap_err()
}

#[test]
fn each_wrong_chain_has_its_name() {
    let set = |guest: &Guest, idx, addr, len, flags, next| {
        guest.set_descriptor(1, idx, &descriptor(addr, len, flags, next));
    };
    let in_loop = fault_of(|guest| {
        set(guest, 0, FREE, 100, NEXT, 1);
        set(guest, 1, FREE, 100, NEXT, 0);
    });
    assert!(matches!(in_loop, Fault::Endless(n) if n == usize::from(SIZE)));
    let empty_loop = fault_of(|guest| set(guest, 0, FREE, 0, NEXT, 0));
    assert!(matches!(empty_loop, Fault::Endless(_)));
    for addr in [0, BASE - 1, BASE + LEN, BASE + LEN - 99, u64::MAX, u64::MAX - 50] {
        let outside = fault_of(|guest| set(guest, 0, addr, 100, 0, 0));
        assert!(matches!(outside, Fault::Outside(_)), "{addr:#x}: {outside}");
    }
    for addr in [0, BASE - 1, BASE + LEN, BASE + LEN - 15, u64::MAX, u64::MAX - 50] {
        let table = fault_of(|guest| set(guest, 0, addr, 160, INDIRECT, 0));
        assert!(matches!(table, Fault::Outside(_)), "{addr:#x}: {table}");
    }
    let written = fault_of(|guest| set(guest, 0, FREE, 100, WRITE, 0));
    assert!(matches!(written, Fault::Direction));
    for (len, flags) in [(0, INDIRECT), (17, INDIRECT), (16, INDIRECT | NEXT)] {
        let table = fault_of(|guest| set(guest, 0, FREE, len, flags, 1));
        assert!(matches!(table, Fault::Table(_)), "{table}");
    }
    let nested = fault_of(|guest| {
        set(guest, 0, FREE, 16, INDIRECT, 0);
        guest.write(FREE, &descriptor(FREE, 16, INDIRECT, 0));
    });
    assert!(matches!(nested, Fault::Table(16)));
    let behind = fault_of(|guest| {
        set(guest, 0, FREE, 50, NEXT, 1);
        set(guest, 1, FREE, 16, INDIRECT, 0);
    });
    assert!(matches!(behind, Fault::Table(16)));
    let beyond = fault_of(|guest| {
        set(guest, 0, FREE, 32, INDIRECT, 0);
        guest.write(FREE, &descriptor(FREE, 50, NEXT, 2));
    });
    assert!(matches!(beyond, Fault::Table(32)));
    let table_in_loop = fault_of(|guest| {
        set(guest, 0, FREE, 32, INDIRECT, 0);
        guest.write(FREE, &descriptor(FREE, 1, NEXT, 1));
        guest.write(FREE + 16, &descriptor(FREE, 1, NEXT, 0));
    });
    assert!(matches!(table_in_loop, Fault::Endless(MAX_PARTS)));
    let claimed = fault_of(|guest| (0..=SIZE).for_each(|_| guest.post(1, 0)));
    assert!(matches!(claimed, Fault::TooManyAvailable { size: SIZE, .. }));
}

#[test]
fn what_is_no_frame_is_counted_and_what_comes_behind_is_not_lost() {
    let mut guest = Guest::new(2);
    let lens = [0, 1, 11, 12, 12 + 13, 12 + 14, 12 + MAX_PACKET_LEN as u32 + 1, 12 + 60];
    for (idx, len) in (0..).zip(lens) {
        guest.set_descriptor(1, idx, &descriptor(FREE, len, 0, 0));
        guest.post(1, idx);
    }
    let (mut vring, mut pool) = (vring(&guest, 1, VERSION_1), Pool::new(8));
    let (batch, refused) = receive(&mut vring, &mut pool).unwrap();
    assert_eq!(refused, 6);
    assert!(batch.iter().map(Packet::len).eq([14, 60]));
    assert_eq!(guest.used(1).0, 8);
}

#[test]
fn without_a_buffer_frames_stay_where_they_are() {
    let mut guest = Guest::new(2);
    (0..5).for_each(|idx| guest.send(1, idx, &frame_of(60 + usize::from(idx))));
    let (mut vring, mut pool) = (vring(&guest, 1, VERSION_1), Pool::new(2));
    let (batch, _) = receive(&mut vring, &mut pool).unwrap();
    assert_eq!((batch.len(), guest.used(1).0), (2, 2));
    assert!(vring.has_available());
    batch.into_iter().for_each(|packet| pool.put_packet(packet));
    let (batch, _) = receive(&mut vring, &mut pool).unwrap();
    assert!(batch.iter().map(Packet::len).eq([62, 63]));
}

#[test]
fn a_buffer_too_small_for_a_frame_stays_for_the_next() {
    let mut guest = Guest::new(2);
    guest.give(0, 0, 100);
    let mut vring = vring(&guest, 0, VERSION_1);
    let too_big = vring.send(&Record::NONE, &frame_of(89));
    assert!(matches!(too_big, Err(NotSent::Dropped(DropReason::TooBig))));
    assert!(vring.send(&Record::NONE, &frame_of(88)).is_ok());
    let full = vring.send(&Record::NONE, &frame_of(14));
    assert!(matches!(full, Err(NotSent::Dropped(DropReason::TxRingFull))));
    guest.set_descriptor(0, 1, &descriptor(FREE, 0, WRITE, 0));
    guest.post(0, 1);
    let full = vring.send(&Record::NONE, &frame_of(14));
    assert!(matches!(full, Err(NotSent::Dropped(DropReason::TxRingFull))), "for the rest of the round");
    vring.publish().unwrap();
    assert!(matches!(vring.send(&Record::NONE, &frame_of(14)), Err(NotSent::Broken(Fault::NoRoom))));
}

#[test]
fn a_ring_goes_on_where_it_was_left_and_around_its_end() {
    let mut guest = Guest::new(2);
    let mut pool = Pool::new(8);
    for n in 0..3 * SIZE {
        // A new one each time, as after a restart of the switch.
        let mut vring = vring(&guest, 1, VERSION_1);
        guest.send(1, n % SIZE, &frame_of(60));
        let (batch, _) = receive(&mut vring, &mut pool).unwrap();
        assert_eq!((batch.len(), guest.used(1).0, vring.next()), (1, n + 1, n + 1));
    }
}
