//! Ports, tunnels, controllers.

use super::{
    Outer, Port, Sent, Told,
    walk::{Walk, Way},
};
use crate::{field::Field, syntax::Tell};

/// Copies of one packet that the switch makes.
const MAX_COPIES: usize = 16_384;
/// Numbers from here on are no ports.
const FIRST_RESERVED: u128 = 0xff00;

impl Walk<'_> {
    /// Sends to a port; not to the input port unless asked for it by that name.
    pub(super) fn output(&mut self, port: u128, back: bool) -> Way {
        match port {
            _ if back => {}
            0xfffb | 0xfffc => return self.flood(),
            0xfff7 | 0xffff => return Ok(()),
            0xfff8 => return self.output(self.state.get(Field::InPort), true),
            0xfffd => return self.tell_about(0, "action", None, &[]),
            0xfffa => return self.normal(),
            0xfff9 => {
                self.end("unsupported");
                return Ok(());
            }
            _ if port == self.state.get(Field::InPort) => {
                self.end("same-port");
                return Ok(());
            }
            _ => {}
        }
        if port >= FIRST_RESERVED {
            self.end("no-such-port");
            return Ok(());
        }
        self.send(port as u32)
    }

    pub(super) fn flood(&mut self) -> Way {
        let in_port = self.state.get(Field::InPort);
        for (number, port) in self.world.ports {
            if *port == (Port::Workload { up: true }) && u128::from(*number) != in_port {
                self.send(*number)?;
            }
        }
        Ok(())
    }

    /// Sends the first bytes of each copy.
    pub(super) fn truncated(&mut self, port: u128, max_len: u32) -> Way {
        let (n_sent, n_told) = (self.sent.len(), self.told.len());
        self.output(port, false)?;
        let max_len = max_len as usize;
        self.sent.iter_mut().skip(n_sent).for_each(|sent| sent.frame.truncate(max_len));
        for told in self.told.iter_mut().skip(n_told) {
            told.frame.truncate(max_len);
            told.len = told.len.min(max_len);
        }
        Ok(())
    }

    /// One copy more; false: a meter has dropped the packet, or it cannot be made.
    fn begin_copy(&mut self) -> Result<bool, super::walk::Stop> {
        self.pass.n_copies += 1;
        if self.pass.n_copies > MAX_COPIES {
            return Err(self.abort("too-many-outputs"));
        }
        self.n_ends += 1;
        if self.state.metered {
            self.whys.push("metered");
            return Ok(false);
        }
        if self.state.is_unsendable() {
            self.n_unsendable += 1;
            return Ok(false);
        }
        Ok(true)
    }

    fn send(&mut self, number: u32) -> Way {
        match self.way(number) {
            Ok((port, tunnel)) => {
                if self.begin_copy()? {
                    self.sent.push(Sent { port, frame: self.remarked(), tunnel });
                }
            }
            Err(why) => self.end(why),
        }
        Ok(())
    }

    /// The frame as it leaves.
    fn remarked(&self) -> Vec<u8> {
        if self.state.levels == 0 {
            return self.state.bytes.clone();
        }
        let mut state = self.state.clone();
        state.remark();
        state.bytes
    }

    /// The port by which a copy to `number` leaves, and what a tunnel puts in front; or why it does not.
    fn way(&self, number: u32) -> Result<(u32, Option<Outer>), &'static str> {
        match self.world.ports.get(&number) {
            None => Err("no-such-port"),
            Some(Port::Workload { up: false }) => Err("port-down"),
            Some(Port::Workload { up: true } | Port::Uplink) => Ok((number, None)),
            Some(Port::Tunnel { peer, uplink }) => {
                self.outer(*peer).map(|outer| (*uplink, Some(outer))).ok_or("tunnel-no-route")
            }
        }
    }

    /// What the tunnel header says, if the packet is for the peer and its network has a number on the wire.
    fn outer(&self, peer: u32) -> Option<Outer> {
        let vni = u32::try_from(self.state.get(Field::TunId)).ok().filter(|vni| *vni <= 0xff_ffff)?;
        let option = self.state.option();
        (self.state.get(Field::TunDst) == u128::from(peer)).then_some(Outer { peer, vni, option })
    }

    pub(super) fn tell(&mut self, tell: &Tell) -> Way {
        self.tell_about(tell.id, tell.reason.unwrap_or("action"), tell.max_len, &tell.userdata)
    }

    /// A copy for a controller (OpenFlow 1.5 §7.4.1).
    pub(super) fn tell_about(
        &mut self,
        controller: u16,
        reason: &'static str,
        max_len: Option<u16>,
        userdata: &[u8],
    ) -> Way {
        if !self.begin_copy()? {
            return Ok(());
        }
        let mut frame = self.remarked();
        let len = frame.len();
        // 0xffff is "all of it".
        if let Some(max_len) = max_len.filter(|max_len| *max_len != 0xffff) {
            frame.truncate(max_len.into());
        }
        let reason = if self.author.is_miss && reason == "action" { "no_match" } else { reason };
        let (table, cookie) = (self.author.table, self.author.cookie);
        let (userdata, metadata) = (userdata.to_vec(), self.state.metadata());
        self.told.push(Told { controller, reason, frame, len, table, cookie, userdata, metadata });
        Ok(())
    }
}
