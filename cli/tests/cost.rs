//! `tdx cost`: the cost table, with the numbers that were counted when Intel's module code took the same sequences.

use tdx_abi::Level;
use tdx_cli::cost;

#[test]
fn operations_cost_what_the_design_says() {
    let rows = cost::operations().unwrap();
    let expected = [
        ("map 2 MiB", 1, 0),
        ("unmap 2 MiB held as 4 KiB pages", 1537, 1),
        ("unmap one 2 MiB leaf", 515, 1),
        ("split 2 MiB", 3, 1),
        ("relocate a page", 4, 1),
        ("zap before FINALIZE", 2, 0),
    ];
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.operation, row.seamcalls, row.kicks))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn teardown_reclaims_each_page_once_and_kicks_nobody() {
    // Leaves, then the tables that point to them.
    let (small, kicks) = cost::teardown(Level::Pt, 1 << 30).unwrap();
    assert_eq!((small.total(), kicks), (262_144 + 512 + 1 + 1, 0));
    let (large, kicks) = cost::teardown(Level::Pd, 64 << 30).unwrap();
    assert_eq!((large.total(), kicks), (32_833, 0));
}
