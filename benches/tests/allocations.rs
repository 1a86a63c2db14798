//! What packets allocate. A test by itself: the allocator counts for the whole process.

use benches::{
    measure::n_allocations,
    workload::{list::find, rig::Rig},
};

/// Allocations while so many batches are switched, after some that make everything known.
fn allocations(id: &str, n_warm: u32, n_batches: u32) -> (usize, u64) {
    let mut rig = Rig::new(find(id).expect("a workload")).expect("its rules");
    rig.rehearse(n_warm, 1);
    let before = n_allocations();
    let n_packets = rig.rehearse(0, n_batches);
    (n_allocations() - before, n_packets)
}

#[test]
fn packets_allocate_only_when_they_are_the_first() {
    // Whatever is found, whatever its kind: nothing.
    for id in ["P1", "P2", "P3", "P4", "P5a", "P5b", "P6a", "P10e", "P10d", "P10ge", "P10gd", "P11"] {
        // Random headers meet a rule that none has met before now and then.
        let n_warm = match id {
            "P4" | "P5a" | "P5b" => 4_000,
            // Conversations are noted one after the other.
            "P6a" | "P11" => 12_000,
            _ => 500,
        };
        let (n, n_packets) = allocations(id, n_warm, 300);
        // Of ten thousand entries some are still to be made.
        let most = if n_warm > 500 { n_packets as usize / 10 } else { 0 };
        assert!(n <= most, "{id}: {n} allocations for {n_packets} packets");
    }
    // A first packet makes an entry: a handful of lists, whatever came before.
    let (n, n_packets) = allocations("P12a", 0, 100);
    assert!(n <= 24 * n_packets as usize, "P12a: {n} allocations for {n_packets} packets");
}
