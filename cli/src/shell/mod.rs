//! `tdx completions` and `tdx man`: what a package of the command installs beside it.

use std::io::Write;

use clap::Args;
use clap::Command;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::Arguments;
use crate::error::Error;
use crate::output::Output;

/// Prints the completions for a shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the manual page, in roff.
#[derive(Debug, Args)]
pub struct Manual {}

/// Carries out `tdx completions`.
pub fn completions(options: &Completions, output: &mut Output) -> Result<(), Error> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "tdx", &mut text);
    Ok(output.write_all(&text)?)
}

/// Carries out `tdx man`: the command's page, followed by a page for each subcommand.
pub fn manual(output: &mut Output) -> Result<(), Error> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    pages(command, output)
}

fn pages(command: Command, output: &mut Output) -> Result<(), Error> {
    let below: Vec<Command> = command.get_subcommands().cloned().collect();
    clap_mangen::Man::new(command).render(output)?;
    below
        .into_iter()
        .try_for_each(|command| pages(command, output))
}
