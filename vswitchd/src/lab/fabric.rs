//! The wires between the hosts of a lab: the underlay, which takes a frame to the host that
//! has its destination's address, and networks outside, where everybody hears everything.
//!
//! Who does something with a host takes a [`Turn`]: it ends when everything that follows has
//! happened on all hosts. Between turns frames that hosts send by themselves are carried.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ferroflow_proto::host as pb;
use tokio::sync::MutexGuard;

use crate::{
    host::{Host, LabError, Outgoing, Row, Sent, SharedHost, Way, since},
    service,
};

/// Frames that one turn carries between hosts; a network that has become a circle makes more.
const MAX_CARRIED: usize = 100_000;
/// How far the clock goes at a time, where hosts tell each other that they live and elsewhere.
const LIVELY_STEP: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_secs(1);
/// Steps of one advance where nobody needs shorter ones.
const MAX_STEPS: u32 = 1000;
/// How often what hosts send by themselves is carried, for each eight of them.
const IDLE_INTERVAL: Duration = Duration::from_millis(20);

/// What is between the hosts of a lab. Without members, as for a lab of one host, it does
/// nothing.
#[derive(Default)]
pub struct Fabric {
    members: Mutex<Vec<Member>>,
    /// Whoever holds it is the only one who does something.
    turns: tokio::sync::Mutex<()>,
}

/// A host on the wires.
#[derive(Clone)]
struct Member {
    chassis: String,
    ip: Ipv4Addr,
    host: SharedHost,
}

/// What has happened on another host.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Its id.
    pub chassis: String,
    /// What has left it, but for what has gone on to others.
    pub sent: Vec<Sent>,
    /// What has not.
    pub drops: Vec<pb::Drop>,
}

/// The right to do something with the hosts.
pub struct Turn<'a> {
    /// All hosts, with what they had dropped before.
    members: Vec<(Member, Vec<Row>)>,
    asked: SharedHost,
    _guard: MutexGuard<'a, ()>,
}

impl Fabric {
    /// Puts a host on the wires.
    pub fn join(&self, chassis: &str, ip: Ipv4Addr, host: SharedHost) {
        let member = Member { chassis: chassis.to_owned(), ip, host };
        self.members.lock().unwrap_or_else(PoisonError::into_inner).push(member);
    }

    fn members(&self) -> Vec<Member> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until nobody else does something; `asked` is the host that will be asked to.
    pub async fn begin(&self, asked: SharedHost) -> Turn<'_> {
        let guard = self.turns.lock().await;
        let mut members = Vec::new();
        for member in self.members() {
            // What was under way comes before.
            let before = member.host.with(|host| host.dataplane_drops()).await;
            members.push((member, before));
        }
        let mut turn = Turn { members, asked, _guard: guard };
        turn.carry().await;
        turn
    }

    /// Advances the clock of all hosts, in steps that leave them time to talk.
    ///
    /// # Errors
    /// The host is no lab.
    pub async fn advance(&self, asked: &SharedHost, by: Duration) -> Result<(), LabError> {
        let members = self.members();
        if members.is_empty() {
            return asked.with(move |host| host.set_clock(None, by)).await.map(drop);
        }
        let mut turn = self.begin(asked.clone()).await;
        let mut left = by;
        while !left.is_zero() {
            let step = step(&members, by).await?.min(left);
            left -= step;
            asked.with(move |host| host.lab().map(|lab| lab.clock().advance(step))).await?;
            for member in &members {
                member.host.with(pass_time).await;
            }
            turn.carry().await;
        }
        Ok(())
    }

    /// Carries what hosts send by themselves, until the task is dropped.
    pub async fn run(&self) {
        loop {
            let members = self.members();
            let n = 1 + u32::try_from(members.len() / 8).unwrap_or(u32::MAX);
            tokio::time::sleep(IDLE_INTERVAL.saturating_mul(n)).await;
            if let Some(Member { host, .. }) = members.first() {
                self.begin(host.clone()).await;
            }
        }
    }
}

