//! The responder: answers packets that the rules of the logical network send to the host.
//! Each service is a file; what a packet asks for is in its user data
//! ([`ovn_northd_lite::punt`]).
//!
//! A packet that is made here goes to the table of continuations, where the flow that
//! asked for it says what else it is and where it goes: this module knows packets, not
//! networks. Rates are bounded before, by a meter for each service; what waits here is
//! bounded too.
//!
//! [`Responder`] is plain: packets and the time in, [`Effect`]s out; the host runs it
//! (`host/neighbours.rs`).

mod acl_log;
mod advertise;
mod arp;
mod checks;
mod dhcp4;
mod dhcp6;
mod dhcp_relay;
mod dns;
mod icmp;
mod multicast;
mod neighbours;
mod packet;
mod reject;
mod reset;
#[cfg(test)]
mod tests;
mod udp;
mod waiting;

use flowtable::{
    flow::Action,
    switch::PacketIn,
    types::{MacAddr, PortNo, TableId, Timestamp},
};
use ovn_northd_lite::{
    Learned,
    key::{DatapathKey, PortKey},
    punt::{Request, Service},
    southbound::Southbound,
};

use self::{
    advertise::Schedule, checks::Checks, dns::Names, multicast::Multicast, neighbours::Neighbours,
    packet::Context, waiting::Waiting,
};

pub use acl_log::Line;
pub use advertise::{Advertiser, Advertisers};
pub use checks::{Asked, Health};
pub use multicast::{Hearers, Listener, Listeners};

/// A packet for a worker's switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketOut {
    /// Port it is as if it came from.
    pub in_port: PortNo,
    /// What becomes of it.
    pub actions: Vec<Action>,
    /// The frame.
    pub frame: Vec<u8>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A neighbour is known from now on. Goes before the packets that waited for it.
    Learn(Learned),
    /// A neighbour is no longer known.
    Forget(Learned),
    /// A packet leaves.
    Send(PacketOut),
    /// A packet is given up: its next hop did not answer, or too many wait.
    GiveUp {
        /// Port it came in by.
        in_port: PortNo,
        /// Its length.
        n_bytes: usize,
    },
    /// An ACL has something to say.
    Log(Line),
    /// Whether backends serve, all that is known.
    Health(Vec<Health>),
    /// A workload has the address of a virtual port.
    Hold(Hold),
    /// Other workloads want to hear a group than before.
    Hears(Hearers),
    /// A workload that moves goes on here: its switch, its port.
    Activate((DatapathKey, PortKey)),
}

/// A workload that says that it has the address of a virtual port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// The switch.
    pub datapath: DatapathKey,
    /// The virtual port.
    pub port: PortKey,
    /// The workload's port.
    pub parent: PortKey,
    /// The workload's MAC address.
    pub mac: MacAddr,
}

/// What becomes of a packet that asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reply {
    /// It goes on as it came.
    Pass,
    /// Nothing more happens.
    Silent,
    /// This frame goes on in its place.
    Made(Vec<u8>),
}

/// All services with what they remember.
#[derive(Debug, Default)]
pub struct Responder {
    neighbours: Neighbours,
    waiting: Waiting,
    names: Names,
    schedule: Schedule,
    checks: Checks,
    multicast: Multicast,
}

impl Responder {
    /// Does what a packet asks for. One that is not for the responder, or that cannot be
    /// what it should be, has no effect.
    pub fn answer(&mut self, now: Timestamp, packet_in: &PacketIn) -> Vec<Effect> {
        if let Some(line) = acl_log::line(packet_in) {
            return vec![Effect::Log(line)];
        }
        let Some(request) = Request::decode(&packet_in.punt.to.userdata) else { return Vec::new() };
        let context = Context::new(packet_in, request);
        let made = match request.service {
            Service::Arp | Service::Solicitation => return self.ask(now, &context),
            Service::LearnArp | Service::LearnNd => return self.learn(now, &context),
            Service::Icmp4 | Service::Icmp6 => icmp::error(&context),
            Service::TcpReset => reset::reset(&context),
            Service::Reject => reject::reject(&context),
            Service::HealthCheck => return self.hear(&context),
            Service::BindVirtual => return context.hold().map(Effect::Hold).into_iter().collect(),
            Service::Activation => return context.port().map(Effect::Activate).into_iter().collect(),
            Service::Igmp => return self.multicast.hear(now, &context),
            // The host sees to them itself.
            Service::Bfd | Service::BfdMessage => None,
            Service::DhcpV4 => return context.replied(dhcp4::answer(&context)),
            Service::DhcpV6 => return context.replied(dhcp6::answer(&context)),
            Service::DhcpRelay => return context.replied(dhcp_relay::relay(&context)),
            Service::Dns => return context.replied(self.names.answer(&context)),
            Service::Advertise => return context.replied(advertise::answer(&context)),
        };
        made.map(|frame| vec![Effect::Send(context.continued(frame))]).unwrap_or_default()
    }

