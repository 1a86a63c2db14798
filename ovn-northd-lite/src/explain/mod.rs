//! Why two workloads can or cannot talk: what the compiled network does with the first packet
//! of a conversation and with the answer to it, told by the objects that had a say.
//!
//! Nothing is sent. Both workloads are put on one imagined host, whose switch is the real
//! one (`imagined.rs`): connections are tracked and addresses translated. Who says what to
//! whom is decided in `ends.rs`, as a workload with a default route would. What only happens
//! between hosts, tunnels, is not part of it.

mod ends;
mod imagined;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::IpAddr};

use flowtable::{build, key::FlowKey, types::PortNo};

use self::{
    ends::{Ends, reply},
    imagined::{Imagined, Passage, Ports},
};
use crate::{model::Northbound, southbound::Southbound};

pub use self::imagined::Step;

/// How they want to talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// A TCP connection to this port.
    Tcp(u16),
    /// A UDP datagram to this port.
    Udp(u16),
    /// An echo request, of ICMP or ICMPv6.
    Ping,
}

/// Who wants to talk to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Id of the switch port that begins.
    pub from: String,
    /// Id of the switch port that is to answer.
    pub to: String,
    /// The address that is asked for, where it is not the first one of `to`: a load
    /// balancer's, for instance.
    pub address: Option<IpAddr>,
    /// How.
    pub speech: Speech,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It came to the other one.
    Arrives,
    /// It left by these ports, and the other one is not among them.
    Elsewhere(Vec<String>),
    /// A host would answer it, or ask somebody about it, and has nobody to ask: the name of
    /// the service (`reject`, `arp`).
    Host(&'static str),
    /// It was dropped.
    Dropped {
        /// Why, in a sentence.
        reason: &'static str,
    },
}

/// One direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Source address of the packet.
    pub source: IpAddr,
    /// Destination address of the packet.
    pub destination: IpAddr,
    /// Steps with an object that had a say, in order; the last one of a packet that does not
    /// arrive is the cause.
    pub steps: Vec<Step>,
    /// What became of it.
    pub outcome: Outcome,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The first packet.
    pub there: Way,
    /// The answer to it, where it arrives.
    pub back: Option<Way>,
}

impl Explanation {
    /// They can talk.
    pub fn is_yes(&self) -> bool {
        self.back.as_ref().is_some_and(|back| back.outcome == Outcome::Arrives)
    }
}

/// The question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// A name is not that of a switch port.
    #[error("`{0}`: no switch has a port of this name")]
    NoPort(String),
    /// It leads to a router or to a network outside.
    #[error("`{0}` leads to a router or a network outside; name ports of workloads")]
    NotAWorkload(String),
    /// Its addresses are not known.
    #[error("`{0}` has no IP address that the network knows; give it one")]
    NoAddress(String),
    /// They have no kind of address in common.
    #[error("`{from}` and what it asks for have no kind of address, IPv4 or IPv6, in common")]
    Families {
        /// Who begins.
        from: String,
    },
    /// The way out of the switch is missing.
    #[error(
        "`{from}` has no way to {to}: it is in no network of its own, and no router on switches/{switch} has an address in that of `{from}`"
    )]
    NoRouter {
        /// Who begins.
        from: String,
        /// Its switch.
        switch: String,
        /// The destination.
        to: IpAddr,
    },
    /// The network cannot be realised.
    #[error("the switch refuses what the network becomes: {0}")]
    Refused(String),
}

/// Questions about one network, with all that it takes to answer them.
pub struct Cases {
    cases: Vec<(Question, Result<Ends, ExplainError>)>,
    ports: Ports,
    view: Southbound,
}

