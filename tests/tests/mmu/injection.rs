//! Every operation, every call position, every kind of failure: afterwards mirror and Secure-EPT are
//! equal, no page is missing, and the operation can be repeated.

use std::collections::BTreeSet;

use tdx_abi::Level;
use tdx_abi::OperandId;
use tdx_abi::PrivateGpa;
use tdx_abi::Status;
use tdx_abi::StatusCode;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::embed::Backing;
use tdx_mmu::mirror::Kind;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Error;
use tdx_mmu::td::Rejected;
use tdx_mmu::td::Resolution;

use super::compare::Entry;
use super::compare::assert_equal;
use super::compare::mirror;
use super::host::Host;
use super::host::Injection;
use super::host::SCRATCH;
use super::host::range;
use super::life::end;
use super::life::runnable;
use super::life::runnable_on;

pub const PATIENCE: usize = 3;

/// Answers of the module: four that pass, and those that end an operation.
pub const ANSWERS: [(StatusCode, u64, bool); 9] = [
    (StatusCode::OPERAND_BUSY, 1, true),
    (StatusCode::INTERRUPTED_RESTARTABLE, 2, true),
    (StatusCode::INTERRUPTED_RESUMABLE, 1, true),
    (StatusCode::OPERAND_BUSY_HOST_PRIORITY, 3, true),
    (StatusCode::OPERAND_BUSY, 1_000, false),
    (StatusCode::OPERAND_INVALID, 1, false),
    (StatusCode::EPT_WALK_FAILED, 1, false),
    (StatusCode::TLB_TRACKING_NOT_DONE, 1, false),
    (StatusCode::TD_FATAL, 1, false),
];

pub struct Case {
    pub name: &'static str,
    pub stage: fn() -> Td<Host>,
    pub prepare: fn(&Td<Host>),
    pub operate: fn(&Td<Host>) -> Result<(), Error>,
}

pub fn large(td: &Td<Host>) {
    *td.embedder().largest.lock().unwrap() = Level::Pd;
}

pub fn small(td: &Td<Host>) {
    *td.embedder().largest.lock().unwrap() = Level::Pt;
}

fn touch(td: &Td<Host>, gpa: u64) -> Result<(), Error> {
    let access = tdx_mmu::td::Access {
        gpa: tdx_abi::Gpa::new(gpa),
        kind: AccessKind::Write,
    };
    match td.fault(access)? {
        Resolution::Mapped(_) | Resolution::Spurious(_) => Ok(()),
        // An earlier failure has left the entry blocked; what failed has to be repeated first.
        Resolution::Retry => Ok(()),
        other => panic!("{other:?}"),
    }
}

/// Everything but the measured page at 0 is unmapped.
pub fn clear(td: &Td<Host>) {
    small(td);
    td.unmap_private(&[range(0x1000, 0x3fff_f000)]).unwrap();
    td.declare(range(0, 0x4000_0000), Visibility::Private)
        .unwrap();
}

fn initialized() -> Td<Host> {
    Host::new().create(1)
}

fn running() -> Td<Host> {
    runnable(1)
}

fn dynamic() -> Td<Host> {
    runnable_on(Host::dynamic(), 1)
}

const PROMOTE: Case = Case {
    name: "promote",
    stage: running,
    prepare: |td| {
        clear(td);
        td.prefault(range(0x3000_0000, 0x20_0000), Level::Pt)
            .unwrap();
    },
    operate: |td| td.promote(&[range(0x3000_0000, 0x20_0000)]).map(drop),
};

const RELOCATE: Case = Case {
    name: "relocate",
    stage: running,
    prepare: |td| {
        clear(td);
        touch(td, 0x5000).unwrap();
    },
    operate: relocate,
};

/// The guest has filled 2 MiB, and a page elsewhere goes.
const RIDE: Case = Case {
    name: "unmap a page, and promote what the guest has filled",
    stage: running,
    prepare: |td| {
        clear(td);
        let promotes = &td.embedder().promotes;
        promotes.store(true, std::sync::atomic::Ordering::Relaxed);
        touch(td, 0x5000).unwrap();
        for page in 0..512 {
            let access = tdx_mmu::td::Access {
                gpa: tdx_abi::Gpa::new(0x3000_0000 + page * 0x1000),
                kind: AccessKind::Accept(Level::Pt),
            };
            td.fault(access).unwrap();
        }
    },
    operate: |td| td.unmap_private(&[range(0x5000, 0x1000)]),
};

