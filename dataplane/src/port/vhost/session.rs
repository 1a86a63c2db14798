//! What one connection with a guest's side has brought: features, memory, rings. Messages come
//! in any order and any number; a ring runs when all that it needs is there, and stops when
//! something is taken away.

use std::{os::fd::OwnedFd, sync::Arc};

use super::{
    fault::Fault,
    features::{Features, PROTOCOL_OFFERED, has_reply_ack},
    message::{Reply, Request},
    ring::Vring,
    shared::Shared,
};
use crate::sys::{
    event_file::EventFile,
    guest_memory::GuestMemory,
    vring::{RingAddresses, RingMemory},
};

/// Smallest and largest MTU of virtio (virtio 1.2 §5.1.4.1).
const MTUS: std::ops::RangeInclusive<u64> = 68..=65_535;

/// What has been said about a ring.
#[derive(Debug, Default)]
struct Setup {
    size: u32,
    at: Option<RingAddresses>,
    /// Where the other side says it goes on; used only to be said again.
    base: u16,
    /// The guest has it going.
    is_started: bool,
    is_enabled: bool,
    call: Option<Arc<EventFile>>,
    /// It is in a worker's hands.
    is_live: bool,
}

/// One connection. Dropping it stops all rings.
#[derive(Debug)]
pub(super) struct Session {
    shared: Arc<Shared>,
    features: Features,
    protocol: u64,
    memory: Option<Arc<GuestMemory>>,
    setups: Vec<Setup>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let setups = shared.seats.iter().map(|_| Setup::default()).collect();
        Self { shared, features: Features::default(), protocol: 0, memory: None, setups }
    }

    /// Does what a message asks for; answers what is to be answered.
    ///
    /// # Errors
    /// The guest's side does what it must not. The connection is to be closed.
    pub(super) fn handle(
        &mut self,
        request: &Request,
        files: Vec<OwnedFd>,
        needs_reply: bool,
    ) -> Result<Option<Reply>, Fault> {
        let n_pairs = self.setups.len() / 2;
        let asked = match request {
            Request::GetFeatures => Some(Reply::Number(Features::offered(n_pairs))),
            Request::GetProtocolFeatures => Some(Reply::Number(PROTOCOL_OFFERED)),
            Request::GetQueueNumber => Some(Reply::Number(n_pairs as u64)),
            Request::GetRingBase { ring } => Some(self.stop_ring(*ring)?),
            other => {
                self.change(other, files)?;
                None
            }
        };
        let acknowledged = needs_reply && has_reply_ack(self.protocol);
        Ok(asked.or_else(|| acknowledged.then_some(Reply::Number(0))))
    }

    fn change(&mut self, request: &Request, files: Vec<OwnedFd>) -> Result<(), Fault> {
        match request {
            Request::SetFeatures(raw) => {
                self.features = Features::taken(*raw, self.setups.len() / 2).map_err(Fault::Features)?;
            }
            Request::SetProtocolFeatures(raw) => match raw & !PROTOCOL_OFFERED {
                0 => self.protocol = *raw,
                unknown => return Err(Fault::Features(unknown)),
            },
            Request::SetMemory(specs) => return self.set_memory(specs.iter().copied().zip(files).collect()),
            Request::SetRingSize { ring, size } => self.setup(*ring)?.size = *size,
            Request::SetRingAddresses { ring, at } => {
                self.setup(*ring)?.at = Some(*at);
                return self.renew(*ring);
            }
            Request::SetRingBase { ring, base } => self.setup(*ring)?.base = *base as u16,
            Request::SetKick { ring, .. } => {
                let kick = event_file(files)?;
                self.setup(*ring)?.is_started = true;
                self.shared.seats[*ring as usize].set_kick(kick);
                return self.settle(*ring);
            }
            Request::SetCall { ring, .. } => return self.set_call(*ring, event_file(files)?),
            Request::SetRingEnabled { ring, is_enabled } => {
                self.setup(*ring)?.is_enabled = *is_enabled;
                return self.settle(*ring);
            }
            Request::SetMtu(mtu) if MTUS.contains(mtu) => self.shared.metrics.set_mtu(*mtu as u32),
            Request::ResetOwner | Request::ResetDevice => self.reset(),
            // Whose it is, who is told of errors, an impossible MTU: nothing to do.
            Request::SetOwner | Request::SetError { .. } | Request::SetMtu(_) => {}
            Request::GetFeatures
            | Request::GetProtocolFeatures
            | Request::GetQueueNumber
            | Request::GetRingBase { .. } => {}
        }
        Ok(())
    }

    fn setup(&mut self, ring: u64) -> Result<&mut Setup, Fault> {
        let idx = usize::try_from(ring).ok();
        idx.and_then(|idx| self.setups.get_mut(idx)).ok_or(Fault::NoRing(ring))
    }

    fn set_call(&mut self, ring: u64, call: Option<Arc<EventFile>>) -> Result<(), Fault> {
        self.setup(ring)?.call = call.clone();
        if let Some(vring) = self.shared.seats[ring as usize].ring.wait().as_mut() {
            // What it missed while there was nobody to wake.
            call.iter().for_each(|call| call.signal());
            vring.set_call(call);
        }
        Ok(())
    }

    /// The guest has other memory from now on. Rings that run go on in it.
    fn set_memory(
        &mut self,
        regions: Vec<(crate::sys::guest_memory::RegionSpec, OwnedFd)>,
    ) -> Result<(), Fault> {
        self.memory = Some(Arc::new(GuestMemory::map(regions)?));
        (0..self.setups.len() as u64).try_for_each(|ring| self.renew(ring))
    }

    /// Makes a ring that runs anew, from what is known now.
    fn renew(&mut self, ring: u64) -> Result<(), Fault> {
        if self.setup(ring)?.is_live {
            self.take(ring);
        }
        self.settle(ring)
    }

    /// Has a ring run if it can, and not otherwise.
    fn settle(&mut self, ring: u64) -> Result<(), Fault> {
        let always = !self.features.has_protocol();
        let setup = self.setup(ring)?;
        let at = setup.at.filter(|_| setup.is_started && (setup.is_enabled || always));
        let (is_live, size, call) = (setup.is_live, setup.size, setup.call.clone());
        match (at.zip(self.memory.as_ref()), is_live) {
            (Some((at, memory)), false) => {
                let vring = Vring::new(RingMemory::new(memory, &at, size)?, self.features, call);
                self.shared.seats[ring as usize].replace(Some(vring));
                self.setup(ring)?.is_live = true;
            }
            (None, true) => self.take(ring),
            _ => {}
        }
        self.changed(ring);
        Ok(())
    }

    /// Takes a ring away from the workers.
    fn take(&mut self, ring: u64) {
        let Some(setup) = self.setups.get_mut(ring as usize) else { return };
        setup.is_live = false;
        if let Some(vring) = self.shared.seats[ring as usize].replace(None) {
            setup.base = vring.next();
        }
    }

    /// Stops a ring and says where.
    fn stop_ring(&mut self, ring: u64) -> Result<Reply, Fault> {
        self.setup(ring)?.is_started = false;
        self.take(ring);
        self.shared.seats[ring as usize].set_kick(None);
        self.changed(ring);
        let base = self.setup(ring)?.base;
        Ok(Reply::Base { ring: ring as u32, base: base.into() })
    }

    /// Says so to whoever looks at rings.
    fn changed(&self, ring: u64) {
        let runs = self.shared.count_rings();
        self.shared.metrics.set_down((!runs).then(|| "the guest has not started its device".to_owned()));
        self.shared.seats[ring as usize].wake();
    }

    fn reset(&mut self) {
        for ring in 0..self.setups.len() {
            self.take(ring as u64);
            self.setups[ring] = Setup::default();
            self.shared.seats[ring].set_kick(None);
            self.changed(ring as u64);
        }
        self.features = Features::default();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reset();
    }
}

/// The event file of a message, if it came with one.
fn event_file(files: Vec<OwnedFd>) -> Result<Option<Arc<EventFile>>, Fault> {
    let file = files.into_iter().next().map(EventFile::of).transpose();
    file.map(|file| file.map(Arc::new)).map_err(|_| Fault::NotEventFile)
}
