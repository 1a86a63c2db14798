//! Who looks at frames at an interface, and is none of ours: tcpdump.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use ferroflow_tests::daemon::Daemon;
use ferroflow_tests::netns::Netns;
use ferroflow_tests::stop;

use crate::LIMIT;

/// Of a file, and in front of each frame.
const FILE_HEADER_LEN: usize = 24;
const RECORD_HEADER_LEN: usize = 16;
/// What each file begins with: microseconds, as this machine has its numbers.
const MAGIC: u32 = 0xa1b2_c3d4;

/// A tcpdump at work.
pub(crate) struct Tcpdump {
    _daemon: Daemon,
    path: PathBuf,
}

impl Tcpdump {
    /// Begins to look at what an interface receives, as far as an expression wants it.
    pub(crate) fn start(netns: &Netns, interface: &str, dir: &Path, filter: &str) -> Result<Self> {
        // A file of an earlier one would be taken for its own.
        static N_FILES: AtomicU32 = AtomicU32::new(0);
        let path = dir.join(format!("{}.pcap", N_FILES.fetch_add(1, Ordering::Relaxed)));
        let mut command = netns.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "tcpdump", "-i", interface, "-Q", "in", "-n", "-s", "0"]);
        // Each frame is in the file at once.
        command.args(["-U", "--immediate-mode", "-Z", "root", "-w"]).arg(&path).arg(filter);
        let mut daemon = Daemon::spawn(command, "tcpdump".to_owned(), &path.with_extension("log"))?;
        stop::wait_for("tcpdump looks", LIMIT, || {
            daemon.check()?;
            let has_begun = fs::metadata(&path).is_ok_and(|file| file.len() >= FILE_HEADER_LEN as u64);
            Ok(if has_begun { Ok(()) } else { Err("no file".to_owned()) })
        })?;
        Ok(Self { _daemon: daemon, path })
    }

    /// What it has seen by now: the frames, as far as they are there, and how long they were.
    pub(crate) fn frames(&self) -> Result<Vec<(Vec<u8>, usize)>> {
        let bytes = fs::read(&self.path).with_context(|| format!("cannot read {}", self.path.display()))?;
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_ne_bytes)
        };
        ensure!(number(0) == Some(MAGIC), "{} is no capture", self.path.display());
        let (mut frames, mut at) = (Vec::new(), FILE_HEADER_LEN);
        // The last one may be half there.
        while let (Some(len), Some(whole)) = (number(at + 8), number(at + 12)) {
            let start = at + RECORD_HEADER_LEN;
            let Some(frame) = bytes.get(start..start + len as usize) else { break };
            frames.push((frame.to_vec(), whole as usize));
            at = start + len as usize;
        }
        Ok(frames)
    }

    /// Waits until it has seen so many frames, and says what they are.
    pub(crate) fn wait_for(&self, n: usize) -> Result<Vec<(Vec<u8>, usize)>> {
        stop::wait_for(&format!("{n} frames are seen"), LIMIT, || {
            let frames = self.frames()?;
            Ok(if frames.len() >= n { Ok(frames) } else { Err(format!("{} are", frames.len())) })
        })
    }
}
