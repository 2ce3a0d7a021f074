//! The protocols under a model checker: every run takes another interleaving of the atomic operations.
//!
//! The words are atomics with a scheduling point before each operation that publishes, acquires or
//! claims. Behind the mirror stands a model of the Secure-EPT that refuses what the TDX module refuses.
#![expect(
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::unwrap_used,
    reason = "a test binary: it has std, and a panic is how it fails"
)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use shuttle::rand::Rng;
use shuttle::sync::Arc;
use shuttle::thread;
use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_mmu::Word;
use tdx_mmu::deposit::DEPTH;
use tdx_mmu::deposit::Deposit;
use tdx_mmu::embed::Flush;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::Tables;
use tdx_mmu::mirror::External;
use tdx_mmu::mirror::Kind;
use tdx_mmu::mirror::Mirror;
use tdx_mmu::mirror::MirrorEntry;
use tdx_mmu::mirror::SetError;
use tdx_mmu::mirror::Stop;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Ept;
use tdx_mmu::shared::EptKind;
use tdx_mmu::shared::Gather;
use tdx_mmu::shared::Permissions;

const TABLES: u64 = 0x10_0000;
const TABLE_COUNT: u64 = 16;
const RUNS: usize = 300;

#[derive(Debug)]
struct Step(AtomicU64);

impl Word for Step {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    fn load(&self, order: Ordering) -> u64 {
        if order != Ordering::Relaxed {
            thread::yield_now();
        }
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        if order != Ordering::Relaxed {
            thread::yield_now();
        }
        self.0.store(value, order);
    }

    fn replace(&self, current: u64, new: u64) -> Result<(), u64> {
        thread::yield_now();
        Word::replace(&self.0, current, new)
    }

    fn add(&self, value: u64) -> u64 {
        thread::yield_now();
        Word::add(&self.0, value)
    }

    fn sub(&self, value: u64) -> u64 {
        thread::yield_now();
        Word::sub(&self.0, value)
    }
}

struct Memory {
    tables: Vec<(Box<[Step; 512]>, Step, AtomicBool)>,
    module_pages: AtomicU64,
    readers: AtomicUsize,
    inside: Mutex<BTreeMap<usize, ()>>,
}

struct Reader<'m>(&'m Memory, usize);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.inside.lock().unwrap().remove(&self.1);
    }
}

impl Memory {
    fn new() -> Self {
        let table = || {
            (
                Box::new([const { Step(AtomicU64::new(0xdead)) }; 512]),
                Step::new(0),
                AtomicBool::new(false),
            )
        };
        Self {
            tables: (0..TABLE_COUNT).map(|_| table()).collect(),
            module_pages: AtomicU64::new(0x8000_0000),
            readers: AtomicUsize::new(0),
            inside: Mutex::default(),
        }
    }

    fn table(&self, hpa: Hpa) -> &(Box<[Step; 512]>, Step, AtomicBool) {
        let table = &self.tables[usize::try_from((hpa.bits() - TABLES) >> 12).unwrap()];
        assert!(table.2.load(Ordering::Relaxed), "a freed table is used");
        table
    }

    fn in_use(&self) -> usize {
        self.tables
            .iter()
            .filter(|table| table.2.load(Ordering::Relaxed))
            .count()
    }
}

impl Tables for Memory {
    type Word = Step;

    fn entries(&self, table: Hpa) -> &[Step; 512] {
        &self.table(table).0
    }

    fn link(&self, table: Hpa) -> &Step {
        &self.table(table).1
    }
}

impl Frames for Memory {
    fn allocate_table(&self) -> Option<Page> {
        let index = self
            .tables
            .iter()
            .position(|table| !table.2.swap(true, Ordering::Relaxed))?;
        Page::assume_owned(Hpa::new(TABLES + (index as u64) * 4096), Level::Pt)
    }

    fn free_table(&self, table: Page) {
        let (entries, _, live) = self.table(table.into_hpa());
        entries
            .iter()
            .for_each(|entry| entry.0.store(0xdead, Ordering::Relaxed));
        live.store(false, Ordering::Relaxed);
    }

