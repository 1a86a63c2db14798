//! Addresses that switches give their ports (OVN: IPAM), chosen inside the transaction that
//! makes or changes a port.
//!
//! IPv4 and MAC addresses are given in rising order and wrap around at the end. The
//! smallest free one is the rejected way: an address that has just become free may still be
//! known by neighbours, and by connections, as its last owner's. Rising order gives the one
//! that has been free longest, or nearly so. A port keeps what it has as long as that fits.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use flowtable::types::MacAddr;
use ovn_northd_lite::model::{IpNetwork, PortAddresses};

use super::{
    Draft, Reason, Record, Refusal,
    index::{Address, addresses_of, peer_of},
    keys::COUNTERS,
};
use crate::resource::{AddressManagement, Attachment, Dynamic, FieldError, Kind, Name, Spec};

/// Counter of MAC addresses, over all switches.
const MACS: &str = "counters/macs";
/// Last three bytes of a MAC address.
const MAX_MAC: u32 = 0xff_ffff;

/// Chooses addresses for ports of the draft that ask for some, and for those of switches
/// that give others now. Answers the counters that have moved.
///
/// # Errors
/// [`Refusal`] names the port, and the switch that has no address left.
pub(super) fn choose(draft: &mut Draft<'_>) -> Result<BTreeMap<String, Option<u32>>, Refusal> {
    let mut cursors = BTreeMap::new();
    for switch in draft.replaced().filter(|name| name.kind() == Kind::Switch) {
        let cursor = cursor_of(switch);
        if draft.state().counters.contains_key(&cursor) {
            cursors.insert(cursor, None);
        }
    }
    for (switch, ports) in asking(draft) {
        let management = match draft.get(&switch).map(|record| &record.spec) {
            Some(Spec::Switch(spec)) => spec.address_management.clone(),
            _ => None,
        };
        let mut pool = Pool::new(draft, &switch, management.as_ref(), &ports, &mut cursors);
        let mut chosen = Vec::with_capacity(ports.len());
        for (port, operation) in &ports {
            let refuse = |reason| Refusal { operation: *operation, reason };
            chosen.push(pool.choose(draft, port).map_err(refuse)?);
        }
        for ((port, operation), chosen) in ports.into_iter().zip(chosen) {
            draft.set_chosen(&port, chosen, operation);
        }
    }
    Ok(cursors)
}

/// Ports to choose for, by switch, each with the operation that is to blame.
type Asking = BTreeMap<Name, BTreeMap<Name, Option<usize>>>;

fn asking(draft: &Draft<'_>) -> Asking {
    let mut asking = Asking::new();
    for (record, operation) in draft.written() {
        match &record.spec {
            Spec::SwitchPort(_) if dynamic_of(record).is_some() || record.chosen.is_some() => {
                if let Some(switch) = record.name.parent() {
                    asking.entry(switch).or_default().insert(record.name.clone(), operation);
                }
            }
            Spec::Switch(spec) => {
                let before = draft.state().get(&record.name).map(|record| &record.spec);
                let is_same = matches!(before, Some(Spec::Switch(before))
                    if before.address_management == spec.address_management);
                if !is_same {
                    let ports = draft.untouched_below(&record.name).filter(|port| dynamic_of(port).is_some());
                    let ports: Vec<_> = ports.map(|port| (port.name.clone(), operation)).collect();
                    asking.entry(record.name.clone()).or_default().extend(ports);
                }
            }
            _ => {}
        }
    }
    asking.retain(|_, ports| !ports.is_empty());
    asking
}

fn dynamic_of(record: &Record) -> Option<&Dynamic> {
    match &record.spec {
        Spec::SwitchPort(port) => match &port.attachment {
            Attachment::Workload { dynamic, .. } => dynamic.as_ref(),
            Attachment::Router(_) | Attachment::Switch(_) | Attachment::Network { .. } => None,
        },
        _ => None,
    }
}

fn cursor_of(switch: &Name) -> String {
    format!("{COUNTERS}addresses/{switch}")
}

