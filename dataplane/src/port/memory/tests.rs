//! Memory ports: bounded, and nothing lost unseen.

use flowtable::{drop::DropReason, types::PortNo};

use super::{device::MAX_FRAME_LEN, *};
use crate::{
    pool::Pool,
    port::{AnyOutlet, AnyQueue, BATCH, Outlet, RxQueue},
};

fn attach(port: &MemoryPort) -> Option<(AnyQueue, AnyOutlet)> {
    let mut opened = port.open()?;
    Some((opened.queues.pop()?, opened.outlets.pop()?))
}

#[test]
fn frames_pass_unchanged_in_order_and_bounded() {
    let port = MemoryPort::new(40);
    let (mut queue, mut outlet) = attach(&port).unwrap();
    let mut pool = Pool::new(100);
    for idx in 0..40_u8 {
        port.inject(&vec![idx; usize::from(idx) * 50]).unwrap();
    }
    assert_eq!(port.inject(&[0; 60]), Err(InjectError::Full));

    let mut batch = Vec::new();
    queue.rx_burst(PortNo::ZERO, BATCH, &mut pool, &mut batch);
    assert_eq!(batch.len(), BATCH);
    let mut rest = Vec::new();
    queue.rx_burst(PortNo::ZERO, BATCH, &mut pool, &mut rest);
    batch.append(&mut rest);
    for (idx, packet) in batch.iter().enumerate() {
        assert_eq!(packet.bytes(), vec![idx as u8; idx * 50]);
        outlet.tx(packet.bytes()).unwrap();
    }
    assert_eq!(outlet.tx(&[0; 60]), Err(DropReason::TxRingFull));
    for idx in 0..40_usize {
        assert_eq!(port.receive().unwrap(), vec![idx as u8; idx * 50]);
    }
    assert_eq!(port.receive(), None);
}

#[test]
fn an_empty_pool_leaves_frames_on_the_wire() {
    let port = MemoryPort::new(8);
    let (mut queue, _outlet) = attach(&port).unwrap();
    let mut pool = Pool::new(2);
    for _ in 0..3 {
        port.inject(&[1; 60]).unwrap();
    }
    let mut batch = Vec::new();
    queue.rx_burst(PortNo::ZERO, BATCH, &mut pool, &mut batch);
    assert_eq!((batch.len(), pool.n_exhausted()), (2, 1));
    assert!(queue.has_pending());
    batch.clear();
    queue.rx_burst(PortNo::ZERO, BATCH, &mut pool, &mut batch);
    assert_eq!(batch.len(), 1);
}

#[test]
fn a_port_is_attached_once_at_a_time_and_long_frames_are_refused() {
    let port = MemoryPort::new(1);
    let (queue, outlet) = attach(&port).unwrap();
    assert!(attach(&port).is_none());
    drop(queue);
    assert!(attach(&port).is_none(), "a part of it is still held");
    drop(outlet);
    assert!(attach(&port).is_some());
    assert!(port.inject(&[0; MAX_FRAME_LEN]).is_ok());
    assert!(matches!(port.inject(&[0; MAX_FRAME_LEN + 1]), Err(InjectError::TooLong { .. })));
}
