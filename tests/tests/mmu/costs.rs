//! The cost table: SEAMCALLs of each operation as the emulated module counts them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::StatusCode;
use tdx_mmu::Td;
use tdx_mmu::embed::Backing;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Error;
use tdx_mmu::td::Resolution;

use super::compare::assert_equal;
use super::host::Host;
use super::host::range;
use super::life::end;
use super::life::fault;
use super::life::runnable;

type Counts = BTreeMap<&'static str, u64>;

/// The SEAMCALLs that `work` makes.
fn count(td: &Td<Host>, work: impl FnOnce()) -> Counts {
    let counters = td.embedder().platform.counters();
    let before = counters.seamcalls_by_name();
    work();
    let after = counters.seamcalls_by_name().into_iter();
    after
        .map(|(leaf, count)| (leaf, count - before.get(leaf).unwrap_or(&0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

#[track_caller]
fn expect(td: &Td<Host>, expected: &[(&'static str, u64)], work: impl FnOnce()) {
    assert_eq!(
        count(td, work),
        expected.iter().copied().collect::<Counts>()
    );
    assert_equal(td);
}

const MAPPED: Resolution = Resolution::Mapped(Level::Pt);
const LARGE: Resolution = Resolution::Mapped(Level::Pd);

const AUG: &str = "TDH.MEM.PAGE.AUG";
const BLOCK: &str = "TDH.MEM.RANGE.BLOCK";
const DEMOTE: &str = "TDH.MEM.PAGE.DEMOTE";
const PROMOTE: &str = "TDH.MEM.PAGE.PROMOTE";
const REMOVE: &str = "TDH.MEM.PAGE.REMOVE";
const SEPT_ADD: &str = "TDH.MEM.SEPT.ADD";
const TRACK: &str = "TDH.MEM.TRACK";
const WBINVD: &str = "TDH.PHYMEM.PAGE.WBINVD";

#[test]
fn mapping() {
    let td = runnable(1);
    expect(&td, &[(AUG, 1)], || {
        assert_eq!(fault(&td, 0x1000, AccessKind::Write), MAPPED)
    });
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    expect(&td, &[(AUG, 1)], || {
        assert_eq!(fault(&td, 0x20_0000, AccessKind::Write), LARGE)
    });
    // Spurious faults, looks and refusals cost nothing.
    expect(&td, &[], || {
        assert_eq!(
            fault(&td, 0x20_0000, AccessKind::Write),
            Resolution::Spurious(Level::Pd)
        )
    });
    expect(&td, &[(AUG, 2)], || {
        assert_eq!(
            td.prefault(range(0x40_0000, 0x40_0000), Level::Pd),
            Ok(0x40_0000)
        )
    });
    end(td);
}

#[test]
fn unmapping_2_mib_held_as_4_kib_pages() {
    let td = runnable(4);
    td.prefault(range(0x20_0000, 0x40_0000), Level::Pt).unwrap();
    expect(
        &td,
        &[(BLOCK, 512), (TRACK, 1), (REMOVE, 512), (WBINVD, 512)],
        || {
            td.unmap_private(&[range(0x20_0000, 0x20_0000)]).unwrap();
        },
    );
    expect(
        &td,
        &[
            (BLOCK, 2),
            (TRACK, 2),
            (PROMOTE, 1),
            (REMOVE, 1),
            (WBINVD, 513),
        ],
        || {
            td.unmap_private_promoting(&[range(0x40_0000, 0x20_0000)])
                .unwrap();
        },
    );
    end(td);
}

#[test]
fn unmapping_and_splitting_large_leaves() {
    let td = runnable(1);
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    td.prefault(range(0x20_0000, 0x120_0000), Level::Pd)
        .unwrap();
    expect(
        &td,
        &[(BLOCK, 1), (TRACK, 1), (REMOVE, 1), (WBINVD, 512)],
        || {
            td.unmap_private(&[range(0x20_0000, 0x20_0000)]).unwrap();
        },
    );
    // The TRACK is shared by a batch.
    expect(
        &td,
        &[(BLOCK, 2), (TRACK, 1), (REMOVE, 2), (WBINVD, 1024)],
        || {
            td.unmap_private(&[range(0x40_0000, 0x20_0000), range(0x80_0000, 0x20_0000)])
                .unwrap();
        },
    );
    expect(&td, &[(BLOCK, 1), (TRACK, 1), (DEMOTE, 1)], || {
        td.split(PrivateGpa::new(0x60_1000)).unwrap()
    });
    let four = [0xa0_0000, 0xc0_0000, 0xe0_0000, 0x100_0000].map(PrivateGpa::new);
    expect(&td, &[(BLOCK, 4), (TRACK, 1), (DEMOTE, 4)], || {
        td.split_many(&four).unwrap()
    });
    end(td);
}

#[test]
fn relocation() {
    let td = runnable(1);
    fault(&td, 0x7000, AccessKind::Write);
    let spare = td.embedder().spare(0);
    expect(
        &td,
        &[
            (BLOCK, 1),
            (TRACK, 1),
            ("TDH.MEM.PAGE.RELOCATE", 1),
            (WBINVD, 1),
        ],
        || {
            td.relocate(PrivateGpa::new(0x7000), spare).unwrap();
        },
    );
    end(td);
}

#[test]
fn build() {
    let td = Host::new().create(1);
    let add = |gpa| {
        let page = td.embedder().take(gpa, Level::Pt);
        td.add_page(
            PrivateGpa::new(gpa),
            page,
            tdx_abi::Hpa::new(super::host::SCRATCH + 0x3000),
        )
        .unwrap();
        td.extend_page(PrivateGpa::new(gpa)).unwrap();
    };
    expect(
        &td,
        &[
            (SEPT_ADD, 3),
            ("TDH.MEM.PAGE.ADD", 1),
            ("TDH.MR.EXTEND", 16),
        ],
        || add(0),
    );
    expect(
        &td,
        &[("TDH.MEM.PAGE.ADD", 1), ("TDH.MR.EXTEND", 16)],
        || add(0x1000),
    );
    expect(&td, &[(REMOVE, 1), (WBINVD, 1)], || {
        td.unmap_private(&[range(0x1000, 0x1000)]).unwrap()
    });
    end(td);
}

#[test]
fn teardown_of_large_leaves() {
    let td = runnable(1);
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    td.prefault(range(0x20_0000, 0x1000_0000), Level::Pd)
        .unwrap();
    let platform = td.embedder().platform;
    let before = platform.counters().seamcalls_by_name();
    end(td);
    let after = platform.counters().seamcalls_by_name();
    let reclaims =
        after["TDH.PHYMEM.PAGE.RECLAIM"] - before.get("TDH.PHYMEM.PAGE.RECLAIM").unwrap_or(&0);
    // 128 leaves and the measured page; a PDPT page, a PD page, a PT page; TDR, 6 TDCX, 6 TDVPS pages.
    assert_eq!(reclaims, 128 + 1 + 3 + 13);
}

/// Puts all four vCPUs into the TD, each on an LP of its own, while `work` runs with kicks or without.
fn with_guests_inside<T>(td: &Td<Host>, work: impl FnOnce() -> T) -> T {
    let host = td.embedder();
    let inside: Vec<_> = (0..4).map(|vcpu| td.enter(vcpu).unwrap()).collect();
    (0..4).for_each(|vcpu| host.enter(vcpu, td.tdvpr(vcpu).unwrap()));
    let result = work();
    (0..4).for_each(|lp| host.leave(lp));
    drop(inside);
    result
}

/// How many kicks `work` needs with four vCPUs inside; without them it must end in
/// TDX_TLB_TRACKING_NOT_DONE, or the number would mean nothing.
#[track_caller]
fn expect_kicks(expected: usize, largest: Level, work: impl Fn(&Td<Host>) -> Result<(), Error>) {
    let prepared = || {
        let td = runnable(4);
        *td.embedder().largest.lock().unwrap() = largest;
        td.prefault(range(0x20_0000, 0x100_0000), largest).unwrap();
        td
    };
    let td = prepared();
    with_guests_inside(&td, || work(&td)).unwrap();
    assert_eq!(td.embedder().kicks.load(Ordering::Relaxed), expected);
    assert_equal(&td);
    end(td);

    let td = prepared();
    td.embedder().kick_disabled.store(true, Ordering::Relaxed);
    let refused = with_guests_inside(&td, || work(&td)).unwrap_err();
    assert_eq!(
        refused.status().unwrap().code(),
        StatusCode::TLB_TRACKING_NOT_DONE,
        "{refused}"
    );
    assert_equal(&td);
    // Repeated with kicks it succeeds.
    td.embedder().kick_disabled.store(false, Ordering::Relaxed);
    work(&td).unwrap();
    assert_equal(&td);
    end(td);
}

#[test]
fn kicks_with_four_vcpus_inside() {
    let large = Level::Pd;
    expect_kicks(1, Level::Pt, |td| {
        td.unmap_private(&[range(0x20_0000, 0x20_0000)])
    });
    expect_kicks(1, large, |td| {
        td.unmap_private(&[range(0x20_0000, 0x80_0000)])
    });
    expect_kicks(1, large, |td| td.split(PrivateGpa::new(0x40_0000)));
    let four = [0x20_0000, 0x40_0000, 0x60_0000, 0x80_0000].map(PrivateGpa::new);
    expect_kicks(1, large, |td| td.split_many(&four));
    expect_kicks(1, Level::Pt, |td| {
        let spare = td.embedder().spare(0);
        td.relocate(PrivateGpa::new(0x20_0000), spare)
            .map_err(|rejected| {
                rejected
                    .page
                    .into_iter()
                    .for_each(|page| td.embedder().take_back(PrivateGpa::new(0), page));
                rejected.error
            })
    });
}

#[test]
fn a_vcpu_that_left_by_itself_needs_no_kick() {
    let td = runnable(4);
    td.prefault(range(0x20_0000, 0x20_0000), Level::Pt).unwrap();
    with_guests_inside(&td, || ());
    td.unmap_private(&[range(0x20_0000, 0x20_0000)]).unwrap();
    assert_eq!(td.embedder().kicks.load(Ordering::Relaxed), 0);
    end(td);
}

#[test]
fn promoting_before_removing_costs_two_kicks_where_vcpus_return_in_between() {
    let td = runnable(4);
    td.prefault(range(0x20_0000, 0x20_0000), Level::Pt).unwrap();
    with_guests_inside(&td, || {
        td.unmap_private_promoting(&[range(0x20_0000, 0x20_0000)])
    })
    .unwrap();
    assert!(td.embedder().kicks.load(Ordering::Relaxed) <= 2);
    assert_equal(&td);
    end(td);
}
