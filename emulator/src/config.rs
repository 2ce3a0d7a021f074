//! Parameters of an emulated platform.

use alloc::vec;
use alloc::vec::Vec;

use crate::abi::Module;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
}

impl Range {
    /// Whether the two have an address in common; ranges that wrap around count as overlapping.
    pub const fn overlaps(self, other: Self) -> bool {
        match (
            self.base.checked_add(self.size),
            other.base.checked_add(other.size),
        ) {
            (Some(end), Some(other_end)) => self.base < other_end && other.base < end,
            _ => true,
        }
    }
}

/// What the platform is like. The default is the platform on which the recorded vectors were made, with one package.
#[derive(Clone, Debug)]
pub struct PlatformConfig {
    /// The module that is loaded. Newer ones are emulated as far as the crate's documentation says.
    pub module: Module,
    /// MAXPA: physical address bits, KeyID bits included; 36 to 52.
    pub max_pa: u32,
    /// Upper bits of a physical address that are KeyID.
    pub key_id_bits: u32,
    /// First KeyID that is private to TDX; those from here to the last that fits are private.
    pub first_private_key_id: u16,
    /// Position of the SHARED bit for both guest-physical address widths, if other than 47 and 51.
    pub shared_bit: Option<u8>,
    /// Packages, 1 to 8.
    pub packages: u32,
    /// Logical processors of a package.
    pub lps_per_package: u32,
    /// Convertible memory ranges, ascending, at most 32.
    pub cmrs: Vec<Range>,
    /// The SEAM range, which no leaf accepts as an operand.
    pub seamrr: Range,
    /// Whether the host makes its SEAMCALLs with interrupts enabled (RFLAGS.IF), so that a pending one interrupts long leaves.
    pub host_interrupts_enabled: bool,
    /// Where the generator behind RDRAND and RDSEED starts; not 0.
    pub seed: u64,
    /// Parts in which PHYMEM.CACHE.WB flushes a cache, between which it looks for interrupts.
    pub cache_sub_blocks: u64,
    /// Cycles per second of the TSC.
    pub tsc_frequency: u64,
    /// Cycles by which the TSC advances each time the module reads it.
    pub tsc_step: u64,
}

impl Default for PlatformConfig {
    fn default() -> Self {
        Self {
            module: Module::V1_5_01,
            max_pa: 52,
            key_id_bits: 6,
            first_private_key_id: 32,
            shared_bit: None,
            packages: 1,
            lps_per_package: 4,
            cmrs: vec![
                Range {
                    base: 0x4000_0000,
                    size: 0x3c00_0000,
                },
                Range {
                    base: 0x1_0000_0000,
                    size: 0xc000_0000,
                },
            ],
            seamrr: Range {
                base: 0x7e00_0000,
                size: 0x200_0000,
            },
            host_interrupts_enabled: false,
            seed: 0x9e37_79b9_7f4a_7c15,
            cache_sub_blocks: 4,
            tsc_frequency: 2_000_000_000,
            tsc_step: 20_000,
        }
    }
}

impl PlatformConfig {
    /// Lowest KeyID bit of a physical address.
    pub const fn key_id_shift(&self) -> u32 {
        self.max_pa - self.key_id_bits
    }

    /// The KeyID bits of a physical address.
    pub const fn key_id_mask(&self) -> u64 {
        ((1 << self.key_id_bits) - 1) << self.key_id_shift()
    }

    /// Position of the SHARED bit with guest-physical addresses of 52 (`wide`) or 48 bits.
    pub const fn shared_bit(&self, wide: bool) -> u32 {
        match self.shared_bit {
            Some(position) => position as u32,
            None if wide => 51,
            None => 47,
        }
    }
}