/// The addresses of one switch.
struct Pool<'a> {
    switch: &'a Name,
    management: Option<&'a AddressManagement>,
    /// Addresses of ports that the draft touches, and of routers.
    taken: HashSet<Address>,
    cursors: &'a mut BTreeMap<String, Option<u32>>,
}

impl<'a> Pool<'a> {
    fn new(
        draft: &Draft<'_>,
        switch: &'a Name,
        management: Option<&'a AddressManagement>,
        asking: &BTreeMap<Name, Option<usize>>,
        cursors: &'a mut BTreeMap<String, Option<u32>>,
    ) -> Self {
        let mut taken = HashSet::new();
        let written = draft.written().map(|(record, _)| record);
        let of_switch = |record: &&Record| record.name.parent().as_ref() == Some(switch);
        for record in written.filter(of_switch) {
            match asking.contains_key(&record.name) {
                // What it has is judged when it is its turn; what it says itself is its own.
                true => taken.extend(addresses_of(&Record { chosen: None, ..record.clone() })),
                false => taken.extend(addresses_of(record)),
            }
            taken.extend(of_router(draft, record));
        }
        for port in draft.state().index.to_routers.get(switch).into_iter().flatten() {
            if !draft.touches(port)
                && let Some(record) = draft.get(port)
            {
                taken.extend(of_router(draft, record));
            }
        }
        // What ports keep comes before what others are given.
        for port in asking.keys() {
            if let (Some(record), Some(management)) = (draft.get(port), management)
                && let Some(dynamic) = dynamic_of(record)
            {
                taken.extend(kept(management, record, dynamic));
            }
        }
        Self { switch, management, taken, cursors }
    }

    /// What a port has from now on.
    fn choose(&mut self, draft: &Draft<'_>, port: &Name) -> Result<Option<PortAddresses>, Reason> {
        let Some(record) = draft.get(port) else { return Ok(None) };
        let Some(dynamic) = dynamic_of(record) else { return Ok(None) };
        let Some(management) = self.management else {
            let reason = format!("{port} asks for a dynamic address; change that first");
            let error = FieldError::new("address_management", reason);
            return Err(Reason::Field { name: self.switch.clone(), error });
        };
        let kept = kept(management, record, dynamic);
        let kept_mac = kept.iter().find_map(|address| match address {
            Address::Mac(mac) => Some(*mac),
            Address::Ip(_) => None,
        });
        let mac = match kept_mac.or(dynamic.mac) {
            Some(mac) => mac,
            None => self.mac(draft, management, port)?,
        };
        let mut ips = Vec::new();
        let given = |is_v4: bool| dynamic.ips.iter().copied().find(|ip| ip.is_ipv4() == is_v4);
        let kept_v4 = kept.iter().find_map(|address| match address {
            Address::Ip(ip) if ip.is_ipv4() => Some(*ip),
            _ => None,
        });
        match (kept_v4.or(given(true)), management.subnet) {
            (Some(ip), _) => ips.push(ip),
            (None, Some(subnet)) => ips.push(self.v4(draft, (management, subnet), port)?.into()),
            (None, None) => {}
        }
        let derived = management.ipv6_prefix.map(|prefix| eui64(prefix, mac).into());
        ips.extend(given(false).or(derived));
        Ok(Some(PortAddresses { mac, ips }))
    }

    /// Nobody on the switch has the address.
    fn is_free(&self, draft: &Draft<'_>, address: Address) -> bool {
        let owners = draft.state().index.addresses.get(self.switch);
        let owner = owners.and_then(|owners| owners.get(&address)).filter(|owner| !draft.touches(owner));
        owner.is_none() && !self.taken.contains(&address)
    }

    fn mac(
        &mut self,
        draft: &Draft<'_>,
        management: &AddressManagement,
        port: &Name,
    ) -> Result<MacAddr, Reason> {
        let mut next = self.cursor(draft, MACS);
        let [a, b, c] = management.mac_prefix;
        for _ in 0..=MAX_MAC {
            let number = next.clamp(1, MAX_MAC);
            next = if number == MAX_MAC { 1 } else { number + 1 };
            let [_, d, e, f] = number.to_be_bytes();
            let mac = MacAddr::new([a, b, c, d, e, f]);
            if self.is_free(draft, Address::Mac(mac)) {
                self.taken.insert(Address::Mac(mac));
                self.cursors.insert(MACS.to_owned(), Some(next));
                return Ok(mac);
            }
        }
        Err(self.exhausted(port, format!("{a:02x}:{b:02x}:{c:02x}:00:00:00/24")))
    }

