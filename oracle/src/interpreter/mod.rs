//! What the rules make of a packet, step by step, as ovs-actions(7) tells it: tables are searched from
//! the highest priority down, actions work on the frame itself, each output takes a copy of what the
//! frame is at that moment.
//!
//! `walk.rs` rules and actions · `find.rs` which rule · `ways.rs` groups, choices, meters ·
//! `action_set.rs` · `lessons.rs` `learn` and `NORMAL` · `rehearsal.rs` when they are taught · `output.rs` ports and
//! controllers · `tracked.rs` `ct` · [`memory`] what is remembered from packet to packet.

mod action_set;
mod find;
mod lessons;
pub mod memory;
mod output;
mod rehearsal;
mod tracked;
mod walk;
mod ways;

use std::collections::BTreeMap;

use self::walk::{Course, Walk};
use crate::{coverage::Met, frame, interpreter::memory::Memory, syntax::Rules};

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

/// A copy for a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Which controller.
    pub controller: u16,
    /// Why.
    pub reason: &'static str,
    /// The first bytes of the frame.
    pub frame: Vec<u8>,
    /// Bytes of the whole frame.
    pub len: usize,
    /// Table of the rule.
    pub table: u8,
    /// Cookie of the rule.
    pub cookie: u64,
    /// For the controller.
    pub userdata: Vec<u8>,
    /// Fields of the pipeline that are not zero.
    pub metadata: BTreeMap<String, u128>,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The copies that leave, in their order.
    pub sent: Vec<Sent>,
    /// Those for controllers.
    pub told: Vec<Told>,
    /// Why nothing does: one of these names of docs/drops.md. Empty when something leaves.
    pub dropped: Vec<&'static str>,
    /// Why any part of it went nowhere.
    pub whys: Vec<&'static str>,
    /// The same packet will have the same outcome.
    pub is_lasting: bool,
    /// It has taught something.
    pub is_teaching: bool,
    /// It depends on something that nobody can know: what follows cannot be foreseen either.
    pub is_lost: bool,
    /// Actions and fields that it met.
    pub met: Met,
}

/// A world: what there is and does not change.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The rules.
    pub rules: &'a Rules,
    /// The ports.
    pub ports: &'a Ports,
}

/// Interprets the rules for one frame that comes at `now`, in nanoseconds.
pub fn interpret(world: World<'_>, memory: &mut Memory, now: u64, in_port: u32, frame: &[u8]) -> Outcome {
    memory.begin_packet();
    if frame::view(frame).is_none() {
        return Outcome { dropped: vec!["malformed"], is_lasting: true, ..Outcome::default() };
    }
    let start = memory.mark();
    let mut rehearsals = match Walk::new(world, memory, now, in_port, frame).run() {
        Course::Over(outcome) => return outcome,
        Course::Again(rehearsals) => {
            memory.forget_questions();
            rehearsals
        }
    };
    loop {
        memory.roll_back(start.clone());
        match Walk::new(world, memory, now, in_port, frame).with_rehearsals(rehearsals).run() {
            Course::Over(outcome) => return outcome,
            Course::Again(more) => rehearsals = more,
        }
    }
}

/// The same with nothing remembered.
pub fn interpret_alone(world: World<'_>, in_port: u32, frame: &[u8]) -> Outcome {
    interpret(world, &mut Memory::new(world.rules), 0, in_port, frame)
}
