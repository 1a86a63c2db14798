//! Opening an interface: sockets, map, program, link.

use std::{sync::Arc, time::Instant};

use crate::{
    config::Steering,
    port::{AttachError, PortReport, metrics::PortMetrics},
    sys::{
        SysError,
        bpf::{AttachMode, Link, Program, SocketMap},
        interface::Interface,
        steer::MAX_UDP_PORTS,
        xsk::{BIND_PATIENCE, MAX_FRAME_LEN, Transfer, XskSocket},
    },
};

/// Ethernet header and one VLAN tag.
const L2_LEN: u32 = 18;

/// A host interface in our hands.
#[derive(Debug)]
pub(crate) struct AfXdpPort {
    /// First, so that it is dropped first: no frame is steered to a closed socket.
    _link: Link,
    _map: SocketMap,
    pub(super) interface: String,
    pub(super) sockets: Vec<XskSocket>,
    pub(super) metrics: Arc<PortMetrics>,
    /// Queue to receive from first, so that each gets its turn.
    pub(super) next_queue: usize,
    /// The last flush found the interface down.
    pub(super) down: bool,
    pub(super) gone: bool,
}

/// What attaching an interface yields besides the port.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) port: AfXdpPort,
    pub(crate) report: PortReport,
    pub(crate) metrics: Arc<PortMetrics>,
    pub(crate) ifindex: u32,
}

impl AfXdpPort {
    /// Attaches to an interface of the calling thread's network namespace.
    pub(crate) fn open(name: &str, steering: &Steering) -> Result<Opened, AttachError> {
        let facts = Interface::lookup(name)?;
        check(name, &facts, steering)?;
        let map = SocketMap::new(name, facts.n_rx_queues)?;
        let program = match steering {
            Steering::All => Program::steer_all(name, &map)?,
            Steering::Tunnel { local, udp_ports } => Program::steer_tunnel(name, &map, *local, udp_ports)?,
        };
        let (sockets, link, mode) = open_best(name, &facts, &map, &program)?;
        let metrics = Arc::new(PortMetrics::new(facts.mtu));
        let port = Self {
            _link: link,
            _map: map,
            interface: name.to_owned(),
            sockets,
            metrics: Arc::clone(&metrics),
            next_queue: 0,
            down: false,
            gone: false,
        };
        let report = PortReport { mode: mode.to_owned(), mac: facts.mac, mtu: facts.mtu };
        Ok(Opened { port, report, metrics, ifindex: facts.ifindex })
    }
}

fn check(name: &str, facts: &Interface, steering: &Steering) -> Result<(), AttachError> {
    let max = MAX_FRAME_LEN - L2_LEN;
    if facts.mtu > max {
        return Err(AttachError::MtuTooBig { interface: name.to_owned(), mtu: facts.mtu, max });
    }
    match steering {
        Steering::Tunnel { udp_ports, .. } if udp_ports.len() > MAX_UDP_PORTS => {
            Err(AttachError::TooManyUdpPorts {
                interface: name.to_owned(),
                n: udp_ports.len(),
                max: MAX_UDP_PORTS,
            })
        }
        Steering::Tunnel { .. } | Steering::All => Ok(()),
    }
}

/// Tries the ways from the fastest to the one that always works.
fn open_best(
    name: &str,
    facts: &Interface,
    map: &SocketMap,
    program: &Program,
) -> Result<(Vec<XskSocket>, Link, &'static str), SysError> {
    const WAYS: [(Transfer, AttachMode, &str); 3] = [
        (Transfer::ZeroCopy, AttachMode::Native, "native-zerocopy"),
        (Transfer::Copy, AttachMode::Native, "native-copy"),
        (Transfer::Copy, AttachMode::Generic, "generic-copy"),
    ];
    // Shared by all ways: a queue that stays busy is so for each of them.
    let deadline = Instant::now() + BIND_PATIENCE;
    let mut last = None;
    for (transfer, attach_mode, mode) in WAYS {
        let way = Way { transfer, attach: attach_mode, deadline };
        match way.open(name, facts, map, program) {
            Ok((sockets, link)) => return Ok((sockets, link, mode)),
            Err(error) => {
                tracing::debug!(interface = name, mode, %error, "this way of attaching is not possible");
                let hopeless = matches!(error.errno(), Some(libc::EPERM | libc::ENODEV));
                last = Some(error);
                if hopeless {
                    break;
                }
            }
        }
    }
    Err(last.expect("the list of ways is not empty"))
}

/// One way of taking an interface over.
struct Way {
    transfer: Transfer,
    attach: AttachMode,
    deadline: Instant,
}

impl Way {
    fn open(
        &self,
        name: &str,
        facts: &Interface,
        map: &SocketMap,
        program: &Program,
    ) -> Result<(Vec<XskSocket>, Link), SysError> {
        let frame_len = facts.mtu + L2_LEN;
        let sockets = (0..facts.n_rx_queues)
            .map(|queue| XskSocket::open(name, queue, frame_len, self.transfer, self.deadline))
            .collect::<Result<Vec<_>, _>>()?;
        for (queue, socket) in (0..).zip(&sockets) {
            map.insert(name, queue, socket.fd())?;
        }
        let link = Link::attach(name, facts.ifindex, program, self.attach)?;
        Ok((sockets, link))
    }
}
