//! A host of TDs on the emulated platform: the embedder of the MMU, as small as it can be.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::SharedBit;
use tdx_abi::SharedGpa;
use tdx_abi::Trap;
use tdx_abi::field::FieldId;
use tdx_abi::field::global;
use tdx_abi::hardware::HardwareSeamcall;
use tdx_abi::tdh;
use tdx_emulator::ExitInfo;
use tdx_emulator::GuestCall;
use tdx_emulator::HostCall;
use tdx_emulator::Module;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_mmu::GpaRange;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::embed::Backing;
use tdx_mmu::embed::Clean;
use tdx_mmu::embed::Flush;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::SharedBacking;
use tdx_mmu::embed::Tables;
use tdx_mmu::embed::Vcpus;
use tdx_mmu::pamt::PairCount;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::Hkid;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::platform::LpId;
use tdx_mmu::platform::MemoryRange;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Permissions;
use tdx_mmu::td::Error;
use tdx_mmu::td::Laggards;
use tdx_mmu::td::TdConfig;

// The map of emulated physical memory. TDMR: 2 GiB from MODULE_PAGES on.
const TABLES: u64 = 0x4000_0000;
const LINKS: u64 = 0x5000_0000;
const SHARED_MEMORY: u64 = 0x6000_0000;
pub const SCRATCH: u64 = 0x7000_0000;
const MODULE_PAGES: u64 = 0x1_0000_0000;
const PRIVATE_MEMORY: u64 = 0x1_2000_0000;
/// Where relocated pages go.
const SPARE: u64 = 0x1_1000_0000;
const PAMT: u64 = 0x1_8000_0000;
const TDMR_SIZE: u64 = 2 << 30;
/// Guest memory: 1 GiB from 0 on.
pub const RAM: u64 = 1 << 30;

thread_local!(static LP: Cell<usize> = const { Cell::new(0) });

/// Makes this thread run on LP `number`.
pub fn run_on(number: usize) {
    LP.set(number);
}

/// What the module is made to answer instead of executing a call.
#[derive(Clone, Copy, Debug)]
pub struct Injection {
    /// SEAMCALLs that pass before.
    pub after: u64,
    /// How many are answered so.
    pub times: u64,
    /// The answer.
    pub rax: u64,
}

#[derive(Debug, Default)]
pub struct Injector {
    plan: Mutex<Option<Injection>>,
    pub calls: AtomicU64,
    /// Leaves that the injection hit.
    pub hit: Mutex<Vec<u64>>,
}

impl Injector {
    pub fn arm(&self, injection: Option<Injection>) {
        self.calls.store(0, Ordering::Relaxed);
        self.hit.lock().unwrap().clear();
        *self.plan.lock().unwrap() = injection;
    }

    fn answer(&self, leaf: u64) -> Option<u64> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let plan = (*self.plan.lock().unwrap())?;
        let hit = (plan.after..plan.after + plan.times).contains(&call);
        hit.then(|| self.hit.lock().unwrap().push(leaf));
        hit.then_some(plan.rax)
    }
}

/// An LP whose calls may be answered by the injector.
#[derive(Clone)]
pub struct HostLp {
    platform: &'static Platform,
    number: usize,
    injector: Arc<Injector>,
    /// The instruction with which it calls, where it does not call the platform itself.
    instruction: Option<HardwareSeamcall>,
}

impl HostLp {
    fn execute(&self, registers: &mut Registers) -> Result<(), Trap> {
        match self.instruction {
            Some(instruction) => {
                tdx_emulator_guard::run_on(self.number);
                instruction.seamcall(registers)
            }
            None => self.platform.lp(self.number).unwrap().seamcall(registers),
        }
    }
}

impl Seamcall for HostLp {
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        match self.injector.answer(registers.rax) {
            Some(rax) => {
                registers.rax = rax;
                Ok(())
            }
            None => self.execute(registers),
        }
    }
}

/// Option of TDH.SYS.CONFIG in R8: the module's KeyID is in bits 15:0.
const DYNAMIC_PAMT: u64 = 1 << 16;

