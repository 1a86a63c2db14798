//! Confined for real: each test confines a thread of its own, which ends with it.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::{fs, io::ErrorKind, process::Command, thread};

use confinement::{Role, confine};

fn status() -> Vec<(String, String)> {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn field(name: &str) -> String {
    status().into_iter().find(|(found, _)| found == name).unwrap().1
}

fn bits(name: &str) -> u64 {
    u64::from_str_radix(&field(name), 16).unwrap()
}

/// Runs on a thread that nobody else uses.
fn alone(act: impl FnOnce() + Send + 'static) {
    thread::spawn(act).join().unwrap();
}

#[test]
fn a_controller_has_no_capability_and_starts_no_program() {
    alone(|| {
        let outcome = confine(Role::Controller).unwrap();
        assert_eq!(outcome.effective, 0);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(bits(set), 0, "{set}");
        }
        assert!(outcome.is_bounding_wider || bits("CapBnd") == 0);
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
        let error = Command::new("true").status().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        // What it starts is confined too, and it can start threads, although not by clone3.
        assert_eq!(thread::spawn(|| field("Seccomp")).join().unwrap(), "2");
    });
}

#[test]
fn a_holder_starts_programs_that_gain_nothing() {
    alone(|| {
        let before = bits("CapPrm");
        confine(Role::Holder).unwrap();
        assert_eq!(bits("CapEff"), 0);
        let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        let started = u64::from_str_radix(line.trim(), 16).unwrap();
        // Those that root had, without the ability to load modules, to override modes of files, ...
        let (dac_override, net_admin, sys_module) = (1 << 1, 1 << 12, 1 << 16);
        assert_eq!(started & (dac_override | sys_module), 0, "{started:x}");
        assert_eq!(started & net_admin, before & net_admin, "{started:x}");
        let refused = Command::new("unshare").args(["--mount", "true"]).output().unwrap();
        assert!(!refused.status.success(), "{refused:?}");
    });
}

#[test]
fn what_was_confined_once_is_only_confined_more() {
    alone(|| {
        confine(Role::Switch).unwrap();
        let switch = bits("CapEff");
        confine(Role::Lab).unwrap();
        assert_eq!(bits("CapEff"), 0);
        confine(Role::Switch).unwrap();
        assert!(bits("CapEff") == 0 && switch.count_ones() <= 8);
    });
}
