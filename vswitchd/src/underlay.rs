//! The way to tunnel peers, as the host's own routes and neighbours tell it by netlink
//! (rtnetlink(7)), followed live.
//!
//! The kernel does not see that a neighbour is in use, because tunnelled packets do not
//! pass its stack. So each peer's entry is marked as used from time to time, which makes
//! the kernel resolve it, and keep it resolved.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use flowtable::{types::MacAddr, underlay::NextHop};
use futures::{StreamExt as _, TryStreamExt as _, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::LinkAttribute,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute},
};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
};

use crate::host::{SharedHost, UPLINK};

/// How often peers are looked after when nothing happens.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
/// How often while a peer has no next hop.
const SEARCH_INTERVAL: Duration = Duration::from_millis(200);
/// Events within this time are answered at once.
const SETTLE: Duration = Duration::from_millis(10);

/// Looks once, before packets are taken: those for peers that the host knows the way to do not wait
/// until it is followed.
pub async fn look_ahead(host: &SharedHost) {
    let (uplink, wanted) =
        host.with(|host| (host.underlay_interface().map(str::to_owned), host.peers())).await;
    let peers = wanted.borrow().clone();
    let Some(uplink) = uplink.filter(|_| !peers.is_empty()) else { return };
    let Ok((connection, handle, _)) = rtnetlink::new_connection() else { return };
    let connection = tokio::spawn(connection);
    // Whatever is wrong is told when the tables are followed.
    if let Ok(found) = look_up(&handle, &uplink, &peers).await {
        host.with(move |host| host.set_next_hops(found)).await;
    }
    connection.abort();
}

/// Follows the host's tables until the task is dropped.
///
/// # Errors
/// Netlink cannot be used.
pub async fn run(host: SharedHost) -> anyhow::Result<()> {
    let (uplink, mut wanted) =
        host.with(|host| (host.underlay_interface().map(str::to_owned), host.peers())).await;
    let Some(uplink) = uplink else { return Ok(()) };
    let groups =
        [MulticastGroup::Link, MulticastGroup::Neigh, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (connection, handle, mut events) = new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    loop {
        let peers = wanted.borrow_and_update().clone();
        let ifindex = link(&handle, &uplink).await.ok().flatten().map(|(ifindex, _)| ifindex);
        let found = match look_up(&handle, &uplink, &peers).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, uplink, "routes and neighbours cannot be read; trying again");
                BTreeMap::new()
            }
        };
        let is_complete = found.len() == peers.len();
        host.with(move |host| host.set_next_hops(found)).await;
        let wait = if is_complete { IDLE_INTERVAL } else { SEARCH_INTERVAL };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = wanted.changed() => changed?,
            () = something_of(&mut events, &uplink, ifindex) => {
                tokio::time::sleep(SETTLE).await;
                while events.try_recv().is_ok() {}
            }
        }
    }
}

/// Waits until something happens that may change the way by an uplink. On a host with containers,
/// interfaces come and go all the time.
async fn something_of<A>(
    events: &mut UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, A)>,
    uplink: &str,
    ifindex: Option<u32>,
) {
    while let Some((message, _)) = events.next().await {
        if may_matter(&message.payload, uplink, ifindex) {
            return;
        }
    }
}

fn may_matter(message: &NetlinkPayload<RouteNetlinkMessage>, uplink: &str, ifindex: Option<u32>) -> bool {
    let NetlinkPayload::InnerMessage(message) = message else { return true };
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            let is_name = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(name) if name == uplink);
            ifindex == Some(link.header.index) || link.attributes.iter().any(is_name)
        }
        RouteNetlinkMessage::NewNeighbour(neighbour) | RouteNetlinkMessage::DelNeighbour(neighbour) => {
            ifindex.is_none_or(|ifindex| ifindex == neighbour.header.ifindex)
        }
        _ => true,
    }
}

/// Next hops of those peers that have one by the uplink; asks the kernel to resolve the
/// others, and to keep these.
async fn look_up(
    handle: &Handle,
    uplink: &str,
    peers: &BTreeSet<IpAddr>,
) -> Result<BTreeMap<IpAddr, NextHop>, rtnetlink::Error> {
    let Some((ifindex, src_mac)) = link(handle, uplink).await? else { return Ok(BTreeMap::new()) };
    if peers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let neighbours = neighbours(handle, ifindex).await?;
    let mut found = BTreeMap::new();
    for peer in peers {
        let Some(hop) = route(handle, *peer, ifindex).await else { continue };
        let known = neighbours.get(&hop);
        if known.is_none_or(|neighbour| neighbour.wants_use) {
            touch(handle, ifindex, hop).await;
        }
        if let Some(neighbour) = known {
            found.insert(*peer, NextHop { port: UPLINK, src_mac, dst_mac: neighbour.mac });
        }
    }
    Ok(found)
}

