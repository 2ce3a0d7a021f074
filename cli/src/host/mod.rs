//! A host made of an emulated platform: its frames, its LPs, and what it builds TDs from.

mod bring_up;
mod embed;
pub mod frames;
pub mod guest_memory;
pub mod image;
pub mod module;
pub mod td;

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_emulator::LineFault;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Range;
use tdx_mmu::platform::LpId;
use tdx_mmu::platform::MemoryRange;

pub use bring_up::Up;
pub use embed::Reader;
use frames::FramePool;
use guest_memory::GuestMemory;
use module::ModuleArgs;

thread_local! {
    /// The LP for which this thread executes.
    static THIS_LP: Cell<u32> = const { Cell::new(0) };
}

/// An emulated platform and the host's own state.
#[derive(Debug)]
pub struct Host {
    platform: Platform,
    frames: FramePool,
    module: ModuleArgs,
    /// With Dynamic PAMT, the count for each 2 MiB of the pool.
    pamt: Option<Vec<AtomicU64>>,
    /// A word beside every frame of the pool.
    links: Vec<AtomicU64>,
    /// Held shared by whoever walks tables.
    readers: RwLock<()>,
    guest: GuestMemory,
    /// For each vCPU what the MMU notes of it.
    epochs: Vec<AtomicU64>,
    /// For each vCPU the LP that it was last entered on.
    last_lps: Vec<AtomicU32>,
    kicks_allowed: AtomicBool,
    bell: OnceLock<Bell>,
    soil_allowed: AtomicBool,
    line_faults: Mutex<Vec<LineFault>>,
}

/// What wakes idle guests.
struct Bell(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bell")
    }
}

/// In [`Host::last_lps`]: no LP.
const NO_LP: u32 = u32::MAX;

impl Host {
    /// A host for one guest with this memory and this many vCPUs, each of which may have an LP of its
    /// own beside the one of the host. The module is freshly loaded.
    pub fn new(guest: GuestMemory, vcpus: u32) -> Self {
        Self::with_module(
            guest,
            vcpus,
            ModuleArgs::default(),
            PlatformConfig::default().seed,
        )
    }

    /// The same with this module, on a platform whose random numbers begin with `seed`.
    pub fn with_module(guest: GuestMemory, vcpus: u32, module: ModuleArgs, seed: u64) -> Self {
        let mut config = PlatformConfig {
            seed,
            module: module.module,
            ..PlatformConfig::default()
        };
        // Guest, tables, control structures and PAMT; rounded up to whole GiB of the second CMR.
        let guest_bytes: u64 = guest.slots().iter().map(|slot| slot.bytes()).sum();
        let needed = guest_bytes + guest_bytes / 8 + (512 << 20);
        if let Some(high) = config.cmrs.last_mut() {
            high.size = high.size.max(needed.next_multiple_of(1 << 30));
        }
        let packages = config.packages;
        config.lps_per_package = config.lps_per_package.max((vcpus + 1).div_ceil(packages));
        let mut host = Self::with_config(config, guest, vcpus);
        let (_, frames) = host.frames.extent();
        host.pamt = Self::pamt_counts(module, frames);
        host.module = module;
        host
    }

    /// A host with this platform.
    pub fn with_config(config: PlatformConfig, guest: GuestMemory, vcpus: u32) -> Self {
        let module = ModuleArgs {
            module: config.module,
            dynamic_pamt: false,
        };
        let memory: Vec<MemoryRange> = config.cmrs.iter().filter_map(memory_range).collect();
        let frames = FramePool::new(&memory);
        let (_, count) = frames.extent();
        Self {
            platform: Platform::new(config),
            frames,
            module,
            pamt: None,
            links: std::iter::repeat_with(AtomicU64::default)
                .take(count)
                .collect(),
            readers: RwLock::new(()),
            guest,
            epochs: (0..vcpus).map(|_| AtomicU64::new(0)).collect(),
            last_lps: (0..vcpus).map(|_| AtomicU32::new(NO_LP)).collect(),
            kicks_allowed: AtomicBool::new(true),
            bell: OnceLock::new(),
            soil_allowed: AtomicBool::new(true),
            line_faults: Mutex::new(Vec::new()),
        }
    }

    /// The platform.
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }

    /// What backs the guest's addresses.
    pub const fn guest(&self) -> &GuestMemory {
        &self.guest
    }

    /// The frame allocator.
    pub const fn frames(&self) -> &FramePool {
        &self.frames
    }

    /// The memory that the host may give to TDs.
    pub fn memory(&self) -> Vec<MemoryRange> {
        self.platform
            .config()
            .cmrs
            .iter()
            .filter_map(memory_range)
            .collect()
    }

    /// Runs `work` as LP `lp`.
    pub fn as_lp<T>(&self, lp: LpId, work: impl FnOnce() -> T) -> T {
        let before = THIS_LP.replace(lp.0);
        let result = work();
        THIS_LP.set(before);
        result
    }

    /// Notes that `vcpu` is about to be entered on `lp`.
    pub fn note_lp(&self, vcpu: usize, lp: LpId) {
        if let Some(last) = self.last_lps.get(vcpu) {
            last.store(lp.0, Ordering::Release);
        }
    }

    /// Whether a kick reaches anybody: without, one sees that it was needed.
    pub fn allow_kicks(&self, allowed: bool) {
        self.kicks_allowed.store(allowed, Ordering::SeqCst);
    }

    /// Sets what wakes guests that idle inside a TD, so that they notice a kick; only the first one counts.
    pub fn set_bell(&self, ring: impl Fn() + Send + Sync + 'static) {
        let _ = self.bell.set(Bell(Box::new(ring)));
    }

    /// Whether pages are filled with something before a TD gets them.
    pub fn allow_soil(&self, allowed: bool) {
        self.soil_allowed.store(allowed, Ordering::SeqCst);
    }

    /// Writes `value` all over the memory at `hpa`, as any earlier owner may have left it.
    pub fn soil(&self, hpa: Hpa, level: Level, value: u64) {
        let memory = self.platform.host_memory();
        let content = value.to_le_bytes().repeat(512);
        for offset in (0..level.size()).step_by(4096) {
            memory.write(Hpa::new(hpa.bits() + offset), &content);
        }
    }

    /// Writes zeros over the memory at `hpa` that a TD had, and notes what the host then still cannot read.
    pub fn scrub(&self, hpa: Hpa, level: Level) {
        let memory = self.platform.host_memory();
        for offset in (0..level.size()).step_by(4096) {
            let page = Hpa::new(hpa.bits() + offset);
            memory.scrub(page);
            if let Err(fault) = memory.read(page, &mut [0; 8]) {
                self.line_faults
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(fault);
            }
        }
    }

    /// What the host could not read of pages that it had scrubbed: cache lines that nobody had written back.
    pub fn line_faults(&self) -> Vec<LineFault> {
        self.line_faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn memory_range(range: &Range) -> Option<MemoryRange> {
    MemoryRange::with_size(Hpa::new(range.base), range.size)
}
