//! The host's way to the network while the switch has its uplink: a TAP device that stands in for it, with its
//! MAC address and MTU, its addresses, and a copy of each of its routes that is taken instead.
//!
//! The uplink keeps its own addresses and routes. So whatever ends the device, a killed daemon as much as one that
//! was told to end, the kernel goes by the uplink again at once, and nothing is to be put back: neither a
//! successor nor a holder has to do anything, and there is no state that could be lost. Rejected: moving addresses,
//! which leaves a host without any when the process dies at the wrong moment.
//!
//! What becomes of the uplink's addresses and routes is followed live. `mirror.rs` says which of them are copied.

mod mirror;

use std::{collections::BTreeSet, fs, net::IpAddr, time::Duration};

use flowtable::types::MacAddr;
use futures::{StreamExt as _, TryStreamExt as _};
use mirror::Difference;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState},
    route::RouteMessage,
};
use rtnetlink::{
    Handle, LinkUnspec, MulticastGroup, new_multicast_connection,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
};

use crate::host::{OwnedUplink, PortError, SharedHost};

/// How often the uplink is looked at when nothing happens.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);
/// Events within this time are answered at once.
const SETTLE: Duration = Duration::from_millis(10);
/// How long a daemon before may take until it has let go of the uplink, and how often that is tried.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(10);

/// The stand-in of an uplink.
#[derive(Debug)]
pub struct StandIn {
    names: OwnedUplink,
    handle: Handle,
    /// Addresses that were given to it here.
    given: BTreeSet<(IpAddr, u8)>,
    /// It has the uplink's neighbours.
    has_neighbours: bool,
    events: futures::channel::mpsc::UnboundedReceiver<(
        NetlinkMessage<RouteNetlinkMessage>,
        rtnetlink::sys::SocketAddr,
    )>,
}

/// What is known of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    index: u32,
    mac: MacAddr,
    mtu: u32,
    is_up: bool,
}

