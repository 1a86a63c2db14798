//! On which NUMA node memory is (mbind(2)).

use std::ops::Range;

use crate::numa::MAX_NODES;

/// Size of a page where nothing else is known: addresses must begin at one.
const PAGE: usize = 4096;
/// `MPOL_PREFERRED`: there if there is room, else elsewhere.
const PREFERRED: libc::c_long = 1;
const WORDS: usize = MAX_NODES as usize / u64::BITS as usize;

/// Has memory that was not touched yet be of a node, as far as that has room. Only whole pages inside the range are
/// affected; a kernel that knows no nodes goes on as before.
pub(crate) fn prefer(memory: Range<*const u8>, node: u32) {
    let start = memory.start.addr().next_multiple_of(PAGE);
    let end = memory.end.addr() / PAGE * PAGE;
    if start >= end || node >= MAX_NODES {
        return;
    }
    let mut nodes = [0_u64; WORDS];
    nodes[(node / u64::BITS) as usize] = 1 << (node % u64::BITS);
    // SAFETY: the policy changes where memory will be, not what is in it; the mask is live and has as many bits as
    // is said (the kernel takes one less). What it answers is of no consequence.
    let _ = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            start,
            end - start,
            PREFERRED,
            nodes.as_ptr(),
            libc::c_ulong::from(MAX_NODES) + 1,
            0,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_its_content_on_any_node() {
        let memory: Vec<u8> = (0..1 << 20).map(|idx: u32| idx as u8).collect();
        for node in [0, 1, 63, 64, MAX_NODES - 1, MAX_NODES, u32::MAX] {
            prefer(memory.as_ptr_range(), node);
        }
        prefer([0_u8; 100].as_ptr_range(), 0);
        assert!(memory.iter().enumerate().all(|(idx, byte)| *byte == idx as u8));
    }
}
