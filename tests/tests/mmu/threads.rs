//! Everything at once, from several threads on LPs of their own.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::embed::Backing;
use tdx_mmu::mirror::Kind;
use tdx_mmu::td::Access;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Error;

use super::compare::assert_equal;
use super::host::Host;
use super::host::range;
use super::host::run_on;
use super::life::end;
use super::life::runnable;
use super::life::runnable_on;

const SHARED: u64 = 1 << 47;
const LARGE: u64 = 0x20_0000;
/// Guest memory that the threads quarrel about.
const BASE: u64 = 0x1000_0000;
const BYTES: u64 = 4 * LARGE;

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn page(&mut self) -> u64 {
        BASE + (self.below(BYTES) & !0xfff)
    }
}

/// One operation somewhere; what other threads make impossible is an answer, not a failure.
fn step(td: &Td<Host>, random: &mut Random, moved: &AtomicU64) -> Result<(), Error> {
    let page = random.page();
    let pages = 1 + random.below(600);
    let some = range(page, (pages << 12).min(BASE + BYTES - page));
    let large = range(page & !(LARGE - 1), LARGE);
    match random.below(16) {
        0..6 => td
            .fault(Access {
                gpa: Gpa::new(page),
                kind: AccessKind::Write,
            })
            .map(drop),
        6 => td
            .fault(Access {
                gpa: Gpa::new(page),
                kind: AccessKind::Accept(Level::Pt),
            })
            .map(drop),
        7 => td
            .fault(Access {
                gpa: Gpa::new(SHARED | page),
                kind: AccessKind::Read,
            })
            .map(drop),
        8 => td.prefault(some, Level::Pd).map(drop),
        9 | 10 => td.unmap_private(&[some]),
        11 => td.convert(some, Visibility::Shared),
        12 => td.convert(some, Visibility::Private),
        13 => td.promote(&[large]).map(drop),
        14 => td.split(PrivateGpa::new(page)),
        _ => relocate(td, page, moved),
    }
}

/// Moves the page at `page` to a place that nobody uses, if it is a 4 KiB page.
fn relocate(td: &Td<Host>, page: u64, moved: &AtomicU64) -> Result<(), Error> {
    let at = td.mirror().look(td.embedder(), PrivateGpa::new(page));
    if at.level != Level::Pt || !matches!(at.entry.kind(), Kind::Leaf(_)) {
        return Ok(());
    }
    let spare = td.embedder().spare(moved.fetch_add(1, Ordering::Relaxed));
    td.relocate(at.gpa, spare).or_else(|rejected| {
        rejected
            .page
            .into_iter()
            .for_each(|page| td.embedder().take_back(at.gpa, page));
        match rejected.error {
            Error::Unexpected(_) => Ok(()),
            error => Err(error),
        }
    })
}

/// Mirror and Secure-EPT are equal, every page is mapped or with the host, nothing is left blocked, all comes back.
fn settle(td: Td<Host>) {
    assert_equal(&td);
    td.embedder().check_pamt();
    let leaves: u64 = super::compare::bytes(&td);
    assert_eq!(
        td.embedder().private_in_use(),
        leaves,
        "pages neither mapped nor with the host"
    );
    // Nothing is left blocked: every page can be unmapped.
    td.discard(&[range(BASE, BYTES)]).unwrap();
    assert_equal(&td);
    assert_eq!(td.embedder().private_in_use(), 4096, "the measured page");
    end(td);
}

#[test]
fn threads_leave_mirror_and_secure_ept_equal() {
    for round in 0..3 {
        quarrel(runnable(1), round);
    }
}

#[test]
fn threads_leave_mirror_and_secure_ept_equal_with_dynamic_pamt() {
    for round in 0..3 {
        quarrel(runnable_on(Host::dynamic(), 1), round);
    }
}

/// Faults and invalidations in one 2 MiB range: one thread brings the pair, the last one takes it.
#[test]
fn threads_share_the_pamt_pair_of_a_range() {
    let td = runnable_on(Host::dynamic(), 1);
    let host = td.embedder();
    host.patience.store(usize::MAX, Ordering::Relaxed);
    let before = host.pamt_pairs();
    // Their tables are there, so that only the range of the backing comes and goes.
    td.prefault(range(BASE, LARGE), Level::Pt).unwrap();
    assert_eq!(host.pamt_pairs(), before + 1);
    td.unmap_private(&[range(BASE, LARGE)]).unwrap();
    assert_eq!(host.pamt_pairs(), before);
    std::thread::scope(|scope| {
        for lp in 1..4 {
            let td = &td;
            scope.spawn(move || {
                run_on(lp);
                for round in 0..100 {
                    let page = BASE + (lp as u64 * 16 + round % 3) * 0x1000;
                    td.fault(Access {
                        gpa: Gpa::new(page),
                        kind: AccessKind::Write,
                    })
                    .unwrap();
                    td.unmap_private(&[range(page, 0x1000)]).unwrap();
                }
            });
        }
    });
    host.check_pamt();
    assert_eq!(host.pamt_pairs(), before);
    assert_equal(&td);
    end(td);
}

