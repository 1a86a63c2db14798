//! A frame that no kernel would send by itself, out of an interface.

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};
use serde_json::{Value, json};

const RARP: [u8; 2] = [0x80, 0x35];
/// Request reverse (RFC 903).
const REVERSE: u8 = 3;
/// Least length of a frame without its checksum (IEEE 802.3 §3.2.8).
const MIN_LEN: usize = 60;

/// Says by RARP, as a hypervisor does for a machine that has moved, that an interface's MAC address is here.
pub(super) fn rarp(interface: &str) -> Result<Value> {
    let found = getifaddrs()?.filter(|one| one.interface_name == interface);
    let mut found = found.filter_map(|one| one.address.and_then(|address| address.as_link_addr().copied()));
    let address = found.next().with_context(|| format!("no interface {interface}"))?;
    let mac = address.addr().context("it has no MAC address")?;
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend(RARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, REVERSE]);
    for _ in 0..2 {
        frame.extend(mac);
        frame.extend([0; 4]);
    }
    frame.resize(MIN_LEN, 0);
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let n_sent = sendto(socket.as_raw_fd(), &frame, &address, MsgFlags::empty())?;
    Ok(json!({ "sent": n_sent }))
}
