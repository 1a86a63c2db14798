//! What rules do with headers, tables and ports.

use super::{Context, Maker, N_TABLES, matching::value};
use crate::{
    field::{Field, Needs},
    ovs::Protocol,
    rng::Rng,
    syntax::{Part, Step, Term},
};

const WRITTEN: &[Field] = &[
    Field::EthDst,
    Field::EthSrc,
    Field::Reg(0),
    Field::Reg(0),
    Field::Reg(1),
    Field::Xreg(0),
    Field::Xxreg(0),
    Field::Metadata,
    Field::PktMark,
    Field::VlanVid,
    Field::VlanPcp,
    Field::NwSrc,
    Field::NwDst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::Ipv6Label,
    Field::IpDscp,
    Field::NwEcn,
    Field::NwTtl,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    Field::TcpSrc,
    Field::TcpDst,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
    Field::SctpDst,
    Field::IcmpType,
    Field::IcmpCode,
    Field::MplsLabel,
    Field::MplsTc,
    Field::MplsTtl,
];

impl Maker<'_> {
    /// A few actions; most often the packet leaves in the end.
    pub(super) fn steps(self, rng: &mut Rng, mut context: Context, table: u8, nesting: u32) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..rng.below(5) {
            steps.push(self.step(rng, &mut context, table, nesting));
            // That a connection is forgotten shows in another lookup.
            if matches!(steps.last(), Some(Step::CtClear)) && rng.one_in(2) {
                steps.push(self.resubmit(rng, table, context));
            }
            // What is learned is to be met, most often by later packets.
            if let Some(Step::Learn(learn)) = steps.last()
                && !rng.one_in(3)
            {
                steps.push(Step::Resubmit { port: None, table: learn.table, ct: false });
            }
            // What is put on the stack is to be seen again.
            if matches!(steps.last(), Some(Step::Push(_))) && rng.one_in(2) {
                let target = rng.pick(&[Field::Reg(0), Field::EthDst, Field::EthSrc]);
                steps.push(Step::Pop(Part::new(target, 0, 16)));
            }
        }
        if let Some((port, _)) = self.repertoire.tunnel
            && rng.one_in(6)
        {
            for _ in 0..4 {
                steps.push(self.tunnel(rng));
            }
            steps.push(Step::Output(port));
        }
        if !rng.one_in(4) {
            steps.push(Step::Output(rng.pick(self.repertoire.ports)));
        }
        if nesting > 0 && self.repertoire.protocol != Some(Protocol::OpenFlow10) {
            self.instructions(rng, context, table, &mut steps);
        }
        steps
    }

    /// What stands behind the actions, in this order.
    fn instructions(self, rng: &mut Rng, context: Context, table: u8, steps: &mut Vec<Step>) {
        if self.repertoire.features.sets {
            if rng.one_in(10) {
                steps.push(Step::ClearActions);
            }
            if rng.one_in(3) {
                steps.push(Step::WriteActions(self.action_set(rng, context, table)));
            }
            if rng.one_in(8) {
                let mask = rng.pick(&[u64::MAX, 1, 3, 6]);
                steps.push(Step::WriteMetadata(rng.below(8) & mask, mask));
            }
        }
        if rng.one_in(if self.repertoire.features.sets { 4 } else { 8 }) && u64::from(table) + 1 < N_TABLES {
            steps.push(Step::Goto(table + 1 + rng.below(N_TABLES - 1 - u64::from(table)) as u8));
        }
    }

    pub(super) fn step(self, rng: &mut Rng, context: &mut Context, table: u8, nesting: u32) -> Step {
        if rng.one_in(3)
            && let Some(step) = self.special(rng, context, table)
        {
            return step;
        }
        let protocol = self.repertoire.protocol;
        match rng.below(20) {
            0..=3 => self.output(rng),
            4..=8 => self.set(rng, *context),
            9 | 10 => moved(rng, *context),
            11..=14 => self.resubmit(rng, table, *context),
            15 if context.meets(Needs::Ip) => self.dec_ttl(rng),
            16 if protocol != Some(Protocol::OpenFlow10) => {
                context.tagged = true;
                Step::PushVlan(rng.pick(&[0x8100, 0x88a8]))
            }
            17 if context.tagged
                || !matches!(protocol, Some(Protocol::OpenFlow13 | Protocol::OpenFlow15)) =>
            {
                context.tagged = false;
                Step::PopVlan
            }
            18 => self.tag(rng, context),
            19 if nesting > 0 => {
                let mut inner = self.steps(rng, *context, table, 0);
                if protocol.is_some() {
                    // Open vSwitch has no meters in clones.
                    inner.retain(|step| !matches!(step, Step::Meter(_)));
                }
                if inner.is_empty() {
                    inner.push(self.output(rng));
                }
                Step::Clone(inner)
            }
            _ => self.tunnel(rng),
        }
    }

    fn dec_ttl(self, rng: &mut Rng) -> Step {
        if self.repertoire.features.punts && rng.one_in(2) {
            return Step::DecTtlOrTell(rng.pick(&[vec![1], vec![0, 2]]));
        }
        Step::DecTtl
    }

    pub(super) fn set(self, rng: &mut Rng, context: Context) -> Step {
        // OpenFlow 1.0 says these by `mod_vlan_vid` and its like, which can also make a tag.
        let protocol = self.repertoire.protocol;
        let allowed = |field| match protocol {
            None => true,
            Some(Protocol::OpenFlow10) => !matches!(field, Field::VlanVid | Field::VlanPcp),
            Some(Protocol::OpenFlow13 | Protocol::OpenFlow15) => field != Field::VlanVid,
        };
        let has = |field: &Field| context.meets(field.needs()) && allowed(*field);
        let choice: Vec<Field> = WRITTEN.iter().copied().filter(has).collect();
        let field = rng.pick(&choice);
        let term = value(rng, field, false);
        if matches!(field, Field::Reg(_) | Field::Metadata) && rng.one_in(4) {
            return Step::Load(Part::new(field, 2, 3), rng.below(8).into());
        }
        // OpenFlow 1.0's own actions for header fields lose a mask.
        let registers = matches!(field, Field::Reg(_) | Field::Metadata | Field::PktMark);
        let whole_only = protocol == Some(Protocol::OpenFlow10) && !registers;
        Step::Set(if whole_only { Term::whole(field, term.value) } else { term })
    }

    fn tag(self, rng: &mut Rng, context: &mut Context) -> Step {
        let (tagged, vid) = (context.tagged, 100 + rng.below(3) as u16);
        context.tagged = true;
        match self.repertoire.protocol {
            Some(Protocol::OpenFlow13 | Protocol::OpenFlow15) if tagged => Step::SetVlanVid(vid),
            Some(Protocol::OpenFlow13 | Protocol::OpenFlow15) => Step::PushVlan(0x8100),
            _ if rng.one_in(2) => Step::ModVlanPcp(rng.below(8) as u8),
            None if tagged && rng.one_in(2) => Step::SetVlanVid(vid),
            _ => Step::ModVlanVid(vid),
        }
    }

    pub(super) fn resubmit(self, rng: &mut Rng, table: u8, context: Context) -> Step {
        let first = u64::from(table) + 1;
        let back = self.repertoire.loops && rng.one_in(24) || first >= N_TABLES;
        if back && !self.repertoire.loops {
            return self.output(rng);
        }
        let to = if back { rng.below(N_TABLES) } else { first + rng.below(N_TABLES - first) } as u8;
        let port = rng.one_in(6).then(|| rng.pick(self.repertoire.ports));
        let ct = self.repertoire.features.tracking
            && self.repertoire.protocol.is_none()
            && rng.one_in(4)
            && context.meets(Needs::Ip);
        Step::Resubmit { port, table: to, ct }
    }

    pub(super) fn output(self, rng: &mut Rng) -> Step {
        match rng.below(10) {
            0 => Step::InPort,
            1 => Step::Flood,
            2 => Step::OutputReg(Part::new(Field::Reg(0), 0, 16)),
            3 => Step::Output(1 + rng.below(12) as u32),
            _ => Step::Output(rng.pick(self.repertoire.ports)),
        }
    }

    fn tunnel(self, rng: &mut Rng) -> Step {
        let Some((port, peers)) = self.repertoire.tunnel else {
            return Step::Set(Term::whole(Field::InPort, 0));
        };
        match rng.below(6) {
            0 => Step::Set(Term::whole(Field::InPort, 0)),
            1 => Step::SetTunnel(rng.pick(&[0, 5, 0xff_ffff, 0x100_0000])),
            2 => Step::Set(Term::whole(Field::TunMetadata0, rng.below(0x1_0000).into())),
            3 => Step::Output(port),
            4 if self.repertoire.features.odds => Step::DeleteField(Field::TunMetadata0),
            _ => Step::Set(Term::whole(Field::TunDst, rng.pick(peers).into())),
        }
    }
}

