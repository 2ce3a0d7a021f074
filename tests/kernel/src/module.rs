//! The emulated TDX module, on the kernel's physical memory.

use alloc::boxed::Box;
use alloc::vec;
use core::ptr;
use core::sync::atomic::AtomicPtr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use tdx_emulator::Frame;
use tdx_emulator::PhysicalMemory;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Range;
use tdx_emulator::SparseMemory;

use crate::layout;
use crate::physical;

/// MAXPA of the CPU model, KeyID bits included.
pub(crate) const MAX_PA: u32 = 40;
/// Upper bits of a physical address that are KeyID.
pub(crate) const KEY_ID_BITS: u32 = 3;
/// First KeyID that is private to TDX; the module's own is the first of them.
pub(crate) const FIRST_PRIVATE_KEY_ID: u16 = 4;
/// Position of the SHARED bit: the highest guest-physical address bit that this CPU translates.
pub(crate) const SHARED_BIT: u8 = 39;

/// The memory that the CPU sees, for the emulated module: S-EPT pages lie where the page walker reads them.
struct RealMemory {
    /// Stands for addresses without RAM behind them.
    elsewhere: SparseMemory,
}

impl PhysicalMemory for RealMemory {
    fn frame(&self, number: u64) -> &Frame {
        match physical::frame(number << 12) {
            // SAFETY: `Frame` is `repr(C)` with these 512 words as its only field, and asks for the alignment of 4096
            // that `physical::frame` insists on.
            Some(words) => unsafe { &*ptr::from_ref::<[AtomicU64; 512]>(words).cast::<Frame>() },
            None => self.elsewhere.frame(number),
        }
    }
}

static PLATFORM: AtomicPtr<Platform> = AtomicPtr::new(ptr::null_mut());

/// Loads the module: from now on SEAMCALL reaches it.
pub(crate) fn load() {
    let config = PlatformConfig {
        max_pa: MAX_PA,
        key_id_bits: KEY_ID_BITS,
        first_private_key_id: FIRST_PRIVATE_KEY_ID,
        shared_bit: Some(SHARED_BIT),
        packages: 1,
        lps_per_package: 1,
        cmrs: vec![Range {
            base: 0,
            size: layout::RAM,
        }],
        seamrr: Range {
            base: 1 << 36,
            size: 32 << 20,
        },
        ..PlatformConfig::default()
    };
    let memory = RealMemory {
        elsewhere: SparseMemory::new(MAX_PA - KEY_ID_BITS),
    };
    let platform = Box::leak(Box::new(Platform::with_memory(config, Box::new(memory))));
    PLATFORM.store(platform, Ordering::Release);
}

/// The platform, once the module is loaded.
pub(crate) fn platform() -> Option<&'static Platform> {
    // SAFETY: the pointer is null or of a leaked box that nobody refers to mutably.
    unsafe { PLATFORM.load(Ordering::Acquire).as_ref() }
}
