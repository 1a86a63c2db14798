//! podman with directories of its own, whose network is ours.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cni::Runtime;
use crate::fabric::{Fabric, HOSTS};
use crate::{command, image};

/// The image that containers are made of.
pub const IMAGE: &str = "localhost/busybox:local";
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// podman on a host of a fabric; dropping it ends its containers.
#[derive(Debug)]
pub struct Podman {
    netns: String,
    dir: PathBuf,
}

impl Podman {
    /// Gives it our network and an image.
    ///
    /// # Errors
    /// When it refuses.
    pub fn prepare(fabric: &Fabric, runtime: &Runtime, host_idx: usize) -> Result<Self> {
        Self::with_network(fabric, runtime, host_idx, runtime.config("1.0.0"))
    }

    /// Gives it a network of ours and an image.
    ///
    /// # Errors
    /// When it refuses.
    pub fn with_network(
        fabric: &Fabric,
        runtime: &Runtime,
        host_idx: usize,
        mut plugin: Value,
    ) -> Result<Self> {
        let dir = fabric.plan().dir.join(format!("{}-podman", HOSTS[host_idx].name));
        let podman = Self { netns: fabric.host_netns(host_idx).name().to_owned(), dir };
        let networks = podman.dir.join("networks");
        fs::create_dir_all(&networks)?;
        let name = plugin["name"].take();
        if let Some(fields) = plugin.as_object_mut() {
            fields.remove("name");
            fields.remove("cniVersion");
        }
        let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": [plugin] });
        fs::write(networks.join("pods.conflist"), list.to_string())?;
        let plugins = runtime.plugin_dir().display();
        // Without the limits runc refuses where it may not raise them.
        let config = format!(
            "[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\nruntime=\"runc\"\n\
             [network]\nnetwork_backend=\"cni\"\ncni_plugin_dirs=[\"{plugins}\",\"/usr/lib/cni\"]\n\
             network_config_dir=\"{}\"\n\
             [containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\n",
            networks.display(),
        );
        fs::write(podman.dir.join("containers.conf"), config)?;
        podman.import()?;
        Ok(podman)
    }

    /// Runs podman and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        command::output(&mut self.command(words), LIMIT)
    }

    fn command(&self, words: &[&str]) -> Command {
        // Not `ip netns exec`: that hides the cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).args(["podman", "--storage-driver", "vfs"]);
        command.arg("--root").arg(self.dir.join("storage")).arg("--runroot").arg(self.dir.join("run"));
        command.args(["--tmpdir"]).arg(self.dir.join("tmp"));
        command.args(words).env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command
    }

    fn import(&self) -> Result<()> {
        let tar = image::tar(&self.dir)?;
        self.run(&["import", "-q", "-c", "ENV PATH=/bin", &tar, IMAGE]).map(drop)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let ended = command::run_regardless(&mut self.command(&["rm", "-f", "-a", "-t", "0"]), LIMIT);
        if let Err(error) = ended {
            crate::say(&format!("podman's containers cannot be removed: {error:#}"));
        }
    }
}
