//! An embedder whose every step is a scheduling point, and the mistakes that can be put into it.

#![expect(unreachable_pub, reason = "a module of a test binary")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use shuttle::rand::Rng;
use shuttle::thread;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_mmu::Word;
use tdx_mmu::embed::Flush;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::Tables;
use tdx_mmu::l2::MAX_L2_VMS;
use tdx_mmu::shared::EptEntry;

/// A mistake put into what the code under the model relies on. A model that does not fail with the
/// mistake that it is there for says nothing without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
    Nothing,
    /// Compare and exchange are two steps: two threads claim the same entry.
    TornExchange,
    /// Tables are freed without a grace period.
    NoGrace,
    /// The shared EPT is not invalidated: CPUs keep their translations.
    NoInvept,
    /// Nobody makes vCPUs leave the TD.
    NoKick,
    /// A vCPU is noted as inside only after it has entered.
    LateNote,
    /// An exclusive section does not keep shared ones away.
    OpenGate,
    /// The entries of the shared EPT's tables are not frozen when the tables leave the tree.
    NoFreeze,
    /// A walk takes a frozen entry for its end.
    UnawareWalk,
}

/// How much longer a mistake is looked for than a model without one is run.
const PERSISTENCE: usize = 10;

thread_local!(static SEEDED: Cell<Seeded> = const { Cell::new(Seeded::Nothing) });

/// Whether `mistake` is in. All threads of a model run on one thread of the operating system.
pub fn seeded(mistake: Seeded) -> bool {
    SEEDED.get() == mistake
}

/// Runs `body` in `runs` interleavings of each of two kinds, with `mistake` put in: any thread may go on after any
/// step; or one runs on for long, and the others at a few places only.
///
/// Interleavings are others each time. A mistake that `runs` of them would now and then miss gets [`PERSISTENCE`] times
/// as many; the first that notices it is the last.
pub fn explore(mistake: Seeded, runs: usize, body: impl Fn() + Send + Sync + 'static) {
    let runs = match mistake {
        Seeded::Nothing => runs,
        _ => runs * PERSISTENCE,
    };
    SEEDED.set(mistake);
    let body = Arc::new(body);
    let again = body.clone();
    shuttle::check_pct(move || again(), runs, 3);
    shuttle::check_random(move || body(), runs);
}

/// Does all of `work` on `world`, each on a thread of its own, to the end.
pub fn side_by_side<W, const N: usize>(world: &Arc<W>, work: [fn(&W); N])
where
    W: Send + Sync + 'static,
{
    let threads = work.map(|work| {
        let world = world.clone();
        thread::spawn(move || work(&world))
    });
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

/// A place where another thread may go on. Now and then it has to, or a thread that waits in a loop would
/// keep the one that it waits for from running.
fn step() {
    if shuttle::rand::thread_rng().gen_ratio(1, 2000) {
        thread::yield_now();
    } else {
        shuttle::sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

/// What a table contains that was just allocated.
const FRESH: u64 = 0xdead;
/// What it contains once it was freed; nothing else writes that.
const FREED: u64 = 0xf4ee_d000_0000_0000;
/// What a frozen entry of the shared EPT says.
const FROZEN: u64 = EptEntry::FROZEN.bits();
const TABLES: u64 = 0x10_0000;
const TABLE_COUNT: u64 = 32;

/// A word with a scheduling point before each operation that publishes, acquires or claims.
#[derive(Debug)]
pub struct Step(AtomicU64);

impl Step {
    /// What the word contains, which must not be part of a freed table.
    fn live(&self) -> u64 {
        let value = self.0.load(Ordering::Relaxed);
        assert_ne!(value, FREED, "a freed table is used");
        value
    }
}

impl Word for Step {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    fn load(&self, order: Ordering) -> u64 {
        if order != Ordering::Relaxed {
            step();
        }
        self.live()
    }

    fn store(&self, value: u64, order: Ordering) {
        if order != Ordering::Relaxed {
            step();
        }
        self.live();
        if !(seeded(Seeded::NoFreeze) && value == FROZEN) {
            self.0.store(value, order);
        }
    }

    fn replace(&self, current: u64, new: u64) -> Result<(), u64> {
        step();
        if seeded(Seeded::TornExchange) {
            let seen = self.live();
            step();
            if seen != current {
                return Err(seen);
            }
            self.0.store(new, Ordering::Relaxed);
            return Ok(());
        }
        let seen = self.live();
        if seeded(Seeded::NoFreeze) && new == FROZEN && seen == current {
            return Ok(());
        }
        Word::replace(&self.0, current, new)
    }

    fn add(&self, value: u64) -> u64 {
        step();
        let before = Word::add(&self.0, value);
        // The gate's mark of an exclusive section is the top bit.
        if seeded(Seeded::OpenGate) {
            before & !(1 << 63)
        } else {
            before
        }
    }

    fn sub(&self, value: u64) -> u64 {
        step();
        Word::sub(&self.0, value)
    }
}

/// The words beside a table: its own, and those of L2 VMs.
type Links = (Step, [Step; MAX_L2_VMS]);

/// Tables, who reads them, and what CPUs have read from them.
pub struct Memory {
    tables: Vec<(Box<[Step; 512]>, Links, AtomicBool)>,
    module_pages: AtomicU64,
    readers: AtomicUsize,
    inside: Mutex<BTreeSet<usize>>,
    /// Translations that CPUs keep, by GPA.
    pub translations: Mutex<BTreeMap<u64, u64>>,
}

pub struct Reader<'m>(&'m Memory, usize);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.inside.lock().unwrap().remove(&self.1);
    }
}

