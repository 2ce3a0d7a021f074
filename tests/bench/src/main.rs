//! `tdx-mmu` side by side with the page-table crates people use, and with what the memory system allows.
//!
//! Every contender and every limit is measured once a round, so that whatever else the machine does hits all of them
//! alike; what is printed is the median of the rounds.

mod arena;
mod cases;
mod contender;
mod limits;
mod ours;
mod peers;

use cases::Addresses;
use cases::Case;
use clap::Parser;
use comfy_table::Table;
use peers::reference::Exclusive;
use peers::reference::Freeze;

/// Compares tdx-mmu with other page-table crates.
#[derive(Parser)]
struct Options {
    /// How often everything is measured; the median counts.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
}

type Round = fn(&Addresses) -> Vec<(Case, Option<f64>)>;

const CONTENDERS: [(&str, Round); 9] = [
    ("tdx-mmu shared EPT", cases::round::<ours::Shared>),
    (
        "tdx-mmu mirror, frozen entries",
        cases::round::<ours::Frozen>,
    ),
    ("tdx-mmu mirror, exclusive", cases::round::<ours::Alone>),
    ("x86_64 0.15.5", cases::round::<peers::x86_64::Peer>),
    (
        "page_table_multiarch 0.6.2",
        cases::round::<peers::page_table_multiarch::Peer>,
    ),
    (
        "page-table-generic 0.9.1",
        cases::round::<peers::page_table_generic::Peer>,
    ),
    (
        "aarch64-paging 0.12.3",
        cases::round::<peers::aarch64_paging::Peer>,
    ),
    (
        "ref: release store",
        cases::round::<peers::reference::Peer<Exclusive>>,
    ),
    (
        "ref: KVM freeze+store",
        cases::round::<peers::reference::Peer<Freeze>>,
    ),
];

fn main() {
    let options = Options::parse();
    arena::set_up();
    let addresses = Addresses::new();
    let mut samples = vec![vec![Vec::new(); Case::ALL.len()]; CONTENDERS.len()];
    let mut limit_samples: Vec<(&str, Vec<f64>)> = Vec::new();
    for _ in 0..options.rounds {
        for (row, (_, round)) in samples.iter_mut().zip(CONTENDERS) {
            for (case, nanoseconds) in round(&addresses) {
                row[case as usize].extend(nanoseconds);
            }
        }
        for (k, (name, nanoseconds)) in limits::round(&addresses).into_iter().enumerate() {
            if limit_samples.len() <= k {
                limit_samples.push((name, Vec::new()));
            }
            limit_samples[k].1.push(nanoseconds);
        }
    }

    let mut table = Table::new();
    table.set_header([""].into_iter().chain(Case::ALL.map(Case::name)));
    for (row, (name, _)) in samples.iter_mut().zip(CONTENDERS) {
        let cells = row
            .iter_mut()
            .map(|cell| median(cell).map_or("-".into(), |ns| format!("{ns:.2}")));
        table.add_row(core::iter::once(name.to_string()).chain(cells));
    }
    println!(
        "Nanoseconds per operation, median of {} interleaved rounds\n{table}",
        options.rounds
    );

    let mut table = Table::new();
    table.set_header(["limit", "ns"]);
    for (name, samples) in &mut limit_samples {
        table.add_row([
            name.to_string(),
            format!("{:.2}", median(samples).expect("a sample a round")),
        ]);
    }
    println!("{table}");
}

fn median(samples: &mut [f64]) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}
