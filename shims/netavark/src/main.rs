//! The plugin's process: what podman asks, and one line of JSON back.

#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use serde_json::json;
use vswitch_netavark::{refusal::Refusal, run};

/// Longest question that is read.
const MAX_QUESTION_LEN: u64 = 1 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let answer = match stdin(&words) {
        Ok(question) => run(&words, &question).await,
        Err(error) => Err(Refusal::new(format!("the question on stdin cannot be read: {error}"))),
    };
    let (answer, code) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(refusal) => (json!({ "error": refusal.to_string() }), ExitCode::FAILURE),
    };
    // A podman that has gone away reads nothing, and needs no answer.
    let _ = writeln!(io::stdout(), "{answer}");
    code
}

/// The question; a word that comes without one does not wait for it.
fn stdin(words: &[String]) -> io::Result<Vec<u8>> {
    let mut question = Vec::new();
    if words.first().is_some_and(|word| matches!(word.as_str(), "create" | "setup" | "teardown")) {
        io::stdin().take(MAX_QUESTION_LEN + 1).read_to_end(&mut question)?;
    }
    if question.len() as u64 > MAX_QUESTION_LEN {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(question)
}
