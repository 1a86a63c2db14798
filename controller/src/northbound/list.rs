//! Lists in pages. All pages of one list show the revision of the first.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use ferroflow_proto::northbound as pb;
use prost::Message as _;
use tonic::Status;

use super::Northbound;
use crate::{
    access::{self, Caller},
    resource::{Kind, Name, Shown, limits::MAX_PAGE},
    state::{Reason, Refusal},
    store::Revision,
};

/// Bytes after which a page is full, far below the 4 MiB that clients take by default.
const MAX_PAGE_LEN: usize = 1 << 20;

/// Where the next page starts: revision, what was asked, last name.
#[derive(Debug, PartialEq, Eq)]
struct PageToken {
    revision: Revision,
    query: u64,
    cursor: String,
}

impl PageToken {
    fn print(&self) -> String {
        format!("{}.{:x}.{}", self.revision, self.query, self.cursor)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let revision = Revision::new(parts.next()?.parse().ok()?);
        let query = u64::from_str_radix(parts.next()?, 16).ok()?;
        let cursor = Name::parse(parts.next()?).ok()?.to_string();
        Some(Self { revision, query, cursor })
    }
}

/// Answers one page.
pub(super) fn list(
    service: &Northbound,
    caller: &Caller,
    request: pb::ListResourcesRequest,
) -> Result<pb::ListResourcesResponse, Status> {
    let kind = parse_kind(request.kind)?;
    let parent = parse_parent(&request.parent)?;
    let query = fingerprint(&request);
    let token =
        (!request.page_token.is_empty()).then(|| parse_token(&request.page_token, query)).transpose()?;
    let page_size = match usize::try_from(request.page_size) {
        Ok(0) => MAX_PAGE,
        Ok(size) if size <= MAX_PAGE => size,
        _ => {
            let message =
                format!("field `page_size`: {} is too much; use 1 to {MAX_PAGE}", request.page_size);
            return Err(Status::invalid_argument(message));
        }
    };

    let state = service.controller.state();
    let (revision, cursor) = match token {
        Some(token) => (token.revision, token.cursor),
        None => (state.revision(), String::new()),
    };
    let is_seen = |name: &Name| access::sees(&caller.who, &state, name);
    let is_there = |name: &Name| state.get(name).is_some() && is_seen(name);
    if let Some(parent) = parent.as_ref().filter(|parent| cursor.is_empty() && !is_there(parent)) {
        return Err(Refusal::from(Reason::NotFound(parent.clone())).into());
    }
    let scan = state.scan(revision, kind, parent.as_ref(), &cursor)?;
    let scan = scan.filter(|record| has_labels(&record.labels, &request.labels) && is_seen(&record.name));
    let mut matching = scan.peekable();
    let (mut resources, mut len) = (Vec::new(), 0);
    while resources.len() < page_size && len < MAX_PAGE_LEN {
        let Some(record) = matching.next() else { break };
        let resource = service.to_wire(&record);
        len += resource.encoded_len();
        resources.push(resource);
    }
    let last = resources.last().filter(|_| matching.peek().is_some());
    let token = last.map(|last| PageToken { revision, query, cursor: last.name.clone() });
    let next_page_token = token.map(|token| token.print()).unwrap_or_default();
    drop(matching);
    Ok(pb::ListResourcesResponse { resources, next_page_token, revision: revision.get() })
}

fn parse_token(text: &str, query: u64) -> Result<PageToken, Status> {
    PageToken::parse(text).filter(|token| token.query == query).ok_or_else(|| {
        let message = format!(
            "field `page_token`: {} is not from this list; repeat kind, parent and labels of the first page",
            Shown(text)
        );
        Status::invalid_argument(message)
    })
}

pub(super) fn parse_kind(kind: i32) -> Result<Kind, Status> {
    pb::Kind::try_from(kind).ok().and_then(Kind::from_wire).ok_or_else(|| {
        Status::invalid_argument(format!("field `kind`: {kind} is not a kind of resource; set it"))
    })
}

/// A switch or router to look below of.
pub(super) fn parse_parent(text: &str) -> Result<Option<Name>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    match Name::parse(text) {
        Ok(name) if name.kind().child_kinds().next().is_some() => Ok(Some(name)),
        _ => {
            let parents: Vec<_> = Kind::ALL
                .into_iter()
                .filter(|kind| kind.child_kinds().next().is_some())
                .map(|kind| kind.to_string())
                .collect();
            let message =
                format!("field `parent`: {} is not a parent; write {}", Shown(text), parents.join(" or "));
            Err(Status::invalid_argument(message))
        }
    }
}

fn has_labels(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn fingerprint(request: &pb::ListResourcesRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    (request.kind, &request.parent).hash(&mut hasher);
    request.labels.iter().collect::<BTreeMap<_, _>>().hash(&mut hasher);
    hasher.finish()
}
