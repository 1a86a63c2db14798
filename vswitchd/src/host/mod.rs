//! The host's switch: the dataplane with what it is told. It owns the ports, the rules of
//! the last known network and the underlay, and publishes each change of them as one
//! snapshot.
//!
//! [`Host`] is plain and single-threaded; [`SharedHost`] lends it to the agent, the local
//! service and the housekeeping, one at a time.

mod audit;
mod bridge;
mod declared;
mod departed;
mod events;
mod gateways;
mod handmade;
mod held;
mod lab;
mod links;
mod moving;
mod neighbours;
mod news;
mod owned;
mod peers;
mod port_kind;
mod port_rates;
mod port_settings;
mod port_table;
mod ports;
mod protocols;
mod rules;
mod sampling;
mod saving;
mod services;
mod shaping;
mod tracking;
mod tunnels;
mod view;
mod workloads;
mod written;
mod zones;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dataplane::{Dataplane, MemoryPort};
use ferroflow_proto::chassis::{Claims, Health, Hello, Sessions, SyncResponse};
use flowtable::{
    program::TunnelKind,
    snapshot::Snapshot,
    stats::DropCount,
    types::{BridgeId, Epoch, PortNo},
    underlay::Underlay,
};
use ovn_northd_lite::{Lowering, diff, southbound::Southbound};
use tokio::sync::watch;

pub use audit::AUDIT_INTERVAL;
pub use bridge::{Bridge, BridgeError, FIRST_NAME, FailMode, SavedBridge};
pub use declared::{Declaration, DeclarationError};
pub use departed::{Departed, Row};
pub use events::{Event, Events, PortChange, PortEvent, Read, Told};
pub use gateways::GatewayStatus;
pub use handmade::ChangeError;
pub use lab::LAB_UPLINK;
pub(crate) use lab::since;
pub use lab::{Injected, Lab, LabError, NewLabPort, Outgoing, Sent, Way};
pub use neighbours::{Heard, Holders};
pub use news::{PausedId, ResumeError, SentPacket};
pub use owned::{OwnedUplink, UPLINK_BRIDGE};
pub use peers::{NeighbourStatus, TunnelStatus};
pub use port_kind::{PortKind, PortKindError, VhostSettings};
pub use port_rates::{QueueSetting, RateSetting, RateSettings};
pub use port_settings::{Mode as VlanMode, PortSettings, PriorityTagsName};
pub use ports::{Port, PortError};
pub use protocols::{
    BondMember, BondModeName, BridgeSettings, ExportKind, ExportStatus, LacpName, MemberError, ProtocolError,
    SettingsError, TreeProtocol,
};
pub use tracking::{TrackingChange, TrackingError, TrackingSettings};
pub use tunnels::{Encapsulation, TUNNEL, UPLINK};
pub use written::{Verb, WrittenChange};

use crate::{
    agent::{UpdateError, decode},
    bfd::{Bfd, Timing},
    responder::Responder,
    state::{PortsFile, StateDir, StateError, ViewJournal},
    tunnel_endpoint::OwnAddress,
};
use view::LastView;

/// MTU where nothing says another (RFC 894).
const ETHERNET_MTU: u32 = 1500;
/// How long the workers may take to forward by a new version.
const APPLY_LIMIT: Duration = Duration::from_secs(5);

const fn number(raw: u32) -> PortNo {
    match PortNo::new(raw) {
        Ok(port) => port,
        Err(_) => panic!("not a port number"),
    }
}

/// Who this host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Id among the hosts.
    pub chassis: String,
    /// Its hostname.
    pub hostname: String,
    /// Uplink interface and address for tunnelled packets.
    pub endpoint: Option<(String, IpAddr)>,
    /// Interface by which the host goes on when the switch has the uplink for itself; `None`: the uplink
    /// stays the host's.
    pub internal_port: Option<String>,
    /// The address for tunnelled packets is the switch's own, and the host does not have it.
    pub own_address: Option<OwnAddress>,
    /// How others may send to it, the way it likes best first.
    pub encap_types: Vec<TunnelKind>,
    /// Who may send tunnelled packets, where no network tells.
    pub tunnel_peers: Vec<IpAddr>,
    /// URL of the controller.
    pub controller: Option<String>,
    /// How it finds out whether other hosts live.
    pub liveness: Timing,
}

