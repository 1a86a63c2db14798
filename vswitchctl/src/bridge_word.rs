//! A bridge that is named by the first word behind a command, as `ovs-ofctl` has it:
//! `flow add br0 'ip,actions=drop'` is `--bridge br0 flow add 'ip,actions=drop'`.
//!
//! A word that could be either, a bridge or what the command is about (`flow dump ip`), is a
//! bridge when the host has one of that name.

use std::{ffi::OsString, io};

use clap::{ArgAction, Command, CommandFactory as _, Parser as _};

use crate::{Cli, Session, host::bridge};

/// Commands whose first word may be a bridge; a `*` stands for all below.
const TAKE_BRIDGE: [&str; 17] = [
    "bundle",
    "drops",
    "fdb *",
    "flow *",
    "frags",
    "group *",
    "lab inject",
    "lab output",
    "lab port add",
    "megaflow *",
    "meter *",
    "monitor",
    "packet-out",
    "port add",
    "port list",
    "set *",
    "table *",
];
/// Longest name of a bridge.
const MAX_NAME_LEN: usize = 15;

/// Reads the command line; asks the host where a word could be a bridge or not.
///
/// # Errors
/// What is wrong with it, in clap's words.
pub async fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let as_written = Cli::try_parse_from(&args);
    let Some(idx) = first_word(&args) else { return as_written };
    let name = args[idx].to_string_lossy().into_owned();
    let mut moved = args;
    moved.remove(idx);
    let with_bridge = [OsString::from("--bridge"), OsString::from(&name)];
    moved.splice(1..1, with_bridge);
    match (as_written, Cli::try_parse_from(&moved)) {
        (as_written, Err(_)) => as_written,
        (Err(_), Ok(named)) => Ok(named),
        (Ok(as_written), Ok(named)) => {
            let is_bridge = has_bridge(&as_written, &name).await;
            Ok(if is_bridge { named } else { as_written })
        }
    }
}

/// The host has a bridge of this name. What keeps it from answering will keep it from
/// answering the command as well, which says so.
async fn has_bridge(cli: &Cli, name: &str) -> bool {
    let mut nowhere = io::sink();
    let session = Session::new(cli.global.clone(), &mut nowhere);
    bridge::list(&session).await.is_ok_and(|bridges| bridges.iter().any(|bridge| bridge.name == name))
}

/// Where the first word behind the command is, if it can be the name of a bridge and the
/// command takes one.
fn first_word(args: &[OsString]) -> Option<usize> {
    let mut command = Cli::command();
    command.build();
    let (mut command, mut path) = (&command, String::new());
    let mut idx = 1;
    while let Some(text) = args.get(idx)?.to_str().filter(|text| *text != "--") {
        if text.len() > 1 && text.starts_with('-') {
            idx += 1 + usize::from(takes_next(command, text));
        } else if let Some(next) = command.find_subcommand(text) {
            path += if path.is_empty() { "" } else { " " };
            path += next.get_name();
            command = next;
            idx += 1;
        } else {
            let may = is_name(text) && takes_bridge(&path) && !command.has_subcommands();
            return may.then_some(idx);
        }
    }
    None
}

/// The option's value is the next word.
fn takes_next(command: &Command, text: &str) -> bool {
    let is_meant = |arg: &&clap::Arg| match text.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => text.len() == 2 && arg.get_short() == text.chars().nth(1),
    };
    let Some(arg) = command.get_arguments().find(is_meant) else { return false };
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    takes && !arg.is_require_equals_set()
}

fn takes_bridge(path: &str) -> bool {
    path == "trace"
        || TAKE_BRIDGE.iter().any(|known| match known.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == *known,
        })
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_LEN
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        ["vswitchctl"].into_iter().chain(line.split(' ')).map(OsString::from).collect()
    }

    fn found(line: &str) -> Option<String> {
        let args = words(line);
        first_word(&args).map(|idx| args[idx].to_string_lossy().into_owned())
    }

    #[test]
    fn the_first_word_behind_a_command_is_found() {
        for (line, word) in [
            ("flow add br0 ip,actions=drop", Some("br0")),
            ("--host unix:///x -o json flow dump --strict br0 table=0", Some("br0")),
            ("flow dump ip", Some("ip")),
            ("flow dump table=3", None),
            ("flow dump", None),
            ("trace --in-port web br0 icmp", Some("br0")),
            ("trace --in-port web icmp,nw_ttl=3", None),
            ("lab port add br1 web", Some("br1")),
            ("lab clock stop", None),
            ("port del web", None),
            ("port mod web", None),
            ("switch add web", None),
            ("--wait flow dump br0", Some("br0")),
            ("--wait=5 flow dump br0", Some("br0")),
            ("group del 5", None),
            ("bundle @file", None),
            ("frags br-int", Some("br-int")),
        ] {
            assert_eq!(found(line).as_deref(), word, "{line}");
        }
    }

    #[tokio::test]
    async fn what_can_only_be_a_bridge_is_one_and_nobody_is_asked() {
        for (line, bridge) in [
            ("--host unix:///no/such trace br1 icmp", Some("br1")),
            ("--host unix:///no/such port add br1 eth1 --number 3", Some("br1")),
            ("--host unix:///no/such packet-out br1 1 output:2 00", Some("br1")),
            ("--host unix:///no/such table set br1 3 --miss drop", Some("br1")),
            ("--host unix:///no/such fdb dump br1", Some("br1")),
            ("--host unix:///no/such port add eth1", None),
            ("--host unix:///no/such --bridge br2 trace icmp", Some("br2")),
            // It could be either, and there is no host.
            ("--host unix:///no/such flow dump ip", None),
        ] {
            let cli = parse(words(line)).await.unwrap();
            assert_eq!(cli.global.bridge.as_deref(), bridge, "{line}");
        }
        assert!(parse(words("trace br1 icmp more")).await.is_err());
    }
}
