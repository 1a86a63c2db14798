//! The command line.

use std::{ffi::OsString, path::PathBuf};

/// Shown for `--help`, and behind what is wrong.
pub const USAGE: &str = "\
Starts vswitchd, starts it again when it dies, and holds what must outlive it.

Usage: vswitch-holder [--socket PATH] -- COMMAND [ARGUMENT]...

      --socket PATH  where the daemon finds the holder [default: /run/ferroflow/holder.sock]
  -h, --help         this text

COMMAND is the daemon with its options; one of them is `--holder PATH`, with the same path.
Signals: HUP upgrades to what COMMAND is now, without a pause; TERM ends both.
";

const SOCKET: &str = "/run/ferroflow/holder.sock";

/// What the holder was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where it listens.
    pub socket: PathBuf,
    /// The daemon: a program and its arguments.
    pub command: Vec<OsString>,
}

impl Options {
    /// Reads them. `None`: help is asked for.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut words = words.into_iter();
        let mut socket = PathBuf::from(SOCKET);
        while let Some(word) = words.next() {
            match word.to_str() {
                Some("-h" | "--help") => return Ok(None),
                Some("--socket") => socket = words.next().ok_or("--socket needs a path")?.into(),
                Some("--") => break,
                _ => return Err(format!("{} is no option; COMMAND comes behind --", word.display())),
            }
        }
        let command: Vec<_> = words.collect();
        if command.is_empty() {
            return Err("the daemon's command is missing".to_owned());
        }
        Ok(Some(Self { socket, command }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Option<Options>, String> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn the_command_is_behind_two_dashes() {
        let options = parse(&["--socket", "/x", "--", "vswitchd", "--help"]).unwrap().unwrap();
        assert_eq!(
            options,
            Options { socket: "/x".into(), command: vec!["vswitchd".into(), "--help".into()] }
        );
        assert_eq!(parse(&["--", "d"]).unwrap().unwrap().socket, PathBuf::from(SOCKET));
        assert_eq!(parse(&["--help"]), Ok(None));
        for wrong in [&[][..], &["--"], &["vswitchd"], &["--socket"], &["--what", "--", "d"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
