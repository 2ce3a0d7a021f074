//! `tdx spec lock`: the ABI as facts in a file, so that it cannot change unseen.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tdx_codegen::source::Sources;

use super::diff;
use super::facts::Facts;
use crate::error::Error;
use crate::input;
use crate::input::InputError;
use crate::output::Output;

/// Name of the lock file beside the YAML files.
const NAME: &str = "abi.lock";
/// Bytes of the largest lock file that is read.
const LIMIT: u64 = 64 << 20;

/// Write the lock file of the ABI, or compare with it.
///
/// The file holds every fact of the specification on a line of its own and is no source of anything: it makes
/// changes visible. With --check a difference fails, and is shown with what semantic versioning asks for.
#[derive(Debug, Args)]
pub struct Options {
    /// Folder with the YAML files.
    #[arg(default_value = "spec")]
    directory: PathBuf,
    /// Compare, and write nothing.
    #[arg(long)]
    check: bool,
}

/// Carries out `tdx spec lock`.
pub fn lock(options: &Options, output: &mut Output) -> Result<(), Error> {
    let shown = options.directory.display().to_string();
    let sources = Sources::read(&options.directory).map_err(|source| InputError::Read {
        path: shown.clone(),
        source,
    })?;
    let now = diff::facts(&shown, sources)?;
    let path = options.directory.join(NAME);
    let text = now.to_string();
    if !options.check {
        fs::write(&path, &text)?;
        return Ok(writeln!(
            output,
            "{}: {} facts",
            path.display(),
            now.count()
        )?);
    }
    let locked = input::read(&path, LIMIT)?;
    let locked = String::from_utf8_lossy(&locked);
    if locked == text {
        return Ok(writeln!(
            output,
            "{}: {} facts, none changed",
            path.display(),
            now.count()
        )?);
    }
    let before = Facts::parse(&locked)
        .map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    let changes = diff::specifications(&before, &now);
    diff::print(&changes, output)?;
    let level = changes.iter().map(|change| change.level).max();
    diff::verdict(level, &changes, output)?;
    let what = match level {
        None => "is not as `tdx spec lock` writes it".to_owned(),
        Some(level) => format!(
            "is of another ABI ({} changes, verdict {})",
            changes.len(),
            level.word()
        ),
    };
    Err(Error::Failed(format!(
        "{} {what}; if that is meant, write it anew with `tdx spec lock`",
        path.display()
    )))
}
