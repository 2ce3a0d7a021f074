//! Large pages that come about by themselves.

use std::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Resolution;

use super::compare::assert_equal;
use super::compare::leaves;
use super::host::Host;
use super::host::SCRATCH;
use super::host::range;
use super::life::end;
use super::life::fault;
use super::life::runnable;
use super::life::runnable_on;

const LARGE: u64 = 0x20_0000;
const BASE: u64 = 0x1000_0000;
const PAGE: u64 = 0x1000;
/// A page somewhere else.
const OTHER: u64 = 0x5000;

const ADD: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_ADD;
const BLOCK: SeamcallLeaf = SeamcallLeaf::TDH_MEM_RANGE_BLOCK;
const PROMOTE: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_PROMOTE;
const REMOVE: SeamcallLeaf = SeamcallLeaf::TDH_MEM_PAGE_REMOVE;
const TRACK: SeamcallLeaf = SeamcallLeaf::TDH_MEM_TRACK;

fn calls(td: &Td<Host>, leaf: SeamcallLeaf) -> u64 {
    td.embedder().platform.counters().seamcalls(leaf)
}

fn promoting(td: Td<Host>) -> Td<Host> {
    td.embedder().promotes.store(true, Ordering::Relaxed);
    td
}

/// Leaves of 2 MiB and of 4 KiB, without the measured page at 0.
fn shape(td: &Td<Host>) -> (usize, usize) {
    (leaves(td, Level::Pd), leaves(td, Level::Pt) - 1)
}

fn pages() -> impl Iterator<Item = u64> {
    (BASE..BASE + LARGE).step_by(PAGE as usize)
}

/// The guest faults at each of `gpas` by its ACCEPT, and then accepts it unless it is `idle`.
fn fill(td: &Td<Host>, gpas: impl Iterator<Item = u64>, idle: Option<u64>) {
    let host = td.embedder();
    host.enter(1, td.tdvpr(0).unwrap());
    for gpa in gpas {
        assert_eq!(
            fault(td, gpa, AccessKind::Accept(Level::Pt)),
            Resolution::Mapped(Level::Pt)
        );
        if idle != Some(gpa) {
            assert_eq!(host.accept(1, gpa, Level::Pt), 0);
        }
    }
    host.leave(1);
}

/// Something that needs a TRACK; says how many it took.
fn track_for_another(td: &Td<Host>) -> u64 {
    let before = calls(td, TRACK);
    fault(td, OTHER, AccessKind::Write);
    td.unmap_private(&[range(OTHER, PAGE)]).unwrap();
    calls(td, TRACK) - before
}

#[test]
fn before_the_end_of_the_build_a_full_table_becomes_a_leaf_at_once() {
    let td = promoting(Host::new().create(1));
    td.prefault(range(BASE, 2 * LARGE), Level::Pt).unwrap();
    assert_eq!((leaves(&td, Level::Pd), leaves(&td, Level::Pt)), (2, 0));
    assert_eq!(calls(&td, PROMOTE), 2);
    assert_eq!((calls(&td, BLOCK), calls(&td, TRACK)), (0, 0));
    assert_equal(&td);
    end(td);
}

fn add(td: &Td<Host>, gpa: u64) {
    let page = td.embedder().take(gpa, Level::Pt);
    td.add_page(
        PrivateGpa::new(gpa),
        page,
        tdx_abi::Hpa::new(SCRATCH + 0x3000),
    )
    .unwrap();
}

fn mrtd(td: &Td<Host>) -> Vec<u64> {
    let read = |element| {
        let field = tdr_tdcs::MRTD.offset_by(element).into_bits();
        let operands = [td.tdr().bits(), field, 0];
        td.embedder().call(0, SeamcallLeaf::TDH_MNG_RD, operands).r8
    };
    (0..6).map(read).collect()
}

