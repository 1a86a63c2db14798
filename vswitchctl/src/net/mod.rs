//! Commands for the logical network. Each kind of object has a file with its
//! [`object::Object`]: the struct of what a user sets (also the form in files), options,
//! and the conversions from and to the API. `command.rs` makes `add`, `set`, `list`,
//! `show` and `del` of it.
//!
//! A new kind needs: its file here with a line in `by_noun`, a line in `name.rs`, one
//! in `cli.rs`, and its place in the documents of `file/`.

pub mod acl;
pub mod address_management;
pub mod address_set;
pub mod advertisement;
pub mod apply;
pub mod attached;
pub mod backup;
pub mod bfd_session;
pub(crate) mod binding;
pub mod change;
pub mod chassis;
pub mod command;
pub mod dhcp_options;
pub mod diff;
pub mod effect;
pub mod explain;
pub mod export;
pub mod gateway;
pub mod ha_chassis_group;
pub mod health_check;
pub mod labels;
pub mod limits;
pub mod load_balancer;
pub mod load_balancer_group;
pub mod multicast;
pub mod names;
pub mod nat;
pub mod object;
pub mod policy;
pub mod port_check;
pub mod port_group;
pub mod progress;
pub mod qos_rule;
pub mod receipt;
pub mod redirect;
pub mod responder;
pub mod router;
pub mod router_policy;
pub mod router_port;
pub mod sample_collector;
pub mod static_mac;
pub mod switch;
pub mod switch_port;
pub mod template_service;
pub mod template_variable;
pub mod watch;

/// Does something with the [`object::Object`] of a noun; `else` for what users do not
/// write, which is chassis.
macro_rules! by_noun {
    ($noun:expr, $object:ident => $do:expr, else => $other:expr) => {
        $crate::net::by_noun!(@ $noun, $object, $do, $other;
            Switch: switch::SwitchSpec,
            SwitchPort: switch_port::SwitchPortSpec,
            Router: router::RouterSpec,
            RouterPort: router_port::RouterPortSpec,
            Acl: acl::AclSpec,
            AddressSet: address_set::AddressSetSpec,
            PortGroup: port_group::PortGroupSpec,
            LoadBalancer: load_balancer::LoadBalancerSpec,
            LoadBalancerGroup: load_balancer_group::LoadBalancerGroupSpec,
            HaChassisGroup: ha_chassis_group::HaChassisGroupSpec,
            TemplateVariable: template_variable::TemplateVariableSpec,
            SampleCollector: sample_collector::SampleCollectorSpec,
            Nat: nat::NatSpec,
            RouterPolicy: router_policy::RouterPolicySpec,
            DhcpOptions: dhcp_options::DhcpOptionsSpec,
            Names: names::NamesSpec,
            Limits: limits::LimitsSpec,
            QosRule: qos_rule::QosRuleSpec,
        )
    };
    (@ $noun:expr, $object:ident, $do:expr, $other:expr; $($variant:ident: $module:ident::$spec:ident,)*) => {
        match $noun {
            $($crate::name::Noun::$variant => {
                type $object = $crate::net::$module::$spec;
                $do
            })*
            $crate::name::Noun::Chassis => $other,
        }
    };
}

pub(crate) use by_noun;
