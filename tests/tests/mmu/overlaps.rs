//! Faults beside changes of what an address is, each at the moment that matters, and a teardown on several threads.

use std::sync::mpsc;

use tdx_abi::Level;
use tdx_mmu::GpaRange;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::shared::Permissions;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Resolution;

use super::compare::assert_equal;
use super::compare::bytes;
use super::host::Host;
use super::host::range;
use super::host::run_on;
use super::life::assert_free;
use super::life::end;
use super::life::fault;
use super::life::runnable;

const SHARED: u64 = 1 << 47;
const AT: u64 = 0x1000_0000;
const PAGE: u64 = 0x1000;

/// A fault at `gpa` for which the backing has found a page when another thread does `work` from beginning to end.
fn overlapped(td: &Td<Host>, gpa: u64, work: impl FnOnce(&Td<Host>) + Send) -> Resolution {
    let (begin, begun) = mpsc::channel::<()>();
    let (end, ended) = mpsc::channel::<()>();
    *td.embedder().meanwhile.lock().unwrap() = Some(Box::new(move || {
        begin.send(()).unwrap();
        ended.recv().unwrap();
    }));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            run_on(1);
            begun.recv().unwrap();
            work(td);
            end.send(()).unwrap();
        });
        fault(td, gpa, AccessKind::Write)
    })
}

fn page(gpa: u64) -> GpaRange {
    range(gpa, PAGE)
}

/// The page that was found before the conversion goes back, and the fault starts over.
#[test]
fn a_fault_does_not_map_what_was_converted_meanwhile() {
    let td = runnable(1);
    let convert = |to| move |td: &Td<Host>| td.convert(page(AT), to).unwrap();
    assert_eq!(
        overlapped(&td, AT, convert(Visibility::Shared)),
        Resolution::MemoryFault {
            gpa: AT,
            private: true
        }
    );
    assert_eq!(td.embedder().private_in_use(), bytes(&td));
    assert_equal(&td);
    assert_eq!(
        overlapped(&td, SHARED | AT, convert(Visibility::Private)),
        Resolution::MemoryFault {
            gpa: AT,
            private: false
        }
    );
    let shared = td
        .shared()
        .translate(td.embedder(), tdx_abi::Gpa::new(SHARED | AT));
    assert_eq!(shared, None);
    end(td);
}

/// A memory slot whose pages are taken back and given anew: the fault that began before takes none of the old ones.
#[test]
fn a_fault_starts_over_where_memory_was_taken_back_meanwhile() {
    let td = runnable(1);
    fault(&td, AT, AccessKind::Write);
    // The neighbour's fault is under way while both are discarded.
    let resolution = overlapped(&td, AT + PAGE, |td| {
        td.discard(&[range(AT, 2 * PAGE)]).unwrap();
    });
    assert_eq!(resolution, Resolution::Mapped(Level::Pt));
    assert_eq!(bytes(&td), 2 * PAGE, "the measured page and the neighbour");
    assert_eq!(td.embedder().private_in_use(), bytes(&td));
    assert_equal(&td);
    end(td);
}

/// Another vCPU was quicker.
#[test]
fn a_fault_whose_page_was_mapped_meanwhile_is_spurious() {
    let td = runnable(1);
    let resolution = overlapped(&td, AT, |td| {
        // The backing of this test gives a page once only, so the page comes from elsewhere.
        let page = td.embedder().spare(0);
        td.map_private(tdx_abi::PrivateGpa::new(AT), page).unwrap();
    });
    assert_eq!(resolution, Resolution::Spurious(Level::Pt));
    assert_eq!(td.embedder().private_in_use(), bytes(&td));
    assert_equal(&td);
    end(td);
}

#[test]
fn shared_memory_is_executed_only_where_that_is_allowed() {
    let td = runnable(1);
    td.convert(page(AT), Visibility::Shared).unwrap();
    assert_eq!(
        fault(&td, SHARED | AT, AccessKind::Read),
        Resolution::Mapped(Level::Pt)
    );
    let denied = Resolution::Denied { gpa: AT };
    assert_eq!(fault(&td, SHARED | AT, AccessKind::Fetch), denied);
    td.protect(page(AT), Permissions::ALL).unwrap();
    let allowed = fault(&td, SHARED | AT, AccessKind::Fetch);
    assert_ne!(allowed, denied);
    assert_eq!(
        fault(&td, SHARED | AT, AccessKind::Fetch),
        Resolution::Spurious(Level::Pt)
    );
    td.protect(page(AT), Permissions::READ).unwrap();
    assert_eq!(fault(&td, SHARED | AT, AccessKind::Fetch), denied);
    assert_eq!(fault(&td, SHARED | AT, AccessKind::Write), denied);
    end(td);
}

/// Four threads on LPs of their own, a quarter of the memory each; every leaf is counted once.
#[test]
fn a_teardown_runs_on_several_threads() {
    let td = runnable(1);
    let quarter = 0x1000_0000;
    for part in 0..4 {
        let pages = range(part * quarter + 0x20_0000, 100 * PAGE);
        td.prefault(pages, Level::Pt).unwrap();
    }
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    td.prefault(range(0x800_0000, 0x40_0000), Level::Pd)
        .unwrap();
    let teardown = td.teardown().unwrap_or_else(|(_, error)| panic!("{error}"));
    let leaves: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|part| {
                let teardown = &teardown;
                scope.spawn(move || {
                    run_on(usize::try_from(part).unwrap());
                    let mut asked = 0;
                    let progress = teardown
                        .reclaim(range(part * quarter, quarter), |done| {
                            asked = done + 1;
                            true
                        })
                        .unwrap();
                    assert_eq!((progress.next, progress.leaves), (None, asked));
                    progress.leaves
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(leaves, 1 + 4 * 100 + 2);
    let torn = teardown
        .finish()
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    assert_free(&torn.embedder);
}
