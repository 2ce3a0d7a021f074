//! The smallest host of a TD: tables in the arena, the module emulated, or answering at once that all went well.

use core::cell::Cell;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::SharedBit;
use tdx_abi::SharedGpa;
use tdx_abi::Trap;
use tdx_abi::leaf::SeamcallLeaf;
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
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::platform::LpId;
use tdx_mmu::td::Laggards;
use tdx_mmu::td::TdConfig;

use crate::arena;

// The map of emulated physical memory: one TDMR of 2 GiB, its PAMT behind it.
const SCRATCH: u64 = 0x7000_0000;
const MODULE_PAGES: u64 = 0x1_0000_0000;
const PRIVATE_MEMORY: u64 = 0x1_2000_0000;
const TDMR_SIZE: u64 = 2 << 30;
const PAMT: u64 = 0x1_8000_0000;

thread_local!(static LP: Cell<usize> = const { Cell::new(0) });

/// Makes this thread run on LP `number`, and take its tables from a part of the arena of its own.
pub fn run_on(number: usize) {
    LP.set(number);
    arena::start_in_part(number + 1);
}

/// An LP of the emulated platform.
pub struct Lp {
    platform: Arc<Platform>,
    number: usize,
    agreement: Arc<Agreement>,
}

/// A module that does nothing and says that it has done it.
struct Agreement {
    in_force: AtomicBool,
    /// The Secure-EPT page of each 2 MiB range, which a promotion gives back.
    tables: Vec<AtomicU64>,
}

impl Agreement {
    /// Answers a SEAMCALL. The page that it gives back is the one that the host gave.
    #[inline]
    fn answer(&self, registers: &mut Registers) {
        let gpa = registers.rcx & !0xfff;
        let table = || &self.tables[(gpa >> 21) as usize % self.tables.len()];
        match SeamcallLeaf::new(registers.rax as u16) {
            SeamcallLeaf::TDH_MEM_PAGE_REMOVE => registers.rcx = PRIVATE_MEMORY + gpa,
            SeamcallLeaf::TDH_MEM_PAGE_DEMOTE => table().store(registers.r8, Ordering::Relaxed),
            SeamcallLeaf::TDH_MEM_PAGE_PROMOTE => registers.rcx = table().load(Ordering::Relaxed),
            _ => {}
        }
        registers.rax = 0;
    }
}

impl Seamcall for Lp {
    #[inline]
    fn seamcall(&self, registers: &mut Registers) -> Result<(), Trap> {
        if self.agreement.in_force.load(Ordering::Relaxed) {
            self.agreement.answer(registers);
            return Ok(());
        }
        match self.platform.lp(self.number) {
            Some(lp) => lp.seamcall(registers),
            None => Err(Trap::GeneralProtection),
        }
    }
}

/// A host of one TD.
pub struct Host {
    lps: Vec<Lp>,
    agreement: Arc<Agreement>,
    /// Whether memory comes in 2 MiB pages where the MMU asks for them.
    large: AtomicBool,
    next_module_page: AtomicU64,
    epochs: [AtomicU64; 1],
}

impl Host {
    fn new() -> Self {
        let platform = Arc::new(Platform::new(PlatformConfig::default()));
        let agreement = Arc::new(Agreement {
            in_force: AtomicBool::new(false),
            tables: (0..1024).map(|_| AtomicU64::new(0)).collect(),
        });
        let lp = |number| Lp {
            platform: platform.clone(),
            number,
            agreement: agreement.clone(),
        };
        let host = Self {
            lps: (0..platform.lps()).map(lp).collect(),
            agreement: agreement.clone(),
            large: AtomicBool::new(false),
            next_module_page: AtomicU64::new(MODULE_PAGES),
            epochs: [AtomicU64::new(0)],
        };
        host.bring_up(&platform);
        host
    }

    /// From now on every SEAMCALL does nothing and succeeds, or is the emulated module's again.
    pub fn agree(&self, agreeable: bool) {
        self.agreement.in_force.store(agreeable, Ordering::Relaxed);
    }

    /// Backs memory by pages of this size, where the MMU asks for them.
    pub fn back_with(&self, largest: Level) {
        self.large.store(largest == Level::Pd, Ordering::Relaxed);
    }

    fn call(&self, lp: usize, leaf: SeamcallLeaf, operands: [u64; 3]) -> Registers {
        let [rcx, rdx, r8] = operands;
        let mut registers = Registers {
            rax: leaf.number().into(),
            rcx,
            rdx,
            r8,
            ..Registers::default()
        };
        self.lps[lp].seamcall(&mut registers).expect("no trap");
        assert_eq!(registers.rax >> 63, 0, "{leaf:?}: {:#x}", registers.rax);
        registers
    }

