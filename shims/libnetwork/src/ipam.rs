//! Addresses: pools that Docker asks for, and who has what of them.
//!
//! When Docker starts it says again which pools and addresses it has. What it does not say
//! again was lost in a crash: it is doubted from the start on (`doubt_pools`), and
//! may then be taken by who asks for it.

use std::{net::IpAddr, time::Duration};

use address_pool::{Network, Pool};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    driver::{Driver, now},
    protocol::{AddressCall, RequestPool},
    refusal::Refusal,
};

/// What an address is for: Docker's name for it, and for the gateway.
const REQUEST_TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";
/// Keeps pools with the same addresses apart: networks of tenants that know nothing of each
/// other.
const TENANT: &str = "tenant";
/// The address space of a swarm's networks: its manager gives addresses for all hosts.
pub(crate) const GLOBAL_SPACE: &str = "ferroflow-global";
/// How soon after its address an endpoint is made, at the latest.
const ENDPOINT_LIMIT: Duration = Duration::from_secs(60);

/// A pool, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolRecord {
    /// Docker's address space, and the user's tenant.
    space: String,
    network: Network,
    pool: Pool<Holder>,
    /// Docker has not said that it still has it.
    is_doubted: bool,
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    purpose: Purpose,
    since: Duration,
    is_doubted: bool,
}

/// What an address was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The gateway.
    Gateway,
    /// The user named it: for an endpoint, or to keep it from endpoints.
    Named,
    /// An endpoint, whichever address.
    Endpoint,
}

impl Driver {
    /// Gives a pool.
    pub(crate) fn request_pool(&self, call: &RequestPool) -> Result<Value, Refusal> {
        let space = space(call)?;
        let network = match call.pool.as_str() {
            "" if call.sub_pool.is_empty() => self.unused_network(&space, call.is_v6)?,
            "" => return Err(Refusal::new("--ip-range needs its --subnet")),
            text => network(text)?,
        };
        let sub = match call.sub_pool.as_str() {
            "" => network,
            text => self::network(text)?,
        };
        if !network.contains_network(&sub) {
            return Err(Refusal::new(format!("--ip-range {sub} is not in --subnet {network}")));
        }
        let id = format!("{space}/{network}/{sub}");
        let answer = json!({ "PoolID": id, "Pool": network.to_string(), "Data": {} });
        let mut pools = self.pools.borrow_mut();
        if let Some(true) = pools.get(&id).map(|record| record.is_doubted) {
            pools.change(&id, |record| record.is_doubted = false)?;
            return Ok(answer);
        }
        let is_taken = |record: &&PoolRecord| {
            record.space == space && record.network.overlaps(&network) && !record.is_doubted
        };
        if let Some((_, other)) = pools.iter().find(|(_, record)| is_taken(record)) {
            return Err(Refusal::new(format!(
                "subnet {network}: another network has {}; choose another one, or keep them apart with --ipam-opt {TENANT}=NAME",
                other.network
            )));
        }
        let span = if sub == network { network.hosts() } else { within(sub, network) };
        let pool = Pool::new(vec![span]);
        pools.put(&id, PoolRecord { space, network, pool, is_doubted: false })?;
        Ok(answer)
    }

    /// Takes a pool back; there may be none.
    pub(crate) fn release_pool(&self, call: &AddressCall) -> Result<(), Refusal> {
        self.pools.borrow_mut().remove(&call.pool)?;
        Ok(())
    }

    /// Gives an address.
    pub(crate) fn request_address(&self, call: &AddressCall) -> Result<Value, Refusal> {
        let mut record = self.pools.borrow().get(&call.pool).cloned().ok_or_else(|| unknown(&call.pool))?;
        let is_gateway = call.options.get(REQUEST_TYPE).and_then(Value::as_str) == Some(GATEWAY);
        let holder = |purpose| Holder { purpose, since: now(), is_doubted: false };
        let address = match call.address.as_str() {
            "" if is_gateway => {
                let first = record.network.hosts().first;
                if record.pool.holder(first).is_none_or(|holder| holder.is_doubted) {
                    record.pool.hold(first, holder(Purpose::Gateway));
                    first
                } else {
                    give(&mut record, holder(Purpose::Gateway), call)?
                }
            }
            "" => give(&mut record, holder(Purpose::Endpoint), call).or_else(|_| {
                self.reclaim(&mut record);
                give(&mut record, holder(Purpose::Endpoint), call)
            })?,
            text => {
                let address = address(text, &record.network)?;
                if record.pool.holder(address).is_some_and(|holder| !holder.is_doubted) {
                    return Err(Refusal::new(format!("address {address} is in use")));
                }
                let purpose = if is_gateway { Purpose::Gateway } else { Purpose::Named };
                record.pool.hold(address, holder(purpose));
                address
            }
        };
        let answer = json!({ "Address": format!("{address}/{}", record.network.len()), "Data": {} });
        self.pools.borrow_mut().put(&call.pool, record)?;
        Ok(answer)
    }

