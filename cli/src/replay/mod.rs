//! `tdx replay`: recorded calls of Intel's module code against the emulated module.

mod format;
mod machine;
mod newer;
mod report;

use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;
use crate::output::Output;
pub use format::FormatError;
use format::Recording;
use format::Step;
pub use machine::Difference;
use machine::Machine;
pub use machine::Mismatch;
use tdx_abi::module::Module;

/// Replays recorded calls of the TDX module against the emulated one, register by register.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recordings (JSON lines, plain or gzip).
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Start states that recordings refer to [default: setups.jsonl or setups.jsonl.gz beside the file].
    #[arg(long, value_name = "FILE")]
    pub setups: Option<PathBuf>,
    /// Print the counts as JSON.
    #[arg(long)]
    pub json: bool,
    /// How many mismatches to show in full.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub show: usize,
}

/// What replaying came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Sequences replayed.
    pub sequences: u64,
    /// Calls, TDCALLs and exits among their steps.
    pub calls: u64,
    /// Calls that left every register as recorded.
    pub matched: u64,
    /// Calls that did not.
    pub mismatched: u64,
    /// Checks of memory, lock words and entries.
    pub checks: u64,
    /// Checks that did not hold.
    pub checks_failed: u64,
    /// Mismatched calls and failed checks, the first ones only.
    #[serde(skip)]
    pub mismatches: Vec<Mismatch>,
}

impl Outcome {
    /// Whether everything was as recorded.
    pub const fn is_clean(&self) -> bool {
        self.mismatched == 0 && self.checks_failed == 0
    }

    fn add(&mut self, other: Self, keep: usize) {
        self.sequences += other.sequences;
        self.calls += other.calls;
        self.matched += other.matched;
        self.mismatched += other.mismatched;
        self.checks += other.checks;
        self.checks_failed += other.checks_failed;
        let room = keep.saturating_sub(self.mismatches.len());
        self.mismatches
            .extend(other.mismatches.into_iter().take(room));
    }
}

/// Replays all files and reports.
pub fn run(args: &Args, output: &mut Output) -> Result<(), Error> {
    let mut total = Outcome::default();
    let mut files = Vec::new();
    for file in &args.files {
        let outcome = replay(file, args.setups.as_deref(), args.show)?;
        files.push((file.display().to_string(), outcome.clone()));
        total.add(outcome, args.show);
    }
    if args.json {
        output.json(&total)?;
    } else {
        report::print(output, &files, &total)?;
    }
    if total.is_clean() {
        Ok(())
    } else {
        Err(Error::Failed(format!(
            "{} of {} calls and {} of {} checks differ from the recording",
            total.mismatched, total.calls, total.checks_failed, total.checks
        )))
    }
}

/// Replays one file, keeping at most `keep` mismatches.
pub fn replay(file: &Path, setups: Option<&Path>, keep: usize) -> Result<Outcome, Error> {
    replay_on(Module::V1_5_01, file, setups, keep)
}

/// The same on another module than the one that was recorded. A TD gets as many TDCX pages more as it needs there.
pub fn replay_on(
    module: Module,
    file: &Path,
    setups: Option<&Path>,
    keep: usize,
) -> Result<Outcome, Error> {
    let recording = read(file)?;
    let setups = match setups {
        Some(path) => Some(read(path)?),
        None if recording.needs_setups() => beside(file).map(|path| read(&path)).transpose()?,
        None => None,
    };
    let setups: HashMap<&str, &[Step]> = setups
        .iter()
        .flat_map(|recording| &recording.sequences)
        .chain(&recording.sequences)
        .filter(|sequence| sequence.is_setup)
        .map(|sequence| (sequence.name.as_str(), sequence.steps.as_slice()))
        .collect();
    let mut outcome = Outcome::default();
    for sequence in &recording.sequences {
        let mut machine =
            Machine::new(module, &recording, sequence).map_err(|source| Error::Recording {
                path: file.display().to_string(),
                source,
            })?;
        if let Some(base) = &sequence.base {
            let steps = setups.get(base.as_str()).ok_or_else(|| Error::Recording {
                path: file.display().to_string(),
                source: FormatError::unknown_setup(sequence.line, base),
            })?;
            machine.prepare(steps);
        }
        outcome.add(machine.replay(sequence, keep), keep);
    }
    Ok(outcome)
}

/// Whether `bytes` are a recording.
pub(crate) fn parse(bytes: &[u8]) -> bool {
    Recording::read(bytes).is_ok()
}

fn read(path: &Path) -> Result<Recording, Error> {
    Recording::read(crate::input::open(path)?).map_err(|source| Error::Recording {
        path: path.display().to_string(),
        source,
    })
}

/// The setups that lie beside a recording.
fn beside(file: &Path) -> Option<PathBuf> {
    ["setups.jsonl", "setups.jsonl.gz"]
        .into_iter()
        .map(|name| file.with_file_name(name))
        .find(|path| path.exists())
}
