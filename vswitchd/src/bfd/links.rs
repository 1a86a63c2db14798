//! Sessions with whoever is at the other end of a port, as bridges are told by hand to have.

use std::collections::BTreeMap;

use bridge_protocols::bfd::{ControlPacket, Path, Session, SessionStatus, State, Timing};
use dataplane::PortId;
use flowtable::{
    flow::Action,
    types::{PortNo, Timestamp},
};

use super::{
    Bfd,
    carried::{Carried, Who},
    next,
};

/// With whom a port is to have a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkPeer {
    /// From where to where its packets go.
    pub path: Path,
    /// How often, and how many may be missed.
    pub timing: Timing,
}

/// A port's session, for dumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSession {
    /// With whom.
    pub peer: LinkPeer,
    /// What it knows.
    pub status: SessionStatus,
}

/// The sessions of ports.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<PortId, (LinkPeer, Session)>);

impl Links {
    pub(super) fn sessions(&self) -> impl Iterator<Item = (Who, &Session)> {
        self.0.iter().map(|(port, (peer, session))| (Who::Link(*port, peer.path), session))
    }

    pub(super) fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.0.values_mut().map(|(_, session)| session)
    }

    fn want(
        &mut self,
        peers: BTreeMap<PortId, LinkPeer>,
        now: Timestamp,
        (noise, carried): (&mut u32, &mut Carried),
    ) -> Vec<(PortId, Path, ControlPacket)> {
        let mut last = Vec::new();
        let mut old = std::mem::take(&mut self.0);
        for (port, peer) in peers {
            let session = match old.remove(&port) {
                Some((known, mut session)) if known.path == peer.path => {
                    session.set_timing(peer.timing);
                    session
                }
                _ => {
                    let fresh = Session::new(peer.timing, now, next(noise), true);
                    carried.go_on(Who::Link(port, peer.path), fresh, now)
                }
            };
            self.0.insert(port, (peer, session));
        }
        for (port, (peer, mut session)) in old {
            last.push((port, peer.path, session.end(now)));
        }
        last
    }

    /// What is due, when to be back, and whether some session has changed.
    pub(super) fn tick(
        &mut self,
        now: Timestamp,
        noise: &mut u32,
    ) -> (Vec<(PortId, Path, ControlPacket)>, Option<Timestamp>, bool) {
        let (mut due, mut wakes, mut is_late) = (Vec::new(), None::<Timestamp>, false);
        for (port, (peer, session)) in &mut self.0 {
            is_late |= session.clone().expire(now);
            if let Some(packet) = session.tick(now, next(noise) as u8) {
                due.push((*port, peer.path, packet));
            }
            wakes = Some(wakes.map_or(session.wakes(), |wakes| wakes.min(session.wakes())));
        }
        (due, wakes, is_late)
    }

    pub(super) fn end(&mut self, now: Timestamp) -> Vec<(PortId, Path, ControlPacket)> {
        self.0.iter_mut().map(|(port, (peer, session))| (*port, peer.path, session.end(now))).collect()
    }
}

impl Bfd {
    /// Wants sessions by these ports, and by no others.
    pub fn want_links(&self, peers: BTreeMap<PortId, LinkPeer>) {
        let now = self.dataplane.now();
        let last = {
            let mut sessions = self.sessions();
            let is_same = sessions.links.0.len() == peers.len()
                && sessions.links.0.iter().all(|(port, (known, _))| peers.get(port) == Some(known));
            if is_same {
                return;
            }
            let super::Sessions { links, noise, carried, .. } = &mut *sessions;
            links.want(peers, now, (noise, carried))
        };
        last.iter().for_each(|(port, path, packet)| self.send_by(*port, path, packet));
        self.changed.notify_one();
    }

    /// Takes in what has come by a port; `None`: it has no session. True: the other end has come
    /// to live, or ends.
    pub fn receive_by(&self, port: PortId, frame: &[u8]) -> Option<bool> {
        let now = self.dataplane.now();
        let (path, answer, has_changed) = {
            let mut sessions = self.sessions();
            let (peer, session) = sessions.links.0.get_mut(&port)?;
            let (_, packet) = ControlPacket::of_frame(frame)?;
            let before = session.state();
            let answer = session.receive(now, &packet);
            (peer.path, answer, session.state() != before)
        };
        if let Some(answer) = answer {
            self.send_by(port, &path, &answer);
        }
        if has_changed {
            self.changed.notify_one();
        }
        Some(has_changed)
    }

    /// Ends the sessions by ports whose other end is silent; true: there was one.
    pub fn expire_links(&self) -> bool {
        let now = self.dataplane.now();
        let mut has_changed = false;
        for (_, session) in self.sessions().links.0.values_mut() {
            has_changed |= session.expire(now);
        }
        has_changed
    }

    /// Whether the other end of a port lives; `None`: there is no session.
    pub fn link_lives(&self, port: PortId) -> Option<bool> {
        self.sessions().links.0.get(&port).map(|(_, session)| session.state() == State::Up)
    }

    /// The sessions by ports.
    pub fn links(&self) -> BTreeMap<PortId, LinkSession> {
        let sessions = self.sessions();
        let describe = |(port, (peer, session)): (&PortId, &(LinkPeer, Session))| {
            (*port, LinkSession { peer: *peer, status: session.status() })
        };
        sessions.links.0.iter().map(describe).collect()
    }

    pub(super) fn send_by(&self, port: PortId, path: &Path, packet: &ControlPacket) {
        let from = PortId::new(port.bridge, PortNo::CONTROLLER);
        let actions = vec![Action::Output(port.port)];
        if let Err(error) = self.dataplane.packet_out(from, actions, packet.frame(path)) {
            tracing::debug!(%error, %port, "a packet that says that this end lives is not sent");
        }
    }
}
