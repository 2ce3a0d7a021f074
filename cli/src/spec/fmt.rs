//! `tdx spec fmt`: the canonical form of the YAML.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tdx_codegen::source::Sources;

use super::generate::write::replace;
use crate::error::Error;
use crate::input::InputError;
use crate::output::Output;

/// Formats the files of a specification: spaces, quotes and empty lines, never what they say, their order or comments.
#[derive(Debug, Args)]
pub struct Options {
    /// Folder with the YAML files.
    #[arg(default_value = "spec")]
    directory: PathBuf,
    /// Change nothing; fail if a file is not formatted.
    #[arg(long)]
    check: bool,
}

/// Carries out `tdx spec fmt`.
pub fn fmt(options: &Options, output: &mut Output) -> Result<(), Error> {
    let sources = Sources::read(&options.directory).map_err(|source| InputError::Read {
        path: options.directory.display().to_string(),
        source,
    })?;
    let (mut files, mut changed, mut refused) = (0_usize, 0_usize, 0_usize);
    for (_, source) in sources.iter() {
        files += 1;
        match tdx_codegen::fmt::format(source.text()) {
            Ok(text) if text == source.text() => {}
            Ok(text) => {
                changed += 1;
                if !options.check {
                    replace(source.path(), &text)?;
                }
                let verb = if options.check {
                    "not formatted"
                } else {
                    "formatted"
                };
                writeln!(output, "{}: {verb}", source.name())?;
            }
            Err(error) => {
                refused += 1;
                writeln!(output, "{}: left as it is: {error}", source.name())?;
            }
        }
    }
    if files == 0 {
        return Err(Error::Failed(format!(
            "there is no YAML file of a specification in {}",
            options.directory.display()
        )));
    }
    if refused > 0 {
        return Err(Error::Failed(format!(
            "{refused} of {files} files cannot be formatted"
        )));
    }
    if options.check && changed > 0 {
        return Err(Error::Failed(format!(
            "{changed} of {files} files are not formatted"
        )));
    }
    Ok(writeln!(output, "{files} files, {changed} changed")?)
}
