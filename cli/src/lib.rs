//! The subcommands of `tdx`, one module each.
#![forbid(unsafe_code)]
#![expect(
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    reason = "a program of an operating system; the crates below take care"
)]

pub mod cost;
pub mod decode;
pub mod error;
pub mod explain;
#[doc(hidden)]
pub mod fuzz;
pub mod host;
pub mod input;
pub mod list;
pub mod measure;
pub mod migrate;
pub mod output;
pub mod progress;
mod reference;
pub mod replay;
pub mod run;
pub mod shell;
pub mod spec;
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
enum Command {
    Cost(cost::Args),
    Decode(decode::Options),
    Explain(explain::Options),
    List(list::Options),
    Replay(replay::Args),
    Measure(measure::Args),
    Migrate(migrate::Args),
    Spec(spec::Options),
    Run(run::Args),
    Completions(shell::Completions),
    Man(shell::Manual),
}

/// Carries out one command line.
pub fn execute(arguments: &Arguments, output: &mut Output) -> Result<(), Error> {
    match &arguments.command {
        Some(Command::Cost(args)) => cost::run(args, output),
        Some(Command::Decode(options)) => decode::decode(options, output),
        Some(Command::Explain(options)) => explain::explain(options, output),
        Some(Command::List(options)) => list::list(options, output),
        Some(Command::Replay(arguments)) => replay::run(arguments, output),
        Some(Command::Measure(args)) => measure::run(args, output),
        Some(Command::Migrate(args)) => migrate::run(args, output),
        Some(Command::Spec(options)) => spec::spec(options, output),
        Some(Command::Run(args)) => run::run(args, output),
        Some(Command::Completions(options)) => shell::completions(options, output),
        Some(Command::Man(_)) => shell::manual(output),
        None => run::run(&run::Args::default(), output),
    }
}
