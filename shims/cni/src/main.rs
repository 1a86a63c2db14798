//! The plugin's process: what the runtime gives, and one line of JSON back.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use vswitch_cni::{Answer, CniError, run};

/// Largest configuration that is read.
const MAX_CONFIG_LEN: u64 = 1 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let (answer, version) = match read() {
        Ok(config) => run(env::vars_os(), &config).await,
        Err(error) => {
            (Err(CniError::io("the configuration cannot be read from stdin", &error)), String::new())
        }
    };
    let (text, code) = match answer {
        Ok(Answer::Nothing) => return ExitCode::SUCCESS,
        Ok(Answer::Json(text)) => (text, ExitCode::SUCCESS),
        Err(error) => (error.to_json(&version), ExitCode::FAILURE),
    };
    // A runtime that has gone away reads nothing, and needs no answer.
    let _ = writeln!(io::stdout(), "{text}");
    code
}

fn read() -> io::Result<Vec<u8>> {
    let mut config = Vec::new();
    io::stdin().take(MAX_CONFIG_LEN + 1).read_to_end(&mut config)?;
    if config.len() as u64 > MAX_CONFIG_LEN {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(config)
}
