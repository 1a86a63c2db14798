//! Frames in and out of a file, each with its record.

use std::os::fd::RawFd;

use flowtable::{
    drop::DropReason,
    offload::{Datagrams, MAX_HEADERS_LEN, Taken, Train, Whole, settle_received, train_offload},
    packet::{Gso, GsoKind, HEADROOM, Packet},
    types::PortNo,
};

use super::device::{Held, VnetOutlet, VnetQueue};
use crate::{
    pool::{FRAME_LEN, Frame, MAX_PACKET_LEN, Pool},
    port::{Outlet, RxQueue},
    sys::vnet::{Received, Record, Trouble, insert_tag},
};

/// First byte of a frame that is read: a tag that the kernel has kept apart goes in front.
const START: usize = HEADROOM + 4;
/// Bytes of a frame that an ordinary buffer takes.
const HEAD_LEN: usize = FRAME_LEN - START;
const UDP_LEN: usize = 8;

impl RxQueue for VnetQueue {
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        if self.metrics.is_gone() {
            return;
        }
        // How long a frame is shows when it has been read. What an ordinary buffer has no room
        // for comes to its place in a large one; then the beginning follows.
        self.take_apart((&mut *pool, max), from, batch);
        let Some(mut large) = pool.get_large() else { return };
        while self.held.is_none() && batch.len() < max {
            let Some(mut usual) = pool.get() else { break };
            let tail = &mut large.as_mut()[START + HEAD_LEN..];
            let received = match self.file.receive(&mut usual.as_mut()[START..], tail) {
                Ok(received) => received,
                Err(trouble) => {
                    pool.put(usual);
                    if self.goes_on(trouble) {
                        continue;
                    }
                    break;
                }
            };
            if received.len <= HEAD_LEN {
                self.deliver(packet(usual, &received, from), (&mut *pool, max), batch);
                continue;
            }
            large.as_mut()[START..START + HEAD_LEN].copy_from_slice(&usual.as_ref()[START..]);
            pool.put(usual);
            self.deliver(packet(large, &received, from), (&mut *pool, max), batch);
            match pool.get_large() {
                Some(next) => large = next,
                None => return,
            }
        }
        pool.put(large);
    }

    fn has_pending(&self) -> bool {
        self.held.is_some()
    }

    fn wait_fd(&self) -> Option<RawFd> {
        Some(self.file.fd())
    }

    fn is_dear(&self) -> bool {
        true
    }

    fn kernel_dropped(&self) -> u64 {
        self.n_dropped.set(self.n_dropped.get() + self.file.take_dropped());
        self.n_dropped.get()
    }
}

impl VnetQueue {
    /// A packet goes into the batch; what is many of a tunnel, as far as there is room.
    fn deliver(
        &mut self,
        mut packet: Packet<Frame>,
        (pool, max): (&mut Pool, usize),
        batch: &mut Vec<Packet<Frame>>,
    ) {
        if !self.is_tunnel {
            return batch.push(packet);
        }
        let undone = packet.offload;
        packet.offload = settle_received(packet.bytes_mut(), &undone);
        let train = undone.gso.filter(|gso| gso.kind == GsoKind::Udp && packet.offload.is_none());
        let Some(gso) = train else { return batch.push(packet) };
        let (start, len, from) = (packet.start(), packet.len(), packet.in_port);
        let (each, at) = (gso.segment_len.get().into(), 0);
        self.held = Some(Held { frame: packet.into_buf(), start, len, each, at });
        self.take_apart((pool, max), from, batch);
    }

    /// Takes apart what came many at a time, until the batch is full.
    fn take_apart(&mut self, (pool, max): (&mut Pool, usize), from: PortNo, batch: &mut Vec<Packet<Frame>>) {
        let Some(mut held) = self.held.take() else { return };
        let bytes = &held.frame.as_ref()[held.start..held.start + held.len];
        let Some(mut datagrams) = Datagrams::of(bytes, held.each, held.at) else {
            batch.push(Packet::new(held.frame, held.start, held.len, from));
            return;
        };
        while datagrams.longest() > 0 {
            let room = if batch.len() < max { pool.get_large() } else { None };
            let Some(mut room) = room else {
                held.at = datagrams.at();
                self.held = Some(held);
                return;
            };
            let Some(taken) = datagrams.write_next(&mut room.as_mut()[HEADROOM..][..MAX_PACKET_LEN]) else {
                pool.put(room);
                break;
            };
            batch.push(fitting(room, &taken, from, pool));
        }
        pool.put(held.frame);
    }

