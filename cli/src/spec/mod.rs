//! `tdx spec`: work on the specification itself.

pub mod crosscheck;

use clap::Args;
use clap::Subcommand;

use crate::error::Error;
use crate::output::Output;

/// Work on the specification: compare it with other projects.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Crosscheck(crosscheck::Options),
}

/// Carries out `tdx spec`.
pub fn spec(options: &Options, output: &mut Output) -> Result<(), Error> {
    match &options.command {
        Command::Crosscheck(options) => crosscheck::crosscheck(options, output),
    }
}
