//! The controller's API as the commands use it: paging, deadlines, and errors in words.

use std::{collections::BTreeMap, time::Duration};

use ferroflow_proto::northbound::{
    ExplainRequest, ExplainResponse, GetReceiptRequest, GetReceiptResponse, GetResourceRequest,
    GetStatusRequest, GetStatusResponse, ListResourcesRequest, Operation, Resource, TracePacketRequest,
    TracePacketResponse, TransactRequest, TransactResponse, WatchRequest, WatchResponse, event::Event,
    northbound_service_client::NorthboundServiceClient, operation::Op,
};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming, transport::Channel};

use crate::{
    address::Daemon,
    error::CtlError,
    name::{Noun, Reference},
    output::short,
    session::ANSWER_MAX,
    spelling,
};

/// Longest a controller holds one call for a receipt.
const RECEIPT_CALL_MAX: Duration = Duration::from_secs(60);

/// With less left than this, asking again is not worth it.
const RECEIPT_CALL_MIN: Duration = Duration::from_millis(50);

/// Free key-value pairs of an object.
pub type Labels = BTreeMap<String, String>;

/// A connection to the controller.
#[derive(Debug, Clone)]
pub struct Northbound {
    inner: NorthboundServiceClient<Channel>,
    timeout: Duration,
}

impl Northbound {
    /// Calls over `channel`, each with this deadline.
    pub fn new(channel: Channel, timeout: Duration) -> Self {
        Self { inner: NorthboundServiceClient::new(channel).max_decoding_message_size(ANSWER_MAX), timeout }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Reads one object by its full name.
    ///
    /// # Errors
    /// Those of the call; one with code `NotFound` when there is none.
    pub async fn get(&mut self, name: &str) -> Result<Resource, CtlError> {
        let request = self.request(GetResourceRequest { name: name.to_owned() });
        let answer = said(self.inner.get_resource(request).await)?;
        answer.resource.ok_or_else(|| newer("an answer without its resource"))
    }

    /// Reads all objects of a kind, below `parent` if given, that have all `labels`.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn list(
        &mut self,
        noun: Noun,
        parent: Option<&str>,
        labels: &Labels,
    ) -> Result<Vec<Resource>, CtlError> {
        let mut resources = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = self.request(ListResourcesRequest {
                kind: noun.kind().into(),
                parent: parent.unwrap_or_default().to_owned(),
                page_size: 0,
                page_token: page_token.clone(),
                labels: labels.clone().into_iter().collect(),
            });
            let answer = said(self.inner.list_resources(request).await)?;
            resources.extend(answer.resources);
            if answer.next_page_token.is_empty() {
                return Ok(resources);
            }
            if answer.next_page_token == page_token {
                return Err(newer("the same page twice"));
            }
            page_token = answer.next_page_token;
        }
    }

    /// Reads the whole logical network as it is at one revision; hosts are no part of it.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn snapshot(&mut self) -> Result<Vec<Resource>, CtlError> {
        let kinds =
            Noun::ALL.into_iter().filter(|noun| *noun != Noun::Chassis).map(|noun| noun.kind().into());
        let request = WatchRequest { kinds: kinds.collect(), parent: String::new(), after_revision: 0 };
        let mut stream = self.watch(request).await?;
        let mut present = BTreeMap::new();
        loop {
            let next = tokio::time::timeout(self.timeout, stream.message()).await;
            let answer = match next {
                Ok(answer) => answer.map_err(|status| CtlError::from_status(Daemon::Controller, &status))?,
                Err(_) => return Err(failed(Code::DeadlineExceeded, "")),
            };
            let answer = answer.ok_or_else(|| failed(Code::Unavailable, "it ended the stream"))?;
            if answer.events.is_empty() {
                return Ok(present.into_values().collect());
            }
            for event in answer.events.into_iter().filter_map(|event| event.event) {
                match event {
                    Event::Put(resource) => drop(present.insert(resource.name.clone(), resource)),
                    Event::Deleted(name) => drop(present.remove(&name)),
                }
            }
        }
    }

    /// Revision of the network.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn revision(&mut self) -> Result<u64, CtlError> {
        let kind = Noun::Chassis.kind().into();
        let request =
            self.request(ListResourcesRequest { kind, page_size: 1, ..ListResourcesRequest::default() });
        Ok(said(self.inner.list_resources(request).await)?.revision)
    }

    /// Finds the full name of what was typed as `text`.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when it can be no name, [`CtlError::NotFound`] and
    /// [`CtlError::Ambiguous`] when an id is that of no object or of several.
    pub async fn resolve(&mut self, noun: Noun, text: &str) -> Result<String, CtlError> {
        let id = match noun.refer(text)? {
            Reference::Full(name) => return Ok(name),
            Reference::Id(id) => id,
        };
        let names: Vec<String> =
            self.list(noun, None, &Labels::new()).await?.into_iter().map(|resource| resource.name).collect();
        let mut found: Vec<&String> = names.iter().filter(|name| short(name) == id).collect();
        match found.len() {
            1 => Ok(found.remove(0).clone()),
            0 => Err(not_found(noun, &id, names.iter().map(|name| short(name)))),
            _ => Err(CtlError::Ambiguous {
                word: noun.word(),
                name: id,
                candidates: found.into_iter().cloned().collect(),
            }),
        }
    }

    /// Reads the object that was typed as `text`.
    ///
    /// # Errors
    /// As [`Northbound::resolve`], and [`CtlError::NotFound`] when a full name is that of none.
    pub async fn find(&mut self, noun: Noun, text: &str) -> Result<Resource, CtlError> {
        let name = self.resolve(noun, text).await?;
        match self.get(&name).await {
            Err(error) if error.is_not_found() => {
                let names = self.list(noun, None, &Labels::new()).await?;
                Err(not_found(noun, short(&name), names.iter().map(|resource| short(&resource.name))))
            }
            result => result,
        }
    }

    /// Applies a transaction.
    ///
    /// # Errors
    /// Those of the call, about the object instead of the operation's number.
    pub async fn transact(&mut self, request: TransactRequest) -> Result<TransactResponse, CtlError> {
        let names: Vec<String> = request.operations.iter().map(name_of).collect();
        let request = self.request(request);
        said(self.inner.transact(request).await).map_err(|error| about_object(error, &names))
    }

    /// Follows changes.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn watch(&mut self, request: WatchRequest) -> Result<Streaming<WatchResponse>, CtlError> {
        said(self.inner.watch(Request::new(request)).await)
    }

    /// How far each host is.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn status(&mut self) -> Result<GetStatusResponse, CtlError> {
        let request = self.request(GetStatusRequest::default());
        said(self.inner.get_status(request).await)
    }

    /// Why two workloads can or cannot talk.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn explain(&mut self, request: ExplainRequest) -> Result<ExplainResponse, CtlError> {
        let request = self.request(request);
        said(self.inner.explain(request).await)
    }

    /// Has a packet traced through the hosts that it comes to.
    ///
    /// # Errors
    /// Those of the call.
    pub async fn trace_packet(
        &mut self,
        request: TracePacketRequest,
    ) -> Result<TracePacketResponse, CtlError> {
        let request = self.request(request);
        said(self.inner.trace_packet(request).await)
    }

    /// How far a revision has been applied; with `wait`, when it has been or that long
    /// has passed.
    ///
    /// # Errors
    /// Those of the calls.
    pub async fn receipt(
        &mut self,
        revision: u64,
        wait: Option<Duration>,
    ) -> Result<GetReceiptResponse, CtlError> {
        let end = wait.map(|wait| Instant::now() + wait);
        let left = || end.and_then(|end| end.checked_duration_since(Instant::now()));
        while let Some(left) = left().filter(|left| *left >= RECEIPT_CALL_MIN) {
            let mut request = Request::new(GetReceiptRequest { revision, wait: true });
            request.set_timeout(left.min(RECEIPT_CALL_MAX));
            match said(self.inner.get_receipt(request).await) {
                Ok(answer) if answer.complete => return Ok(answer),
                // Also a controller that does not hold the call is not asked in a frenzy.
                Ok(_) => tokio::time::sleep(RECEIPT_CALL_MIN).await,
                // The deadline can pass on this side a moment before it does on the other.
                Err(error) if matches!(error.code(), Some(Code::DeadlineExceeded | Code::Cancelled)) => {}
                Err(error) => return Err(error),
            }
        }
        let request = self.request(GetReceiptRequest { revision, wait: false });
        said(self.inner.get_receipt(request).await)
    }
}

