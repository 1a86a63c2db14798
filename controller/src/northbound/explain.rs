//! `Explain`: why two workloads can or cannot talk.

use std::sync::Arc;

use ferroflow_proto::northbound as pb;
use ovn_northd_lite::explain::{Case, Explanation, Outcome, Question, Speech, Step, Way};
use tonic::Status;

use crate::{
    access::{self, Caller, Who},
    controller::Controller,
    resource::{Kind, Name},
    state::{Reason, Refusal},
};

/// Answers from the network as compiled last, on a thread that may block.
pub(super) async fn explain(
    controller: &Arc<Controller>,
    request: pb::ExplainRequest,
) -> Result<pb::ExplainResponse, Status> {
    let question = question(&request)?;
    let controller = Arc::clone(controller);
    let explained = tokio::task::spawn_blocking(move || {
        // Lowering takes a while: not with the network held.
        let (revision, case) = controller.network().case(question);
        let explanation = case.and_then(Case::explain);
        explanation.map(|explanation| response(revision.get(), explanation))
    });
    let explained = explained.await.map_err(|_| Refusal::from(Reason::Stopping))?;
    explained.map_err(|error| Status::failed_precondition(error.to_string()))
}

/// Whether somebody may ask this.
///
/// # Errors
/// What he asks about is, to him, not there.
pub(super) fn check(
    controller: &Controller,
    caller: &Caller,
    request: &pb::ExplainRequest,
) -> Result<(), Status> {
    if matches!(caller.who, Who::Chassis(_)) {
        return Err(Status::permission_denied("hosts do not ask why workloads can talk"));
    }
    let state = controller.state();
    for text in [&request.from, &request.to] {
        let name = Name::parse(text).map_err(|error| Refusal::from(Reason::from(error)))?;
        if !access::sees(&caller.who, &state, &name) && caller.tenant().is_some() {
            return Err(Refusal::from(Reason::NotFound(name)).into());
        }
    }
    Ok(())
}

pub(super) fn question(request: &pb::ExplainRequest) -> Result<Question, Status> {
    let port = |text: &str| {
        let name = Name::parse(text).map_err(|error| Refusal::from(Reason::from(error)))?;
        if name.kind() != Kind::SwitchPort {
            let message = format!("{name} is no switch port; write switches/SWITCH/ports/PORT");
            return Err(Status::invalid_argument(message));
        }
        Ok(name.id().to_owned())
    };
    let number = u16::try_from(request.port).ok().filter(|port| *port > 0);
    let number = number.ok_or_else(|| Status::invalid_argument("port: 1 to 65535, of tcp and udp"));
    let speech = match request.protocol.as_str() {
        "tcp" => Speech::Tcp(number?),
        "udp" => Speech::Udp(number?),
        "" | "icmp" if request.port == 0 => Speech::Ping,
        "" | "icmp" => return Err(Status::invalid_argument("port: only of tcp and udp")),
        other => {
            let message = format!("protocol: `{other}` is none of tcp, udp and icmp");
            return Err(Status::invalid_argument(message));
        }
    };
    let address = match request.address.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| Status::invalid_argument(format!("address: `{text}` is not an IP address")))?,
        ),
    };
    Ok(Question { from: port(&request.from)?, to: port(&request.to)?, address, speech })
}

fn response(revision: u64, explanation: Explanation) -> pb::ExplainResponse {
    pb::ExplainResponse {
        revision,
        can_talk: explanation.is_yes(),
        there: Some(way(explanation.there)),
        back: explanation.back.map(way),
    }
}

fn way(way: Way) -> pb::ExplainedWay {
    let (outcome, detail, ports) = match way.outcome {
        Outcome::Arrives => ("arrives", "", Vec::new()),
        Outcome::Elsewhere(ports) => ("elsewhere", "", ports),
        Outcome::Host(service) => ("host", service, Vec::new()),
        Outcome::Dropped { reason } => ("dropped", reason, Vec::new()),
    };
    pb::ExplainedWay {
        source: way.source.to_string(),
        destination: way.destination.to_string(),
        outcome: outcome.to_owned(),
        detail: detail.to_owned(),
        ports,
        steps: way.steps.into_iter().map(step).collect(),
    }
}

fn step(step: Step) -> pb::ExplainedStep {
    let Step { datapath, stage, object, matching, actions, why } = step;
    pb::ExplainedStep { datapath, stage, object, r#match: matching, actions, why }
}
