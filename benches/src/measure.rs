//! Measuring a case: a line with rate, cycles and allocations, then Criterion.

use std::{
    alloc::System,
    env,
    fs::{self, File},
    io::Read,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts allocations of the whole process.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Time that the printed line is measured for.
const MEASURED: Duration = Duration::from_millis(500);
/// Time to warm up before it.
const WARM_UP: Duration = Duration::from_millis(100);
/// Cycles per nanosecond where `/proc/cpuinfo` does not tell.
const DEFAULT_GHZ: f64 = 2.6;

/// Whether a case may allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heap {
    /// Not once: the case fails if it does.
    Untouched,
    /// As it likes.
    Used,
}

/// Bytes of the heap that are in use.
pub fn heap_in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// Runs a case: `step` handles `n_packets` packets each time it is called.
///
/// # Panics
/// When the case allocates and must not.
pub fn case(criterion: &mut Criterion, name: &str, heap: Heap, n_packets: u64, mut step: impl FnMut()) {
    if !is_wanted(name) {
        return;
    }
    repeat(WARM_UP, &mut step);
    let region = Region::new(ALLOCATOR);
    let (n_steps, elapsed) = repeat(MEASURED, &mut step);
    let stats = region.change();
    let n_allocations = stats.allocations + stats.reallocations;
    let n_total = n_steps * n_packets;
    let nanos = elapsed.as_nanos() as f64 / n_total as f64;
    println!(
        "{name}: {:.2} Mpps, {:.0} cycles/packet, {:.3} allocations/packet",
        1e3 / nanos,
        nanos * tsc_ghz(),
        n_allocations as f64 / n_total as f64,
    );
    assert!(heap == Heap::Used || n_allocations == 0, "{name} allocated {n_allocations} times");
    let (group, case) = name.split_once('/').unwrap_or((name, "all"));
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(n_packets));
    group.bench_function(case, |bencher| bencher.iter(&mut step));
    group.finish();
}

/// Measures something that can be done only once, some times over: `prepare` makes what
/// `run` then uses up, and the time of that alone counts. Prints the median.
pub fn once<T>(name: &str, n_packets: u64, mut prepare: impl FnMut() -> T, mut run: impl FnMut(&mut T)) {
    const N_RUNS: usize = 5;
    if !is_wanted(name) {
        return;
    }
    let mut nanos: Vec<f64> = (0..N_RUNS)
        .map(|_| {
            let mut subject = prepare();
            let (start, start_on_cpu) = (Instant::now(), on_cpu());
            run(&mut subject);
            let used = on_cpu().zip(start_on_cpu).map(|(now, start)| now.saturating_sub(start));
            used.unwrap_or_else(|| start.elapsed()).as_nanos() as f64 / n_packets as f64
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    let median = nanos[N_RUNS / 2];
    println!(
        "{name}: {:.2} M/s, {:.0} cycles each, runs {:.0} to {:.0}",
        1e3 / median,
        median * tsc_ghz(),
        nanos[0] * tsc_ghz(),
        nanos[N_RUNS - 1] * tsc_ghz(),
    );
}

/// Measures something that takes long enough to be done once.
pub fn minute(name: &str, n_packets: u64, mut run: impl FnMut()) {
    let (start, start_on_cpu) = (Instant::now(), on_cpu());
    run();
    let used = on_cpu().zip(start_on_cpu).map(|(now, start)| now.saturating_sub(start));
    let nanos = used.unwrap_or_else(|| start.elapsed()).as_nanos() as f64 / n_packets as f64;
    println!("{name}: {:.2} Mpps, {:.0} cycles/packet", 1e3 / nanos, nanos * tsc_ghz());
}

/// The command line names no case, or this one: so that what is not asked for is not even
/// set up.
pub fn is_wanted(name: &str) -> bool {
    let args = env::args().skip(1).filter(|arg| !arg.starts_with('-') && arg.parse::<f64>().is_err());
    let filters: Vec<String> = args.collect();
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// Calls `step` for a while; answers how often, and how long it took on the CPU.
fn repeat(duration: Duration, step: &mut impl FnMut()) -> (u64, Duration) {
    let (start, start_on_cpu) = (Instant::now(), on_cpu());
    let mut n_steps = 0;
    loop {
        (0..16).for_each(|_| step());
        n_steps += 16;
        let elapsed = start.elapsed();
        if elapsed >= duration {
            let used = on_cpu().zip(start_on_cpu).map(|(now, start)| now.saturating_sub(start));
            return (n_steps, used.unwrap_or(elapsed));
        }
    }
}

/// Allocations of the process since its start.
pub fn n_allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Time that this thread has been running, without what others took of its core. The
/// kernel keeps it to a tick or so. Does not allocate: it runs while allocations are
/// counted.
pub fn on_cpu() -> Option<Duration> {
    let mut buf = [0; 128];
    let len = File::open("/proc/thread-self/schedstat").ok()?.read(&mut buf).ok()?;
    let text = str::from_utf8(buf.get(..len)?).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Frequency of the time stamp counter: on the CPUs in question it is the nominal clock,
/// which `/proc/cpuinfo` shows.
pub fn tsc_ghz() -> f64 {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mhz = text
        .lines()
        .find_map(|line| line.strip_prefix("cpu MHz")?.split_once(':'))
        .and_then(|(_, value)| value.trim().parse::<f64>().ok());
    mhz.map_or(DEFAULT_GHZ, |mhz| mhz / 1e3)
}
