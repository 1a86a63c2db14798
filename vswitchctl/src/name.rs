//! The kinds of objects and their names. An object may be typed by its id, by
//! `PARENT/ID`, or by its full resource name; here these are told apart. Finding an
//! id among what exists is [`crate::client`]'s.

use clap::{ValueEnum, builder::PossibleValue};
use ferroflow_proto::northbound::Kind;

use crate::error::CtlError;

/// Longest id.
const ID_MAX: usize = 63;

/// Declares each kind once: in the API, what it may be below, collection of its names,
/// word, command, and help.
macro_rules! nouns {
    ($($(#[$doc:meta])* $noun:ident: $kind:ident, [$($parent:ident)|*], $collection:literal, $word:literal, $command:literal, $help:literal;)*) => {
        /// A kind of object.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Noun {
            $($(#[$doc])* $noun,)*
        }

        impl Noun {
            /// All of them, parents before their children and what is referred to before
            /// what refers: the order in which a file is applied.
            pub const ALL: [Self; { [$(Self::$noun),*].len() }] = [$(Self::$noun),*];

            /// In a sentence.
            pub fn word(self) -> &'static str {
                match self { $(Self::$noun => $word,)* }
            }

            /// On the command line.
            pub fn command(self) -> &'static str {
                match self { $(Self::$noun => $command,)* }
            }

            /// Command that lists what there is.
            pub fn list_command(self) -> &'static str {
                match self { $(Self::$noun => concat!($command, " list"),)* }
            }

            /// In the API.
            pub fn kind(self) -> Kind {
                match self { $(Self::$noun => Kind::$kind,)* }
            }

            /// What it may be below, what it mostly is first.
            pub fn parents(self) -> &'static [Self] {
                match self { $(Self::$noun => &[$(Self::$parent),*],)* }
            }

            /// First segment of its names, or of the part below the parent.
            pub fn collection(self) -> &'static str {
                match self { $(Self::$noun => $collection,)* }
            }
        }

        impl ValueEnum for Noun {
            fn value_variants<'a>() -> &'a [Self] {
                &Self::ALL
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                let help = match self { $(Self::$noun => $help,)* };
                Some(PossibleValue::new(self.command()).help(help))
            }
        }
    };
}

nouns! {
    /// Values that are others on each chassis.
    TemplateVariable: TemplateVariable, [], "template-variables", "template variable", "template-variable", "Values that are others on each chassis";
    /// Who is told of sampled packets.
    SampleCollector: SampleCollector, [], "sample-collectors", "sample collector", "sample-collector", "Collectors of sampled packets";
    /// Load balancer.
    LoadBalancer: LoadBalancer, [], "load-balancers", "load balancer", "load-balancer", "Addresses that stand for backends";
    /// Load balancers that are used together.
    LoadBalancerGroup: LoadBalancerGroup, [], "load-balancer-groups", "load balancer group", "load-balancer-group", "Load balancers that are used together";
    /// Hosts that may be a gateway.
    HaChassisGroup: HaChassisGroup, [], "ha-chassis-groups", "HA chassis group", "ha-chassis-group", "Hosts that may be a gateway";
    /// What DHCP clients are told.
    DhcpOptions: DhcpOptions, [], "dhcp-options", "DHCP options", "dhcp-options", "What DHCP clients are told";
    /// Names with their addresses.
    Names: Names, [], "names", "list of names", "names", "Names that workloads can resolve";
    /// Bounds on what packets ask hosts for.
    Limits: ControlPlaneLimits, [], "control-plane-limits", "limits", "control-plane-limits", "Bounds on what packets ask hosts for";
    /// Logical switch.
    Switch: LogicalSwitch, [], "switches", "switch", "switch", "Logical switches";
    /// Logical router.
    Router: LogicalRouter, [], "routers", "router", "router", "Logical routers";
    /// Port of a logical router.
    RouterPort: LogicalRouterPort, [Router], "ports", "router port", "router-port", "Ports of routers";
    /// Port of a logical switch.
    SwitchPort: LogicalSwitchPort, [Switch], "ports", "switch port", "switch-port", "Ports of switches";
    /// Address translation.
    Nat: Nat, [Router], "nats", "NAT", "nat", "Address translation by routers";
    /// Policy of a router.
    RouterPolicy: RouterPolicy, [Router], "policies", "router policy", "router-policy", "What overrules routes";
    /// Addresses with a name.
    AddressSet: AddressSet, [], "address-sets", "address set", "address-set", "Addresses with a name";
    /// Switch ports with a name.
    PortGroup: PortGroup, [], "port-groups", "port group", "port-group", "Switch ports with a name";
    /// Access rule.
    Acl: Acl, [Switch | PortGroup], "acls", "ACL", "acl", "Access rules";
    /// Rule about quality of service.
    QosRule: QosRule, [Switch], "qos-rules", "QoS rule", "qos-rule", "Marks and rates of packets";
    /// Host.
    Chassis: Chassis, [], "chassis", "chassis", "chassis", "Hosts";
}

