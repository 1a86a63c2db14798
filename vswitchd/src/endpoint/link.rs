//! An endpoint's pair of interfaces (veth(4)): one end on the host, the other in the
//! container's network namespace, made there at once so that nothing is to be moved, and
//! renamed, half-way.
//!
//! A runtime that moves and furnishes the container's end itself gets it beside the host's.
//!
//! Work in a namespace is done on a thread of its own (setns(2)), with a netlink socket of
//! that namespace; the thread ends with the work.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::AsRawFd as _,
};

use flowtable::types::MacAddr;
use futures::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressFlags},
    link::{InfoData, InfoVeth, LinkAttribute, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::NSFS_MAGIC,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};

use super::{Prefix, Route};

/// Number of `lo`, the first interface of each namespace.
const LOOPBACK: u32 = 1;

/// What the container's end is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Name in the container.
    pub interface: String,
    /// The host's end.
    pub host_interface: String,
    /// MAC address in the container.
    pub mac: MacAddr,
    /// MTU of both ends.
    pub mtu: u32,
    /// Addresses.
    pub addresses: Vec<Prefix>,
    /// Routes.
    pub routes: Vec<Route>,
}

/// Interfaces cannot be made, or are not as they were.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The path is not a namespace.
    #[error("{path} is not a network namespace: {source}")]
    NoNamespace {
        /// The path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The name is taken.
    #[error("the container has an interface {0} already")]
    Exists(String),
    /// There is no such interface.
    #[error("{0} is gone")]
    Gone(String),
    /// Something was changed by others.
    #[error("{0}")]
    Differs(String),
    /// The kernel refuses.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// The thread cannot be started, or its runtime.
    #[error("cannot work in the namespace: {0}")]
    Thread(io::Error),
}

/// Says what was tried when the kernel refuses.
trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, LinkError>;
}

impl<T> Tried<T> for Result<T, rtnetlink::Error> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, LinkError> {
        self.map_err(|source| LinkError::Netlink { what: what(), source })
    }
}

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Opens it.
    ///
    /// # Errors
    /// The path is not a network namespace.
    pub fn open(path: &str) -> Result<Self, LinkError> {
        let wrong = |source| LinkError::NoNamespace { path: path.to_owned(), source };
        let file = File::open(path).map_err(wrong)?;
        // A file that is none would only be refused later, half-way.
        if nix::sys::statfs::fstatfs(&file).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC) {
            return Ok(Self(file));
        }
        Err(wrong(io::Error::from(io::ErrorKind::InvalidInput)))
    }

    /// Does `act` with a netlink socket of the namespace.
    async fn with<T, F>(&self, act: F) -> Result<T, LinkError>
    where
        T: Send + 'static,
        F: AsyncFnOnce(Handle) -> Result<T, LinkError> + Send + 'static,
    {
        let namespace = self.0.try_clone().map_err(LinkError::Thread)?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let work = move || {
            let done = enter(&namespace).map_err(LinkError::Thread).and_then(|runtime| {
                runtime.block_on(async {
                    let (connection, handle, _) = new_connection().map_err(LinkError::Thread)?;
                    tokio::spawn(connection);
                    act(handle).await
                })
            });
            // Nobody waits any more: the call was given up.
            let _ = sender.send(done);
        };
        std::thread::Builder::new().name("namespace".to_owned()).spawn(work).map_err(LinkError::Thread)?;
        receiver.await.unwrap_or_else(|_| Err(LinkError::Thread(io::Error::other("the thread has ended"))))
    }
}

