//! The store on etcd, for several controllers that are all active.
//!
//! ```text
//! /ferroflow/1/head           revision of the newest commit, as text
//! /ferroflow/1/log/REVISION   a commit: what it changes, and whose it is
//! /ferroflow/1/folded         all commits up to this one are in the values
//! /ferroflow/1/values/KEY     values
//! /ferroflow/1/compacted      the log holds every commit after this one
//! /ferroflow/1/live/WHO       what a controller tells the others, over and over
//! ```
//! A commit is one transaction, however much it changes: it puts `head` and its place in the log,
//! provided that `head` is what it was judged by. So commits are in one order, whoever makes them,
//! and what is true is the values with the log after `folded` on top. Any controller folds the log into the
//! values, some keys at a time: each of these steps needs `folded` to be as it was, so of several
//! who do it one gets through, and an interrupted one is done again; values that are newer than
//! `folded` do no harm, for the log on top says the same.
//!
//! After a call without an answer nobody knows whether it was made. A commit carries a random
//! number: it is sent again until either its place in the log is taken, by itself or by another,
//! or the time is up. It cannot be made twice, since it can be made only at one revision.

mod wire;

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use credentials::Dial;
use prost::Message;
use tokio::{runtime::Runtime, sync::watch};
use tonic::{Code, Status, transport::Channel};

use self::wire::{Compare, KeyValue, Op, RangeRequest, TxnRequest};
use super::{Commit, Contents, LogLimits, Revision, Store, StoreError, Txn, record};

/// Where all of it is, with the version of the layout.
const PREFIX: &str = "/ferroflow/1/";
/// Keys of one answer.
const PAGE: i64 = 1000;
/// Bytes of a commit: etcd takes 1.5 MiB in a request.
const MAX_COMMIT_LEN: usize = 1_400_000;
/// Changes of one step of folding: etcd takes 128 in a transaction.
const MAX_STEP: usize = 100;
/// Bytes of one step.
const MAX_STEP_LEN: usize = 1_000_000;
/// Commits that are folded at a time, and so many are not folded yet before that is done.
const FOLD: u64 = 64;
/// How long a commit is tried to be made, or to be found made.
const PATIENCE: Duration = Duration::from_secs(8);
/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether etcd answers, and is what the watch has told.
const LOOK: Duration = Duration::from_secs(2);

/// A [`Store`] on etcd.
pub struct EtcdStore {
    inner: Arc<Inner>,
    head: watch::Receiver<u64>,
    /// Calls of a store block; what they wait for is done here.
    runtime: Option<Runtime>,
}

struct Inner {
    dial: Dial,
    name: String,
    channel: Mutex<Channel>,
    limits: LogLimits,
    nonce: RandomState,
    n_commits: AtomicU64,
    /// The last error of etcd, told once.
    complaint: Mutex<String>,
}

impl fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdStore").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

/// A commit in the log.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    /// Whose it is.
    #[prost(fixed64, tag = "1")]
    nonce: u64,
    /// What it changes.
    #[prost(bytes = "vec", tag = "2")]
    commit: Vec<u8>,
}

