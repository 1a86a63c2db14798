//! Where copies go: ports, what reserved numbers stand for, tunnels.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{
    MAX_EMITS, Tracer,
    walk::{Abort, Walk},
};
use crate::{
    drop::DropReason,
    field::{Field, SubField},
    flow::ToController,
    key::TUN_METADATA_LEN,
    port::{PortRole, TreeState},
    program::{TunnelHeader, TunnelKind},
    tunnel::{self, GroupPolicy, TunnelSpec, tun_flags},
    types::{PortNo, TableId, Vni},
    underlay::TunnelPort,
};

/// Tunnel flags that an outer header can carry.
const SENT_FLAGS: u16 = tun_flags::OAM | tun_flags::CHECKSUM;

impl<T: Tracer> Walk<'_, T> {
    /// Sends the packet as it is now to a port, or to what a reserved number stands for.
    pub(super) fn output(&mut self, port: PortNo) -> Result<(), Abort> {
        match port {
            PortNo::IN_PORT => {
                let in_port = self.key.read(Field::InPort);
                self.output_number(in_port, true)
            }
            PortNo::ALL => self.flood(true),
            PortNo::FLOOD => self.flood(false),
            PortNo::NONE | PortNo::UNSET => Ok(()),
            PortNo::CONTROLLER => self.punt(&ToController::default()),
            PortNo::LOCAL => self.output_number(PortNo::LOCAL.get().into(), false),
            PortNo::TABLE => self.resubmit(None, Some(TableId::FIRST)),
            PortNo::NORMAL => self.normal(),
            port => self.output_number(port.get().into(), false),
        }
    }

    /// Sends as [`Walk::output`] does, cut short or by a queue.
    pub(super) fn output_special(
        &mut self,
        port: PortNo,
        max_len: Option<u32>,
        queue: Option<u32>,
    ) -> Result<(), Abort> {
        let (n_before, usual) = (self.emits.len(), self.queue);
        self.queue = queue.or(usual);
        let result = self.output(port);
        self.queue = usual;
        for emit in self.emits.iter_mut().skip(n_before).filter(|_| max_len.is_some()) {
            emit.extras.get_or_insert_default().max_len = max_len;
        }
        result
    }

    /// Sends the packet to the port that a sub-field names.
    pub(super) fn output_reg(&mut self, sub: SubField) -> Result<(), Abort> {
        let number = self.read(sub)?;
        match u32::try_from(number).ok().and_then(|raw| PortNo::new(raw).ok()) {
            Some(port) => self.output(port),
            None => {
                self.end(DropReason::NoSuchPort);
                Ok(())
            }
        }
    }

    /// Sends the packet to a real port, but not back to where it came from unless that
    /// is what the rule says. A rule that wants to send back writes 0 to `in_port`.
    fn output_number(&mut self, number: u128, back: bool) -> Result<(), Abort> {
        if !back && self.key.read(Field::InPort) == number {
            self.end(DropReason::SamePort);
            return Ok(());
        }
        let port = u32::try_from(number).ok().and_then(|raw| PortNo::new(raw).ok());
        let Some(port) = port.filter(|port| port.is_real() || *port == PortNo::LOCAL) else {
            self.end(DropReason::NoSuchPort);
            return Ok(());
        };
        self.send(port)
    }

    /// A copy to each workload that can take it, but the sender. Uplinks carry only
    /// tunnelled packets, and a tunnel is nowhere without a destination. `to_all`: also to
    /// ports that do not take part in flooding.
    fn flood(&mut self, to_all: bool) -> Result<(), Abort> {
        let in_port = self.key.read(Field::InPort);
        let snapshot = self.snapshot;
        let in_bundle = PortNo::new(in_port as u32).map(|port| snapshot.ports.bundle_of(port));
        for (port, info) in snapshot.ports.bundles() {
            let takes = to_all || snapshot.ports.bridging(port).floods;
            let is_workload = info.up && info.role == PortRole::Workload;
            let is_mirror = snapshot.ports.is_mirror_port(port);
            if takes && is_workload && !is_mirror && in_bundle != Ok(port) {
                self.send(port)?;
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, port: PortNo) -> Result<(), Abort> {
        if self.emits.len() >= MAX_EMITS {
            return Err(Abort(DropReason::TooManyOutputs));
        }
        let Some(leaves_by) = self.leaving(port) else { return Ok(()) };
        let bundle = port;
        let port = leaves_by;
        let target = match self.snapshot.underlay.tunnels.iter().find(|tunnel| tunnel.port == port) {
            Some(tunnel) => self.encapsulate(tunnel),
            None => self.usable(port).map(|()| (port, None)),
        };
        match target {
            Ok((port, tunnel)) => {
                let emit = self.copy_for(port, tunnel);
                self.note(format_args!("output to port {port}"));
                self.emit(emit);
                return self.mirror(bundle, false);
            }
            Err(reason) => self.end(reason),
        }
        Ok(())
    }

    /// The port itself, or the member of a bond that the packet leaves by; `None`: it does not.
    fn leaving(&mut self, port: PortNo) -> Option<PortNo> {
        let Some(bond) = self.snapshot.ports.bond(port) else { return Some(port) };
        self.member_of(bond).map_err(|reason| self.end(reason)).ok()
    }

    /// A port that exists and is up.
    fn usable(&mut self, port: PortNo) -> Result<(), DropReason> {
        let is_blocked = self.snapshot.ports.bridging(port).tree != TreeState::Forwarding;
        match self.snapshot.ports.get(port) {
            None => Err(DropReason::NoSuchPort),
            Some(info) if !info.up => Err(DropReason::PortDown),
            // What is for the next bridge goes no further than that.
            Some(_) if is_blocked && !self.is_link_local() => Err(DropReason::PortBlocked),
            Some(_) => Ok(()),
        }
    }

    /// The uplink and the outer header for a tunnel.
    fn encapsulate(
        &mut self,
        tunnel: &TunnelPort,
    ) -> Result<(PortNo, Option<Arc<TunnelHeader>>), DropReason> {
        let remote = self.remote().ok_or(DropReason::TunnelNoRoute)?;
        let hop = self.snapshot.underlay.next_hops.get(&remote).ok_or(DropReason::TunnelNoRoute)?;
        self.usable(hop.port)?;
        let header = self
            .tunnel_spec(remote, tunnel.kind)
            .and_then(|spec| tunnel::build_header((&spec, self.snapshot.tables.options()), tunnel, hop))
            .ok_or(DropReason::TunnelNoRoute)?;
        self.note(format_args!("tunnel to {remote}, network {}", header.vni));
        Ok((hop.port, Some(Arc::new(header))))
    }

    /// Where the tunnel ends.
    fn remote(&mut self) -> Option<IpAddr> {
        let v4 = self.key.read(Field::TunDst) as u32;
        if v4 != 0 {
            return Some(Ipv4Addr::from_bits(v4).into());
        }
        let v6 = self.key.read(Field::TunIpv6Dst);
        (v6 != 0).then(|| Ipv6Addr::from_bits(v6).into())
    }

    /// What the outer header shall say. Reads only what has a form on the wire.
    fn tunnel_spec(&mut self, remote: IpAddr, kind: TunnelKind) -> Option<TunnelSpec> {
        let options = self.snapshot.tables.options();
        let known = if kind == TunnelKind::Geneve { options.bits() } else { 0 };
        let present = self.key.read_bits(Field::TunMetadataPresent, known.into()) as u64;
        let mut tun_metadata = [0; TUN_METADATA_LEN];
        for option in options.iter().filter(|option| present & option.bit() != 0) {
            let value = (self.key.read(Field::tun_metadata(option.idx)?) as u32).to_be_bytes();
            *tun_metadata.as_chunks_mut().0.get_mut(option.idx)? = value;
        }
        let policy = match kind {
            TunnelKind::Geneve | TunnelKind::Gre => GroupPolicy::default(),
            TunnelKind::Vxlan => GroupPolicy {
                flags: self.key.read(Field::TunGbpFlags) as u8,
                id: self.key.read(Field::TunGbpId) as u16,
            },
        };
        Some(TunnelSpec {
            vni: Vni::new(u32::try_from(self.key.read(Field::TunId)).ok()?).ok()?,
            remote,
            tos: self.key.read(Field::TunTos) as u8,
            ttl: self.key.read(Field::TunTtl) as u8,
            flags: self.key.read_bits(Field::TunFlags, SENT_FLAGS.into()) as u16,
            policy,
            tun_metadata_present: present,
            tun_metadata,
        })
    }
}
