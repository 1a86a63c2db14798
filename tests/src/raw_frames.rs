//! Sockets of whole frames (packet(7)), for who wants others than the kernel would send.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::netns::Netns;

/// `ETH_P_ALL`, as the kernel wants it.
const ANY_PROTOCOL: i32 = 3_u16.to_be() as i32;
const LIMIT: Duration = Duration::from_secs(10);

/// A socket that sends frames as they are.
///
/// # Errors
/// The kernel refuses; it wants CAP_NET_RAW.
pub fn any_frames() -> std::io::Result<Socket> {
    Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ANY_PROTOCOL)))
}

/// An interface as sockets of frames name it: where the kernel is seen to send by the only one that is up.
///
/// # Errors
/// The namespace cannot be entered, or nothing was seen.
pub fn wire(netns: &Netns, interface: &str) -> Result<SockAddr> {
    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
    netns.ip(&["address", "add", &format!("{OWN}/24"), "dev", interface])?;
    let found = netns.inside(|| -> std::io::Result<SockAddr> {
        let socket = any_frames()?;
        socket.set_read_timeout(Some(LIMIT))?;
        // Somebody has to ask who that is.
        UdpSocket::bind((OWN, 0))?.send_to(b"?", (NOBODY, 9))?;
        Ok(socket.recv_from(&mut [])?.1)
    })?;
    netns.ip(&["address", "flush", "dev", interface])?;
    found.context("no frame of the kernel's own was seen")
}
