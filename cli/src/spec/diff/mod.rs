//! `tdx spec diff`: what changed of the ABI, how much it matters, and what to tell about it.

mod change;
mod compare;
mod layout;
mod leaf;
mod origin;
mod show;
mod table;

pub(super) use change::Change;
pub(super) use change::Level;
pub(super) use compare::specifications;
pub(super) use origin::facts;
pub(super) use show::print;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tdx_codegen::source::Sources;

use super::facts::View;
use crate::error::Error;
use crate::input::InputError;
use crate::output::Output;
use crate::reference;

/// Say what changed of the ABI between two modules or two specifications, and what semantic versioning asks for.
///
/// A specification is a folder with YAML files, a lock file, or a revision of the git repository here. Of two
/// specifications every module that both have is compared, and what is bound to no module.
#[derive(Debug, Args)]
pub struct Options {
    /// A module (such as 1.5.01), folder, lock file or git revision.
    from: String,
    /// What it is compared with.
    to: String,
    /// Folder with the specification whose modules are compared; without it, the one the command was built with.
    #[arg(long)]
    spec: Option<PathBuf>,
    /// Folder in the git repository whose revisions are compared.
    #[arg(long, default_value = ".")]
    repository: PathBuf,
    /// Only what holds for this module.
    #[arg(long)]
    module: Option<String>,
    /// Print text for a changelog in Markdown.
    #[arg(long, conflicts_with = "json")]
    changelog: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Carries out `tdx spec diff`.
pub fn diff(options: &Options, output: &mut Output) -> Result<(), Error> {
    let mut changes = changes(options)?;
    if let Some(module) = &options.module {
        changes.retain(|change| change.modules.contains(module));
    }
    let level = changes.iter().map(|change| change.level).max();
    if options.json {
        return Ok(output.json(&json!({
            "from": options.from,
            "to": options.to,
            "verdict": level,
            "changes": changes,
        }))?);
    }
    if options.changelog {
        return show::changelog(&changes, output);
    }
    print(&changes, output)?;
    verdict(level, &changes, output)
}

/// One line with what semantic versioning asks for.
pub(super) fn verdict(
    level: Option<Level>,
    changes: &[Change],
    output: &mut Output,
) -> Result<(), Error> {
    let count = |wanted| {
        let of = changes.iter().filter(|change| change.level == wanted);
        of.count()
    };
    let (major, minor, patch) = (
        count(Level::Major),
        count(Level::Minor),
        count(Level::Patch),
    );
    match level {
        None => writeln!(output, "the ABI is the same")?,
        Some(level) => writeln!(
            output,
            "\nverdict: {} ({major} major, {minor} minor, {patch} patch)",
            level.word()
        )?,
    }
    Ok(())
}

fn changes(options: &Options) -> Result<Vec<Change>, Error> {
    let spec = match &options.spec {
        None => reference::spec()?.clone(),
        Some(directory) => {
            let sources = Sources::read(directory).map_err(|source| InputError::Read {
                path: directory.display().to_string(),
                source,
            })?;
            tdx_codegen::from_sources(sources)
                .map_err(|mistakes| Error::Failed(mistakes.to_string()))?
                .spec
        }
    };
    let module = |name: &str| reference::module(&spec, name).ok();
    match (module(&options.from), module(&options.to)) {
        (Some(from), Some(to)) => {
            let facts = super::facts::Facts::of(&spec);
            let view = |index: usize| -> View { facts.view(Some(&spec.modules[index].name)) };
            Ok(compare::modules(&view(from), &view(to)))
        }
        (None, None) => {
            let from = origin::read(&options.from, &options.repository)?;
            let to = origin::read(&options.to, &options.repository)?;
            Ok(specifications(&from, &to))
        }
        (from, _) => {
            let (module, other) = if from.is_some() {
                (&options.from, &options.to)
            } else {
                (&options.to, &options.from)
            };
            let known: Vec<&str> = spec.modules.iter().map(|module| &*module.name).collect();
            Err(Error::Failed(format!(
                "{module} is a module and {other} is not (modules are {}); compare two modules or two specifications",
                known.join(", ")
            )))
        }
    }
}
