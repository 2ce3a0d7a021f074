//! The shared EPT: no locks, tables that come and go, CPUs that keep translations until they are invalidated.

use std::collections::BTreeSet;
use std::sync::Mutex;

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
use tdx_mmu::shared::EptKind;
use tdx_mmu::shared::EptSection;
use tdx_mmu::shared::EptStop;
use tdx_mmu::shared::Gather;
use tdx_mmu::shared::Permissions;

use super::memory::Memory;
use super::memory::Seeded;
use super::memory::explore;
use super::memory::side_by_side;

const ATTRIBUTES: Attributes = Attributes::new(Permissions::ALL);
const LARGE: u64 = 0x20_0000;

/// Memory with the translations that CPUs keep, and the frames that the host has taken back.
struct World {
    memory: Memory,
    ept: Ept,
    reused: Mutex<BTreeSet<u64>>,
}

impl World {
    fn new() -> Arc<Self> {
        let memory = Memory::new();
        let root = memory.allocate_table().unwrap().into_hpa();
        let ept = Ept::new(&memory, root, Level::Pml4);
        Arc::new(Self {
            memory,
            ept,
            reused: Mutex::default(),
        })
    }

    /// Maps one page in `section`, which goes on with the tables that it holds.
    fn map_in(&self, section: &mut EptSection<'_, Memory>, gpa: u64) -> Result<(), EptStop> {
        let mut deposit = Deposit::new(&self.memory);
        deposit.top_up(3).unwrap();
        let hpa = Hpa::new(gpa);
        section.map(Gpa::new(gpa), hpa, Level::Pt, ATTRIBUTES, &mut deposit)
    }

    fn map(&self, gpa: u64) {
        for _ in 0..6 {
            if self
                .map_in(&mut self.ept.section(&self.memory), gpa)
                .is_ok()
            {
                break;
            }
        }
    }

    fn map_large_range(&self) {
        let mut deposit = Deposit::new(&self.memory);
        deposit.top_up(4).unwrap();
        let mut section = self.ept.section(&self.memory);
        let (gpa, hpa) = (Gpa::new(0), Hpa::new(0));
        let mapped = section.map_range(gpa, hpa, LARGE, Level::Pt, ATTRIBUTES, &mut deposit);
        assert_eq!(mapped, (LARGE, Ok(())));
    }

    /// Removes what is below `end`, and takes the frames back that only this thread maps.
    fn zap(&self, end: u64, frames: &[u64]) {
        let mut gather = Gather::new();
        while self
            .ept
            .section(&self.memory)
            .zap(0, end, &mut gather)
            .is_err()
        {
            thread::yield_now();
        }
        let _flushed = gather.flush(&self.memory);
        self.reused.lock().unwrap().extend(frames);
    }

    fn promote(&self) {
        let mut gather = Gather::new();
        // Another thread may have changed what is there.
        let _ = self
            .ept
            .section(&self.memory)
            .promote(Gpa::new(0), Level::Pd, &mut gather);
        let _flushed = gather.flush(&self.memory);
    }

    fn split(&self) {
        let mut deposit = Deposit::new(&self.memory);
        deposit.top_up(1).unwrap();
        let mut gather = Gather::new();
        // As above.
        let _ =
            self.ept
                .section(&self.memory)
                .split(Gpa::new(0), Level::Pd, &mut gather, &mut deposit);
        let _flushed = gather.flush(&self.memory);
    }

    /// A CPU's access: by the translation that it has, or by a walk whose result it keeps.
    fn access(&self, gpa: u64) {
        let kept = self.memory.translations.lock().unwrap().get(&gpa).copied();
        let hpa = match kept {
            Some(hpa) => Some(hpa),
            None => {
                let walked = self
                    .ept
                    .translate(&self.memory, Gpa::new(gpa))
                    .map(Hpa::bits);
                // INVEPT waits for walks that are under way; what is walked and kept is one step here.
                if let Some(hpa) = walked
                    && self
                        .ept
                        .translate(&self.memory, Gpa::new(gpa))
                        .map(Hpa::bits)
                        == walked
                {
                    self.memory.translations.lock().unwrap().insert(gpa, hpa);
                }
                None
            }
        };
        thread::yield_now();
        if let Some(hpa) = hpa
            && self.memory.translations.lock().unwrap().get(&gpa) == Some(&hpa)
        {
            let reused = self.reused.lock().unwrap();
            assert!(!reused.contains(&hpa), "access to a frame that was reused");
        }
    }

    /// At the end nothing leads to a frame that the host has back, everything can be removed, and every table but
    /// the root comes back.
    fn check(&self) {
        let reused = self.reused.lock().unwrap().clone();
        self.ept
            .tree()
            .visit(&self.memory, &mut |gpa, level, bits| {
                let entry = tdx_mmu::shared::EptEntry::from_bits(bits);
                match entry.kind() {
                    EptKind::Table(_) => {}
                    EptKind::Leaf { hpa, .. } => {
                        assert_eq!(hpa.bits(), gpa, "{level:?}");
                        let frames = gpa..gpa + level.size();
                        let kept = reused.range(frames).next();
                        assert_eq!(kept, None, "a mapping outlives its removal");
                    }
                    other => panic!("{other:?} at {gpa:#x}"),
                }
            });
        self.zap(1 << 39, &[]);
        assert_eq!(self.memory.in_use(), 1, "only the root is left");
    }
}

