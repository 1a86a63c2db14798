//! A controller in this process, on a socket in a temporary directory, and its clients.
// Each test binary uses its part of this.
#![allow(dead_code, unreachable_pub)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use controller::{
    controller::{Controller, Ending},
    server::{Listen, Listener, serve},
    store::{LogLimits, MemoryStore, RedbStore, Store},
};
use ferroflow_proto::{
    chassis::{self as ch, chassis_service_client::ChassisServiceClient, sync_request::Message},
    northbound::{self as nb, northbound_service_client::NorthboundServiceClient, resource::Spec},
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{net::UnixStream, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint, Uri},
};

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must come.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes too long")
}

/// A serving controller.
pub struct World {
    pub controller: Arc<Controller>,
    pub dir: TempDir,
    server: JoinHandle<()>,
    channel: Channel,
}

impl World {
    /// On a store in memory.
    pub async fn new() -> Self {
        Self::with(Box::new(MemoryStore::default()), LogLimits::default(), TempDir::new().unwrap()).await
    }

    /// On a file in `dir`.
    pub async fn on_disk(dir: TempDir, limits: LogLimits) -> Self {
        let store = RedbStore::open(&dir.path().join("network.redb"), limits).unwrap();
        Self::with(Box::new(store), limits, dir).await
    }

    pub async fn with(store: Box<dyn Store>, limits: LogLimits, dir: TempDir) -> Self {
        let controller = Controller::open(store, limits).unwrap();
        let socket = dir.path().join("nb.sock");
        let listener = Listener::bind(&Listen::Unix(socket.clone())).await.unwrap();
        let serving = Arc::clone(&controller);
        let server = tokio::spawn(async move { serve(serving, listener).await.unwrap() });
        let channel = connect(socket).await;
        Self { controller, dir, server, channel }
    }

    pub fn client(&self) -> NorthboundServiceClient<Channel> {
        NorthboundServiceClient::new(self.channel.clone())
    }

    /// Ends the controller and waits until all of it is gone.
    pub async fn stop(self) -> TempDir {
        self.controller.end(Ending::Shutdown);
        let Self { controller, dir, server, channel } = self;
        drop(channel);
        soon(server).await.unwrap();
        let mut controller = controller;
        // Sessions let go of the controller a moment after their streams have ended.
        soon(async {
            while let Err(shared) = Arc::try_unwrap(controller) {
                controller = shared;
                tokio::task::yield_now().await;
            }
        })
        .await;
        dir
    }

    /// One transaction that must succeed.
    pub async fn transact(&self, operations: Vec<nb::Operation>) -> nb::TransactResponse {
        let request = nb::TransactRequest { operations, ..Default::default() };
        self.client().transact(request).await.unwrap().into_inner()
    }

    pub async fn get(&self, name: &str) -> nb::Resource {
        let request = nb::GetResourceRequest { name: name.to_owned() };
        self.client().get_resource(request).await.unwrap().into_inner().resource.unwrap()
    }

    pub async fn port(&self, name: &str) -> nb::LogicalSwitchPort {
        match self.get(name).await.spec {
            Some(Spec::LogicalSwitchPort(port)) => port,
            other => panic!("{other:?}"),
        }
    }

    pub async fn watch(&self, after_revision: u64, parent: &str) -> Streaming<nb::WatchResponse> {
        let request = nb::WatchRequest { after_revision, parent: parent.to_owned(), ..Default::default() };
        self.client().watch(request).await.unwrap().into_inner()
    }

    pub async fn receipt(&self, revision: u64, wait: bool) -> nb::GetReceiptResponse {
        let request = nb::GetReceiptRequest { revision, wait };
        soon(self.client().get_receipt(request)).await.unwrap().into_inner()
    }

    /// A chassis that has said hello and claimed these ports, and its first update.
    pub async fn chassis(&self, id: &str, incarnation: u64, ports: &[&str]) -> (Host, ch::SyncResponse) {
        let mut host = self.hello(id, incarnation, "192.0.2.1").await.unwrap();
        host.claim(ports).await;
        let first = host.update().await;
        assert!(first.full);
        (host, first)
    }