pub struct Host {
    /// With Dynamic PAMT, the count for each 2 MiB range of the TDMR.
    pamt: Option<Vec<AtomicU64>>,
    pub platform: &'static Platform,
    pub injector: Arc<Injector>,
    lps: Vec<HostLp>,
    tables: Mutex<BTreeSet<u64>>,
    next_table: AtomicU64,
    module_pages: Mutex<BTreeSet<u64>>,
    /// Module pages in the order of allocation; the first are TDR and TDCX pages.
    pub allocated: Mutex<Vec<u64>>,
    next_module_page: AtomicU64,
    private: Mutex<BTreeSet<(u64, u64)>>,
    epochs: Vec<AtomicU64>,
    /// Pages that the guest wrote while dirty logging was on.
    pub dirty: Mutex<Vec<(u64, Level)>>,
    /// Pages that could not be written back.
    pub quarantine: Mutex<Vec<(Option<PrivateGpa>, Page)>>,
    readers: RwLock<()>,
    /// For every 2 MiB of guest memory the host block in use, where pages may be asked for at once by
    /// several threads; without it guest memory lies at a fixed place.
    pub blocks: Mutex<Option<BTreeMap<u64, u64>>>,
    next_block: AtomicU64,
    /// Largest private page that the backing gives.
    pub largest: Mutex<Level>,
    pub kick_disabled: AtomicBool,
    pub kicks: AtomicUsize,
    pub invepts: AtomicUsize,
    pub scrubbed: AtomicUsize,
    /// Allocations of tables and module pages that still succeed.
    pub budget: AtomicUsize,
    pub patience: AtomicUsize,
}

impl Host {
    /// A platform brought up, with 1 GiB of guest memory to give.
    pub fn new() -> Self {
        let platform = Platform::new(PlatformConfig::default());
        Self::on(Box::leak(Box::new(platform)), None)
    }

    /// The same with a module that is configured for Dynamic PAMT.
    pub fn dynamic() -> Self {
        let config = PlatformConfig {
            module: Module::V2_0_18,
            ..PlatformConfig::default()
        };
        let counts = (0..TDMR_SIZE / Level::Pd.size()).map(|_| AtomicU64::new(0));
        let platform = Box::leak(Box::new(Platform::new(config)));
        let host = Self {
            pamt: Some(counts.collect()),
            ..Self::down(platform, None)
        };
        host.bring_up();
        host
    }

    /// The same on `platform`, which only has its module loaded; calls are made by `instruction` if it is given.
    pub fn on(platform: &'static Platform, instruction: Option<HardwareSeamcall>) -> Self {
        let host = Self::down(platform, instruction);
        host.bring_up();
        host
    }

    fn down(platform: &'static Platform, instruction: Option<HardwareSeamcall>) -> Self {
        let injector = Arc::new(Injector::default());
        let lp = |number| HostLp {
            platform,
            number,
            injector: injector.clone(),
            instruction,
        };
        Self {
            pamt: None,
            platform,
            lps: (0..platform.lps()).map(lp).collect(),
            injector: injector.clone(),
            tables: Mutex::default(),
            next_table: AtomicU64::new(TABLES),
            module_pages: Mutex::default(),
            allocated: Mutex::default(),
            next_module_page: AtomicU64::new(MODULE_PAGES),
            private: Mutex::default(),
            epochs: (0..4).map(|_| AtomicU64::new(0)).collect(),
            dirty: Mutex::default(),
            quarantine: Mutex::default(),
            readers: RwLock::new(()),
            blocks: Mutex::new(None),
            next_block: AtomicU64::new(PRIVATE_MEMORY + Level::Pd.size()),
            largest: Mutex::new(Level::Pt),
            kick_disabled: AtomicBool::new(false),
            kicks: AtomicUsize::new(0),
            invepts: AtomicUsize::new(0),
            scrubbed: AtomicUsize::new(0),
            budget: AtomicUsize::new(usize::MAX),
            patience: AtomicUsize::new(1000),
        }
    }

    /// One SEAMCALL on LP `lp`, which must succeed.
    #[track_caller]
    pub fn call(&self, lp: usize, rax: u64, rcx: u64, rdx: u64, r8: u64) -> Registers {
        let mut registers = Registers {
            rax,
            rcx,
            rdx,
            r8,
            ..Registers::default()
        };
        self.lps[lp].execute(&mut registers).unwrap();
        assert_eq!(
            registers.rax >> 63,
            0,
            "leaf {rax} failed: {:#x}",
            registers.rax
        );
        registers
    }

