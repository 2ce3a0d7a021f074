//! Look-ups whose cursor holds tables, beside removals, mappings and promotions of what they look up.
//!
//! One thread takes an address through a list of states. A look-up has to see one of those that were there while it
//! ran: neither a table that has left the tree may answer later, nor may the mapping that has taken its place be missed.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use shuttle::sync::Arc;
use shuttle::thread;
use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_mmu::deposit::Deposit;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Ept;
use tdx_mmu::shared::EptEntry;
use tdx_mmu::shared::EptFormat;
use tdx_mmu::shared::EptKind;
use tdx_mmu::shared::Gather;
use tdx_mmu::shared::Permissions;
use tdx_mmu::tree::Cursor;
use tdx_mmu::tree::Format;
use tdx_mmu::tree::Tree;

use super::memory::Memory;
use super::memory::Seeded;
use super::memory::explore;
use super::memory::seeded;

const ATTRIBUTES: Attributes = Attributes::new(Permissions::ALL);
const LARGE: u64 = 0x20_0000;
/// The address that is looked up, and where it is mapped to at first.
const GPA: u64 = 0x1000;
const FIRST: u64 = 0x1000;
/// Look-ups of each reader while the states change.
const LOOKS: usize = 150;
/// Steps for which a reader waits for a removal of tables that it holds.
const PATIENCE: usize = 4000;

/// How the next state comes about.
#[derive(Clone, Copy)]
enum Change {
    /// Everything below this address is removed, tables included.
    Zap(u64),
    /// The address is mapped to this frame.
    Map(u64),
    /// 512 leaves become one. Meanwhile they read as frozen, and a look-up finds nothing.
    Promote,
    /// The leaf becomes 512.
    Split,
}

/// The encoding of the shared EPT for a walk that does not know what a frozen entry is.
struct Unaware;

impl Format for Unaware {
    const EMPTY: u64 = EptFormat::EMPTY;
    const FROZEN: u64 = u64::MAX;

    fn is_table(entry: u64) -> bool {
        EptFormat::is_table(entry)
    }

    fn table(entry: u64) -> Hpa {
        EptFormat::table(entry)
    }

    fn link(table: Hpa) -> u64 {
        EptFormat::link(table)
    }
}

struct World {
    memory: Memory,
    ept: Ept,
    changes: &'static [Change],
    /// Changes that have begun, and that are done.
    begun: AtomicUsize,
    done: AtomicUsize,
}

impl World {
    fn new(changes: &'static [Change]) -> Arc<Self> {
        let memory = Memory::new();
        let root = memory.allocate_table().unwrap().into_hpa();
        let ept = Ept::new(&memory, root, Level::Pml4);
        let mut deposit = Deposit::new(&memory);
        deposit.top_up(4).unwrap();
        let mut section = ept.section(&memory);
        let (gpa, hpa) = (Gpa::new(0), Hpa::new(FIRST - GPA));
        let mapped = section.map_range(gpa, hpa, LARGE, Level::Pt, ATTRIBUTES, &mut deposit);
        assert_eq!(mapped, (LARGE, Ok(())));
        drop((section, deposit));
        Arc::new(Self {
            memory,
            ept,
            changes,
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        })
    }

    /// Makes all changes; `flush` says what becomes of the tables that each removes.
    fn change(&self, mut flush: impl FnMut(Gather)) {
        for change in self.changes {
            self.begun.fetch_add(1, Ordering::Relaxed);
            let mut deposit = Deposit::new(&self.memory);
            deposit.top_up(3).unwrap();
            let mut gather = Gather::new();
            let mut section = self.ept.section(&self.memory);
            let (gpa, table) = (Gpa::new(GPA), Gpa::new(0));
            match *change {
                Change::Zap(end) => section.zap(0, end, &mut gather),
                Change::Map(hpa) => {
                    section.map(gpa, Hpa::new(hpa), Level::Pt, ATTRIBUTES, &mut deposit)
                }
                Change::Promote => section.promote(table, Level::Pd, &mut gather),
                Change::Split => section.split(table, Level::Pd, &mut gather, &mut deposit),
            }
            .unwrap();
            drop(section);
            self.done.fetch_add(1, Ordering::Relaxed);
            flush(gather);
        }
    }

    /// What a look-up may see that began when `done` changes were done and ended when `begun` had begun.
    fn allowed(&self, done: usize, begun: usize) -> Vec<Option<u64>> {
        let state = |changes: usize| {
            let mut latest = self.changes[..changes].iter().rev();
            let mapped = latest.find_map(|change| match *change {
                Change::Zap(_) => Some(None),
                Change::Map(hpa) => Some(Some(hpa)),
                Change::Promote | Change::Split => None,
            });
            mapped.unwrap_or(Some(FIRST))
        };
        let under_way = self.changes[done..begun].iter();
        let frozen = under_way.filter(|change| matches!(change, Change::Promote));
        (done..=begun)
            .map(state)
            .chain(frozen.map(|_| None))
            .collect()
    }

