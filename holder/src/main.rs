//! `vswitch-holder`: parses its options, and holds until told to stop.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use vswitch_holder::{Options, Supervisor, USAGE};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("vswitch-holder: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // All that follows, the daemon too, has no more than this.
    if let Err(error) = confinement::confine(confinement::Role::Holder) {
        eprintln!("vswitch-holder: {error}");
        return ExitCode::FAILURE;
    }
    match Supervisor::new(options).and_then(Supervisor::run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("vswitch-holder: {error}");
            ExitCode::FAILURE
        }
    }
}
