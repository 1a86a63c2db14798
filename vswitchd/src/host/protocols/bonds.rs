//! A bond of a bridge: its members' links, what LACP has agreed, and what the pipeline is told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bridge_protocols::{
    bond::{self, Mode},
    lacp::{self, Lacp, LinkStatus, Pdu},
};
use flowtable::{
    fdb::FdbEntry,
    flow::RuleStats,
    port::{Bond, BondMode, N_SLOTS},
    types::{MacAddr, PortNo, Timestamp},
};

use super::settings::{BondSettings, LacpName};

/// Stations whose place is told when another member becomes active.
const MAX_TOLD: usize = 1024;

/// A bond at work.
#[derive(Debug)]
pub(in crate::host) struct LiveBond {
    pub(super) number: PortNo,
    /// Numbers of the members that there are, by name.
    pub(super) members: BTreeMap<String, PortNo>,
    pub(super) state: bond::Bond,
    pub(super) lacp: Option<Lacp>,
    /// What each slot has carried.
    loads: Arc<[Arc<RuleStats>]>,
    /// What it had carried at the last look.
    seen: Vec<u64>,
    falls_back: bool,
}

impl LiveBond {
    pub(super) fn new(number: PortNo) -> Self {
        Self {
            number,
            members: BTreeMap::new(),
            state: bond::Bond::new(bond::Config::default()),
            lacp: None,
            loads: (0..N_SLOTS).map(|_| Arc::default()).collect(),
            seen: vec![0; N_SLOTS],
            falls_back: false,
        }
    }

    /// Takes over how it is to be, and which members there are, each with whether its link is
    /// up.
    pub(super) fn configure(
        &mut self,
        settings: &BondSettings,
        system: MacAddr,
        links: &BTreeMap<String, (PortNo, bool)>,
    ) {
        let here = links.iter().filter(|(name, _)| settings.members.contains(*name));
        self.members = here.clone().map(|(name, (port, _))| (name.clone(), *port)).collect();
        let ids: Vec<u16> = self.members.values().map(|port| id_of(*port)).collect();
        self.state.set_config(bond::Config {
            mode: settings.mode.into(),
            up_delay: Duration::from_millis(settings.up_delay),
            down_delay: Duration::from_millis(settings.down_delay),
            primary: self.members.get(&settings.primary).map(|port| id_of(*port)),
            rebalance: Duration::from_secs(settings.rebalance_interval),
        });
        self.state.set_members(&ids);
        self.falls_back = settings.lacp_fallback;
        if settings.lacp == LacpName::Off {
            self.lacp = None;
            return;
        }
        let config = lacp::Config {
            system,
            system_priority: settings.lacp_priority,
            key: id_of(self.number),
            is_active: settings.lacp == LacpName::Active,
            is_fast: settings.lacp_fast,
        };
        let lacp = self.lacp.get_or_insert_with(|| Lacp::new(config));
        lacp.set_config(config);
        for gone in lacp.links().filter(|id| !ids.contains(id)).collect::<Vec<_>>() {
            lacp.remove_link(gone);
        }
        for (_, (port, up)) in here {
            lacp.set_link(id_of(*port), 0x8000, *up);
        }
    }

    /// A frame has come by a member; `true`: it was for this.
    pub(super) fn hear(&mut self, now: Timestamp, port: PortNo, frame: &[u8]) -> bool {
        let Some(lacp) = self.lacp.as_mut().filter(|_| self.members.values().any(|member| *member == port))
        else {
            return false;
        };
        let Some(pdu) = Pdu::parse(frame) else { return false };
        lacp.receive(now, id_of(port), &pdu);
        true
    }

