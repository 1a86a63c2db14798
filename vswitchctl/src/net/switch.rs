//! `switch`: L2 networks.

use clap::Args;
use ferroflow_proto::northbound::{LogicalSwitch, Resource, resource};
use serde::{Deserialize, Serialize};

use crate::{
    client::Labels,
    error::CtlError,
    file::section,
    name::Noun,
    net::{
        address_management::{AddressManagement, AddressOptions},
        command::About,
        load_balancer::full_names,
        load_balancer_group::full_groups,
        multicast::{MulticastOptions, Snooping},
        object::{
            Object, Options, Patch, TunnelKey, is_any_key, labels_of, limited, requested_key, wrong_kind,
        },
        policy::Policy,
    },
    output::{short, yes},
};

/// Options of a switch.
#[derive(Debug, Args)]
pub struct SwitchOptions {
    /// What becomes of its workloads' packets that no ACL decides about
    #[arg(long = "default", value_enum, value_name = "POLICY")]
    default_policy: Option<Policy>,
    /// A load balancer that its workloads use, instead of those before; may be repeated
    #[arg(long = "load-balancer", value_name = "NAME")]
    load_balancers: Vec<String>,
    /// No load balancers
    #[arg(long, conflicts_with = "load_balancers")]
    no_load_balancers: bool,
    /// A group of load balancers, instead of those before; may be repeated
    #[arg(long = "load-balancer-group", value_name = "NAME")]
    load_balancer_groups: Vec<String>,
    /// No groups of load balancers
    #[arg(long, conflicts_with = "load_balancer_groups")]
    no_load_balancer_groups: bool,
    #[command(flatten)]
    addresses: AddressOptions,
    /// Give no addresses
    #[arg(long, conflicts_with_all = ["subnet", "exclude_ips", "ipv6_prefix", "mac_prefix"])]
    no_address_management: bool,
    /// DHCP options for its workloads' DHCPv4; "" for none
    #[arg(long, value_name = "NAME")]
    dhcpv4: Option<String>,
    /// DHCP options for its workloads' DHCPv6; "" for none
    #[arg(long, value_name = "NAME")]
    dhcpv6: Option<String>,
    /// A list of names that its workloads can resolve, instead of those before; may be repeated
    #[arg(long = "names", value_name = "NAME")]
    names: Vec<String>,
    /// No names
    #[arg(long, conflicts_with = "names")]
    no_names: bool,
    /// Bounds on what its packets ask hosts for; "" for the usual ones
    #[arg(long, value_name = "NAME")]
    limits: Option<String>,
    /// Seconds after which a station is forgotten that has not spoken; 0: never
    #[arg(long, value_name = "SECONDS")]
    fdb_age: Option<u16>,
    /// Let frames with VLAN tags pass
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    vlan_passthru: Option<bool>,
    /// Whether questions for addresses that no router has reach routers too: true or false
    #[arg(long, value_name = "YES")]
    broadcast_arps: Option<bool>,
    /// Key that it is to have in tunnels, 1 to 16777215; 0: any
    #[arg(long, value_name = "KEY", value_parser = clap::value_parser!(u32).range(0..=0xff_ffff))]
    tunnel_key: Option<u32>,
    /// Connections that a host remembers at most of each of its workloads; 0: any
    #[arg(long, value_name = "N")]
    ct_zone_limit: Option<u32>,
    #[command(flatten)]
    multicast: MulticastOptions,
}

impl Options for SwitchOptions {}

/// What a user sets of a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchSpec {
    /// Free key-value pairs.
    #[serde(default, with = "section")]
    pub labels: Labels,
    /// What becomes of packets that no ACL decides about.
    #[serde(default)]
    pub default_policy: Policy,
    /// Load balancers that its workloads use.
    #[serde(default)]
    pub load_balancers: Vec<String>,
    /// Groups of such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_groups: Vec<String>,
    /// What it gives its ports addresses from.
    #[serde(default)]
    pub address_management: Option<AddressManagement>,
    /// DHCP options of its workloads.
    #[serde(default)]
    pub dhcpv4_options: String,
    /// DHCPv6 options of its workloads.
    #[serde(default)]
    pub dhcpv6_options: String,
    /// Lists of names that its workloads can resolve.
    #[serde(default)]
    pub names: Vec<String>,
    /// Bounds on what its packets ask hosts for.
    #[serde(default)]
    pub control_plane_limits: String,
    /// Seconds after which a station is forgotten that has not spoken; none: the usual time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb_age_threshold: Option<u32>,
    /// Frames with VLAN tags pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vlan_passthru: bool,
    /// Whether questions for addresses that no router has reach routers too; none: they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_arps_to_all_routers: Option<bool>,
    /// Key that it is to have in tunnels; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub requested_tunnel_key: u32,
    /// Connections that a host remembers at most; 0: any.
    #[serde(default, skip_serializing_if = "is_any_key")]
    pub ct_zone_limit: u32,
    /// How it listens to who wants to hear which group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multicast_snooping: Option<Snooping>,
}

