//! `tdx spec check`: the checks of the code generator, for people who edit the files.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tdx_codegen::diagnostic::Diagnostics;
use tdx_codegen::source::Sources;

use crate::error::Error;
use crate::input::InputError;
use crate::output::Output;

/// Checks a specification and reports every mistake with its place and what to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Folder with the YAML files; without it, the specification that the command was built with.
    directory: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Carries out `tdx spec check`.
pub fn check(options: &Options, output: &mut Output) -> Result<(), Error> {
    let sources = match &options.directory {
        None => Sources::embedded(),
        Some(directory) => Sources::read(directory).map_err(|source| InputError::Read {
            path: directory.display().to_string(),
            source,
        })?,
    };
    let files = sources.iter().count();
    if files == 0 {
        return Err(Error::Failed(
            "there is no YAML file of a specification here".to_owned(),
        ));
    }
    let mistakes = tdx_codegen::from_sources(sources).err();
    let list = mistakes.as_ref().map_or(&[][..], Diagnostics::list);
    if options.json {
        let mistakes: Vec<_> = mistakes
            .iter()
            .flat_map(|mistakes| {
                mistakes.list().iter().map(|mistake| {
                    let sources = mistakes.sources();
                    let position = mistake.position.or_else(|| sources.position(mistake.place));
                    json!({
                        "code": mistake.code.as_str(),
                        "message": mistake.message,
                        "file": sources.get(mistake.place.file).map(|file| file.name()),
                        "line": position.map(|position| position.line),
                        "column": position.map(|position| position.column),
                        "help": mistake.help,
                    })
                })
            })
            .collect();
        output.json(&json!({ "files": files, "mistakes": mistakes }))?;
    } else {
        for text in mistakes.iter().flat_map(Diagnostics::rendered) {
            writeln!(output, "{text}\n")?;
        }
    }
    match list.len() {
        0 if options.json => Ok(()),
        0 => Ok(writeln!(output, "{files} files, no mistake")?),
        1 => Err(Error::Failed(format!("1 mistake in {files} files"))),
        count => Err(Error::Failed(format!("{count} mistakes in {files} files"))),
    }
}