/// Moves this thread into a namespace for good.
fn enter(namespace: &File) -> io::Result<tokio::runtime::Runtime> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Makes the pair and all that belongs to the container's end. The host's end is up.
/// Without a namespace the container's end stays on the host, bare, for others to move.
/// On failure nothing is left.
///
/// # Errors
/// See [`LinkError`].
pub(super) async fn make(namespace: Option<&Namespace>, wanted: &Wanted) -> Result<MacAddr, LinkError> {
    let (connection, host, _) = new_connection().map_err(LinkError::Thread)?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    add_pair(&host, namespace, wanted).await?;
    let made = async {
        let mac = raise_bare(&host, &wanted.host_interface).await?;
        match namespace {
            Some(namespace) => {
                let inner = wanted.clone();
                namespace.with(async move |handle| furnish(&handle, &inner).await).await?;
            }
            // Up, so that packets pass as soon as it is moved.
            None => drop(raise_bare(&host, &wanted.interface).await?),
        }
        Ok(mac)
    };
    let made = made.await;
    if made.is_err() {
        remove(&wanted.host_interface).await?;
    }
    made
}

/// Removes the pair by its end on the host; there may be none.
///
/// # Errors
/// The kernel refuses.
pub(super) async fn remove(host_interface: &str) -> Result<(), LinkError> {
    let (connection, host, _) = new_connection().map_err(LinkError::Thread)?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    let Some(link) = find(&host, host_interface).await? else { return Ok(()) };
    match host.link().del(link.header.index).execute().await {
        // Its namespace went away at this very moment.
        Err(error) if is_missing(&error) => Ok(()),
        deleted => deleted.tried(|| format!("delete {host_interface}")),
    }
}

/// Both ends are as they were made; without a namespace, the host's is there.
///
/// # Errors
/// What is not.
pub(super) async fn check(namespace: Option<&Namespace>, wanted: &Wanted) -> Result<(), LinkError> {
    let (connection, host, _) = new_connection().map_err(LinkError::Thread)?;
    let _connection = AbortOnDrop(tokio::spawn(connection));
    if find(&host, &wanted.host_interface).await?.is_none() {
        return Err(LinkError::Gone(wanted.host_interface.clone()));
    }
    let Some(namespace) = namespace else { return Ok(()) };
    let wanted = wanted.clone();
    namespace.with(async move |handle| compare(&handle, &wanted).await).await
}

async fn add_pair(host: &Handle, namespace: Option<&Namespace>, wanted: &Wanted) -> Result<(), LinkError> {
    let mut inside = LinkMessageBuilder::<LinkUnspec>::new()
        .name(wanted.interface.clone())
        .mtu(wanted.mtu)
        .address(wanted.mac.octets().to_vec());
    if let Some(namespace) = namespace {
        inside = inside.setns_by_fd(namespace.0.as_raw_fd());
    }
    let inside = inside.build();
    let pair = LinkVeth::new(&wanted.host_interface, &wanted.interface)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
        .mtu(wanted.mtu)
        .build();
    match host.link().add(pair).execute().await {
        Err(error) if errno(&error) == Some(nix::errno::Errno::EEXIST) => {
            Err(LinkError::Exists(wanted.interface.clone()))
        }
        added => added.tried(|| format!("make {} and {}", wanted.host_interface, wanted.interface)),
    }
}

/// Sets an end on the host up, without addresses of the host: it only carries the
/// container's packets. Answers its MAC address.
async fn raise_bare(host: &Handle, name: &str) -> Result<MacAddr, LinkError> {
    // Without IPv6 in the kernel there is nothing to switch off.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    let link = find(host, name).await?.ok_or_else(|| LinkError::Gone(name.to_owned()))?;
    let up = LinkUnspec::new_with_index(link.header.index).up().build();
    host.link().set(up).execute().await.tried(|| format!("set {name} up"))?;
    mac_of(&link).ok_or_else(|| LinkError::Differs(format!("{name} has no MAC address")))
}