impl EtcdStore {
    /// Connects to members of one etcd.
    ///
    /// # Errors
    /// None of them answers now, or no thread can be started.
    pub fn open(dial: Dial, limits: LogLimits) -> Result<Self, StoreError> {
        let addresses: Vec<_> = dial.addresses().iter().map(ToString::to_string).collect();
        let name = format!("etcd at {}", addresses.join(", "));
        let unreachable = |reason: String| StoreError::Unreachable { name: name.clone(), reason };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| unreachable(error.to_string()))?;
        let channel = {
            let _inside = runtime.enter();
            connect(&dial)
        };
        let inner = Arc::new(Inner {
            dial,
            name: name.clone(),
            channel: Mutex::new(channel),
            limits,
            nonce: RandomState::new(),
            n_commits: AtomicU64::new(0),
            complaint: Mutex::default(),
        });
        let (sender, head) = watch::channel(0);
        runtime.spawn(follow(Arc::clone(&inner), sender));
        runtime.spawn(fold_forever(Arc::clone(&inner), head.clone()));
        let store = Self { inner, head, runtime: Some(runtime) };
        let first = Arc::clone(&store.inner);
        store.call(async move { first.number("head").await })?;
        Ok(store)
    }

    /// Waits for what is done elsewhere.
    fn call<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let ended =
            || StoreError::Unreachable { name: self.inner.name.clone(), reason: "it is ending".to_owned() };
        let runtime = self.runtime.as_ref().ok_or_else(ended)?;
        runtime.spawn(async move { drop(sender.send(work.await)) });
        receiver.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for EtcdStore {
    fn read(&self) -> Result<Contents, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.call(async move { inner.read().await })
    }

    fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.call(async move { inner.commit(txn).await })
    }

    fn changes_since(&self, after: Revision) -> Result<Vec<Commit>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.call(async move { inner.changes_since(after).await })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn wait_beyond(&self, revision: Revision, limit: Duration) -> bool {
        let mut head = self.head.clone();
        if *head.borrow_and_update() > revision.get() {
            return true;
        }
        self.call(async move {
            let beyond = tokio::time::timeout(limit, head.wait_for(|head| *head > revision.get()));
            Ok(matches!(beyond.await, Ok(Ok(_))))
        })
        .unwrap_or(false)
    }

    fn share(&self, who: &str, what: Vec<u8>) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let (inner, who) = (Arc::clone(&self.inner), who.to_owned());
        self.call(async move {
            let own = key(&format!("live/{who}"));
            let all = live();
            let request = TxnRequest::new(Vec::new(), [Op::put(own.clone(), what), Op::Range(all)], []);
            let answer = inner.txn(request).await?;
            let others = answer.responses.into_iter().filter_map(|response| response.range);
            let others = others.flat_map(|range| range.kvs).filter_map(|found| suffix(&found, "live/"));
            Ok(others.filter(|(other, _)| *other != who).collect())
        })
    }

    fn unshare(&self, who: &str) -> Result<(), StoreError> {
        let (inner, own) = (Arc::clone(&self.inner), key(&format!("live/{who}")));
        self.call(
            async move { inner.txn(TxnRequest::new(Vec::new(), [Op::delete(own)], [])).await.map(drop) },
        )
    }
}

impl Inner {
    fn channel(&self) -> Channel {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next question goes to another member.
    fn turn(&self) {
        self.dial.turn();
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = connect(&self.dial);
    }

    /// An error, and another member next time when it is this one's fault.
    fn failed(&self, status: &Status) -> StoreError {
        if is_away(status) {
            self.turn();
        }
        let reason = status.message().to_owned();
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if *complaint != reason {
            tracing::warn!(store = self.name, reason, "the store does not answer as it should");
            complaint.clone_from(&reason);
        }
        StoreError::Unreachable { name: self.name.clone(), reason }
    }

    fn corrupted(&self, what: &str, reason: impl fmt::Display) -> StoreError {
        StoreError::Corrupted { path: format!("{} {what}", self.name).into(), reason: reason.to_string() }
    }

    async fn range(&self, request: RangeRequest) -> Result<wire::RangeResponse, StoreError> {
        let answer = wire::range(self.channel(), request).await;
        answer.map_err(|status| self.failed(&status))
    }

    async fn txn(&self, request: TxnRequest) -> Result<wire::TxnResponse, StoreError> {
        wire::txn(self.channel(), request).await.map_err(|status| self.failed(&status))
    }

    /// A number; zero when there is none.
    async fn number(&self, what: &str) -> Result<u64, StoreError> {
        let request = RangeRequest { key: key(what).into(), ..RangeRequest::default() };
        let answer = self.range(request).await?;
        answer.kvs.first().map_or(Ok(0), |found| self.parse(what, &found.value))
    }

    fn parse(&self, what: &str, value: &[u8]) -> Result<u64, StoreError> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        text.parse().map_err(|_| self.corrupted(what, "it is no number"))
    }

