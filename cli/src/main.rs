//! The `tdx` command.

use std::process::ExitCode;

use clap::Parser;
use tdx_cli::Arguments;
use tdx_cli::output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match tdx_cli::execute(&arguments, &mut Output::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has seen enough.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("tdx: {}", error.one_line());
            ExitCode::FAILURE
        }
    }
}
