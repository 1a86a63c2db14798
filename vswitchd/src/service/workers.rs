//! The workers: where their time goes, and which of them has which receive queue.

use std::time::Duration;

use dataplane::{AssignError, Balancing, PortId, QueueId, QueueStatus, WorkerPerf};
use ferroflow_proto::host::{self as pb, worker_service_server::WorkerService};
use flowtable::{quota::Quota, switch::Stage};
use tonic::{Request, Response, Status};

use super::Service;
use crate::host::Host;

/// How long loads are measured unless it is said.
const DEFAULT_WINDOW: Duration = Duration::from_millis(500);
/// Longest that can be asked for.
const MAX_WINDOW: Duration = Duration::from_secs(8);

#[tonic::async_trait]
impl WorkerService for Service {
    async fn get_perf(
        &self,
        _request: Request<pb::GetPerfRequest>,
    ) -> Result<Response<pb::GetPerfResponse>, Status> {
        let workers = self.host.with(|host| host.dataplane().perf()).await;
        Ok(Response::new(pb::GetPerfResponse { workers: workers.into_iter().map(perf).collect() }))
    }

    async fn set_perf(
        &self,
        request: Request<pb::SetPerfRequest>,
    ) -> Result<Response<pb::SetPerfResponse>, Status> {
        let pb::SetPerfRequest { every, forget } = request.into_inner();
        self.host.with(move |host| host.dataplane().set_measuring(every, forget)).await;
        Ok(Response::new(pb::SetPerfResponse {}))
    }

    async fn list_queues(
        &self,
        _request: Request<pb::ListQueuesRequest>,
    ) -> Result<Response<pb::ListQueuesResponse>, Status> {
        let answer = self.host.with(|host| {
            let dataplane = host.dataplane();
            pb::ListQueuesResponse {
                queues: dataplane.queues().iter().map(|status| queue(host, status)).collect(),
                balancing: Some(balancing(dataplane.balancing())),
                n_workers: dataplane.workers().len() as u32,
            }
        });
        Ok(Response::new(answer.await))
    }

    async fn assign_queue(
        &self,
        request: Request<pb::AssignQueueRequest>,
    ) -> Result<Response<pb::AssignQueueResponse>, Status> {
        let request = request.into_inner();
        self.host.with(move |host| assign(host, &request)).await?;
        Ok(Response::new(pb::AssignQueueResponse {}))
    }

