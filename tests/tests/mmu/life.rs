//! Whole lives of a TD, and what each operation leaves behind.

use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::OpState;
use tdx_abi::PrivateGpa;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::td::Access;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Resolution;

use super::compare::assert_equal;
use super::compare::leaves;
use super::host::Host;
use super::host::RAM;
use super::host::SCRATCH;
use super::host::range;

const SHARED: u64 = 1 << 47;

/// A TD that runs, with `vcpus` vCPUs and one measured page at 0.
pub fn runnable(vcpus: usize) -> Td<Host> {
    runnable_on(Host::new(), vcpus)
}

/// The same of `host`.
pub fn runnable_on(host: Host, vcpus: usize) -> Td<Host> {
    finalized(host.create(vcpus))
}

/// The TD with one measured page at 0, after the end of its build.
pub fn finalized(td: Td<Host>) -> Td<Host> {
    let page = td.embedder().take(0, Level::Pt);
    td.add_page(
        PrivateGpa::new(0),
        page,
        tdx_abi::Hpa::new(SCRATCH + 0x3000),
    )
    .unwrap();
    td.extend_page(PrivateGpa::new(0)).unwrap();
    td.finalize().unwrap();
    td
}

pub fn fault(td: &Td<Host>, gpa: u64, kind: AccessKind) -> Resolution {
    td.fault(Access {
        gpa: Gpa::new(gpa),
        kind,
    })
    .unwrap()
}

/// Tears the TD down and checks that every page is back and free.
#[track_caller]
pub fn end(td: Td<Host>) {
    let teardown = td.teardown().unwrap_or_else(|(_, error)| panic!("{error}"));
    let torn = teardown
        .finish()
        .unwrap_or_else(|(_, error)| panic!("{error}"));
    assert_free(&torn.embedder);
}

/// Fails unless every page is back and free.
#[track_caller]
pub fn assert_free(host: &Host) {
    host.check_pamt();
    assert_eq!(
        (
            host.tables_in_use(),
            host.module_pages_in_use(),
            host.private_in_use()
        ),
        (0, 0, 0)
    );
    for page in host
        .allocated
        .lock()
        .unwrap()
        .iter()
        .chain(&[Host::backing(0), Host::backing(0x20_0000)])
    {
        let (kind, _) = host.platform.page_metadata(*page, Level::Pt).unwrap();
        assert_eq!(format!("{kind:?}"), "Nda", "page {page:#x}");
    }
}

#[test]
fn a_td_is_built_runs_and_gives_every_page_back() {
    let td = runnable(2);
    assert_eq!(td.op_state(), OpState::Runnable);
    assert_equal(&td);
    end(td);
}

#[test]
fn a_td_is_torn_down_from_every_stage_of_its_build() {
    end(Host::new().create(0));
    end(Host::new().create(1));
    let td = Host::new().create(1);
    let page = td.embedder().take(0, Level::Pt);
    td.add_page(
        PrivateGpa::new(0),
        page,
        tdx_abi::Hpa::new(SCRATCH + 0x3000),
    )
    .unwrap();
    end(td);
}

