//! Variables that have another value on each chassis, as hosts are told of them: sets of that
//! name, whose members each host has for itself. A match names one as it names an address set,
//! a load balancer for its address, its port or its backends; no flow is compiled again when
//! a value changes.
//!
//! Where a chassis has no value, the set is there and empty: nothing equals it, and a load
//! balancer that needs it is not there.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    delta::SetChange,
    expr::{self, Constant},
};

/// What stands before the name of a variable.
const MARK: char = '^';

/// Name of the set with the values of a variable.
pub fn set_of(id: &str) -> String {
    format!("{MARK}{id}")
}

/// Id of the variable that a text names, and nothing else.
pub fn variable(text: &str) -> Option<&str> {
    let id = text.strip_prefix(MARK)?;
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (!id.is_empty() && id.chars().all(is_fine)).then_some(id)
}

/// The set of this name has values of chassis.
pub(crate) fn is_set(name: &str) -> bool {
    name.starts_with(MARK)
}

/// A text is a value: what a match may compare with, or an address with a port.
pub fn is_value(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
        || matches!(expr::constant(text), Some(Constant::Number { .. } | Constant::Port(_)))
}

/// Values as members of a set: `h1 10.0.0.1`.
pub(crate) fn members(values: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let of = |chassis: &String, value: &String| format!("{chassis} {value}");
    values.iter().flat_map(|(chassis, values)| values.iter().map(move |value| of(chassis, value))).collect()
}

/// The members of a set as a chassis sees them.
pub(crate) fn seen_by<'a>(
    chassis: &str,
    name: &str,
    members: &'a BTreeSet<String>,
) -> Cow<'a, BTreeSet<String>> {
    if !is_set(name) {
        return Cow::Borrowed(members);
    }
    let own = members.iter().filter_map(|member| member.strip_prefix(chassis)?.strip_prefix(' '));
    Cow::Owned(own.map(str::to_owned).collect())
}

/// The change of a set as a chassis sees it; `None`: nothing for it.
pub(crate) fn change_seen_by(chassis: &str, name: &str, change: &SetChange) -> Option<SetChange> {
    let seen = |members| seen_by(chassis, name, members).into_owned();
    let seen = SetChange { added: seen(&change.added), removed: seen(&change.removed) };
    (!is_set(name) || seen != SetChange::default()).then_some(seen)
}

/// What may stand in a list of backends of a family: the addresses among values.
fn backends(values: &BTreeSet<String>, is_v4: bool) -> impl Iterator<Item = &str> {
    let is_of_family = move |text: &str| {
        let ip = text.parse::<SocketAddr>().map(|socket| socket.ip()).or_else(|_| text.parse::<IpAddr>());
        ip.is_ok_and(|ip| ip.is_ipv4() == is_v4)
    };
    values.iter().map(String::as_str).filter(move |text| is_of_family(text))
}

/// How a list of backends begins in actions.
const BACKENDS: &str = "backends=\"";

/// Actions with the values of the variables among their backends.
pub(crate) enum Filled<'a> {
    /// With these.
    With(Cow<'a, str>),
    /// No backend is left.
    Nothing,
}

/// Variables among the backends that actions name.
pub(crate) fn named_in(actions: &str) -> impl Iterator<Item = &str> {
    let lists = actions.split(BACKENDS).skip(1).filter_map(|rest| rest.split('"').next());
    lists.flat_map(|list| list.split(',')).filter_map(variable)
}

/// Puts the values of variables into the backends of actions, by a family.
pub(crate) fn fill<'a>(
    actions: &'a str,
    is_v4: bool,
    values: &dyn Fn(&str) -> Option<BTreeSet<String>>,
) -> Filled<'a> {
    if named_in(actions).next().is_none() {
        return Filled::With(Cow::Borrowed(actions));
    }
    let mut parts = actions.split(BACKENDS);
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (list, rest) = part.split_once('"').unwrap_or((part, ""));
        let mut found: Vec<String> = Vec::new();
        for backend in list.split(',') {
            match variable(backend) {
                None => found.push(backend.to_owned()),
                Some(id) => {
                    let values = values(&set_of(id)).unwrap_or_default();
                    found.extend(backends(&values, is_v4).map(str::to_owned));
                }
            }
        }
        if found.is_empty() {
            return Filled::Nothing;
        }
        filled.push_str(&format!("{BACKENDS}{}\"{rest}", found.join(",")));
    }
    Filled::With(Cow::Owned(filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(members: &[&str]) -> BTreeSet<String> {
        members.iter().map(|member| (*member).to_owned()).collect()
    }

    #[test]
    fn a_chassis_sees_its_own_values() {
        let values = [("h1".to_owned(), set(&["10.0.0.1", "80"])), ("h11".to_owned(), set(&["10.0.0.2"]))];
        let members = members(&values.into());
        assert_eq!(members, set(&["h1 10.0.0.1", "h1 80", "h11 10.0.0.2"]));
        assert_eq!(*seen_by("h1", "^x", &members), set(&["10.0.0.1", "80"]));
        assert_eq!(*seen_by("h2", "^x", &members), set(&[]));
        assert_eq!(*seen_by("h1", "$x", &members), members);
        let change = SetChange { added: set(&["h1 a"]), removed: set(&["h2 b"]) };
        let seen = SetChange { added: set(&["a"]), removed: set(&[]) };
        assert_eq!(change_seen_by("h1", "^x", &change), Some(seen));
        assert_eq!(change_seen_by("h3", "^x", &change), None);
    }

    #[test]
    fn backends_are_filled_in_by_family_and_nowhere_else() {
        let values = |name: &str| match name {
            "^b" => Some(set(&["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80", "7"])),
            "^none" => Some(set(&[])),
            _ => None,
        };
        let with = |actions: &str, is_v4| match fill(actions, is_v4, &values) {
            Filled::With(text) => Some(text.into_owned()),
            Filled::Nothing => None,
        };
        let lb = |list: &str| format!("ct_lb_mark(backends=\"{list}\"; skip_snat);");
        assert_eq!(with(&lb("^b"), true), Some(lb("10.0.0.1:80,10.0.0.2:80")));
        assert_eq!(with(&lb("10.0.0.9:80,^none,^gone"), true), Some(lb("10.0.0.9:80")));
        assert_eq!(with(&lb("^b"), false), Some(lb("[2001:db8::1]:80")));
        assert_eq!(with(&lb("^none,^gone"), true), None);
        let log = "log(name=\"a ^b\"); next;";
        assert_eq!(with(log, true), Some(log.to_owned()));
        assert_eq!(named_in(&lb("10.0.0.9:80,^none,^b")).collect::<Vec<_>>(), ["none", "b"]);
    }

    #[test]
    fn values_are_what_can_be_compared_or_reached() {
        for right in ["10.0.0.1", "10.0.0.0/8", "80", "0a:00:00:00:00:01", "\"lp\"", "10.0.0.1:80", "[::1]:9"]
        {
            assert!(is_value(right), "{right}");
        }
        for wrong in ["", "^x", "$x", "@x", "lp", "10.0.0.1 && 1", "10.0.0.1:99999", "a:b", "{1, 2}"] {
            assert!(!is_value(wrong), "{wrong}");
        }
        assert_eq!(variable("^a-b.C_1"), Some("a-b.C_1"));
        for wrong in ["^", "a", "^a b", "^^a", "^\u{e4}"] {
            assert_eq!(variable(wrong), None, "{wrong}");
        }
    }
}
