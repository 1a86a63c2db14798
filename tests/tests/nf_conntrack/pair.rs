//! Both trackers, side by side.

use anyhow::{Result, ensure};

use crate::kernel::Kernel;
use crate::ours::Ours;
use crate::packet::{self, Read};
use crate::{Family, Opinion, Side};

/// What became of a packet: what the tracker said, and what came out; nothing if it was dropped.
pub(crate) type Outcome = Option<(Opinion, Vec<u8>)>;

/// Linux and us.
pub(crate) struct Pair {
    pub(crate) kernel: Kernel,
    pub(crate) ours: Ours,
    mark: u16,
    pub(crate) n_packets: u64,
    /// Datagrams that never became whole.
    pub(crate) n_lossy: u64,
}

impl Pair {
    /// Both without connections, or nothing where there is no Linux to compare with and that was said to be
    /// all right.
    pub(crate) fn get_or_skip(prefix: &str) -> Result<Option<Self>> {
        Self::with_nat(prefix, "", &[])
    }

    /// As [`Pair::get_or_skip`], with rules that translate.
    pub(crate) fn with_nat(prefix: &str, theirs: &str, ours: &[&str]) -> Result<Option<Self>> {
        let Some(kernel) = Kernel::get_or_skip(prefix, theirs)? else { return Ok(None) };
        Ok(Some(Self { kernel, ours: Ours::new(ours)?, mark: 0, n_packets: 0, n_lossy: 0 }))
    }

    /// A mark that no packet of late has.
    pub(crate) fn next_mark(&mut self) -> u16 {
        self.mark = self.mark.checked_add(1).unwrap_or(1);
        self.mark
    }

    /// The same packet to both; what each thinks of it.
    pub(crate) fn send(&mut self, from: Side, family: Family, packet: &[u8]) -> Result<[Option<Opinion>; 2]> {
        self.n_packets += 1;
        let theirs = self.kernel.send(from, family, packet)?;
        let ours = self.ours.send(from, family, packet)?;
        if let (Some((_, theirs)), Some((_, ours))) = (&theirs, &ours) {
            let (theirs, ours) = (packet::read(theirs)?, packet::read(ours)?);
            // Linux has written its opinion, and is a hop.
            ensure!(
                Read { dscp: 0, ..theirs } == ours && ours == packet::read(packet)?,
                "changed: {packet:02x?}"
            );
        }
        Ok([theirs.map(|(opinion, _)| opinion), ours.map(|(opinion, _)| opinion)])
    }
}

/// A story that is told when the two disagree.
#[derive(Default)]
pub(crate) struct Story(Vec<String>);

impl Story {
    /// The next packet and what both said of it.
    pub(crate) fn tell(
        &mut self,
        side: Side,
        what: impl std::fmt::Debug,
        [theirs, ours]: [Option<Opinion>; 2],
    ) -> Result<()> {
        let show =
            |opinion: Option<Opinion>| opinion.map_or("dropped".to_owned(), |opinion| opinion.to_string());
        self.0.push(format!("{side:?} {what:?}: Linux {}, we {}", show(theirs), show(ours)));
        ensure!(theirs == ours, "different opinions of the last packet of\n{}", self.0.join("\n"));
        Ok(())
    }
}