    fn check(&self, look: impl FnOnce() -> Option<u64>) {
        let done = self.done.load(Ordering::Relaxed);
        let seen = look();
        let allowed = self.allowed(done, self.begun.load(Ordering::Relaxed));
        assert!(
            allowed.contains(&seen),
            "a walk saw {seen:x?}, not one of {allowed:x?}"
        );
    }

    /// Looks the address up again and again by one cursor, with `rest` in between; with `to_the_end` once more after the
    /// last change.
    fn look<F: Format>(&self, to_the_end: bool, rest: impl Fn()) {
        let _guard = self.memory.enter();
        let tree = Tree::<F>::new(self.ept.tree().root(), Level::Pml4);
        let mut cursor = Cursor::new(tree, &self.memory);
        let mut walk = || cursor.walk(GPA, translate);
        for _ in 0..LOOKS {
            self.check(&mut walk);
            rest();
        }
        while to_the_end && self.done.load(Ordering::Relaxed) < self.changes.len() {
            thread::yield_now();
        }
        self.check(&mut walk);
    }
}

fn translate(bits: u64, level: Level) -> Option<u64> {
    match EptEntry::from_bits(bits).kind() {
        EptKind::Leaf { hpa, .. } => Some(hpa.bits() | GPA & (level.size() - 1)),
        _ => None,
    }
}

/// Tables that a look-up may still hold are given back at the end only, so that the states go on meanwhile.
fn looks_beside(mistake: Seeded, runs: usize, changes: &'static [Change]) {
    explore(mistake, runs, move || {
        let world = World::new(changes);
        let reader = world.clone();
        let by_cursor = thread::spawn(move || match seeded(Seeded::UnawareWalk) {
            true => reader.look::<Unaware>(true, || {}),
            false => reader.look::<EptFormat>(true, || {}),
        });
        let reader = world.clone();
        let from_root = thread::spawn(move || {
            let gpa = Gpa::new(GPA);
            let walk = || reader.ept.translate(&reader.memory, gpa).map(Hpa::bits);
            (0..LOOKS).for_each(|_| reader.check(walk));
        });
        let mut gathers = Vec::new();
        world.change(|gather| gathers.push(gather));
        by_cursor.join().unwrap();
        from_root.join().unwrap();
        for gather in gathers {
            let _flushed = gather.flush(&world.memory);
        }
    });
}

/// 1 GiB takes the table away that the cursor begins at, 2 MiB the one below.
const REMOVALS: &[Change] = &[
    Change::Zap(1 << 30),
    Change::Map(0x10_1000),
    Change::Zap(LARGE),
    Change::Map(0x20_1000),
    Change::Zap(1 << 30),
    Change::Map(0x30_1000),
];

#[test]
fn walks_beside_removals_see_what_is_there() {
    looks_beside(Seeded::Nothing, 40, REMOVALS);
}

#[test]
#[should_panic(expected = "a walk saw")]
fn a_removed_table_that_is_not_frozen_is_noticed() {
    looks_beside(Seeded::NoFreeze, 40, REMOVALS);
}

#[test]
#[should_panic(expected = "a walk saw")]
fn a_walk_that_ends_at_a_frozen_entry_is_noticed() {
    looks_beside(Seeded::UnawareWalk, 40, REMOVALS);
}

#[test]
fn walks_beside_promotions_and_splits_see_what_is_there() {
    const CHANGES: &[Change] = &[
        Change::Promote,
        Change::Split,
        Change::Promote,
        Change::Zap(LARGE),
        Change::Map(0x10_1000),
    ];
    looks_beside(Seeded::Nothing, 20, CHANGES);
}

#[test]
fn a_walk_reads_live_tables() {
    walks_beside_frees(Seeded::Nothing);
}

#[test]
#[should_panic(expected = "a freed table is used")]
fn a_table_freed_under_a_cursor_is_noticed() {
    walks_beside_frees(Seeded::NoGrace);
}

fn walks_beside_frees(mistake: Seeded) {
    // Nothing is mapped afterwards: a table that is used again would pass for the one that was freed.
    explore(mistake, 40, || {
        let world = World::new(&[Change::Zap(1 << 30)]);
        let (reader, flushed) = (world.clone(), Arc::new(AtomicBool::new(false)));
        let seen = flushed.clone();
        let reader = thread::spawn(move || {
            // The removal waits for this thread, so it cannot wait for the removal for ever.
            let patience = Cell::new(PATIENCE);
            let rest = || {
                while patience.get() > 0 && !seen.load(Ordering::Relaxed) {
                    patience.set(patience.get() - 1);
                    thread::yield_now();
                }
            };
            reader.look::<EptFormat>(false, rest);
        });
        world.change(|gather| {
            let _flushed = gather.flush(&world.memory);
        });
        flushed.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}