impl Memory {
    pub fn new() -> Self {
        let table = || {
            (
                Box::new([const { Step(AtomicU64::new(FREED)) }; 512]),
                (
                    Step::new(0),
                    [const { Step(AtomicU64::new(0)) }; MAX_L2_VMS],
                ),
                AtomicBool::new(false),
            )
        };
        Self {
            tables: (0..TABLE_COUNT).map(|_| table()).collect(),
            module_pages: AtomicU64::new(0x8000_0000),
            readers: AtomicUsize::new(0),
            inside: Mutex::default(),
            translations: Mutex::default(),
        }
    }

    fn table(&self, hpa: Hpa) -> &(Box<[Step; 512]>, Links, AtomicBool) {
        let table = &self.tables[usize::try_from((hpa.bits() - TABLES) >> 12).unwrap()];
        assert!(table.2.load(Ordering::Relaxed), "a freed table is used");
        table
    }

    pub fn in_use(&self) -> usize {
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
        &self.table(table).1.0
    }

    fn l2_links(&self, table: Hpa) -> Option<&[Step; MAX_L2_VMS]> {
        Some(&self.table(table).1.1)
    }
}

impl Frames for Memory {
    fn allocate_table(&self) -> Option<Page> {
        let index = self
            .tables
            .iter()
            .position(|table| !table.2.swap(true, Ordering::Relaxed))?;
        self.tables[index]
            .0
            .iter()
            .for_each(|entry| entry.0.store(FRESH, Ordering::Relaxed));
        Page::assume_owned(Hpa::new(TABLES + (index as u64) * 4096), Level::Pt)
    }

    fn free_table(&self, table: Page) {
        let (entries, _, live) = self.table(table.into_hpa());
        entries
            .iter()
            .for_each(|entry| entry.0.store(FREED, Ordering::Relaxed));
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

    fn stripe(&self) -> usize {
        shuttle::rand::thread_rng().gen_range(0..3)
    }
}

impl Grace for Memory {
    type Guard<'g> = Reader<'g>;

    fn enter(&self) -> Reader<'_> {
        let number = self.readers.fetch_add(1, Ordering::Relaxed);
        self.inside.lock().unwrap().insert(number);
        Reader(self, number)
    }

    fn retire(&self, table: Page) {
        let before = self.readers.load(Ordering::Relaxed);
        while !seeded(Seeded::NoGrace)
            && self.inside.lock().unwrap().range(..before).next().is_some()
        {
            thread::yield_now();
        }
        self.free_table(table);
    }
}

impl Flush for Memory {
    fn invept(&self) {
        thread::yield_now();
        if !seeded(Seeded::NoInvept) {
            self.translations.lock().unwrap().clear();
        }
    }
}