    pub async fn hello(&self, id: &str, incarnation: u64, encap_ip: &str) -> Result<Host, tonic::Status> {
        let (requests, receiver) = mpsc::channel(16);
        let hello = ch::Hello {
            chassis: id.to_owned(),
            hostname: format!("{id}.example"),
            encap_ip: encap_ip.to_owned(),
            incarnation,
            ..Default::default()
        };
        requests.send(request(Message::Hello(hello))).await.unwrap();
        let mut client =
            ChassisServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let updates = soon(client.sync(ReceiverStream::new(receiver))).await?.into_inner();
        Ok(Host { requests, updates })
    }
}

async fn connect(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://controller").connect_with_connector(connector).await.unwrap()
}

pub fn request(message: Message) -> ch::SyncRequest {
    ch::SyncRequest { message: Some(message) }
}

/// The host's end of a chassis stream.
pub struct Host {
    pub requests: mpsc::Sender<ch::SyncRequest>,
    pub updates: Streaming<ch::SyncResponse>,
}

impl Host {
    pub async fn claim(&self, ports: &[&str]) {
        let claims =
            ports.iter().map(|port| ch::Claim { logical_port: (*port).to_owned(), up: true }).collect();
        self.requests.send(request(Message::Claims(ch::Claims { claims }))).await.unwrap();
    }

    pub async fn change_claims(&self, ports: &[&str], removed: &[&str]) {
        let claims =
            ports.iter().map(|port| ch::Claim { logical_port: (*port).to_owned(), up: true }).collect();
        let removed = removed.iter().map(|port| (*port).to_owned()).collect();
        let changes = ch::ClaimChanges { claims, removed };
        self.requests.send(request(Message::ClaimChanges(changes))).await.unwrap();
    }

    pub async fn ack(&self, revision: u64, errors: &[&str]) {
        let errors = errors.iter().map(|error| (*error).to_owned()).collect();
        self.requests.send(request(Message::Ack(ch::Ack { revision, errors }))).await.unwrap();
    }

    pub async fn update(&mut self) -> ch::SyncResponse {
        soon(self.updates.message()).await.unwrap().unwrap()
    }

    /// Takes and acknowledges updates until the port is bound to `chassis`; the revision.
    pub async fn update_until_bound(&mut self, port: &str, chassis: &str) -> u64 {
        loop {
            let update = self.update().await;
            self.ack(update.revision, &[]).await;
            let is_it = |binding: &&ch::PortBinding| binding.name == port && binding.chassis == chassis;
            if update.port_bindings.iter().any(|binding| is_it(&binding)) {
                return update.revision;
            }
        }
    }
}

pub fn resource(name: &str, spec: Spec) -> nb::Resource {
    nb::Resource { name: name.to_owned(), spec: Some(spec), ..Default::default() }
}

pub fn switch(name: &str) -> nb::Resource {
    resource(name, Spec::LogicalSwitch(Default::default()))
}

pub fn port(name: &str, address: &str) -> nb::Resource {
    let addresses = Some(address.to_owned()).filter(|address| !address.is_empty()).into_iter().collect();
    resource(name, Spec::LogicalSwitchPort(nb::LogicalSwitchPort { addresses, ..Default::default() }))
}

pub fn acl(name: &str, priority: u32, matching: &str) -> nb::Resource {
    let acl = nb::Acl {
        direction: nb::acl::Direction::FromLport.into(),
        priority,
        r#match: matching.to_owned(),
        action: nb::acl::Action::Drop.into(),
        ..Default::default()
    };
    resource(name, Spec::Acl(acl))
}

pub fn create(resource: nb::Resource) -> nb::Operation {
    let create = nb::Create { resource: Some(resource) };
    nb::Operation { op: Some(nb::operation::Op::Create(create)) }
}

pub fn delete(name: &str) -> nb::Operation {
    let delete = nb::Delete { name: name.to_owned(), allow_missing: false };
    nb::Operation { op: Some(nb::operation::Op::Delete(delete)) }
}
