//! Policies of routers.

use std::net::IpAddr;

use ferroflow_proto::northbound as pb;
use flowtable::types::Priority;
use ovn_northd_lite::model::{PolicyAction, RouterPolicy};

use super::{acl::matching, each, label, router_port::own_port};
use crate::resource::{FieldError, Name, address, limits};

/// Highest priority of a policy, as in OVN.
const MAX_PRIORITY: u32 = 32_767;

pub(super) fn parse(name: &Name, policy: &pb::RouterPolicy) -> Result<RouterPolicy, FieldError> {
    let in_range = (1..=MAX_PRIORITY).contains(&policy.priority);
    let priority = u16::try_from(policy.priority).ok().filter(|_| in_range);
    let priority = priority.and_then(|raw| Priority::new(raw).ok()).ok_or_else(|| {
        let reason = format!("{} is out of range; use 1 to {MAX_PRIORITY}", policy.priority);
        FieldError::new("priority", reason)
    })?;
    let matching = matching(&policy.r#match)?;
    let action = action(policy)?;
    let is_rerouted = matches!(action, PolicyAction::Reroute(_));
    if !policy.output_port.is_empty() && !is_rerouted {
        return Err(FieldError::new("output_port", "only reroute has one; leave it out"));
    }
    if policy.pkt_mark != 0 && action == PolicyAction::Drop {
        return Err(FieldError::new("pkt_mark", "what is dropped keeps no mark; leave it out"));
    }
    let output_port = own_port("output_port", name, &policy.output_port)?;
    if policy.bfd && !is_rerouted {
        return Err(FieldError::new("bfd", "only reroute has next hops; leave it out"));
    }
    let chain = label("chain", &policy.chain)?;
    let (mark, monitored) = (policy.pkt_mark, policy.bfd);
    Ok(RouterPolicy { priority, matching, action, chain, mark, output_port, monitored })
}

fn action(policy: &pb::RouterPolicy) -> Result<PolicyAction, FieldError> {
    use pb::router_policy::Action;
    let hops = each("next_hops", &policy.next_hops, limits::MAX_NEXT_HOPS, address::parse_ip)?;
    let wrong = |reason: &str| FieldError::new("next_hops", reason);
    if !policy.jump_chain.is_empty() && policy.action != i32::from(Action::Jump) {
        return Err(FieldError::new("jump_chain", "only jump goes to a chain; leave it out"));
    }
    let action = match Action::try_from(policy.action) {
        Ok(Action::Allow) => PolicyAction::Allow,
        Ok(Action::Drop) => PolicyAction::Drop,
        Ok(Action::Reroute) => {
            let family = |ip: &IpAddr| ip.is_ipv4();
            let Some(first) = hops.first().map(family) else {
                return Err(wrong("reroute needs a next hop; write one in a network of the router"));
            };
            if hops.iter().any(|ip| family(ip) != first) {
                return Err(wrong("next hops are of both families; use one"));
            }
            return Ok(PolicyAction::Reroute(hops));
        }
        Ok(Action::Jump) => match label("jump_chain", &policy.jump_chain)? {
            chain if chain.is_empty() => {
                return Err(FieldError::new("jump_chain", "jump needs a chain to go to; name one"));
            }
            chain => PolicyAction::Jump(chain),
        },
        Ok(Action::Unspecified) | Err(_) => {
            let reason = format!("{} is not an action; say allow, drop, reroute or jump", policy.action);
            return Err(FieldError::new("action", reason));
        }
    };
    if hops.is_empty() { Ok(action) } else { Err(wrong("only reroute has next hops; leave them out")) }
}
