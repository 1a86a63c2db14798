//! Ports come and go: a device is opened, its queues and ways out go to workers.

use std::{collections::BTreeMap, sync::Arc};

use flowtable::types::PortNo;

use super::{Dataplane, lock};
use crate::{
    bridges::patch,
    config::{Device, PortId, PortSpec, Steering},
    handle::DetachError,
    keep::Keeper,
    pmd::{Seat, SharedRates, SwitchedPort},
    port::{
        AnyOutlet, AttachError, AttachedOutlet, AttachedQueue, Hold, OnInterface, Opened, PortReport, afxdp,
        metrics::PortMetrics, vhost, vnet,
    },
    qos::{PortRates, QueueCounts},
    status::{DetachedPort, PortCounts, PortStatus},
    sys::{interface::Interface, link_events::Changed},
};

/// What is known of an attached port outside its workers.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(super) name: String,
    kind: &'static str,
    report: PortReport,
    metrics: Arc<PortMetrics>,
    /// Where each of its queues is.
    pub(super) queues: Vec<Place>,
    /// Ways out that no worker has: there are more of them than workers.
    spare: Vec<AnyOutlet>,
    /// Workers that have a way out.
    outlets: Vec<usize>,
    hold: Option<Hold>,
    /// Of one end of a link, which is on every worker: the other end, once there is one.
    pub(crate) link: Option<Option<PortId>>,
    /// The interface it stands on.
    interface: Option<OnInterface>,
    /// How its link was when it was looked at last.
    seen: Option<Link>,
}

/// What is left of the device of a port that was detached; to drop it is to close it.
#[derive(Debug)]
pub struct Remains {
    _queues: Vec<Vec<AttachedQueue>>,
    _outlets: Vec<AttachedOutlet>,
    _spare: Vec<AnyOutlet>,
}

/// Where a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) worker: usize,
    /// It stays there.
    pub(super) pinned: bool,
}

impl Dataplane {
    /// Attaches a port and says what it turned out to be. Frames flow at once.
    ///
    /// # Errors
    /// [`AttachError`] says what to do.
    ///
    /// # Concurrency
    /// An interface is looked for in the calling thread's network namespace.
    pub fn attach(&self, spec: PortSpec) -> Result<PortReport, AttachError> {
        let _admin = lock(&self.admin);
        let PortSpec { port, name, device } = spec;
        // The host's own port is one like others, with a number of its own.
        if !port.port.is_real() && port.port != PortNo::LOCAL {
            return Err(AttachError::NotReal(port.port));
        }
        if !self.fabric.has(port.bridge) {
            return Err(AttachError::NoBridge(port.bridge));
        }
        if lock(&self.ports).contains_key(&port) {
            return Err(AttachError::InUse(port));
        }
        if !self.may_have(&device) {
            return Err(AttachError::NotYet(name));
        }
        let link = match device {
            Device::Patch { keeps_queues } => Some(keeps_queues),
            _ => None,
        };
        let opened = self.open(&name, device)?;
        let card = opened.interface.as_ref().and_then(|on| self.nodes.of_interface(&on.name));
        let places = self.places((&name, card), opened.queues.len());
        for (id, seat) in self.fabric.seats().iter().enumerate() {
            seat.ask(move |worker| worker.open_port(port)).ok_or(AttachError::WorkerGone(id))?;
        }
        let Opened { kind, report, metrics, queues, outlets, hold, interface } = opened;
        if let Some(keeps_queues) = link {
            self.add_patch(port, keeps_queues, &metrics)?;
        }
        let home = places.first().map_or(0, |place| place.worker);
        let (owners, spare) = self.give_outlets((port, home), outlets, &metrics)?;
        for (idx, (device, place)) in queues.into_iter().zip(&places).enumerate() {
            let queue = AttachedQueue::new(port, idx, device, Arc::clone(&metrics));
            self.seat(place.worker)?
                .ask(move |worker| worker.take_queue(queue))
                .ok_or(AttachError::WorkerGone(place.worker))?;
        }
        tracing::info!(%port, name, mode = report.mode, n_queues = places.len(), worker = home, "port attached");
        let answer = report.clone();
        let (queues, outlets) = (places, owners);
        let link = link.map(|_| None);
        let registered = Registered {
            name,
            kind,
            report,
            metrics,
            queues,
            spare,
            outlets,
            hold,
            link,
            interface,
            seen: None,
        };
        lock(&self.ports).insert(port, registered);
        Ok(answer)
    }

