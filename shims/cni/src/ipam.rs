//! Addresses by another plugin, as the specification delegates them.

use std::{path::PathBuf, process::Stdio};

use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    environment::Environment,
    error::{CniError, ErrorCode},
    result::{CniResult, Version},
};

/// An IPAM plugin, with what the runtime said.
#[derive(Debug)]
pub struct Ipam<'a> {
    name: &'a str,
    path: PathBuf,
    environment: &'a Environment,
    config: &'a [u8],
}

impl<'a> Ipam<'a> {
    /// Finds it.
    ///
    /// # Errors
    /// There is none of this name in `CNI_PATH`.
    pub fn find(name: &'a str, environment: &'a Environment, config: &'a [u8]) -> Result<Self, CniError> {
        let is_name = !name.is_empty() && !name.contains('/');
        let path = is_name.then(|| environment.find_plugin(name)).flatten().ok_or_else(|| {
            CniError::new(
                ErrorCode::InvalidConfig,
                format!("the IPAM plugin `{}` is not there", name.escape_debug()),
                "`ipam.type` names a program in one of the directories of CNI_PATH, as host-local",
            )
        })?;
        Ok(Self { name, path, environment, config })
    }

    /// Takes addresses.
    ///
    /// # Errors
    /// It has none.
    pub async fn add(&self, version: Version) -> Result<CniResult, CniError> {
        let answer = self.call("ADD", version).await?;
        CniResult::read(answer, &format!("the answer of {}", self.name))
    }

    /// Gives them back.
    ///
    /// # Errors
    /// It fails.
    pub async fn del(&self, version: Version) -> Result<(), CniError> {
        self.call("DEL", version).await.map(drop)
    }

    /// Says whether they are still taken.
    ///
    /// # Errors
    /// They are not.
    pub async fn check(&self, version: Version) -> Result<(), CniError> {
        self.call("CHECK", version).await.map(drop)
    }

    /// Passes GC or STATUS on, if it knows them.
    ///
    /// # Errors
    /// It fails.
    pub async fn pass_on(&self, verb: &str) -> Result<(), CniError> {
        if self.newest(Version::V1_1_0).await? < Version::V1_1_0 {
            return Ok(());
        }
        self.run(verb, self.config).await.map(drop)
    }

    /// Calls it in a version it knows.
    async fn call(&self, verb: &str, version: Version) -> Result<Value, CniError> {
        if version < Version::V1_1_0 {
            return self.run(verb, self.config).await;
        }
        let spoken = self.newest(version).await?;
        let config = in_version(self.config, spoken)?;
        self.run(verb, &config).await
    }

    /// The newest version that it knows, up to this one.
    async fn newest(&self, limit: Version) -> Result<Version, CniError> {
        let answer = self.run("VERSION", self.config).await?;
        let known = answer.get("supportedVersions").and_then(Value::as_array);
        let known = known.into_iter().flatten().filter_map(|text| text.as_str()?.parse().ok());
        known.filter(|version| *version <= limit).max().ok_or_else(|| {
            CniError::new(
                ErrorCode::IncompatibleVersion,
                format!("the IPAM plugin {} speaks none of our versions", self.name),
                answer,
            )
        })
    }

    async fn run(&self, verb: &str, config: &[u8]) -> Result<Value, CniError> {
        let failed = |details: String| {
            CniError::new(ErrorCode::Ipam, format!("the IPAM plugin {} failed at {verb}", self.name), details)
        };
        let mut child = Command::new(&self.path)
            .envs(self.environment.all())
            .env("CNI_COMMAND", verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read says why by its answer.
            let _ = stdin.write_all(config).await;
        }
        let output = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
        let answer: Value = match serde_json::from_slice(&output.stdout) {
            Ok(answer) => answer,
            Err(_) if output.status.success() => Value::Null,
            Err(_) => return Err(failed(format!("{}; it says nothing", output.status))),
        };
        if output.status.success() {
            return Ok(answer);
        }
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut error = failed(format!("{} {}", text("msg"), text("details")).trim().to_owned());
        // What the runtime is to do is for the one to say that failed.
        if let Some(code) =
            answer.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok())
        {
            error.code = code;
        }
        Err(error)
    }
}

/// The configuration with another version.
fn in_version(config: &[u8], version: Version) -> Result<Vec<u8>, CniError> {
    let wrong = |error: serde_json::Error| {
        CniError::new(ErrorCode::Decoding, "the configuration on stdin is not understood", error)
    };
    let mut value: Value = serde_json::from_slice(config).map_err(wrong)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("cniVersion".to_owned(), version.text().into());
    }
    serde_json::to_vec(&value).map_err(wrong)
}