    fn entry(&self, found: &KeyValue) -> Result<(Entry, Commit), StoreError> {
        let what = String::from_utf8_lossy(&found.key).into_owned();
        let revision = what.rsplit('/').next().and_then(|text| text.parse().ok());
        let revision = revision.ok_or_else(|| self.corrupted(&what, "it is no place in the log"))?;
        let entry = Entry::decode(found.value.as_slice()).map_err(|error| self.corrupted(&what, error))?;
        let commit = record::decode(Revision::new(revision), &entry.commit);
        let commit = commit.map_err(|error| self.corrupted(&what, error))?;
        Ok((entry, commit))
    }

    /// All keys from one to another as of one moment, page by page, and that moment.
    async fn all(&self, from: String, to: String) -> Result<(Vec<KeyValue>, i64), StoreError> {
        let (mut found, mut at) = (Vec::new(), 0);
        let mut next = from.into_bytes();
        loop {
            let (key, range_end) = (next.clone(), to.clone().into_bytes());
            let page = self.range(RangeRequest { key, range_end, limit: PAGE, revision: at }).await?;
            if at == 0 {
                at = page.header.map_or(0, |header| header.revision);
            }
            if let Some(last) = page.kvs.last() {
                next = last.key.clone();
                next.push(0);
            }
            let is_last = !page.more || page.kvs.is_empty();
            found.extend(page.kvs);
            if is_last {
                return Ok((found, at));
            }
        }
    }

    async fn read(&self) -> Result<Contents, StoreError> {
        let (found, _) = self.all(PREFIX.to_owned(), end_of(PREFIX)).await?;
        let (mut head, mut folded, mut compacted) = (0, 0, 0);
        let (mut values, mut log) = (BTreeMap::new(), Vec::new());
        for found in found {
            let name = String::from_utf8_lossy(&found.key).into_owned();
            match name.strip_prefix(PREFIX).unwrap_or_default() {
                "head" => head = self.parse("head", &found.value)?,
                "folded" => folded = self.parse("folded", &found.value)?,
                "compacted" => compacted = self.parse("compacted", &found.value)?,
                name if name.starts_with("log/") => log.push(self.entry(&found)?.1),
                name => match name.strip_prefix("values/") {
                    Some(name) => drop(values.insert(name.to_owned(), found.value)),
                    None if name.starts_with("live/") => {}
                    None => return Err(self.corrupted(name, "nothing of ours has this name")),
                },
            }
        }
        let mut at = folded;
        for commit in log.into_iter().filter(|commit| commit.revision.get() > folded) {
            at += 1;
            if commit.revision.get() != at {
                return Err(self.corrupted("log", format!("revision {at} is missing")));
            }
            for (key, value) in commit.changes {
                match value {
                    Some(value) => drop(values.insert(key, value)),
                    None => drop(values.remove(&key)),
                }
            }
        }
        if at != head {
            return Err(self.corrupted("log", format!("it ends at {at}, not at {head}")));
        }
        Ok(Contents { revision: Revision::new(head), compacted: Revision::new(compacted), values })
    }

