//! `tdx spec import`: brings tables of the specification up to date with Intel's.

mod cpuid;
mod merge;
mod read;
mod record;
mod row;
mod states;

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tdx_codegen::source::Sources;

use self::merge::Change;
use self::merge::merge;
use self::row::File;
use crate::error::Error;
use crate::input;
use crate::output::Output;

/// Bytes of the largest file that is read.
const LIMIT: u64 = 64 << 20;

/// Bring status codes, operand ids, metadata fields, MSR and CPUID virtualization, states with their flags and the states of
/// leaves up to date with a module's tables.
///
/// Reads the JSON tables that Intel publishes (as of 2022 and of 2025), the sources that Intel's tools generate for the module
/// (tdx_error_codes_defs.h, *_fields_lookup.c, op_state_lookup.c, sept_state_lookup.c, msr_config_lookup.c,
/// cpuid_configurations.c), and rows of these as JSON. Names, documentation and everything else that a source does not say stay
/// as they are; rows of other modules too. Without --write nothing is written, and the command fails if there is anything to change.
#[derive(Debug, Args)]
pub struct Options {
    /// What to import.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The module that the tables are of, such as 1.5.01.
    #[arg(long)]
    module: String,
    /// Directory of the specification; without it, the one that the command was built with.
    #[arg(long, value_name = "DIR")]
    spec: Option<PathBuf>,
    /// Change the files in the directory.
    #[arg(long, requires = "spec")]
    write: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What an import found.
#[derive(Serialize)]
struct Report {
    module: String,
    /// Rows that were compared.
    rows: usize,
    /// Rows of a kind that is not imported.
    left_out: usize,
    changes: Vec<Change>,
}

/// Whether `text` can be imported as a file called `name`.
pub(crate) fn parse(name: &str, text: &str) -> bool {
    match cpuid::read(text) {
        Some(tables) => tables.is_ok(),
        None => read::read(name, text).is_ok(),
    }
}

/// Carries out `tdx spec import`.
pub fn import(options: &Options, output: &mut Output) -> Result<(), Error> {
    let is_version = |c: char| c.is_ascii_digit() || c == '.';
    if options.module.is_empty() || !options.module.chars().all(is_version) {
        return Err(Error::Failed(format!(
            "{} is no version of a module",
            options.module
        )));
    }
    let sources = match &options.spec {
        Some(directory) => Sources::read(directory)
            .map_err(|error| Error::Failed(format!("{}: {error}", directory.display())))?,
        None => Sources::embedded(),
    };
    let mut report = Report {
        module: options.module.clone(),
        rows: 0,
        left_out: 0,
        changes: Vec::new(),
    };
    let mut changed: HashMap<String, String> = HashMap::new();
    for path in &options.files {
        let text = input::read(path, LIMIT)?;
        let text = String::from_utf8_lossy(&text);
        let shown = path.display();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(tables) = cpuid::read(&text) {
            let tables = tables.map_err(|error| Error::Failed(format!("{shown}: {error}")))?;
            report.rows += tables.len();
            let (files, changes) = cpuid::merge(&sources, &changed, &options.module, &tables);
            changed.extend(files);
            report.changes.extend(changes);
            continue;
        }
        let contents = read::read(name.trim_end_matches(".gz"), &text)
            .map_err(|error| Error::Failed(format!("{shown}: {}", causes(&error))))?;
        report.left_out += contents.left_out;
        for imported in contents.tables {
            report.rows += imported.records.len();
            let (file, key) = imported.table.file();
            let source = sources.iter().find(|(_, source)| source.name() == file);
            let text = match (changed.get(file), source) {
                (Some(text), _) => text.as_str(),
                (None, Some((_, source))) => source.text(),
                (None, None) => {
                    return Err(Error::Failed(format!("the specification has no {file}")));
                }
            };
            let mut table = File::parse(text, key)
                .map_err(|mistake| Error::Failed(format!("{file}: {mistake}")))?;
            let changes = merge(&mut table, &options.module, &imported);
            if table.text() != text {
                changed.insert(file.to_owned(), table.text());
            }
            report.changes.extend(changes);
        }
        for allowed in &contents.allowed {
            report.rows += allowed.rows.len();
            let (files, changes) = states::merge(&sources, &changed, &options.module, allowed)
                .map_err(Error::Failed)?;
            changed.extend(files);
            report.changes.extend(changes);
        }
    }
    if options.json {
        output.json(&report)?;
    } else {
        print(&report, output)?;
    }
    let mut left: Vec<&Change> = report.changes.iter().collect();
    left.retain(|change| !change.is_harmless());
    if let Some(directory) = &options.spec
        && options.write
    {
        for (file, text) in changed {
            fs::write(directory.join(file), text)?;
        }
        left.retain(|change| change.is_left());
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "{} changes to the specification to be made",
        left.len()
    )))
}

/// An error and its causes.
fn causes(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn print(report: &Report, output: &mut Output) -> Result<(), Error> {
    let mut file = "";
    for change in &report.changes {
        if change.file != file {
            file = &change.file;
            output.heading(file)?;
        }
        writeln!(output, "  {change}")?;
    }
    writeln!(
        output,
        "{} rows of module {}, {} changes",
        report.rows,
        report.module,
        report.changes.len()
    )?;
    if report.left_out > 0 {
        writeln!(
            output,
            "{} rows left out: the fields of the VMCS of another L2 VM",
            report.left_out
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
