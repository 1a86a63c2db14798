//! What the kernel counts of this process, under the names that every exporter has.

use std::fs;

use crate::exposition::Page;

/// Clock ticks of a second in /proc, the same on all architectures (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Adds them to a page; what the kernel does not tell is left out.
pub fn add_to(text: &mut String) {
    let mut page = Page::new("process");
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(stat) = Stat::read(&stat) {
        let cpu = stat.cpu_ticks as f64 / TICKS;
        page.counter("cpu_seconds_total", "Time that all threads had of a core.").set(cpu);
        page.gauge("threads", "Threads.").set(stat.n_threads);
        if let Some(boot) = boot_time() {
            let started = boot as f64 + stat.start_ticks as f64 / TICKS;
            page.gauge("start_time_seconds", "When the process started, since 1970.").set(started);
        }
    }
    if let Some(bytes) = resident() {
        page.gauge("resident_memory_bytes", "Memory that is there.").set(bytes);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        page.gauge("open_fds", "Open files.").set(files.count());
    }
    if let Some(max) = max_files() {
        page.gauge("max_fds", "Files that may be open.").set(max);
    }
    text.push_str(&page.into_text());
}

/// Parts of /proc/self/stat (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    n_threads: u64,
    start_ticks: u64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The name in front may have blanks and parentheses; what follows is counted from 3.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, n_threads: field(20)?, start_ticks: field(22)? })
    }
}

fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_files() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_disturb() {
        let text = "7 (a) b) S 1 7 7 0 -1 0 10 0 0 0 250 50 0 0 20 0 9 0 1234 99 512 1";
        let stat = Stat { cpu_ticks: 300, n_threads: 9, start_ticks: 1234 };
        assert_eq!(Stat::read(text), Some(stat));
        assert_eq!(Stat::read("7 (a"), None);
        assert_eq!(Stat::read("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_files_and_a_start() {
        let mut text = String::new();
        add_to(&mut text);
        for name in
            ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"]
        {
            let line = text.lines().find(|line| line.starts_with(&format!("process_{name} "))).unwrap();
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            assert!(value > 0.0 || name == "cpu_seconds_total", "{line}");
        }
    }
}
