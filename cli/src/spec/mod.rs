//! `tdx spec`: work on the specification itself.

pub mod check;
mod constant;
pub mod crosscheck;
pub mod diff;
mod facts;
pub mod fmt;
pub mod generate;
pub mod import;
pub mod lock;
pub mod schema;
mod token;

use clap::Args;
use clap::Subcommand;

use crate::error::Error;
use crate::output::Output;

/// Work on the specification: check it, compare it with other projects, bring it up to date.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Options),
    Crosscheck(crosscheck::Options),
    Diff(diff::Options),
    Fmt(fmt::Options),
    Generate(generate::Options),
    Import(import::Options),
    Lock(lock::Options),
    Schema(schema::Options),
}

/// Carries out `tdx spec`.
pub fn spec(options: &Options, output: &mut Output) -> Result<(), Error> {
    match &options.command {
        Command::Check(options) => check::check(options, output),
        Command::Crosscheck(options) => crosscheck::crosscheck(options, output),
        Command::Diff(options) => diff::diff(options, output),
        Command::Fmt(options) => fmt::fmt(options, output),
        Command::Generate(options) => generate::generate(options, output),
        Command::Import(options) => import::import(options, output),
        Command::Lock(options) => lock::lock(options, output),
        Command::Schema(options) => schema::schema(options, output),
    }
}

/// Number of constants that a C header or Rust source defines.
pub(crate) fn parse_constants(text: &str) -> usize {
    constant::constants(text).len()
}
