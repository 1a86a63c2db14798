//! Field masks: which fields of a resource an update changes.

use std::collections::HashMap;

use ferroflow_proto::northbound::resource::Spec as Wire;

use super::{FieldError, Kind, Name, Shown, limits::MAX_MASK_PATHS};

/// Copies the named fields, or says which there are. Output-only fields are known and
/// skipped: the specs have been stripped of them on both sides.
macro_rules! copy_field {
    ($path:expr, $to:expr, $from:expr; $($field:ident),*; $($output_only:literal),*) => {
        match $path {
            $(path if path == stringify!($field).trim_start_matches("r#") => {
                $to.$field = $from.$field.clone();
                Ok(())
            })*
            $($output_only => Ok(()),)*
            _ => Err(&[$(stringify!($field)),*][..]),
        }
    };
}

/// Changes the fields of `spec` and `labels` that `paths` name to what `new_spec` and
/// `new_labels` have.
///
/// # Errors
/// [`FieldError`] lists the fields there are.
pub fn merge(
    name: &Name,
    (spec, labels): (&mut Wire, &mut HashMap<String, String>),
    (new_spec, new_labels): (Option<&Wire>, &HashMap<String, String>),
    paths: &[String],
) -> Result<(), FieldError> {
    if paths.len() > MAX_MASK_PATHS {
        let reason = format!("{} paths are too many; keep to {MAX_MASK_PATHS}", paths.len());
        return Err(FieldError::new("update_mask", reason));
    }
    for path in paths {
        if path == "labels" {
            new_labels.clone_into(labels);
            continue;
        }
        let fields = match new_spec {
            Some(new_spec) => copy(spec, new_spec, path),
            None => Ok(false),
        };
        match fields {
            Ok(true) => {}
            Ok(false) => {
                let reason = format!("`{path}` is in the mask, so `{}` is needed", name.kind().spec_field());
                return Err(FieldError::new("spec", reason));
            }
            Err(fields) => return Err(unknown(name.kind(), path, fields)),
        }
    }
    Ok(())
}

fn unknown(kind: Kind, path: &str, fields: &[&str]) -> FieldError {
    let mut known: Vec<_> = fields.iter().map(|field| field.trim_start_matches("r#")).collect();
    known.push("labels");
    let reason =
        format!("{} is not a field of {}; there are: {}", Shown(path), kind.spec_field(), known.join(", "));
    FieldError::new("update_mask", reason)
}