impl StandIn {
    /// Gives the uplink to the switch, and the host its stand-in: first the device with the uplink's addresses, then
    /// the uplink's frames, then routes. `None`: the uplink stays the host's.
    ///
    /// # Errors
    /// The uplink or the device cannot be attached; then the host goes on as before.
    pub async fn begin(host: &SharedHost) -> anyhow::Result<Option<Self>> {
        let Some(names) = host.with(|host| host.owned_uplink()).await else { return Ok(None) };
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, events) = new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        let mut stand_in = Self { names, handle, given: BTreeSet::new(), has_neighbours: false, events };
        patiently(host, |host| host.attach_internal()).await?;
        stand_in.align(false).await?;
        patiently(host, |host| host.attach_wire()).await?;
        stand_in.align(true).await?;
        tracing::info!(
            uplink = stand_in.names.interface,
            internal = stand_in.names.internal,
            "the switch has the uplink for itself; the host goes by the internal port"
        );
        Ok(Some(stand_in))
    }

    /// Follows the uplink until the task is dropped.
    pub async fn follow(mut self, host: SharedHost) {
        let mut has_wire = host.with(|host| host.has_wire()).await;
        loop {
            let is_attached = *has_wire.borrow_and_update();
            if let Err(error) = self.align(is_attached).await {
                tracing::warn!(%error, "the internal port does not follow the uplink; trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(IDLE_INTERVAL) => {}
                changed = has_wire.changed() => if changed.is_err() { return },
                _ = self.events.next() => {
                    tokio::time::sleep(SETTLE).await;
                    while self.events.try_recv().is_ok() {}
                }
            }
        }
    }

    /// Has the host go by the uplink again, before the switch lets go of it.
    pub async fn withdraw(names: &OwnedUplink) {
        let Ok((connection, handle, _)) = rtnetlink::new_connection() else { return };
        let connection = tokio::spawn(connection);
        if let Ok(Some(facts)) = facts(&handle, &names.internal).await {
            for route in routes(&handle).await.unwrap_or_default() {
                if mirror::made_here(&route, facts.index).is_some() {
                    // The device goes anyway, and its routes with it.
                    let _ = handle.route().del(route).execute().await;
                }
            }
        }
        connection.abort();
    }

    /// Makes the device what the uplink is. Its routes are only taken while the switch has the uplink's frames.
    async fn align(&mut self, is_attached: bool) -> Result<(), rtnetlink::Error> {
        let OwnedUplink { interface, internal } = &self.names;
        let Some(own) = facts(&self.handle, internal).await? else { return Ok(()) };
        let uplink = facts(&self.handle, interface).await?;
        if let Some(uplink) = uplink {
            self.take_shape(own, uplink).await?;
        }
        let from = uplink.map(|uplink| uplink.index);
        self.take_addresses(own.index, from).await?;
        if let Some(from) = from.filter(|_| is_attached && !self.has_neighbours) {
            self.take_neighbours(own.index, from).await?;
        }
        // From then on it finds out by itself.
        self.has_neighbours = is_attached;
        self.take_routes(own.index, from.filter(|_| is_attached)).await
    }

    async fn take_shape(&self, own: Facts, uplink: Facts) -> Result<(), rtnetlink::Error> {
        let set = |message: LinkUnspecBuilder| self.handle.link().set(message.build()).execute();
        if own.mac != uplink.mac {
            set(LinkUnspec::new_with_index(own.index).address(uplink.mac.octets().to_vec())).await?;
        }
        if own.mtu != uplink.mtu {
            set(LinkUnspec::new_with_index(own.index).mtu(uplink.mtu)).await?;
        }
        if !own.is_up {
            // Its link-local address is the uplink's, too. Without IPv6 in the kernel there is no such file.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/addr_gen_mode", self.names.internal), "1");
            set(LinkUnspec::new_with_index(own.index).up()).await?;
        }
        Ok(())
    }

    async fn take_addresses(&mut self, own: u32, from: Option<u32>) -> Result<(), rtnetlink::Error> {
        let present = addresses(&self.handle, own).await?;
        let wanted = match from {
            Some(from) => addresses(&self.handle, from).await?,
            None => Vec::new(),
        };
        let wanted: Vec<_> = wanted.iter().filter_map(|message| mirror::address(message, own)).collect();
        let is_in = |all: &[AddressMessage], one: &AddressMessage| all.iter().any(|it| name(it) == name(one));
        for gone in present.iter().filter(|one| !is_in(&wanted, one)) {
            // Others may have given it some as well.
            if name(gone).is_some_and(|name| self.given.remove(&name)) {
                self.handle.address().del(gone.clone()).execute().await?;
            }
        }
        // With the first address of a net the others go as well.
        let present = addresses(&self.handle, own).await?;
        for new in wanted.into_iter().filter(|one| !is_in(&present, one)) {
            let Some(name) = name(&new) else { continue };
            let mut request = self.handle.address().add(own, name.0, name.1).replace();
            *request.message_mut() = new;
            request.execute().await?;
            self.given.insert(name);
        }
        Ok(())
    }

    /// Neighbours that are known need not be asked for again.
    async fn take_neighbours(&self, own: u32, from: u32) -> Result<(), rtnetlink::Error> {
        let (mut known, mut dump) = (Vec::new(), self.handle.neighbours().get().execute());
        let mut present = BTreeSet::new();
        while let Some(message) = dump.try_next().await? {
            let (mut ip, mut mac) = (None, None);
            for attribute in &message.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                        ip = Some(IpAddr::V6(*v6));
                    }
                    NeighbourAttribute::LinkLayerAddress(bytes) => mac = Some(bytes.clone()),
                    _ => {}
                }
            }
            let Some(ip) = ip else { continue };
            if message.header.ifindex == own {
                present.insert(ip);
            }
            let state = match message.header.state {
                NeighbourState::Permanent => NeighbourState::Permanent,
                // Used as it is, and confirmed by whoever uses it.
                NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay => {
                    NeighbourState::Stale
                }
                _ => continue,
            };
            if let (Some(mac), true) = (mac, message.header.ifindex == from) {
                known.push((ip, mac, state));
            }
        }
        for (ip, mac, state) in known.into_iter().filter(|(ip, ..)| !present.contains(ip)) {
            let request = self.handle.neighbours().add(own, ip).link_layer_address(&mac).state(state);
            // One that is not taken is asked for.
            let _ = request.execute().await;
        }
        Ok(())
    }

    async fn take_routes(&self, own: u32, from: Option<u32>) -> Result<(), rtnetlink::Error> {
        let all = routes(&self.handle).await?;
        let present: Vec<_> = all.iter().filter_map(|route| mirror::made_here(route, own)).collect();
        let of = |from: u32| all.iter().filter_map(move |route| mirror::route(route, (from, own)));
        let mut wanted: Vec<_> = from.into_iter().flat_map(of).collect();
        mirror::in_order(&mut wanted);
        let difference = Difference::between(&present, &wanted);
        if difference.is_none() {
            return Ok(());
        }
        for route in difference.new {
            put_in_front(&self.handle, route).await?;
        }
        for route in difference.gone {
            match self.handle.route().del(route).execute().await {
                // It has gone with something else.
                Err(error) if errno(&error) == Some(nix::errno::Errno::ESRCH) => {}
                done => done?,
            }
        }
        Ok(())
    }
}

