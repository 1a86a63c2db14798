//! Frames in and out of a file, each with its record.

use std::os::fd::RawFd;

use flowtable::{
    drop::DropReason,
    packet::{HEADROOM, Packet},
    types::PortNo,
};

use super::device::{VnetOutlet, VnetQueue};
use crate::{
    pool::{FRAME_LEN, Frame, MAX_PACKET_LEN, Pool},
    port::{Outlet, RxQueue},
    sys::vnet::{Received, Record, Trouble, insert_tag},
};

/// First byte of a frame that is read: a tag that the kernel has kept apart goes in front.
const START: usize = HEADROOM + 4;
/// Bytes of a frame that an ordinary buffer takes.
const HEAD_LEN: usize = FRAME_LEN - START;

impl RxQueue for VnetQueue {
    fn rx_burst(&mut self, from: PortNo, max: usize, pool: &mut Pool, batch: &mut Vec<Packet<Frame>>) {
        if self.metrics.is_gone() {
            return;
        }
        // How long a frame is shows when it has been read. What an ordinary buffer has no room
        // for comes to its place in a large one; then the beginning follows.
        let Some(mut large) = pool.get_large() else { return };
        while batch.len() < max {
            let Some(mut usual) = pool.get() else { break };
            let tail = &mut large.as_mut()[START + HEAD_LEN..HEADROOM + MAX_PACKET_LEN];
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
                batch.push(packet(usual, &received, from));
                continue;
            }
            large.as_mut()[START..START + HEAD_LEN].copy_from_slice(&usual.as_ref()[START..]);
            pool.put(usual);
            batch.push(packet(large, &received, from));
            match pool.get_large() {
                Some(next) => large = next,
                None => return,
            }
        }
        pool.put(large);
    }

    fn has_pending(&self) -> bool {
        false
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
    /// There may be more behind a frame that could not be read.
    fn goes_on(&self, trouble: Trouble) -> bool {
        if trouble == Trouble::Gone {
            self.metrics.set_gone();
        }
        matches!(trouble, Trouble::Refused | Trouble::TooLong)
    }
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

impl Outlet for VnetOutlet {
    fn tx(&mut self, frame: &[u8]) -> Result<(), DropReason> {
        if self.metrics.is_gone() {
            return Err(DropReason::PortDown);
        }
        self.result(self.file.send(&Record::NONE, frame))
    }

    fn tx_undone(&mut self, packet: &Packet<Frame>) -> Option<Result<(), DropReason>> {
        let offload = &packet.offload;
        // A record has no words for what is behind a tunnel's header.
        if offload.gso.is_some_and(|gso| gso.inner.l3 != 0) {
            return None;
        }
        if self.metrics.is_gone() {
            return Some(Err(DropReason::PortDown));
        }
        let header_len =
            packet.wire_len().saturating_sub(offload.gso.map_or(0, |gso| gso.segment_len.get().into()));
        let record = Record::new(offload, packet.bytes(), &packet.layout, header_len);
        Some(self.result(self.file.send(&record, packet.bytes())))
    }
}
