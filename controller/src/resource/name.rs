//! Kinds of resources and their hierarchical names.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use ferroflow_proto::northbound as pb;

use super::{Shown, limits::MAX_ID_LEN};

/// Declares each kind once: variant, number in the API, collections of its names from the
/// root (of some kinds in several ways), field of its spec.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $wire:ident $([$($collection:literal),+])|+ $field:literal;)*) => {
        /// Type of a resource.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: [Self; { [$(Self::$kind),*].len() }] = [$(Self::$kind),*];

            /// Field of the resource that holds its spec.
            pub const fn spec_field(self) -> &'static str {
                match self {
                    $(Self::$kind => $field,)*
                }
            }

            const fn patterns(self) -> &'static [&'static [&'static str]] {
                match self {
                    $(Self::$kind => &[$(&[$($collection),+]),+],)*
                }
            }

            /// From the API's enum; `None` for "unspecified".
            pub const fn from_wire(kind: pb::Kind) -> Option<Self> {
                match kind {
                    pb::Kind::Unspecified => None,
                    $(pb::Kind::$wire => Some(Self::$kind),)*
                }
            }
        }
    };
}

// Parents before their children.
kinds! {
    /// A logical switch.
    Switch LogicalSwitch ["switches"] "logical_switch";
    /// A port of a switch.
    SwitchPort LogicalSwitchPort ["switches", "ports"] "logical_switch_port";
    /// A logical router.
    Router LogicalRouter ["routers"] "logical_router";
    /// A port of a router.
    RouterPort LogicalRouterPort ["routers", "ports"] "logical_router_port";
    /// A host.
    Chassis Chassis ["chassis"] "chassis";
    /// Addresses that stand for backends.
    LoadBalancer LoadBalancer ["load-balancers"] "load_balancer";
    /// Load balancers with a name.
    LoadBalancerGroup LoadBalancerGroup ["load-balancer-groups"] "load_balancer_group";
    /// Hosts that may be a gateway, with a name.
    HaChassisGroup HaChassisGroup ["ha-chassis-groups"] "ha_chassis_group";
    /// Values that are others on each chassis.
    TemplateVariable TemplateVariable ["template-variables"] "template_variable";
    /// Who is told of sampled packets.
    SampleCollector SampleCollector ["sample-collectors"] "sample_collector";
    /// A translation of a router.
    Nat Nat ["routers", "nats"] "nat";
    /// A rule that overrules a router's routes.
    RouterPolicy RouterPolicy ["routers", "policies"] "router_policy";
    /// Addresses with a name.
    AddressSet AddressSet ["address-sets"] "address_set";
    /// Switch ports with a name.
    PortGroup PortGroup ["port-groups"] "port_group";
    /// What DHCP clients are told.
    DhcpOptions DhcpOptions ["dhcp-options"] "dhcp_options";
    /// Names with their addresses.
    Names Names ["names"] "names";
    /// Bounds on what packets ask hosts for.
    Limits ControlPlaneLimits ["control-plane-limits"] "control_plane_limits";
    /// A rule of a switch about quality of service.
    QosRule QosRule ["switches", "qos-rules"] "qos_rule";
    /// An ACL of a switch or port group.
    Acl Acl ["switches", "acls"] | ["port-groups", "acls"] "acl";
}

impl Kind {
    /// The kind whose names have these collections.
    fn of(collections: &[&str]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.patterns().contains(&collections))
    }

    /// Kinds of what may be below one of this kind.
    pub fn child_kinds(self) -> impl Iterator<Item = Self> {
        let is_below = move |pattern: &&[&str]| {
            pattern.split_last().and_then(|(_, above)| Self::of(above)) == Some(self)
        };
        Self::ALL.into_iter().filter(move |kind| kind.patterns().iter().any(is_below))
    }
}

impl fmt::Display for Kind {
    /// The patterns of its names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = |collections: &&[&str]| {
            collections.iter().map(|collection| format!("{collection}/{{id}}")).collect::<Vec<_>>().join("/")
        };
        f.write_str(&self.patterns().iter().map(pattern).collect::<Vec<_>>().join(" or "))
    }
}

/// Name of a resource, `switches/web/ports/a`. Compared and ordered as its text.
#[derive(Clone)]
pub struct Name {
    text: Arc<str>,
    kind: Kind,
}

/// Text is not the name of a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No kind has such names.
    #[error("{} is not a resource name; write one of {}", Shown(.0), patterns())]
    Pattern(String),
    /// A segment is not an id.
    #[error(
        "{} is not an id; use 1 to 63 of a-z A-Z 0-9 . _ - and start with a letter or digit", Shown(.0)
    )]
    Id(String),
}

fn patterns() -> String {
    Kind::ALL.map(|kind| kind.to_string()).join(", ")
}

/// Checks the grammar of an id.
///
/// # Errors
/// [`NameError::Id`].
pub fn check_id(id: &str) -> Result<(), NameError> {
    let is_first = |b: u8| b.is_ascii_alphanumeric();
    let is_next = |b: u8| is_first(b) || matches!(b, b'.' | b'_' | b'-');
    let well_formed =
        id.len() <= MAX_ID_LEN && id.bytes().next().is_some_and(is_first) && id.bytes().all(is_next);
    if well_formed { Ok(()) } else { Err(NameError::Id(id.to_owned())) }
}

impl Name {
    /// Parses a name of any kind.
    ///
    /// # Errors
    /// [`NameError`] says what a name looks like.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Pattern(text.to_owned());
        let mut collections = [""; 2];
        let mut n_ids = 0;
        let mut segments = text.split('/');
        while let Some(collection) = segments.next() {
            *collections.get_mut(n_ids).ok_or_else(wrong)? = collection;
            check_id(segments.next().ok_or_else(wrong)?)?;
            n_ids += 1;
        }
        let found = collections.get(..n_ids).ok_or_else(wrong)?;
        let kind = Kind::of(found).ok_or_else(wrong)?;
        Ok(Self { text: text.into(), kind })
    }

    /// Name of a chassis.
    ///
    /// # Errors
    /// [`NameError::Id`].
    pub fn chassis(id: &str) -> Result<Self, NameError> {
        check_id(id)?;
        Ok(Self { text: format!("chassis/{id}").into(), kind: Kind::Chassis })
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The last segment.
    pub fn id(&self) -> &str {
        self.text.rsplit_once('/').map_or("", |(_, id)| id)
    }

    /// What it is below of.
    pub fn parent(&self) -> Option<Self> {
        let (above, _) = self.text.rsplit_once('/')?;
        let (parent, _) = above.rsplit_once('/')?;
        Self::parse(parent).ok()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
