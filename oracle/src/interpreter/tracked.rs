//! `ct` (ovs-actions(7)): through the connection tracker, and on from there.

use super::walk::{Pass, Stop, Walk, Way};
use crate::{
    field::{Field, Needs},
    state::{State, Translated},
    syntax::{Ct, Nat, Step, Zone, ones},
    tracker::{Packet, Refusal, Request, Translation, Verdict},
};

/// Passes of one copy.
const MAX_DEPTH: usize = 8;
/// Passes of all copies of a packet.
const MAX_PASSES: usize = 64;

impl Walk<'_> {
    pub(super) fn ct(&mut self, ct: &Ct) -> Way {
        self.see_payload()?;
        if !self.state.has(Needs::Ip) {
            return Ok(());
        }
        self.is_stateful = true;
        ct.exec.iter().for_each(|step| self.met.step(step));
        let request = self.request(ct);
        match (ct.table, ct.nat) {
            (Some(table), _) => self.fork(table, &request)?,
            (None, Some(_)) => self.translated(&request)?,
            (None, None) => {
                self.pass.n_copies += 1;
                if !self.is_rehearsing()
                    && !self.state.metered
                    && let Err(why) = self.track(&request)
                {
                    self.whys.push(why);
                }
            }
        }
        self.ct_clear();
        Ok(())
    }

    /// The packet knows of no connection any more. So it does behind `ct`, whose other fork has been told.
    pub(super) fn ct_clear(&mut self) {
        Field::CT.into_iter().for_each(|field| self.state.forget(field));
    }

    /// A copy goes on in a table, knowing its connection; the walk goes on as if nothing had been.
    fn fork(&mut self, table: u8, request: &Request) -> Way {
        self.n_ends += 1;
        self.pass.n_copies += 1;
        if self.is_rehearsing() || !self.may_pass() {
            return Ok(());
        }
        let (state, author) = (self.state.clone(), self.author);
        self.state.remark();
        match self.track(request) {
            Ok(verdict) => {
                self.rewrite(request.zone, &verdict);
                self.know(request.zone, &verdict);
                let outside = (self.new_pass(), self.depth);
                self.depth += 1;
                self.whole_pass(table);
                (self.pass, self.depth) = outside;
            }
            Err(why) => self.whys.push(why),
        }
        (self.state, self.author) = (state, author);
        if self.stage.is_over { Err(Stop::Over) } else { Ok(()) }
    }

    /// The packet is translated, and what follows sees it so.
    fn translated(&mut self, request: &Request) -> Way {
        self.n_ends += 1;
        self.pass.n_copies += 1;
        if self.is_rehearsing() {
            return Err(Stop::Behind);
        }
        let may_pass = self.may_pass();
        self.new_pass();
        self.depth += 1;
        if !may_pass {
            return Err(self.abort("metered"));
        }
        self.state.remark();
        let tracked = self.track(request);
        // What the tracker has forgotten stays forgotten, also when it refuses the packet.
        self.pass.before = self.before();
        let verdict = tracked.map_err(|why| self.abort(why))?;
        self.rewrite(request.zone, &verdict);
        self.pass.len = self.state.bytes.len();
        self.pass.before = self.before();
        self.open_pass();
        Ok(())
    }

    /// Nothing keeps the copy from being tracked.
    fn may_pass(&mut self) -> bool {
        if self.state.metered {
            self.whys.push("metered");
            return false;
        }
        if self.state.is_unsendable() {
            self.n_passes += 1;
            self.whys.push("unsupported");
            return false;
        }
        self.n_passes += 1;
        // Which passes of a packet that loops are counted, nobody says.
        self.is_lost |= self.n_passes > MAX_PASSES;
        if self.depth >= MAX_DEPTH || self.n_passes > MAX_PASSES {
            self.whys.push("recirculation-limit");
            return false;
        }
        true
    }

    /// Begins a pass; answers the one before.
    fn new_pass(&mut self) -> Pass {
        self.passes += 1;
        let (len, before) = (self.state.bytes.len(), self.before());
        let pass =
            Pass { id: self.passes, n_lookups: 0, n_copies: 0, n_meters: 0, n_answers: 0, len, before };
        std::mem::replace(&mut self.pass, pass)
    }

    fn track(&mut self, request: &Request) -> Result<Verdict, &'static str> {
        let packet = Packet::read(&self.state.bytes);
        let translated = self.state.translated.as_ref();
        let own = translated.filter(|own| own.zone == request.zone && own.after == packet.tuple);
        let packet = own.map_or(&packet, |own| &own.before);
        let verdict = self.memory.tracker.track(self.now / 1_000_000, request, packet);
        let verdict = verdict.map_err(|refusal| match refusal {
            Refusal::Exhausted => "ct-nat-exhausted",
            Refusal::Unforeseeable => {
                self.is_lost = true;
                "ct-nat-exhausted"
            }
        })?;
        // It is as it should be already.
        Ok(if own.is_some() { Verdict { rewrite: None, quoted: None, ..verdict } } else { verdict })
    }

    fn request(&self, ct: &Ct) -> Request {
        let zone = match ct.zone {
            Zone::Number(zone) => zone,
            Zone::In(part) => self.state.read(part) as u16,
        };
        let nat = ct.nat.map(|nat| match nat {
            Nat::Existing => Translation::Existing,
            Nat::To { source, ipv6, address, port } => Translation::To { source, ipv6, address, port },
        });
        let (mark, label) = written(&ct.exec, &self.state);
        Request { commit: ct.commit, force: ct.force, zone, nat, mark: (mark.0 as u32, mark.1 as u32), label }
    }

    /// What the tracker says becomes fields.
    fn know(&mut self, zone: u16, verdict: &Verdict) {
        Field::CT.into_iter().for_each(|field| self.state.forget(field));
        self.state.note(Field::CtState, verdict.state.into());
        self.state.note(Field::CtZone, zone.into());
        self.state.note(Field::CtMark, verdict.mark.into());
        self.state.note(Field::CtLabel, verdict.label);
        let Some(tuple) = &verdict.original else { return };
        let (src, dst) = match tuple.ipv6 {
            true => (Field::CtIpv6Src, Field::CtIpv6Dst),
            false => (Field::CtNwSrc, Field::CtNwDst),
        };
        self.state.note(src, tuple.src);
        self.state.note(dst, tuple.dst);
        self.state.note(Field::CtNwProto, tuple.proto.into());
        let ports = match tuple.is_icmp() {
            true => (tuple.kind.into(), tuple.code.into()),
            false => (tuple.src_port, tuple.dst_port),
        };
        self.state.note(Field::CtTpSrc, ports.0.into());
        self.state.note(Field::CtTpDst, ports.1.into());
    }

    /// Gives the packet the addresses and ports of the translation, and reads it anew.
    fn rewrite(&mut self, zone: u16, verdict: &Verdict) {
        let packet = Packet::read(&self.state.bytes);
        if let (Some(quoted), Some(about)) = (&verdict.quoted, &packet.about) {
            self.state.requote(about, quoted);
        }
        if let Some(new) = &verdict.rewrite {
            let [src, dst] =
                if new.ipv6 { [Field::Ipv6Src, Field::Ipv6Dst] } else { [Field::NwSrc, Field::NwDst] };
            self.state.set(src, new.src, u128::MAX);
            self.state.set(dst, new.dst, u128::MAX);
            let ports = match new.proto {
                6 => Some([Field::TcpSrc, Field::TcpDst]),
                17 => Some([Field::UdpSrc, Field::UdpDst]),
                132 => Some([Field::SctpSrc, Field::SctpDst]),
                _ => None,
            };
            if let Some([src, dst]) = ports {
                self.state.set(src, new.src_port.into(), u128::MAX);
                self.state.set(dst, new.dst_port.into(), u128::MAX);
            } else if new.is_icmp() && verdict.quoted.is_none() {
                self.state.set_identifier(new.src_port);
            }
        }
        self.state.receive();
        if verdict.rewrite.is_some() {
            let after = Packet::read(&self.state.bytes).tuple;
            self.state.translated = Some(Translated { zone, before: packet, after });
        }
    }
}

/// Bits that `exec` writes to the mark and to the label, and which.
fn written(exec: &[Step], state: &State) -> ((u128, u128), (u128, u128)) {
    let (mut mark, mut label) = ((0, 0), (0, 0));
    let mut state = state.clone();
    for step in exec {
        let (field, bits) = match step {
            Step::Set(term) => {
                state.set(term.field, term.value, term.mask);
                (term.field, term.mask)
            }
            Step::Load(part, value) => {
                state.write_part(*part, *value);
                (part.field, ones(part.n_bits) << part.start)
            }
            Step::Move { src, dst } if state.has(src.field.needs()) => {
                let value = state.read(*src);
                state.write_part(*dst, value);
                (dst.field, ones(dst.n_bits) << dst.start)
            }
            _ => continue,
        };
        let place = if field == Field::CtMark { &mut mark } else { &mut label };
        place.1 |= bits;
        place.0 = state.get(field) & place.1;
    }
    (mark, label)
}