impl SwitchSpec {
    /// With everything that it names named in full.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when something can be no name.
    pub fn named(self) -> Result<Self, CtlError> {
        Ok(Self {
            load_balancers: full_names(&self.load_balancers)?,
            load_balancer_groups: full_groups(&self.load_balancer_groups)?,
            dhcpv4_options: Noun::DhcpOptions.full(&self.dhcpv4_options)?,
            dhcpv6_options: Noun::DhcpOptions.full(&self.dhcpv6_options)?,
            names: self.names.iter().map(|text| Noun::Names.full(text)).collect::<Result<_, _>>()?,
            control_plane_limits: Noun::Limits.full(&self.control_plane_limits)?,
            ..self
        })
    }
}

impl Object for SwitchSpec {
    const NOUN: Noun = Noun::Switch;
    const ABOUT: About = About {
        add: "Make a switch",
        set: "Change a switch",
        list: "List switches",
        show: "Show a switch with its ports and ACLs",
        del: "Delete a switch with its ports and ACLs",
    };
    const HEADINGS: &'static [&'static str] = &["SWITCH", "KEY", "LABELS"];
    type New = SwitchOptions;
    type Changes = SwitchOptions;
    type Status = TunnelKey;

    fn read(resource: &Resource) -> Result<(Self, TunnelKey), CtlError> {
        let Some(resource::Spec::LogicalSwitch(switch)) = &resource.spec else {
            return Err(wrong_kind(resource, Self::NOUN));
        };
        let default_policy = Policy::read(resource, switch.default_policy)?;
        let spec = Self {
            labels: labels_of(resource),
            default_policy,
            load_balancers: switch.load_balancers.clone(),
            load_balancer_groups: switch.load_balancer_groups.clone(),
            address_management: switch.address_management.as_ref().map(AddressManagement::read),
            dhcpv4_options: switch.dhcpv4_options.clone(),
            dhcpv6_options: switch.dhcpv6_options.clone(),
            names: switch.names.clone(),
            control_plane_limits: switch.control_plane_limits.clone(),
            fdb_age_threshold: switch.fdb_age_threshold,
            vlan_passthru: switch.vlan_passthru,
            broadcast_arps_to_all_routers: switch.broadcast_arps_to_all_routers,
            requested_tunnel_key: switch.requested_tunnel_key,
            ct_zone_limit: switch.ct_zone_limit,
            multicast_snooping: switch.multicast_snooping.as_ref().map(Snooping::read),
        };
        Ok((spec, TunnelKey { tunnel_key: switch.tunnel_key }))
    }

    fn spec(&self) -> resource::Spec {
        resource::Spec::LogicalSwitch(LogicalSwitch {
            default_policy: self.default_policy.write(),
            load_balancers: self.load_balancers.clone(),
            load_balancer_groups: self.load_balancer_groups.clone(),
            address_management: self.address_management.as_ref().map(AddressManagement::write),
            dhcpv4_options: self.dhcpv4_options.clone(),
            dhcpv6_options: self.dhcpv6_options.clone(),
            names: self.names.clone(),
            control_plane_limits: self.control_plane_limits.clone(),
            fdb_age_threshold: self.fdb_age_threshold,
            vlan_passthru: self.vlan_passthru,
            broadcast_arps_to_all_routers: self.broadcast_arps_to_all_routers,
            requested_tunnel_key: self.requested_tunnel_key,
            ct_zone_limit: self.ct_zone_limit,
            multicast_snooping: self.multicast_snooping.as_ref().map(Snooping::write),
            ..Default::default()
        })
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }

    fn labels_mut(&mut self) -> &mut Labels {
        &mut self.labels
    }

    fn make(new: SwitchOptions, labels: Labels, _name: &str) -> Result<Self, CtlError> {
        let mut address_management = None;
        new.addresses.apply(&mut address_management);
        let mut multicast_snooping = None;
        new.multicast.apply(&mut multicast_snooping);
        Self {
            labels,
            default_policy: new.default_policy.unwrap_or_default(),
            load_balancers: new.load_balancers,
            load_balancer_groups: new.load_balancer_groups,
            address_management,
            dhcpv4_options: new.dhcpv4.unwrap_or_default(),
            dhcpv6_options: new.dhcpv6.unwrap_or_default(),
            names: new.names,
            control_plane_limits: new.limits.unwrap_or_default(),
            fdb_age_threshold: new.fdb_age.map(u32::from),
            vlan_passthru: new.vlan_passthru.unwrap_or_default(),
            broadcast_arps_to_all_routers: new.broadcast_arps,
            requested_tunnel_key: new.tunnel_key.unwrap_or_default(),
            ct_zone_limit: new.ct_zone_limit.unwrap_or_default(),
            multicast_snooping,
        }
        .named()
    }

    fn change(given: &SwitchOptions, _name: &str, patch: &mut Patch<'_, Self>) -> Result<(), CtlError> {
        patch.set("default_policy", given.default_policy.as_ref(), |switch| &mut switch.default_policy);
        let names = full_names(&given.load_balancers)?;
        patch.list("load_balancers", &names, given.no_load_balancers, |switch| &mut switch.load_balancers);
        let (groups, none) = (full_groups(&given.load_balancer_groups)?, given.no_load_balancer_groups);
        patch.list("load_balancer_groups", &groups, none, |switch| &mut switch.load_balancer_groups);
        let is_given = given.addresses.is_given() || given.no_address_management;
        patch.change("address_management", is_given, |switch| {
            if given.no_address_management {
                switch.address_management = None;
            }
            given.addresses.apply(&mut switch.address_management);
        });
        let full = |noun: Noun, text: &Option<String>| text.as_ref().map(|text| noun.full(text)).transpose();
        let (dhcpv4, dhcpv6) =
            (full(Noun::DhcpOptions, &given.dhcpv4)?, full(Noun::DhcpOptions, &given.dhcpv6)?);
        patch.set("dhcpv4_options", dhcpv4.as_ref(), |switch| &mut switch.dhcpv4_options);
        patch.set("dhcpv6_options", dhcpv6.as_ref(), |switch| &mut switch.dhcpv6_options);
        let names = given.names.iter().map(|text| Noun::Names.full(text)).collect::<Result<_, _>>()?;
        patch.list("names", &names, given.no_names, |switch| &mut switch.names);
        let limits = full(Noun::Limits, &given.limits)?;
        patch.set("control_plane_limits", limits.as_ref(), |switch| &mut switch.control_plane_limits);
        let age = given.fdb_age.map(|age| Some(u32::from(age)));
        patch.set("fdb_age_threshold", age.as_ref(), |switch| &mut switch.fdb_age_threshold);
        patch.set("vlan_passthru", given.vlan_passthru.as_ref(), |switch| &mut switch.vlan_passthru);
        let asks = given.broadcast_arps.map(Some);
        let path = "broadcast_arps_to_all_routers";
        patch.set(path, asks.as_ref(), |switch| &mut switch.broadcast_arps_to_all_routers);
        let key = given.tunnel_key.as_ref();
        patch.set("requested_tunnel_key", key, |switch| &mut switch.requested_tunnel_key);
        patch.set("ct_zone_limit", given.ct_zone_limit.as_ref(), |switch| &mut switch.ct_zone_limit);
        patch.change("multicast_snooping", given.multicast.is_given(), |switch| {
            given.multicast.apply(&mut switch.multicast_snooping);
        });
        Ok(())
    }

    fn cells(&self, status: &TunnelKey) -> Vec<String> {
        vec![status.tunnel_key.to_string()]
    }

    fn fields(&self, status: &TunnelKey) -> Vec<(&'static str, String)> {
        let default = ("default", self.default_policy.word().into());
        let key = ("tunnel key", status.tunnel_key.to_string());
        let balancers = self.load_balancers.iter().map(|name| ("load balancer", short(name).to_owned()));
        let groups = self.load_balancer_groups.iter();
        let groups = groups.map(|name| ("load balancer group", short(name).to_owned()));
        let mut fields: Vec<_> = [default, key].into_iter().chain(balancers).chain(groups).collect();
        fields.extend(self.address_management.iter().flat_map(AddressManagement::fields));
        for (title, name) in [
            ("DHCPv4", &self.dhcpv4_options),
            ("DHCPv6", &self.dhcpv6_options),
            ("limits", &self.control_plane_limits),
        ] {
            fields.extend((!name.is_empty()).then(|| (title, short(name).to_owned())));
        }
        let age = self.fdb_age_threshold.map(|age| ("station age", format!("{age} s")));
        let tags = self.vlan_passthru.then(|| ("VLAN tags", "pass".to_owned()));
        let asks = self.broadcast_arps_to_all_routers.map(|asks| ("asks all routers", yes(asks)));
        fields.extend(age.into_iter().chain(tags).chain(asks));
        fields.extend(requested_key(self.requested_tunnel_key));
        fields.extend(limited(self.ct_zone_limit));
        fields.extend(self.multicast_snooping.iter().flat_map(Snooping::fields));
        fields.extend(self.names.iter().map(|name| ("names", short(name).to_owned())));
        fields
    }
}
