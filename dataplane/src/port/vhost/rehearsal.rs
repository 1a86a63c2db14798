//! A guest's side that says whatever bytes say: for fuzzers. The session, the rings and the
//! worker's half are those of a port; only the socket is left out.

use std::{fs::File, io::Write as _, os::fd::OwnedFd, sync::Arc};

use flowtable::types::PortNo;

use super::{
    message::{HEADER_LEN, Header, Request},
    queue::{VhostOutlet, VhostQueue},
    session::Session,
    shared::Shared,
};
use crate::{
    pool::Pool,
    port::{BATCH, Outlet as _, RxQueue as _, metrics::PortMetrics},
    sys::{
        event::Waker,
        event_file::EventFile,
        guest_memory::{RegionSpec, memory_file},
    },
};

const N_PAIRS: usize = 2;
/// Longest memory file that is made for a region.
const MAX_FILE_LEN: u64 = 1 << 20;

/// Takes bytes as messages, one behind the other, as a guest's side could send them; files come
/// with those that want some, and what follows a memory table lies in that memory as well.
/// After each message the rings are worked on. Ends with the first message that is refused.
pub fn rehearse(mut bytes: &[u8]) {
    let Ok(bell) = Waker::new() else { return };
    let shared = Arc::new(Shared::new(N_PAIRS, Arc::new(PortMetrics::new(1500, N_PAIRS, N_PAIRS)), bell));
    let mut session = Session::new(Arc::clone(&shared));
    let mut pool = Pool::new(BATCH);
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let Ok(header) = Header::parse(header) else { return };
        let Some((payload, rest)) = rest.split_at_checked(header.len) else { return };
        bytes = rest;
        let Ok(request) = Request::parse(header.kind, payload) else { return };
        let Some(files) = files_of(&request, rest) else { return };
        if session.handle(&request, files, header.needs_reply).is_err() {
            return;
        }
        work(&shared, &mut pool);
    }
}

fn files_of(request: &Request, content: &[u8]) -> Option<Vec<OwnedFd>> {
    if let Request::SetMemory(regions) = request {
        return regions.iter().map(|region| memory_of(region, content)).collect();
    }
    (0..request.n_files()).map(|_| EventFile::new().ok()?.passed().ok()).collect()
}

fn memory_of(region: &RegionSpec, content: &[u8]) -> Option<OwnedFd> {
    let end = region.offset.saturating_add(region.len).min(MAX_FILE_LEN);
    let mut file = File::from(memory_file(end).ok()?);
    file.write_all(content.get(..end as usize).unwrap_or(content)).ok()?;
    Some(file.into())
}

fn work(shared: &Arc<Shared>, pool: &mut Pool) {
    for pair in 0..N_PAIRS {
        let mut batch = Vec::new();
        VhostQueue::new(Arc::clone(shared), pair).rx_burst(PortNo::ZERO, BATCH, pool, &mut batch);
        let mut outlet = VhostOutlet::new(Arc::clone(shared), pair);
        for packet in batch {
            // What comes in goes out again, whatever is left to do on it.
            if outlet.tx_undone(&packet).is_none() {
                let _ = outlet.tx(packet.bytes());
            }
            pool.put_packet(packet);
        }
        outlet.flush();
    }
}
