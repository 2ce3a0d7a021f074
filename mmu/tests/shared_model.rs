//! The shared tree against a map from page to frame.
#![expect(
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::Arena;
use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_mmu::deposit::Deposit;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Ept;
use tdx_mmu::shared::EptKind;
use tdx_mmu::shared::EptStop;
use tdx_mmu::shared::Gather;
use tdx_mmu::shared::Permissions;

const SHARED: u64 = 1 << 47;
/// Pages that the operations hit: across a PDPT boundary.
const BASE: u64 = SHARED + (1 << 30) - 1024 * 4096;
const PAGES: u64 = 2048;

#[derive(Clone, Debug)]
enum Op {
    Map { page: u64, frame: u64 },
    MapLarge { large: u64, frame: u64 },
    MapRange { page: u64, pages: u64, frame: u64 },
    Zap { page: u64, pages: u64 },
    Promote { large: u64 },
    CatchWrites { page: u64, pages: u64 },
    Touch { page: u64, write: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let page = 0..PAGES;
    let pages = prop_oneof![Just(1u64), 1..600u64, Just(512), Just(PAGES)];
    let frame = 0..1u64 << 20;
    let large = 0..PAGES / 512;
    prop_oneof![
        (page.clone(), frame.clone()).prop_map(|(page, frame)| Op::Map { page, frame }),
        (large.clone(), frame.clone()).prop_map(|(large, frame)| Op::MapLarge {
            large,
            frame: frame & !511
        }),
        (page.clone(), pages.clone(), frame).prop_map(|(page, pages, frame)| Op::MapRange {
            page,
            pages,
            frame: frame & !511 | page & 511
        }),
        (page.clone(), pages.clone()).prop_map(|(page, pages)| Op::Zap { page, pages }),
        large.prop_map(|large| Op::Promote { large }),
        (page.clone(), pages).prop_map(|(page, pages)| Op::CatchWrites { page, pages }),
        (page, any::<bool>()).prop_map(|(page, write)| Op::Touch { page, write }),
    ]
}

/// What the tree is to say: frame, and whether a write is let through.
type Model = BTreeMap<u64, (u64, bool)>;

fn gpa(page: u64) -> u64 {
    BASE + page * 4096
}

struct Run {
    arena: Arena,
    ept: Ept,
    model: Model,
}

impl Run {
    fn new(top: Level) -> Self {
        let arena = Arena::new(64);
        let ept = Ept::new(&arena, arena.root(), top);
        Self {
            arena,
            ept,
            model: Model::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        let attributes = Attributes::new(Permissions::ALL);
        let mut gather = Gather::new();
        let mut deposit = Deposit::new(&self.arena);
        deposit.top_up(8).unwrap();
        let mut section = self.ept.section(&self.arena);
        match *op {
            Op::Map { page, frame } => {
                let done = section.map(
                    Gpa::new(gpa(page)),
                    Hpa::new(frame << 12),
                    Level::Pt,
                    attributes,
                    &mut deposit,
                );
                assert_eq!(done.is_ok(), !self.model.contains_key(&page), "{done:?}");
                self.model.entry(page).or_insert((frame, true));
            }
            Op::MapLarge { large, frame } => {
                let pages = large * 512..(large + 1) * 512;
                let at = Gpa::new(gpa(pages.start));
                let done = section.map(
                    at,
                    Hpa::new(frame << 12),
                    Level::Pd,
                    attributes,
                    &mut deposit,
                );
                // An empty table in the way is a reason too.
                assert!(done.is_err() || self.model.range(pages.clone()).next().is_none());
                if done.is_ok() {
                    self.model.extend(
                        pages
                            .zip(frame..)
                            .map(|(page, frame)| (page, (frame, true))),
                    );
                }
            }
            Op::MapRange { page, pages, frame } => {
                let pages = pages.min(PAGES - page);
                let (done, result) = section.map_range(
                    Gpa::new(gpa(page)),
                    Hpa::new(frame << 12),
                    pages * 4096,
                    Level::Pt,
                    attributes,
                    &mut deposit,
                );
                let free = (page..page + pages)
                    .take_while(|page| !self.model.contains_key(page))
                    .count() as u64;
                match result {
                    Err(EptStop::NeedTables) => assert!(done / 4096 <= free),
                    _ => assert_eq!(done / 4096, free, "{result:?}"),
                }
                self.model.extend(
                    (page..page + done / 4096)
                        .zip(frame..)
                        .map(|(page, frame)| (page, (frame, true))),
                );
            }
            Op::Zap { page, pages } => {
                let (from, end) = (page, (page + pages).min(PAGES));
                for edge in [from, end] {
                    if edge % 512 != 0 && section.level_at(gpa(edge)) == Level::Pd {
                        let at = Gpa::new(gpa(edge & !511));
                        let _ = section.split(at, Level::Pd, &mut gather, &mut deposit);
                    }
                }
                section.zap(gpa(from), gpa(end), &mut gather).unwrap();
                self.model.retain(|page, _| !(from..end).contains(page));
            }
            Op::Promote { large } => {
                let first = large * 512;
                let before = self.model.get(&first).copied();
                let uniform = before.is_some_and(|(frame, writable)| {
                    frame % 512 == 0
                        && (0..512)
                            .all(|i| self.model.get(&(first + i)) == Some(&(frame + i, writable)))
                });
                let table = section.level_at(gpa(first)) == Level::Pt;
                let done = section.promote(Gpa::new(gpa(first)), Level::Pd, &mut gather);
                assert_eq!(done.is_ok(), uniform && table, "{done:?}");
            }
            Op::CatchWrites { page, pages } => {
                let end = (page + pages).min(PAGES);
                section.catch_writes(gpa(page), gpa(end), &mut gather);
                let mut hit: Vec<u64> = (page..end).collect();
                // A large leaf that contains the first page is caught whole, as it begins at or before it.
                for page in page..end {
                    if section.level_at(gpa(page)) == Level::Pd {
                        hit.extend(page & !511..(page & !511) + 512);
                    }
                }
                for page in hit {
                    self.model.entry(page).and_modify(|page| page.1 = false);
                }
            }
            Op::Touch { page, write } => {
                let at = section.look(Gpa::new(gpa(page)), Level::Pt);
                let wanted = if write {
                    Permissions::READ_WRITE
                } else {
                    Permissions::READ
                };
                let done = section.grant(at, wanted);
                assert_eq!(done.is_ok(), self.model.contains_key(&page));
                if write && done.is_ok() {
                    let pages = at.level.size() / 4096;
                    let first = page / pages * pages;
                    for page in first..first + pages {
                        self.model.entry(page).and_modify(|page| page.1 = true);
                    }
                }
            }
        }
        drop(section);
        gather.flush(&self.arena);
    }

    fn check(&self) {
        for page in 0..PAGES {
            let at = self.ept.look(&self.arena, Gpa::new(gpa(page)));
            let offset = gpa(page) - at.gpa.bits();
            let seen = match at.entry.kind() {
                EptKind::Leaf { hpa, granted, .. } => {
                    Some(((hpa.bits() + offset) >> 12, granted.write))
                }
                EptKind::Empty => None,
                other => panic!("{other:?} at page {page:#x}"),
            };
            assert_eq!(
                seen,
                self.model.get(&page).copied(),
                "page {page:#x} at {:?}",
                at.level
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_tree_says_what_the_map_says(ops in proptest::collection::vec(op(), 1..40), five in any::<bool>()) {
        let mut run = Run::new(if five { Level::Pml5 } else { Level::Pml4 });
        for op in &ops {
            run.apply(op);
            run.check();
        }
        // All of it zapped, only tables that lie outside or on the edge are left.
        run.apply(&Op::Zap { page: 0, pages: PAGES });
        run.model.clear();
        run.check();
    }
}

#[test]
fn a_zap_of_everything_gives_every_table_back() {
    let mut run = Run::new(Level::Pml4);
    for page in [0, 700, 1500] {
        run.apply(&Op::Map { page, frame: page });
    }
    let mut gather = Gather::new();
    run.ept
        .section(&run.arena)
        .zap(SHARED, SHARED + (1 << 39), &mut gather)
        .unwrap();
    assert!(!gather.is_empty());
    gather.flush(&run.arena);
    assert_eq!(run.arena.tables_in_use(), 1, "the root");
    assert_eq!(
        run.arena.invepts.load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[test]
fn ageing_reports_use_once_and_restores_access() {
    let mut run = Run::new(Level::Pml4);
    run.apply(&Op::Map { page: 3, frame: 7 });
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let mut gather = Gather::new();
        run.ept
            .section(&run.arena)
            .age(gpa(0), gpa(8), &mut gather, |at, used| {
                rounds.push((at.gpa, used))
            });
        gather.flush(&run.arena);
    }
    assert_eq!(
        rounds,
        [(Gpa::new(gpa(3)), true), (Gpa::new(gpa(3)), false)]
    );
    let at = run.ept.look(&run.arena, Gpa::new(gpa(3)));
    assert!(
        matches!(at.entry.kind(), EptKind::Leaf { granted, right, .. } if !granted.read && right.write)
    );
    run.apply(&Op::Touch {
        page: 3,
        write: false,
    });
    let at = run.ept.look(&run.arena, Gpa::new(gpa(3)));
    assert!(
        matches!(at.entry.kind(), EptKind::Leaf { granted, .. } if granted.read && !granted.write)
    );
}

#[test]
fn mmio_entries_ask_for_a_virtualization_exception() {
    let run = Run::new(Level::Pml4);
    let mut deposit = Deposit::new(&run.arena);
    deposit.top_up(8).unwrap();
    let mut section = run.ept.section(&run.arena);
    section
        .map_virtualization_exception(Gpa::new(gpa(1)), Level::Pt, &mut deposit)
        .unwrap();
    let at = section.look(Gpa::new(gpa(1)), Level::Pt);
    assert_eq!(
        (at.entry.bits(), at.entry.kind()),
        (0, EptKind::VirtualizationException)
    );
    // Its neighbour exits to the host.
    assert_eq!(
        section.look(Gpa::new(gpa(2)), Level::Pt).entry.bits(),
        1 << 63
    );
}