    /// Detaches a port; an interface is the host's again when this returns. What was
    /// counted of it is the caller's from now on.
    ///
    /// # Errors
    /// The port is not attached.
    pub fn detach(&self, port: impl Into<PortId>) -> Result<DetachedPort, DetachError> {
        self.let_go(port).map(|(detached, _)| detached)
    }

    /// The same, but that an interface is the host's again when what is left of its device has been
    /// dropped, which takes milliseconds. No frame comes from it any more.
    ///
    /// # Errors
    /// The port is not attached.
    pub fn let_go(&self, port: impl Into<PortId>) -> Result<(DetachedPort, Remains), DetachError> {
        let port = port.into();
        let _admin = lock(&self.admin);
        let mut registered = lock(&self.ports).remove(&port).ok_or(DetachError::NotAttached(port))?;
        // First, nothing more comes to the queues; closing an interface's sockets takes
        // milliseconds: here, not on the workers.
        if let Some(hold) = registered.hold.take() {
            hold.clear(registered.interface.as_ref());
        }
        let seats = self.fabric.seats();
        let queues: Vec<_> =
            seats.iter().filter_map(|seat| seat.ask(move |worker| worker.drop_queues(port))).collect();
        if registered.link.is_none() {
            self.route(port, &registered.outlets, None);
        }
        let closed: Vec<_> =
            seats.iter().filter_map(|seat| seat.ask(move |worker| worker.close_port(port))).collect();
        let switched = closed.iter().map(|(_, counts)| *counts).reduce(|mut sum, more| {
            sum += more;
            sum
        });
        let outlets = closed.into_iter().filter_map(|(outlet, _)| outlet).collect();
        let spare = std::mem::take(&mut registered.spare);
        let remains = Remains { _queues: queues, _outlets: outlets, _spare: spare };
        if let (Some(keeper), Some(on)) = (self.keeper(), &registered.interface) {
            keeper.forget(&vnet::kept_name(registered.kind, &on.name));
        }
        let drops = |seat: &Arc<Seat>| seat.ask(move |worker| worker.take_drops(port)).unwrap_or_default();
        let drops = seats.iter().flat_map(drops).collect();
        tracing::info!(%port, name = registered.name, "port detached");
        let status = registered.status(port, &Changed::Perhaps, switched.as_ref());
        Ok((DetachedPort { status, drops }, remains))
    }

    /// Sets what a port may receive and send, and its queues; nothing: all it can. What waits
    /// in queues that are gone goes into the others.
    ///
    /// # Errors
    /// The port is not attached.
    pub fn set_rates(&self, port: impl Into<PortId>, rates: PortRates) -> Result<(), DetachError> {
        let port = port.into();
        let _admin = lock(&self.admin);
        if !lock(&self.ports).contains_key(&port) {
            return Err(DetachError::NotAttached(port));
        }
        let shared = SharedRates::new(rates);
        for seat in self.fabric.seats() {
            let shared = shared.clone();
            let _ = seat.ask(move |worker| worker.set_rates(port, &shared));
        }
        Ok(())
    }

    /// What has gone through the queues of a port since its rates were set, by number; none:
    /// it has no queues.
    pub fn queue_counts(&self, port: impl Into<PortId>) -> BTreeMap<u16, QueueCounts> {
        let port = port.into();
        let mut sums: BTreeMap<u16, QueueCounts> = BTreeMap::new();
        let asked =
            self.fabric.seats().iter().filter_map(|seat| seat.ask(move |worker| worker.queue_counts(port)));
        for (queue, counts) in asked.flatten() {
            *sums.entry(queue).or_default() += counts;
        }
        sums
    }

    pub(super) fn seat(&self, worker: usize) -> Result<&Arc<Seat>, AttachError> {
        self.fabric.seats().get(worker).ok_or(AttachError::WorkerGone(worker))
    }

