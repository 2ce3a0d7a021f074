//! `tdx-mmu` side by side with the page-table crates people use, and with what the memory system allows.
//!
//! Every contender and every limit is measured once a round, so that whatever else the machine does hits all of them
//! alike; what is printed is the median of the rounds, and the ratio of medians beside each target.

mod arena;
mod cases;
mod contender;
mod faults;
mod host;
mod limits;
mod operations;
mod ours;
mod peers;
mod report;
mod samples;
mod targets;

use std::process::ExitCode;

use cases::Addresses;
use cases::Case;
use clap::Parser;
use peers::reference::Exclusive;
use peers::reference::Freeze;
use samples::Samples;

/// Compares tdx-mmu with other page-table crates.
#[derive(Parser)]
struct Options {
    /// How often everything is measured; the median counts.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Measure only the contenders whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Measure only the cases whose name contains this; "fault" and "operation" are what a TD does.
    #[arg(long)]
    case: Option<String>,
    /// Fail if a target is missed.
    #[arg(long)]
    check: bool,
}

type Round = fn(&Addresses, &[Case]) -> Vec<(Case, f64)>;

const CONTENDERS: [(&str, Round); 9] = [
    (targets::SHARED, cases::round::<ours::Shared>),
    (targets::FROZEN, cases::round::<ours::Frozen>),
    (targets::EXCLUSIVE, cases::round::<ours::Alone>),
    (targets::X86_64, cases::round::<peers::x86_64::Peer>),
    (
        targets::MULTIARCH,
        cases::round::<peers::page_table_multiarch::Peer>,
    ),
    (
        targets::GENERIC,
        cases::round::<peers::page_table_generic::Peer>,
    ),
    (
        targets::AARCH64,
        cases::round::<peers::aarch64_paging::Peer>,
    ),
    (
        targets::REFERENCE_STORE,
        cases::round::<peers::reference::Peer<Exclusive>>,
    ),
    (
        targets::REFERENCE_FREEZE,
        cases::round::<peers::reference::Peer<Freeze>>,
    ),
];

fn main() -> ExitCode {
    let options = Options::parse();
    arena::set_up();
    let samples = measure(&options);
    let verdicts = targets::judge(&samples);
    if options.json {
        report::json(&options, &samples, &verdicts);
    } else {
        report::tables(&options, &samples, &verdicts);
    }
    match options.check && verdicts.iter().any(|verdict| !verdict.met()) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn measure(options: &Options) -> Samples {
    let selected = |filter: &Option<String>, name: &str| {
        filter.as_ref().is_none_or(|filter| name.contains(filter))
    };
    let wanted: Vec<Case> = Case::ALL
        .into_iter()
        .filter(|case| selected(&options.case, case.name()))
        .collect();
    let addresses = Addresses::new();
    let mut samples = Samples::default();
    for _ in 0..options.rounds {
        for (name, round) in CONTENDERS {
            if selected(&options.only, name) {
                for (case, nanoseconds) in round(&addresses, &wanted) {
                    samples.add(name, case.name(), nanoseconds);
                }
            }
        }
        if options.only.is_none() && selected(&options.case, "fault") {
            faults::round(&mut samples);
            faults::round_of_peer::<peers::x86_64::Peer>(targets::X86_64_LOCKED, &mut samples);
            faults::round_of_peer::<peers::page_table_multiarch::Peer>(
                targets::MULTIARCH_LOCKED,
                &mut samples,
            );
        }
        if options.only.is_none() && selected(&options.case, "operation") {
            operations::round(&mut samples);
        }
        if options.only.is_none() && options.case.is_none() {
            for (name, nanoseconds) in limits::round(&addresses) {
                samples.add("limit", name, nanoseconds);
            }
        }
    }
    samples
}
