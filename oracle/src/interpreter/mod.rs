//! What the rules make of a packet, step by step, as ovs-actions(7) tells it: tables are searched from
//! the highest priority down, actions work on the frame itself, each output takes a copy of what the
//! frame is at that moment.

use std::collections::BTreeMap;

use crate::{
    field::Field,
    frame,
    state::State,
    syntax::{Flow, Matching, Part, Step, ones},
};

/// Lookups of one packet (ovs-actions(7), `resubmit`).
const MAX_LOOKUPS: usize = 4096;
/// Nesting of resubmits that do not go forward, and of clones.
const MAX_DEPTH: usize = 64;
/// Copies of one packet that the switch makes.
const MAX_COPIES: usize = 16_384;
/// Tags that a packet can have for the switch.
const MAX_TAGS: usize = 2;
/// Numbers from here on are no ports.
const FIRST_RESERVED: u128 = 0xff00;

/// A port that the interpreter can send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// A workload.
    Workload {
        /// It takes frames.
        up: bool,
    },
    /// The way to other hosts.
    Uplink,
    /// A tunnel by the uplink to the one peer that is reachable.
    Tunnel {
        /// The peer.
        peer: u32,
        /// The uplink.
        uplink: u32,
    },
}

/// The ports, by number.
pub type Ports = BTreeMap<u32, Port>;

/// A copy that leaves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// By this port.
    pub port: u32,
    /// The frame, without what a tunnel puts in front.
    pub frame: Vec<u8>,
    /// What the tunnel's header says.
    pub tunnel: Option<Outer>,
}

/// What a Geneve header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outer {
    /// To this peer.
    pub peer: u32,
    /// In this network.
    pub vni: u32,
    /// With this value of OVN's option.
    pub option: Option<u32>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The copies that leave, in their order.
    pub sent: Vec<Sent>,
    /// Why none does: a name of docs/drops.md.
    pub dropped: Option<&'static str>,
}

/// The walk ends, and nothing leaves.
struct Abort(&'static str);

/// One packet's walk.
struct Walk<'a> {
    flows: &'a [Flow],
    ports: &'a Ports,
    state: State,
    sent: Vec<Sent>,
    why: &'static str,
    /// Copies and reasons so far.
    n_ends: usize,
    n_lookups: usize,
    /// Copies on their way to a port that cannot be made.
    n_unsendable: usize,
}

/// Interprets the rules for one frame.
pub fn interpret(flows: &[Flow], ports: &Ports, in_port: u32, frame: &[u8]) -> Outcome {
    if frame::view(frame).is_none() {
        return Outcome { sent: Vec::new(), dropped: Some("malformed") };
    }
    let mut walk = Walk {
        flows,
        ports,
        state: State::new(frame, in_port),
        sent: Vec::new(),
        why: "table-miss",
        n_ends: 0,
        n_lookups: 0,
        n_unsendable: 0,
    };
    if let Err(Abort(why)) = walk.look_up(0, None, 0) {
        return Outcome { sent: Vec::new(), dropped: Some(why) };
    }
    let why = if walk.n_unsendable > 0 { "unsupported" } else { walk.why };
    let dropped = walk.sent.is_empty().then_some(why);
    Outcome { sent: walk.sent, dropped }
}

