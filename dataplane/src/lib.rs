//! Moves packets: ports, buffers, poll-mode workers.
//!
//! A [`Dataplane`] is a set of workers, each a thread with its own receive queues, buffers and,
//! for each bridge, a switch (`flowtable::switch::Switch`). A worker polls its queues; a burst of
//! frames goes
//! through the switch, which hands each copy to the port it leaves by; one flush sends
//! what has gathered. What decides about packets comes from outside as a snapshot
//! ([`Dataplane::publish`]); this crate knows no rule, no tunnel and no controller.
//!
//! # Where to read
//! | file | what |
//! |---|---|
//! | `pmd/mod.rs` | the worker's loop: the packet's walk starts here |
//! | `pmd/ingress.rs` | the receive queues of a worker, and whose turn it is |
//! | `pmd/egress.rs` | where packets leave; ports of other workers |
//! | `pmd/transit.rs` | how a queue gets from one worker to another |
//! | `pmd/meter.rs` | where a worker's time goes |
//! | `balance.rs` | which worker should have which queue |
//! | `port/mod.rs` | what a port can do; one folder for each kind |
//! | `port/afxdp/`, `port/vnet/` | host interfaces: frames by AF_XDP, uncut packets by TAP and packet sockets |
//! | `port/vhost/` | virtual machines, by vhost-user |
//! | `pool/` | buffers |
//! | `qos/`, `pmd/shaping.rs` | rates of ports, and queues of packets that wait to leave |
//! | `clock.rs` | the machine's time, or one that obeys |
//! | `bridges.rs` | several bridges, and links between them |
//! | `controlled.rs` | packets for controllers and from them |
//! | `capture.rs`, `pmd/tap.rs` | packets shown to whoever captures |
//! | `top/` | which flows have most of the traffic, for whoever watches |
//! | `keep.rs`, `connections.rs` | what outlives the process: files of ports, memory of connections |
//! | `turn.rs` | how one process has the next one take packets |
//! | `handle/` | the owner's side: attach, detach, publish, counters |
//! | `sys/` | everything the kernel is asked for |
//!
//! # Threads and what they share
//! A worker's state is its own. Others reach it by jobs (closures that it runs between
//! two batches), by the snapshot, by the queue of packets for its ports, and by atomic
//! counters that only it writes.
//!
//! # Invariants
//! - Conservation: each received frame is forwarded or dropped by the switch; each copy
//!   it hands out is sent or dropped under a name ([`PortCounts`]).
//! - A worker never blocks while there are packets, and allocates nothing for one.
//! - However the process ends, nothing stays attached to an interface, unless a keeper holds it.
//! - `unsafe` is in `sys/` and `pool/` only.

#![deny(unsafe_code)]

mod balance;
mod bridges;
mod capture;
mod clock;
mod config;
mod connections;
mod controlled;
mod death;
mod handle;
mod keep;
mod load;
mod numa;
mod pmd;
#[allow(unsafe_code)]
mod pool;
mod port;
pub mod probe;
mod qos;
mod status;
#[allow(unsafe_code)]
mod sys;
mod top;
mod turn;

pub use crate::{
    balance::{Balancing, Move, Proposal, QueueId},
    capture::{Capture, CaptureFilter, CapturePoint, Captured},
    clock::{Clock, VirtualClock},
    config::{
        AfXdpBackend, AfXdpConfig, DataplaneConfig, Device, Pin, PortId, PortSpec, Steering, TunnelSteering,
        WorkerConfig,
    },
    controlled::News,
    handle::{AssignError, Dataplane, DetachError, Reading, Remains, StartError},
    keep::{Beginning, Keeper, Kept, MAX_KEPT_FILES},
    pmd::SendError,
    port::{
        AttachError, BATCH, PortReport,
        frames::{FramePort, FrameSink, FrameSource, Wake},
        memory::{InjectError, MemoryPort},
        vhost::{MAX_QUEUE_PAIRS, VhostPort, rehearse},
    },
    qos::{PortRates, QueueCounts, QueueSpec, Rate},
    status::{DetachedPort, PortCounts, PortStatus, QueueStatus, TX_DROP_REASONS, WorkerPerf, WorkerStatus},
    sys::{
        SysError, advise_huge_pages,
        thread::{cpu_time, n_preemptions},
        tsc::now as cycles,
    },
    top::{Order, Talker, Top, TopConfig, TopReport},
};