/// Gives the container's end its addresses and routes, and sets it up.
async fn furnish(inside: &Handle, wanted: &Wanted) -> Result<(), LinkError> {
    let name = &wanted.interface;
    let link = find(inside, name).await?.ok_or_else(|| LinkError::Gone(name.clone()))?;
    let index = link.header.index;
    for Prefix { address, len } in &wanted.addresses {
        let mut request = inside.address().add(index, *address, *len);
        if address.is_ipv6() {
            // The switch knows who has which address; waiting a second to find out by
            // duplicate address detection (RFC 4862 §5.4) would only delay the container.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.tried(|| format!("give {name} the address {address}/{len}"))?;
    }
    let up = LinkUnspec::new_with_index(index).up().build();
    inside.link().set(up).execute().await.tried(|| format!("set {name} up"))?;
    let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
    inside.link().set(up).execute().await.tried(|| "set lo up".to_owned())?;
    for route in &wanted.routes {
        let added = inside.route().add(route_message(route, index)).execute().await;
        added.tried(|| format!("add the route {route} to {name}"))?;
    }
    Ok(())
}

fn route_message(route: &Route, index: u32) -> RouteMessage {
    let Prefix { address, len } = route.destination;
    let mut message = match address {
        IpAddr::V4(ip) => {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(ip, len).build()
        }
        IpAddr::V6(ip) => {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(ip, len).build()
        }
    };
    message.attributes.push(RouteAttribute::Oif(index));
    match route.gateway {
        Some(gateway) => message.attributes.push(RouteAttribute::Gateway(match gateway {
            IpAddr::V4(ip) => RouteAddress::Inet(ip),
            IpAddr::V6(ip) => RouteAddress::Inet6(ip),
        })),
        None => message.header.scope = RouteScope::Link,
    }
    message
}

async fn compare(inside: &Handle, wanted: &Wanted) -> Result<(), LinkError> {
    let name = &wanted.interface;
    let link = find(inside, name).await?.ok_or_else(|| LinkError::Gone(name.clone()))?;
    if mac_of(&link) != Some(wanted.mac) {
        return Err(LinkError::Differs(format!("{name} has another MAC address than {}", wanted.mac)));
    }
    let mut present = Vec::new();
    let mut addresses = inside.address().get().set_link_index_filter(link.header.index).execute();
    while let Some(message) = addresses.try_next().await.tried(|| format!("read the addresses of {name}"))? {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        present.extend(address.map(|address| Prefix { address, len: message.header.prefix_len }));
    }
    if let Some(missing) = wanted.addresses.iter().find(|address| !present.contains(address)) {
        return Err(LinkError::Differs(format!("{name} has lost its address {missing}")));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        compare_routes(inside, family, wanted).await?;
    }
    Ok(())
}

async fn compare_routes(inside: &Handle, family: AddressFamily, wanted: &Wanted) -> Result<(), LinkError> {
    let mut filter = RouteMessage::default();
    filter.header.address_family = family;
    let mut routes = inside.route().get(filter).execute();
    let mut present = Vec::new();
    while let Some(message) = routes.try_next().await.tried(|| "read routes".to_owned())? {
        present.extend(destination(&message));
    }
    let is_ours = |route: &&Route| route.destination.address.is_ipv6() == (family == AddressFamily::Inet6);
    match wanted.routes.iter().filter(is_ours).find(|route| !present.contains(&route.destination)) {
        Some(missing) => {
            Err(LinkError::Differs(format!("{} has lost its route {missing}", wanted.interface)))
        }
        None => Ok(()),
    }
}

fn destination(message: &RouteMessage) -> Option<Prefix> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    });
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let len = message.header.destination_prefix_length;
    Some(Prefix { address: address.unwrap_or(unspecified), len })
}

/// An interface by its name.
async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, LinkError> {
    match handle.link().get().match_name(name.to_owned()).execute().try_next().await {
        Err(error) if is_missing(&error) => Ok(None),
        found => found.tried(|| format!("look for {name}")),
    }
}

fn mac_of(link: &LinkMessage) -> Option<MacAddr> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Some(MacAddr::new(bytes.as_slice().try_into().ok()?)),
        _ => None,
    })
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    errno(error) == Some(nix::errno::Errno::ENODEV)
}

fn errno(error: &rtnetlink::Error) -> Option<nix::errno::Errno> {
    let rtnetlink::Error::NetlinkError(message) = error else { return None };
    message.code.map(|code| nix::errno::Errno::from_raw(-code.get()))
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