    /// Takes an address back; nobody may have it.
    pub(crate) fn release_address(&self, call: &AddressCall) -> Result<(), Refusal> {
        let Ok(address) = call.address.parse() else { return Ok(()) };
        let until = now() + self.rest;
        self.pools.borrow_mut().change(&call.pool, |record| record.pool.take_back(address, until))?;
        Ok(())
    }

    /// Docker has started, and says again what it has.
    pub(crate) fn doubt_pools(&self) -> Result<(), Refusal> {
        let mut pools = self.pools.borrow_mut();
        let ids: Vec<_> = pools.iter().map(|(id, _)| id.to_owned()).collect();
        for id in ids {
            pools.change(&id, |record| {
                record.is_doubted = true;
                record.pool.holders_mut().for_each(|(_, holder)| holder.is_doubted = true);
            })?;
        }
        Ok(())
    }

    /// Takes back what Docker has forgotten: addresses for endpoints that were never made,
    /// or that a Docker had which is gone.
    fn reclaim(&self, record: &mut PoolRecord) {
        if record.space.split('@').next() == Some(GLOBAL_SPACE) {
            // Whether it is used shows on other hosts.
            return;
        }
        let endpoints = self.endpoints.borrow();
        let is_used = |address| endpoints.iter().any(|(_, endpoint)| endpoint.addresses.contains(&address));
        let forgotten = |holder: &Holder| {
            let never_made =
                holder.purpose == Purpose::Endpoint && now().saturating_sub(holder.since) > ENDPOINT_LIMIT;
            never_made || holder.is_doubted
        };
        let stale: Vec<_> = record
            .pool
            .holders()
            .filter(|(address, holder)| forgotten(holder) && !is_used(*address))
            .map(|(address, _)| address)
            .collect();
        for address in stale {
            tracing::info!(%address, "Docker has forgotten it; taken back");
            record.pool.take_back(address, now());
        }
    }

    /// A network that nobody of a space has.
    fn unused_network(&self, space: &str, is_v6: bool) -> Result<Network, Refusal> {
        let pools = self.pools.borrow();
        let taken: Vec<_> = pools
            .iter()
            .filter(|(_, record)| record.space == space)
            .map(|(_, record)| record.network)
            .collect();
        let of_family = self.default_pools.iter().filter(|pool| pool.network.address().is_ipv6() == is_v6);
        let mut candidates = of_family.flat_map(|pool| pool.network.subnets(pool.len));
        // Each one that is passed over has its record: they are as few as networks are.
        candidates.find(|candidate| !taken.iter().any(|taken| taken.overlaps(candidate))).ok_or_else(|| {
            Refusal::new(
                "no subnet is free; name one with --subnet, or start the driver with more --default-pool",
            )
        })
    }
}

fn give(record: &mut PoolRecord, holder: Holder, call: &AddressCall) -> Result<IpAddr, Refusal> {
    record.pool.give(holder, now()).map_err(|exhausted| Refusal::new(format!("{}: {exhausted}", call.pool)))
}

/// What may be given of a part of a network: all of it that interfaces may have.
fn within(sub: Network, network: Network) -> address_pool::Span {
    let (hosts, whole) = (network.hosts(), sub.whole());
    address_pool::Span { first: whole.first.max(hosts.first), last: whole.last.min(hosts.last) }
}

/// Docker's address space and the tenant, who cannot see each other's pools.
fn space(call: &RequestPool) -> Result<String, Refusal> {
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    };
    let tenant = match call.options.get(TENANT) {
        None => return Ok(call.address_space.clone()),
        Some(tenant) => tenant.as_str().unwrap_or_default(),
    };
    if is_word(tenant) {
        return Ok(format!("{}@{tenant}", call.address_space));
    }
    Err(Refusal::new(format!(
        "--ipam-opt {TENANT}={}: write a name of letters, digits, - and .",
        tenant.escape_debug()
    )))
}

fn network(text: &str) -> Result<Network, Refusal> {
    text.parse().map_err(|error: address_pool::network::NetworkError| Refusal::new(error.to_string()))
}

fn address(text: &str, network: &Network) -> Result<IpAddr, Refusal> {
    let address = text.parse().ok().filter(|address| network.contains(*address));
    address.ok_or_else(|| Refusal::new(format!("{} is not an address of {network}", text.escape_debug())))
}

fn unknown(pool: &str) -> Refusal {
    Refusal::new(format!(
        "pool {} is not known to this driver: it was made with another --state-dir",
        pool.escape_debug()
    ))
}
