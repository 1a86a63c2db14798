//! Which of the hosts that may be gateways live: a session of bidirectional forwarding
//! detection (RFC 5880) with each, within the tunnel to it, so that what is told is whether
//! packets would get there. It begins where a host needs to know; the other side answers
//! any of its tunnel peers.
//!
//! Ports of bridges that are told so by hand have sessions as well (`links.rs`).
//! Ports of routers have sessions with next hops, by whatever these are reached (`hops.rs`).
//!
//! Packets are sent by a task of their own, past the host's lock: however long this host
//! takes over a change of its rules, it stays alive for others. What comes in is read with
//! the lock held, and a session ends only after everything that had arrived was read.
//!
//! Sessions that are up outlive the process where something does (`carried.rs`).

mod carried;
mod hops;
mod links;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bridge_protocols::bfd::{ControlPacket, Path, Session};
pub use bridge_protocols::bfd::{State, Timing};
use dataplane::Dataplane;
use flowtable::{
    field::Field,
    flow::Action,
    types::{PortNo, Timestamp},
};
use tokio::sync::Notify;

use self::{
    carried::{Carried, Who},
    hops::Hops,
    links::Links,
};
pub use self::{
    hops::{Hop, HopKey},
    links::{LinkPeer, LinkSession},
};
use crate::host::{SharedHost, TUNNEL};

/// Longest sleep.
const IDLE: Duration = Duration::from_secs(1);
/// Shortest, for whatever the other hosts ask for.
const SHORTEST: Duration = Duration::from_millis(5);

/// All sessions of this host.
pub struct Bfd {
    local: Option<IpAddr>,
    timing: Timing,
    dataplane: Arc<Dataplane>,
    sessions: Mutex<Sessions>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Sessions {
    of: BTreeMap<IpAddr, Session>,
    /// Ports that lead into the tunnels to hosts.
    ways: BTreeMap<IpAddr, PortNo>,
    /// By ports of bridges that are told so by hand.
    links: Links,
    /// With next hops of routers.
    hops: Hops,
    /// What is left to the next process, and by the one before.
    carried: Carried,
    /// State of the numbers for jitter and sessions (xorshift).
    noise: u32,
}

impl Bfd {
    /// No sessions yet; those that the process before has left go on when they are wanted, or heard of.
    /// Without an address for tunnels there will be none.
    pub fn new(local: Option<IpAddr>, timing: Timing, seed: u64, dataplane: Arc<Dataplane>) -> Self {
        let carried = Carried::new(&dataplane);
        let sessions = Sessions { noise: (seed ^ seed >> 32) as u32 | 1, carried, ..Sessions::default() };
        Self { local, timing, dataplane, sessions: Mutex::new(sessions), changed: Notify::new() }
    }

    /// Wants sessions with these hosts, and with no others.
    pub fn want(&self, peers: &BTreeSet<IpAddr>) {
        let now = self.dataplane.now();
        let mut sessions = self.sessions();
        for session in sessions.of.values_mut() {
            session.is_wanted = false;
        }
        for peer in peers {
            sessions.entry(self.timing, now, *peer).is_wanted = true;
        }
        self.changed.notify_one();
    }

    /// Ports that lead into the tunnels to hosts from now on.
    pub fn set_ways(&self, ways: BTreeMap<IpAddr, PortNo>) {
        self.sessions().ways = ways;
    }

    /// Takes in what a tunnel peer has said; true when it may have changed who lives.
    pub fn receive(&self, frame: &[u8], is_peer: impl Fn(IpAddr) -> bool) -> bool {
        let (Some(local), Some((from, packet))) = (self.local, ControlPacket::of_frame(frame)) else {
            return false;
        };
        if !is_peer(from) {
            return false;
        }
        let now = self.dataplane.now();
        let (answer, has_changed) = {
            let mut sessions = self.sessions();
            let session = sessions.entry(self.timing, now, from);
            let before = session.state();
            let answer = session.receive(now, &packet);
            (answer, session.state() != before)
        };
        if let Some(answer) = answer {
            self.send(local, from, &answer);
        }
        if has_changed {
            self.changed.notify_one();
        }
        has_changed
    }

    /// Ends the sessions of hosts that are silent.
    pub fn expire(&self) {
        let now = self.dataplane.now();
        let mut sessions = self.sessions();
        for (peer, session) in &mut sessions.of {
            if session.expire(now) {
                tracing::warn!(%peer, "the host is silent; it is taken for dead");
            }
        }
        sessions.of.retain(|_, session| !session.is_over(now));
        sessions.hops.expire(now);
    }

    /// The host with this tunnel address lives, as far as is known.
    pub fn is_alive(&self, peer: IpAddr) -> bool {
        let now = self.dataplane.now();
        self.sessions().of.get(&peer).is_none_or(|session| session.is_alive(now))
    }

    /// There are sessions with other hosts.
    pub fn has_sessions(&self) -> bool {
        let sessions = self.sessions();
        !sessions.of.is_empty() || !sessions.hops.is_empty()
    }

