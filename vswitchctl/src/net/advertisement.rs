//! Router advertisements: options of `router-port`, and their form in files.

use clap::{Args, ValueEnum};
use ferroflow_proto::northbound::{self as pb, Resource, router_advertisement as wire};
use serde::{Deserialize, Serialize};

use crate::{error::CtlError, net::object::unknown_value};

/// Options about router advertisements.
#[derive(Debug, Args)]
pub struct AdvertisementOptions {
    /// Tell hosts of the router, and where they have addresses from
    #[arg(long = "ra", value_enum, value_name = "MODE")]
    mode: Option<AddressMode>,
    /// MTU that they are told
    #[arg(long = "ra-mtu", value_name = "BYTES")]
    mtu: Option<u32>,
    /// A resolver that they are told, instead of those before; may be repeated
    #[arg(long = "ra-rdnss", value_name = "IP")]
    rdnss: Vec<String>,
    /// A domain that they search, instead of those before; may be repeated
    #[arg(long = "ra-dnssl", value_name = "DOMAIN")]
    dnssl: Vec<String>,
    /// A network behind the router, NETWORK or NETWORK=low or =high; may be repeated
    #[arg(long = "ra-route", value_name = "NETWORK", value_parser = route)]
    routes: Vec<Route>,
    /// How good a router it is
    #[arg(long = "ra-preference", value_enum, value_name = "PREFERENCE")]
    preference: Option<Preference>,
    /// Seconds for which it is a default router; 0: it is none
    #[arg(long = "ra-lifetime", value_name = "SECONDS")]
    lifetime: Option<u32>,
    /// Advertise unasked too, every MIN-MAX seconds; 0: only when asked
    #[arg(long = "ra-periodic", value_name = "MIN-MAX", value_parser = interval)]
    interval: Option<(u32, u32)>,
}

/// Where hosts have addresses from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressMode {
    /// They make them from the prefix
    #[default]
    Slaac,
    /// DHCPv6 gives them, and everything else
    Dhcpv6Stateful,
    /// They make them from the prefix; DHCPv6 tells everything else
    Dhcpv6Stateless,
}

/// How good a router is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// Worse than others
    Low,
    /// As others
    #[default]
    Medium,
    /// Better than others
    High,
}

/// A network behind the router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    prefix: String,
    #[serde(default)]
    preference: Preference,
}

/// What a router port says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advertisement {
    #[serde(default)]
    address_mode: AddressMode,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    rdnss: Vec<String>,
    #[serde(default)]
    dnssl: Vec<String>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    preference: Preference,
    #[serde(default)]
    lifetime: Option<u32>,
    #[serde(default)]
    periodic: bool,
    #[serde(default)]
    min_interval: u32,
    #[serde(default)]
    max_interval: u32,
}

fn route(text: &str) -> Result<Route, String> {
    let (prefix, preference) = text.split_once('=').unwrap_or((text, "medium"));
    Ok(Route { prefix: prefix.to_owned(), preference: Preference::from_str(preference, true)? })
}

fn interval(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("{text:?} is not an interval; write 200-600");
    let number = |text: &str| text.parse().map_err(|_| wrong());
    match text.split_once('-') {
        None if text == "0" => Ok((0, 0)),
        None => Err(wrong()),
        Some((min, max)) => Ok((number(min)?, number(max)?)),
    }
}

impl AdvertisementOptions {
    /// Something is said.
    pub fn is_given(&self) -> bool {
        let numbers = [self.mtu, self.lifetime];
        let lists = [self.rdnss.is_empty(), self.dnssl.is_empty(), self.routes.is_empty()];
        self.mode.is_some()
            || self.preference.is_some()
            || self.interval.is_some()
            || numbers.iter().any(Option::is_some)
            || lists.contains(&false)
    }

    /// Makes the changes.
    pub fn apply(&self, to: &mut Option<Advertisement>) {
        if !self.is_given() {
            return;
        }
        let to = to.get_or_insert_default();
        to.address_mode = self.mode.unwrap_or(to.address_mode);
        to.mtu = self.mtu.unwrap_or(to.mtu);
        to.preference = self.preference.unwrap_or(to.preference);
        to.lifetime = self.lifetime.or(to.lifetime);
        for (list, given) in [(&mut to.rdnss, &self.rdnss), (&mut to.dnssl, &self.dnssl)] {
            if !given.is_empty() {
                list.clone_from(given);
            }
        }
        if !self.routes.is_empty() {
            to.routes.clone_from(&self.routes);
        }
        if let Some((min, max)) = self.interval {
            (to.periodic, to.min_interval, to.max_interval) = (max != 0, min, max);
        }
    }
}

