//! The frozen-entry protocol, and the linking and freeing of mirrored tables.
//!
//! Behind the mirror stands a model of the Secure-EPT that refuses what the TDX module refuses.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use shuttle::rand::Rng;
use shuttle::sync::Arc;
use shuttle::thread;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_mmu::deposit::DEPTH;
use tdx_mmu::deposit::Deposit;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::mirror::External;
use tdx_mmu::mirror::Kind;
use tdx_mmu::mirror::Mirror;
use tdx_mmu::mirror::MirrorEntry;
use tdx_mmu::mirror::SetError;
use tdx_mmu::mirror::Stop;

use super::memory::Memory;
use super::memory::Seeded;
use super::memory::explore;
use super::memory::side_by_side;

const RUNS: usize = 150;

/// The Secure-EPT as far as the module's rules go.
#[derive(Default)]
struct SecureEpt {
    entries: Mutex<BTreeMap<(u64, Level), MirrorEntry>>,
    exclusive: AtomicBool,
    shared: AtomicUsize,
    faulty: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Refused;

impl External for SecureEpt {
    type Error = Refused;

    fn set(
        &self,
        gpa: PrivateGpa,
        level: Level,
        old: MirrorEntry,
        new: MirrorEntry,
    ) -> Result<(), SetError<Refused>> {
        // BLOCK and UNBLOCK hold the tree's lock exclusively: nobody may be in a call at the same time.
        let alone = matches!(new.kind(), Kind::BlockedLeaf(_) | Kind::BlockedTable(_))
            || matches!(
                (old.kind(), new.kind()),
                (Kind::BlockedTable(_), Kind::Table(_))
            );
        assert!(
            !self.exclusive.load(Ordering::Relaxed),
            "beside an exclusive call"
        );
        if alone {
            assert_eq!(
                self.shared.load(Ordering::Relaxed),
                0,
                "an exclusive call beside another"
            );
            self.exclusive.store(true, Ordering::Relaxed);
        } else {
            self.shared.fetch_add(1, Ordering::Relaxed);
        }
        thread::yield_now();
        let result = self.apply(gpa, level, old, new);
        thread::yield_now();
        if alone {
            self.exclusive.store(false, Ordering::Relaxed);
        } else {
            self.shared.fetch_sub(1, Ordering::Relaxed);
        }
        result
    }
}

impl SecureEpt {
    fn apply(
        &self,
        gpa: PrivateGpa,
        level: Level,
        old: MirrorEntry,
        new: MirrorEntry,
    ) -> Result<(), SetError<Refused>> {
        if self.faulty && shuttle::rand::thread_rng().gen_bool(0.2) {
            return Err(SetError::Unchanged(Refused));
        }
        let mut entries = self.entries.lock().unwrap();
        if let Some(above) = level.above().filter(|above| *above <= Level::Pml4) {
            let parent = entries.get(&(gpa.align_down(above).bits(), above)).copied();
            let kind = parent.unwrap_or(MirrorEntry::EMPTY).kind();
            assert!(
                matches!(kind, Kind::Table(_)),
                "{level:?} entry at {gpa:?} under {kind:?}"
            );
        }
        let key = (gpa.bits(), level);
        let now = entries.get(&key).copied().unwrap_or(MirrorEntry::EMPTY);
        assert_eq!(now, old, "at {gpa:?} {level:?}");
        if let (Kind::BlockedTable(_), Kind::Leaf(_), Some(below)) =
            (old.kind(), new.kind(), level.below())
        {
            let children = gpa.bits()..gpa.bits() + level.size();
            entries.retain(|(at, of), _| *of != below || !children.contains(at));
        }
        entries.insert(key, new);
        Ok(())
    }
}

struct World {
    memory: Memory,
    mirror: Mirror<Memory>,
    secure: SecureEpt,
}

impl World {
    fn new(faulty: bool) -> Arc<Self> {
        let memory = Memory::new();
        let root = memory.allocate_table().unwrap().into_hpa();
        let mirror = Mirror::new(&memory, root, Hpa::new(0), Level::Pml4);
        Arc::new(Self {
            memory,
            mirror,
            secure: SecureEpt {
                faulty,
                ..SecureEpt::default()
            },
        })
    }

    fn map(&self, gpa: u64, hpa: u64) {
        let mut deposit = Deposit::new(&self.memory);
        for _ in 0..20 {
            let mut section = self.mirror.section(&self.memory);
            let at = PrivateGpa::new(gpa);
            let stop = match section.map(&self.secure, at, Hpa::new(hpa), Level::Pt, &mut deposit) {
                Ok(()) | Err(Stop::Refused(_) | Stop::Found(_)) => return,
                Err(stop) => stop,
            };
            drop(section);
            match stop {
                Stop::NeedTables => deposit.top_up(DEPTH).unwrap(),
                Stop::Retry => thread::yield_now(),
                stop => panic!("{stop:?}"),
            }
        }
    }

    fn unmap(&self, gpa: u64) {
        let at = PrivateGpa::new(gpa);
        let blocked = self
            .mirror
            .exclusive(&self.memory)
            .block(&self.secure, at, Level::Pt);
        if blocked.is_ok() {
            // Somebody else may be faster.
            let page = self
                .mirror
                .section(&self.memory)
                .remove(&self.secure, at, Level::Pt);
            let _ = page.map(Page::into_hpa);
        }
    }

