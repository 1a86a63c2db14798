//! `bridge protocols`: what a bridge's spanning tree, bonds, mirrors and groups have come to.

use std::io::{self, Write};

use clap::Args;
use ferroflow_proto::host::{DescribeProtocolsRequest, DescribeProtocolsResponse, SetActiveMemberRequest};
use serde::Serialize;

use super::neighbours::{BfdView, CfmView, ExportView, LldpView};
use crate::{
    error::CtlError,
    output::{Table, Tabular, yes},
    session::{Session, host_answer},
};

/// Whose.
#[derive(Debug, Args)]
pub struct Protocols {
    /// The bridge; the only one by default
    #[arg(default_value = "", hide_default_value = true)]
    name: String,
}

/// Which member.
#[derive(Debug, Args)]
pub struct SetActiveMember {
    /// The bond
    bond: String,
    /// Name of the port
    member: String,
}

impl SetActiveMember {
    /// Does it.
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let mut client = session.bridges().await?;
        let Self { bond, member } = self;
        let request = session.request(SetActiveMemberRequest { bridge: session.bridge(), bond, member });
        let view = View::from(host_answer(client.set_active_member(request).await)?);
        session.print(&view, |out| view.write(out))
    }
}

impl Protocols {
    /// Does it.
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<(), CtlError> {
        let bridge = if self.name.is_empty() { session.bridge() } else { self.name };
        let mut client = session.bridges().await?;
        let request = session.request(DescribeProtocolsRequest { bridge });
        let answer = host_answer(client.describe_protocols(request).await)?;
        let view = View::from(answer);
        session.print(&view, |out| view.write(out))
    }
}

/// What is shown of a bridge's protocols.
#[derive(Debug, Serialize)]
struct View {
    bridge: String,
    spanning_tree: Option<TreeView>,
    bonds: Vec<BondView>,
    mirrors: Vec<MirrorView>,
    group_members: Vec<MemberView>,
    lldp_ports: Vec<LldpView>,
    cfm_ends: Vec<CfmView>,
    bfd_sessions: Vec<BfdView>,
    flow_exports: Vec<ExportView>,
}

#[derive(Debug, Serialize)]
struct TreeView {
    protocol: String,
    bridge_id: String,
    root_id: String,
    root_cost: u32,
    root_port: String,
    n_changes: u64,
    ports: Vec<TreePortView>,
}

#[derive(Debug, Serialize)]
struct TreePortView {
    name: String,
    role: String,
    state: String,
    edge: bool,
    rapid: bool,
    designated_bridge: String,
    designated_cost: u32,
    n_sent: u64,
    n_received: u64,
    n_transitions: u64,
}

#[derive(Debug, Serialize)]
struct BondView {
    name: String,
    port_no: u32,
    mode: String,
    lacp: String,
    negotiated: bool,
    members: Vec<BondMemberView>,
}

#[derive(Debug, Serialize)]
struct BondMemberView {
    name: String,
    enabled: bool,
    active: bool,
    n_slots: u32,
    lacp: String,
    partner: String,
    partner_key: u32,
    actor_state: Vec<String>,
    partner_state: Vec<String>,
    n_sent: u64,
    n_received: u64,
}

#[derive(Debug, Serialize)]
struct MirrorView {
    name: String,
    n_packets: u64,
    n_bytes: u64,
}

#[derive(Debug, Serialize)]
struct MemberView {
    vlan: u32,
    group: String,
    port: String,
    seconds_left: Option<u64>,
}

impl From<DescribeProtocolsResponse> for View {
    fn from(answer: DescribeProtocolsResponse) -> Self {
        let tree = answer.spanning_tree.map(|tree| TreeView {
            protocol: tree.protocol,
            bridge_id: tree.bridge_id,
            root_id: tree.root_id,
            root_cost: tree.root_cost,
            root_port: tree.root_port,
            n_changes: tree.n_changes,
            ports: tree.ports.into_iter().map(TreePortView::from).collect(),
        });
        let mirrors = answer.mirrors.into_iter();
        let members = answer.group_members.into_iter();
        Self {
            bridge: answer.bridge,
            spanning_tree: tree,
            bonds: answer.bonds.into_iter().map(BondView::from).collect(),
            mirrors: mirrors
                .map(|mirror| MirrorView {
                    name: mirror.name,
                    n_packets: mirror.n_packets,
                    n_bytes: mirror.n_bytes,
                })
                .collect(),
            group_members: members
                .map(|member| MemberView {
                    vlan: member.vlan,
                    group: member.group,
                    port: member.port,
                    seconds_left: member.seconds_left,
                })
                .collect(),
            lldp_ports: answer.lldp_ports.into_iter().map(LldpView::from).collect(),
            cfm_ends: answer.cfm_ends.into_iter().map(CfmView::from).collect(),
            bfd_sessions: answer.bfd_sessions.into_iter().map(BfdView::from).collect(),
            flow_exports: answer.flow_exports.into_iter().map(ExportView::from).collect(),
        }
    }
}

