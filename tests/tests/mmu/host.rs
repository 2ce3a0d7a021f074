//! A host of TDs on the emulated platform: the embedder of the MMU, as small as it can be.

mod backing;
mod frames;
mod guest;
mod injector;
mod lp;
mod pamt;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;

use tdx_abi::HostLeaf;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::SharedBit;
use tdx_abi::Status;
use tdx_abi::field::FieldId;
use tdx_abi::field::global;
use tdx_abi::format::SysConfigOptions;
use tdx_abi::format::TdAttributes;
use tdx_abi::hardware::HardwareSeamcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::tdh;
use tdx_emulator::Module;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_mmu::GpaRange;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::platform::Hkid;
use tdx_mmu::platform::HkidPool;
use tdx_mmu::td::Error;
use tdx_mmu::td::TdConfig;

use self::injector::Injector;
use self::lp::HostLp;

pub use self::injector::Injection;
pub use self::lp::run_on;

// The map of emulated physical memory. TDMR: 2 GiB from MODULE_PAGES on.
const TABLES: u64 = 0x4000_0000;
const LINKS: u64 = 0x5000_0000;
const L2_LINKS: u64 = 0x5800_0000;
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

/// The module's KeyID.
const GLOBAL_HKID: u16 = 32;

pub struct Host {
    /// Number of L2 VMs of its TDs.
    l2_vms: u8,
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
    /// How much of the memory behind shared pages is contiguous.
    pub shared_run: Mutex<Level>,
    /// Whether large pages are made of what the guest has filled.
    pub promotes: AtomicBool,
    /// Whether they are made of what is about to be removed.
    pub promotes_before_removal: AtomicBool,
    /// What happens once while the backing looks for a page.
    pub meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
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

    /// The same for TDs with this many L2 VMs.
    pub fn partitioned(l2_vms: u8) -> Self {
        let platform = Platform::new(PlatformConfig::default());
        let host = Self {
            l2_vms,
            ..Self::down(Box::leak(Box::new(platform)), None)
        };
        host.bring_up();
        host
    }

    /// The same with a module that is configured for Dynamic PAMT.
    pub fn dynamic() -> Self {
        Self::dynamic_partitioned(0)
    }

    /// The same for TDs with this many L2 VMs.
    pub fn dynamic_partitioned(l2_vms: u8) -> Self {
        let config = PlatformConfig {
            module: Module::V2_0_18,
            ..PlatformConfig::default()
        };
        Self::dynamic_on(config, l2_vms)
    }

    /// The same on another platform, whose module has Dynamic PAMT.
    pub fn dynamic_on(config: PlatformConfig, l2_vms: u8) -> Self {
        let counts = (0..TDMR_SIZE / Level::Pd.size()).map(|_| AtomicU64::new(0));
        let platform = Box::leak(Box::new(Platform::new(config)));
        let host = Self {
            l2_vms,
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
        let lp = |number| HostLp::new(platform, number, injector.clone(), instruction);
        Self {
            l2_vms: 0,
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
            shared_run: Mutex::new(Level::Pd),
            promotes: AtomicBool::new(false),
            promotes_before_removal: AtomicBool::new(false),
            meanwhile: Mutex::new(None),
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
    pub fn call(&self, lp: usize, leaf: SeamcallLeaf, operands: [u64; 3]) -> Registers {
        let [rcx, rdx, r8] = operands;
        let mut registers = Registers {
            rax: leaf.number().into(),
            rcx,
            rdx,
            r8,
            ..Registers::default()
        };
        self.lps[lp].execute(&mut registers).unwrap();
        let status = Status::from_rax(registers.rax);
        assert!(!status.is_error(), "{leaf:?}: {:#x}", registers.rax);
        registers
    }

    fn bring_up(&self) {
        type L = SeamcallLeaf;
        let memory = self.platform.memory();
        self.call(0, L::TDH_SYS_INIT, [0; 3]);
        for lp in 0..self.lps.len() {
            self.call(lp, L::TDH_SYS_LP_INIT, [0; 3]);
        }
        memory.write_u64(SCRATCH, SCRATCH + 0x1000);
        // With Dynamic PAMT a bit for each page.
        let pamt_4k = match self.pamt {
            None => TDMR_SIZE / 4096 * 16,
            Some(_) => TDMR_SIZE / 4096 / 8,
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
        // Modules without Dynamic PAMT take the bare KeyID.
        let options = SysConfigOptions::new()
            .with_hkid(GLOBAL_HKID)
            .with_dynamic_pamt(self.pamt.is_some());
        self.call(0, L::TDH_SYS_CONFIG, [SCRATCH, 1, options.into_bits()]);
        self.call(0, L::TDH_SYS_KEY_CONFIG, [0; 3]);
        while self.call(0, L::TDH_SYS_TDMR_INIT, [MODULE_PAGES, 0, 0]).rdx
            < MODULE_PAGES + TDMR_SIZE
        {}
        let attributes = TdAttributes::new().with_sept_ve_disable(true);
        // TD_PARAMS: ATTRIBUTES, x87 and SSE, 4 vCPUs and the L2 VMs, 4 levels, 2.5 GHz.
        for (offset, value) in [
            (0, attributes.into_bits()),
            (8, 3),
            (16, 4 | u64::from(self.l2_vms) << 16),
            (24, 0x1e),
            (40, 100),
        ] {
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
        let config = self.config();
        // The TDR, and the TDVPR beside the TDVPX pages.
        2 + usize::from(config.tdcx_pages) + usize::from(config.tdvpx_pages)
    }

    /// Place of the TDCX page in [`Host::allocated`] that is the root of the Secure-EPT of L2 VM `vm`.
    pub fn l2_root(&self, vm: usize) -> usize {
        self.first_tdcx() + usize::from(self.pages_of(global::TDCS_BASE_SIZE)) + vm - 1
    }

    /// What a TD is on this platform.
    pub fn config(&self) -> TdConfig {
        let with_l2 = |base, each| self.pages_of(base) + self.l2_vms * self.pages_of(each);
        TdConfig {
            tdcx_pages: with_l2(global::TDCS_BASE_SIZE, global::TDCS_SIZE_PER_L2_VM),
            tdvpx_pages: with_l2(global::TDVPS_BASE_SIZE, global::TDVPS_SIZE_PER_L2_VM) - 1,
            l2_vms: self.l2_vms,
            ..config()
        }
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
        global_hkid: GLOBAL_HKID,
        tdcx_pages: 6,
        tdvpx_pages: 5,
        l2_vms: 0,
    }
}
