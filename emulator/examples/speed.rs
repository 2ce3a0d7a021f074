//! How long SEAMCALLs take in the emulator, and how much host memory a guest page costs.
//!
//! `cargo run --release --example speed -p tdx-emulator [GIB]`

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::add_tables;
use support::ok;
use support::ready;
use support::runnable;
use tdx_abi::Level;
use tdx_abi::leaf::SeamcallLeaf;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * PAGE
}

fn main() {
    let gib = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(4);
    let platform = ready(gib + 2, 1);
    let lp = platform.lp(0).expect("there is one");
    let mut tables = Pages(GIB);
    let td = runnable(&platform, &mut tables, 33, 1);
    let first = 2 * GIB;
    let count = gib * GIB / PAGE;
    let before = resident();
    let start = Instant::now();
    for page in 0..count / 512 {
        add_tables(&lp, &td, &mut tables, page * 512 * PAGE, Level::Pt);
    }
    println!("tables: {:?}", start.elapsed());
    let report = |what: &str, start: Instant| {
        let each = start.elapsed().as_nanos() as f64 / count as f64;
        println!("{what}: {:?}, {each:.0} ns each", start.elapsed());
    };
    let start = Instant::now();
    for page in 0..count {
        let operands = [page * PAGE, td.tdr, first + page * PAGE, 0];
        ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_AUG, operands);
    }
    report("TDH.MEM.PAGE.AUG", start);
    let used = resident() - before;
    println!(
        "host memory: {} MiB, {} bytes per guest page",
        used >> 20,
        used / count
    );
    let each = |leaf: SeamcallLeaf| {
        let start = Instant::now();
        for page in 0..count {
            ok(&lp, leaf, [page * PAGE, td.tdr, 0, 0]);
        }
        report(&leaf.to_string(), start);
    };
    each(SeamcallLeaf::TDH_MEM_RANGE_BLOCK);
    ok(&lp, SeamcallLeaf::TDH_MEM_TRACK, [td.tdr, 0, 0, 0]);
    each(SeamcallLeaf::TDH_MEM_PAGE_REMOVE);
}
