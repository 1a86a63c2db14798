//! Frames in and out of an interface: each queue has a socket, and with it a way out. A
//! worker sends everything by one of them, which keeps the order of a flow and makes one
//! call send a whole batch.

use std::{mem, os::fd::RawFd};

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Packet},
    types::PortNo,
};

use super::device::{AfXdpOutlet, AfXdpQueue, Gathering, Receiver, Sender};
use crate::{
    pool::{Frame, MAX_PACKET_LEN, Pool},
    port::{Outlet, RxQueue, metrics::PortMetrics},
    sys::xsk::{
        BURST, Flush, SendError,
        half::Found,
        library::XskRx,
        own::{OwnRx, Piece},
    },
};

impl RxQueue for AfXdpQueue {
    #[inline]
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        if self.metrics.is_gone() {
            return;
        }
        if self.socket.is_found() {
            self.take_over();
        }
        match &mut self.socket {
            Receiver::Own(socket) => receive(socket, &mut self.gathering, (from, max), pool, batch),
            Receiver::XskRs(socket) => receive_copies(socket, (from, max), pool, batch),
        }
    }

    fn has_pending(&self) -> bool {
        false
    }

    fn wait_fd(&self) -> Option<RawFd> {
        (!self.metrics.is_gone()).then(|| self.socket.fd())
    }

    fn kernel_dropped(&self) -> u64 {
        self.socket.kernel_dropped()
    }
}

impl AfXdpQueue {
    /// Goes on where the process before has stopped.
    #[cold]
    fn take_over(&mut self) {
        let Receiver::Own(socket) = &mut self.socket else { return };
        match socket.take_over() {
            None => {}
            Some(Ok(Found { n_waiting, n_missing, is_within })) => {
                if is_within {
                    // Its beginning was taken by the process before.
                    self.gathering = Gathering::Lost;
                }
                let interface = &self.interface;
                tracing::info!(
                    interface,
                    n_waiting,
                    n_missing,
                    "received frames of the process before are taken"
                );
            }
            Some(Err(why)) => cannot_go_on(&self.interface, why, &self.metrics),
        }
    }

    /// Another process receives from now on.
    pub(crate) fn leave(&mut self) {
        if let Receiver::Own(socket) = &mut self.socket {
            socket.leave();
        }
    }
}

/// What the process before has left cannot be gone on with: the port is down until it is attached anew.
fn cannot_go_on(interface: &str, why: &str, metrics: &PortMetrics) {
    if metrics.set_gone() {
        tracing::warn!(
            interface,
            why,
            "what the process before has left of the port cannot be gone on with; it is to be attached anew"
        );
    }
}

/// Frames of the socket's memory become packets as they are.
#[inline]
fn receive(
    socket: &mut OwnRx,
    gathering: &mut Gathering,
    (from, max): (PortNo, usize),
    pool: &mut Pool,
    batch: &mut Vec<Packet<Frame>>,
) {
    let budget = max.saturating_sub(batch.len()).min(BURST);
    socket.receive(budget, pool, |piece, pool| {
        if piece.is_continued || !matches!(gathering, Gathering::None) {
            batch.extend(gather(gathering, piece, from, pool));
        } else {
            batch.push(Packet::new(piece.frame, piece.start, piece.len, from));
        }
    });
}

/// Adds a piece to those of its packet; answers that when this was the last one.
#[cold]
fn gather(gathering: &mut Gathering, piece: Piece, from: PortNo, pool: &mut Pool) -> Option<Packet<Frame>> {
    let so_far = match mem::replace(gathering, Gathering::Lost) {
        Gathering::None => pool.get_large().map(|frame| (frame, 0)),
        Gathering::Some(frame, len) => Some((frame, len)),
        Gathering::Lost => None,
    };
    let is_last = !piece.is_continued;
    let bytes = piece.frame.as_ref().get(piece.start..piece.start + piece.len).unwrap_or_default();
    let so_far = so_far.and_then(|(mut large, len)| {
        let end = len + bytes.len();
        if end > MAX_PACKET_LEN {
            pool.put(large);
            return None;
        }
        large.as_mut()[HEADROOM + len..HEADROOM + end].copy_from_slice(bytes);
        Some((large, end))
    });
    pool.put(piece.frame);
    match so_far {
        Some((large, len)) if is_last => {
            *gathering = Gathering::None;
            Some(Packet::new(large, HEADROOM, len, from))
        }
        Some((large, len)) => {
            *gathering = Gathering::Some(large, len);
            None
        }
        None => {
            *gathering = if is_last { Gathering::None } else { Gathering::Lost };
            None
        }
    }
}

/// Frames are copied from the library's memory.
fn receive_copies(
    socket: &mut XskRx,
    (from, max): (PortNo, usize),
    pool: &mut Pool,
    batch: &mut Vec<Packet<Frame>>,
) {
    // A frame that has no buffer stays in the ring: the kernel then drops and counts
    // what comes after.
    let budget = max.saturating_sub(batch.len()).min(pool.n_free());
    if budget == 0 {
        if batch.len() < max && socket.has_received() {
            pool.count_exhausted();
        }
        return;
    }
    socket.receive(budget, |bytes| {
        let Some(mut frame) = pool.get() else { return };
        let room = &mut frame.as_mut()[HEADROOM..];
        // Fits: MAX_FRAME_LEN is checked against the pool's frames.
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        batch.push(Packet::new(frame, HEADROOM, len, from));
    });
}