    /// Workers for the queues of a new port: those it is tied to, else those that have the
    /// fewest, of the workers on the NUMA node of its card if there are any. How much each queue has
    /// to do shows later.
    fn places(&self, (name, node): (&str, Option<u32>), n_queues: usize) -> Vec<Place> {
        let ports = lock(&self.ports);
        let n_workers = self.fabric.seats().len();
        let mut n_held = vec![0_usize; n_workers];
        for place in ports.values().flat_map(|registered| &registered.queues) {
            if let Some(n) = n_held.get_mut(place.worker) {
                *n += 1;
            }
        }
        let cores: Vec<_> = self.fabric.seats().iter().map(|seat| seat.core).collect();
        let near = self.nodes.workers_near(node, &cores);
        let place = |queue| {
            let is_for = |own: Option<usize>| own.is_none_or(|own| own == queue);
            let pin = self.pins.iter().find(|pin| pin.port == name && is_for(pin.queue));
            let pinned = pin.map(|pin| pin.worker).filter(|worker| *worker < n_workers);
            let fewest = near.iter().copied().min_by_key(|worker| n_held[*worker]);
            let worker = pinned.or(fewest).unwrap_or(0);
            n_held[worker] += 1;
            Place { worker, pinned: pinned.is_some() }
        };
        (0..n_queues).map(place).collect()
    }

    /// Gives ways out to workers, the first to the port's home; tells the others where they
    /// are. Answers who has one, and those that are left over.
    fn give_outlets(
        &self,
        (port, home): (PortId, usize),
        outlets: Vec<AnyOutlet>,
        metrics: &Arc<PortMetrics>,
    ) -> Result<(Vec<usize>, Vec<AnyOutlet>), AttachError> {
        let n_workers = self.fabric.seats().len();
        let mut outlets = outlets.into_iter();
        let mut owners = Vec::new();
        for (idx, device) in outlets.by_ref().take(n_workers).enumerate() {
            let owner = (home + idx) % n_workers;
            let outlet = AttachedOutlet::new(port, idx, device, Arc::clone(metrics));
            self.seat(owner)?
                .ask(move |worker| worker.take_outlet(outlet))
                .ok_or(AttachError::WorkerGone(owner))?;
            owners.push(owner);
        }
        if let Some(first) = owners.first() {
            self.route(port, &owners, Some(*first));
        }
        Ok((owners, outlets.collect()))
    }

    /// Tells all workers without a way out by a port of their own where there is one.
    fn route(&self, port: PortId, owners: &[usize], to: Option<usize>) {
        for seat in self.fabric.seats().iter().filter(|seat| !owners.contains(&seat.id)) {
            let _ = seat.ask(move |worker| worker.route(port, to));
        }
    }

    /// Who holds what outlives this process, if anybody does.
    pub fn keeper(&self) -> Option<&dyn Keeper> {
        self.beginning.keeper.as_deref()
    }

    fn is_kept(&self, kind: &str, interface: &str) -> bool {
        self.keeper().is_some_and(|keeper| keeper.has(&vnet::kept_name(kind, interface)))
    }

    /// No other process has the device for itself.
    fn may_have(&self, device: &Device) -> bool {
        match device {
            _ if !self.is_waiting() => true,
            Device::Patch { .. } | Device::Memory(_) | Device::Frames(_) => true,
            Device::Vhost(_) | Device::Internal { .. } => false,
            Device::AfXdp { interface, .. }
            | Device::Packet { interface, .. }
            | Device::Uplink { interface, .. }
            | Device::Tap { interface }
            | Device::Workload { interface } => {
                self.is_kept(vnet::TAP, interface) || self.is_kept(vnet::PACKET, interface)
            }
        }
    }

    /// Opens a port's device.
    fn open(&self, name: &str, device: Device) -> Result<Opened, AttachError> {
        match device {
            Device::Internal { interface } => vnet::open_tap(&interface, self.fabric.seats().len(), None),
            Device::Patch { .. } => Ok(patch(self.fabric.seats().len())),
            Device::AfXdp { interface, steering } => self.open_af_xdp(&interface, &steering),
            Device::Workload { interface } => self.open_workload(&interface),
            Device::Packet { interface, steering } => vnet::open_socket(&interface, &steering, self.keeper()),
            Device::Uplink { interface, steering } => self.open_uplink(&interface, &steering),
            Device::Tap { interface } => self.open_tap(&interface),
            Device::Vhost(port) => vhost::open(name, &port),
            Device::Memory(memory) => memory.open().ok_or(AttachError::MemoryInUse),
            Device::Frames(frames) => frames.open().ok_or(AttachError::MemoryInUse),
        }
    }

