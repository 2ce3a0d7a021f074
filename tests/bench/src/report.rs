//! Tables for people, JSON for programs.

use comfy_table::Table;
use comfy_table::presets;
use serde_json::json;

use crate::CONTENDERS;
use crate::Options;
use crate::cases::Case;
use crate::faults;
use crate::operations;
use crate::samples::Samples;
use crate::targets;
use crate::targets::Verdict;

/// What was measured and what it says about the targets, in tables.
pub fn tables(options: &Options, samples: &Samples, verdicts: &[Verdict]) {
    println!(
        "Nanoseconds per operation, median of {} interleaved rounds\n",
        options.rounds
    );
    let columns: Vec<Case> = Case::ALL
        .into_iter()
        .filter(|case| {
            CONTENDERS
                .iter()
                .any(|(row, _)| samples.median(row, case.name()).is_some())
        })
        .collect();
    for case in &columns {
        println!("  {:13} {}", case.name(), case.description());
    }
    let mut table = plain();
    table.set_header(
        [""].into_iter()
            .chain(columns.iter().map(|case| case.name())),
    );
    for (row, _) in CONTENDERS {
        let cells = columns
            .iter()
            .map(|case| number(samples.median(row, case.name())));
        table.add_row(core::iter::once(row.to_string()).chain(cells));
    }
    println!("\n{table}\n");

    let mut table = plain();
    table.set_header([
        "ns per fault",
        faults::ONE,
        faults::TWO,
        "throughput of 2 / 1",
    ]);
    for row in targets::FAULTS {
        let [one, two] = [faults::ONE, faults::TWO].map(|column| samples.median(row, column));
        let gain = one.zip(two).map(|(one, two)| one / two);
        table.add_row([row.to_string(), number(one), number(two), number(gain)]);
    }
    println!("{table}\n");

    let mut table = plain();
    table.set_header([
        "ns per operation of a TD",
        operations::NOTHING,
        operations::EMULATED,
        "share of the MMU",
    ]);
    for row in operations::ALL {
        let [nothing, emulated] =
            [operations::NOTHING, operations::EMULATED].map(|column| samples.median(row, column));
        let share = nothing
            .zip(emulated)
            .map(|(nothing, emulated)| nothing / emulated);
        table.add_row([
            row.to_string(),
            number(nothing),
            number(emulated),
            number(share),
        ]);
    }
    println!("{table}\n");

    let mut table = plain();
    table.set_header(["limit of the machine", "ns"]);
    for column in samples.columns("limit") {
        table.add_row([column.to_string(), number(samples.median("limit", column))]);
    }
    println!("{table}\n");

    let mut table = plain();
    table.set_header([
        "",
        "ns",
        "against",
        "ns",
        "ratio",
        "of minima",
        "target",
        "",
    ]);
    for verdict in verdicts {
        table.add_row([
            format!("{}, {}", verdict.column, verdict.row),
            format!("{:.2}", verdict.ours),
            verdict.against.to_string(),
            format!("{:.2}", verdict.theirs),
            format!("{:.2}", verdict.ratio()),
            format!("{:.2}", verdict.ratio_of_minima),
            format!("{:.2}", verdict.at_most),
            if verdict.met() { "met" } else { "MISSED" }.to_string(),
        ]);
    }
    let met = verdicts.iter().filter(|verdict| verdict.met()).count();
    println!("{table}\n\n{met} of {} targets met", verdicts.len());
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn number(nanoseconds: Option<f64>) -> String {
    nanoseconds.map_or("-".into(), |nanoseconds| format!("{nanoseconds:.2}"))
}

/// The same as one JSON object.
pub fn json(options: &Options, samples: &Samples, verdicts: &[Verdict]) {
    let measured: Vec<_> = samples
        .all()
        .map(|(row, column)| {
            json!({
                "row": row,
                "case": column,
                "median_ns": samples.median(row, column),
                "minimum_ns": samples.minimum(row, column),
            })
        })
        .collect();
    let targets: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            json!({
                "case": verdict.column,
                "row": verdict.row,
                "against": verdict.against,
                "ratio": verdict.ratio(),
                "ratio_of_minima": verdict.ratio_of_minima,
                "target": verdict.at_most,
                "met": verdict.met(),
            })
        })
        .collect();
    let report = json!({"rounds": options.rounds, "measured": measured, "targets": targets});
    println!("{report:#}");
}