/// 512 pages added and promoted without BLOCK and TRACK: the measurement is the same, whenever a page is measured.
#[test]
fn what_is_added_page_by_page_can_end_as_a_large_page() {
    let built = |promotes| {
        let td = Host::new().create(1);
        td.embedder().promotes.store(promotes, Ordering::Relaxed);
        for (index, gpa) in pages().enumerate() {
            add(&td, gpa);
            if index % 100 == 0 {
                td.extend_page(PrivateGpa::new(gpa)).unwrap();
            }
        }
        td.extend_page(PrivateGpa::new(BASE + 7 * PAGE)).unwrap();
        assert_eq!(calls(&td, ADD), 512);
        assert_eq!(calls(&td, PROMOTE), u64::from(promotes));
        td.finalize().unwrap();
        assert_equal(&td);
        let measured = mrtd(&td);
        let large = leaves(&td, Level::Pd);
        end(td);
        (measured, large)
    };
    let (small, large) = (built(false), built(true));
    assert_eq!((small.1, large.1), (0, 1));
    assert_eq!(small.0, large.0);
}

/// Added pages are accepted, others pending: the module would refuse, and is not asked.
#[test]
fn added_pages_among_others_are_not_tried() {
    let td = promoting(Host::new().create(1));
    add(&td, BASE + 5 * PAGE);
    td.prefault(range(BASE, LARGE), Level::Pt).unwrap();
    assert_eq!(leaves(&td, Level::Pt), 512);
    assert_eq!(td.promote(&[range(BASE, LARGE)]), Ok(0));
    assert_eq!(calls(&td, PROMOTE), 0);
    assert_equal(&td);
    end(td);
}

/// In whichever order the pages come: no TRACK and no kick of its own.
#[test]
fn what_the_guest_has_filled_becomes_a_leaf_with_the_next_track() {
    let orders: [fn() -> Vec<u64>; 3] = [
        || pages().collect(),
        || pages().collect::<Vec<_>>().into_iter().rev().collect(),
        || (0..512).map(|n| BASE + n * 171 % 512 * PAGE).collect(),
    ];
    for host in [Host::new, Host::dynamic] {
        let td = promoting(runnable_on(host(), 1));
        for (round, order) in (1..).zip(orders) {
            fill(&td, order().into_iter(), None);
            assert_eq!(shape(&td), (0, 512), "not by itself");
            assert_eq!(track_for_another(&td), 1);
            assert_eq!(shape(&td), (1, 0));
            assert_eq!(calls(&td, PROMOTE), round);
            assert_equal(&td);
            td.embedder().check_pamt();
            // Once: nothing more happens with the next one.
            let blocked = calls(&td, BLOCK);
            assert_eq!(track_for_another(&td), 1);
            assert_eq!(calls(&td, BLOCK) - blocked, 1);
            assert_eq!(calls(&td, PROMOTE), round);
            td.unmap_private(&[range(BASE, LARGE)]).unwrap();
        }
        end(td);
    }
}

#[test]
fn candidates_are_promoted_on_request_with_one_track() {
    let td = promoting(runnable(1));
    for region in 0..3 {
        fill(&td, pages().map(|gpa| gpa + region * LARGE), None);
    }
    assert_eq!(td.promote_candidates(), Ok(3));
    assert_eq!(calls(&td, TRACK), 1);
    assert_eq!(shape(&td), (3, 0));
    assert_equal(&td);
    assert_eq!(td.promote_candidates(), Ok(0));
    assert_eq!((calls(&td, TRACK), calls(&td, BLOCK)), (1, 3));
    end(td);
}

/// There is room for 16; the others stay small, and every one of the 16 is promoted.
#[test]
fn more_candidates_than_there_is_room_for_are_passed_over() {
    let td = promoting(runnable(1));
    for region in 0..18 {
        let gpas = pages().map(|gpa| gpa + region * LARGE);
        gpas.for_each(|gpa| {
            fault(&td, gpa, AccessKind::Accept(Level::Pt));
        });
    }
    assert_eq!(td.promote_candidates(), Ok(16));
    assert_eq!(shape(&td), (16, 2 * 512));
    assert_equal(&td);
    end(td);
}

