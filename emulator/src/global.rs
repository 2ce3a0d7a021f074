//! The module's global data: initialisation state, KeyID ownership table, cache write-back state and TDMRs.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::AtomicU16;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use once_cell::race::OnceBox;
use tdx_abi::field::global;

use crate::abi::Module;
use crate::lock::LockWord;
use crate::metadata::limit;
use crate::pamt::Block;
use crate::pamt::ReservedArea;

/// Most KeyIDs that the module supports.
pub(crate) const MAX_KEY_IDS: usize = 2048;
/// Most packages that the module supports.
pub(crate) const MAX_PACKAGES: usize = 8;
/// Most TDMRs that the module supports.
pub(crate) const MAX_TDMRS: usize = limit(Module::V1_5_01, global::MAX_TDMRS) as usize;
/// Most reserved areas of a TDMR.
pub(crate) const MAX_RESERVED_AREAS: usize =
    limit(Module::V1_5_01, global::MAX_RESERVED_PER_TDMR) as usize;

/// How far the module has been initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum SysState {
    /// Loaded.
    InitPending = 0,
    /// SYS.INIT done.
    InitDone = 1,
    /// SYS.CONFIG done.
    ConfigDone = 2,
    /// SYS.KEY.CONFIG done on all packages.
    Ready = 3,
    /// Shut down.
    Shutdown = 4,
}

impl SysState {
    const fn new(value: u8) -> Self {
        match value {
            0 => Self::InitPending,
            1 => Self::InitDone,
            2 => Self::ConfigDone,
            3 => Self::Ready,
            _ => Self::Shutdown,
        }
    }
}

/// What a KeyID is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum KeyState {
    /// Nothing.
    Free = 0,
    /// A TD has it.
    Assigned = 1,
    /// A TD is giving it up; caches may still hold its lines.
    Flushed = 2,
    /// The module's own.
    Reserved = 3,
}

/// Entry of the KeyID ownership table.
#[derive(Debug, Default)]
pub(crate) struct KeyEntry {
    state: AtomicU8,
    /// Packages whose cache has still to be written back, a bit each.
    pub wbinvd_bitmap: AtomicU32,
}

impl KeyEntry {
    /// What the KeyID is used for.
    pub(crate) fn state(&self) -> KeyState {
        match self.state.load(Ordering::Acquire) {
            0 => KeyState::Free,
            1 => KeyState::Assigned,
            2 => KeyState::Flushed,
            _ => KeyState::Reserved,
        }
    }

    /// Sets what the KeyID is used for.
    pub(crate) fn set_state(&self, state: KeyState) {
        self.state.store(state as u8, Ordering::Release);
    }
}

/// State of PHYMEM.CACHE.WB on one package.
#[derive(Debug)]
pub(crate) struct WriteBack {
    lock: AtomicU64,
    /// Sub-block at which to resume; 0 if there is nothing to resume.
    pub resume_at: AtomicU64,
    /// KeyIDs that the current write-back covers, a bit each.
    pub key_ids: [AtomicU64; MAX_KEY_IDS / 64],
}

impl WriteBack {
    fn new() -> Self {
        Self {
            lock: AtomicU64::new(0),
            resume_at: AtomicU64::new(0),
            key_ids: [const { AtomicU64::new(0) }; MAX_KEY_IDS / 64],
        }
    }

    /// The lock word (mutex).
    pub(crate) const fn lock(&self) -> LockWord<'_> {
        LockWord::new(&self.lock, 0)
    }
}

/// A TDMR as SYS.CONFIG accepted it.
#[derive(Debug)]
pub(crate) struct TdmrConfig {
    /// Physical address, a multiple of 1 GiB.
    pub base: u64,
    /// Bytes, a multiple of 1 GiB.
    pub size: u64,
    /// Reserved areas, ascending.
    pub reserved: Vec<ReservedArea>,
}

/// A TDMR with its PAMT.
#[derive(Debug)]
pub(crate) struct Tdmr {
    /// Physical address, a multiple of 1 GiB.
    pub base: u64,
    /// Bytes, a multiple of 1 GiB.
    pub size: u64,
    /// End of the part whose PAMT is initialised.
    pub last_initialized: AtomicU64,
    lock: AtomicU64,
    blocks: Vec<Block>,
}