/// Copies one field; false when the two are of different kinds.
fn copy(to: &mut Wire, from: &Wire, path: &str) -> Result<bool, &'static [&'static str]> {
    match (to, from) {
        (Wire::LogicalSwitch(to), Wire::LogicalSwitch(from)) => {
            copy_field!(path, to, from; default_policy, load_balancers, address_management, dhcpv4_options,
                dhcpv6_options, names, control_plane_limits, fdb_age_threshold, vlan_passthru,
                broadcast_arps_to_all_routers, multicast_snooping, load_balancer_groups, requested_tunnel_key,
                ct_zone_limit; "tunnel_key")
        }
        (Wire::LogicalSwitchPort(to), Wire::LogicalSwitchPort(from)) => {
            copy_field!(path, to, from; r#type, addresses, port_security, router_port, enabled,
                network_name, tag, parent, gateway_chassis, dhcpv4_options, dhcpv6_options, hostname,
                virtual_ip, virtual_parents, learn_fdb, disable_arp_nd_rsp, receive_multicast,
                disable_garp_rarp, arp_proxy, requested_chassis, peer, multicast_flood,
                multicast_flood_reports, ha_chassis_group, qos_min_rate, qos_max_rate, qos_burst,
                nat_addresses, requested_additional_chassis, activation_strategy, clone_to_unknown,
                enable_router_port_acl, requested_tunnel_key, ct_zone_limit, health_checks, force_fdb_lookup,
                tag_request, tag_type;
                "tunnel_key", "chassis", "up", "additional_chassis", "dynamic_addresses", "virtual_parent", "multicast_groups",
                "chosen_tag")
        }
        (Wire::LogicalRouter(to), Wire::LogicalRouter(from)) => {
            copy_field!(path, to, from; enabled, static_routes, chassis, load_balancers, control_plane_limits,
                lb_force_snat_ips, dnat_force_snat_ips, multicast_relay, load_balancer_groups,
                requested_tunnel_key, ct_zone_limit, snat_ct_zone, ct_commit_all,
                always_learn_from_arp_request, mac_binding_age_threshold; "tunnel_key")
        }
        (Wire::LogicalRouterPort(to), Wire::LogicalRouterPort(from)) => {
            copy_field!(path, to, from; mac, networks, enabled, gateway_chassis, router_advertisement,
                static_mac_bindings, gateway_mtu, route_table, multicast_flood, bfd_sessions, ha_chassis_group,
                requested_tunnel_key, reside_on_redirect_chassis, dhcp_relay_server, redirect_type,
                gateway_mtu_bypass;
                "tunnel_key", "neighbours")
        }
        (Wire::Acl(to), Wire::Acl(from)) => {
            copy_field!(path, to, from; direction, priority, r#match, action, tier, label, log, log_name, severity,
                log_rate, log_burst, apply_after_lb, persist_established, log_related, sample_new,
                sample_established;)
        }
        (Wire::Chassis(to), Wire::Chassis(from)) => {
            copy_field!(path, to, from; hostname, encap_ip, encap_types; "connected", "applied_revision")
        }
        (Wire::LoadBalancer(to), Wire::LoadBalancer(from)) => {
            copy_field!(path, to, from; protocol, vips, hash_fields, reject, health_check, probe_points,
                affinity_timeout, skip_snat, neighbor_responder, add_route, event, templates, hairpin_snat_ips,
                ct_flush, use_stateless_nat;)
        }
        (Wire::LoadBalancerGroup(to), Wire::LoadBalancerGroup(from)) => {
            copy_field!(path, to, from; load_balancers;)
        }
        (Wire::HaChassisGroup(to), Wire::HaChassisGroup(from)) => copy_field!(path, to, from; chassis;),
        (Wire::TemplateVariable(to), Wire::TemplateVariable(from)) => copy_field!(path, to, from; values;),
        (Wire::SampleCollector(to), Wire::SampleCollector(from)) => {
            copy_field!(path, to, from; set_id, probability, targets, new_application, established_application;)
        }
        (Wire::Nat(to), Wire::Nat(from)) => {
            copy_field!(path, to, from; r#type, external_ip, logical_ip, external_port_range, gateway_port,
                stateless, allowed_external_ips, exempted_external_ips, external_mac, logical_port,
                r#match, priority, add_route;)
        }
        (Wire::RouterPolicy(to), Wire::RouterPolicy(from)) => {
            copy_field!(path, to, from; priority, r#match, action, next_hops, output_port, pkt_mark, chain, jump_chain,
                bfd;)
        }
        (Wire::DhcpOptions(to), Wire::DhcpOptions(from)) => copy_field!(path, to, from; cidr, options;),
        (Wire::Names(to), Wire::Names(from)) => copy_field!(path, to, from; records, ttl;),
        (Wire::ControlPlaneLimits(to), Wire::ControlPlaneLimits(from)) => {
            copy_field!(path, to, from; limits;)
        }
        (Wire::QosRule(to), Wire::QosRule(from)) => {
            copy_field!(path, to, from; direction, priority, r#match, dscp, rate_kbps, burst_kbit;)
        }
        (Wire::AddressSet(to), Wire::AddressSet(from)) => copy_field!(path, to, from; addresses;),
        (Wire::PortGroup(to), Wire::PortGroup(from)) => {
            copy_field!(path, to, from; ports, default_policy;)
        }
        (
            Wire::LogicalSwitch(_)
            | Wire::LogicalSwitchPort(_)
            | Wire::LogicalRouter(_)
            | Wire::LogicalRouterPort(_)
            | Wire::Acl(_)
            | Wire::Chassis(_)
            | Wire::AddressSet(_)
            | Wire::PortGroup(_)
            | Wire::LoadBalancer(_)
            | Wire::LoadBalancerGroup(_)
            | Wire::HaChassisGroup(_)
            | Wire::TemplateVariable(_)
            | Wire::SampleCollector(_)
            | Wire::Nat(_)
            | Wire::RouterPolicy(_)
            | Wire::DhcpOptions(_)
            | Wire::Names(_)
            | Wire::ControlPlaneLimits(_)
            | Wire::QosRule(_),
            _,
        ) => return Ok(false),
    }
    .map(|()| true)
}