    fn bring_up(&self) {
        let memory = self.platform.memory();
        self.call(0, 33, 0, 0, 0);
        for lp in 0..self.lps.len() {
            self.call(lp, 35, 0, 0, 0);
        }
        memory.write_u64(SCRATCH, SCRATCH + 0x1000);
        // With Dynamic PAMT a bit for each page.
        let (pamt_4k, option) = match self.pamt {
            None => (TDMR_SIZE / 4096 * 16, 0),
            Some(_) => (TDMR_SIZE / 4096 / 8, DYNAMIC_PAMT),
        };
        let info = [
            MODULE_PAGES,
            TDMR_SIZE,
            PAMT,
            4096,
            PAMT + 0x1000,
            0x4000,
            PAMT + 0x10_0000,
            pamt_4k,
        ];
        for (word, value) in (0..).zip(info) {
            memory.write_u64(SCRATCH + 0x1000 + 8 * word, value);
        }
        self.call(0, 45, SCRATCH, 1, 32 | option);
        self.call(0, 31, 0, 0, 0);
        while self.call(0, 36, MODULE_PAGES, 0, 0).rdx < MODULE_PAGES + TDMR_SIZE {}
        // TD_PARAMS: SEPT_VE_DISABLE, x87 and SSE, 4 vCPUs, 4 levels, 2.5 GHz.
        for (offset, value) in [(0, 1 << 28), (8, 3), (16, 4), (24, 0x1e), (40, 100)] {
            memory.write_u64(SCRATCH + 0x2000 + offset, value);
        }
    }

    /// A TD with `vcpus` vCPUs whose whole memory is declared private.
    pub fn create(self, vcpus: usize) -> Td<Self> {
        let hkid = HkidPool::<1>::new(33, 31).unwrap().allocate().unwrap();
        let (td, done) = self.try_create(hkid);
        done.unwrap();
        (0..vcpus).for_each(|vcpu| assert_eq!(td.add_vcpu(0).unwrap(), vcpu));
        td.declare(ram(), Visibility::Private).unwrap();
        td
    }

    /// What [`Td::create`] makes with the host's own parameters.
    pub fn try_create(self, hkid: Hkid) -> (Td<Self>, Result<(), Error>) {
        let config = self.config();
        Td::create(self, config, hkid, Hpa::new(SCRATCH + 0x2000))
            .unwrap_or_else(|(_, _, error)| panic!("{error}"))
    }

    /// Pages of a control structure, as the module says.
    fn pages_of(&self, field: FieldId) -> u8 {
        // Not one of the calls that an injection may fail.
        let read = tdh::sys::Rd { field }
            .call(&self.platform.lp(0).unwrap())
            .unwrap();
        u8::try_from(read.output.value / 4096).unwrap()
    }

    /// TDR, TDCX pages, and the pages of one vCPU.
    pub fn control_pages(&self) -> usize {
        let pages = self.pages_of(global::TDCS_BASE_SIZE) + self.pages_of(global::TDVPS_BASE_SIZE);
        1 + usize::from(pages)
    }

    fn config(&self) -> TdConfig {
        TdConfig {
            tdcx_pages: self.pages_of(global::TDCS_BASE_SIZE),
            tdvpx_pages: self.pages_of(global::TDVPS_BASE_SIZE) - 1,
            ..config()
        }
    }

    /// Ranges that have a PAMT page pair.
    pub fn pamt_pairs(&self) -> usize {
        let present = |word: &&AtomicU64| PairCount::new(*word).pages().is_some();
        self.pamt.iter().flatten().filter(present).count()
    }

