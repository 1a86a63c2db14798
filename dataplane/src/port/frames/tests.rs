//! Frame ports: what sources make comes in, what sinks refuse is named.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use flowtable::{drop::DropReason, types::PortNo};

use super::*;
use crate::{
    pool::Pool,
    port::{BATCH, Outlet, RxQueue},
    sys::event::Waker,
};

struct Given(VecDeque<Vec<u8>>);

impl FrameSource for Given {
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        let frame = self.0.pop_front()?;
        room[..frame.len()].copy_from_slice(&frame);
        Some(frame.len())
    }

    fn is_ready(&self) -> bool {
        !self.0.is_empty()
    }
}

#[derive(Default, Clone)]
struct Two(Arc<Mutex<Vec<Vec<u8>>>>);

impl FrameSink for Two {
    fn take(&mut self, frame: &[u8]) -> bool {
        let mut taken = self.0.lock().unwrap();
        let has_room = taken.len() < 2;
        if has_room {
            taken.push(frame.to_vec());
        }
        has_room
    }
}

#[test]
fn frames_come_from_the_source_in_batches_and_go_to_the_sink() {
    let frames: VecDeque<Vec<u8>> = (0..40_u8).map(|n| vec![n; 60 + usize::from(n)]).collect();
    let taken = Two::default();
    let port = FramePort::new(vec![Box::new(Given(frames.clone()))], vec![Box::new(taken.clone())]);
    let mut opened = port.open().unwrap();
    assert!(port.clone().open().is_none(), "its parts are gone");
    let (mut queue, mut outlet) = (opened.queues.pop().unwrap(), opened.outlets.pop().unwrap());
    queue.set_waker(&Arc::new(Waker::new().unwrap()));
    let (mut pool, mut batch) = (Pool::new(64), Vec::new());
    queue.rx_burst(PortNo::ZERO, BATCH, &mut pool, &mut batch);
    assert_eq!(batch.len(), BATCH);
    let mut rest = Vec::new();
    assert!(queue.has_pending());
    queue.rx_burst(PortNo::ZERO, BATCH, &mut pool, &mut rest);
    assert!(!queue.has_pending());
    batch.extend(rest);
    assert!(batch.iter().map(|packet| packet.bytes().to_vec()).eq(frames.iter().cloned()));
    let sent: Vec<_> = batch.iter().take(3).map(|packet| outlet.tx(packet.bytes())).collect();
    assert_eq!(sent, [Ok(()), Ok(()), Err(DropReason::TxRingFull)]);
    assert_eq!(*taken.0.lock().unwrap(), [frames[0].clone(), frames[1].clone()]);
}
