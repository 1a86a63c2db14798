//! Copies of packets for whoever looks at them (`crate::port::Mirror`): of one that comes, as
//! it came; of one that leaves, as it leaves. One mirror copies a packet once.

use std::net::IpAddr;

use super::{
    Tracer,
    walk::{Abort, Walk},
};
use crate::{
    field::Field,
    port::{Mirror, MirrorOutput, PortRole},
    types::{PortNo, VlanId},
};

impl<T: Tracer> Walk<'_, T> {
    /// Copies the packet, which comes or leaves by a port, for all mirrors that want it.
    pub(super) fn mirror(&mut self, port: PortNo, comes: bool) -> Result<(), Abort> {
        let snapshot = self.snapshot;
        let mirrors = snapshot.ports.mirrors();
        if mirrors.is_empty() || self.is_mirroring {
            return Ok(());
        }
        let port = snapshot.ports.bundle_of(port);
        for (idx, mirror) in mirrors.iter().enumerate() {
            let has_copy = self.mirrored >> idx & 1 != 0 || mirror.output == MirrorOutput::Port(port);
            if has_copy || !self.is_chosen(mirror, port, comes) {
                continue;
            }
            self.mirrored |= 1 << idx;
            self.is_mirroring = true;
            // That a copy cannot leave is not why the packet does not.
            let cause = self.cause.clone();
            let copied = self.copy_to_mirror(mirror);
            self.cause = cause;
            self.is_mirroring = false;
            copied?;
        }
        Ok(())
    }

    fn is_chosen(&mut self, mirror: &Mirror, port: PortNo, comes: bool) -> bool {
        let vlan = match &mirror.vlans {
            Some(_) => {
                let vid = self.vid();
                self.snapshot.ports.bridging(port).vlan_in(vid)
            }
            None => None,
        };
        if !mirror.chooses(port, vlan, comes) {
            return false;
        }
        if !mirror.filter.is_any() {
            // What is looked at here is no search for a rule.
            self.key.has_acted_on_headers();
        }
        let mut words = mirror.filter.words().iter();
        words.all(|word| self.key.read_word(usize::from(word.idx), word.mask) == word.value)
    }

    fn copy_to_mirror(&mut self, mirror: &Mirror) -> Result<(), Abort> {
        self.note(format_args!("copied to mirror {}", mirror.name));
        self.tally.groups.push(std::sync::Arc::clone(&mirror.stats));
        let n_before = self.emits.len();
        match mirror.output {
            MirrorOutput::Port(port) => self.send(port)?,
            MirrorOutput::Vlan(vlan) => self.copy_to_vlan(vlan)?,
            MirrorOutput::Tunnel { port, remote, key } => self.copy_to_tunnel(port, remote, key)?,
        }
        for emit in self.emits.iter_mut().skip(n_before) {
            let extras = emit.extras.get_or_insert_default();
            extras.is_mirrored = true;
            extras.max_len = mirror.max_len;
        }
        Ok(())
    }

    /// To the other end of a tunnel, with nothing of a tunnel that the packet came by.
    fn copy_to_tunnel(&mut self, port: PortNo, remote: IpAddr, key: u32) -> Result<(), Abort> {
        let saved = self.save();
        let (v4, v6) = match remote {
            IpAddr::V4(address) => (address.to_bits(), 0),
            IpAddr::V6(address) => (0, address.to_bits()),
        };
        let header = [
            (Field::TunDst, v4.into()),
            (Field::TunIpv6Dst, v6),
            (Field::TunId, key.into()),
            (Field::TunTos, 0),
            (Field::TunTtl, 0),
            (Field::TunFlags, 0),
            (Field::TunGbpId, 0),
            (Field::TunGbpFlags, 0),
            (Field::TunMetadataPresent, 0),
        ];
        header.into_iter().for_each(|(field, value)| self.key.write(field, value));
        let sent = self.send(port);
        self.restore(*saved);
        sent
    }

    /// To all ports in the mirrors' VLAN, but the one it comes by.
    fn copy_to_vlan(&mut self, vlan: VlanId) -> Result<(), Abort> {
        let snapshot = self.snapshot;
        let in_port = PortNo::new(self.key.read(Field::InPort) as u32).unwrap_or(PortNo::ZERO);
        let in_port = snapshot.ports.bundle_of(in_port);
        for (port, info) in snapshot.ports.bundles() {
            let takes = info.up && info.role == PortRole::Workload && !snapshot.ports.is_mirror_port(port);
            if takes && port != in_port && snapshot.ports.bridging(port).vid_out(vlan).is_some() {
                self.send_in_vlan((vlan, true), port)?;
            }
        }
        Ok(())
    }
}