fn said<T>(result: Result<Response<T>, Status>) -> Result<T, CtlError> {
    result.map(Response::into_inner).map_err(|status| CtlError::from_status(Daemon::Controller, &status))
}

/// Name of the object an operation is about.
fn name_of(operation: &Operation) -> String {
    let resource = match &operation.op {
        Some(Op::Create(create)) => &create.resource,
        Some(Op::Update(update)) => &update.resource,
        Some(Op::Delete(delete)) => return delete.name.clone(),
        None => return String::new(),
    };
    resource.as_ref().map(|resource| resource.name.clone()).unwrap_or_default()
}

/// `operation 7: what is wrong` without the number, which says nothing to who wrote a
/// name; the name is put there where the message lacks it.
fn about_object(error: CtlError, names: &[String]) -> CtlError {
    let CtlError::Refused { daemon, code, message } = &error else { return error };
    let Some((name, reason)) = message.strip_prefix("operation ").and_then(|rest| {
        let (number, reason) = rest.split_once(": ")?;
        Some((names.get(number.parse::<usize>().ok()?)?, reason))
    }) else {
        return error;
    };
    let message = if reason.contains(name) { reason.to_owned() } else { format!("{name}: {reason}") };
    CtlError::Refused { daemon: *daemon, code: *code, message }
}

fn failed(code: Code, message: &str) -> CtlError {
    CtlError::Refused { daemon: Daemon::Controller, code, message: message.to_owned() }
}

fn newer(what: &str) -> CtlError {
    CtlError::Newer { daemon: Daemon::Controller, what: what.to_owned() }
}

fn not_found<'a>(noun: Noun, id: &str, ids: impl Iterator<Item = &'a str>) -> CtlError {
    CtlError::NotFound {
        word: noun.word(),
        name: id.to_owned(),
        command: noun.list_command(),
        nearest: spelling::nearest(id, ids).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_about_the_object_not_the_number_of_the_operation() {
        let names = ["switches/a".to_owned(), "switches/b/acls/c".to_owned()];
        let told = |message: &str| about_object(failed(Code::InvalidArgument, message), &names).to_string();
        assert_eq!(
            told("operation 1: field `match`: at 3: what"),
            "switches/b/acls/c: field `match`: at 3: what"
        );
        assert_eq!(told("operation 0: switches/a is wrong"), "switches/a is wrong");
        for other in ["operation 9: x", "operation -1: x", "operation x", "precondition 0 does not hold"] {
            assert_eq!(told(other), other);
        }
    }
}
