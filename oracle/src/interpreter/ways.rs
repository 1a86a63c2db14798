//! Groups and meters, and choices that are the switch's to make: it may choose as it likes, but among
//! what is alive, and for the packets of a flow always the same.

use super::{
    Port,
    action_set::ordered,
    memory::Verdict,
    walk::{MAX_DEPTH, Walk, Way},
};
use crate::{
    field::{Field, Needs},
    syntax::{Bucket, Bundle, Group, GroupKind, Hashed, Multipath, Selection, Step},
};

/// Groups that watch groups.
const MAX_CHAIN: usize = 16;
/// Meters of one pass.
const MAX_METERS: usize = 256;

impl Walk<'_> {
    pub(super) fn group(&mut self, id: u32, depth: usize) -> Way {
        if depth + 1 > MAX_DEPTH {
            return Err(self.abort("depth-exceeded"));
        }
        let rules = self.world.rules;
        let Some(group) = rules.groups.iter().find(|group| group.id == id) else {
            self.end("no-such-group");
            return Ok(());
        };
        let live = |bucket: &&Bucket| self.is_live(bucket, 0);
        let chosen: Vec<&Bucket> = match &group.kind {
            GroupKind::All | GroupKind::Indirect => group.buckets.iter().collect(),
            GroupKind::FastFailover => group.buckets.iter().find(live).into_iter().collect(),
            GroupKind::Select(selection) => {
                self.see_payload()?;
                let heavy = group.buckets.iter().filter(live).filter(|bucket| bucket.weight > 0);
                let heavy: Vec<_> = heavy.collect();
                let flow = self.selected_by(selection);
                let idx = self.memory.choose((format!("group {id}"), flow), heavy.len());
                heavy.get(idx).copied().into_iter().collect()
            }
        };
        let n_ends = self.n_ends;
        if chosen.is_empty() && group.kind != GroupKind::All {
            self.end("no-live-bucket");
            return Ok(());
        }
        for bucket in chosen {
            let set: Vec<(Step, ())> = bucket.steps.iter().map(|step| (step.clone(), ())).collect();
            let steps: Vec<Step> = ordered(&set).into_iter().map(|(step, ())| step).collect();
            self.copy(&steps, depth + 1)?;
        }
        if self.n_ends == n_ends && !self.has_way_out() {
            self.end("rule-drop");
        }
        Ok(())
    }

    /// What it watches is up; always, when it watches nothing.
    fn is_live(&self, bucket: &Bucket, depth: usize) -> bool {
        let (port, group) = (bucket.watch_port, bucket.watch_group);
        let group_of = |id: u32| self.world.rules.groups.iter().find(|group| group.id == id);
        let has_live = |group: &Group| group.buckets.iter().any(|bucket| self.is_live(bucket, depth + 1));
        port.is_none() && group.is_none()
            || port.is_some_and(|port| self.is_up(port))
            || depth < MAX_CHAIN && group.and_then(group_of).is_some_and(has_live)
    }

    fn is_up(&self, port: u32) -> bool {
        self.world.ports.get(&port).is_some_and(|port| *port != Port::Workload { up: false })
    }

    /// What the packets of a flow have in common for a select group.
    fn selected_by(&self, selection: &Selection) -> Vec<u128> {
        match selection {
            Selection::Fields(fields) => {
                let present = fields.iter().filter(|field| self.state.has(field.needs()));
                present.map(|field| self.state.get(*field)).collect()
            }
            Selection::Default => self.conversation(false),
            Selection::DpHash { symmetric } => self.conversation(*symmetric),
        }
    }

    /// Addresses, protocol, ports; MAC addresses of what is not IP. Fragments go without ports.
    fn conversation(&self, symmetric: bool) -> Vec<u128> {
        let pair = |src: Field, dst: Field| {
            let (src, dst) = (self.state.get(src), self.state.get(dst));
            if symmetric { [src.min(dst), src.max(dst)] } else { [src, dst] }
        };
        let view = self.state.view();
        let mut all = vec![u128::from(view.eth_type)];
        match view.eth_type {
            0x0800 => all.extend(pair(Field::NwSrc, Field::NwDst)),
            0x86dd => all.extend(pair(Field::Ipv6Src, Field::Ipv6Dst)),
            _ => {
                all.extend(pair(Field::EthSrc, Field::EthDst));
                return all;
            }
        }
        all.push(view.proto.into());
        match view.proto {
            6 if view.frag == 0 => all.extend(pair(Field::TcpSrc, Field::TcpDst)),
            17 if view.frag == 0 => all.extend(pair(Field::UdpSrc, Field::UdpDst)),
            132 if view.frag == 0 => all.extend(pair(Field::SctpSrc, Field::SctpDst)),
            _ => {}
        }
        all
    }

    /// What a hash is made of (ovs-actions(7), "Multipath").
    fn hashed(&self, hashed: Hashed) -> Result<Vec<u128>, super::walk::Stop> {
        let plain =
            |field: Field| if self.state.has(field.needs()) { vec![self.state.get(field)] } else { vec![] };
        Ok(match hashed {
            Hashed::EthSrc => plain(Field::EthSrc),
            Hashed::NwSrc => {
                self.see_payload()?;
                plain(Field::NwSrc)
            }
            Hashed::NwDst => {
                self.see_payload()?;
                plain(Field::NwDst)
            }
            Hashed::SymmetricL4 | Hashed::SymmetricL3L4 | Hashed::SymmetricL3L4Udp => {
                self.see_payload()?;
                let mut all = Vec::new();
                let pair = |src: Field, dst: Field| {
                    let (src, dst) = (self.state.get(src), self.state.get(dst));
                    [src.min(dst), src.max(dst)]
                };
                if hashed == Hashed::SymmetricL4 {
                    all.extend(pair(Field::EthSrc, Field::EthDst));
                    all.push(self.state.get(Field::VlanTci) & 0xfff);
                }
                let view = self.state.view();
                all.push(view.eth_type.into());
                if self.state.has(Needs::Ipv4) {
                    all.extend(pair(Field::NwSrc, Field::NwDst));
                } else if self.state.has(Needs::Ipv6) {
                    all.extend(pair(Field::Ipv6Src, Field::Ipv6Dst));
                } else {
                    return Ok(all);
                }
                all.push(view.proto.into());
                if self.state.has(Needs::Tcp) {
                    all.extend(pair(Field::TcpSrc, Field::TcpDst));
                } else if self.state.has(Needs::Sctp) {
                    all.extend(pair(Field::SctpSrc, Field::SctpDst));
                } else if self.state.has(Needs::Udp) && hashed != Hashed::SymmetricL3L4 {
                    all.extend(pair(Field::UdpSrc, Field::UdpDst));
                }
                all
            }
        })
    }

    pub(super) fn multipath(&mut self, multipath: &Multipath) -> Way {
        let flow = self.hashed(multipath.hashed)?;
        let question = (format!("{multipath:?}"), flow);
        let link = self.memory.choose(question, multipath.n_links as usize);
        self.see_payload_of(multipath.dst.field)?;
        self.state.write_part(multipath.dst, link as u128);
        Ok(())
    }

    pub(super) fn bundle(&mut self, bundle: &Bundle) -> Way {
        let up: Vec<u32> = bundle.members.iter().copied().filter(|port| self.is_up(*port)).collect();
        let idx = match bundle.hashed {
            None => 0,
            Some(hashed) => {
                let question = (format!("{bundle:?}"), self.hashed(hashed)?);
                self.memory.choose(question, up.len())
            }
        };
        // OFPP_NONE
        let port = up.get(idx).copied().unwrap_or(0xffff);
        match bundle.dst {
            Some(dst) => {
                self.see_payload_of(dst.field)?;
                self.state.write_part(dst, port.into());
                Ok(())
            }
            None => self.output(port.into(), false),
        }
    }

    fn see_payload_of(&self, field: Field) -> Way {
        if field.needs() == Needs::Nothing { Ok(()) } else { self.see_payload() }
    }

    /// From here to the end of the clone, the bucket or the walk, the packet depends on a meter.
    pub(super) fn meter(&mut self, id: u32) -> Way {
        let rules = self.world.rules;
        let Some(meter) = rules.meters.iter().find(|meter| meter.id == id) else {
            return Err(self.abort("no-such-meter"));
        };
        if self.pass.n_meters >= MAX_METERS {
            return Err(self.abort("too-many-meters"));
        }
        self.pass.n_meters += 1;
        self.is_stateful = true;
        if self.state.metered {
            return Ok(());
        }
        match self.memory.measure(meter, self.now, self.pass.len) {
            Verdict::Pass => {}
            Verdict::Drop => self.state.metered = true,
            Verdict::Raise(levels) => self.state.levels = self.state.levels.saturating_add(levels),
        }
        Ok(())
    }
}