impl Tdmr {
    /// A TDMR no part of whose PAMT is initialised.
    pub(crate) fn new(config: &TdmrConfig, dynamic: bool) -> Self {
        let blocks = (0..config.size >> 30)
            .map(|number| Block::new(config.base, number << 30, &config.reserved, dynamic))
            .collect();
        Self {
            base: config.base,
            size: config.size,
            last_initialized: AtomicU64::new(config.base),
            lock: AtomicU64::new(0),
            blocks,
        }
    }

    /// The lock word (mutex).
    pub(crate) const fn lock(&self) -> LockWord<'_> {
        LockWord::new(&self.lock, 0)
    }

    /// Its PAMT blocks.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}

/// The module's global data.
#[derive(Debug)]
pub(crate) struct Global {
    lock: AtomicU64,
    kot_lock: AtomicU64,
    sys_state: AtomicU8,
    /// LPs on which SYS.LP.INIT is done.
    pub initialized_lps: AtomicU32,
    /// Packages whose global key is configured.
    pub initialized_packages: AtomicU32,
    /// Packages whose global key is configured, a bit each.
    pub package_bitmap: AtomicU32,
    /// The module's own KeyID.
    pub key_id: AtomicU16,
    /// KeyID ownership table.
    pub kot: Vec<KeyEntry>,
    /// Cache write-back state by package.
    pub write_back: [WriteBack; MAX_PACKAGES],
    tdmrs: OnceBox<Vec<Tdmr>>,
    dynamic_pamt: AtomicBool,
}

impl Global {
    /// Data of a module that has only been loaded.
    pub(crate) fn new() -> Self {
        Self {
            lock: AtomicU64::new(0),
            kot_lock: AtomicU64::new(0),
            sys_state: AtomicU8::new(SysState::InitPending as u8),
            initialized_lps: AtomicU32::new(0),
            initialized_packages: AtomicU32::new(0),
            package_bitmap: AtomicU32::new(0),
            key_id: AtomicU16::new(0),
            kot: (0..MAX_KEY_IDS).map(|_| KeyEntry::default()).collect(),
            write_back: core::array::from_fn(|_| WriteBack::new()),
            tdmrs: OnceBox::new(),
            dynamic_pamt: AtomicBool::new(false),
        }
    }

    /// The global lock word (shared-exclusive).
    pub(crate) const fn lock(&self) -> LockWord<'_> {
        LockWord::new(&self.lock, 0)
    }

    /// The lock word of the KeyID ownership table (shared-exclusive).
    pub(crate) const fn kot_lock(&self) -> LockWord<'_> {
        LockWord::new(&self.kot_lock, 0)
    }

    /// How far the module has been initialised.
    #[inline]
    pub(crate) fn sys_state(&self) -> SysState {
        SysState::new(self.sys_state.load(Ordering::Acquire))
    }

    /// Sets how far the module has been initialised.
    pub(crate) fn set_sys_state(&self, state: SysState) {
        self.sys_state.store(state as u8, Ordering::Release);
    }

    /// Whether SYS.CONFIG chose Dynamic PAMT.
    pub(crate) fn has_dynamic_pamt(&self) -> bool {
        self.dynamic_pamt.load(Ordering::Acquire)
    }

    /// The TDMRs, ascending; none before SYS.CONFIG.
    #[inline]
    pub(crate) fn tdmrs(&self) -> &[Tdmr] {
        self.tdmrs.get().map_or(&[], Vec::as_slice)
    }

    /// Installs the TDMRs, with Dynamic PAMT if `dynamic`. Only the first call has an effect.
    pub(crate) fn set_tdmrs(&self, tdmrs: &[TdmrConfig], dynamic: bool) {
        self.dynamic_pamt.store(dynamic, Ordering::Release);
        self.tdmrs
            .get_or_init(|| Box::new(tdmrs.iter().map(|tdmr| Tdmr::new(tdmr, dynamic)).collect()));
    }

    /// The PAMT block for physical address `address` (without KeyID), if its TDMR is initialised up to the block's end.
    #[inline]
    pub(crate) fn block(&self, address: u64) -> Option<&Block> {
        let tdmr = self
            .tdmrs()
            .iter()
            .rev()
            .find(|tdmr| tdmr.base <= address)?;
        let offset = address - tdmr.base;
        let initialized = tdmr.last_initialized.load(Ordering::Acquire) & !((1 << 30) - 1);
        if offset >= tdmr.size || address >= initialized {
            return None;
        }
        tdmr.blocks.get((offset >> 30) as usize)
    }
}

impl Default for Global {
    fn default() -> Self {
        Self::new()
    }
}
