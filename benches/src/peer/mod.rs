//! Open vSwitch with DPDK beside us: Debian's own programs, unpacked into the user's cache, with
//! ports in memory.
//!
//! [`package`] gets the programs and compiles the port driver · [`daemon`] runs them ·
//! [`stats`] reads what they count · [`subject`] puts a workload on them · [`huge_pages`] lends
//! them memory. Whatever is started ends with the value that stands for it.

pub mod daemon;
pub mod huge_pages;
pub mod package;
pub mod stats;
pub mod subject;
