//! Runs the responder: a thread of its own, since it waits for the workers.

use std::time::Duration;

use dataplane::Punts;

use super::{Effect, Responder};
use crate::host::{Neighbour, WeakHost};

/// How often it looks after what has waited too long.
const TICK: Duration = Duration::from_millis(500);

/// Answers until the dataplane stops.
pub fn run(host: &WeakHost, punts: &Punts) {
    let mut responder = Responder::default();
    while !punts.is_over() {
        let mut effects = Vec::new();
        if punts.wait(TICK) {
            for (worker, packet_in) in punts.take() {
                let answered = responder.answer(punts.now(), &packet_in);
                effects.extend(answered.into_iter().map(|effect| (worker, effect)));
            }
        }
        effects.extend(responder.tick(punts.now()).into_iter().map(|effect| (0, effect)));
        apply(host, punts, effects);
    }
}

/// What is learned comes before the packets that waited for it.
fn apply(host: &WeakHost, punts: &Punts, effects: Vec<(usize, Effect)>) {
    let (mut neighbours, mut packets) = (Vec::new(), Vec::new());
    for (worker, effect) in effects {
        match effect {
            Effect::Learn(neighbour) => neighbours.push(Neighbour::Known(neighbour)),
            Effect::Forget(neighbour) => neighbours.push(Neighbour::Gone(neighbour)),
            Effect::Send(packet) => packets.push((worker, packet)),
        }
    }
    if !neighbours.is_empty() {
        host.with(|host| host.hear_of(&neighbours));
    }
    for (worker, packet) in packets {
        if let Err(error) = punts.packet_out(worker, packet.in_port, packet.actions, packet.frame) {
            tracing::debug!(%error, "a packet of the responder is not sent");
        }
    }
}
