//! The chassis agent: keeps a stream to the controller, claims the ports that are on this
//! host, realises what the controller sends and acknowledges it.
//!
//! Without a controller nothing is lost: the host goes on with the last network it was
//! sent, and the agent tries again, a little later each time.

mod assist;
mod binding;
mod claims;
mod decode;
mod holders;
mod neighbours;
mod outbox;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use credentials::Dial;
use ferroflow_proto::chassis::{
    Ack, Claims, Health, Sessions, SyncRequest, SyncResponse, chassis_service_client::ChassisServiceClient,
    sync_request::Message,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

pub use decode::{UpdateError, decode};
pub use outbox::Outbox;

use crate::host::{Heard, Holders, Host, SharedHost};

/// First and longest pause between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long an attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A controller that does not answer pings for this long is gone.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Messages to the controller under way; claims and acks wait for one another.
const QUEUE: usize = 16;
/// Largest update that is taken: a full view of a very large network.
const MAX_UPDATE_LEN: usize = 1 << 30;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("{0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("it ended the stream")]
    Ended,
}

/// What a host says by itself.
#[derive(Debug, Clone)]
pub struct Said {
    /// The ports that are on it.
    pub claims: watch::Receiver<Claims>,
    /// Which backends serve.
    pub health: watch::Receiver<Health>,
    /// Neighbours of routers that it has heard of.
    pub heard: watch::Receiver<Arc<Heard>>,
    /// Who has the addresses of virtual ports.
    pub holders: watch::Receiver<Arc<Holders>>,
    /// How sessions with next hops of routers are.
    pub sessions: watch::Receiver<Sessions>,
    /// Number of the last word about those that was told to a controller.
    pub told: Arc<AtomicU64>,
}

impl Said {
    /// What a host says from now on.
    pub fn of(host: &Host) -> Self {
        Self {
            claims: host.claims(),
            health: host.health(),
            heard: host.heard(),
            holders: host.holders(),
            sessions: host.sessions(),
            told: Default::default(),
        }
    }
}

/// Runs until the task is dropped.
pub async fn run(host: SharedHost, controller: Dial, said: Said) {
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    loop {
        let mut had_update = false;
        let Err(error) = session(&host, &controller, said.clone(), &mut had_update).await;
        host.with(|host| host.set_connected(false)).await;
        if had_update {
            pause = FIRST_PAUSE;
            told.clear();
        }
        let reason = describe(&error);
        if reason != told {
            tracing::warn!(reason, "no controller; forwarding goes on with what is known");
            told = reason;
        }
        // One that answers, and is of no use now, does not keep this host from another.
        controller.turn();
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// An error with its causes: tonic's own text does not name them.
fn describe(error: &StreamError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// One stream, from its hello to its end.
async fn session(
    host: &SharedHost,
    controller: &Dial,
    said: Said,
    had_update: &mut bool,
) -> Result<std::convert::Infallible, StreamError> {
    let keep = |endpoint: Endpoint| {
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).http2_keep_alive_interval(KEEPALIVE);
        endpoint.keep_alive_timeout(KEEPALIVE).keep_alive_while_idle(true)
    };
    let channel: Channel = controller.connect(keep).await?;
    let _assisting = AbortOnDrop(tokio::spawn(assist::run(host.clone(), channel.clone())));
    let mut client = ChassisServiceClient::new(channel).max_decoding_message_size(MAX_UPDATE_LEN);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let hello = host.with(Host::begin_stream).await;
    queue(&sender, Message::Hello(hello)).await?;
    let takes_changes = Arc::new(AtomicBool::new(false));
    let claiming = tokio::spawn(claims::send(sender.clone(), said.claims, Arc::clone(&takes_changes)));
    let _claiming = AbortOnDrop(claiming);
    let _telling = AbortOnDrop(tokio::spawn(send_health(sender.clone(), said.health)));
    let _holding = AbortOnDrop(tokio::spawn(holders::send(sender.clone(), said.holders, said.told)));
    let _sharing = AbortOnDrop(tokio::spawn(neighbours::send(sender.clone(), said.heard)));
    let _asking = AbortOnDrop(tokio::spawn(send_sessions(sender.clone(), said.sessions)));
    let mut updates = client.sync(ReceiverStream::new(receiver)).await?.into_inner();
    while let Some(update) = updates.message().await? {
        if !*had_update {
            tracing::info!(revision = update.revision, "connected to the controller");
            *had_update = true;
        }
        if update.takes_claim_changes {
            takes_changes.store(true, Ordering::Release);
        }
        let ack = realise(host, update).await;
        queue(&sender, Message::Ack(ack)).await?;
    }
    Err(StreamError::Ended)
}

async fn realise(host: &SharedHost, update: SyncResponse) -> Ack {
    host.with(move |host| {
        host.set_connected(true);
        let revision = update.revision;
        let errors = host.realise(update);
        Ack { revision, errors }
    })
    .await
}

/// Sends which backends serve, if any are asked, and again whenever that changes.
async fn send_health(sender: mpsc::Sender<SyncRequest>, mut health: watch::Receiver<Health>) {
    if !health.borrow().backends.is_empty() {
        health.mark_changed();
    }
    while health.changed().await.is_ok() {
        let now = health.borrow_and_update().clone();
        if queue(&sender, Message::Health(now)).await.is_err() {
            return;
        }
    }
}

/// Sends how sessions with next hops are, if there are any, and again whenever that changes.
async fn send_sessions(sender: mpsc::Sender<SyncRequest>, mut sessions: watch::Receiver<Sessions>) {
    if !sessions.borrow().sessions.is_empty() {
        sessions.mark_changed();
    }
    while sessions.changed().await.is_ok() {
        let now = sessions.borrow_and_update().clone();
        if queue(&sender, Message::Sessions(now)).await.is_err() {
            return;
        }
    }
}

async fn queue(sender: &mpsc::Sender<SyncRequest>, message: Message) -> Result<(), StreamError> {
    sender.send(SyncRequest { message: Some(message) }).await.map_err(|_| StreamError::Ended)
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
