//! The operator's command line of Ferroflow.
//!
//! It talks to two daemons and holds no state of its own: the controller, for the
//! logical network (`net/`, `file/`), and one host's switch, for its ports, tables,
//! drops and traces (`host/`). A command is one file: its clap arguments, the struct
//! that is printed as JSON or YAML, how that is shown as text, and `run`.
//!
//! Read in this order: [`cli`] (the list of commands), [`session`] (what every
//! command is given), then any noun, `net/switch_port.rs` for one. What commands share:
//!
//! - [`bridge_word`]: a bridge that is named as `ovs-ofctl` does, by the first word
//! - [`name`]: the words for the objects, and how a name that was typed becomes a resource name
//! - [`client`]: the controller's API, with paging, deadlines and errors done
//! - `net/object.rs`: add, set, list, show and delete, the same for each object
//! - `file/`: the YAML of `apply` and `export`
//! - [`pki`]: certificates, which no daemon has a part in
//! - [`output`]: tables, JSON and YAML
//!
//! An error says in one line what happened and in a second what to do next; see
//! [`CtlError`].

#![forbid(unsafe_code)]

pub mod address;
pub mod bridge_word;
pub mod cli;
pub mod client;
pub mod completion;
pub mod error;
pub mod file;
pub mod host;
pub mod name;
pub mod net;
pub mod output;
pub mod pki;
pub mod session;
pub mod spelling;

use std::io::Write;

pub use cli::Cli;
pub use error::CtlError;
pub use session::Session;

/// Runs the command of `cli` and prints its answer to `out`.
///
/// # Errors
/// Whatever kept the command from being done; the answer may be printed in part.
pub async fn run(cli: Cli, out: &mut dyn Write) -> Result<(), CtlError> {
    let Cli { global, command } = cli;
    if global.wait.is_some() && !command.takes_wait() {
        let what =
            "--wait is for commands that change the logical network, and for ports with --logical-port";
        return Err(CtlError::Usage(what.into()));
    }
    command.run(&mut Session::new(global, out)).await
}
