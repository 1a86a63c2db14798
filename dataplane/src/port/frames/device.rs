//! A port made of sources and sinks.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use flowtable::types::MacAddr;

use crate::{
    port::{AnyOutlet, AnyQueue, Opened, PortReport, metrics::PortMetrics},
    sys::event::Waker,
};

const MAC: MacAddr = MacAddr::new([0x02, 0, 0, 0, 0, 0x02]);
const MTU: u32 = 1500;

/// Makes frames: one receive queue. Its methods are called by the worker that has the queue.
pub trait FrameSource: Send {
    /// Writes the next frame and answers its length; `None`: there is none now. Called
    /// until then, at most [`BATCH`](crate::BATCH) times in a row.
    fn next(&mut self, room: &mut [u8]) -> Option<usize>;

    /// There is a frame now, without anything that would wake a sleeping worker.
    fn is_ready(&self) -> bool;

    /// A worker has the queue now; this wakes it.
    fn attached(&mut self, _wake: Wake) {}
}

/// Takes frames: one way out.
pub trait FrameSink: Send {
    /// Takes a frame; false: it has no room for it.
    fn take(&mut self, frame: &[u8]) -> bool;
}

/// Wakes a worker that sleeps; costs next to nothing when it does not.
#[derive(Debug, Clone)]
pub struct Wake(Arc<Waker>);

impl Wake {
    /// Does it. Call it after the frames are there.
    pub fn wake(&self) {
        self.0.wake();
    }
}

type Parts = (Vec<Box<dyn FrameSource>>, Vec<Box<dyn FrameSink>>);

/// A port of sources and sinks, to be attached once. Clones are the same port.
#[derive(Clone)]
pub struct FramePort {
    parts: Arc<Mutex<Option<Parts>>>,
}

impl FramePort {
    /// A queue for each source, a way out for each sink; worker 0 has the first sink, worker 1
    /// the second.
    pub fn new(sources: Vec<Box<dyn FrameSource>>, sinks: Vec<Box<dyn FrameSink>>) -> Self {
        Self { parts: Arc::new(Mutex::new(Some((sources, sinks)))) }
    }

    /// The workers' side; `None` when somebody has it.
    pub(crate) fn open(&self) -> Option<Opened> {
        let (sources, sinks) = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Opened {
            kind: "frames",
            report: PortReport { mode: "frames".to_owned(), mac: MAC, mtu: MTU },
            metrics: Arc::new(PortMetrics::new(MTU, sources.len(), sinks.len())),
            queues: sources.into_iter().map(|source| AnyQueue::Frames(FrameQueue { source })).collect(),
            outlets: sinks.into_iter().map(|sink| AnyOutlet::Frames(FrameOutlet { sink })).collect(),
            hold: None,
            interface: None,
        })
    }
}

impl fmt::Debug for FramePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FramePort")
    }
}

/// One receive queue.
pub(crate) struct FrameQueue {
    pub(super) source: Box<dyn FrameSource>,
}

/// One way out.
pub(crate) struct FrameOutlet {
    pub(super) sink: Box<dyn FrameSink>,
}

impl FrameQueue {
    pub(super) fn attach(&mut self, waker: &Arc<Waker>) {
        self.source.attached(Wake(Arc::clone(waker)));
    }
}

impl fmt::Debug for FrameQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameQueue")
    }
}

impl fmt::Debug for FrameOutlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FrameOutlet")
    }
}
