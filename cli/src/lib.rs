//! The subcommands of `tdx`, one module each.
#![forbid(unsafe_code)]

pub mod error;
pub mod host;
pub mod input;
pub mod output;
pub mod run;
pub mod tdvf;
pub mod trace;

use clap::Parser;
use clap::Subcommand;

use error::Error;
use output::Output;

/// Build, run, measure and check Intel TDX guests on an emulated TDX module.
///
/// Without a subcommand: `tdx run`.
#[derive(Debug, Parser)]
#[command(name = "tdx", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {}

/// Carries out one command line.
pub fn execute(arguments: &Arguments, _output: &mut Output) -> Result<(), Error> {
    match &arguments.command {
        Some(command) => match *command {},
        None => Ok(()),
    }
}
