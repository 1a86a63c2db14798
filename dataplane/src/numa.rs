//! Which memory is near: the NUMA nodes of cores and of network cards, as sysfs tells.
//!
//! What a worker has for itself is made and first written by its own, pinned thread, so that the kernel puts it on the
//! node of its core (`handle::spawn`). What is left is for this: memory that cards write to is on the card's node, and
//! the queues of a card go to workers of its node. On a machine with one node nothing is asked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Where the kernel tells.
const SYSFS: &str = "/sys";
/// Most nodes that the kernel can have (`CONFIG_NODES_SHIFT` is 10 at most).
pub(crate) const MAX_NODES: u32 = 1024;

/// The machine's nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nodes {
    root: PathBuf,
    /// Empty where there is one node only.
    of_core: BTreeMap<usize, u32>,
}

impl Nodes {
    /// Those of this machine.
    pub(crate) fn of_machine() -> Self {
        Self::read(Path::new(SYSFS))
    }

    /// Those that the files below `root` tell of. What cannot be read is not known.
    pub(crate) fn read(root: &Path) -> Self {
        let mut of_core = BTreeMap::new();
        let mut n_nodes = 0;
        for entry in fs::read_dir(root.join("devices/system/node")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let node = name.to_str().and_then(|name| name.strip_prefix("node")?.parse::<u32>().ok());
            let Some(node) = node.filter(|node| *node < MAX_NODES) else { continue };
            n_nodes += 1;
            let cores = fs::read_to_string(entry.path().join("cpulist")).unwrap_or_default();
            of_core.extend(cores_of(&cores).map(|core| (core, node)));
        }
        if n_nodes < 2 {
            of_core.clear();
        }
        Self { root: root.to_owned(), of_core }
    }

    /// The node of a core.
    pub(crate) fn of_core(&self, core: usize) -> Option<u32> {
        self.of_core.get(&core).copied()
    }

    /// The node of an interface's card. A virtual one has none.
    pub(crate) fn of_interface(&self, name: &str) -> Option<u32> {
        if self.of_core.is_empty() || name.is_empty() || name.starts_with('.') || name.contains('/') {
            return None;
        }
        let path = self.root.join("class/net").join(name).join("device/numa_node");
        // Minus one: the firmware does not say.
        let node = fs::read_to_string(path).ok()?.trim().parse::<u32>().ok()?;
        (node < MAX_NODES).then_some(node)
    }
}

impl Nodes {
    /// Of workers on these cores those that are on a node; all of them, if none is.
    pub(crate) fn workers_near(&self, node: Option<u32>, cores: &[Option<usize>]) -> Vec<usize> {
        let is_near =
            |worker: &usize| node.is_some() && cores[*worker].and_then(|core| self.of_core(core)) == node;
        let near: Vec<_> = (0..cores.len()).filter(is_near).collect();
        if near.is_empty() { (0..cores.len()).collect() } else { near }
    }
}

/// Longest range of cores that is taken for one.
const MAX_CORES: usize = 1 << 16;

/// The cores of a list such as `0-3,8,10-11` (cpuset(7), list format).
fn cores_of(list: &str) -> impl Iterator<Item = usize> {
    let ranges = list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        Some(first..=last.min(MAX_CORES))
    });
    ranges.flatten().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of a machine that is not there; gone with this.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("ferroflow-numa-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn cores_and_cards_have_the_nodes_that_sysfs_says() {
        let machine = Machine::new(
            "two",
            &[
                ("devices/system/node/node0/cpulist", "0-1,4\n"),
                ("devices/system/node/node1/cpulist", "2-3\n"),
                ("devices/system/node/possible", "0-1\n"),
                ("class/net/eth1/device/numa_node", "1\n"),
                ("class/net/eth2/device/numa_node", "-1\n"),
                ("class/net/veth/address", "02:00:00:00:00:01\n"),
            ],
        );
        let nodes = Nodes::read(&machine.0);
        let cores: Vec<_> = (0..6).map(|core| nodes.of_core(core)).collect();
        assert_eq!(cores, [Some(0), Some(0), Some(1), Some(1), Some(0), None]);
        let card = |name| nodes.of_interface(name);
        assert_eq!((card("eth1"), card("eth2"), card("veth"), card("none")), (Some(1), None, None, None));
        let near = |node| nodes.workers_near(node, &[Some(0), Some(2), None, Some(3)]);
        assert_eq!(near(Some(1)), [1, 3], "queues of a card go to workers of its node");
        assert_eq!((near(None), near(Some(7))), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
        for wrong in ["", ".", "..", "../eth1", "eth1/."] {
            assert_eq!(card(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn where_there_is_one_node_nothing_is_near_or_far() {
        let files =
            [("devices/system/node/node0/cpulist", "0-1\n"), ("class/net/eth1/device/numa_node", "0\n")];
        let nodes = Nodes::read(&Machine::new("one", &files).0);
        assert_eq!((nodes.of_core(0), nodes.of_interface("eth1")), (None, None));
        let nowhere = Nodes::read(Path::new("/nonexistent"));
        assert_eq!((nowhere.of_core(0), nowhere.of_interface("eth1")), (None, None));
    }

    #[test]
    fn lists_of_cores_are_read_as_far_as_they_can_be() {
        let read = |list| cores_of(list).collect::<Vec<_>>();
        assert_eq!(read("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(read(""), [0; 0]);
        assert_eq!(read("x,7,3-1,4-"), [7]);
        assert_eq!(read("0-99999999999").len(), MAX_CORES + 1);
    }
}