/// Where a host's ports and rules come from.
#[derive(Debug)]
pub enum Mode {
    /// Interfaces; rules are made from the network that a controller sends.
    Network,
    /// Interfaces; rules are written by hand.
    Standalone {
        /// How the bridge fails that it begins with.
        fail_mode: FailMode,
    },
    /// Queues of frames; rules are written by hand.
    Lab(Lab),
    /// Queues of frames; rules are made from the network that a controller sends.
    LabNetwork(Lab),
}

/// The host's switch.
pub struct Host {
    identity: Identity,
    incarnation: u64,
    /// Streams to controllers that have begun.
    n_streams: u64,
    dataplane: Arc<Dataplane>,
    bfd: Arc<Bfd>,
    gateways: gateways::Gateways,
    /// What the network has workloads send by.
    shaped: shaping::Shaped,
    state: StateDir,
    ports_file: PortsFile,
    /// Why the uplink is not attached, while it is not.
    late_uplink: Option<String>,
    /// Where the switch is a station itself.
    station: Option<MemoryPort>,
    /// The switch has the frames of an uplink that it has for itself.
    has_wire: watch::Sender<bool>,
    /// The ports are queues, not interfaces.
    lab: Option<Lab>,
    /// Rules are written by hand, not made from a controller's network.
    is_handmade: bool,
    /// At least one, in the order in which they were added.
    bridges: Vec<Bridge>,
    /// Ports of all bridges that are to be there, by interface.
    ports: BTreeMap<String, Port>,
    /// How connections are tracked.
    tracking: TrackingSettings,
    events: Arc<Events>,
    paused: news::Paused,
    responder: Responder,
    /// Packets that the responder gave up.
    given_up: Vec<DropCount>,
    departed: departed::Graveyard,
    underlay: Arc<Underlay>,
    /// Of the snapshot that was published last, of whichever bridge.
    epoch: Epoch,
    /// The network as it was sent, and what it became.
    lowering: Lowering,
    /// The tables are not what the network became: they refused it.
    is_adrift: bool,
    audits: audit::Audits,
    neighbours: neighbours::Neighbours,
    last_view: LastView,
    /// `None`: nothing is kept.
    journal: Option<ViewJournal>,
    /// Why the last known network is not saved.
    unsaved: Option<StateError>,
    applied_revision: u64,
    errors: Vec<String>,
    connected: bool,
    claims: watch::Sender<Claims>,
    health: watch::Sender<Health>,
    heard: watch::Sender<Arc<neighbours::Heard>>,
    holders: watch::Sender<Arc<neighbours::Holders>>,
    sessions: watch::Sender<Sessions>,
    /// Logical ports that are claimed for interfaces to come.
    held: BTreeSet<String>,
    /// Logical ports whose workloads have said that they go on here. Not kept: a workload that
    /// moves says so again, or the move is over before.
    activated: BTreeSet<String>,
    /// How many connections zones may have, as the network says.
    zone_limits: BTreeMap<u16, u32>,
    peers: watch::Sender<BTreeSet<IpAddr>>,
}