const CASES: [Case; 24] = [
    Case {
        name: "fault 4 KiB, tables missing",
        stage: running,
        prepare: clear,
        operate: |td| touch(td, 0x4000_0000 - 0x1000),
    },
    Case {
        name: "fault 2 MiB",
        stage: running,
        prepare: |td| {
            clear(td);
            large(td);
        },
        operate: |td| touch(td, 0x3e00_0000),
    },
    Case {
        name: "prefault",
        stage: running,
        prepare: clear,
        operate: |td| td.prefault(range(0x1f_d000, 0x6000), Level::Pt).map(drop),
    },
    Case {
        name: "unmap 4 KiB pages",
        stage: running,
        prepare: |td| {
            clear(td);
            td.prefault(range(0x1000, 0x3000), Level::Pt).unwrap();
        },
        operate: |td| td.unmap_private(&[range(0x1000, 0x3000)]),
    },
    Case {
        name: "convert the middle of two 2 MiB pages",
        stage: running,
        prepare: |td| {
            clear(td);
            td.prefault(range(0x20_0000, 0x40_0000), Level::Pd).unwrap();
            large(td);
            td.unmap_private(&[range(0x20_0000, 0x40_0000)]).unwrap();
            td.prefault(range(0x20_0000, 0x40_0000), Level::Pd).unwrap();
            small(td);
        },
        operate: |td| td.convert(range(0x3f_e000, 0x4000), Visibility::Shared),
    },
    Case {
        name: "split",
        stage: running,
        prepare: |td| {
            clear(td);
            large(td);
            td.prefault(range(0x4000_0000 - 0x20_0000, 0x20_0000), Level::Pd)
                .unwrap();
            small(td);
        },
        operate: |td| td.split(PrivateGpa::new(0x4000_0000 - 0x1000)),
    },
    PROMOTE,
    RELOCATE,
    RIDE,
    Case {
        name: "promote what the guest has filled",
        operate: |td| td.promote_candidates().map(drop),
        ..RIDE
    },
    Case {
        name: "add and measure a page",
        stage: initialized,
        prepare: |td| td.unmap_private(&[range(0, 0x4000_0000)]).unwrap(),
        operate: |td| {
            let at = td.mirror().look(td.embedder(), PrivateGpa::new(0x7000));
            if at.level == Level::Pt && matches!(at.entry.kind(), Kind::Leaf(_)) {
                return td.extend_page(at.gpa);
            }
            let gpa = PrivateGpa::new(0x7000);
            let page = td.embedder().take(gpa.bits(), Level::Pt);
            td.add_page(gpa, page, tdx_abi::Hpa::new(SCRATCH + 0x3000))
                .map_err(|rejected| take_back(td, rejected))?;
            td.extend_page(gpa)
        },
    },
    Case {
        name: "map 2 MiB before FINALIZE",
        stage: initialized,
        prepare: |td| {
            td.unmap_private(&[range(0, 0x4000_0000)]).unwrap();
            large(td);
        },
        operate: |td| {
            td.prefault(range(0x3000_0000, 0x20_0000), Level::Pd)
                .map(drop)
        },
    },
    Case {
        name: "split and unmap before FINALIZE",
        stage: initialized,
        prepare: |td| {
            large(td);
            td.unmap_private(&[range(0, 0x4000_0000)]).unwrap();
            td.prefault(range(0x2000_0000, 0x20_0000), Level::Pd)
                .unwrap();
        },
        operate: |td| td.unmap_private(&[range(0x2000_0000, 0x1000)]),
    },
    Case {
        name: "promote before FINALIZE",
        stage: initialized,
        prepare: |td| {
            small(td);
            td.unmap_private(&[range(0, 0x4000_0000)]).unwrap();
            td.prefault(range(0x2000_0000, 0x20_0000), Level::Pt)
                .unwrap();
        },
        operate: |td| td.promote(&[range(0x2000_0000, 0x20_0000)]).map(drop),
    },
    Case {
        name: "map 2 MiB without a fault",
        stage: running,
        prepare: clear,
        operate: |td| {
            let gpa = PrivateGpa::new(0x3200_0000);
            let at = td.mirror().look(td.embedder(), gpa);
            if matches!(at.entry.kind(), Kind::Leaf(_)) {
                return Ok(());
            }
            let page = td.embedder().take(gpa.bits(), Level::Pd);
            td.map_private(gpa, page)
                .map_err(|rejected| take_back(td, rejected))
        },
    },
    Case {
        name: "unmap after promoting",
        operate: |td| td.unmap_private_promoting(&[range(0x3000_0000, 0x20_0000)]),
        ..PROMOTE
    },
    Case {
        name: "give empty tables back",
        stage: running,
        prepare: |td| {
            clear(td);
            touch(td, 0x3000_0000).unwrap();
            clear(td);
        },
        operate: |td| td.trim(range(0x20_0000, 0x4000_0000 - 0x20_0000)).map(drop),
    },
    Case {
        name: "discard private and shared memory",
        stage: running,
        prepare: |td| {
            clear(td);
            touch(td, 0x5000).unwrap();
            td.declare(range(0x6000, 0x1000), Visibility::Shared)
                .unwrap();
            touch(td, SHARED | 0x6000).unwrap();
        },
        operate: |td| td.discard(&[range(0x6000, 0x1000), range(0x5000, 0x1000)]),
    },
    Case {
        name: "fault 4 KiB with Dynamic PAMT",
        stage: dynamic,
        prepare: |td| {
            clear(td);
            td.trim(range(0x20_0000, 0x4000_0000 - 0x20_0000)).unwrap();
        },
        operate: |td| touch(td, 0x3000_0000),
    },
    Case {
        name: "unmap and map 4 KiB pages with Dynamic PAMT",
        stage: dynamic,
        prepare: |td| {
            clear(td);
            td.prefault(range(0x1f_f000, 0x2000), Level::Pt).unwrap();
        },
        operate: |td| {
            td.unmap_private(&[range(0x1f_f000, 0x2000)])?;
            td.prefault(range(0x3f_f000, 0x2000), Level::Pt).map(drop)
        },
    },
    Case {
        name: "split with Dynamic PAMT",
        stage: dynamic,
        prepare: |td| {
            clear(td);
            large(td);
            td.prefault(range(0x3000_0000, 0x20_0000), Level::Pd)
                .unwrap();
            small(td);
        },
        operate: |td| td.split(PrivateGpa::new(0x3000_1000)),
    },
    Case {
        name: "promote with Dynamic PAMT",
        stage: dynamic,
        ..PROMOTE
    },
    Case {
        name: "unmap a page, and promote what the guest has filled, with Dynamic PAMT",
        stage: dynamic,
        ..RIDE
    },
    Case {
        name: "relocate with Dynamic PAMT",
        stage: dynamic,
        ..RELOCATE
    },
];