    fn bring_up(&self, platform: &Platform) {
        type L = SeamcallLeaf;
        let memory = platform.memory();
        self.call(0, L::TDH_SYS_INIT, [0; 3]);
        for lp in 0..self.lps.len() {
            self.call(lp, L::TDH_SYS_LP_INIT, [0; 3]);
        }
        memory.write_u64(SCRATCH, SCRATCH + 0x1000);
        let pamts = [
            PAMT,
            4096,
            PAMT + 0x1000,
            0x4000,
            PAMT + 0x10_0000,
            TDMR_SIZE / 4096 * 16,
        ];
        for (word, value) in (0..).zip([MODULE_PAGES, TDMR_SIZE].into_iter().chain(pamts)) {
            memory.write_u64(SCRATCH + 0x1000 + 8 * word, value);
        }
        self.call(0, L::TDH_SYS_CONFIG, [SCRATCH, 1, 32]);
        self.call(0, L::TDH_SYS_KEY_CONFIG, [0; 3]);
        while self.call(0, L::TDH_SYS_TDMR_INIT, [MODULE_PAGES, 0, 0]).rdx
            < MODULE_PAGES + TDMR_SIZE
        {}
        // TD_PARAMS: SEPT_VE_DISABLE, x87 and SSE, one vCPU, 4 levels, 2.5 GHz.
        for (offset, value) in [(0, 1 << 28), (8, 3), (16, 1), (24, 0x1e), (40, 100)] {
            memory.write_u64(SCRATCH + 0x2000 + offset, value);
        }
    }
}

/// A TD with `bytes` of private memory of which nothing is mapped; with `agreeable`, every SEAMCALL from
/// now on does nothing and succeeds.
pub fn td(bytes: u64, agreeable: bool) -> Td<Host> {
    let config = TdConfig {
        shared_bit: SharedBit::new(47).expect("a legal position"),
        private_top: Level::Pml4,
        shared_top: Level::Pml4,
        keyid_shift: 46,
        global_hkid: 32,
        tdcx_pages: 6,
        tdvpx_pages: 5,
        l2_vms: 0,
    };
    let hkids = HkidPool::<1>::new(33, 31).expect("a legal range");
    let hkid = hkids.allocate().expect("a KeyID");
    let (td, done) = Td::create(Host::new(), config, hkid, Hpa::new(SCRATCH + 0x2000))
        .unwrap_or_else(|(_, _, error)| panic!("{error}"));
    done.expect("the module creates the TD");
    td.declare(
        GpaRange::new(0, bytes).expect("whole pages"),
        Visibility::Private,
    )
    .expect("tables for the visibility");
    td.embedder().agree(agreeable);
    td
}

impl Tables for Host {
    type Word = AtomicU64;

    #[inline(always)]
    fn entries(&self, table: Hpa) -> &[AtomicU64; 512] {
        arena::table(table.bits())
    }

    fn link(&self, table: Hpa) -> &AtomicU64 {
        arena::link(table.bits())
    }
}

impl Frames for Host {
    fn allocate_table(&self) -> Option<Page> {
        Page::assume_owned(Hpa::new(arena::frame() as u64), Level::Pt)
    }

    fn free_table(&self, table: Page) {
        let _ = table.into_hpa();
    }

    fn allocate_module_page(&self) -> Option<Page> {
        let hpa = self.next_module_page.fetch_add(4096, Ordering::Relaxed);
        assert!(hpa < PRIVATE_MEMORY, "no module page left");
        Page::assume_owned(Hpa::new(hpa), Level::Pt)
    }

    fn free_module_page(&self, page: Page) {
        let _ = page.into_hpa();
    }
}

impl Relax for Host {
    fn stripe(&self) -> usize {
        LP.get()
    }
}

/// As under RCU: a read-side section costs nothing. No table is freed while faults are timed.
impl Grace for Host {
    type Guard<'g> = ();

    fn enter(&self) {}

    fn retire(&self, table: Page) {
        self.free_table(table);
    }
}

impl Flush for Host {
    fn invept(&self) {}
}

impl Clean for Host {
    fn scrub(&self, _: &Page) {}
}

impl Backing for Host {
    fn private_page(&self, gpa: PrivateGpa, largest: Level) -> Option<Page> {
        let level = match self.large.load(Ordering::Relaxed) {
            true => largest,
            false => Level::Pt,
        };
        Page::assume_owned(Hpa::new(PRIVATE_MEMORY + gpa.bits()), level)
    }

    fn take_back(&self, _: PrivateGpa, page: Page) {
        let _ = page.into_hpa();
    }

    fn shared_page(&self, _: SharedGpa) -> SharedBacking {
        SharedBacking::None
    }
}

impl Vcpus for Host {
    fn epochs(&self) -> &[AtomicU64] {
        &self.epochs
    }

    fn kick(&self, _: Laggards<'_, AtomicU64>) {}

    fn last_lp(&self, _: usize) -> Option<LpId> {
        None
    }
}

impl Executor for Host {
    type Lp = Lp;

    #[inline]
    fn on_this_lp<T>(&self, work: impl FnOnce(LpId, &Lp) -> T) -> T {
        let number = LP.get();
        work(LpId(number as u32), &self.lps[number])
    }

    fn on_lp<T: Send>(&self, lp: LpId, work: impl FnOnce(&Lp) -> T + Send) -> Option<T> {
        self.lps.get(lp.0 as usize).map(work)
    }

    fn on_each_lp<E: Send>(
        &self,
        work: impl Fn(LpId, &Lp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        (0..)
            .zip(&self.lps)
            .try_for_each(|(number, lp)| work(LpId(number), lp))
    }

    fn on_each_package<E: Send>(
        &self,
        work: impl Fn(LpId, &Lp) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        work(LpId(0), &self.lps[0])
    }
}