/// Nothing is tried of which the host does not know that it can succeed.
#[test]
fn what_cannot_be_promoted_costs_no_call() {
    let td = promoting(runnable(1));
    let untouched = |td: &Td<Host>| {
        track_for_another(td);
        assert_eq!(td.promote_candidates(), Ok(0));
        assert_eq!(calls(td, PROMOTE), 0);
        assert_eq!(shape(td), (0, 512));
        assert_equal(td);
        td.unmap_private(&[range(BASE, LARGE)]).unwrap();
    };
    // Mapped ahead of the guest, which may have accepted none of it or some.
    td.prefault(range(BASE, LARGE), Level::Pt).unwrap();
    untouched(&td);
    // One page of 512 that the guest did not ask for by ACCEPT.
    fault(&td, BASE + 9 * PAGE, AccessKind::Read);
    fill(&td, pages().filter(|gpa| *gpa != BASE + 9 * PAGE), None);
    untouched(&td);
    // One page that lies elsewhere.
    fill(&td, pages(), None);
    let spare = td.embedder().spare(0);
    td.relocate(PrivateGpa::new(BASE + 3 * PAGE), spare)
        .unwrap();
    untouched(&td);
    // The embedder does not want it.
    td.embedder().promotes.store(false, Ordering::Relaxed);
    fill(&td, pages(), None);
    untouched(&td);
    // A page is missing when the TRACK comes.
    td.embedder().promotes.store(true, Ordering::Relaxed);
    fill(&td, pages(), None);
    td.unmap_private(&[range(BASE, PAGE)]).unwrap();
    assert_eq!((calls(&td, PROMOTE), shape(&td)), (0, (0, 511)));
    assert_equal(&td);
    end(td);
}

/// The guest has asked for a page and not accepted it yet: the module refuses, all stays as it was, and it is not
/// tried again.
#[test]
fn a_page_that_is_still_pending_is_refused_once() {
    let td = promoting(runnable(1));
    fill(&td, pages(), Some(BASE + 100 * PAGE));
    for _ in 0..3 {
        assert_eq!(track_for_another(&td), 1);
        assert_eq!(calls(&td, PROMOTE), 1);
        assert_eq!(shape(&td), (0, 512));
        assert_equal(&td);
    }
    end(td);
}

/// A page of a large one is converted to shared and back again: the split is undone once it has been accepted.
#[test]
fn a_demotion_is_undone() {
    let td = promoting(runnable(1));
    let host = td.embedder();
    *host.largest.lock().unwrap() = Level::Pd;
    assert_eq!(
        fault(&td, BASE, AccessKind::Accept(Level::Pd)),
        Resolution::Mapped(Level::Pd)
    );
    host.enter(1, td.tdvpr(0).unwrap());
    assert_eq!(host.accept(1, BASE, Level::Pd), 0);
    host.leave(1);
    let page = BASE + 77 * PAGE;
    td.convert(range(page, PAGE), Visibility::Shared).unwrap();
    assert_eq!(shape(&td), (0, 511));
    td.convert(range(page, PAGE), Visibility::Private).unwrap();
    fill(&td, [page].into_iter(), None);
    assert_eq!(shape(&td), (0, 512));
    track_for_another(&td);
    assert_eq!(shape(&td), (1, 0));
    assert_eq!(calls(&td, PROMOTE), 1);
    assert_equal(&td);
    end(td);
}

#[test]
fn before_the_end_of_the_build_removal_goes_by_large_pages() {
    let td = Host::new().create(1);
    td.prefault(range(BASE, LARGE), Level::Pt).unwrap();
    // Prefaulted before the embedder wanted large pages.
    let td = promoting(td);
    td.unmap_private(&[range(BASE, LARGE)]).unwrap();
    assert_eq!((calls(&td, PROMOTE), calls(&td, REMOVE)), (1, 1));
    assert_eq!((calls(&td, BLOCK), calls(&td, TRACK)), (0, 0));
    assert_equal(&td);
    end(td);
}

/// Later where the embedder prefers a second TRACK to 1018 calls, and where it is sure to succeed.
#[test]
fn removal_goes_by_large_pages_where_the_embedder_prefers_that() {
    let td = promoting(runnable(1));
    let host = td.embedder();
    let total = || -> u64 { host.platform.counters().seamcalls_by_name().values().sum() };
    for (promotes, filled, expected) in
        [(false, true, 1537), (true, true, 519), (true, false, 1537)]
    {
        host.promotes_before_removal
            .store(promotes, Ordering::Relaxed);
        if filled {
            fill(&td, pages(), None);
        } else {
            td.prefault(range(BASE, LARGE), Level::Pt).unwrap();
        }
        let before = total();
        td.unmap_private(&[range(BASE, LARGE)]).unwrap();
        assert_eq!(total() - before, expected, "{promotes} {filled}");
        assert_eq!(shape(&td), (0, 0));
        assert_equal(&td);
    }
    end(td);
}