impl AfXdpOutlet {
    fn apply(&mut self, flush: Flush) {
        match flush {
            Flush::Done | Flush::Later => self.down = false,
            Flush::Down => self.down = true,
            Flush::Gone if self.metrics.set_gone() => {
                tracing::warn!(
                    interface = self.interface,
                    "the interface is gone; its port drops everything"
                );
            }
            Flush::Gone => {}
        }
    }
}

impl Sender {
    fn flush(&mut self) -> Flush {
        match self {
            Self::Own(socket) => socket.flush(),
            Self::XskRs(socket) => socket.flush(),
        }
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), SendError> {
        match self {
            Self::Own(socket) => socket.send(frame),
            Self::XskRs(socket) => socket.send(frame),
        }
    }

    fn has_unsent(&self) -> bool {
        match self {
            Self::Own(socket) => socket.has_unsent(),
            Self::XskRs(socket) => socket.has_unsent(),
        }
    }

    fn take_refused(&mut self) -> u64 {
        match self {
            Self::Own(socket) => socket.take_refused(),
            Self::XskRs(socket) => socket.take_refused(),
        }
    }
}

impl AfXdpOutlet {
    /// Sends a frame of the shared memory as it is, all others as copies.
    #[inline]
    fn send_frame(&mut self, packet: Packet<Frame>) -> Result<(), (SendError, Packet<Frame>)> {
        let Sender::Own(socket) = &mut self.socket else { return Err((SendError::Foreign, packet)) };
        let (start, len, from) = (packet.start(), packet.len(), packet.in_port);
        let sent = socket.send_frame(packet.into_buf(), start, len);
        sent.map_err(|(frame, error)| (error, Packet::new(frame, start, len, from)))
    }

    fn send_again(&mut self, packet: Packet<Frame>) -> Result<(), (SendError, Packet<Frame>)> {
        self.take_over();
        let flush = self.socket.flush();
        let again = self.send_frame(packet);
        self.apply(flush);
        again
    }
}

impl Outlet for AfXdpOutlet {
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        if self.down || self.metrics.is_gone() {
            return Err(DropReason::PortDown);
        }
        let result = match self.socket.send(frame) {
            Err(SendError::Full) => {
                self.take_over();
                let flush = self.socket.flush();
                let again = self.socket.send(frame);
                self.apply(flush);
                again
            }
            result => result,
        };
        result.map_err(reason)
    }

    fn takes_frames(&self) -> bool {
        matches!(self.socket, Sender::Own(_))
    }

    #[inline]
    fn give(&mut self, packet: Packet<Frame>, pool: &mut Pool) -> Result<(), (DropReason, Packet<Frame>)> {
        if self.down || self.metrics.is_gone() {
            return Err((DropReason::PortDown, packet));
        }
        let result = match self.send_frame(packet) {
            Err((SendError::Full, packet)) => self.send_again(packet),
            result => result,
        };
        match result {
            Ok(()) => Ok(()),
            Err((SendError::Foreign, packet)) => match self.tx(packet.bytes()) {
                Ok(()) => {
                    pool.put_packet(packet);
                    Ok(())
                }
                Err(reason) => Err((reason, packet)),
            },
            Err((error, packet)) => Err((reason(error), packet)),
        }
    }

    fn flush(&mut self) -> u64 {
        if self.metrics.is_gone() || !self.socket.has_unsent() {
            return 0;
        }
        let flush = self.socket.flush();
        let n_refused = self.socket.take_refused();
        self.apply(flush);
        n_refused
    }

    fn has_unsent(&self) -> bool {
        !self.metrics.is_gone() && self.socket.has_unsent()
    }

    #[inline]
    fn settle(&mut self, pool: &mut Pool) {
        if let Sender::Own(socket) = &mut self.socket {
            socket.settle(pool);
            if socket.is_found() {
                self.take_over();
            }
        }
    }
}

impl AfXdpOutlet {
    /// Goes on where the process before has stopped.
    #[cold]
    fn take_over(&mut self) {
        let Sender::Own(socket) = &mut self.socket else { return };
        match socket.take_over() {
            None => {}
            Some(Ok(Found { n_waiting, n_missing, .. })) => {
                let interface = &self.interface;
                tracing::debug!(interface, n_waiting, n_missing, "frames of the process before are sent");
            }
            Some(Err(why)) => cannot_go_on(&self.interface, why, &self.metrics),
        }
    }

    /// Another process sends from now on.
    pub(crate) fn leave(&mut self) {
        if let Sender::Own(socket) = &mut self.socket {
            self.down |= socket.leave();
        }
    }
}

fn reason(error: SendError) -> DropReason {
    match error {
        SendError::Full | SendError::Foreign => DropReason::TxRingFull,
        SendError::TooLong => DropReason::TooBig,
    }
}
