//! `vswitch-netavark`: a plugin of netavark, which makes podman's networks from version 5 on
//! ([contract](https://github.com/containers/netavark/blob/main/plugin-API.md)).
//!
//! podman starts it with a word (`create`, `setup`, `teardown`, `info`), a question on stdin
//! ([`question`]) and reads one answer. [`options`] is what the user has written of a network;
//! [`attachment`] is what a container gets of it, which the host's daemon makes.

#![forbid(unsafe_code)]

pub mod attachment;
pub mod options;
pub mod question;
pub mod refusal;

use serde_json::{Value, json};
use vswitch_shim::{Daemon, departed};

use options::Options;
use question::{Attachment, Network, read};
use refusal::Refusal;

/// Version of the contract.
const API_VERSION: &str = "1.0.0";

/// Does what podman asks; `None`: there is nothing to answer.
///
/// # Errors
/// Why not, in one sentence.
pub async fn run(words: &[String], stdin: &[u8]) -> Result<Option<Value>, Refusal> {
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["create"] => create(stdin).map(Some),
        ["setup", netns] => setup(netns, read(stdin)?).await.map(Some),
        ["teardown", _] => teardown(&read(stdin)?).await.map(|()| None),
        ["info"] => Ok(Some(json!({ "version": env!("CARGO_PKG_VERSION"), "api_version": API_VERSION }))),
        words => Err(Refusal::new(format!(
            "`{}`: podman asks create, setup NAMESPACE, teardown NAMESPACE or info",
            words.join(" ").escape_debug()
        ))),
    }
}

/// A network is what its options say: nothing is made before it has containers.
fn create(stdin: &[u8]) -> Result<Value, Refusal> {
    let network: Network = read(stdin)?;
    Options::of(&network)?;
    // All fields, also those of podmans to come.
    read(stdin)
}

async fn setup(netns: &str, question: Attachment) -> Result<Value, Refusal> {
    const WHAT: &str = "the container cannot be attached";
    let options = Options::of(&question.network)?;
    let wanted = attachment::wanted(netns, &question, &options)?;
    let refused = |status| Refusal::daemon(WHAT, &status);
    let mut daemon = Daemon::connect(&options.socket).await.map_err(refused)?;
    let endpoint = daemon.attach(wanted).await.map_err(refused)?;
    Ok(attachment::answer(&question, &options, &endpoint))
}

async fn teardown(question: &Attachment) -> Result<(), Refusal> {
    let options = Options::of(&question.network)?;
    let ended = departed::end(&options.socket, &attachment::key(question)).await;
    ended.map_err(|error| Refusal::new(format!("the container cannot be detached: {error}")))
}
