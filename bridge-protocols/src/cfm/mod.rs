//! Whether those at other ends of a network are there and hear this one: continuity checks of
//! connectivity fault management (IEEE 802.1Q-2018 §18 to §21, once 802.1ag).
//!
//! [`Ccm`] is what ends tell each other, [`EndPoint`] is one end: it tells the others that it is
//! there, and finds out whom it does not hear as it should.

mod ccm;

use std::{collections::BTreeMap, time::Duration};

use flowtable::types::{MacAddr, Timestamp};

pub use self::ccm::{Ccm, ETHER_TYPE, MAX_LEVEL, Maid, interval_code};

/// Other ends that are known at most.
pub const MAX_REMOTES: usize = 256;
/// Who was not heard for so many intervals is missing (§20.1.1: 3.5).
const MISSING: (u32, u32) = (7, 2);
/// Who is missing for so many intervals is forgotten, unless it was said to be there.
const FORGET: u32 = 100;

/// How an end is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its address.
    pub address: MacAddr,
    /// Which end of the association it is.
    pub mpid: u16,
    /// Level of the domain.
    pub level: u8,
    /// How often it tells that it is there.
    pub interval: Duration,
    /// The association.
    pub maid: Maid,
    /// Other ends that are to be there, heard or not.
    pub expected: Vec<u16>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Somebody is not heard, or nobody is.
    Missing,
    /// Somebody does not hear somebody.
    RemoteDefect,
    /// Messages of another association, or of a lower level, come here.
    CrossConnect,
    /// Somebody sends at other intervals.
    Interval,
    /// Somebody else says that it is this end.
    SameId,
    /// There are more ends than can be known.
    Overflow,
}

impl Fault {
    const ALL: [Self; 6] =
        [Self::Missing, Self::RemoteDefect, Self::CrossConnect, Self::Interval, Self::SameId, Self::Overflow];

    /// Name, as it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::RemoteDefect => "remote-defect",
            Self::CrossConnect => "cross-connect",
            Self::Interval => "interval",
            Self::SameId => "same-id",
            Self::Overflow => "overflow",
        }
    }
}

/// Another end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// Which one.
    pub mpid: u16,
    /// Its address; zero: it was never heard.
    pub address: MacAddr,
    /// It is heard.
    pub is_heard: bool,
    /// It does not hear somebody.
    pub rdi: bool,
    /// When it was heard last.
    heard: Timestamp,
    sequence: u32,
    /// Messages of it, and those of them that were lost on the way.
    pub n_messages: (u64, u64),
}

/// One end.
#[derive(Debug, Clone)]
pub struct EndPoint {
    config: Config,
    began: Timestamp,
    next: Timestamp,
    sequence: u32,
    remotes: BTreeMap<u16, Remote>,
    /// When each fault that messages show was seen last.
    seen: BTreeMap<Fault, Timestamp>,
    faults: Vec<Fault>,
    /// Messages sent, and heard.
    n_messages: (u64, u64),
}

impl EndPoint {
    /// One that begins.
    pub fn new(config: Config, now: Timestamp) -> Self {
        let mut end = Self {
            config,
            began: now,
            next: now,
            sequence: 0,
            remotes: BTreeMap::new(),
            seen: BTreeMap::new(),
            faults: Vec::new(),
            n_messages: (0, 0),
        };
        end.expect(now);
        end
    }