/// Number and address of an interface.
async fn link(handle: &Handle, name: &str) -> Result<Option<(u32, MacAddr)>, rtnetlink::Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let Some(link) = links.try_next().await? else { return Ok(None) };
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => mac(bytes),
        _ => None,
    });
    Ok(mac.map(|mac| (link.header.index, mac)))
}

/// Address that a packet to a peer goes to on the uplink's segment: the peer's or that of
/// the router to it. `None`: not by this uplink.
async fn route(handle: &Handle, peer: IpAddr, uplink: u32) -> Option<IpAddr> {
    let request = match peer {
        IpAddr::V4(ip) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(ip, 32).build(),
        IpAddr::V6(ip) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(ip, 128).build()
        }
    };
    // No route is an error of the kernel's, and an everyday answer here.
    let route = handle.route().get(request).execute().try_next().await.ok()??;
    let mut hop = peer;
    let mut is_by_uplink = false;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => is_by_uplink = *index == uplink,
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => hop = (*ip).into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => hop = (*ip).into(),
            _ => {}
        }
    }
    is_by_uplink.then_some(hop)
}

/// A resolved neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Neighbour {
    mac: MacAddr,
    /// The kernel is about to forget it unless it is used.
    wants_use: bool,
}

async fn neighbours(handle: &Handle, ifindex: u32) -> Result<BTreeMap<IpAddr, Neighbour>, rtnetlink::Error> {
    let mut dump = handle.neighbours().get().execute();
    let mut found = BTreeMap::new();
    while let Some(message) = dump.try_next().await? {
        if message.header.ifindex == ifindex {
            found.extend(neighbour(&message));
        }
    }
    Ok(found)
}

fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Neighbour)> {
    let wants_use = match message.header.state {
        NeighbourState::Reachable
        | NeighbourState::Permanent
        | NeighbourState::Noarp
        | NeighbourState::Delay
        | NeighbourState::Probe => false,
        NeighbourState::Stale => true,
        _ => return None,
    };
    let mut ip = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => address = mac(bytes),
            _ => {}
        }
    }
    Some((ip?, Neighbour { mac: address?, wants_use }))
}

/// Marks a neighbour as used, which resolves or confirms it. It may fail when the link is
/// down; the next round tries again.
async fn touch(handle: &Handle, ifindex: u32, hop: IpAddr) {
    let request =
        handle.neighbours().add(ifindex, hop).state(NeighbourState::None).flags(NeighbourFlags::Use);
    if let Err(error) = request.replace().execute().await {
        tracing::debug!(%error, %hop, "the kernel does not resolve the neighbour");
    }
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    Some(MacAddr::new(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_to_other_interfaces_does_not_matter() {
        use netlink_packet_route::{link::LinkMessage, route::RouteMessage};
        let link = |index, name: &str| {
            let mut link = LinkMessage::default();
            link.header.index = index;
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
            RouteNetlinkMessage::NewLink(link)
        };
        let neighbour = |ifindex| {
            let mut neighbour = NeighbourMessage::default();
            neighbour.header.ifindex = ifindex;
            RouteNetlinkMessage::NewNeighbour(neighbour)
        };
        for (message, if_known, if_missing) in [
            (link(7, "eth0"), true, true),
            (link(7, "renamed"), true, false),
            (link(8, "eth0"), true, true),
            (link(8, "vc0"), false, false),
            (neighbour(7), true, true),
            (neighbour(8), false, true),
            (RouteNetlinkMessage::NewRoute(RouteMessage::default()), true, true),
        ] {
            let message = NetlinkPayload::InnerMessage(message);
            assert_eq!(may_matter(&message, "eth0", Some(7)), if_known, "{message:?}");
            assert_eq!(may_matter(&message, "eth0", None), if_missing, "{message:?}");
        }
    }

    #[test]
    fn only_resolved_neighbours_count() {
        let mut message = NeighbourMessage::default();
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([192, 0, 2, 1].into())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
        ];
        let states = [
            (NeighbourState::Incomplete, None),
            (NeighbourState::Failed, None),
            (NeighbourState::Stale, Some(true)),
            (NeighbourState::Reachable, Some(false)),
            (NeighbourState::Permanent, Some(false)),
        ];
        for (state, wanted) in states {
            message.header.state = state;
            assert_eq!(neighbour(&message).map(|(_, found)| found.wants_use), wanted, "{state:?}");
        }
    }
}