const SHARED: u64 = 1 << 47;

fn relocate(td: &Td<Host>) -> Result<(), Error> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let spare = td
        .embedder()
        .spare(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 4096);
    td.relocate(PrivateGpa::new(0x5000), spare)
        .map_err(|rejected| take_back(td, rejected))
}

/// The host gets the page back that an operation did not take.
fn take_back(td: &Td<Host>, rejected: Rejected) -> Error {
    rejected
        .page
        .into_iter()
        .for_each(|page| td.embedder().take_back(PrivateGpa::new(0), page));
    rejected.error
}

/// Mirror and Secure-EPT are equal, and every page is in one of the places where it may be.
#[track_caller]
fn check(td: &Td<Host>) {
    assert_equal(td);
    let host = td.embedder();
    let picture = mirror(td);
    let leaves: u64 = picture
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Leaf { .. }))
        .map(|((_, level), _)| level.size())
        .sum();
    let tables = picture
        .values()
        .filter(|entry| matches!(entry, Entry::Table { .. }))
        .count();
    let quarantine = host.quarantine.lock().unwrap();
    let dirty: u64 = quarantine
        .iter()
        .filter(|(gpa, _)| gpa.is_some())
        .map(|(_, page)| page.level().size())
        .sum();
    let dirty_tables = quarantine.iter().filter(|(gpa, _)| gpa.is_none()).count();
    assert_eq!(host.private_in_use(), leaves + dirty, "private pages");
    assert_eq!(
        host.module_pages_in_use(),
        host.control_pages()
            + tables
            + super::l2::compare::tables(td)
            + dirty_tables
            + 2 * host.pamt_pairs(),
        "pages of the Secure-EPT and PAMT page pairs"
    );
    host.check_pamt();
}