impl Host {
    /// Takes the state of the last run over: attaches its ports, and forwards by the last
    /// network it was sent, or by the rules written by hand; from [`Host::begin`] on, where the
    /// dataplane holds back.
    ///
    /// # Errors
    /// The uplink cannot be attached. A workload's port that cannot is waited for.
    pub fn start(
        identity: Identity,
        dataplane: Dataplane,
        state: StateDir,
        mode: Mode,
    ) -> Result<Self, PortError> {
        let (is_handmade, lab, fail_mode) = match mode {
            Mode::Network => (false, None, FailMode::Secure),
            Mode::Standalone { fail_mode } => (true, None, fail_mode),
            Mode::Lab(lab) => (true, Some(lab), FailMode::Secure),
            Mode::LabNetwork(lab) => (false, Some(lab), FailMode::Secure),
        };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (journal, ports_file) = (state.view_journal(), state.ports_file());
        let dataplane = Arc::new(dataplane);
        let of_lab = lab.as_ref().and_then(Lab::incarnation);
        let incarnation = of_lab.unwrap_or(since_epoch.as_nanos() as u64);
        let tunnel_ip = identity.endpoint.as_ref().map(|(_, ip)| *ip);
        let bfd = Bfd::new(tunnel_ip, identity.liveness, incarnation, Arc::clone(&dataplane));
        let lowering = Lowering::with_zones(&state.zones().unwrap_or_default());
        let mut host = Self {
            identity,
            incarnation,
            n_streams: 0,
            dataplane,
            bfd: Arc::new(bfd),
            gateways: gateways::Gateways::default(),
            shaped: shaping::Shaped::default(),
            state,
            ports_file,
            late_uplink: None,
            station: None,
            has_wire: watch::Sender::default(),
            lab,
            is_handmade,
            bridges: Vec::new(),
            ports: BTreeMap::new(),
            tracking: TrackingSettings::default(),
            events: Arc::default(),
            paused: news::Paused::default(),
            responder: Responder::default(),
            given_up: Vec::new(),
            departed: departed::Graveyard::default(),
            underlay: Arc::default(),
            epoch: Epoch::ZERO,
            lowering,
            is_adrift: false,
            audits: audit::Audits::default(),
            neighbours: neighbours::Neighbours::default(),
            last_view: LastView::default(),
            journal,
            unsaved: None,
            applied_revision: 0,
            errors: Vec::new(),
            connected: false,
            claims: watch::Sender::new(Claims::default()),
            health: watch::Sender::new(Health::default()),
            heard: watch::Sender::default(),
            holders: watch::Sender::default(),
            sessions: watch::Sender::default(),
            held: BTreeSet::new(),
            activated: BTreeSet::new(),
            zone_limits: BTreeMap::new(),
            peers: watch::Sender::default(),
        };
        host.restore_bridges(fail_mode);
        host.attach_uplink()?;
        host.restore_ports();
        host.restore_tracking();
        if host.is_handmade {
            host.restore_rules();
        } else {
            host.restore_view();
        }
        Ok(host)
    }

    /// Takes packets from now on, by the rules that there are. Ports that another process had until
    /// now are attached behind that; `then` is called in between.
    ///
    /// # Errors
    /// The uplink cannot be attached.
    pub fn begin(&mut self, then: impl FnOnce(&Dataplane)) -> Result<(), PortError> {
        let was_waiting = self.dataplane.is_waiting();
        self.dataplane.begin();
        then(&self.dataplane);
        if was_waiting {
            self.attach_late()?;
            self.tend_ports();
        }
        Ok(())
    }

    /// Who this host is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Introduces this host to a controller on a new stream.
    pub fn begin_stream(&mut self) -> Hello {
        self.n_streams += 1;
        self.hello()
    }

    /// Introduces this host to a controller.
    pub fn hello(&self) -> Hello {
        let Identity { chassis, hostname, endpoint, encap_types, .. } = &self.identity;
        Hello {
            chassis: chassis.clone(),
            hostname: hostname.clone(),
            encap_ip: endpoint.as_ref().map(|(_, ip)| ip.to_string()).unwrap_or_default(),
            incarnation: self.incarnation,
            encap_types: encap_types.iter().map(|kind| kind.name().to_owned()).collect(),
            stream: self.n_streams,
            applied: self.applied_revision,
        }
    }

    /// Logical ports on this host, as they change.
    pub fn claims(&self) -> watch::Receiver<Claims> {
        self.claims.subscribe()
    }

    /// Tells which backends serve, as they change.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A stream to the controller is up, or not.
    pub fn set_connected(&mut self, connected: bool) {
        self.connected = connected;
    }

    /// A stream to the controller is up.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Makes the switch forward by an update, saves it, and says what could not be
    /// realised. A wrong update changes nothing.
    pub fn realise(&mut self, update: SyncResponse) -> Vec<String> {
        let (revision, raw) = (update.revision, update.clone());
        if let Err(error) = self.take_over(update) {
            tracing::error!(revision, %error, "the controller's update is refused");
            return vec![format!("update to revision {revision} refused: {error}")];
        }
        self.save(raw);
        self.errors.clone()
    }

