//! Pods, as Kubernetes asks a runtime for them: its container runtime interface, by gRPC.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferroflow_tests::containerd::{Containerd, IMAGE};
use ferroflow_tests::{say, stop};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// What the interface is made of; `proto/` has what there is to say of it.
#[allow(missing_docs, unreachable_pub)]
mod api {
    tonic::include_proto!("runtime.v1");
}

use api::runtime_service_client::RuntimeServiceClient;
pub(crate) use api::{DnsConfig, PodSandboxConfig, PortMapping};

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a runtime may take until it can run pods.
const READY_LIMIT: Duration = Duration::from_secs(40);

/// A runtime's pods; dropping it ends them.
#[derive(Debug)]
pub(crate) struct Pods {
    runtime: Runtime,
    client: RuntimeServiceClient<Channel>,
    sandboxes: Vec<String>,
}

/// A pod with one container.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    /// Its addresses, the first one first.
    pub(crate) addresses: Vec<String>,
    sandbox: String,
    container: String,
}

/// A pod's description, of which the rest may be filled in.
pub(crate) fn description(name: &str, namespace: &str) -> PodSandboxConfig {
    let metadata = api::PodSandboxMetadata {
        name: name.to_owned(),
        uid: format!("{namespace}-{name}"),
        namespace: namespace.to_owned(),
        attempt: 0,
    };
    PodSandboxConfig { metadata: Some(metadata), hostname: name.to_owned(), ..PodSandboxConfig::default() }
}

impl Pods {
    /// Those of a containerd, which has a network for them.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub(crate) fn of(containerd: &Containerd) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", containerd.socket().display()))?;
        let channel = {
            let _inside = runtime.enter();
            endpoint.timeout(LIMIT).connect_lazy()
        };
        let pods = Self { runtime, client: RuntimeServiceClient::new(channel), sandboxes: Vec::new() };
        pods.wait_ready()?;
        Ok(pods)
    }

    /// Waits until the runtime says that it is ready, and that its network is.
    ///
    /// # Errors
    /// When it does not in time.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        stop::wait_for("the runtime can run pods", READY_LIMIT, || {
            let mut client = self.client.clone();
            let status = self.runtime.block_on(async { client.status(api::StatusRequest {}).await });
            let conditions = match status {
                Ok(status) => status.into_inner().status.unwrap_or_default().conditions,
                Err(status) => return Ok(Err(status.to_string())),
            };
            let missing = conditions.iter().find(|condition| !condition.status);
            Ok(match missing {
                Some(missing) => Err(format!("{}: {}", missing.r#type, missing.message)),
                None => Ok(()),
            })
        })
    }

    /// Runs a pod with a container that runs a command.
    ///
    /// # Errors
    /// When the runtime refuses; whatever was made of it is ended with the others.
    pub(crate) fn run(&mut self, description: &PodSandboxConfig, words: &[&str]) -> Result<Pod> {
        let request = api::RunPodSandboxRequest { config: Some(description.clone()) };
        let made = self.call(async |client| client.run_pod_sandbox(request).await)?;
        let sandbox = made.pod_sandbox_id;
        self.sandboxes.push(sandbox.clone());
        let config = api::ContainerConfig {
            metadata: Some(api::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(api::ImageSpec { image: IMAGE.to_owned() }),
            command: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        let request = api::CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(description.clone()),
        };
        let container = self.call(async |client| client.create_container(request).await)?.container_id;
        let request = api::StartContainerRequest { container_id: container.clone() };
        self.call(async |client| client.start_container(request).await)?;
        let request = api::PodSandboxRequest { pod_sandbox_id: sandbox.clone() };
        let status = self.call(async |client| client.pod_sandbox_status(request).await)?;
        let network = status.status.and_then(|status| status.network).context("the pod has no network")?;
        let more = network.additional_ips.into_iter().map(|more| more.ip);
        Ok(Pod { addresses: std::iter::once(network.ip).chain(more).collect(), sandbox, container })
    }

    /// Runs a command in a pod's container, and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn exec(&self, pod: &Pod, words: &[&str]) -> Result<String> {
        let request = api::ExecSyncRequest {
            container_id: pod.container.clone(),
            cmd: words.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 30,
        };
        let done = self.call(async |client| client.exec_sync(request).await)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
        ensure!(done.exit_code == 0, "{words:?} in a pod: {}: {stderr} {stdout}", done.exit_code);
        Ok(stdout)
    }

    /// Ends a pod, and removes it.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub(crate) fn remove(&mut self, pod: &Pod) -> Result<()> {
        self.remove_sandbox(&pod.sandbox)?;
        self.sandboxes.retain(|sandbox| *sandbox != pod.sandbox);
        Ok(())
    }

    fn remove_sandbox(&self, sandbox: &str) -> Result<()> {
        let request = || api::PodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        self.call(async |client| client.stop_pod_sandbox(request()).await)?;
        self.call(async |client| client.remove_pod_sandbox(request()).await).map(drop)
    }

    fn call<T>(
        &self,
        call: impl AsyncFnOnce(&mut RuntimeServiceClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T> {
        let mut client = self.client.clone();
        let done = self.runtime.block_on(call(&mut client));
        Ok(done.map_err(|status| anyhow::anyhow!("{:?}: {}", status.code(), status.message()))?.into_inner())
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for sandbox in std::mem::take(&mut self.sandboxes) {
            if let Err(error) = self.remove_sandbox(&sandbox) {
                say(&format!("a pod cannot be removed: {error:#}"));
            }
        }
    }
}
