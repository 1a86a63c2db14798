//! `vswitchd doctor`: what this host can do, and what to do about what it cannot.

use std::{fmt, fs};

use dataplane::probe::{self, Probe};

/// Smallest kernel whose AF_XDP has what ports need (need-wakeup).
const MIN_KERNEL: (u32, u32) = (5, 4);
/// Kernel from which programs are attached by links, which end with the process.
const LINK_KERNEL: (u32, u32) = (5, 9);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Good,
    /// Works, but not as well as it could.
    Weak,
    /// vswitchd cannot forward without it.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    what: &'static str,
    found: String,
    advice: &'static str,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Nothing keeps vswitchd from forwarding.
    pub fn can_run(&self) -> bool {
        self.findings.iter().all(|finding| finding.level != Level::Bad)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let Finding { level, what, found, advice } = finding;
            let word = match level {
                Level::Good => "ok",
                Level::Weak => "weak",
                Level::Bad => "MISSING",
            };
            writeln!(f, "{word:<8} {what:<22} {found}")?;
            if *level != Level::Good {
                writeln!(f, "{:<8} {:<22} -> {advice}", "", "")?;
            }
        }
        let verdict =
            if self.can_run() { "This host can run vswitchd." } else { "This host cannot run vswitchd yet." };
        writeln!(f, "{verdict}")
    }
}

/// Examines the host this process runs on.
pub fn examine() -> Report {
    let findings = vec![
        kernel(),
        probed(
            "AF_XDP sockets",
            probe::af_xdp(),
            "run as root (CAP_NET_RAW), on a kernel with CONFIG_XDP_SOCKETS",
        ),
        probed(
            "XDP programs",
            probe::xdp_program(),
            "run as root (CAP_BPF and CAP_NET_ADMIN), on a kernel with CONFIG_BPF_SYSCALL",
        ),
        net_admin(),
        memlock(),
        cores(),
        huge_pages(),
    ];
    Report { findings }
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let version = kernel_version(&release);
    let level = match version {
        Some(version) if version >= LINK_KERNEL => Level::Good,
        _ => Level::Bad,
    };
    let advice = if version.is_some_and(|version| version >= MIN_KERNEL) {
        "use Linux 5.9 or later: before, an XDP program stays behind when the daemon is killed"
    } else {
        "use Linux 5.9 or later"
    };
    Finding { level, what: "kernel", found: release, advice }
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn probed(what: &'static str, probe: Probe, advice: &'static str) -> Finding {
    match probe {
        Ok(()) => Finding { level: Level::Good, what, found: "usable".to_owned(), advice },
        Err(error) => {
            Finding { level: Level::Bad, what, found: format!("{}: {}", error.call, error.source), advice }
        }
    }
}

/// Bit of CAP_NET_ADMIN in capability sets (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

fn net_admin() -> Finding {
    let effective = status_field("CapEff:").and_then(|hex| u64::from_str_radix(&hex, 16).ok()).unwrap_or(0);
    let has = effective >> CAP_NET_ADMIN & 1 == 1;
    Finding {
        level: if has { Level::Good } else { Level::Bad },
        what: "CAP_NET_ADMIN",
        found: if has { "held" } else { "not held" }.to_owned(),
        advice: "run as root, or give the process CAP_NET_ADMIN",
    }
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

fn memlock() -> Finding {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap_or_default();
    let soft = line.split_whitespace().nth(3).unwrap_or("unknown").to_owned();
    let enough = soft == "unlimited" || soft.parse::<u64>().is_ok_and(|bytes| bytes >= 256 << 20);
    Finding {
        level: if enough { Level::Good } else { Level::Weak },
        what: "locked memory",
        found: format!("limit {soft}"),
        advice: "root raises it by itself; otherwise `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the unit",
    }
}

fn cores() -> Finding {
    let n = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Finding {
        level: if n > 1 { Level::Good } else { Level::Weak },
        what: "cores",
        found: n.to_string(),
        advice: "a second core lets a worker have one for itself (--core)",
    }
}

fn huge_pages() -> Finding {
    let read = |name: &str| {
        fs::read_to_string(format!("/sys/kernel/mm/transparent_hugepage/{name}")).unwrap_or_default()
    };
    let enabled = read("enabled");
    let usable = enabled.contains("[always]") || enabled.contains("[madvise]");
    Finding {
        level: if usable { Level::Good } else { Level::Weak },
        what: "huge pages",
        found: if usable { "transparent ones" } else { "none" }.to_owned(),
        advice: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled: large tables are slower without",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(kernel_version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.9-rc1"), Some((5, 9)));
        assert_eq!(kernel_version("linux"), None);
    }

    #[test]
    fn advice_is_given_where_something_is_missing() {
        let bad = Finding { level: Level::Bad, what: "x", found: "no".to_owned(), advice: "do y" };
        let good = Finding { level: Level::Good, ..bad.clone() };
        let report = Report { findings: vec![good.clone(), bad] };
        assert!(!report.can_run() && report.to_string().contains("-> do y"));
        assert!(Report { findings: vec![good] }.can_run());
    }
}
