//! What a shim asks for, and what it comes to.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use flowtable::types::MacAddr;
use tonic::Status;

use super::{EndpointKey, Endpoints, Limits, Prefix, Published, Ranges, Record, Route, Stage, record};

/// Least MTU of IPv6 (RFC 8200 §5).
const MIN_MTU: u32 = 1280;

/// What a shim asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachWanted {
    /// Whose.
    pub key: EndpointKey,
    /// Path of the namespace; empty: the runtime moves the interface into one.
    pub netns: String,
    /// `switches/{id}`
    pub switch: String,
    /// Addresses.
    pub addresses: Vec<Prefix>,
    /// MAC address; `None`: made from the first address.
    pub mac: Option<MacAddr>,
    /// MTU; `None`: what a tunnel carries.
    pub mtu: Option<u32>,
    /// Routes.
    pub routes: Vec<Route>,
    /// For people and selectors.
    pub labels: HashMap<String, String>,
    /// Addresses of the host on the switch, when it is to be the gateway.
    pub host_addresses: Vec<Prefix>,
    /// Ports of the host that lead to the container.
    pub published: Vec<Published>,
    /// Bounds on what passes.
    pub limits: Limits,
    /// Where to choose addresses from; those above are to be among them.
    pub lease: Option<Ranges>,
    /// With that: the host is the gateway, with addresses that it leases.
    pub is_gateway_leased: bool,
    /// Names by which others find the container.
    pub names: BTreeSet<String>,
}

impl Endpoints {
    /// What a request comes to that names its addresses.
    pub(super) async fn plan_named(&self, wanted: &AttachWanted) -> Result<Record, Status> {
        let first = wanted.addresses.first().ok_or_else(|| {
            Status::invalid_argument("no address was given; name an IPAM plugin with `ipam`")
        })?;
        let mac = wanted.mac.unwrap_or_else(|| mac_of(first.address));
        self.plan(wanted, wanted.addresses.clone(), mac).await
    }

    /// What a request comes to, with these addresses.
    pub(super) async fn plan(
        &self,
        wanted: &AttachWanted,
        addresses: Vec<Prefix>,
        mac: MacAddr,
    ) -> Result<Record, Status> {
        if let Some(mac) = wanted.mac.filter(|mac| mac.is_multicast() || *mac == MacAddr::ZERO) {
            return Err(Status::invalid_argument(format!("{mac} is not the MAC address of an interface")));
        }
        Ok(Record {
            key: wanted.key.clone(),
            stage: Stage::Coming,
            netns: wanted.netns.clone(),
            switch: wanted.switch.clone(),
            host_interface: record::host_interface(&wanted.key),
            addresses,
            mac,
            mtu: self.mtu(wanted.mtu).await?,
            routes: wanted.routes.clone(),
            host_mac: MacAddr::ZERO,
            host_addresses: wanted.host_addresses.clone(),
            published: wanted.published.clone(),
            limits: wanted.limits,
            lease: None,
            is_gateway_leased: wanted.is_gateway_leased,
            names: wanted.names.clone(),
        })
    }

    /// The MTU asked for if a tunnel carries it; without one, what it carries.
    async fn mtu(&self, wanted: Option<u32>) -> Result<u32, Status> {
        let max = self.host.with(|host| host.workload_mtu()).await;
        let mtu = wanted.unwrap_or(max);
        if mtu > max {
            return Err(Status::invalid_argument(format!(
                "MTU {mtu}: tunnels of this host carry {max}; leave it out, or raise the uplink's"
            )));
        }
        if mtu < MIN_MTU {
            return Err(Status::invalid_argument(format!("MTU {mtu}: it is at least {MIN_MTU}")));
        }
        Ok(mtu)
    }
}

/// A locally administered MAC address (IEEE 802 §8.4) that tells the IP address it is made of.
pub(super) fn mac_of(address: IpAddr) -> MacAddr {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            MacAddr::new([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            MacAddr::new([0x0a, 0x59, a, b, c, d])
        }
    }
}