fn moved(rng: &mut Rng, context: Context) -> Step {
    let part = Part::new;
    let all: [(Part, Part); 12] = [
        (part(Field::Reg(0), 0, 2), part(Field::Reg(1), 0, 2)),
        (part(Field::Reg(1), 0, 2), part(Field::Metadata, 1, 2)),
        (part(Field::InPort, 0, 16), part(Field::Reg(0), 0, 16)),
        (part(Field::VlanTci, 0, 12), part(Field::Reg(1), 0, 12)),
        (Part::whole(Field::EthSrc), Part::whole(Field::EthDst)),
        (part(Field::NwSrc, 0, 2), part(Field::Reg(0), 0, 2)),
        (part(Field::Reg(0), 0, 2), part(Field::NwDst, 0, 2)),
        (Part::whole(Field::NwSrc), Part::whole(Field::NwDst)),
        (part(Field::Ipv6Src, 0, 3), part(Field::Reg(0), 0, 3)),
        (part(Field::Reg(1), 0, 2), part(Field::Ipv6Dst, 0, 2)),
        (Part::whole(Field::TcpSrc), Part::whole(Field::TcpDst)),
        (part(Field::ArpSpa, 0, 32), part(Field::ArpTpa, 0, 32)),
    ];
    let choice: Vec<_> = all
        .into_iter()
        .filter(|(src, dst)| context.meets(src.field.needs()) && context.meets(dst.field.needs()))
        .collect();
    let (src, dst) = rng.pick(&choice);
    Step::Move { src, dst }
}