impl Advertisement {
    /// From the API.
    ///
    /// # Errors
    /// [`CtlError::Newer`] when this version does not know something of it.
    pub fn read(resource: &Resource, ra: &pb::RouterAdvertisement) -> Result<Self, CtlError> {
        use wire::AddressMode as Mode;
        let address_mode = match Mode::try_from(ra.address_mode) {
            Ok(Mode::Unspecified) => AddressMode::Slaac,
            Ok(Mode::Dhcpv6Stateful) => AddressMode::Dhcpv6Stateful,
            Ok(Mode::Dhcpv6Stateless) => AddressMode::Dhcpv6Stateless,
            Err(_) => return Err(unknown_value(resource, "address_mode", ra.address_mode)),
        };
        let preference = |raw: i32| match wire::Preference::try_from(raw) {
            Ok(wire::Preference::Unspecified) => Ok(Preference::Medium),
            Ok(wire::Preference::Low) => Ok(Preference::Low),
            Ok(wire::Preference::High) => Ok(Preference::High),
            Err(_) => Err(unknown_value(resource, "preference", raw)),
        };
        let route = |route: &wire::Route| {
            Ok(Route { prefix: route.prefix.clone(), preference: preference(route.preference)? })
        };
        Ok(Self {
            address_mode,
            mtu: ra.mtu,
            rdnss: ra.rdnss.clone(),
            dnssl: ra.dnssl.clone(),
            routes: ra.routes.iter().map(route).collect::<Result<_, CtlError>>()?,
            preference: preference(ra.preference)?,
            lifetime: ra.lifetime,
            periodic: ra.periodic,
            min_interval: ra.min_interval,
            max_interval: ra.max_interval,
        })
    }

    /// For the API.
    pub fn write(&self) -> pb::RouterAdvertisement {
        use wire::AddressMode as Mode;
        let mode = match self.address_mode {
            AddressMode::Slaac => Mode::Unspecified,
            AddressMode::Dhcpv6Stateful => Mode::Dhcpv6Stateful,
            AddressMode::Dhcpv6Stateless => Mode::Dhcpv6Stateless,
        };
        let preference = |preference: Preference| match preference {
            Preference::Low => wire::Preference::Low.into(),
            Preference::Medium => wire::Preference::Unspecified.into(),
            Preference::High => wire::Preference::High.into(),
        };
        let route = |route: &Route| wire::Route {
            prefix: route.prefix.clone(),
            preference: preference(route.preference),
        };
        pb::RouterAdvertisement {
            address_mode: mode.into(),
            mtu: self.mtu,
            rdnss: self.rdnss.clone(),
            dnssl: self.dnssl.clone(),
            routes: self.routes.iter().map(route).collect(),
            preference: preference(self.preference),
            lifetime: self.lifetime,
            periodic: self.periodic,
            min_interval: self.min_interval,
            max_interval: self.max_interval,
        }
    }

    /// What `show` prints.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mode = match self.address_mode {
            AddressMode::Slaac => "slaac",
            AddressMode::Dhcpv6Stateful => "dhcpv6-stateful",
            AddressMode::Dhcpv6Stateless => "dhcpv6-stateless",
        };
        let mut fields = vec![("advertises", mode.to_owned())];
        fields.extend((self.mtu != 0).then(|| ("advertised MTU", self.mtu.to_string())));
        fields.extend(self.rdnss.iter().map(|ip| ("resolver", ip.clone())));
        fields.extend(self.dnssl.iter().map(|domain| ("search", domain.clone())));
        fields.extend(self.routes.iter().map(|route| ("advertised route", route.prefix.clone())));
        fields.extend(self.lifetime.map(|seconds| ("lifetime", format!("{seconds} s"))));
        let interval = || format!("{}-{} s", self.min_interval, self.max_interval);
        fields.extend(self.periodic.then(|| ("unasked", interval())));
        fields
    }
}
