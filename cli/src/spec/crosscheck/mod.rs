//! `tdx spec crosscheck`: the numbers of other projects against ours.

mod compare;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use self::compare::Difference;
use self::compare::Finding;
use self::compare::Ours;
use self::compare::Outcome;
use self::compare::number;
use crate::error::Error;
use crate::input;
use crate::input::InputError;
use crate::output::BAD;
use crate::output::FAINT;
use crate::output::Output;
use crate::reference;
use crate::spec::constant::constants;

/// Bytes of the largest source file that is read.
const LIMIT: u64 = 64 << 20;

/// Compare the numbers in C headers and Rust sources of other projects with the specification.
///
/// Statuses, operand ids, leaves, TDVMCALL sub-functions, metadata field ids and TDX_FEATURES0 bits
/// are recognised by name (macros, enums, constants). Fails if a number differs, or neither it nor its
/// name is known here. Only shown are other names, contested numbers, and field ids that differ in bit
/// 63 or in size and context.
#[derive(Debug, Args)]
pub struct Options {
    /// C or Rust files, or folders of them.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was found in a file.
#[derive(Serialize)]
struct Report {
    file: String,
    /// Constants that are about the TDX ABI.
    compared: usize,
    findings: Vec<Finding>,
}

/// Carries out `tdx spec crosscheck`.
pub fn crosscheck(options: &Options, output: &mut Output) -> Result<(), Error> {
    let ours = Ours::new(reference::spec()?);
    let mut paths = Vec::new();
    for path in &options.files {
        collect(path, &mut paths)?;
    }
    let mut reports = Vec::new();
    for path in paths {
        let text = input::read(&path, LIMIT)?;
        let report = compare(&ours, &path, &String::from_utf8_lossy(&text));
        if report.compared > 0 || options.files.contains(&path) {
            reports.push(report);
        }
    }
    if options.json {
        output.json(&reports)?;
    } else {
        print(&reports, output)?;
    }
    let wrong = reports
        .iter()
        .flat_map(|report| &report.findings)
        .filter(|finding| is_wrong(finding.kind))
        .count();
    if wrong > 0 {
        return Err(Error::Failed(format!(
            "{wrong} numbers differ from the specification or are unknown to it"
        )));
    }
    if reports.iter().all(|report| report.compared == 0) {
        return Err(Error::Failed(
            "no number of the TDX ABI in what was given".to_owned(),
        ));
    }
    Ok(())
}

fn is_wrong(kind: Difference) -> bool {
    matches!(kind, Difference::Value | Difference::Unknown)
}

/// The file itself, or the C and Rust files below the folder.
fn collect(path: &Path, paths: &mut Vec<PathBuf>) -> Result<(), Error> {
    let error = |source| InputError::Read {
        path: path.display().to_string(),
        source,
    };
    if !path.is_dir() {
        paths.push(path.to_owned());
        return Ok(());
    }
    let entries: Result<Vec<_>, _> = fs::read_dir(path).map_err(error)?.collect();
    let mut below: Vec<PathBuf> = entries
        .map_err(error)?
        .into_iter()
        // A link may lead back to where we are.
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
        .map(|entry| entry.path())
        .collect();
    below.sort();
    for path in below {
        let is_source = path
            .extension()
            .is_some_and(|end| end == "h" || end == "c" || end == "rs");
        if path.is_dir() || is_source {
            collect(&path, paths)?;
        }
    }
    Ok(())
}

fn compare(ours: &Ours, path: &Path, text: &str) -> Report {
    let mut report = Report {
        file: path.display().to_string(),
        compared: 0,
        findings: Vec::new(),
    };
    for constant in constants(text) {
        match ours.compare(&constant) {
            Outcome::Unrelated => continue,
            Outcome::Agrees => {}
            Outcome::Differs(finding) => report.findings.push(finding),
        }
        report.compared += 1;
    }
    report
}

fn print(reports: &[Report], output: &mut Output) -> Result<(), Error> {
    for report in reports {
        output.heading(&report.file)?;
        let agree = report.compared - report.findings.len();
        writeln!(output, "  {} numbers, {agree} agree", report.compared)?;
        for finding in &report.findings {
            let (style, word) = match finding.kind {
                Difference::Value => (BAD, "differs"),
                Difference::Unknown => (BAD, "unknown"),
                Difference::Name => (FAINT, "name"),
                Difference::Contested => (FAINT, "contested"),
                Difference::Bit63 => (FAINT, "bit 63"),
                Difference::Form => (FAINT, "form"),
            };
            writeln!(
                output,
                "  {:>5}  {style}{word:<9}{style:#}  {} = {}: {}",
                finding.line,
                finding.name,
                number(finding.value),
                finding.ours
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
