//! The report of a replay: counts, and mismatches side by side.

use std::io;
use std::io::Write;

use tdx_abi::status::Status;

use super::Mismatch;
use super::Outcome;
use super::format::REGISTERS;
use super::format::register;
use super::machine::Difference;
use crate::output::BAD;
use crate::output::FAINT;
use crate::output::Output;
use crate::output::grouped;

/// Prints what came out of each file, and the first mismatches.
pub(super) fn print(
    output: &mut Output,
    files: &[(String, Outcome)],
    total: &Outcome,
) -> io::Result<()> {
    let row = |name: &str, outcome: &Outcome| {
        vec![
            name.to_owned(),
            grouped(outcome.sequences),
            grouped(outcome.calls),
            grouped(outcome.matched),
            grouped(outcome.mismatched),
            grouped(outcome.checks),
            grouped(outcome.checks_failed),
        ]
    };
    let mut rows: Vec<_> = files
        .iter()
        .map(|(name, outcome)| row(name, outcome))
        .collect();
    if files.len() > 1 {
        rows.push(row("all", total));
    }
    let header = [
        "file",
        "sequences",
        "calls",
        "matched",
        "mismatched",
        "checks",
        "failed",
    ];
    output.table(&header, rows, &[1, 2, 3, 4, 5, 6])?;
    for mismatch in &total.mismatches {
        show(output, mismatch)?;
    }
    output.verdict("every call and check as recorded", total.is_clean())
}

fn show(output: &mut Output, mismatch: &Mismatch) -> io::Result<()> {
    let Mismatch {
        sequence,
        line,
        name,
        before,
        difference,
    } = mismatch;
    output.heading(&format!("{sequence}, line {line}: {name}"))?;
    match difference {
        Difference::Text { recorded, actual } => {
            writeln!(output, "  recorded  {recorded}")?;
            writeln!(output, "  emulated  {BAD}{actual}{BAD:#}")
        }
        Difference::Registers {
            recorded,
            actual,
            to,
        } => {
            if let Some((recorded, actual)) = to {
                writeln!(
                    output,
                    "  recorded: {recorded}; emulated: {BAD}{actual}{BAD:#}"
                )?;
            }
            let (mut before, mut recorded, mut actual) = (*before, *recorded, *actual);
            writeln!(
                output,
                "  {:<4} {:>18} {:>18} {:>18}",
                "", "before", "recorded", "emulated"
            )?;
            for (position, name) in REGISTERS.into_iter().enumerate() {
                let values =
                    [&mut before, &mut recorded, &mut actual].map(|set| *register(set, position));
                let [before, recorded, actual] = values;
                let differs = recorded != actual;
                if !differs && recorded == before {
                    continue;
                }
                let style = if differs { BAD } else { FAINT };
                write!(
                    output,
                    "  {name:<4} {before:>#18x} {recorded:>#18x} {style}{actual:>#18x}{style:#}"
                )?;
                if position == 0 {
                    let (recorded, actual) = (Status::from_rax(recorded), Status::from_rax(actual));
                    write!(output, "  {recorded}")?;
                    if differs {
                        write!(output, " / {actual}")?;
                    }
                }
                writeln!(output)?;
            }
            Ok(())
        }
    }
}