    /// How it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is wrong.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// The other ends.
    pub fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.remotes.values()
    }

    /// Messages sent, and heard.
    pub fn n_messages(&self) -> (u64, u64) {
        self.n_messages
    }

    fn expect(&mut self, now: Timestamp) {
        for mpid in self.config.expected.iter().take(MAX_REMOTES) {
            self.remotes.entry(*mpid).or_insert(Remote {
                mpid: *mpid,
                address: MacAddr::ZERO,
                is_heard: false,
                rdi: false,
                heard: now,
                sequence: 0,
                n_messages: (0, 0),
            });
        }
    }

    /// A message has come.
    pub fn receive(&mut self, now: Timestamp, ccm: &Ccm) {
        if ccm.level > self.config.level {
            return;
        }
        self.n_messages.1 += 1;
        let wrong = [
            (ccm.level < self.config.level || ccm.maid != self.config.maid, Fault::CrossConnect),
            (ccm.mpid == self.config.mpid, Fault::SameId),
            (ccm.interval != Some(self.config.interval), Fault::Interval),
        ];
        if let Some((_, fault)) = wrong.iter().find(|(is_so, _)| *is_so) {
            self.seen.insert(*fault, now);
            return;
        }
        if !self.remotes.contains_key(&ccm.mpid) && self.remotes.len() >= MAX_REMOTES {
            self.seen.insert(Fault::Overflow, now);
            return;
        }
        let known = self.remotes.get(&ccm.mpid).filter(|known| known.is_heard);
        let n_lost = known.map_or(0, |known| lost_between(known.sequence, ccm.sequence));
        let (n, lost) = self.remotes.get(&ccm.mpid).map_or((0, 0), |known| known.n_messages);
        let remote = Remote {
            mpid: ccm.mpid,
            address: ccm.source,
            is_heard: true,
            rdi: ccm.rdi,
            heard: now,
            sequence: ccm.sequence,
            n_messages: (n + 1, lost + n_lost),
        };
        self.remotes.insert(ccm.mpid, remote);
    }

    /// Does what is due: the frame to send, if it is time to.
    pub fn tick(&mut self, now: Timestamp) -> Option<Vec<u8>> {
        self.find_faults(now);
        if now < self.next {
            return None;
        }
        // Who is late does not make up for it.
        self.next = self.next.after(self.config.interval).max(now);
        self.sequence = self.sequence.wrapping_add(1);
        self.n_messages.0 += 1;
        let ccm = Ccm {
            source: self.config.address,
            level: self.config.level,
            // That others hear somebody not is nothing that this one hears.
            rdi: self.faults.iter().any(|fault| *fault != Fault::RemoteDefect),
            interval: Some(self.config.interval),
            sequence: self.sequence,
            mpid: self.config.mpid,
            maid: self.config.maid,
        };
        Some(ccm.to_frame())
    }

    fn find_faults(&mut self, now: Timestamp) {
        let Config { interval, expected, .. } = &self.config;
        let missing = *interval * MISSING.0 / MISSING.1;
        let is_expected = |remote: &Remote| expected.contains(&remote.mpid);
        for remote in self.remotes.values_mut() {
            remote.is_heard &= now.since(remote.heard) < missing;
        }
        let forget = *interval * FORGET;
        self.remotes.retain(|_, remote| is_expected(remote) || now.since(remote.heard) < forget);
        self.seen.retain(|_, at| now.since(*at) < missing);
        let remotes = self.remotes.values();
        let is_young = now.since(self.began) < missing;
        let is_silent = |remote: &Remote| !remote.is_heard && now.since(remote.heard) >= missing;
        let misses = remotes.clone().any(is_silent) || remotes.len() == 0 && !is_young;
        let has_defect = self.remotes.values().any(|remote| remote.is_heard && remote.rdi);
        self.faults.clear();
        for fault in Fault::ALL {
            let is_so = match fault {
                Fault::Missing => misses,
                Fault::RemoteDefect => has_defect,
                seen => self.seen.contains_key(&seen),
            };
            if is_so {
                self.faults.push(fault);
            }
        }
    }
}