    fn allocate_module_page(&self) -> Option<Page> {
        Page::assume_owned(
            Hpa::new(self.module_pages.fetch_add(4096, Ordering::Relaxed)),
            Level::Pt,
        )
    }

    fn free_module_page(&self, page: Page) {
        let _ = page.into_hpa();
    }
}

impl Relax for Memory {
    fn pause(&self) {
        thread::yield_now();
    }
}

impl Flush for Memory {
    fn invept(&self) {
        thread::yield_now();
    }
}

impl Grace for Memory {
    type Guard<'g> = Reader<'g>;

    fn enter(&self) -> Reader<'_> {
        let number = self.readers.fetch_add(1, Ordering::Relaxed);
        self.inside.lock().unwrap().insert(number, ());
        Reader(self, number)
    }

    fn retire(&self, table: Page) {
        let before = self.readers.load(Ordering::Relaxed);
        while self.inside.lock().unwrap().range(..before).next().is_some() {
            thread::yield_now();
        }
        self.free_table(table);
    }
}

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

fn run(threads: [fn(&World); 3], prepare: fn(&World), faulty: bool) {
    shuttle::check_random(
        move || {
            let world = World::new(faulty);
            prepare(&world);
            let threads = threads.map(|work| {
                let world = world.clone();
                thread::spawn(move || work(&world))
            });
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            world.check();
        },
        RUNS,
    );
}

#[test]
fn two_faults_link_the_same_tables_and_a_third_removes() {
    for faulty in [false, true] {
        run(
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
fn two_removals_of_one_page_beside_a_fault() {
    for faulty in [false, true] {
        run(
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
    // 512 pages are mapped before the threads start; few runs, as each is long.
    shuttle::check_random(
        || {
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
                    for _ in 0..3 {
                        let at = world.mirror.look(&world.memory, PrivateGpa::new(0x20_3000));
                        if let Kind::Leaf(hpa) = at.entry.kind() {
                            let offset = 0x20_3000 - at.gpa.bits();
                            assert_eq!(hpa.bits() + offset, 0x40_3000);
                        }
                    }
                },
            ];
            let threads = threads.map(|work| {
                let world = world.clone();
                thread::spawn(move || work(&world))
            });
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
            world.check();
        },
        10,
    );
}

#[test]
fn the_shared_tree_maps_and_zaps_without_locks() {
    shuttle::check_random(
        || {
            let memory = Arc::new(Memory::new());
            let ept = Ept::new(
                &*memory,
                memory.allocate_table().unwrap().into_hpa(),
                Level::Pml4,
            );
            let map = move |memory: &Memory, gpa: u64| {
                let mut deposit = Deposit::new(memory);
                let attributes = Attributes::new(Permissions::ALL);
                for _ in 0..6 {
                    deposit.top_up(3).unwrap();
                    let mut section = ept.section(memory);
                    if section
                        .map(
                            Gpa::new(gpa),
                            Hpa::new(gpa),
                            Level::Pt,
                            attributes,
                            &mut deposit,
                        )
                        .is_ok()
                    {
                        break;
                    }
                }
            };
            map(&memory, 0x1000);
            let [first, second] = [0x1000, 0x2000].map(|gpa| {
                let memory = memory.clone();
                thread::spawn(move || map(&memory, gpa))
            });
            let zap = |memory: &Memory, end| {
                let mut gather = Gather::new();
                while ept.section(memory).zap(0, end, &mut gather).is_err() {
                    thread::yield_now();
                }
                gather.flush(memory);
            };
            // 2 MiB unlinks the lowest table while others map into it.
            zap(&memory, 0x20_0000);
            first.join().unwrap();
            second.join().unwrap();
            for gpa in [0x1000, 0x2000] {
                match ept.look(&*memory, Gpa::new(gpa)).entry.kind() {
                    EptKind::Empty => {}
                    EptKind::Leaf { hpa, .. } => assert_eq!(hpa.bits(), gpa),
                    other => panic!("{other:?}"),
                }
            }
            zap(&memory, 1 << 39);
            assert_eq!(memory.in_use(), 1, "only the root is left");
        },
        100,
    );
}
