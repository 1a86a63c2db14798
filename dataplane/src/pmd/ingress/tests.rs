//! Turns: the same work for each queue that has packets, and all of it for one alone.

use std::sync::Arc;

use flowtable::types::PortNo;

use super::*;
use crate::port::{AnyQueue, RxQueue, frames::FramePort, frames::FrameSource, metrics::PortMetrics};

/// Always has frames.
struct Endless;

impl FrameSource for Endless {
    fn next(&mut self, room: &mut [u8]) -> Option<usize> {
        room[..60].fill(1);
        Some(60)
    }

    fn is_ready(&self) -> bool {
        true
    }
}

/// Never has.
struct Silent;

impl FrameSource for Silent {
    fn next(&mut self, _: &mut [u8]) -> Option<usize> {
        None
    }

    fn is_ready(&self) -> bool {
        false
    }
}

fn queue(port: u32, source: Box<dyn FrameSource>) -> AttachedQueue {
    let device: AnyQueue = FramePort::new(vec![source], Vec::new()).open().unwrap().queues.remove(0);
    assert!(device.wait_fd().is_none());
    AttachedQueue::new(PortNo::new(port).unwrap().into(), 0, device, Arc::new(PortMetrics::new(1500, 1, 1)))
}

/// Polls for some rounds; answers packets and work of each queue. `costs`: of a packet.
fn poll(ingress: &mut Ingress, costs: &[u64], n_rounds: usize) -> Vec<(usize, u64)> {
    let (mut pool, mut batch) = (Pool::new(256), Vec::new());
    let mut sums = vec![(0, 0); costs.len()];
    for _ in 0..n_rounds {
        ingress.begin_round();
        for (idx, cost) in costs.iter().enumerate() {
            if ingress.receive(idx, &mut pool, &mut batch).is_none() {
                continue;
            }
            let work = cost * batch.len() as u64;
            ingress.spent(idx, batch.len(), work);
            sums[idx].0 += batch.len();
            sums[idx].1 += work;
            batch.drain(..).for_each(|packet| pool.put_packet(packet));
        }
    }
    sums
}

#[test]
fn a_costly_queue_has_no_more_work_done_than_a_cheap_one() {
    let mut ingress = Ingress::default();
    ingress.add(queue(1, Box::new(Endless)));
    ingress.add(queue(2, Box::new(Endless)));
    ingress.add(queue(3, Box::new(Silent)));
    poll(&mut ingress, &[41, 1, 1], 100);
    let sums = poll(&mut ingress, &[41, 1, 1], 10_000);
    let (attacker, victim) = (sums[0].1 as f64, sums[1].1 as f64);
    assert_eq!(sums[1].0, 10_000 * BATCH, "the cheap queue had each of its turns: {sums:?}");
    assert!((0.8..1.2).contains(&(attacker / victim)), "{sums:?}");
}

#[test]
fn a_queue_alone_has_all_there_is() {
    for cost in [1, 41, 1000] {
        let mut ingress = Ingress::default();
        ingress.add(queue(1, Box::new(Endless)));
        ingress.add(queue(2, Box::new(Silent)));
        assert_eq!(poll(&mut ingress, &[cost, 1], 1000)[0].0, 1000 * BATCH, "{cost}");
    }
}

#[test]
fn queues_of_the_same_cost_share_alike_whatever_it_is() {
    for cost in [1, 6, 41] {
        let mut ingress = Ingress::default();
        (1..=3).for_each(|port| ingress.add(queue(port, Box::new(Endless))));
        let sums = poll(&mut ingress, &[cost; 3], 10_000);
        assert!(sums.iter().all(|sum| sum.0.abs_diff(sums[0].0) <= 2 * BATCH), "{cost}: {sums:?}");
        // Waiting for each other costs a round here and there, no more.
        assert!(sums[0].1 >= 10_000 * 15, "{cost}: {sums:?}");
    }
}