/// Writes the pages back that could not be, and gives them back.
pub fn empty_quarantine(td: &Td<Host>) {
    let pages: Vec<_> = td.embedder().quarantine.lock().unwrap().drain(..).collect();
    for (gpa, page) in pages {
        td.clean(gpa, page).unwrap();
    }
}

/// Operates with the injection armed, checks, repeats without it, checks again. Returns the calls made.
fn inject(case: &Case, td: &Td<Host>, injection: Injection, passes: bool) -> u64 {
    let injector = &td.embedder().injector;
    let what = format!("{}: {injection:x?}", case.name);
    (case.prepare)(td);
    injector.arm(Some(injection));
    let result = (case.operate)(td);
    let calls = injector.calls.load(std::sync::atomic::Ordering::Relaxed);
    let hit: BTreeSet<u64> = injector.hit.lock().unwrap().iter().copied().collect();
    injector.arm(None);
    if passes {
        assert_eq!(result, Ok(()), "{what}, leaves {hit:?}");
    } else if !hit.is_empty() {
        let error = result.expect_err(&what);
        assert!(error.status().is_some(), "{what}: {error}");
    }
    check(td);
    (case.operate)(td).unwrap_or_else(|error| panic!("{what}: repeated: {error}"));
    check(td);
    empty_quarantine(td);
    check(td);
    calls
}

pub fn all_positions(case: &Case) {
    let td = (case.stage)();
    td.embedder()
        .patience
        .store(PATIENCE, std::sync::atomic::Ordering::Relaxed);
    let none = Injection {
        after: u64::MAX / 2,
        times: 0,
        rax: 0,
    };
    let calls = inject(case, &td, none, true);
    assert!(calls > 0, "{}", case.name);
    // Of long runs of equal calls the first and the last.
    let positions = (0..calls).filter(|position| *position < 8 || calls - position <= 4);
    for after in positions {
        for (code, times, passes) in ANSWERS {
            let rax = Status::with_operand(code, OperandId::RCX).rax();
            inject(case, &td, Injection { after, times, rax }, passes);
        }
    }
    empty_quarantine(&td);
    td.embedder().collect_pamt();
    end(td);
}

#[test]
fn every_call_of_every_operation_may_fail_in_every_way() {
    std::thread::scope(|scope| {
        for half in CASES.chunks(CASES.len().div_ceil(2)) {
            scope.spawn(move || half.iter().for_each(all_positions));
        }
    });
}

/// Operates with ever more pages left to allocate, checks, repeats, checks again.
pub fn allocations(case: &Case) {
    let td = (case.stage)();
    let budget = &td.embedder().budget;
    for pages in 0..20 {
        (case.prepare)(&td);
        budget.store(pages, std::sync::atomic::Ordering::Relaxed);
        let result = (case.operate)(&td);
        budget.store(usize::MAX, std::sync::atomic::Ordering::Relaxed);
        assert!(
            matches!(result, Ok(()) | Err(Error::OutOfPages)),
            "{}: {result:?}",
            case.name
        );
        check(&td);
        (case.operate)(&td).unwrap_or_else(|error| panic!("{}: repeated: {error}", case.name));
        check(&td);
    }
    end(td);
}

#[test]
fn every_allocation_of_every_operation_may_fail() {
    CASES.iter().for_each(allocations);
}
