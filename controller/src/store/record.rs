//! How a commit is written as bytes: protobuf, so that a later version can add fields.

use prost::Message;

use super::{Commit, Revision};

#[derive(Clone, PartialEq, Message)]
struct ChangeRecord {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", optional, tag = "2")]
    value: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct CommitRecord {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<ChangeRecord>,
}

pub(super) fn encode(commit: &Commit) -> Vec<u8> {
    let changes = commit.changes.iter().cloned().map(|(key, value)| ChangeRecord { key, value }).collect();
    CommitRecord { changes }.encode_to_vec()
}

pub(super) fn decode(revision: Revision, bytes: &[u8]) -> Result<Commit, prost::DecodeError> {
    let record = CommitRecord::decode(bytes)?;
    let changes = record.changes.into_iter().map(|change| (change.key, change.value)).collect();
    Ok(Commit { revision, changes })
}