/// Messages that are missing between two; who begins anew has lost none, nor who does not count.
fn lost_between(before: u32, now: u32) -> u64 {
    let gap = now.wrapping_sub(before);
    if now == 0 || gap == 0 || gap > 1 << 16 { 0 } else { u64::from(gap) - 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    fn config(mpid: u16) -> Config {
        let address = MacAddr::new([2, 0, 0, 0, 0, mpid as u8]);
        let maid = Maid::new("d", "a").unwrap();
        Config { address, mpid, level: 3, interval: INTERVAL, maid, expected: Vec::new() }
    }

    /// Ends on one wire, on which `arrives` says what gets from whom to whom.
    fn run(ends: &mut [EndPoint], from: u64, until: u64, mut arrives: impl FnMut(usize, usize) -> bool) {
        for millis in (from..until).step_by(10) {
            for sender in 0..ends.len() {
                let Some(frame) = ends[sender].tick(at(millis)) else { continue };
                let ccm = Ccm::parse(&frame).unwrap();
                for (hearer, end) in ends.iter_mut().enumerate() {
                    if hearer != sender && arrives(sender, hearer) {
                        end.receive(at(millis), &ccm);
                    }
                }
            }
        }
    }

    fn faults(end: &EndPoint) -> Vec<&'static str> {
        end.faults().iter().map(|fault| fault.name()).collect()
    }

    #[test]
    fn ends_find_each_other_and_miss_who_falls_silent() {
        let mut ends: Vec<_> = (1..=3).map(|mpid| EndPoint::new(config(mpid), at(0))).collect();
        run(&mut ends, 0, 1000, |_, _| true);
        for end in &ends {
            assert_eq!((faults(end).len(), end.remotes().filter(|remote| remote.is_heard).count()), (0, 2));
        }
        // The third one is not heard any more, but hears the others.
        run(&mut ends, 1000, 1240, |from, _| from != 2);
        assert!(faults(&ends[0]).is_empty(), "3.5 intervals have not passed");
        run(&mut ends, 1240, 1800, |from, _| from != 2);
        assert_eq!(faults(&ends[0]), ["missing", "remote-defect"], "the other one misses it as well");
        assert_eq!(faults(&ends[2]), ["remote-defect"]);
        run(&mut ends, 1800, 2400, |_, _| true);
        assert!(ends.iter().all(|end| end.faults().is_empty()));
        let lost: Vec<u64> = ends[0].remotes().map(|remote| remote.n_messages.1).collect();
        assert_eq!(lost, [0, 0], "who was silent for long is not said to have lost messages");
        // Who is gone for good is forgotten, and then all is well again.
        run(&mut ends[..2], 2400, 13_000, |_, _| true);
        assert_eq!((ends[0].remotes().count(), faults(&ends[0]).len()), (1, 0));
    }

    #[test]
    fn nobody_at_all_is_a_fault_and_so_is_who_was_expected() {
        let mut end = EndPoint::new(config(1), at(0));
        end.tick(at(340));
        assert!(end.faults().is_empty());
        end.tick(at(360));
        assert_eq!(faults(&end), ["missing"]);
        let expects = Config { expected: vec![7], ..config(1) };
        let mut ends = vec![EndPoint::new(expects, at(0)), EndPoint::new(config(2), at(0))];
        run(&mut ends, 0, 30_000, |_, _| true);
        assert_eq!(faults(&ends[0]), ["missing"]);
        assert_eq!(faults(&ends[1]), ["remote-defect"]);
        assert_eq!(ends[0].remotes().count(), 2, "it is not forgotten");
    }

    #[test]
    fn what_others_do_wrong_has_a_name_as_long_as_they_do_it() {
        let other = |change: &dyn Fn(&mut Config)| {
            let mut config = config(2);
            change(&mut config);
            config
        };
        let cases = [
            (other(&|config| config.mpid = 1), "same-id"),
            (other(&|config| config.interval = Duration::from_secs(1)), "interval"),
            (other(&|config| config.maid = Maid::new("d", "b").unwrap()), "cross-connect"),
            (other(&|config| config.level = 2), "cross-connect"),
        ];
        for (wrong, name) in cases {
            let mut end = EndPoint::new(config(1), at(0));
            let ccm = Ccm::parse(&EndPoint::new(wrong, at(0)).tick(at(0)).unwrap()).unwrap();
            end.receive(at(100), &ccm);
            end.tick(at(110));
            assert_eq!(faults(&end), [name]);
            let said = Ccm::parse(&end.tick(at(210)).unwrap()).unwrap();
            assert!(said.rdi, "others are told");
            end.tick(at(460));
            assert_eq!(faults(&end), ["missing"], "only that nobody is there is left");
        }
        let above = EndPoint::new(other(&|config| config.level = 5), at(0)).tick(at(0)).unwrap();
        let mut end = EndPoint::new(config(1), at(0));
        end.receive(at(0), &Ccm::parse(&above).unwrap());
        assert_eq!(end.n_messages().1, 0, "what is of a higher level is none of its business");
    }

    #[test]
    fn ends_are_bounded_and_losses_counted() {
        let mut end = EndPoint::new(config(1), at(0));
        let say = |end: &mut EndPoint, mpid, sequence| {
            let ccm = Ccm {
                source: MacAddr::ZERO,
                level: 3,
                rdi: false,
                interval: Some(INTERVAL),
                sequence,
                mpid,
                maid: config(1).maid,
            };
            end.receive(at(5), &ccm);
        };
        (2..=MAX_REMOTES as u16 + 1).for_each(|mpid| say(&mut end, mpid, 5));
        end.tick(at(6));
        assert!(end.faults().is_empty() && end.remotes().count() == MAX_REMOTES);
        say(&mut end, 5000, 5);
        end.tick(at(7));
        assert_eq!((faults(&end), end.remotes().count()), (vec!["overflow"], MAX_REMOTES));
        [6, 9, 0, 0, 1].into_iter().for_each(|sequence| say(&mut end, 2, sequence));
        assert_eq!(end.remotes().next().unwrap().n_messages, (6, 2));
    }

    proptest! {
        /// Whatever gets lost for a while: once messages arrive again, nothing is wrong.
        #[test]
        fn faults_pass(lost in proptest::collection::vec(any::<bool>(), 1..40)) {
            let mut ends: Vec<_> = (1..=2).map(|mpid| EndPoint::new(config(mpid), at(0))).collect();
            let mut fate = lost.iter().cycle();
            run(&mut ends, 0, 3000, |_, _| *fate.next().unwrap());
            run(&mut ends, 3000, 4000, |_, _| true);
            prop_assert!(ends.iter().all(|end| end.faults().is_empty()));
        }
    }
}