impl Cases {
    /// Takes what is needed from the network and what it was compiled to.
    pub fn new(nb: &Northbound, sb: &Southbound, questions: Vec<Question>) -> Self {
        let with_ends = |question: Question| (Ends::of(nb, &question), question);
        let cases: Vec<_> = questions.into_iter().map(with_ends).map(|(ends, of)| (of, ends)).collect();
        let asked = cases.iter().filter(|(_, ends)| ends.is_ok());
        let ids: BTreeSet<_> = asked.flat_map(|(question, _)| [&question.from, &question.to]).collect();
        let numbered = ids.into_iter().cloned().zip(1..);
        let ports = numbered.filter_map(|(id, n)| Some((id, PortNo::new(n).ok()?))).collect();
        let first = cases.first().and_then(|(question, _)| sb.bindings.get(&question.from));
        let chassis = first.and_then(|binding| binding.chassis.as_deref()).unwrap_or_default();
        let view = imagined::view(sb, &ports, chassis);
        Self { cases, ports, view }
    }

    /// Answers all of them, each as if it were the only one.
    ///
    /// # Cost
    /// That of lowering the switches and routers that can be reached, once.
    pub fn explain(self) -> Vec<Result<Explanation, ExplainError>> {
        let Self { cases, ports, view } = self;
        if ports.is_empty() {
            return cases.into_iter().filter_map(|(_, ends)| Some(Err(ends.err()?))).collect();
        }
        let mut imagined = Imagined::new(view, ports);
        let one = |(question, ends): (Question, Result<Ends, ExplainError>)| {
            let ends = ends?;
            let imagined = imagined.as_mut().map_err(|error| error.clone())?;
            imagined.forget();
            Ok(explain(imagined, &ends, &question))
        };
        cases.into_iter().map(one).collect()
    }
}

/// A question with all that it takes to answer it.
pub struct Case(Cases);

impl Case {
    /// Takes what is needed from the network and what it was compiled to.
    ///
    /// # Errors
    /// [`ExplainError`]: the question makes no sense.
    pub fn new(nb: &Northbound, sb: &Southbound, question: Question) -> Result<Self, ExplainError> {
        // Before the network is looked at.
        Ends::of(nb, &question)?;
        Ok(Self(Cases::new(nb, sb, vec![question])))
    }

    /// Answers the question.
    ///
    /// # Errors
    /// [`ExplainError::Refused`].
    ///
    /// # Cost
    /// That of lowering the switches and routers that can be reached.
    pub fn explain(self) -> Result<Explanation, ExplainError> {
        let none = || Err(ExplainError::Refused("there is no answer".to_owned()));
        self.0.explain().pop().unwrap_or_else(none)
    }
}

fn explain(imagined: &Imagined, ends: &Ends, question: &Question) -> Explanation {
    let Question { from, to, speech, .. } = question;
    let first = ends.first_frame(*speech);
    let (there, arrived) = way(imagined.pass(from, &first), to, &first);
    let back = arrived.and_then(|frame| reply(&frame)).map(|answer| {
        let passage = imagined.pass(to, &answer);
        way(passage, from, &answer).0
    });
    Explanation { there, back }
}

/// One direction, and the frame as it came to the other one.
fn way(passage: Passage, to: &str, frame: &[u8]) -> (Way, Option<Vec<u8>>) {
    let (source, destination) = ends::addresses(&key_of(frame));
    let Passage { steps, left, host, dropped } = passage;
    let arrived = left.iter().find(|(port, _)| port == to).map(|(_, frame)| frame.clone());
    let outcome = match (&arrived, host, dropped) {
        (Some(_), ..) => Outcome::Arrives,
        (None, Some(service), _) => Outcome::Host(service),
        (None, None, Some(reason)) if left.is_empty() => Outcome::Dropped { reason },
        (None, None, _) => Outcome::Elsewhere(left.into_iter().map(|(port, _)| port).collect()),
    };
    (Way { source, destination, steps, outcome }, arrived)
}

fn key_of(frame: &[u8]) -> FlowKey {
    let mut key = FlowKey::zero();
    // What the switch sends it can read.
    let _ = flowtable::parse::parse(&mut build::packet(frame, PortNo::ZERO), &mut key);
    key
}