impl Walk<'_> {
    fn end(&mut self, why: &'static str) {
        self.why = why;
        self.n_ends += 1;
    }

    /// Finds the rule and does what it says.
    fn look_up(&mut self, table: u8, in_port: Option<u32>, depth: usize) -> Result<(), Abort> {
        self.n_lookups += 1;
        if self.n_lookups > MAX_LOOKUPS {
            return Err(Abort("too-many-resubmits"));
        }
        let Some(flow) = find(self.flows, table, &self.state, in_port) else {
            self.end("table-miss");
            return Ok(());
        };
        let n_ends = self.n_ends;
        self.list(&flow.steps, table, depth)?;
        if self.n_ends == n_ends {
            self.end("rule-drop");
        }
        Ok(())
    }

    fn list(&mut self, steps: &[Step], table: u8, depth: usize) -> Result<(), Abort> {
        let mut goto = None;
        for step in steps {
            match step {
                Step::Output(port) => self.output((*port).into(), false)?,
                Step::OutputReg(part) => {
                    let port = self.read(*part);
                    self.output(port, false)?;
                }
                Step::InPort => self.output(self.state.get(Field::InPort), true)?,
                Step::Flood => self.flood()?,
                Step::Set(term) => self.state.set(term.field, term.value, term.mask),
                Step::Move { src, dst } => {
                    if self.state.has(src.field.needs()) {
                        let value = self.read(*src);
                        self.state.set(dst.field, value << dst.start, ones(dst.n_bits) << dst.start);
                    }
                }
                Step::Resubmit { port, table: to } => {
                    let depth = depth + usize::from(*to <= table);
                    if depth > MAX_DEPTH {
                        return Err(Abort("depth-exceeded"));
                    }
                    self.look_up(*to, *port, depth)?;
                }
                Step::Goto(to) => goto = Some(*to),
                Step::Clone(steps) => {
                    if depth + 1 > MAX_DEPTH {
                        return Err(Abort("depth-exceeded"));
                    }
                    let saved = self.state.clone();
                    self.list(steps, table, depth + 1)?;
                    self.state = saved;
                }
                Step::DecTtl => {
                    if !self.state.dec_ttl() {
                        self.end("ttl-expired");
                        return Ok(());
                    }
                }
                Step::PushVlan(tpid) => {
                    if self.state.view().tags.len() >= MAX_TAGS {
                        return Err(Abort("unsupported"));
                    }
                    self.state.push_tag(*tpid, 0);
                }
                Step::PopVlan => self.state.pop_tag(),
                Step::ModVlanVid(vid) | Step::SetVlanVid(vid) => self.tag(Field::VlanVid, (*vid).into()),
                Step::ModVlanPcp(pcp) => self.tag(Field::VlanPcp, (*pcp).into()),
                Step::SetTunnel(id) => self.state.set(Field::TunId, (*id).into(), u128::MAX),
            }
        }
        goto.map_or(Ok(()), |to| self.look_up(to, None, depth))
    }

    /// Sets a part of the outer tag, which is made when there is none.
    fn tag(&mut self, field: Field, value: u128) {
        if self.state.view().tags.is_empty() {
            self.state.push_tag(0x8100, 0);
        }
        self.state.set(field, value, u128::MAX);
    }

    fn read(&self, part: Part) -> u128 {
        self.state.get(part.field) >> part.start & ones(part.n_bits)
    }

    /// Sends to a port; not to the input port unless asked for it by that name.
    fn output(&mut self, port: u128, back: bool) -> Result<(), Abort> {
        if !back && matches!(port, 0xfffb | 0xfffc) {
            return self.flood();
        }
        if !back && matches!(port, 0xfff7 | 0xffff) {
            return Ok(());
        }
        if !back && port == 0xfff8 {
            return self.output(self.state.get(Field::InPort), true);
        }
        if !back && matches!(port, 0xfff9 | 0xfffa | 0xfffd | 0xfffe) {
            self.end("unsupported");
            return Ok(());
        }
        if !back && port == self.state.get(Field::InPort) {
            self.end("same-port");
            return Ok(());
        }
        if port >= FIRST_RESERVED {
            self.end("no-such-port");
            return Ok(());
        }
        self.send(port as u32)
    }

    fn flood(&mut self) -> Result<(), Abort> {
        let in_port = self.state.get(Field::InPort);
        for (number, port) in self.ports {
            if *port == (Port::Workload { up: true }) && u128::from(*number) != in_port {
                self.send(*number)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, number: u32) -> Result<(), Abort> {
        if self.sent.len() + self.n_unsendable >= MAX_COPIES {
            return Err(Abort("too-many-outputs"));
        }
        let (port, tunnel) = match self.way(number) {
            Ok(way) => way,
            Err(why) => {
                self.end(why);
                return Ok(());
            }
        };
        self.n_ends += 1;
        if self.state.is_unsendable() {
            self.n_unsendable += 1;
        } else {
            self.sent.push(Sent { port, frame: self.state.bytes.clone(), tunnel });
        }
        Ok(())
    }

    /// The port by which a copy to `number` leaves, and what a tunnel puts in front; or why it does not.
    fn way(&self, number: u32) -> Result<(u32, Option<Outer>), &'static str> {
        match self.ports.get(&number) {
            None => Err("no-such-port"),
            Some(Port::Workload { up: false }) => Err("port-down"),
            Some(Port::Workload { up: true } | Port::Uplink) => Ok((number, None)),
            Some(Port::Tunnel { peer, uplink }) => {
                self.outer(*peer).map(|outer| (*uplink, Some(outer))).ok_or("tunnel-no-route")
            }
        }
    }

    /// What the tunnel header says, if the packet is for the peer and its network has a number on the wire.
    fn outer(&self, peer: u32) -> Option<Outer> {
        let vni = u32::try_from(self.state.get(Field::TunId)).ok().filter(|vni| *vni <= 0xff_ffff)?;
        let option = self.state.option();
        (self.state.get(Field::TunDst) == u128::from(peer)).then_some(Outer { peer, vni, option })
    }
}

/// The rule of highest priority that matches, by looking at all.
fn find<'a>(flows: &'a [Flow], table: u8, state: &State, in_port: Option<u32>) -> Option<&'a Flow> {
    let view = state.view();
    flows
        .iter()
        .filter(|flow| flow.table == table && matches(&flow.matching, state, &view, in_port))
        .max_by_key(|flow| flow.priority)
}

fn matches(matching: &Matching, state: &State, view: &frame::View, in_port: Option<u32>) -> bool {
    let kind = matching.kind.is_none_or(|kind| {
        let (_, eth_type, proto) = kind.meaning();
        view.eth_type == eth_type && proto.is_none_or(|proto| view.proto == proto)
    });
    kind && matching.terms.iter().all(|term| {
        let value = match in_port {
            Some(port) if term.field == Field::InPort => port.into(),
            _ => state.get_in(view, term.field),
        };
        (value ^ term.value) & term.mask == 0
    })
}
