//! `vswitch-libnetwork`: Docker's remote network driver and IPAM driver
//! ([protocol](https://github.com/moby/moby/blob/master/libnetwork/docs/remote.md)).
//!
//! Docker asks by HTTP on a unix socket ([`server`]); [`protocol`] has the questions. What a
//! network is, [`options`] read from what the user wrote; [`network`] makes networks and
//! endpoints, by the host's daemon; [`ipam`] gives addresses. Both keep what they know in
//! [`saved`] files, because Docker tells it once: it does not make its networks again when it
//! or the driver starts again. [`swarm`] is what managers of a swarm ask besides; [`package`]
//! makes a plugin of the driver, which a swarm needs.
//!
//! No handler asks Docker anything: Docker waits for the answer and would not give one.

#![forbid(unsafe_code)]

pub mod cli;
pub mod driver;
pub mod ipam;
pub mod network;
pub mod options;
pub mod package;
pub mod protocol;
pub mod refusal;
pub mod saved;
pub mod server;
pub mod swarm;

use std::{rc::Rc, time::Duration};

use anyhow::Context as _;

use cli::Options;
use driver::Driver;
use server::Socket;

/// How often what is left to do is tried again.
const TEND_INTERVAL: Duration = Duration::from_secs(2);

/// Serves Docker for ever.
///
/// # Errors
/// The socket or the state directory cannot be used.
pub async fn serve(options: &Options) -> anyhow::Result<()> {
    if let Some(dir) = &options.make_plugin {
        return package::write(dir, options).with_context(|| format!("cannot write {}", dir.display()));
    }
    // First: two drivers with one state directory would overwrite each other's files.
    let socket = Socket::bind(&options.socket)
        .with_context(|| format!("cannot listen at {}", options.socket.display()))?;
    let driver = Driver::open(options)
        .with_context(|| format!("cannot use the state directory {}", options.state_dir.display()))?;
    let driver = Rc::new(driver);
    let tending = Rc::clone(&driver);
    tracing::info!(socket = %options.socket.display(), "running");
    let local = tokio::task::LocalSet::new();
    local.spawn_local(async move {
        loop {
            tending.tend().await;
            tokio::time::sleep(TEND_INTERVAL).await;
        }
    });
    local.run_until(server::run(socket, driver)).await
}