    /// Other hosts have heard of a neighbour. Packets that wait for it go.
    pub fn hear_of(&mut self, now: Timestamp, learned: Learned) -> Vec<Effect> {
        let mut effects = self.neighbours.hear_of(now, learned);
        let released = self.waiting.take(&learned.into(), learned.mac);
        effects.extend(released.into_iter().map(Effect::Send));
        effects
    }

    /// Other hosts have not heard of a neighbour for too long.
    pub fn unhear(&mut self, learned: Learned) -> Option<Effect> {
        self.neighbours.unhear(learned)
    }

    /// A neighbour's router is not on this host any more.
    pub fn drop_neighbour(&mut self, learned: Learned) {
        self.neighbours.drop(learned);
    }

    /// Neighbours that this host has heard of by itself since the last call, and (`false`) those
    /// that it has not for too long.
    pub fn take_heard(&mut self) -> Vec<(Learned, bool)> {
        self.neighbours.take_news()
    }

    /// Takes over the names of a view.
    pub fn set_names(&mut self, view: &Southbound) {
        self.names = Names::of(view);
    }

    /// Takes over which router ports advertise unasked.
    pub fn set_advertisers(&mut self, now: Timestamp, advertisers: Advertisers) {
        self.schedule.set(now, advertisers);
    }

    /// Takes over which workloads are asked whether they serve.
    pub fn set_checks(&mut self, now: Timestamp, asked: Vec<Asked>) {
        self.checks.set(now, asked);
    }

    /// Takes over which switches listen to what workloads say about groups.
    pub fn set_listeners(&mut self, now: Timestamp, listeners: Listeners) -> Vec<Effect> {
        self.multicast.set(now, listeners)
    }

    /// Lets what waits too long and what is too old go; says what it is time to say.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let given_up = self.waiting.expire(now).into_iter().map(give_up);
        let forgotten = self.neighbours.expire(now).into_iter().map(Effect::Forget);
        let said = self.schedule.due(now).into_iter().map(Effect::Send);
        let asked = self.checks.due(now).into_iter().map(Effect::Send);
        let known = self.checks.news().map(Effect::Health);
        let heard = self.multicast.tick(now);
        given_up.chain(forgotten).chain(said).chain(asked).chain(known).chain(heard).collect()
    }

    /// Takes a backend's answer, and what follows from it.
    fn hear(&mut self, context: &Context<'_>) -> Vec<Effect> {
        let said = self.checks.hear(context).into_iter().map(Effect::Send);
        said.chain(self.checks.news().map(Effect::Health)).collect()
    }

    /// Asks for a neighbour, unless that was done a moment ago; the packet waits.
    fn ask(&mut self, now: Timestamp, context: &Context<'_>) -> Vec<Effect> {
        let Some(wanted) = context.next_hop() else { return Vec::new() };
        if let Some(mac) = self.neighbours.find(&wanted) {
            // The answer has overtaken the packet.
            return vec![Effect::Send(context.released(mac))];
        }
        let (is_time, given_up) = self.waiting.add(now, wanted, context);
        let mut effects: Vec<_> = given_up.map(give_up).into_iter().collect();
        if !is_time {
            return effects;
        }
        let question = match context.request.service {
            Service::Arp => arp::request(context),
            _ => arp::solicitation(context, &wanted),
        };
        effects.extend(question.map(|frame| Effect::Send(context.continued(frame))));
        effects
    }

    /// Remembers a neighbour, and lets the packets go that wait for it.
    fn learn(&mut self, now: Timestamp, context: &Context<'_>) -> Vec<Effect> {
        let Some(learned) = context.neighbour() else { return Vec::new() };
        let mut effects = self.neighbours.learn(now, learned, context.age());
        let released = self.waiting.take(&learned.into(), learned.mac);
        effects.extend(released.into_iter().map(Effect::Send));
        effects
    }
}

fn give_up(PacketOut { in_port, frame, .. }: PacketOut) -> Effect {
    Effect::GiveUp { in_port, n_bytes: frame.len() }
}

/// Looks up in a table.
fn resubmit(table: TableId) -> Action {
    Action::Resubmit { port: None, table: Some(table) }
}
