//! A host's switch with fixed answers, and what it was asked.

use std::sync::{Arc, Mutex};

use ferroflow_proto::host::{
    AddBridgeRequest, AddBridgeResponse, AddPortRequest, AddPortResponse, Bridge, DescribeFramesRequest,
    DescribeFramesResponse, Drop, DumpFlowsRequest, DumpFlowsResponse, DumpMegaflowsRequest,
    DumpMegaflowsResponse, Flow, GetStatusRequest, GetStatusResponse, ListBridgesRequest,
    ListBridgesResponse, ListDropsRequest, ListDropsResponse, ListPortsRequest, ListPortsResponse, Megaflow,
    ModifyPortRequest, Origin, Port, PortCounters, RemoveBridgeRequest, RemoveBridgeResponse,
    RemovePortRequest, RemovePortResponse, SetLogRequest, SetLogResponse, TraceRequest, TraceResponse,
    TraceStep, Worker,
    host_service_server::{HostService, HostServiceServer},
};
use tonic::{Request, Response, Status, transport::Server};

use crate::Place;

/// The server.
#[derive(Default, Clone)]
pub(crate) struct FakeHost {
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeHost {
    /// Serves at `host` of `place`, until the test ends.
    pub(crate) fn start(place: &Place) -> Self {
        let fake = Self::default();
        let server = Server::builder().add_service(HostServiceServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(place.listen("host")));
        fake
    }

    /// The last request in the words of its debug form.
    pub(crate) fn asked(&self) -> String {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn note(&self, request: &impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{request:?}"));
    }
}

fn origin(logical_flow: u64, stage: &str, object: &str) -> Option<Origin> {
    Some(Origin { logical_flow, stage: stage.into(), object: object.into() })
}

fn port(name: &str, logical_port: &str) -> Port {
    Port {
        port_no: 2,
        name: name.into(),
        kind: "afxdp".into(),
        role: "workload".into(),
        logical_port: logical_port.into(),
        network: String::new(),
        up: true,
        mode: "generic-copy".into(),
        mtu: 1500,
        counters: Some(PortCounters { rx_packets: 9, rx_forwarded: 7, rx_dropped: 2, ..Default::default() }),
        forwards: true,
        floods: true,
        bridge: "br0".into(),
        ..Port::default()
    }
}

fn acl_drop(n_packets: u64) -> Drop {
    Drop {
        port: "veth-web-1".into(),
        reason: "acl-drop".into(),
        description: "an ACL says drop".into(),
        origin: origin(0x1f, "ls_out_acl_eval", "switches/db/acls/no-telnet"),
        n_packets,
        n_bytes: 60 * n_packets,
        ..Drop::default()
    }
}

fn step(depth: u32, table: u32, hit: Option<(u32, &str, &str)>, origin: Option<Origin>) -> TraceStep {
    let (priority, matching, actions) = hit.map_or((None, "", ""), |(p, m, a)| (Some(p), m, a));
    TraceStep {
        depth,
        table: Some(table),
        priority,
        r#match: matching.into(),
        actions: actions.into(),
        origin,
        note: String::new(),
        lost: false,
    }
}

#[tonic::async_trait]
impl HostService for FakeHost {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let worker = Worker { id: 0, n_polls: 10, n_idle_polls: 4, n_packets: 9, ..Default::default() };
        Ok(Response::new(GetStatusResponse {
            version: "0.1.0".into(),
            chassis: "host-1".into(),
            encap_ip: "192.0.2.1".into(),
            controller: "http://192.0.2.9:6641".into(),
            applied_revision: 12,
            epoch: 5,
            n_rules: 321,
            workers: vec![worker],
            errors: vec!["switches/db/acls/x: reject needs conntrack".into()],
            ..Default::default()
        }))
    }

    async fn list_bridges(
        &self,
        _: Request<ListBridgesRequest>,
    ) -> Result<Response<ListBridgesResponse>, Status> {
        let bridge =
            |name: &str| Bridge { name: name.into(), fail_mode: "secure".into(), ..Default::default() };
        Ok(Response::new(ListBridgesResponse { bridges: vec![bridge("br0"), bridge("br1")] }))
    }

    async fn add_bridge(
        &self,
        request: Request<AddBridgeRequest>,
    ) -> Result<Response<AddBridgeResponse>, Status> {
        self.modify_bridge(request).await
    }

    async fn modify_bridge(
        &self,
        request: Request<AddBridgeRequest>,
    ) -> Result<Response<AddBridgeResponse>, Status> {
        let AddBridgeRequest { name, fail_mode } = request.into_inner();
        Ok(Response::new(AddBridgeResponse {
            bridge: Some(Bridge { name, fail_mode, ..Default::default() }),
        }))
    }

    async fn remove_bridge(
        &self,
        _: Request<RemoveBridgeRequest>,
    ) -> Result<Response<RemoveBridgeResponse>, Status> {
        Ok(Response::new(RemoveBridgeResponse {}))
    }

    async fn add_port(&self, request: Request<AddPortRequest>) -> Result<Response<AddPortResponse>, Status> {
        let request = request.into_inner();
        self.note(&request);
        if request.interface == "lo" {
            return Err(Status::invalid_argument("lo: a loopback cannot be attached"));
        }
        Ok(Response::new(AddPortResponse { port: Some(port(&request.interface, &request.logical_port)) }))
    }

    async fn modify_port(
        &self,
        request: Request<ModifyPortRequest>,
    ) -> Result<Response<AddPortResponse>, Status> {
        let request = request.into_inner();
        self.note(&request);
        let modified = Port { forwards: false, vlan: request.vlan, ..port(&request.interface, "") };
        Ok(Response::new(AddPortResponse { port: Some(modified) }))
    }

    async fn remove_port(
        &self,
        request: Request<RemovePortRequest>,
    ) -> Result<Response<RemovePortResponse>, Status> {
        self.note(request.get_ref());
        Ok(Response::new(RemovePortResponse {}))
    }

    async fn list_ports(&self, _: Request<ListPortsRequest>) -> Result<Response<ListPortsResponse>, Status> {
        Ok(Response::new(ListPortsResponse { ports: vec![port("veth-web-1", "web-1")] }))
    }

    async fn dump_flows(
        &self,
        request: Request<DumpFlowsRequest>,
    ) -> Result<Response<DumpFlowsResponse>, Status> {
        self.note(request.get_ref());
        let acl = Flow {
            table: 44,
            priority: 2000,
            cookie: 0x1f,
            r#match: "tcp,reg15=0x1,metadata=0x2,tp_dst=23".into(),
            actions: "drop".into(),
            n_packets: 3,
            n_bytes: 180,
            origin: origin(0x1f, "ls_out_acl_eval", "switches/db/acls/no-telnet"),
            ..Default::default()
        };
        let miss = Flow { table: 64, actions: "resubmit(,65)".into(), ..Default::default() };
        Ok(Response::new(DumpFlowsResponse { flows: vec![acl, miss] }))
    }

    async fn dump_megaflows(
        &self,
        _: Request<DumpMegaflowsRequest>,
    ) -> Result<Response<DumpMegaflowsResponse>, Status> {
        let entry = Megaflow {
            worker: 1,
            r#match: "in_port(2),eth_type(0x0800)".into(),
            actions: "3".into(),
            n_packets: 5,
            n_bytes: 490,
            epoch: 5,
            origins: origin(7, "ls_in_l2_lkup", "switches/web/ports/web-2").into_iter().collect(),
            ..Default::default()
        };
        Ok(Response::new(DumpMegaflowsResponse { megaflows: vec![entry] }))
    }

    async fn list_drops(&self, _: Request<ListDropsRequest>) -> Result<Response<ListDropsResponse>, Status> {
        let spoofed = Drop { reason: "port-security".into(), n_packets: 40, ..acl_drop(1) };
        Ok(Response::new(ListDropsResponse { drops: vec![acl_drop(3), spoofed] }))
    }

    async fn describe_frames(
        &self,
        request: Request<DescribeFramesRequest>,
    ) -> Result<Response<DescribeFramesResponse>, Status> {
        let described = |frame: Vec<u8>| if frame.len() < 3 { String::new() } else { "arp,arp_op=1".into() };
        let flows = request.into_inner().frames.into_iter().map(described).collect();
        Ok(Response::new(DescribeFramesResponse { flows }))
    }

    async fn set_log(&self, request: Request<SetLogRequest>) -> Result<Response<SetLogResponse>, Status> {
        let asked = request.into_inner().filter;
        let filter = if asked.is_empty() { "info".to_owned() } else { asked };
        Ok(Response::new(SetLogResponse { filter }))
    }

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<TraceResponse>, Status> {
        let request = request.into_inner();
        self.note(&request);
        if matches!(&request.packet, Some(ferroflow_proto::host::trace_request::Packet::Flow(flow)) if flow == "x")
        {
            return Err(Status::invalid_argument("at column 1: \"x\" is no field"));
        }
        let acl = origin(0x1f, "ls_out_acl_eval", "switches/db/acls/no-telnet");
        let note = TraceStep { depth: 2, note: "output:4 is another host".into(), ..Default::default() };
        Ok(Response::new(TraceResponse {
            steps: vec![
                step(0, 0, Some((100, "in_port=2", "resubmit(,8)")), origin(0, "physical-in", "")),
                step(1, 8, None, None),
                note,
                step(1, 44, Some((2000, "tcp,tp_dst=23", "drop")), acl),
            ],
            verdict: "dropped".into(),
            drop: Some(acl_drop(0)),
            megaflow: Some(Megaflow {
                r#match: "in_port(2),tcp(dst=23)".into(),
                actions: "drop".into(),
                ..Default::default()
            }),
            ..Default::default()
        }))
    }
}