    fn promote(&self, gpa: u64) {
        let at = PrivateGpa::new(gpa);
        {
            let mut section = self.mirror.exclusive(&self.memory);
            if !section.is_uniform(at, Level::Pd)
                || section.block(&self.secure, at, Level::Pd).is_err()
            {
                return;
            }
        }
        let promoted = self
            .mirror
            .section(&self.memory)
            .promote(&self.secure, at, Level::Pd);
        match promoted {
            Ok(pair) => self.memory.retire(pair.table),
            Err(_) => drop(self.mirror.exclusive(&self.memory).unblock(
                &self.secure,
                at,
                Level::Pd,
            )),
        }
    }

    /// Mirror and model say the same.
    fn check(&self) {
        let mut seen = BTreeMap::new();
        self.mirror
            .tree()
            .visit(&self.memory, &mut |address, level, bits| {
                seen.insert((address, level), MirrorEntry::from_bits(bits));
            });
        let entries = self.secure.entries.lock().unwrap();
        let module: BTreeMap<_, _> = entries
            .iter()
            .filter(|(_, entry)| **entry != MirrorEntry::EMPTY)
            .map(|(key, entry)| (*key, *entry))
            .collect();
        let blocked = |entry: &MirrorEntry| matches!(entry.kind(), Kind::BlockedTable(_));
        if !module.values().any(blocked) {
            assert_eq!(seen, module);
            let tables = seen
                .values()
                .filter(|entry| matches!(entry.kind(), Kind::Table(_)))
                .count();
            assert_eq!(self.memory.in_use(), 1 + tables);
        }
    }
}

fn run(mistake: Seeded, threads: [fn(&World); 3], prepare: fn(&World), faulty: bool) {
    explore(mistake, RUNS, move || {
        let world = World::new(faulty);
        prepare(&world);
        side_by_side(&world, threads);
        world.check();
    });
}

fn two_faults_and_a_removal(mistake: Seeded) {
    for faulty in [false, true] {
        run(
            mistake,
            [
                |world| world.map(0x1000, 0x10_1000),
                |world| {
                    world.map(0x1000, 0x20_1000);
                    world.map(0x2000, 0x20_2000);
                },
                |world| {
                    world.unmap(0x1000);
                    world.map(0x3000, 0x30_3000);
                },
            ],
            |_| {},
            faulty,
        );
    }
}

#[test]
fn two_faults_link_the_same_tables_and_a_third_removes() {
    two_faults_and_a_removal(Seeded::Nothing);
}

#[test]
#[should_panic]
fn claims_in_two_steps_are_noticed() {
    two_faults_and_a_removal(Seeded::TornExchange);
}

#[test]
#[should_panic]
fn an_exclusive_section_beside_others_is_noticed() {
    two_faults_and_a_removal(Seeded::OpenGate);
}

#[test]
fn two_removals_of_one_page_beside_a_fault() {
    for faulty in [false, true] {
        run(
            Seeded::Nothing,
            [
                |world| world.unmap(0x1000),
                |world| world.unmap(0x1000),
                |world| world.map(0x1000, 0x30_1000),
            ],
            |world| world.map(0x1000, 0x10_1000),
            faulty,
        );
    }
}

#[test]
fn a_promotion_beside_a_removal_and_a_look() {
    promotion(Seeded::Nothing);
}

#[test]
#[should_panic(expected = "a freed table is used")]
fn a_table_freed_under_a_reader_is_noticed() {
    promotion(Seeded::NoGrace);
}

fn promotion(mistake: Seeded) {
    // 512 pages are mapped before the threads start; few runs, as each is long.
    explore(mistake, 20, || {
        let world = World::new(false);
        let mut deposit = Deposit::new(&world.memory);
        deposit.top_up(DEPTH).unwrap();
        let mut section = world.mirror.exclusive(&world.memory);
        let (mapped, stop) = section.map_range(
            &world.secure,
            PrivateGpa::new(0x20_0000),
            Hpa::new(0x40_0000),
            0x20_0000,
            Level::Pt,
            &mut deposit,
        );
        assert_eq!((mapped, stop), (0x20_0000, Ok(())));
        drop((section, deposit));
        let threads: [fn(&World); 3] = [
            |world| world.promote(0x20_0000),
            |world| world.unmap(0x20_3000),
            |world| {
                for _ in 0..4 {
                    {
                        // A read-side section that lasts about as long as the promotion.
                        let _guard = world.memory.enter();
                        world.mirror.tree().visit(&world.memory, &mut |_, _, _| {});
                    }
                    let at = world.mirror.look(&world.memory, PrivateGpa::new(0x20_3000));
                    if let Kind::Leaf(hpa) = at.entry.kind() {
                        let offset = 0x20_3000 - at.gpa.bits();
                        assert_eq!(hpa.bits() + offset, 0x40_3000);
                    }
                }
            },
        ];
        side_by_side(&world, threads);
        world.check();
    });
}