    /// State of the session with a host.
    pub fn state(&self, peer: IpAddr) -> Option<State> {
        self.sessions().of.get(&peer).map(Session::state)
    }

    /// Packets are sent and listened to from now on.
    fn begin(&self) {
        let now = self.dataplane.now();
        let mut sessions = self.sessions();
        let Sessions { of, links, hops, .. } = &mut *sessions;
        let all = of.values_mut().chain(links.sessions_mut()).chain(hops.sessions_mut());
        all.for_each(|session| session.begin(now));
    }

    /// Tells all others that this host ends. The next process begins anew.
    pub fn end(&self) {
        self.end_all();
        self.sessions().carry(&self.dataplane);
    }

    fn end_all(&self) {
        let now = self.dataplane.now();
        let last = self.sessions().links.end(now);
        last.iter().for_each(|(port, path, packet)| self.send_by(*port, path, packet));
        let last = self.sessions().hops.end(now);
        self.send_to_hops(last);
        let Some(local) = self.local else { return };
        let last: Vec<_> =
            self.sessions().of.iter_mut().map(|(peer, session)| (*peer, session.end(now))).collect();
        for (peer, packet) in last {
            self.send(local, peer, &packet);
        }
    }

    /// Sends what is due: when to be back, and whether some host has been silent too long.
    pub fn tick(&self) -> (Duration, bool) {
        let now = self.dataplane.now();
        let (mut due, mut wakes, mut is_late) = (Vec::new(), now.after(IDLE), false);
        let (by_links, to_hops);
        {
            let mut sessions = self.sessions();
            sessions.carry(&self.dataplane);
            let Sessions { of, noise, links, hops, .. } = &mut *sessions;
            let (of_links, wakes_links, has_changed) = links.tick(now, noise);
            let (of_hops, wakes_hops, is_silent) = hops.tick(now, noise);
            (by_links, to_hops) = (of_links, of_hops);
            wakes = [wakes_links, wakes_hops].into_iter().flatten().fold(wakes, Timestamp::min);
            is_late |= has_changed | is_silent;
            for (peer, session) in of {
                if let Some(packet) = session.tick(now, next(noise) as u8) {
                    due.push((*peer, packet));
                }
                wakes = wakes.min(session.wakes());
                is_late |= session.clone().expire(now) || session.is_over(now);
            }
        }
        by_links.iter().for_each(|(port, path, packet)| self.send_by(*port, path, packet));
        self.send_to_hops(to_hops);
        if let Some(local) = self.local {
            due.iter().for_each(|(peer, packet)| self.send(local, *peer, packet));
        }
        (wakes.since(now).max(SHORTEST), is_late)
    }

    fn send(&self, local: IpAddr, peer: IpAddr, packet: &ControlPacket) {
        let set = |field: Field, value: u128| Action::SetField { field, value, mask: field.all_bits() };
        let way = self.sessions().ways.get(&peer).copied().unwrap_or(TUNNEL);
        let to = match peer {
            IpAddr::V4(ip) => set(Field::TunDst, ip.to_bits().into()),
            IpAddr::V6(ip) => set(Field::TunIpv6Dst, ip.to_bits()),
        };
        let actions = vec![set(Field::TunId, 0), to, Action::Output(way)];
        let frame = packet.frame(&Path::within_tunnel(local, peer));
        if let Err(error) = self.dataplane.packet_out(PortNo::CONTROLLER, actions, frame) {
            tracing::debug!(%error, %peer, "a packet that says that this host lives is not sent");
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    fn entry(&mut self, timing: Timing, now: Timestamp, peer: IpAddr) -> &mut Session {
        let Self { of, noise, carried, .. } = self;
        of.entry(peer).or_insert_with(|| {
            carried.go_on(Who::Host(peer), Session::new(timing, now, next(noise), false), now)
        })
    }

    /// Leaves the sessions that are up to the next process.
    fn carry(&mut self, dataplane: &Dataplane) {
        let Self { of, links, hops, carried, .. } = self;
        let hosts = of.iter().map(|(peer, session)| (Who::Host(*peer), session));
        carried.keep(dataplane, hosts.chain(links.sessions()).chain(hops.sessions()));
    }
}

fn next(noise: &mut u32) -> u32 {
    *noise ^= *noise << 13;
    *noise ^= *noise >> 17;
    *noise ^= *noise << 5;
    *noise
}

/// Keeps the sessions going until the task is dropped.
pub async fn run(host: SharedHost) {
    let bfd = host.with(|host| host.bfd()).await;
    bfd.begin();
    loop {
        let ticking = Arc::clone(&bfd);
        let Ok((pause, is_late)) = tokio::task::spawn_blocking(move || ticking.tick()).await else { return };
        if is_late {
            host.with(|host| {
                // What has arrived meanwhile counts.
                host.take_news();
                host.tend_gateways();
                host.tend_links();
            })
            .await;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = bfd.changed.notified() => {}
        }
    }
}
