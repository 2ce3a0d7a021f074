//! What the MMU does beside faults, with SEAMCALLs that do nothing and through the emulated module: the difference
//! is the module's.

use std::time::Instant;

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_mmu::GpaRange;
use tdx_mmu::Td;

use crate::arena;
use crate::host;
use crate::host::Host;
use crate::samples::Samples;

/// 4 KiB pages: 64 MiB.
const PAGES: u64 = 16_384;
/// 2 MiB pages: 1 GiB.
const LARGE_PAGES: u64 = 512;

pub const NOTHING: &str = "SEAMCALLs that do nothing";
pub const EMULATED: &str = "emulated module";

pub const PREFAULT: &str = "prefault, a 4 KiB page";
pub const UNMAP: &str = "block, track, remove, a 4 KiB page";
pub const RECLAIM: &str = "reclaim in the teardown, a 4 KiB page";
pub const PREFAULT_LARGE: &str = "prefault, a 2 MiB page";
pub const SPLIT: &str = "block, track, split, a 2 MiB page";
pub const PROMOTE: &str = "block, track, promote, 512 pages";
pub const UNMAP_LARGE: &str = "block, track, remove, a 2 MiB page";

/// The rows, in the order of a TD's life.
pub const ALL: [&str; 7] = [
    PREFAULT,
    UNMAP,
    RECLAIM,
    PREFAULT_LARGE,
    SPLIT,
    PROMOTE,
    UNMAP_LARGE,
];

/// One round of everything.
pub fn round(samples: &mut Samples) {
    for (column, agreeable) in [(NOTHING, true), (EMULATED, false)] {
        let mut add = |row, nanoseconds| samples.add(row, column, nanoseconds);
        small(agreeable, &mut add);
        large(agreeable, &mut add);
    }
}

type Add<'a> = dyn FnMut(&'static str, f64) + 'a;

fn small(agreeable: bool, add: &mut Add<'_>) {
    let bytes = PAGES << 12;
    let td = runnable(bytes, Level::Pt, agreeable);
    let range = GpaRange::new(0, bytes).expect("whole pages");
    add(PREFAULT, time(PAGES, || td.prefault(range, Level::Pt)));
    add(UNMAP, time(PAGES, || td.unmap_private(&[range])));
    let again = td.prefault(range, Level::Pt).expect("the module maps them");
    assert_eq!(again, bytes, "all of it was unmapped");
    let Ok(teardown) = td.teardown() else {
        panic!("the module gives the KeyID back")
    };
    add(RECLAIM, time(PAGES, || teardown.reclaim(range, |_| true)));
}

fn large(agreeable: bool, add: &mut Add<'_>) {
    let bytes = LARGE_PAGES << 21;
    let td = runnable(bytes, Level::Pd, agreeable);
    let range = GpaRange::new(0, bytes).expect("whole pages");
    let level = || td.mirror().look(td.embedder(), PrivateGpa::new(0)).level;
    add(
        PREFAULT_LARGE,
        time(LARGE_PAGES, || td.prefault(range, Level::Pd)),
    );
    assert_eq!(level(), Level::Pd);
    let each: Vec<_> = (0..LARGE_PAGES)
        .map(|page| PrivateGpa::new(page << 21))
        .collect();
    add(SPLIT, time(LARGE_PAGES, || td.split_many(&each)));
    assert_eq!(level(), Level::Pt);
    add(PROMOTE, time(LARGE_PAGES, || td.promote(&[range])));
    assert_eq!(level(), Level::Pd);
    add(
        UNMAP_LARGE,
        time(LARGE_PAGES, || td.unmap_private(&[range])),
    );
}

/// A TD whose memory is tracked, with nothing mapped.
fn runnable(bytes: u64, largest: Level, agreeable: bool) -> Td<Host> {
    arena::reset();
    host::run_on(0);
    let td = host::td(bytes, false);
    td.add_vcpu(0).expect("the module adds the vCPU");
    td.finalize().expect("the module ends the build");
    td.embedder().back_with(largest);
    td.embedder().agree(agreeable);
    td
}

/// Nanoseconds per operation of `run`, which does `count` of them.
fn time<T>(count: u64, run: impl FnOnce() -> Result<T, tdx_mmu::td::Error>) -> f64 {
    let start = Instant::now();
    let done = run();
    let elapsed = start.elapsed();
    if let Err(error) = done {
        panic!("{error}");
    }
    elapsed.as_nanos() as f64 / count as f64
}