    fn open_af_xdp(&self, name: &str, steering: &Steering) -> Result<Opened, AttachError> {
        afxdp::open(name, steering, self.af_xdp, (&self.memories, self.nodes.of_interface(name)))
    }

    fn open_tap(&self, name: &str) -> Result<Opened, AttachError> {
        vnet::open_tap(name, self.fabric.seats().len(), self.keeper())
    }

    /// Opens an interface the way that suits it.
    fn open_workload(&self, name: &str) -> Result<Opened, AttachError> {
        if self.is_kept(vnet::TAP, name) {
            // It may be in another network namespace by now.
            return self.open_tap(name);
        }
        match Interface::driver(name)?.as_str() {
            "tun" => self.open_tap(name),
            "veth" => vnet::open_socket(name, &Steering::All, self.keeper()).or_else(|error| {
                let opened = self.open_af_xdp(name, &Steering::All)?;
                tracing::info!(interface = name, %error, "large packets cannot cross whole here; attached by AF_XDP");
                Ok(opened)
            }),
            _ => self.open_af_xdp(name, &Steering::All),
        }
    }

    /// Opens the interface to other hosts. A veth's peer would have to cut all that it sends as
    /// long as an XDP program is attached.
    fn open_uplink(&self, name: &str, steering: &Steering) -> Result<Opened, AttachError> {
        match Interface::driver(name)?.as_str() {
            "veth" => vnet::open_socket(name, steering, self.keeper()),
            _ => self.open_af_xdp(name, steering),
        }
    }
}

/// State of a port's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    Down,
    Gone,
}

impl Registered {
    /// The worker that has the first queue, or else the first way out.
    pub(super) fn first_worker(&self) -> Option<usize> {
        let queue = self.queues.first().map(|place| place.worker);
        queue.or_else(|| self.outlets.first().copied())
    }

    /// Looks at the link, and takes over a changed MTU on the way.
    fn refresh(&self) -> Link {
        let Some(OnInterface { name, ifindex, wanders }) = &self.interface else {
            let is_down = self.link == Some(None) || self.metrics.down().is_some();
            return if is_down { Link::Down } else { Link::Up };
        };
        match Interface::lookup(name) {
            Ok(facts) if facts.ifindex == *ifindex && !self.metrics.is_gone() => {
                self.metrics.set_mtu(facts.mtu);
                if facts.running { Link::Up } else { Link::Down }
            }
            _ if *wanders && !self.metrics.is_gone() => Link::Up,
            // Another interface may have taken the name.
            Ok(_) | Err(_) => Link::Gone,
        }
    }

    /// The link; that of an interface is looked at only when it may have changed.
    fn link(&mut self, changed: &Changed) -> Link {
        let is_known = self.interface.as_ref().is_some_and(|on| !changed.has(on.ifindex));
        if let Some(seen) = self.seen.filter(|_| is_known && !self.metrics.is_gone()) {
            return seen;
        }
        let link = self.refresh();
        self.seen = Some(link);
        link
    }

    pub(super) fn status(
        &mut self,
        id: PortId,
        changed: &Changed,
        switched: Option<&SwitchedPort>,
    ) -> PortStatus {
        let link = self.link(changed);
        let counts = self.metrics.read();
        PortStatus {
            bridge: id.bridge,
            port: id.port,
            kind: self.kind,
            mode: self.report.mode.clone(),
            mac: self.report.mac,
            mtu: self.metrics.mtu(),
            up: link == Link::Up,
            why_down: self.metrics.down(),
            gone: link == Link::Gone,
            counters: PortCounts {
                rx_packets: counts.rx_packets,
                rx_bytes: counts.rx_bytes,
                rx_forwarded: switched.map_or(0, |switched| switched.n_forwarded),
                rx_dropped: switched.map_or(0, |switched| switched.n_dropped),
                tx_packets: counts.tx_packets,
                tx_bytes: counts.tx_bytes,
                tx_dropped: counts.tx_dropped,
                rx_kernel_dropped: counts.rx_kernel_dropped,
            },
            name: self.name.clone(),
        }
    }
}
