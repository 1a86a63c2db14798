//! Link aggregation control: two neighbours agree which links between them are one
//! (IEEE 802.1AX-2014 §6.4).
//!
//! [`Lacp`] has the links of one bond. Each link hears its partner (the receive machine), and
//! of those that do, the ones that lead to the same system under the same key as the best of
//! them are *attached*; an attached link whose partner has chosen it too may carry frames.
//! What the best is, both ends see alike: the system with the lower id decides, by its port.

mod pdu;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use flowtable::types::{MacAddr, Timestamp};

pub use self::pdu::{ADDRESS, ETHER_TYPE, LinkState, Party, Pdu};

/// §6.4.4: between two units to a partner that wants them fast, and slowly.
const FAST_PERIOD: Duration = Duration::from_secs(1);
const SLOW_PERIOD: Duration = Duration::from_secs(30);
/// A partner is missed after so many units.
const N_MISSED: u32 = 3;
/// §6.4.16: units in [`FAST_PERIOD`] at most.
const MAX_BURST: u32 = 3;

/// What the links of a bond have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// This system.
    pub system: MacAddr,
    /// Its priority: the lower one decides.
    pub system_priority: u16,
    /// Links of one key may be one.
    pub key: u16,
    /// It speaks first.
    pub is_active: bool,
    /// It wants to hear every second, and misses its partner after three.
    pub is_fast: bool,
}

/// What is known of a link's partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hearing {
    /// It is heard.
    Current,
    /// It has been silent for too long, and is asked once more.
    Expired,
    /// It is not heard.
    #[default]
    Defaulted,
}

impl Hearing {
    /// Name, as in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Expired => "expired",
            Self::Defaulted => "defaulted",
        }
    }
}

/// What is known of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkStatus {
    /// What is known of the partner.
    pub hearing: Hearing,
    /// It is one with the others.
    pub is_attached: bool,
    /// It may carry frames.
    pub is_usable: bool,
    /// This end, as it tells.
    pub actor: Party,
    /// The other end, as it has told.
    pub partner: Party,
    /// Units sent and received.
    pub n_units: (u64, u64),
}

#[derive(Debug, Clone, Default)]
struct Link {
    priority: u16,
    has_carrier: bool,
    hearing: Hearing,
    is_attached: bool,
    partner: Party,
    /// When the partner is missed.
    expires: Timestamp,
    /// When the next unit is due at the latest.
    due: Timestamp,
    /// There is news for the partner.
    has_news: bool,
    /// Units since the burst began.
    burst: (Timestamp, u32),
    n_units: (u64, u64),
}

/// The links of a bond.
#[derive(Debug, Clone)]
pub struct Lacp {
    config: Config,
    links: BTreeMap<u16, Link>,
    frames: Vec<(u16, Pdu)>,
}

impl Lacp {
    /// No links yet.
    pub fn new(config: Config) -> Self {
        Self { config, links: BTreeMap::new(), frames: Vec::new() }
    }

    /// What the links have in common.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes what the links have in common; partners are told.
    pub fn set_config(&mut self, config: Config) {
        if self.config != config {
            self.config = config;
            self.links.values_mut().for_each(|link| link.has_news = true);
        }
    }

    /// Adds a link, or says anew how it is.
    pub fn set_link(&mut self, port: u16, priority: u16, has_carrier: bool) {
        let link = self.links.entry(port).or_default();
        if link.has_carrier != has_carrier {
            *link = Link { n_units: link.n_units, has_news: has_carrier, ..Link::default() };
        }
        (link.priority, link.has_carrier) = (priority, has_carrier);
    }

    /// Takes a link away.
    pub fn remove_link(&mut self, port: u16) {
        self.links.remove(&port);
    }

    /// Its links.
    pub fn links(&self) -> impl Iterator<Item = u16> {
        self.links.keys().copied()
    }

    /// A unit has arrived.
    pub fn receive(&mut self, now: Timestamp, port: u16, pdu: &Pdu) {
        let (config, limit) = (self.config, self.limit());
        let Some(link) = self.links.get_mut(&port).filter(|link| link.has_carrier) else { return };
        // A loop, not a partner.
        if pdu.actor.system == config.system {
            return;
        }
        link.n_units.1 += 1;
        let before = (link.hearing, link.partner);
        link.hearing = Hearing::Current;
        link.partner = pdu.actor;
        link.expires = now.after(limit);
        self.attach();
        let Some(actor) = self.actor(port) else { return };
        let Some(link) = self.links.get_mut(&port) else { return };
        link.has_news |= pdu.partner != actor || before != (link.hearing, link.partner);
    }

