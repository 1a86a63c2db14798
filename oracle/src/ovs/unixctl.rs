//! The daemon's control socket: JSON-RPC requests, one at a time (ovs-appctl(8)).

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// An answer takes well below a millisecond.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest answer that is taken.
const ANSWER_MAX: usize = 1 << 24;

/// A connection.
#[derive(Debug)]
pub struct Unixctl {
    stream: UnixStream,
}

impl Unixctl {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self { stream })
    }

    /// Calls a command and waits for what it says.
    ///
    /// # Errors
    /// When the command fails or nothing is said.
    pub fn call(&mut self, method: &str, params: &[&str]) -> Result<String> {
        let request = json!({ "id": 0, "method": method, "params": params });
        self.stream.write_all(request.to_string().as_bytes())?;
        let answer = self.answer().with_context(|| format!("{method} was not answered"))?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            bail!("{method}: {}", error.trim());
        }
        Ok(answer.get("result").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    fn answer(&mut self) -> Result<Value> {
        let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let n = self.stream.read(&mut part)?;
            ensure!(n > 0 && bytes.len() < ANSWER_MAX, "the connection ended");
            bytes.extend_from_slice(&part[..n]);
            match serde_json::from_slice(&bytes) {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_eof() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