    /// There may be more behind a frame that could not be read.
    fn goes_on(&self, trouble: Trouble) -> bool {
        if trouble == Trouble::Gone {
            self.metrics.set_gone();
        }
        matches!(trouble, Trouble::Refused | Trouble::TooLong)
    }
}

/// A packet that was written to a large buffer. Those are few: a short one goes to another.
fn fitting(room: Frame, taken: &Taken, from: PortNo, pool: &mut Pool) -> Packet<Frame> {
    let mut packet = Packet::new(room, HEADROOM, taken.len, from);
    let usual = if taken.len <= FRAME_LEN - HEADROOM { pool.get() } else { None };
    if let Some(mut usual) = usual {
        usual.as_mut()[HEADROOM..HEADROOM + taken.len].copy_from_slice(packet.bytes());
        pool.put_packet(packet);
        packet = Packet::new(usual, HEADROOM, taken.len, from);
    }
    packet.offload = taken.offload;
    packet
}

/// The frame at its place in a buffer, with its record.
fn packet(mut buf: Frame, received: &Received, from: PortNo) -> Packet<Frame> {
    let Received { mut len, mut offload, tag } = *received;
    let mut start = START;
    if let Some(tag) = tag
        && insert_tag(&mut buf.as_mut()[HEADROOM..START + len], tag)
    {
        (start, len) = (HEADROOM, len + tag.len());
        offload.csum_start = offload.csum_start.saturating_add(tag.len() as u16);
    }
    let mut packet = Packet::new(buf, start, len, from);
    packet.offload = offload;
    packet
}

impl VnetOutlet {
    fn result(&self, sent: Result<(), Trouble>) -> Result<(), DropReason> {
        sent.map_err(|trouble| match trouble {
            Trouble::Later => DropReason::TxRingFull,
            Trouble::TooLong => DropReason::TooBig,
            Trouble::Refused => DropReason::TxError,
            Trouble::Down => DropReason::PortDown,
            Trouble::Gone => {
                if self.metrics.set_gone() {
                    tracing::warn!(
                        interface = self.interface,
                        "the interface is gone; its port drops everything"
                    );
                }
                DropReason::PortDown
            }
        })
    }
}

impl VnetOutlet {
    /// Sends a tunnelled packet that somebody else cuts, if anybody does.
    fn tx_whole(&self, packet: &Packet<Frame>, gso: &Gso) -> bool {
        let Some(segmenter) = &self.segmenter else { return false };
        let whole =
            Whole::of(packet, &mut [0; MAX_HEADERS_LEN]).map(|whole| segmenter.send(&whole, gso).is_ok());
        whole.unwrap_or(false)
    }

    /// Sends tunnelled packets many at a time.
    fn tx_train(&mut self, mut train: Train<'_>) -> Result<(), DropReason> {
        self.room.resize(1 << 16, 0);
        let mut result = Ok(());
        while let Some(written) = train.write_next(&mut self.room) {
            let (offload, layout) = train_offload(&written);
            let frame = &self.room[..written.len];
            let record = Record::new(&offload, frame, &layout, usize::from(layout.l4) + UDP_LEN);
            let sent = self.file.send(&record, frame);
            result = result.and(self.result(sent));
        }
        result
    }
}

impl Outlet for VnetOutlet {
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        if self.metrics.is_gone() {
            return Err(DropReason::PortDown);
        }
        self.result(self.file.send(&Record::NONE, frame))
    }

    fn tx_undone(&mut self, packet: &Packet<Frame>) -> Option<Result<(), DropReason>> {
        let offload = &packet.offload;
        if self.metrics.is_gone() {
            return Some(Err(DropReason::PortDown));
        }
        // A record of the socket's has no words for what is behind a tunnel's header.
        if let Some(gso) = offload.gso.filter(|gso| gso.inner.l3 != 0) {
            if self.tx_whole(packet, &gso) {
                return Some(Ok(()));
            }
            return Some(self.tx_train(Train::of(packet)?));
        }
        let header_len =
            packet.wire_len().saturating_sub(offload.gso.map_or(0, |gso| gso.segment_len.get().into()));
        let record = Record::new(offload, packet.bytes(), &packet.layout, header_len);
        Some(self.result(self.file.send(&record, packet.bytes())))
    }
}