    fn v4(
        &mut self,
        draft: &Draft<'_>,
        (management, subnet): (&AddressManagement, IpNetwork),
        port: &Name,
    ) -> Result<Ipv4Addr, Reason> {
        let (base, size) = extent(&subnet);
        let name = cursor_of(self.switch);
        // The network, the first address, which is a router's, and the broadcast address.
        let (first, last) = (2, size - 2);
        let mut next = self.cursor(draft, &name);
        let mut n_left = size;
        while n_left > 0 {
            let offset = if (first..=last).contains(&next) { next } else { first };
            let ip = Ipv4Addr::from_bits(base + offset);
            let excluded = management.excluded.iter().find(|(from, to)| (*from..=*to).contains(&ip));
            let skipped_to = excluded.map_or(ip, |(_, to)| *to);
            n_left = n_left.saturating_sub(1 + (skipped_to.to_bits() - ip.to_bits()));
            next = skipped_to.to_bits() - base + 1;
            if excluded.is_none() && offset <= last && self.is_free(draft, Address::Ip(ip.into())) {
                self.taken.insert(Address::Ip(ip.into()));
                self.cursors.insert(name, Some(next));
                return Ok(ip);
            }
        }
        Err(self.exhausted(port, format!("{}/{}", subnet.base(), subnet.prefix_len)))
    }

    fn cursor(&self, draft: &Draft<'_>, name: &str) -> u32 {
        match self.cursors.get(name) {
            Some(moved) => moved.unwrap_or(0),
            None => draft.state().counters.get(name).copied().unwrap_or(0),
        }
    }

    fn exhausted(&self, port: &Name, network: String) -> Reason {
        Reason::AddressesExhausted { name: port.clone(), switch: self.switch.clone(), network }
    }
}

/// First address of an IPv4 network, and how many there are.
fn extent(network: &IpNetwork) -> (u32, u32) {
    let base = match network.base() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(_) => 0,
    };
    (base, 1_u32.checked_shl(32_u32.saturating_sub(network.prefix_len.into())).unwrap_or(u32::MAX))
}

/// What a port has that still fits what it asks for and the switch gives.
fn kept(management: &AddressManagement, record: &Record, dynamic: &Dynamic) -> Vec<Address> {
    let Some(chosen) = &record.chosen else { return Vec::new() };
    let mac = chosen.mac.octets();
    let fits_mac = match dynamic.mac {
        Some(wanted) => wanted == chosen.mac,
        None => mac.starts_with(&management.mac_prefix),
    };
    let given = dynamic.ips.iter().any(IpAddr::is_ipv4);
    let fits = |ip: &&IpAddr| match (ip, management.subnet) {
        (IpAddr::V4(v4), Some(subnet)) if !given => {
            let (base, size) = extent(&subnet);
            let is_excluded = management.excluded.iter().any(|(from, to)| (from..=to).contains(&v4));
            (base + 2..=base + (size - 2)).contains(&v4.to_bits()) && !is_excluded
        }
        _ => false,
    };
    let ips = chosen.ips.iter().filter(fits).map(|ip| Address::Ip(*ip));
    fits_mac.then_some(Address::Mac(chosen.mac)).into_iter().chain(ips).collect()
}

/// Addresses of the router at the other side of a switch's port.
fn of_router(draft: &Draft<'_>, port: &Record) -> Vec<Address> {
    let Some(Record { spec: Spec::RouterPort(peer), .. }) = peer_of(port).and_then(|peer| draft.get(peer))
    else {
        return Vec::new();
    };
    let ips = peer.networks.iter().map(|network| Address::Ip(network.addr));
    ips.chain([Address::Mac(peer.mac)]).collect()
}

/// The address that follows from a MAC address (RFC 4291, appendix A).
fn eui64(prefix: IpNetwork, mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.octets();
    let host = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    match prefix.base() {
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() | u128::from(host)),
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    }
}
