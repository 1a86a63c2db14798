//! The way to other hosts, and neighbours.

use ferroflow_proto::host::{self as pb, underlay_service_server::UnderlayService};
use tonic::{Request, Response, Status};

use super::Service;
use crate::host::{Host, NeighbourStatus, TunnelStatus};

#[tonic::async_trait]
impl UnderlayService for Service {
    async fn list_tunnels(
        &self,
        _request: Request<pb::ListTunnelsRequest>,
    ) -> Result<Response<pb::ListTunnelsResponse>, Status> {
        let list = |host: &mut Host| {
            let mtu = host.workload_mtu();
            host.tunnels().into_iter().map(|status| tunnel(status, mtu)).collect()
        };
        let tunnels = self.host.with(list).await;
        Ok(Response::new(pb::ListTunnelsResponse { tunnels }))
    }

    async fn list_neighbours(
        &self,
        _request: Request<pb::ListNeighboursRequest>,
    ) -> Result<Response<pb::ListNeighboursResponse>, Status> {
        let list = |host: &mut Host| host.known_neighbours().into_iter().map(neighbour).collect();
        let neighbours = self.host.with(list).await;
        Ok(Response::new(pb::ListNeighboursResponse { neighbours }))
    }
}

fn tunnel(status: TunnelStatus, mtu: u32) -> pb::Tunnel {
    pb::Tunnel {
        port: status.name,
        port_no: status.port.get(),
        kind: status.kind.name().to_owned(),
        local: status.local.to_string(),
        remote: status.remote.to_string(),
        udp_port: status.udp_port.into(),
        chassis: status.chassis.unwrap_or_default(),
        next_hop: status.next_hop.map(|mac| mac.to_string()).unwrap_or_default(),
        liveness: status.liveness.unwrap_or_default().to_owned(),
        mtu,
    }
}

fn neighbour(status: NeighbourStatus) -> pb::Neighbour {
    pb::Neighbour {
        network: if status.is_underlay { "underlay" } else { "logical" }.to_owned(),
        address: status.address.to_string(),
        mac: status.mac.to_string(),
        port: status.port,
    }
}