    /// Fails unless the counts say which 4 KiB pages the emulated module has.
    #[track_caller]
    pub fn check_pamt(&self) {
        let Some(counts) = &self.pamt else { return };
        let mut used = vec![0; counts.len()];
        self.platform.for_each_used_page(|hpa, level, _, _| {
            let range = (hpa.bits() - MODULE_PAGES) / Level::Pd.size();
            used[usize::try_from(range).unwrap()] += u64::from(level == Level::Pt);
        });
        for (range, (word, used)) in counts.iter().zip(used).enumerate() {
            let pages = PairCount::new(word).pages();
            assert_eq!(pages.unwrap_or(0), used, "pages in use of range {range}");
        }
    }

    /// Takes back the pairs that failed calls have left idle.
    pub fn collect_pamt(&self) {
        let tdmr = MemoryRange::with_size(Hpa::new(MODULE_PAGES), TDMR_SIZE).unwrap();
        tdx_mmu::pamt::collect(self, &self.config(), tdmr).unwrap();
    }

    /// Cleans the pages of pairs that could not be written back.
    pub fn clean_pamt(&self) {
        let kept = core::mem::take(&mut *self.quarantine.lock().unwrap());
        for (gpa, page) in kept {
            match gpa {
                None => tdx_mmu::pamt::clean(self, &self.config(), page).unwrap(),
                Some(_) => self.quarantine.lock().unwrap().push((gpa, page)),
            }
        }
    }

    /// Place of the first TDCX page in [`Host::allocated`]: behind the TDR, and the pair of its range.
    pub const fn first_tdcx(&self) -> usize {
        if self.pamt.is_some() { 3 } else { 1 }
    }

    /// Enters `tdvpr` on LP `lp`.
    #[track_caller]
    pub fn enter(&self, lp: usize, tdvpr: Hpa) {
        let mut registers = Registers {
            rcx: tdvpr.bits(),
            ..Registers::default()
        };
        // It may be associated with the LP where it was made or last entered.
        for other in (0..self.lps.len()).filter(|other| *other != lp) {
            let mut flush = Registers {
                rax: 18,
                rcx: tdvpr.bits(),
                ..Registers::default()
            };
            self.platform.lp(other).unwrap().host_call(&mut flush);
        }
        let entered = self.platform.lp(lp).unwrap().host_call(&mut registers);
        assert_eq!(
            entered,
            HostCall::EnteredTd,
            "VP.ENTER: {:#x}",
            registers.rax
        );
    }

    /// The guest on LP `lp` is interrupted, if there is one.
    pub fn leave(&self, lp: usize) {
        let interrupt = ExitInfo {
            reason: 1,
            interruption_info: 0x8000_0020,
            ..ExitInfo::default()
        };
        self.platform
            .lp(lp)
            .unwrap()
            .guest_exit(&interrupt, &mut Registers::default());
    }

    /// The guest on LP `lp` accepts a page of `level` at `gpa`; RAX as it sees it.
    pub fn accept(&self, lp: usize, gpa: u64, level: Level) -> u64 {
        let mut registers = Registers {
            rax: 6,
            rcx: gpa | level as u64,
            ..Registers::default()
        };
        assert_eq!(
            self.platform.lp(lp).unwrap().guest_call(&mut registers),
            GuestCall::ReturnedToTd
        );
        registers.rax
    }

