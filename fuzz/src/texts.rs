//! Texts of people, files and controllers. What is understood prints as something that is understood alike.

use std::sync::LazyLock;

use flowtable::{
    port::{PortInfo, PortRole, PortTable},
    table::{Change, GroupChange, MeterChange, TableSettings, Tables},
    text::{self, ChangeKind},
    tunnel::OptionChange,
    types::{MacAddr, PortNo},
};
use ovn_northd_lite::{actions, expr};

static PORTS: LazyLock<PortTable> = LazyLock::new(|| {
    let mut ports = PortTable::default();
    let info = PortInfo {
        name: "vm1".to_owned(),
        role: PortRole::Workload,
        up: true,
        mtu: 1500,
        partial_checksums: false,
    };
    ports.insert(PortNo::new(1).expect("1 is a port"), info);
    ports
});

fn with_text(data: &[u8], check: impl Fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
}

/// A rule.
pub fn flow(data: &[u8]) {
    with_text(data, |line| {
        let _ = text::parse_filter(line, &PORTS);
        match text::parse_flow(line, &PORTS) {
            Ok(rule) => {
                let printed = text::print_flow(&rule);
                let back =
                    text::parse_flow(&printed, &PORTS).unwrap_or_else(|error| panic!("{printed}: {error}"));
                assert_eq!((back.matching, back.actions), (rule.matching, rule.actions), "{printed}");
            }
            Err(error) => assert!(error.at <= line.len(), "{error}"),
        }
    });
}

/// A match.
pub fn matching(data: &[u8]) {
    with_text(data, |line| {
        if let Ok(matching) = text::parse_match(line, &PORTS) {
            let printed = matching.to_string();
            assert_eq!(text::parse_match(&printed, &PORTS).as_ref(), Ok(&matching), "{printed}");
        }
    });
}

/// A list of actions.
pub fn actions(data: &[u8]) {
    with_text(data, |line| {
        if let Ok(actions) = text::parse_actions(line, &PORTS) {
            let printed = text::print_actions(&actions);
            assert_eq!(text::parse_actions(&printed, &PORTS).as_ref(), Ok(&actions), "{printed}");
        }
    });
}

/// A group, and changes of its buckets.
pub fn group(data: &[u8]) {
    with_text(data, |line| {
        let _ = text::parse_inserted_buckets(line, &PORTS, |_| None);
        let _ = text::parse_removed_buckets(line, &PORTS);
        if let Ok(group) = text::parse_group(line, &PORTS) {
            let printed = text::print_group(&group);
            let back =
                text::parse_group(&printed, &PORTS).unwrap_or_else(|error| panic!("{printed}: {error}"));
            assert_eq!(back, group, "{printed}");
            let _ = Tables::default().transact(vec![Change::Group(GroupChange::Set(group))]);
        }
    });
}

/// A meter.
pub fn meter(data: &[u8]) {
    with_text(data, |line| {
        if let Ok(meter) = text::parse_meter(line) {
            let printed = text::print_meter(&meter);
            assert_eq!(text::parse_meter(&printed).as_ref(), Ok(&meter), "{printed}");
            let _ = Tables::default().transact(vec![Change::Meter(MeterChange::Set(meter))]);
        }
    });
}

/// A change of the tables, of each kind.
pub fn change(data: &[u8]) {
    let kinds = [
        ChangeKind::Add,
        ChangeKind::Modify,
        ChangeKind::ModifyStrict,
        ChangeKind::Delete,
        ChangeKind::DeleteStrict,
    ];
    with_text(data, |line| {
        for kind in kinds {
            if let Ok(change) = text::parse_change(kind, line, &PORTS) {
                let _ = Tables::default().transact(vec![change]);
            }
        }
    });
}

/// The description of a packet.
pub fn key(data: &[u8]) {
    with_text(data, |line| {
        if let Ok(key) = text::parse_key(line, &PORTS) {
            flowtable::build::frame_from_key(&key, 8);
        }
    });
}

/// A named set, and what changes one.
pub fn set(data: &[u8]) {
    with_text(data, |line| {
        for kind in [text::SetChangeKind::Insert, text::SetChangeKind::Remove, text::SetChangeKind::Delete] {
            let _ = text::parse_set_change(kind, line);
        }
        match text::parse_set(line) {
            Ok(set) => {
                let printed = text::print_set(&set);
                assert_eq!(text::parse_set(&printed).as_ref(), Ok(&set), "{printed}");
            }
            Err(error) => assert!(error.at <= line.len(), "{error}"),
        }
    });
}

/// Which connections, groups, meters and Geneve options are meant, and how tables and fragments are
/// treated.
pub fn filter(data: &[u8]) {
    with_text(data, |line| {
        let _ = text::parse_connection_filter(line);
        let _ = text::parse_deleted_groups(line, &PORTS);
        let _ = text::parse_deleted_meters(line);
        let _ = text::parse_fragment_mode(line);
        let _ = text::parse_ct_state(line);
        if let Ok((table, settings)) = text::parse_table_settings(line, |_| TableSettings::default()) {
            let _ = Tables::default().transact(vec![Change::Table(table, settings)]);
        }
        let _ = text::parse_unmapped_option(line);
        if let Ok(change) = text::parse_mapped_option(line) {
            if let OptionChange::Map(option) = change {
                assert_eq!(text::parse_mapped_option(&option.to_string()), Ok(change));
            }
            let _ = Tables::default().transact(vec![Change::Option(change)]);
        }
    });
}

/// A MAC address.
pub fn mac(data: &[u8]) {
    with_text(data, |line| {
        if let Ok(mac) = line.parse::<MacAddr>() {
            assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    });
}

/// A match in OVN's language.
pub fn ovn_match(data: &[u8]) {
    with_text(data, |line| {
        let _ = ovn_northd_lite::check_match(line);
        if let Ok(expr) = expr::parse(line) {
            let _ = expr.to_matches(&|_| Some(1));
        }
    });
}

/// Actions in OVN's language.
pub fn ovn_actions(data: &[u8]) {
    with_text(data, |line| {
        if let Ok(statements) = actions::parse(line) {
            let printed = actions::print(&statements);
            assert_eq!(actions::parse(&printed).as_ref(), Ok(&statements), "{printed}");
        }
    });
}