type LinkUnspecBuilder = rtnetlink::LinkMessageBuilder<LinkUnspec>;

/// Does what another daemon may still be in the way of.
async fn patiently(
    host: &SharedHost,
    act: impl Fn(&mut crate::host::Host) -> Result<(), PortError> + Clone + Send + 'static,
) -> Result<(), PortError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match host.with(act.clone()).await {
            Err(error) if error.is_busy() && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

async fn facts(handle: &Handle, name: &str) -> Result<Option<Facts>, rtnetlink::Error> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    let link = match found {
        Err(error) if errno(&error) == Some(nix::errno::Errno::ENODEV) => return Ok(None),
        found => match found? {
            Some(link) => link,
            None => return Ok(None),
        },
    };
    let is_up = link.header.flags.contains(LinkFlags::Up);
    let (mut mac, mut mtu) = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok().map(MacAddr::new),
            LinkAttribute::Mtu(told) => mtu = Some(*told),
            _ => {}
        }
    }
    Ok(mac.zip(mtu).map(|(mac, mtu)| Facts { index: link.header.index, mac, mtu, is_up }))
}

async fn addresses(handle: &Handle, index: u32) -> Result<Vec<AddressMessage>, rtnetlink::Error> {
    handle.address().get().set_link_index_filter(index).execute().try_collect().await
}

/// All routes of all tables.
async fn routes(handle: &Handle) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut filter = RouteMessage::default();
        filter.header.address_family = family;
        all.extend(handle.route().get(filter).execute().try_collect::<Vec<_>>().await?);
    }
    Ok(all)
}

/// Makes a route that is taken before others to the same place, which stay.
async fn put_in_front(handle: &Handle, route: RouteMessage) -> Result<(), rtnetlink::Error> {
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(route));
    // Neither NLM_F_EXCL nor NLM_F_REPLACE nor NLM_F_APPEND: in front (`ip route prepend`).
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
    let mut answers = handle.clone().request(request)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && let Some(code) = error.code
            && nix::errno::Errno::from_raw(-code.get()) != nix::errno::Errno::EEXIST
        {
            return Err(rtnetlink::Error::NetlinkError(error));
        }
    }
    Ok(())
}

/// An address and the length of its net.
fn name(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // Where both are there, the other one is that of the peer.
            AddressAttribute::Local(ip) => found = Some(*ip),
            AddressAttribute::Address(ip) if found.is_none() => found = Some(*ip),
            _ => {}
        }
    }
    Some((found?, message.header.prefix_len))
}

fn errno(error: &rtnetlink::Error) -> Option<nix::errno::Errno> {
    let rtnetlink::Error::NetlinkError(message) = error else { return None };
    message.code.map(|code| nix::errno::Errno::from_raw(-code.get()))
}
