//! Datagrams to collectors.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Who sends to some collectors.
#[derive(Debug)]
pub(super) struct Sender {
    targets: BTreeSet<SocketAddr>,
    source: Option<IpAddr>,
    /// For IPv4 and IPv6; `None`: there is none as yet.
    sockets: [Option<UdpSocket>; 2],
    n_lost: u64,
}

impl Sender {
    /// To these, from this address; without one, from that of the way there.
    pub(super) fn new(targets: &BTreeSet<SocketAddr>, source: Option<IpAddr>) -> Self {
        Self { targets: targets.clone(), source, sockets: [None, None], n_lost: 0 }
    }

    /// Sends each datagram to each of them. Nobody waits: who collects loses some anyway.
    pub(super) fn send(&mut self, datagrams: &[Vec<u8>]) {
        if datagrams.is_empty() {
            return;
        }
        for target in &self.targets {
            let socket = &mut self.sockets[usize::from(target.is_ipv6())];
            if socket.is_none() {
                // An address that the host does not have yet may come.
                *socket = open(self.source, target)
                    .inspect_err(|error| tracing::debug!(%target, %error, "a collector cannot be told"))
                    .ok();
            }
            for datagram in datagrams {
                let sent = socket.as_ref().map(|socket| socket.send_to(datagram, target));
                if let Some(Err(error)) = &sent {
                    tracing::debug!(%target, %error, "a collector was not told");
                }
                self.n_lost += u64::from(!matches!(sent, Some(Ok(_))));
            }
        }
    }

    /// Datagrams that were not sent.
    pub(super) fn n_lost(&self) -> u64 {
        self.n_lost
    }
}

fn open(source: Option<IpAddr>, target: &SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = source.filter(|source| source.is_ipv6() == target.is_ipv6());
    let socket = UdpSocket::bind((source.unwrap_or(any), 0))?;
    // Whom a collector makes wait is whoever forwards.
    socket.set_nonblocking(true)?;
    Ok(socket)
}
