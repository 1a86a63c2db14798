//! Docker's network driver, and what Docker says to it: questions by HTTP, asked again when the answer gets lost.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::daemon::{Daemon, Life, find_program};
use crate::fabric::{Fabric, HOSTS};
use crate::{scenario, stop};

/// Name of our driver.
pub const DRIVER: &str = "ferroflow";
/// How long the driver may take to answer.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How long Docker asks again, and how often.
const RETRY_LIMIT: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Starts the driver of a host, which keeps its things in a folder; again after it was killed.
///
/// # Errors
/// When it does not start.
pub fn start(fabric: &Fabric, host_name: &str, dir: &Path) -> Result<Daemon> {
    let program = find_program(&scenario::target_dir()?, "vswitch-libnetwork")?;
    let socket = socket(dir);
    let vswitchd = fabric.plan().dir.join(format!("{host_name}.sock"));
    let state = dir.join("driver");
    let words = [
        ("--socket", socket.as_path()),
        ("--vswitchd", &vswitchd),
        ("--state-dir", &state),
        ("--log", Path::new("vswitch_libnetwork=debug")),
    ];
    let mut args = Vec::new();
    for (option, value) in words {
        args.extend([option, value.to_str().context("a path is not UTF-8")?]);
    }
    let host_idx =
        HOSTS.iter().position(|host| host.name == host_name).context("the host is in the fabric")?;
    let log = dir.join("driver.log");
    let mut driver = Daemon::start(fabric.host_netns(host_idx), &program, &args, &log, Life::WithParent)?;
    stop::wait_for("the driver listens", START_LIMIT, || {
        driver.check()?;
        Ok(UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string()))
    })?;
    Ok(driver)
}

/// Where the driver listens.
fn socket(dir: &Path) -> PathBuf {
    dir.join("plugins").join(format!("{DRIVER}.sock"))
}

/// What the driver keeps: names of files.
///
/// # Errors
/// When it cannot be read.
pub fn kept(dir: &Path) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    for part in ["networks", "endpoints", "pools"] {
        for entry in fs::read_dir(dir.join("driver").join(part))? {
            kept.push(format!("{part}/{}", entry?.file_name().to_string_lossy()));
        }
    }
    Ok(kept)
}

/// Asks the driver, as Docker does; its own refusals are answers.
///
/// # Errors
/// When it does not answer for as long as Docker tries.
pub fn ask(dir: &Path, method: &str, question: &Value) -> Result<Result<Value, String>> {
    let start = Instant::now();
    loop {
        stop::check()?;
        match ask_once(dir, method, question) {
            Ok(answer) => return Ok(answer),
            Err(error) if start.elapsed() > RETRY_LIMIT => {
                return Err(error.context(format!("{method}: no answer")));
            }
            Err(_) => std::thread::sleep(RETRY_PAUSE),
        }
    }
}

fn ask_once(dir: &Path, method: &str, question: &Value) -> Result<Result<Value, String>> {
    let mut stream = UnixStream::connect(socket(dir))?;
    stream.set_read_timeout(Some(RETRY_LIMIT * 2))?;
    let body = question.to_string();
    write!(
        stream,
        "POST /{method} HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is cut short")?;
    let status = head.split_whitespace().nth(1).context("the answer has no status")?;
    let body: Value = serde_json::from_str(body).with_context(|| format!("the answer is `{body}`"))?;
    match status {
        "200" => Ok(Ok(body)),
        "400" | "404" | "500" => Ok(Err(body.to_string())),
        status => bail!("the answer's status is {status}"),
    }
}