impl From<ferroflow_proto::host::TreePort> for TreePortView {
    fn from(port: ferroflow_proto::host::TreePort) -> Self {
        Self {
            name: port.name,
            role: port.role,
            state: port.state,
            edge: port.edge,
            rapid: port.rapid,
            designated_bridge: port.designated_bridge,
            designated_cost: port.designated_cost,
            n_sent: port.n_sent,
            n_received: port.n_received,
            n_transitions: port.n_transitions,
        }
    }
}

impl From<ferroflow_proto::host::Bond> for BondView {
    fn from(bond: ferroflow_proto::host::Bond) -> Self {
        let member = |member: ferroflow_proto::host::BondMember| BondMemberView {
            name: member.name,
            enabled: member.enabled,
            active: member.active,
            n_slots: member.n_slots,
            lacp: member.lacp,
            partner: member.partner,
            partner_key: member.partner_key,
            actor_state: member.actor_state,
            partner_state: member.partner_state,
            n_sent: member.n_sent,
            n_received: member.n_received,
        };
        Self {
            name: bond.name,
            port_no: bond.port_no,
            mode: bond.mode,
            lacp: bond.lacp,
            negotiated: bond.negotiated,
            members: bond.members.into_iter().map(member).collect(),
        }
    }
}

impl View {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(tree) = &self.spanning_tree {
            let way = match tree.root_port.as_str() {
                "" => "this bridge".to_owned(),
                port => format!("{}, cost {} by {port}", tree.root_id, tree.root_cost),
            };
            writeln!(out, "{}: {}, bridge {}; root: {way}", self.bridge, tree.protocol, tree.bridge_id)?;
            Table::of(&tree.ports).write(out)?;
        }
        for bond in &self.bonds {
            let found = if bond.negotiated { ", negotiated" } else { "" };
            writeln!(out, "{}: port {}, {}, LACP {}{found}", bond.name, bond.port_no, bond.mode, bond.lacp)?;
            Table::of(&bond.members).write(out)?;
        }
        if !self.mirrors.is_empty() {
            Table::of(&self.mirrors).write(out)?;
        }
        if !self.group_members.is_empty() {
            Table::of(&self.group_members).write(out)?;
        }
        let neighbours: Vec<_> = self.lldp_ports.iter().flat_map(LldpView::rows).collect();
        write_any(&neighbours, out)?;
        let remotes: Vec<_> = self.cfm_ends.iter().flat_map(CfmView::rows).collect();
        write_any(&remotes, out)?;
        write_any(&self.bfd_sessions, out)?;
        write_any(&self.flow_exports, out)?;
        Ok(())
    }
}

fn write_any<T: Tabular>(rows: &[T], out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() { Ok(()) } else { Table::of(rows).write(out) }
}

impl Tabular for TreePortView {
    const HEADINGS: &'static [&'static str] =
        &["PORT", "ROLE", "STATE", "EDGE", "RAPID", "DESIGNATED-BRIDGE", "COST", "SENT", "RECEIVED"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.clone(),
            self.state.clone(),
            yes(self.edge).to_owned(),
            yes(self.rapid).to_owned(),
            self.designated_bridge.clone(),
            self.designated_cost.to_string(),
            self.n_sent.to_string(),
            self.n_received.to_string(),
        ]
    }
}

impl Tabular for BondMemberView {
    const HEADINGS: &'static [&'static str] =
        &["MEMBER", "ENABLED", "ACTIVE", "SLOTS", "LACP", "PARTNER", "KEY", "PARTNER-STATE"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            yes(self.enabled).to_owned(),
            yes(self.active).to_owned(),
            self.n_slots.to_string(),
            self.lacp.clone(),
            self.partner.clone(),
            self.partner_key.to_string(),
            self.partner_state.join(","),
        ]
    }
}

impl Tabular for MirrorView {
    const HEADINGS: &'static [&'static str] = &["MIRROR", "PACKETS", "BYTES"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.n_packets.to_string(), self.n_bytes.to_string()]
    }
}

impl Tabular for MemberView {
    const HEADINGS: &'static [&'static str] = &["VLAN", "GROUP", "PORT", "SECONDS-LEFT"];

    fn cells(&self) -> Vec<String> {
        let group = if self.group.is_empty() { "router" } else { &self.group };
        let left = self.seconds_left.map_or("static".to_owned(), |left| left.to_string());
        vec![self.vlan.to_string(), group.to_owned(), self.port.clone(), left]
    }
}