/// What was typed for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// Its full name.
    Full(String),
    /// Only its id; it may be below any parent.
    Id(String),
}

impl Noun {
    /// What it is below, if anything; mostly, if it may be below several.
    pub fn parent(self) -> Option<Self> {
        self.parents().first().copied()
    }

    /// Kind of the parent that is typed as `text`: `@web` is a port group.
    pub fn parent_typed(self, text: &str) -> Option<Self> {
        let is_meant =
            |noun: &&Self| noun.is_full(text) || **noun == Self::PortGroup && text.starts_with('@');
        self.parents().iter().find(is_meant).copied().or(self.parent())
    }

    /// Where its parent is known: `port`.
    pub fn short_word(self) -> &'static str {
        self.word().rsplit(' ').next().unwrap_or_default()
    }

    /// Full name of the object `id`, for what has no parent.
    pub fn top(self, id: &str) -> String {
        format!("{}/{id}", self.collection())
    }

    /// Full name of the object `id` below the object `parent`.
    pub fn below(self, parent: &str, id: &str) -> String {
        match self.parent() {
            Some(noun) => self.under(noun, parent, id),
            None => self.top(id),
        }
    }

    /// Full name of the object `id` below the object `parent` of a kind.
    pub fn under(self, noun: Self, parent: &str, id: &str) -> String {
        format!("{}/{parent}/{}/{id}", noun.collection(), self.collection())
    }

    /// Kind of the object with this full name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|noun| noun.is_full(name))
    }

    fn is_full(self, name: &str) -> bool {
        let segments: Vec<&str> = name.split('/').collect();
        match (self.parents(), segments.as_slice()) {
            ([], [collection, id]) => *collection == self.collection() && is_id(id),
            ([_, ..], [above, parent, collection, id]) => {
                let is_parent = self.parents().iter().any(|noun| *above == noun.collection());
                is_parent && is_id(parent) && *collection == self.collection() && is_id(id)
            }
            _ => false,
        }
    }

    /// Full name of what `text` names, of a kind that is below nothing; empty stays empty.
    ///
    /// # Errors
    /// As [`Self::refer`].
    pub fn full(self, text: &str) -> Result<String, CtlError> {
        if text.is_empty() {
            return Ok(String::new());
        }
        match self.refer(text)? {
            Reference::Full(name) | Reference::Id(name) => Ok(name),
        }
    }

    /// What `text` means as the name of such an object.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when it can be no name.
    pub fn refer(self, text: &str) -> Result<Reference, CtlError> {
        if self.is_full(text) {
            return Ok(Reference::Full(text.to_owned()));
        }
        let plain = |text| if self == Self::PortGroup { plain_group(text) } else { text };
        match (self.parent_typed(text), text.split_once('/')) {
            (None, None) if is_id(plain(text)) => Ok(Reference::Full(self.top(plain(text)))),
            (Some(_), None) if is_id(text) => Ok(Reference::Id(text.to_owned())),
            (Some(noun), Some((parent, id))) if is_id(plain_group(parent)) && is_id(id) => {
                let is_group = parent.starts_with('@');
                if is_group == (noun == Self::PortGroup) {
                    return Ok(Reference::Full(self.under(noun, plain_group(parent), id)));
                }
                Err(self.misnamed(text))
            }
            _ => Err(self.misnamed(text)),
        }
    }

    fn misnamed(self, text: &str) -> CtlError {
        CtlError::Usage(format!("{text:?} is not the name of a {}: {}", self.word(), self.forms()))
    }

    /// Full name of an object that is to be made: `PARENT ID`, or one of the forms of
    /// [`Noun::refer`] that names the parent.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when it can be no name, or lacks the parent.
    pub fn new_name(self, text: &str, id: Option<&str>) -> Result<String, CtlError> {
        let Some(id) = id else {
            return match self.refer(text)? {
                Reference::Full(name) => Ok(name),
                Reference::Id(id) => Err(CtlError::Usage(format!(
                    "which {} is the {} {id:?} for? Name both: {}",
                    self.parent().unwrap_or(self).word(),
                    self.word(),
                    self.forms()
                ))),
            };
        };
        let parent = self.parent_typed(text).unwrap_or(self);
        let Reference::Full(above) = parent.refer(text)? else {
            return Err(CtlError::Usage(format!("{text:?} is not the name of a {}", parent.word())));
        };
        if !is_id(id) {
            return Err(CtlError::Usage(format!("{id:?} is not an id: {ID_RULE}")));
        }
        Ok(format!("{above}/{}/{id}", self.collection()))
    }

    fn forms(self) -> String {
        match self.parent() {
            Some(parent) => {
                format!("it is {}/{} or {}", parent.command().to_uppercase(), "ID", self.below("ID", "ID"))
            }
            None => format!("it is an id or {}; {ID_RULE}", self.top("ID")),
        }
    }
}

