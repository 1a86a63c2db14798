//! Containers that end while the daemon is not there: their keys are left for it in a
//! directory named after its socket, so that no container's end waits for a daemon.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ferroflow_proto::host::EndpointKey;
use serde_json::json;
use tonic::{Code, Status};

use crate::Daemon;

/// What the directory's name has more than that of the socket.
const SUFFIX: &str = ".departed";

/// A container's end cannot even be left for later.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The daemon refuses.
    #[error("{}", .0.message())]
    Refused(Status),
    /// It does not answer, and the file cannot be written.
    #[error("vswitchd does not answer, and what is to be taken away cannot be left beside its socket: {0}")]
    Unwritten(#[from] io::Error),
}

/// Has the daemon take an endpoint away, now or, when it does not answer, later.
///
/// # Errors
/// Then the runtime has to try again.
pub async fn end(socket: &Path, key: &EndpointKey) -> Result<(), EndError> {
    let detached = match Daemon::connect(socket).await {
        Ok(mut daemon) => daemon.detach(key.clone()).await,
        Err(status) => Err(status),
    };
    match detached {
        Ok(()) => Ok(()),
        // One that takes too long goes on with it; to be sure it is asked again.
        Err(status)
            if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) =>
        {
            leave(socket, key)?;
            Ok(())
        }
        Err(status) => Err(EndError::Refused(status)),
    }
}

/// Leaves a key; the same again changes nothing.
///
/// # Errors
/// The file cannot be written: then the runtime has to try again.
fn leave(socket: &Path, key: &EndpointKey) -> io::Result<PathBuf> {
    let EndpointKey { network, container, interface } = key;
    let mut dir = socket.as_os_str().to_owned();
    dir.push(SUFFIX);
    let dir = PathBuf::from(dir);
    fs::create_dir_all(&dir)?;
    // The daemon knows keys by their content; names only have to differ.
    let name: String = [network, container, interface]
        .iter()
        .map(|part| part.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(70).collect())
        .collect::<Vec<String>>()
        .join("-");
    let text = json!({ "network": network, "container": container, "interface": interface }).to_string();
    let new = dir.join(format!("{name}.{}.new", std::process::id()));
    let path = dir.join(format!("{name}.json"));
    fs::write(&new, text)?;
    fs::rename(&new, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_left_whole_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("x.sock");
        let key = EndpointKey { network: "n/../x".into(), container: "0a".into(), interface: "eth0".into() };
        let path = leave(&socket, &key).unwrap();
        assert_eq!(path, leave(&socket, &key).unwrap());
        let departed = dir.path().join("x.sock.departed");
        assert_eq!(path.parent().unwrap(), departed);
        assert_eq!(fs::read_dir(departed).unwrap().count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(value["container"], "0a");
    }
}
