//! What all parts of an emulated platform share.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use spin::Mutex;

use crate::abi::Module;
use crate::config::PlatformConfig;
use crate::counters::Counters;
use crate::fault::Faults;
use crate::global::Global;
use crate::guest_cpu::Program;
use crate::keys::KeyTags;
use crate::lp::LpSlot;
use crate::memory::PhysicalMemory;
use crate::rules::Rules;
use crate::structures::Structure;
use crate::structures::Tdcs;
use crate::structures::Tdr;
use crate::structures::Tdvps;
use crate::structures::layout::Layout;
use crate::structures::tdr;

/// Parameters, memory, module state and LPs of one platform.
pub(crate) struct Core {
    pub config: PlatformConfig,
    pub memory: Box<dyn PhysicalMemory>,
    pub global: Global,
    pub lps: Box<[LpSlot]>,
    pub counters: Counters,
    pub faults: Faults,
    /// KeyIDs of memory lines, where the memory is the emulator's own.
    pub keys: Option<KeyTags>,
    /// How often shared translations were flushed on all LPs.
    pub shared_flushes: AtomicU64,
    programs: Mutex<BTreeMap<u64, Arc<Mutex<Program>>>>,
    random: AtomicU64,
    tsc: AtomicU64,
}

impl Core {
    pub(crate) fn new(
        config: PlatformConfig,
        memory: Box<dyn PhysicalMemory>,
        keys: Option<KeyTags>,
    ) -> Self {
        let lps = (0..config.packages * config.lps_per_package)
            .map(|id| LpSlot::new(id, id / config.lps_per_package))
            .collect();
        Self {
            random: AtomicU64::new(config.seed.max(1)),
            tsc: AtomicU64::new(config.tsc_step),
            config,
            memory,
            global: Global::new(),
            lps,
            counters: Counters::new(),
            faults: Faults::default(),
            keys,
            shared_flushes: AtomicU64::new(0),
            programs: Mutex::new(BTreeMap::new()),
        }
    }

    /// The module that is loaded.
    pub(crate) const fn module(&self) -> Module {
        self.config.module
    }

    /// In what that module differs from others.
    pub(crate) const fn rules(&self) -> &'static Rules {
        Rules::of(self.module())
    }

    /// Where that module keeps what in its control structures.
    pub(crate) const fn layout(&self) -> Layout {
        Layout::of(self.module())
    }

    /// The memory.
    #[inline]
    pub(crate) fn memory(&self) -> &dyn PhysicalMemory {
        &*self.memory
    }

    /// Notes that the page at `hpa` was written under the key of the TD of `tdr`.
    #[inline]
    pub(crate) fn claim(&self, hpa: u64, tdr: Tdr<'_>) {
        self.claim_with(hpa, tdr.get(tdr::HKID));
    }

    /// Notes that the page at `hpa` was written under `key_id`.
    pub(crate) fn claim_with(&self, hpa: u64, key_id: u16) {
        if let Some(keys) = &self.keys {
            keys.claim(self.without_key_id(hpa) >> 12, key_id);
        }
    }

    /// What the vCPU whose TDVPR is at `tdvpr` executes.
    pub(crate) fn program(&self, tdvpr: u64) -> Option<Arc<Mutex<Program>>> {
        self.programs.lock().get(&tdvpr).cloned()
    }

    /// Sets what the vCPU whose TDVPR is at `tdvpr` executes.
    pub(crate) fn set_program(&self, tdvpr: u64, program: Program) {
        self.programs
            .lock()
            .insert(tdvpr, Arc::new(Mutex::new(program)));
    }

    /// The next value of RDRAND and RDSEED: a 64-bit xorshift.
    pub(crate) fn random(&self) -> u64 {
        let step = |x: u64| {
            let x = x ^ x << 13;
            let x = x ^ x >> 7;
            x ^ x << 17
        };
        let old = self
            .random
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |x| Some(step(x)));
        step(old.unwrap_or_else(|x| x))
    }

    /// Reads the TSC.
    pub(crate) fn tsc(&self) -> u64 {
        self.tsc.fetch_add(self.config.tsc_step, Ordering::AcqRel) + self.config.tsc_step
    }

    /// KeyID of an address.
    pub(crate) const fn key_id(&self, address: u64) -> u16 {
        ((address & self.config.key_id_mask()) >> self.config.key_id_shift()) as u16
    }

    /// An address with another KeyID.
    pub(crate) const fn with_key_id(&self, address: u64, key_id: u16) -> u64 {
        address & !self.config.key_id_mask() | (key_id as u64) << self.config.key_id_shift()
    }

    /// An address without its KeyID.
    pub(crate) const fn without_key_id(&self, address: u64) -> u64 {
        address & !self.config.key_id_mask()
    }

    /// Whether a KeyID is private to TDX.
    pub(crate) const fn is_private_key_id(&self, key_id: u16) -> bool {
        key_id >= self.config.first_private_key_id && (key_id as u32) < 1 << self.config.key_id_bits
    }

    /// Whether an address is below 2^MAXPA.
    pub(crate) const fn is_below_max_pa(&self, address: u64) -> bool {
        address < 1 << self.config.max_pa
    }

    /// The TDR at `hpa`.
    #[inline]
    pub(crate) fn tdr(&self, hpa: u64) -> Tdr<'_> {
        Tdr::at(self.memory(), self.without_key_id(hpa), self.layout())
    }

    /// The TDCS of a TD that has its TDCX pages.
    #[inline]
    pub(crate) fn tdcs<'m>(&'m self, tdr: Tdr<'m>) -> Tdcs<'m> {
        Tdcs::of(self.memory(), tdr, self.config.key_id_mask())
    }

    /// The vCPU whose TDVPR is at `hpa`.
    pub(crate) fn tdvps(&self, hpa: u64) -> Tdvps<'_> {
        Tdvps::at(
            self.memory(),
            self.without_key_id(hpa),
            self.config.key_id_mask(),
            self.layout(),
        )
    }

    /// Whether `gpa` has its SHARED bit set.
    pub(crate) const fn is_shared(&self, gpa: u64, wide: bool) -> bool {
        gpa >> self.config.shared_bit(wide) & 1 != 0
    }

    /// Bits that a guest-physical address may have.
    pub(crate) const fn gpa_width(&self, wide: bool) -> u32 {
        self.config.shared_bit(wide) + 1
    }

    /// Whether `gpa` is a guest-physical address of the TD, and private if `private` is set.
    pub(crate) const fn is_valid_gpa(&self, gpa: u64, wide: bool, private: bool) -> bool {
        !(private && self.is_shared(gpa, wide)) && gpa >> self.gpa_width(wide) == 0
    }
}