    /// Misses partners that were silent for too long, and sends what is due.
    pub fn tick(&mut self, now: Timestamp) {
        for link in self.links.values_mut().filter(|link| now >= link.expires) {
            match link.hearing {
                Hearing::Current => {
                    link.hearing = Hearing::Expired;
                    link.partner.state = link.partner.state.without(LinkState::SYNC).with(LinkState::FAST);
                    link.expires = now.after(FAST_PERIOD * N_MISSED);
                    link.has_news = true;
                }
                Hearing::Expired => {
                    (link.hearing, link.partner) = (Hearing::Defaulted, Party::default());
                    link.has_news = true;
                }
                Hearing::Defaulted => {}
            }
        }
        self.attach();
        for port in self.links.keys().copied().collect::<Vec<_>>() {
            self.transmit(now, port);
        }
    }

    /// What is to be sent.
    pub fn take_frames(&mut self) -> Vec<(u16, Pdu)> {
        std::mem::take(&mut self.frames)
    }

    /// Some link's partner is known.
    pub fn is_negotiated(&self) -> bool {
        self.links.values().any(|link| link.is_attached)
    }

    /// The link may carry frames.
    pub fn is_usable(&self, port: u16) -> bool {
        self.links.get(&port).is_some_and(Link::is_usable)
    }

    /// What is known of a link.
    pub fn link(&self, port: u16) -> Option<LinkStatus> {
        let (link, actor) = (self.links.get(&port)?, self.actor(port)?);
        Some(LinkStatus {
            hearing: link.hearing,
            is_attached: link.is_attached,
            is_usable: link.is_usable(),
            actor,
            partner: link.partner,
            n_units: link.n_units,
        })
    }

    fn limit(&self) -> Duration {
        N_MISSED * if self.config.is_fast { FAST_PERIOD } else { SLOW_PERIOD }
    }

    /// Chooses the links that are one.
    fn attach(&mut self) {
        let is_heard = |link: &&Link| link.has_carrier && link.hearing != Hearing::Defaulted;
        let lead = self
            .links
            .iter()
            .filter(|(_, link)| is_heard(link))
            .min_by_key(|(port, link)| self.rank(**port, link))
            .map(|(port, link)| (*port, link.partner));
        for (port, link) in &mut self.links {
            let is_with = |(best, partner): (u16, Party)| {
                let is_same = (partner.system, partner.key) == (link.partner.system, link.partner.key);
                // What its partner keeps alone is alone.
                *port == best
                    || is_same
                        && link.partner.state.has(LinkState::AGGREGATION)
                        && partner.state.has(LinkState::AGGREGATION)
            };
            let is_attached = is_heard(&&*link) && lead.is_some_and(is_with);
            link.has_news |= link.is_attached != is_attached;
            link.is_attached = is_attached;
        }
    }

    /// How both ends rank a link: by the port of the system that decides.
    fn rank(&self, port: u16, link: &Link) -> (u16, MacAddr, u16, u16) {
        let own = (self.config.system_priority, self.config.system, link.priority, port);
        let partner = &link.partner;
        let other = (partner.system_priority, partner.system, partner.port_priority, partner.port);
        if (own.0, own.1) < (other.0, other.1) { own } else { other }
    }

    fn actor(&self, port: u16) -> Option<Party> {
        let link = self.links.get(&port)?;
        let state = LinkState::of(&[
            (self.config.is_active, LinkState::ACTIVITY),
            (self.config.is_fast, LinkState::FAST),
            (true, LinkState::AGGREGATION),
            (link.is_attached, LinkState::SYNC),
            (link.is_usable(), LinkState::COLLECTING),
            (link.is_usable(), LinkState::DISTRIBUTING),
            (link.hearing == Hearing::Defaulted, LinkState::DEFAULTED),
            (link.hearing == Hearing::Expired, LinkState::EXPIRED),
        ]);
        let Config { system, system_priority, key, .. } = self.config;
        Some(Party { system_priority, system, key, port_priority: link.priority, port, state })
    }

    /// Sends what is due, or news, but not too much.
    fn transmit(&mut self, now: Timestamp, port: u16) {
        let is_active = self.config.is_active;
        let Some(actor) = self.actor(port) else { return };
        let Some(link) = self.links.get_mut(&port).filter(|link| link.has_carrier) else { return };
        // §6.4.13: two that only answer say nothing.
        if !is_active && !link.partner.state.has(LinkState::ACTIVITY) {
            return;
        }
        if !link.has_news && now < link.due {
            return;
        }
        if now.since(link.burst.0) >= FAST_PERIOD {
            link.burst = (now, 0);
        }
        if link.burst.1 >= MAX_BURST {
            return;
        }
        link.burst.1 += 1;
        link.has_news = false;
        let wants_fast = link.hearing != Hearing::Current || link.partner.state.has(LinkState::FAST);
        link.due = now.after(if wants_fast { FAST_PERIOD } else { SLOW_PERIOD });
        link.n_units.0 += 1;
        self.frames.push((port, Pdu { actor, partner: link.partner }));
    }
}

impl Link {
    /// Both ends have chosen it.
    fn is_usable(&self) -> bool {
        self.is_attached && self.hearing == Hearing::Current && self.partner.state.has(LinkState::SYNC)
    }
}
