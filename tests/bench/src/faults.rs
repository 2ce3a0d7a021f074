//! Faults from one thread and from two: what a second vCPU that faults at the same time gains.
//!
//! A fault of `tdx-mmu` is all of [`Td::fault`]: visibility, mirror, backing, section, tables, SEAMCALL. What the
//! crates have to offer is a look and a map under one mutex, without which two threads may not use them.

use std::sync::Barrier;
use std::sync::Mutex;
use std::time::Instant;

use tdx_abi::Gpa;
use tdx_mmu::Td;
use tdx_mmu::td::Access;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Resolution;

use crate::arena;
use crate::cases::FRAME;
use crate::contender::Find;
use crate::host;
use crate::host::Host;
use crate::samples::Samples;

/// Pages that a thread faults in where no SEAMCALL is executed.
const PAGES: u64 = 131_072;
/// Pages that a thread faults in through the emulator.
const EMULATED_PAGES: u64 = 16_384;

pub const ONE: &str = "1 thread";
pub const TWO: &str = "2 threads";
pub const AGREEABLE: &str = "Td::fault, SEAMCALLs that do nothing";
pub const EMULATED: &str = "Td::fault, emulated module";

/// One round of everything.
pub fn round(samples: &mut Samples) {
    for (column, threads) in [(ONE, 1), (TWO, 2)] {
        samples.add(AGREEABLE, column, faults(threads, PAGES, true));
        samples.add(EMULATED, column, faults(threads, EMULATED_PAGES, false));
    }
}

/// Nanoseconds per page that a crate behind a mutex takes, for one thread and for two.
pub fn round_of_peer<C: Find + Send>(row: &'static str, samples: &mut Samples) {
    for (column, threads) in [(ONE, 1), (TWO, 2)] {
        arena::reset();
        let table = Mutex::new(C::new());
        let nanoseconds = time(threads, PAGES, |address| {
            let mut table = table.lock().expect("nobody panics");
            if table.find(address).is_none() {
                table.map_4k(address, FRAME + address);
            }
        });
        samples.add(row, column, nanoseconds);
    }
}

fn faults(threads: u64, pages: u64, agreeable: bool) -> f64 {
    arena::reset();
    let td = host::td((threads * pages) << 12, agreeable);
    let nanoseconds = time(threads, pages, |address| fault(&td, address));
    // What was mapped is found mapped.
    let last = Gpa::new((threads * pages - 1) << 12);
    let again = Access {
        gpa: last,
        kind: AccessKind::Write,
    };
    assert!(matches!(td.fault(again), Ok(Resolution::Spurious(_))));
    nanoseconds
}

#[inline]
fn fault(td: &Td<Host>, address: u64) {
    let access = Access {
        gpa: Gpa::new(address),
        kind: AccessKind::Write,
    };
    let resolution = td.fault(access).expect("the module maps the page");
    assert!(matches!(resolution, Resolution::Mapped(_)));
}

/// Nanoseconds per page while `threads` threads each touch `pages` pages of their own.
fn time(threads: u64, pages: u64, touch: impl Fn(u64) + Sync) -> f64 {
    let (touch, barrier) = (&touch, &Barrier::new(threads as usize + 1));
    let elapsed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    host::run_on(number as usize);
                    barrier.wait();
                    let start = Instant::now();
                    for page in number * pages..(number + 1) * pages {
                        touch(page << 12);
                    }
                    (start, Instant::now())
                })
            })
            .collect();
        barrier.wait();
        let times: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().expect("no thread panics"))
            .collect();
        let start = times.iter().map(|(start, _)| *start).min();
        let end = times.iter().map(|(_, end)| *end).max();
        end.zip(start).map(|(end, start)| end - start)
    });
    elapsed.expect("there are threads").as_nanos() as f64 / (threads * pages) as f64
}