    async fn changes_since(&self, after: Revision) -> Result<Vec<Commit>, StoreError> {
        let (found, _) = self.all(log_key(after.next().get()), end_of(&key("log/"))).await?;
        let commits = found.iter().map(|found| self.entry(found).map(|(_, commit)| commit));
        let commits = commits.collect::<Result<Vec<_>, _>>()?;
        let is_whole = match commits.first() {
            Some(first) => first.revision == after.next(),
            None => self.number("head").await? <= after.get(),
        };
        if is_whole {
            return Ok(commits);
        }
        // The head may have moved since the log was read.
        match self.number("compacted").await? {
            compacted if compacted > after.get() => {
                Err(StoreError::Compacted { compacted: Revision::new(compacted) })
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let (based_on, revision) = (txn.based_on, txn.based_on.next());
        let commit = Commit { revision, changes: txn.writes.into_iter().collect() };
        let nonce = self.nonce.hash_one(self.n_commits.fetch_add(1, Ordering::Relaxed));
        let entry = Entry { nonce, commit: record::encode(&commit) }.encode_to_vec();
        if entry.len() > MAX_COMMIT_LEN {
            return Err(StoreError::TooLarge { len: entry.len(), max: MAX_COMMIT_LEN });
        }
        let place = log_key(revision.get());
        let request = TxnRequest::new(
            vec![Compare::number(key("head"), based_on.get())],
            [Op::put(key("head"), revision.to_string().into_bytes()), Op::put(place.clone(), entry)],
            [Op::get(place), Op::get(key("head"))],
        );
        let started = Instant::now();
        loop {
            match wire::txn(self.channel(), request.clone()).await {
                Ok(answer) if answer.succeeded => return Ok(commit),
                Ok(answer) => {
                    let mut found = answer.responses.into_iter().filter_map(|response| response.range);
                    let taken = found.next().and_then(|range| range.kvs.into_iter().next());
                    if let Some(taken) = taken
                        && self.entry(&taken)?.0.nonce == nonce
                    {
                        return Ok(commit);
                    }
                    let head = found.next().and_then(|range| range.kvs.into_iter().next());
                    let at = head.map_or(Ok(0), |head| self.parse("head", &head.value))?;
                    return Err(StoreError::Moved { at: Revision::new(at), based_on });
                }
                Err(status) => {
                    let error = self.failed(&status);
                    if !is_away(&status) || started.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Folds some of the log into the values; false when there was nothing to do.
    async fn fold(&self, head: u64) -> Result<bool, StoreError> {
        let folded = self.number("folded").await?;
        if head.saturating_sub(folded) < FOLD {
            return Ok(false);
        }
        let (found, _) = self.all(log_key(folded + 1), log_key(folded + 1 + FOLD)).await?;
        let (mut changes, mut at) = (BTreeMap::new(), folded);
        for found in &found {
            let (_, commit) = self.entry(found)?;
            if commit.revision.get() != at + 1 {
                return Ok(false);
            }
            at += 1;
            changes.extend(commit.changes);
        }
        let guard = || vec![Compare::number(key("folded"), folded)];
        let (mut step, mut len) = (Vec::new(), 0);
        for (name, value) in changes {
            let name = key(&format!("values/{name}"));
            let more = name.len() + value.as_ref().map_or(0, Vec::len);
            if step.len() == MAX_STEP || (len + more > MAX_STEP_LEN && !step.is_empty()) {
                if !self.txn(TxnRequest::new(guard(), std::mem::take(&mut step), [])).await?.succeeded {
                    return Ok(false);
                }
                len = 0;
            }
            len += more;
            step.push(match value {
                Some(value) => Op::put(name, value),
                None => Op::delete(name),
            });
        }
        step.push(Op::put(key("folded"), at.to_string().into_bytes()));
        let is_done = at > folded && self.txn(TxnRequest::new(guard(), step, [])).await?.succeeded;
        if is_done {
            self.compact(at).await?;
        }
        Ok(is_done)
    }

    /// Forgets the oldest of the log, of what is folded.
    async fn compact(&self, folded: u64) -> Result<(), StoreError> {
        let compacted = self.number("compacted").await?;
        let until = folded.saturating_sub(self.limits.n_revisions);
        if until <= compacted {
            return Ok(());
        }
        let (from, to) = (key("log/").into_bytes(), log_key(until + 1).into_bytes());
        let old = Op::Delete(wire::DeleteRangeRequest { key: from, range_end: to });
        let guard = vec![Compare::number(key("compacted"), compacted)];
        let forgotten = Op::put(key("compacted"), until.to_string().into_bytes());
        self.txn(TxnRequest::new(guard, [old, forgotten], [])).await.map(drop)
    }
}

/// A connection for many calls; one that hangs is given up.
fn connect(dial: &Dial) -> Channel {
    dial.connect_lazy(|endpoint| {
        let endpoint = endpoint.connect_timeout(Duration::from_secs(2));
        endpoint.http2_keep_alive_interval(LOOK).keep_alive_timeout(LOOK).keep_alive_while_idle(true)
    })
}

/// Another member, or the same a little later, may answer.
fn is_away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            | Code::Aborted
    )
}

/// Keeps up with the head: by a watch, and by looking from time to time, since a member that is
/// cut off from the others tells nothing and does not say so.
async fn follow(inner: Arc<Inner>, sender: watch::Sender<u64>) {
    let tell = |head: u64| {
        sender.send_if_modified(|present| {
            let is_news = head > *present;
            *present = head.max(*present);
            is_news
        });
    };
    while !sender.is_closed() {
        let request = RangeRequest { key: key("head").into(), ..RangeRequest::default() };
        let Ok(found) = inner.range(request).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        inner.complaint.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let value = |found: &KeyValue| inner.parse("head", &found.value).ok();
        found.kvs.first().and_then(value).into_iter().for_each(tell);
        let from = found.header.map_or(0, |header| header.revision) + 1;
        let Ok(mut news) = wire::watch(inner.channel(), &key("head"), from).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            let next = tokio::select! {
                next = news.message() => next,
                // Begins again, with a look.
                () = &mut look => break,
            };
            let Ok(Some(next)) = next else { break };
            next.events.iter().filter_map(|event| event.kv.as_ref()).filter_map(value).for_each(tell);
            if next.canceled {
                break;
            }
        }
    }
}

/// Folds the log whenever there is much of it.
async fn fold_forever(inner: Arc<Inner>, mut head: watch::Receiver<u64>) {
    loop {
        let at = *head.borrow_and_update();
        match inner.fold(at).await {
            Ok(true) => continue,
            Ok(false) | Err(StoreError::Unreachable { .. }) => {}
            Err(error) => tracing::error!(%error, "the log cannot be folded"),
        }
        // Others may have done it; not at every commit.
        tokio::time::sleep(LOOK).await;
        if head.has_changed().is_err() {
            return;
        }
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn log_key(revision: u64) -> String {
    key(&format!("log/{revision:020}"))
}

/// What controllers tell.
fn live() -> RangeRequest {
    let from = key("live/");
    RangeRequest { range_end: end_of(&from).into(), key: from.into(), ..RangeRequest::default() }
}

/// A key below a name, and its value.
fn suffix(found: &KeyValue, below: &str) -> Option<(String, Vec<u8>)> {
    let name = std::str::from_utf8(&found.key).ok()?;
    Some((name.strip_prefix(PREFIX)?.strip_prefix(below)?.to_owned(), found.value.clone()))
}

/// The first key behind all that begin like this; ours end with `/`.
fn end_of(prefix: &str) -> String {
    let without = prefix.strip_suffix('/').unwrap_or(prefix);
    format!("{without}0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_log_are_in_its_order_and_ends_are_behind_all() {
        assert!(log_key(9) < log_key(10) && log_key(10) < end_of(&key("log/")));
        assert!(end_of(PREFIX) > key("values/~"));
        assert!(end_of(&key("live/")) < key("log/"));
    }

    #[test]
    fn zero_is_what_is_not_there() {
        assert_eq!(Compare::number("x".to_owned(), 0).with, Some(wire::Compared::Version(0)));
        assert_eq!(Compare::number("x".to_owned(), 7).with, Some(wire::Compared::Value(b"7".to_vec())));
    }
}