    async fn rebalance(
        &self,
        request: Request<pb::RebalanceRequest>,
    ) -> Result<Response<pb::RebalanceResponse>, Status> {
        let pb::RebalanceRequest { dry_run, window_ms } = request.into_inner();
        let window = match window_ms {
            0 => DEFAULT_WINDOW,
            ms => Duration::from_millis(ms.into()).min(MAX_WINDOW),
        };
        let reading = self.host.with(|host| host.dataplane().reading()).await;
        // Others may use the host meanwhile.
        tokio::time::sleep(window).await;
        let answer = self.host.with(move |host| {
            let proposal = host.dataplane().rebalance(&reading, dry_run).map_err(refusal)?;
            let moved = |step: &dataplane::Move| pb::QueueMove {
                port: name_of(host, step.id),
                queue: step.id.queue as u32,
                from: step.from as u32,
                to: step.to as u32,
            };
            Ok::<_, Status>(pb::RebalanceResponse {
                moves: proposal.moves.iter().map(moved).collect(),
                improvement_percent: proposal.improvement_percent(),
                before: proposal.before,
                after: proposal.after,
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn set_quota(
        &self,
        request: Request<pb::SetQuotaRequest>,
    ) -> Result<Response<pb::SetQuotaResponse>, Status> {
        let change = request.into_inner();
        let answer = self.host.with(move |host| {
            let (old, _) = host.dataplane().quota();
            let new = Quota {
                misses_per_second: change.misses_per_second.unwrap_or(old.misses_per_second),
                max_megaflows: change.max_megaflows.unwrap_or(old.max_megaflows),
                sessions_per_second: change.sessions_per_second.unwrap_or(old.sessions_per_second),
            };
            if new != old {
                host.dataplane().set_quota(new);
            }
            host.dataplane().quota()
        });
        let (quota, refused) = answer.await;
        Ok(Response::new(pb::SetQuotaResponse {
            misses_per_second: quota.misses_per_second,
            max_megaflows: quota.max_megaflows,
            sessions_per_second: quota.sessions_per_second,
            n_misses_refused: refused.n_misses,
            n_sessions_refused: refused.n_sessions,
        }))
    }

    async fn set_balancing(
        &self,
        request: Request<pb::SetBalancingRequest>,
    ) -> Result<Response<pb::SetBalancingResponse>, Status> {
        let change = request.into_inner();
        let settings = self.host.with(move |host| {
            let settings = changed(host.dataplane().balancing(), &change)?;
            host.dataplane().set_balancing(settings);
            Ok::<_, Status>(settings)
        });
        Ok(Response::new(pb::SetBalancingResponse { balancing: Some(balancing(settings.await?)) }))
    }
}

fn changed(settings: Balancing, change: &pb::SetBalancingRequest) -> Result<Balancing, Status> {
    let percent = |what: &str, value: Option<u32>, old| match value {
        None => Ok(old),
        Some(value @ 1..=100) => Ok(value),
        Some(value) => Err(Status::invalid_argument(format!("{what} {value}: percent are 1 to 100"))),
    };
    Ok(Balancing {
        auto: change.auto.unwrap_or(settings.auto),
        load_percent: percent("load", change.load_percent, settings.load_percent)?,
        interval: change.interval_ms.map_or(settings.interval, Duration::from_millis),
        improvement_percent: percent(
            "improvement",
            change.improvement_percent,
            settings.improvement_percent,
        )?,
    })
}

fn assign(host: &Host, request: &pb::AssignQueueRequest) -> Result<(), Status> {
    let dataplane = host.dataplane();
    let Some(status) = dataplane.ports().into_iter().find(|status| status.name == request.port) else {
        let name = request.port.escape_debug();
        return Err(Status::not_found(format!("there is no port `{name}`; see `vswitchctl worker list`")));
    };
    let is_meant = |queue: &QueueStatus| {
        queue.id.port == PortId::new(status.bridge, status.port)
            && request.queue.is_none_or(|own| own as usize == queue.id.queue)
    };
    let ids: Vec<_> = dataplane.queues().into_iter().filter(is_meant).map(|queue| queue.id).collect();
    if ids.is_empty() {
        let queue = request.queue.unwrap_or_default() as usize;
        return Err(refusal(AssignError::NoQueue(QueueId {
            port: PortId::new(status.bridge, status.port),
            queue,
        })));
    }
    ids.into_iter()
        .try_for_each(|id| match request.worker {
            Some(worker) => dataplane.assign(id, worker as usize),
            None => dataplane.unassign(id),
        })
        .map_err(refusal)
}

fn refusal(error: AssignError) -> Status {
    match error {
        AssignError::NoQueue(_) | AssignError::NoWorker { .. } => Status::not_found(error.to_string()),
        AssignError::Stuck(_) => Status::internal(error.to_string()),
    }
}

fn name_of(host: &Host, id: QueueId) -> String {
    let ports = host.bridge_of(id.port.bridge).map(|bridge| bridge.ports());
    let info = ports.and_then(|ports| ports.get(id.port.port)).map(|info| info.name.clone());
    info.unwrap_or_else(|| id.port.to_string())
}

fn queue(host: &Host, status: &QueueStatus) -> pb::Queue {
    pb::Queue {
        port: name_of(host, status.id),
        queue: status.id.queue as u32,
        worker: status.worker as u32,
        pinned: status.pinned,
        n_packets: status.n_packets,
        cycles_per_packet: status.cycles_per_packet,
    }
}

fn balancing(settings: Balancing) -> pb::Balancing {
    pb::Balancing {
        auto: settings.auto,
        load_percent: settings.load_percent,
        interval_ms: settings.interval.as_millis() as u64,
        improvement_percent: settings.improvement_percent,
    }
}

fn perf(worker: WorkerPerf) -> pb::WorkerPerf {
    let stages = Stage::ALL.iter().zip(&worker.stages);
    let counters = worker.counters;
    pb::WorkerPerf {
        id: worker.id as u32,
        core: worker.core.map(|core| core as u32),
        at: worker.at,
        hz: worker.hz,
        every: worker.every,
        busy: worker.busy,
        idle: worker.idle,
        asleep: worker.asleep,
        jobs: worker.jobs,
        longest_job: worker.longest_job,
        cpu_time_ns: worker.cpu_time.as_nanos() as u64,
        stages: stages
            .map(|(stage, cycles)| pb::StageCycles { stage: stage.name().to_owned(), cycles: *cycles })
            .collect(),
        n_sampled_rounds: worker.n_sampled_rounds,
        n_sampled_packets: worker.n_sampled_packets,
        batches: worker.batches,
        n_polls: worker.n_polls,
        n_idle_polls: worker.n_idle_polls,
        n_sleeps: worker.n_sleeps,
        n_packets: counters.n_packets,
        n_session_hits: counters.n_session_hits,
        n_megaflow_hits: counters.n_megaflow_hits,
        n_misses: counters.n_misses,
        n_renewals: counters.n_renewals,
        n_recirculations: counters.n_recirculations,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_changes_and_percent_are_percent() {
        let old = Balancing::default();
        let change =
            pb::SetBalancingRequest { auto: Some(true), interval_ms: Some(250), ..Default::default() };
        let new = changed(old, &change).unwrap();
        assert_eq!(new, Balancing { auto: true, interval: Duration::from_millis(250), ..old });
        for wrong in [0, 101, u32::MAX] {
            let change = pb::SetBalancingRequest { load_percent: Some(wrong), ..Default::default() };
            assert!(changed(old, &change).is_err(), "{wrong}");
        }
    }
}