/// Promotions that one thread has to see succeed while others change what it promotes.
const PROMOTIONS: u64 = 12;

#[test]
fn threads_reshape_a_range_that_others_use() {
    reshape(runnable(1));
    reshape(runnable_on(Host::dynamic(), 1));
}

/// One thread maps, splits and promotes a 2 MiB range over and over; one faults in it, one takes pages away and moves them.
fn reshape(td: Td<Host>) {
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    *td.embedder().blocks.lock().unwrap() = Some(BTreeMap::new());
    td.embedder().patience.store(usize::MAX, Ordering::Relaxed);
    let large = range(BASE, LARGE);
    let tolerated = |done: Result<u64, Error>| match done {
        Ok(count) => count,
        // What another thread has changed meanwhile.
        Err(Error::Unexpected(_)) => 0,
        Err(error) => panic!("{error}"),
    };
    let moved = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let td = &td;
        scope.spawn(move || {
            run_on(1);
            let mut promoted = 0;
            while promoted < PROMOTIONS {
                tolerated(td.prefault(large, Level::Pd));
                tolerated(td.split(PrivateGpa::new(BASE)).map(|()| 0));
                match tolerated(td.promote(&[large])) {
                    // A page lies elsewhere, or is accepted and others are not.
                    0 => tolerated(td.unmap_private(&[large]).map(|()| 0)),
                    count => {
                        promoted += count;
                        count
                    }
                };
            }
        });
        scope.spawn(move || {
            run_on(2);
            let mut random = Random(0x1357_9bdf_0246_8ace);
            for _ in 0..600 {
                let gpa = Gpa::new(BASE + (random.below(LARGE) & !0xfff));
                let kind = AccessKind::Write;
                tolerated(td.fault(Access { gpa, kind }).map(|_| 0));
            }
        });
        let moved = &moved;
        scope.spawn(move || {
            run_on(3);
            let mut random = Random(0xfdb9_7531_eca8_6420);
            for _ in 0..60 {
                let page = BASE + (random.below(LARGE) & !0xfff);
                let bytes = (4096 << random.below(6)).min(BASE + LARGE - page);
                tolerated(td.unmap_private(&[range(page, bytes)]).map(|()| 0));
                let page = BASE + (random.below(LARGE) & !0xfff);
                tolerated(relocate(td, page, moved).map(|()| 0));
            }
        });
    });
    settle(td);
}

/// Leaves that 450 operations of the mix come to, whatever the threads do to each other.
const USED: [SeamcallLeaf; 6] = [
    SeamcallLeaf::TDH_MEM_SEPT_ADD,
    SeamcallLeaf::TDH_MEM_PAGE_AUG,
    SeamcallLeaf::TDH_MEM_RANGE_BLOCK,
    SeamcallLeaf::TDH_MEM_TRACK,
    SeamcallLeaf::TDH_MEM_PAGE_REMOVE,
    SeamcallLeaf::TDH_MEM_PAGE_DEMOTE,
];

fn quarrel(td: Td<Host>, round: u64) {
    let large = round > 0;
    *td.embedder().largest.lock().unwrap() = if large { Level::Pd } else { Level::Pt };
    *td.embedder().blocks.lock().unwrap() = Some(BTreeMap::new());
    td.embedder().patience.store(usize::MAX, Ordering::Relaxed);
    td.embedder().promotes.store(true, Ordering::Relaxed);
    td.embedder()
        .promotes_before_removal
        .store(round == 2, Ordering::Relaxed);
    if large {
        // Where a single page comes first, its table is in the way of a large one.
        let mapped = td.prefault(range(BASE, BYTES), Level::Pd).unwrap();
        assert_eq!(mapped, BYTES);
    }
    let moved = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for lp in 1..4 {
            let (td, moved) = (&td, &moved);
            scope.spawn(move || {
                run_on(lp);
                let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (round * 4 + lp as u64) << 7);
                for _ in 0..150 {
                    match step(td, &mut random, moved) {
                        // The backing of this test knows whole pages only.
                        Ok(()) | Err(Error::Unexpected(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let counters = td.embedder().platform.counters();
    for leaf in USED {
        let small = !large && leaf == SeamcallLeaf::TDH_MEM_PAGE_DEMOTE;
        assert!(
            small || counters.seamcalls(leaf) > 0,
            "{leaf} was never called"
        );
    }
    settle(td);
}