#[test]
fn private_faults_map_split_and_report() {
    let td = runnable(1);
    assert_eq!(
        fault(&td, 0x5000, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    assert_eq!(
        fault(&td, 0x5000, AccessKind::Write),
        Resolution::Spurious(Level::Pt)
    );
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    assert_eq!(
        fault(&td, 0x40_3000, AccessKind::Read),
        Resolution::Mapped(Level::Pd)
    );
    assert_eq!(
        fault(&td, 0x40_0000, AccessKind::Accept(Level::Pd)),
        Resolution::Spurious(Level::Pd)
    );
    // A table with 4 KiB entries is in the way of a 2 MiB page, not of a 4 KiB one.
    assert_eq!(
        fault(&td, 0x6000, AccessKind::Read),
        Resolution::Mapped(Level::Pt)
    );
    assert_eq!(
        fault(&td, 0x8000, AccessKind::Accept(Level::Pd)),
        Resolution::SizeMismatch { mapped: Level::Pt }
    );
    // Accepting 4 KiB under a pending 2 MiB page splits it.
    assert_eq!(
        fault(&td, 0x40_1000, AccessKind::Accept(Level::Pt)),
        Resolution::Split
    );
    assert_eq!(
        fault(&td, 0x40_1000, AccessKind::Accept(Level::Pt)),
        Resolution::Spurious(Level::Pt)
    );
    // Where the guest accepts 4 KiB, 4 KiB is mapped.
    assert_eq!(
        fault(&td, 0x80_0000, AccessKind::Accept(Level::Pt)),
        Resolution::Mapped(Level::Pt)
    );
    assert_eq!(leaves(&td, Level::Pt), 1 + 2 + 512 + 1);
    assert_eq!(
        fault(&td, SHARED | 0x5000, AccessKind::Read),
        Resolution::MemoryFault {
            gpa: 0x5000,
            private: false
        }
    );
    assert_eq!(
        fault(&td, RAM, AccessKind::Read),
        Resolution::MemoryFault {
            gpa: RAM,
            private: true
        }
    );
    assert_eq!(fault(&td, SHARED | RAM, AccessKind::Read), Resolution::Mmio);
    assert_equal(&td);
    end(td);
}

#[test]
fn a_conversion_takes_exactly_its_range() {
    let td = runnable(1);
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    for gpa in [0x20_0000, 0x40_0000, 0x60_0000] {
        assert_eq!(
            fault(&td, gpa, AccessKind::Write),
            Resolution::Mapped(Level::Pd)
        );
    }
    // Half of the first page, all of the second, a third of the third.
    td.convert(range(0x30_0000, 0x38_0000), Visibility::Shared)
        .unwrap();
    assert_equal(&td);
    assert_eq!(
        (leaves(&td, Level::Pd), leaves(&td, Level::Pt)),
        (0, 1 + 256 + 384)
    );
    for (gpa, private) in [
        (0x2f_f000, true),
        (0x30_0000, false),
        (0x67_f000, false),
        (0x68_0000, true),
    ] {
        let expected = if private {
            Resolution::Spurious(Level::Pt)
        } else {
            Resolution::MemoryFault { gpa, private: true }
        };
        assert_eq!(fault(&td, gpa, AccessKind::Write), expected);
    }
    assert_eq!(
        fault(&td, SHARED | 0x30_0000, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    assert_eq!(
        fault(&td, SHARED | 0x40_0000, AccessKind::Write),
        Resolution::Mapped(Level::Pd)
    );
    // And back, in the middle of the shared large page.
    td.convert(range(0x41_0000, 0x1000), Visibility::Private)
        .unwrap();
    assert_eq!(
        fault(&td, SHARED | 0x41_0000, AccessKind::Write),
        Resolution::MemoryFault {
            gpa: 0x41_0000,
            private: false
        }
    );
    assert_eq!(
        fault(&td, SHARED | 0x40_0000, AccessKind::Write),
        Resolution::Spurious(Level::Pt)
    );
    assert_eq!(
        fault(&td, 0x41_0000, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    assert_equal(&td);
    end(td);
}

#[test]
fn memory_is_reshaped_before_finalize_without_tracking() {
    let td = Host::new().create(1);
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    assert_eq!(
        td.prefault(range(0x40_0000, 0x40_0000), Level::Pd).unwrap(),
        0x40_0000
    );
    assert_equal(&td);
    td.split(PrivateGpa::new(0x40_5000)).unwrap();
    assert_equal(&td);
    assert_eq!((leaves(&td, Level::Pd), leaves(&td, Level::Pt)), (1, 512));
    assert_eq!(td.promote(&[range(0x40_0000, 0x20_0000)]).unwrap(), 1);
    assert_equal(&td);
    assert_eq!((leaves(&td, Level::Pd), leaves(&td, Level::Pt)), (2, 0));
    td.unmap_private(&[range(0x40_0000, 0x20_0000)]).unwrap();
    assert_equal(&td);
    assert_eq!(
        td.embedder()
            .kicks
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
    end(td);
}

#[test]
fn a_promotion_is_undone_where_the_guest_accepted_some_pages_only() {
    let td = runnable(1);
    td.prefault(range(0x20_0000, 0x40_0000), Level::Pt).unwrap();
    let host = td.embedder();
    host.enter(0, td.tdvpr(0).unwrap());
    assert_eq!(host.accept(0, 0x20_0000, Level::Pt), 0);
    host.leave(0);
    assert_eq!(td.promote(&[range(0x20_0000, 0x40_0000)]).unwrap(), 1);
    assert_equal(&td);
    assert_eq!(
        (leaves(&td, Level::Pd), leaves(&td, Level::Pt)),
        (1, 1 + 512)
    );
    assert_eq!(
        fault(&td, 0x20_1000, AccessKind::Write),
        Resolution::Spurious(Level::Pt)
    );
    end(td);
}

#[test]
fn a_relocated_page_is_mapped_elsewhere_and_the_old_one_comes_back() {
    let td = runnable(1);
    fault(&td, 0x7000, AccessKind::Write);
    let before = td.embedder().private_in_use();
    let spare = td.embedder().spare(3);
    let target = spare.hpa();
    td.relocate(PrivateGpa::new(0x7000), spare).unwrap();
    assert_equal(&td);
    assert_eq!(
        td.mirror()
            .look(td.embedder(), PrivateGpa::new(0x7000))
            .entry
            .address(),
        target
    );
    assert_eq!(td.embedder().private_in_use(), before);
    end(td);
}

#[test]
fn trimming_gives_empty_tables_back_while_the_td_lives() {
    let td = runnable(1);
    let before = (
        td.embedder().tables_in_use(),
        td.embedder().module_pages_in_use(),
    );
    td.prefault(range(0x2000_0000, 0x40_0000), Level::Pt)
        .unwrap();
    td.unmap_private(&[range(0x2000_0000, 0x40_0000)]).unwrap();
    fault(&td, 0x2020_0000, AccessKind::Write);
    // Two lowest tables, one of them in use.
    assert_eq!(td.trim(super::host::ram()).unwrap(), 1);
    assert_equal(&td);
    td.unmap_private(&[range(0x2000_0000, 0x40_0000)]).unwrap();
    assert_eq!(td.trim(super::host::ram()).unwrap(), 1);
    assert_equal(&td);
    assert_eq!(
        (
            td.embedder().tables_in_use(),
            td.embedder().module_pages_in_use()
        ),
        before
    );
    end(td);
}

#[test]
fn shared_memory_is_watched_and_its_pages_are_merged_again() {
    let td = runnable(1);
    let large = range(0x2000_0000, 0x20_0000);
    td.convert(large, Visibility::Shared).unwrap();
    assert_eq!(
        fault(&td, SHARED | 0x2000_5000, AccessKind::Read),
        Resolution::Mapped(Level::Pd)
    );
    let invepts = || {
        td.embedder()
            .invepts
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let before = invepts();
    td.log_dirty(large, true).unwrap();
    assert_eq!(invepts(), before + 1);
    assert_eq!(
        fault(&td, SHARED | 0x2000_5000, AccessKind::Read),
        Resolution::Spurious(Level::Pt)
    );
    assert_eq!(
        fault(&td, SHARED | 0x2000_5000, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    assert_eq!(
        td.embedder().dirty.lock().unwrap().as_slice(),
        [(0x2000_5000, Level::Pt)]
    );
    assert_eq!(
        fault(&td, SHARED | 0x2000_5000, AccessKind::Write),
        Resolution::Spurious(Level::Pt)
    );
    // One page differs, so the table stays; with all granted alike it becomes one leaf.
    assert_eq!(td.promote_shared(large), 0);
    td.log_dirty(large, false).unwrap();
    assert_eq!(td.promote_shared(large), 1);
    assert_eq!(
        fault(&td, SHARED | 0x2000_6000, AccessKind::Write),
        Resolution::Mapped(Level::Pd)
    );

    let mut used = Vec::new();
    for _ in 0..2 {
        td.age(large, |gpa, level, in_use| {
            used.push((gpa.bits(), level, in_use))
        });
    }
    assert_eq!(
        used,
        [
            (0x2000_0000, Level::Pd, true),
            (0x2000_0000, Level::Pd, false)
        ]
    );
    assert_eq!(
        fault(&td, SHARED | 0x2000_6000, AccessKind::Read),
        Resolution::Mapped(Level::Pd)
    );

    td.protect(
        range(0x2010_0000, 0x1000),
        tdx_mmu::shared::Permissions::READ,
    )
    .unwrap();
    assert_eq!(
        fault(&td, SHARED | 0x2010_0000, AccessKind::Write),
        Resolution::Denied { gpa: 0x2010_0000 }
    );
    assert_eq!(
        fault(&td, SHARED | 0x2010_1000, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    end(td);
}

#[test]
fn a_range_converted_in_steps_is_mapped_large_again() {
    let td = runnable(1);
    for step in 0..4 {
        td.convert(
            range(0x2000_0000 + step * 0x8_0000, 0x8_0000),
            Visibility::Shared,
        )
        .unwrap();
    }
    assert_eq!(
        fault(&td, SHARED | 0x2000_0000, AccessKind::Read),
        Resolution::Mapped(Level::Pd)
    );
    end(td);
}

#[test]
fn many_conversions_end_in_what_was_asked_for_last() {
    let td = runnable(1);
    let mut model = vec![Visibility::Private; 2048];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..400 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let (first, count) = ((seed % 2048) as usize, 1 + (seed >> 20) as usize % 700);
        let end = (first + count).min(2048);
        let visibility = if seed >> 40 & 1 == 0 {
            Visibility::Private
        } else {
            Visibility::Shared
        };
        td.declare(
            range(
                0x3000_0000 + first as u64 * 4096,
                (end - first) as u64 * 4096,
            ),
            visibility,
        )
        .unwrap();
        model[first..end].fill(visibility);
        for (page, expected) in model.iter().enumerate() {
            assert_eq!(
                td.visibility(0x3000_0000 + page as u64 * 4096),
                *expected,
                "page {page}"
            );
        }
    }
    assert_eq!(td.visibility(0x2fff_f000), Visibility::Private);
    assert_eq!(td.visibility(0x3080_0000), Visibility::Private);
    end(td);
}

#[test]
fn a_teardown_stops_when_asked_and_goes_on() {
    let td = runnable(1);
    td.prefault(range(0x1000, 0x10_0000), Level::Pt).unwrap();
    let teardown = td.teardown().unwrap_or_else(|(_, error)| panic!("{error}"));
    let all = teardown.everything();
    let first = teardown.reclaim(all, |done| done < 10).unwrap();
    assert_eq!((first.leaves, first.next), (10, Some(0xa000)));
    let rest = range(0xa000, all.end() - 0xa000);
    let last = teardown.reclaim(rest, |_| true).unwrap();
    assert_eq!((last.leaves, last.next), (257 - 10, None));
    let host = teardown
        .finish()
        .unwrap_or_else(|(_, error)| panic!("{error}"))
        .embedder;
    assert_eq!(
        (
            host.tables_in_use(),
            host.module_pages_in_use(),
            host.private_in_use()
        ),
        (0, 0, 0)
    );
}