fn run<const N: usize>(
    mistake: Seeded,
    runs: usize,
    prepare: fn(&World),
    threads: [fn(&World); N],
) {
    explore(mistake, runs, move || {
        let world = World::new();
        prepare(&world);
        side_by_side(&world, threads);
        world.check();
    });
}

#[test]
fn the_shared_tree_maps_and_zaps_without_locks() {
    run(
        Seeded::Nothing,
        60,
        |world| world.map(0x1000),
        [
            |world| world.map(0x1000),
            |world| world.map(0x2000),
            // 2 MiB unlinks the lowest table while others map into it.
            |world| world.zap(LARGE, &[]),
        ],
    );
}

#[test]
fn a_section_that_holds_a_table_meets_its_removal() {
    // A removal of a table takes some 600 steps, one for each entry; the sections last about as long. The last
    // entries are frozen last, so that whoever works there still holds the table when it goes.
    run(
        Seeded::Nothing,
        30,
        |world| world.map(0x1f_d000),
        [
            |world| {
                // One section for all: its cursor holds tables that a zap takes away.
                let mut section = world.ept.section(&world.memory);
                for page in 0..200 {
                    let _ = world.map_in(&mut section, (510 + page % 2) << 12);
                }
            },
            |world| {
                let mut gather = Gather::new();
                let mut section = world.ept.section(&world.memory);
                // Removals by a cursor that holds the table too.
                for page in 0..200 {
                    let gpa = (509 + page % 3) << 12;
                    let _ = section.zap(gpa, gpa + 0x1000, &mut gather);
                }
                drop(section);
                let _flushed = gather.flush(&world.memory);
            },
            |world| world.zap(LARGE, &[]),
        ],
    );
}

#[test]
fn a_long_walk_beside_a_removal_reads_live_tables() {
    long_walks_and_a_zap(Seeded::Nothing);
}

#[test]
#[should_panic(expected = "a freed table is used")]
fn a_table_freed_under_a_walk_is_noticed() {
    long_walks_and_a_zap(Seeded::NoGrace);
}

fn long_walks_and_a_zap(mistake: Seeded) {
    run(
        mistake,
        30,
        |world| world.map(0x1000),
        [
            |world| {
                for _ in 0..3 {
                    let _guard = world.memory.enter();
                    world.ept.tree().visit(&world.memory, &mut |_, _, _| {});
                }
            },
            |world| world.zap(LARGE, &[]),
        ],
    );
}

#[test]
fn a_promotion_beside_a_removal_of_more() {
    // Promotions and removals touch 512 entries each; few runs, as each is long.
    run(
        Seeded::Nothing,
        30,
        World::map_large_range,
        [
            World::promote,
            |world| world.zap(1 << 30, &[]),
            |world| {
                let mut section = world.ept.section(&world.memory);
                for _ in 0..3 {
                    let _ = world.map_in(&mut section, 0x5000);
                }
            },
        ],
    );
}

#[test]
fn a_promotion_beside_a_removal_of_the_same() {
    run(
        Seeded::Nothing,
        30,
        World::map_large_range,
        [World::promote, |world| world.zap(LARGE, &[0x5000])],
    );
}

#[test]
fn a_promotion_that_fails_beside_a_removal_of_more() {
    run(
        Seeded::Nothing,
        30,
        |world| {
            world.map_large_range();
            let mut gather = Gather::new();
            let mut section = world.ept.section(&world.memory);
            section.zap(LARGE - 0x1000, LARGE, &mut gather).unwrap();
            drop(section);
            let _flushed = gather.flush(&world.memory);
        },
        [World::promote, |world| world.zap(1 << 30, &[])],
    );
}

#[test]
fn a_promotion_beside_a_split_and_a_small_removal() {
    run(
        Seeded::Nothing,
        15,
        World::map_large_range,
        [
            |world| {
                world.promote();
                world.split();
            },
            |world| world.zap(0x2000, &[]),
            World::split,
        ],
    );
}

#[test]
fn frames_are_reused_only_after_the_flush() {
    accesses_and_a_zap(Seeded::Nothing);
}

#[test]
#[should_panic(expected = "access to a frame that was reused")]
fn a_missing_invept_is_noticed() {
    accesses_and_a_zap(Seeded::NoInvept);
}

fn accesses_and_a_zap(mistake: Seeded) {
    run(
        mistake,
        200,
        |world| {
            world.map(0x1000);
            world.map(0x2000);
        },
        [
            |world| (0..4).for_each(|_| world.access(0x1000)),
            |world| (0..4).for_each(|_| world.access(0x2000)),
            |world| world.zap(0x2000, &[0x1000]),
        ],
    );
}
