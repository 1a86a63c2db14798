//! The part of etcd's API that the store speaks, version 3 (`rpc.proto` and `kv.proto` of
//! etcd 3.4): ranges, transactions, watches. The numbers are those of its fields.

use std::time::Duration;

use prost::{Enumeration, Message, Oneof};
use tonic::{Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

/// A key with its value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Header {
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
}

/// Keys from one to another; all of a revision.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(super) limit: i64,
    #[prost(int64, tag = "4")]
    pub(super) revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub(super) kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub(super) more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestOp {
    #[prost(oneof = "Op", tags = "1, 2, 3")]
    pub(super) op: Option<Op>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Op {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRangeRequest),
}

impl Op {
    pub(super) fn get(key: String) -> Self {
        Self::Range(RangeRequest { key: key.into(), ..RangeRequest::default() })
    }

    pub(super) fn put(key: String, value: Vec<u8>) -> Self {
        Self::Put(PutRequest { key: key.into(), value })
    }

    pub(super) fn delete(key: String) -> Self {
        Self::Delete(DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseOp {
    #[prost(message, optional, tag = "1")]
    pub(super) range: Option<RangeResponse>,
}

/// What of a key is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub(super) enum Target {
    Version = 0,
    Value = 3,
}

/// A condition: equality, of a value or of "there is none".
#[derive(Clone, PartialEq, Message)]
pub(super) struct Compare {
    #[prost(int32, tag = "1")]
    pub(super) result: i32,
    #[prost(enumeration = "Target", tag = "2")]
    pub(super) target: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key: Vec<u8>,
    #[prost(oneof = "Compared", tags = "4, 7")]
    pub(super) with: Option<Compared>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Compared {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(bytes, tag = "7")]
    Value(Vec<u8>),
}

impl Compare {
    /// A number is this one; zero is also what is not there.
    pub(super) fn number(key: String, number: u64) -> Self {
        let (target, with) = match number {
            0 => (Target::Version, Compared::Version(0)),
            number => (Target::Value, Compared::Value(number.to_string().into_bytes())),
        };
        Self { result: 0, target: target.into(), key: key.into(), with: Some(with) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub(super) failure: Vec<RequestOp>,
}

impl TxnRequest {
    pub(super) fn new(
        compare: Vec<Compare>,
        success: impl IntoIterator<Item = Op>,
        failure: impl IntoIterator<Item = Op>,
    ) -> Self {
        let wrap = |op| RequestOp { op: Some(op) };
        let (success, failure) = (success.into_iter().map(wrap), failure.into_iter().map(wrap));
        Self { compare, success: success.collect(), failure: failure.collect() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnResponse {
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub(super) responses: Vec<ResponseOp>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(int64, tag = "3")]
    start_revision: i64,
}

/// News of a key.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchResponse {
    #[prost(bool, tag = "4")]
    pub(super) canceled: bool,
    #[prost(message, repeated, tag = "11")]
    pub(super) events: Vec<Event>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(message, optional, tag = "2")]
    pub(super) kv: Option<KeyValue>,
}

/// How long etcd may take for one answer: it has to ask its other members.
const CALL: Duration = Duration::from_secs(3);

/// Asks etcd once.
async fn unary<Q, A>(channel: Channel, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc =
        Grpc::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
    let asked = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        grpc.unary(Request::new(question), PathAndQuery::from_static(path), codec).await
    };
    let answer = tokio::time::timeout(CALL, asked).await;
    answer.map_err(|_| Status::deadline_exceeded("it does not answer"))?.map(tonic::Response::into_inner)
}

/// Reads keys.
pub(super) async fn range(channel: Channel, request: RangeRequest) -> Result<RangeResponse, Status> {
    unary(channel, "/etcdserverpb.KV/Range", request).await
}

/// Makes a transaction.
pub(super) async fn txn(channel: Channel, request: TxnRequest) -> Result<TxnResponse, Status> {
    unary(channel, "/etcdserverpb.KV/Txn", request).await
}

/// Is told what becomes of a key from a revision on.
pub(super) async fn watch(
    channel: Channel,
    key: &str,
    start_revision: i64,
) -> Result<Streaming<WatchResponse>, Status> {
    let create = Some(WatchCreate { key: key.into(), start_revision });
    // Open as long as the answers are read: its end would be that of the watch.
    let questions = futures::StreamExt::chain(
        futures::stream::once(std::future::ready(WatchRequest { create })),
        futures::stream::pending(),
    );
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<WatchRequest, WatchResponse> = ProstCodec::default();
    let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let opened = grpc.streaming(Request::new(questions), path, codec);
    let opened = tokio::time::timeout(CALL, opened).await;
    opened.map_err(|_| Status::deadline_exceeded("it does not answer"))?.map(tonic::Response::into_inner)
}