    /// Makes the switch forward by an update.
    fn take_over(&mut self, update: SyncResponse) -> Result<(), UpdateError> {
        let (revision, is_full) = (update.revision, update.full);
        let mut delta = decode(update)?;
        if is_full {
            let mut whole = Southbound::default();
            delta.apply(&mut whole);
            delta = diff(self.lowering.view(), &whole);
        }
        let touched = services::Touched::of(&delta, is_full);
        let hearsay = neighbours::Hearsay::of(&delta, self.lowering.view());
        let gone = zones::gone_backends(&delta, self.lowering.view());
        self.forget_activations(&delta);
        self.lower(delta);
        self.underlay_peers();
        self.watch_gateways();
        self.applied_revision = revision;
        self.publish(BridgeId::FIRST);
        self.brief_responder(touched);
        self.take_hearsay(hearsay);
        self.end_connections(&gone);
        self.announce();
        Ok(())
    }

    /// Saves an update, at a cost of its size; now and then the whole instead.
    fn save(&mut self, update: SyncResponse) {
        let is_full = update.full;
        let Some(journal) = &mut self.journal else { return };
        let saved = if is_full || self.unsaved.is_some() || journal.is_long() {
            self.last_view.apply(update);
            journal.replace(&self.last_view.to_update(self.applied_revision))
        } else {
            let appended = journal.append(&update);
            self.last_view.apply(update);
            appended
        };
        self.unsaved = saved
            .inspect_err(|error| tracing::error!(%error, "the network would not outlive this process"))
            .err();
    }

    /// What packets of the first bridge see now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_of(self.first())
    }

    /// Version of the last change of any bridge.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The dataplane, for its counters and dumps.
    pub fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// Northbound revision that the tables realise.
    pub fn applied_revision(&self) -> u64 {
        self.applied_revision
    }

    /// The part of the network that this host was sent.
    pub fn view(&self) -> &Southbound {
        self.lowering.view()
    }

    /// What could not be realised, each with its name and the reason.
    pub fn errors(&self) -> Vec<String> {
        let no_hop = |peer: &&IpAddr| !self.underlay.next_hops.contains_key(peer);
        let unreachable = self.underlay.peers.iter().filter(no_hop).map(|peer| {
            format!("tunnel peer {peer}: no route by the uplink, or its neighbour does not answer; see `ip route get {peer}` and `ip neigh`")
        });
        let unsaved = self.unsaved.iter().map(ToString::to_string);
        self.errors
            .iter()
            .cloned()
            .chain(unreachable)
            .chain(self.late_uplink.clone())
            .chain(self.port_errors())
            .chain(unsaved)
            .collect()
    }

    /// Makes the present tables, ports and underlay of a bridge what packets see, and waits
    /// until the workers do.
    fn publish(&mut self, bridge: BridgeId) {
        let epoch = self.epoch.next();
        let Some(bridge) = self.bridge_mut(bridge) else { return };
        bridge.epoch = epoch;
        let id = bridge.id;
        self.epoch = epoch;
        if let Some(bridge) = self.bridge_of(id) {
            self.dataplane.publish(Arc::new(self.snapshot_of(bridge)));
        }
        if !self.dataplane.wait_applied(self.epoch, APPLY_LIMIT) {
            tracing::error!(epoch = %self.epoch, "a worker does not take the new rules");
        }
    }

    fn restore_view(&mut self) {
        let Some(updates) = self.journal.as_ref().map(ViewJournal::read) else { return };
        let Some(revision) = updates.last().map(|update| update.revision) else { return };
        for update in updates {
            self.last_view.apply(update);
        }
        match self.take_over(self.last_view.to_update(revision)) {
            Ok(()) => tracing::info!(revision, "forwarding by the last known network"),
            Err(error) => tracing::error!(%error, "the last known network is damaged and not used"),
        }
    }
}

/// The host, lent to one at a time.
#[derive(Clone)]
pub struct SharedHost(Arc<Mutex<Host>>);

impl SharedHost {
    /// Shares a host.
    pub fn new(host: Host) -> Self {
        Self(Arc::new(Mutex::new(host)))
    }

    /// It is the same host.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Does something with the host, on the calling thread, which may wait.
    pub fn with_blocking<T>(&self, act: impl FnOnce(&mut Host) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something with the host, on a thread that may wait.
    ///
    /// # Panics
    /// When `act` does, which is a bug.
    pub async fn with<T, F>(&self, act: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&mut Host) -> T + Send + 'static,
    {
        let host = Arc::clone(&self.0);
        let acting = tokio::task::spawn_blocking(move || {
            act(&mut host.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match acting.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only at the end of the process: nobody waits for the answer.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
