//! Groups: members that answer whoever sends to a group, and somebody who sends and counts the answers. The
//! kernel says that a member hears the group (IGMP, MLD).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

/// Hops that a datagram may make.
const HOPS: u32 = 8;
/// Pause between two datagrams.
const PAUSE: Duration = Duration::from_millis(100);

/// Joins a group by the interface with an address and answers each datagram to its sender, until it is killed.
pub(super) fn echo(group: SocketAddr, own: IpAddr) -> Result<Value> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    // Bound to the group, so that nothing else is taken for it.
    socket.bind(&group.into()).with_context(|| format!("cannot receive at {group}"))?;
    match (group.ip(), own) {
        (IpAddr::V4(group), IpAddr::V4(own)) => socket.join_multicast_v4(&group, &own)?,
        (IpAddr::V6(group), IpAddr::V6(own)) => socket.join_multicast_v6(&group, interface(own)?)?,
        _ => bail!("{group} and {own} are of different families"),
    }
    let (socket, mut buffer) = (UdpSocket::from(socket), [0; 64]);
    let answers = UdpSocket::bind((own, 0))?;
    loop {
        if let Ok((len, from)) = socket.recv_from(&mut buffer) {
            let _ = answers.send_to(&buffer[..len], from);
        }
    }
}

/// Sends `n` datagrams to a group from an address: who has answered how many.
pub(super) fn ask(group: SocketAddr, own: IpAddr, n: u64) -> Result<Value> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
    match own {
        IpAddr::V4(own) => {
            socket.set_multicast_if_v4(&own)?;
            socket.set_multicast_ttl_v4(HOPS)?;
            socket.set_multicast_loop_v4(false)?;
        }
        IpAddr::V6(own) => {
            socket.set_multicast_if_v6(interface(own)?)?;
            socket.set_multicast_hops_v6(HOPS)?;
            socket.set_multicast_loop_v6(false)?;
        }
    }
    socket.bind(&SocketAddr::from((own, 0)).into()).with_context(|| format!("cannot send from {own}"))?;
    let socket = UdpSocket::from(socket);
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..n {
        socket.send_to(&number.to_be_bytes(), group).with_context(|| format!("no way to {group}"))?;
        collect(&socket, PAUSE, &mut answers)?;
    }
    collect(&socket, PAUSE * 5, &mut answers)?;
    Ok(json!({ "answers": answers }))
}

fn collect(socket: &UdpSocket, patience: Duration, answers: &mut BTreeMap<String, u64>) -> Result<()> {
    let (start, mut buffer) = (Instant::now(), [0; 64]);
    loop {
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((_, from)) => *answers.entry(from.ip().to_string()).or_default() += 1,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(());
            }
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}

/// Number of the interface that has an IPv6 address.
fn interface(own: Ipv6Addr) -> Result<u32> {
    let table = std::fs::read_to_string("/proc/net/if_inet6")?;
    let number = table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        (Ipv6Addr::from(address) == own).then(|| u32::from_str_radix(words.next()?, 16).ok())?
    });
    number.with_context(|| format!("no interface has {own}"))
}