    /// Does what is due; answers with frames to send, and whether the pipeline has to know.
    pub(super) fn tick(
        &mut self,
        now: Timestamp,
        source: MacAddr,
        links: &BTreeMap<String, (PortNo, bool)>,
    ) -> (Vec<(PortNo, Vec<u8>)>, bool) {
        let mut frames = Vec::new();
        if let Some(lacp) = &mut self.lacp {
            lacp.tick(now);
            let sent = lacp.take_frames().into_iter();
            frames.extend(sent.filter_map(|(id, pdu)| Some((number_of(id)?, pdu.to_frame(source)))));
        }
        let up: BTreeMap<u16, bool> = links.values().map(|(port, up)| (id_of(*port), *up)).collect();
        let is_alone = self.is_falling_back();
        let lacp = self.lacp.as_ref();
        let can = |id: u16| {
            let is_agreed = lacp.is_none_or(|lacp| is_alone || lacp.is_usable(id));
            is_agreed && up.get(&id).copied().unwrap_or_default()
        };
        let mut changed = self.state.update(now, lacp.is_some(), can);
        let loads = self.loads.iter().map(|load| load.get().1);
        let recent: Vec<u64> =
            loads.clone().zip(&self.seen).map(|(now, before)| now.saturating_sub(*before)).collect();
        let totals: Vec<u64> = loads.collect();
        if self.state.rebalance(now, &recent) {
            (self.seen, changed) = (totals, true);
        }
        (frames, changed)
    }

    /// No neighbour answers by LACP, and it does without.
    fn is_falling_back(&self) -> bool {
        self.falls_back && self.lacp.as_ref().is_some_and(|lacp| !lacp.is_negotiated())
    }

    /// As the pipeline wants it.
    pub(super) fn as_port(&self, mode: Mode) -> Bond {
        let ports = |ids: &mut dyn Iterator<Item = u16>| ids.filter_map(number_of).collect();
        let negotiated = self.lacp.is_some() && !self.is_falling_back();
        let mode = match mode {
            Mode::BalanceSlb if !self.is_falling_back() => BondMode::BalanceSlb,
            Mode::BalanceTcp if negotiated => BondMode::BalanceTcp,
            Mode::ActiveBackup | Mode::BalanceSlb | Mode::BalanceTcp => BondMode::ActiveBackup,
        };
        Bond {
            mode,
            members: self.members.values().copied().collect(),
            enabled: ports(&mut self.state.enabled()),
            active: self.state.active().and_then(number_of),
            negotiated,
            slots: self.state.slots().iter().map(|slot| slot.and_then(number_of)).collect(),
            loads: Arc::clone(&self.loads),
        }
    }

    /// Frames that tell the neighbours by which link stations are now: as from each station
    /// that is not behind the bond itself (a reverse ARP request, RFC 903).
    pub(super) fn announcements(&self, stations: &[FdbEntry]) -> Vec<Vec<u8>> {
        let own = stations.iter().filter(|entry| entry.port != self.number);
        own.take(MAX_TOLD).map(|entry| rarp(entry.mac, entry.vlan.get())).collect()
    }
}

/// As bonds and LACP have it.
pub(super) fn id_of(port: PortNo) -> u16 {
    port.get() as u16
}

pub(super) fn number_of(id: u16) -> Option<PortNo> {
    PortNo::new(id.into()).ok()
}

fn rarp(mac: MacAddr, vlan: u16) -> Vec<u8> {
    let mut frame = MacAddr::BROADCAST.octets().to_vec();
    frame.extend(mac.octets());
    if vlan != 0 {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    for address in [mac, mac] {
        frame.extend(address.octets());
        frame.extend([0; 4]);
    }
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A member of a bond, for dumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BondMember {
    /// Name of the port.
    pub name: String,
    /// It is used.
    pub enabled: bool,
    /// It is the one that is used where only one can be.
    pub active: bool,
    /// Of the slots that flows are hashed to.
    pub n_slots: u32,
    /// What LACP knows of the link.
    pub lacp: Option<LinkStatus>,
}

impl LiveBond {
    /// Its members, for dumps.
    pub(super) fn describe(&self) -> Vec<BondMember> {
        let member = |(name, port): (&String, &PortNo)| {
            let id = id_of(*port);
            BondMember {
                name: name.clone(),
                enabled: self.state.is_enabled(id),
                active: self.state.active() == Some(id),
                n_slots: self.state.slots().iter().filter(|slot| **slot == Some(id)).count() as u32,
                lacp: self.lacp.as_ref().and_then(|lacp| lacp.link(id)),
            }
        };
        self.members.iter().map(member).collect()
    }

    /// LACP has found a partner.
    pub(super) fn is_negotiated(&self) -> bool {
        self.lacp.as_ref().is_some_and(Lacp::is_negotiated)
    }
}
