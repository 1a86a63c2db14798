//! `vswitchctl`: parses the command line, runs the command, and turns its end into
//! an exit code. Everything else is in the library.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use vswitchctl::{CtlError, bridge_word, run};

fn main() -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let args = std::env::args_os().collect();
            // Help and version are answers, too.
            let cli = bridge_word::parse(args).await.unwrap_or_else(|error| error.exit());
            run(cli, &mut out).await
        }),
        Err(error) => Err(CtlError::Output(error)),
    };
    match result.and(out.flush().map_err(CtlError::Output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What was printed before the error comes before it on a terminal, too.
            let _ = out.flush();
            error.report(&mut io::stderr())
        }
    }
}