/// The id of a port group without the `@` it may be typed with.
fn plain_group(text: &str) -> &str {
    text.strip_prefix('@').unwrap_or(text)
}

/// What an id is, in words.
pub const ID_RULE: &str =
    "an id is 1 to 63 letters, digits, '.', '_' or '-' and starts with a letter or digit";

/// Whether `text` can be an id.
pub fn is_id(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=ID_MAX).contains(&text.len())
        && text.bytes().all(allowed)
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(name: &str) -> Reference {
        Reference::Full(name.into())
    }

    #[test]
    fn three_forms_of_a_name() {
        let refer = |text: &str| Noun::SwitchPort.refer(text).unwrap();
        assert_eq!(refer("web-1"), Reference::Id("web-1".into()));
        assert_eq!(refer("web/web-1"), full("switches/web/ports/web-1"));
        assert_eq!(refer("switches/web/ports/web-1"), full("switches/web/ports/web-1"));
        assert_eq!(Noun::Switch.refer("web").unwrap(), full("switches/web"));
        assert_eq!(Noun::Switch.refer("switches/web").unwrap(), full("switches/web"));
        assert_eq!(Noun::Acl.refer("db/no-telnet").unwrap(), full("switches/db/acls/no-telnet"));
        assert_eq!(Noun::Acl.refer("@db/no-telnet").unwrap(), full("port-groups/db/acls/no-telnet"));
        assert_eq!(Noun::PortGroup.refer("@db").unwrap(), full("port-groups/db"));
        assert_eq!(Noun::PortGroup.refer("db").unwrap(), full("port-groups/db"));
        let group = Noun::Acl.new_name("port-groups/db", Some("x")).unwrap();
        assert_eq!(group, Noun::Acl.new_name("@db", Some("x")).unwrap());
        assert_eq!(group, "port-groups/db/acls/x");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "/", "a/b/c", "-a", "routers/r1/ports/x/y", "switches/web/acls/a", "a b", "ä"] {
            assert!(Noun::SwitchPort.refer(text).is_err(), "{text:?} was taken");
        }
        assert!(Noun::Switch.refer("routers/r1").is_err());
        assert!(Noun::Switch.refer("@web").is_err() && Noun::SwitchPort.refer("@web/a").is_err());
        assert!(Noun::Switch.refer(&"x".repeat(64)).is_err());
    }

    #[test]
    fn a_new_child_names_its_parent() {
        let name = |text, id| Noun::SwitchPort.new_name(text, id);
        assert_eq!(name("web", Some("web-1")).unwrap(), "switches/web/ports/web-1");
        assert_eq!(name("switches/web", Some("web-1")).unwrap(), "switches/web/ports/web-1");
        assert_eq!(name("web/web-1", None).unwrap(), "switches/web/ports/web-1");
        let error = name("web-1", None).unwrap_err().to_string();
        assert_eq!(
            error,
            "which switch is the switch port \"web-1\" for? Name both: it is SWITCH/ID or switches/ID/ports/ID"
        );
        assert!(name("web", Some("a/b")).is_err());
        assert!(name("web/x", Some("a")).is_err());
    }

    proptest! {
        #[test]
        fn names_are_read_back(noun in prop::sample::select(&Noun::ALL[..]), parent in "[a-z0-9][a-z0-9._-]{0,62}", id in "[A-Z0-9][a-z0-9._-]{0,62}") {
            let names = noun.parents().iter().map(|above| noun.under(*above, &parent, &id));
            for name in names.chain([noun.below(&parent, &id)]) {
                prop_assert_eq!(Noun::of(&name), Some(noun));
                prop_assert_eq!(noun.refer(&name).unwrap(), Reference::Full(name));
            }
        }

        #[test]
        fn any_text_is_a_name_or_refused(text in ".{0,80}", id in proptest::option::of(".{0,70}")) {
            for noun in Noun::ALL {
                if let Ok(name) = noun.new_name(&text, id.as_deref()) {
                    prop_assert_eq!(Noun::of(&name), Some(noun));
                }
            }
        }
    }
}