const SHARED: u64 = 1 << 47;

/// Level of the shared leaf at `gpa`.
fn shared_level(td: &Td<Host>, gpa: u64) -> Level {
    let at = td
        .shared()
        .look(td.embedder(), tdx_abi::Gpa::new(SHARED | gpa));
    assert!(at.entry.is_leaf(), "{at:?}");
    at.level
}

/// The guest converts `[start, end)` to shared in steps of `step` bytes and uses each part at once.
fn share(td: &Td<Host>, start: u64, end: u64, step: u64, level: Level) {
    for gpa in (start..end).step_by(step as usize) {
        td.declare(range(gpa, step), Visibility::Shared).unwrap();
        assert_eq!(
            fault(td, SHARED | gpa, AccessKind::Write),
            Resolution::Mapped(level)
        );
    }
}

/// Something that flushes the shared EPT once.
fn flush_for_another(td: &Td<Host>) {
    let invepts = || td.embedder().invepts.load(Ordering::Relaxed);
    td.declare(range(OTHER, PAGE), Visibility::Shared).unwrap();
    fault(td, SHARED | OTHER, AccessKind::Write);
    let before = invepts();
    td.unmap_shared(&[range(OTHER, PAGE)]).unwrap();
    assert_eq!(invepts(), before + 1);
}

/// Page by page, and in a backing that is contiguous for 2 MiB or not.
#[test]
fn a_shared_table_that_faults_have_completed_becomes_a_leaf_with_the_next_flush() {
    for (run, expected) in [(Level::Pd, Level::Pd), (Level::Pt, Level::Pt)] {
        let td = runnable(1);
        *td.embedder().shared_run.lock().unwrap() = run;
        share(&td, BASE, BASE + LARGE, PAGE, Level::Pt);
        assert_eq!(shared_level(&td, BASE), Level::Pt, "not by itself");
        flush_for_another(&td);
        assert_eq!(shared_level(&td, BASE + 5 * PAGE), expected);
        // Converted back, none of it is shared.
        td.convert(range(BASE, LARGE), Visibility::Private).unwrap();
        assert_eq!(
            fault(&td, SHARED | BASE, AccessKind::Read),
            Resolution::MemoryFault {
                gpa: BASE,
                private: false
            }
        );
        end(td);
    }
}

#[test]
fn shared_memory_becomes_a_leaf_of_1_gib() {
    let ram = 1 << 30;
    let td = runnable(1);
    *td.embedder().shared_run.lock().unwrap() = Level::Pdpt;
    share(&td, 0, ram, LARGE, Level::Pd);
    // The whole of it goes with a flush that is due anyway; here on request.
    assert_eq!(td.promote_shared(range(0, ram)), 1);
    assert_eq!(shared_level(&td, 7 * LARGE), Level::Pdpt);
    // One page is taken out of its middle, and comes back.
    td.unmap_shared(&[range(BASE, PAGE)]).unwrap();
    assert_eq!(shared_level(&td, BASE + PAGE), Level::Pt);
    assert_eq!(
        fault(&td, SHARED | BASE, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    assert_eq!(shared_level(&td, BASE), Level::Pt);
    // The flush is of another GiB of the tree.
    let beyond = range(ram, PAGE);
    assert_eq!(fault(&td, SHARED | ram, AccessKind::Read), Resolution::Mmio);
    td.unmap_shared(&[beyond]).unwrap();
    assert_eq!(shared_level(&td, BASE), Level::Pdpt);
    end(td);
}

/// Large pages would hide which page is dirty.
#[test]
fn shared_pages_stay_small_while_their_dirtiness_is_logged_by_page() {
    let td = runnable(1);
    td.log_dirty(range(BASE, LARGE), true).unwrap();
    share(&td, BASE, BASE + LARGE, PAGE, Level::Pt);
    flush_for_another(&td);
    assert_eq!(shared_level(&td, BASE), Level::Pt);
    assert_eq!(td.promote_shared(range(BASE, LARGE)), 1);
    assert_eq!(shared_level(&td, BASE), Level::Pd);
    // From now on again by itself.
    share(&td, BASE + LARGE, BASE + 2 * LARGE, PAGE, Level::Pt);
    flush_for_another(&td);
    assert_eq!(shared_level(&td, BASE + LARGE), Level::Pd);
    end(td);
}