    fn spend(&self) -> bool {
        self.budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    /// A page that nobody uses, for a relocation.
    pub fn spare(&self, index: u64) -> Page {
        let hpa = SPARE + index * 4096;
        self.private.lock().unwrap().insert((hpa, 4096));
        Page::assume_owned(Hpa::new(hpa), Level::Pt).unwrap()
    }

    /// Where the backing keeps `gpa`.
    pub const fn backing(gpa: u64) -> u64 {
        PRIVATE_MEMORY + gpa
    }

    /// Takes the page at `gpa` from the backing, as a fault would.
    pub fn take(&self, gpa: u64, level: Level) -> Page {
        let mut blocks = self.blocks.lock().unwrap();
        let mut private = self.private.lock().unwrap();
        let size = level.size();
        let free = |private: &BTreeSet<(u64, u64)>, hpa: u64| {
            private
                .range((hpa, 0)..)
                .next()
                .is_none_or(|(next, _)| *next >= hpa + size)
                && private
                    .range(..(hpa, 0))
                    .next_back()
                    .is_none_or(|(before, bytes)| before + bytes <= hpa)
        };
        let offset = gpa & (Level::Pd.size() - 1) & !(size - 1);
        let hpa = match blocks.as_mut() {
            None => Self::backing(gpa) & !(size - 1),
            Some(blocks) => {
                let region = gpa & !(Level::Pd.size() - 1);
                let block = blocks
                    .get(&region)
                    .copied()
                    .filter(|block| free(&private, block + offset));
                let block = block.unwrap_or_else(|| {
                    self.next_block
                        .fetch_add(Level::Pd.size(), Ordering::Relaxed)
                });
                assert!(block < PAMT, "no block left");
                blocks.insert(region, block);
                block + offset
            }
        };
        assert!(free(&private, hpa), "page {hpa:#x} given twice");
        private.insert((hpa, size));
        Page::assume_owned(Hpa::new(hpa), level).unwrap()
    }

    pub fn tables_in_use(&self) -> usize {
        self.tables.lock().unwrap().len()
    }

    pub fn module_pages_in_use(&self) -> usize {
        self.module_pages.lock().unwrap().len()
    }

    /// Bytes of private memory that are not with the host.
    pub fn private_in_use(&self) -> u64 {
        self.private
            .lock()
            .unwrap()
            .iter()
            .map(|(_, size)| size)
            .sum()
    }
}

pub fn ram() -> GpaRange {
    GpaRange::new(0, RAM).unwrap()
}

pub fn range(start: u64, bytes: u64) -> GpaRange {
    GpaRange::new(start, bytes).unwrap()
}

pub fn config() -> TdConfig {
    TdConfig {
        shared_bit: SharedBit::new(47).unwrap(),
        private_top: Level::Pml4,
        shared_top: Level::Pml4,
        keyid_shift: 46,
        global_hkid: 32,
        tdcx_pages: 6,
        tdvpx_pages: 5,
    }
}

impl Tables for Host {
    type Word = AtomicU64;

    fn entries(&self, table: Hpa) -> &[AtomicU64; 512] {
        debug_assert!(
            self.tables.lock().unwrap().contains(&table.bits()),
            "{table:?} is no table"
        );
        self.platform.memory().frame(table.bits() >> 12).qwords()
    }

    fn link(&self, table: Hpa) -> &AtomicU64 {
        let index = (table.bits() - TABLES) >> 12;
        &self
            .platform
            .memory()
            .frame((LINKS >> 12) + index / 512)
            .qwords()[usize::try_from(index % 512).unwrap()]
    }

    fn pamt_count(&self, hpa: Hpa) -> Option<&AtomicU64> {
        let range = (hpa.bits() - MODULE_PAGES) / Level::Pd.size();
        Some(&self.pamt.as_ref()?[usize::try_from(range).unwrap()])
    }
}

impl Frames for Host {
    fn allocate_table(&self) -> Option<Page> {
        let hpa = self
            .spend()
            .then(|| self.next_table.fetch_add(4096, Ordering::Relaxed))?;
        self.tables.lock().unwrap().insert(hpa);
        Page::assume_owned(Hpa::new(hpa), Level::Pt)
    }

    fn free_table(&self, table: Page) {
        assert!(
            self.tables.lock().unwrap().remove(&table.into_hpa().bits()),
            "freed twice"
        );
    }

    fn allocate_module_page(&self) -> Option<Page> {
        let hpa = self
            .spend()
            .then(|| self.next_module_page.fetch_add(4096, Ordering::Relaxed))?;
        assert!(hpa < SPARE);
        self.module_pages.lock().unwrap().insert(hpa);
        self.allocated.lock().unwrap().push(hpa);
        Page::assume_owned(Hpa::new(hpa), Level::Pt)
    }

    fn free_module_page(&self, page: Page) {
        assert!(
            self.module_pages
                .lock()
                .unwrap()
                .remove(&page.into_hpa().bits()),
            "freed twice"
        );
    }
}

impl Relax for Host {
    fn pause(&self) {
        std::thread::yield_now();
    }

    fn patience(&self) -> u32 {
        u32::try_from(self.patience.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
    }
}

impl Grace for Host {
    type Guard<'g> = RwLockReadGuard<'g, ()>;

    fn enter(&self) -> Self::Guard<'_> {
        self.readers.read().unwrap()
    }