async fn step(members: &[Member], by: Duration) -> Result<Duration, LabError> {
    for member in members {
        if member.host.with(|host| host.keeps_alive()).await? {
            return Ok(LIVELY_STEP);
        }
    }
    Ok(STEP.max(by / MAX_STEPS))
}

/// Has a host do what it does from time to time.
fn pass_time(host: &mut Host) {
    host.let_time_pass();
    let (_, is_late) = host.bfd().tick();
    if is_late {
        host.tend_gateways();
    }
}

impl Turn<'_> {
    /// Ends when all that follows has happened; tells what has on the hosts that were not asked.
    pub async fn end(mut self) -> Vec<Arrived> {
        let mut arrived = self.carry().await;
        for ((member, before), told) in self.members.into_iter().zip(&mut arrived) {
            if member.host.is_same(&self.asked) {
                // It tells that itself.
                continue;
            }
            told.drops = member.host.with(move |host| drops_since(host, &before)).await;
        }
        arrived.retain(|told| !(told.sent.is_empty() && told.drops.is_empty()));
        arrived
    }

    /// Takes frames to the hosts that they are for until there are none; of each host, what has
    /// left it otherwise.
    async fn carry(&mut self) -> Vec<Arrived> {
        let named =
            |(member, _): &(Member, _)| Arrived { chassis: member.chassis.clone(), ..Arrived::default() };
        let mut told: Vec<_> = self.members.iter().map(named).collect();
        let mut n_carried = 0;
        loop {
            let mut is_quiet = true;
            for from in 0..self.members.len() {
                let (outgoing, sent) = self.members[from].0.host.with(settle).await;
                told[from].sent.extend(sent);
                for frame in outgoing {
                    is_quiet = false;
                    n_carried += 1;
                    self.deliver(from, frame, &mut told).await;
                }
            }
            if is_quiet {
                return told;
            }
            if n_carried > MAX_CARRIED {
                tracing::error!(n_carried, "the hosts of the lab send each other frames without end");
                return told;
            }
        }
    }

    async fn deliver(&self, from: usize, outgoing: Outgoing, told: &mut [Arrived]) {
        let to = match outgoing.way {
            Way::Underlay => underlay_destination(&outgoing.frame),
            Way::Network(_) => None,
        };
        let is_network = to.is_none() && outgoing.way != Way::Underlay;
        for (idx, (member, _)) in self.members.iter().enumerate() {
            if idx != from && (is_network || to == Some(member.ip)) {
                let Outgoing { way, frame } = outgoing.clone();
                let arrive = move |host: &mut Host| leaving(host.arrive(&way, &frame), host);
                told[idx].sent.extend(member.host.with(arrive).await);
            }
        }
    }
}

fn settle(host: &mut Host) -> (Vec<Outgoing>, Vec<Sent>) {
    let sent = host.settle();
    (host.take_outgoing(), leaving(sent, host))
}

/// What does not go on to another host.
fn leaving(mut sent: Vec<Sent>, host: &Host) -> Vec<Sent> {
    sent.retain(|sent| !host.is_shared(&sent.port));
    sent
}

fn drops_since(host: &mut Host, before: &[Row]) -> Vec<pb::Drop> {
    service::drops_of(host, &since(before, host.dataplane_drops()))
}

/// Destination of an IPv4 packet in an Ethernet frame (RFC 791 §3.1): the host that a frame on the underlay
/// is for.
pub fn underlay_destination(frame: &[u8]) -> Option<Ipv4Addr> {
    let is_ipv4 = frame.get(12..14)? == [0x08, 0x00];
    let bytes: [u8; 4] = frame.get(30..34)?.try_into().ok()?;
    is_ipv4.then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ipv4_has_a_destination_on_the_underlay() {
        let mut frame = vec![0; 34];
        assert_eq!(underlay_destination(&frame), None);
        (frame[12], frame[13]) = (0x08, 0x00);
        frame[30..].copy_from_slice(&[192, 0, 2, 7]);
        assert_eq!(underlay_destination(&frame), Some(Ipv4Addr::new(192, 0, 2, 7)));
        (0..34).for_each(|len| assert_eq!(underlay_destination(&frame[..len]), None, "{len}"));
    }
}