    fn retire(&self, table: Page) {
        drop(self.readers.write().unwrap());
        self.free_table(table);
    }
}

impl Flush for Host {
    fn invept(&self) {
        self.invepts.fetch_add(1, Ordering::Relaxed);
    }
}

impl Clean for Host {
    fn quarantine(&self, gpa: Option<PrivateGpa>, page: Page) {
        self.quarantine.lock().unwrap().push((gpa, page));
    }

    fn scrub(&self, page: &Page) {
        let memory = self.platform.host_memory();
        for offset in (0..page.level().size()).step_by(4096) {
            let hpa = Hpa::new(page.hpa().bits() + offset);
            memory.scrub(hpa);
            memory
                .read(hpa, &mut [0; 8])
                .expect("its cache lines have been written back");
        }
        self.scrubbed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Backing for Host {
    fn private_page(&self, gpa: PrivateGpa, largest: Level) -> Option<Page> {
        let level = largest.min(*self.largest.lock().unwrap());
        (gpa.bits() < RAM).then(|| self.take(gpa.bits(), level))
    }

    fn take_back(&self, _: PrivateGpa, page: Page) {
        let key = (page.hpa().bits(), page.level().size());
        let mut private = self.private.lock().unwrap();
        if !private.remove(&key) {
            // Part of a page that was given as a whole, or a whole given in parts.
            let whole = private.range(..=(key.0, u64::MAX)).next_back().copied();
            match whole.filter(|(hpa, size)| *hpa <= key.0 && key.0 + key.1 <= hpa + size) {
                Some((hpa, size)) => {
                    private.remove(&(hpa, size));
                    let parts = (hpa..hpa + size)
                        .step_by(4096)
                        .filter(|part| *part != key.0);
                    private.extend(parts.map(|part| (part, 4096)));
                }
                None => {
                    for part in (key.0..key.0 + key.1).step_by(4096) {
                        assert!(private.remove(&(part, 4096)), "{part:#x} came back twice");
                    }
                }
            }
        }
        let _ = page.into_hpa();
    }

    fn mark_dirty(&self, gpa: SharedGpa, level: Level) {
        self.dirty.lock().unwrap().push((gpa.bits(), level));
    }

    fn shared_page(&self, gpa: SharedGpa) -> SharedBacking {
        if gpa.bits() >= RAM {
            return SharedBacking::Mmio;
        }
        let hpa = Hpa::new(SHARED_MEMORY + gpa.bits() % (1 << 28));
        SharedBacking::Memory {
            hpa: hpa.align_down(Level::Pd),
            level: Level::Pd,
            attributes: Attributes::new(Permissions::READ_WRITE),
        }
    }
}

impl Vcpus for Host {
    fn epochs(&self) -> &[AtomicU64] {
        &self.epochs
    }

    fn kick(&self, laggards: Laggards<'_, AtomicU64>) {
        assert!(!laggards.is_empty(), "a kick for nobody");
        if self.kick_disabled.load(Ordering::Relaxed) {
            return;
        }
        self.kicks.fetch_add(1, Ordering::Relaxed);
        (0..self.lps.len()).for_each(|lp| self.leave(lp));
    }

    fn last_lp(&self, _: usize) -> Option<LpId> {
        None
    }
}

impl Executor for Host {
    type Lp = HostLp;

    fn on_this_lp<T>(&self, work: impl FnOnce(LpId, &HostLp) -> T) -> T {
        let number = LP.get();
        work(LpId(u32::try_from(number).unwrap()), &self.lps[number])
    }

    fn on_lp<T: Send>(&self, lp: LpId, work: impl FnOnce(&HostLp) -> T + Send) -> Option<T> {
        self.lps.get(usize::try_from(lp.0).unwrap()).map(work)
    }

    fn on_each_lp<E: Send>(
        &self,
        work: impl Fn(LpId, &HostLp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        (0..)
            .zip(&self.lps)
            .try_for_each(|(number, lp)| work(LpId(number), lp))
    }

    fn on_each_package<E: Send>(
        &self,
        work: impl Fn(LpId, &HostLp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        work(LpId(0), &self.lps[0])
    }
}
