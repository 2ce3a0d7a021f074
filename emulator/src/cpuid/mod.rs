//! CPUID: what the emulated CPU reports, and what a TD sees of it.

mod import;

use tdx_abi::cpuid::CpuidConfigurable;
use tdx_abi::cpuid::CpuidLookup;
use tdx_abi::cpuid::v1_5_01::CONFIGURABLE;
use tdx_abi::cpuid::v1_5_01::XFAM_MASKS;

use crate::config::PlatformConfig;

pub(crate) use import::is_importable;
pub(crate) use tdx_abi::cpuid::v1_5_01::LOOKUP;

pub(crate) use tdx_abi::cpuid::Values;

/// CPUID leaves that TD_PARAMS configures.
pub(crate) const CONFIGURABLE_LEAVES: usize = CONFIGURABLE.len();
/// Family, model and stepping of the emulated CPU: CPUID(1).EAX.
pub(crate) const FAMILY_MODEL_STEPPING: u32 = 0x806f8;
/// Extended state that the emulated CPU supports, XCR0 and IA32_XSS together.
pub(crate) const XFAM_SUPPORTED: u64 = 0x6_dbe7;

const HLE: u32 = 1 << 4;
const RTM: u32 = 1 << 11;
const MONITOR: u32 = 1 << 3;

/// What the CPU reports, as the module keeps it after SYS.CONFIG: every configurable feature but TSX is there.
pub(crate) fn platform_values(config: &PlatformConfig) -> [Values; LOOKUP.len()] {
    core::array::from_fn(|number| {
        let lookup = &LOOKUP[number];
        let mut native = lookup.verify_value;
        if let Some(configurable) = lookup.config.map(|config| &CONFIGURABLE[config]) {
            for (value, allow) in native.iter_mut().zip(configurable.allow) {
                *value |= allow;
            }
        }
        match (lookup.leaf, lookup.subleaf_or_ones()) {
            (1, _) => native[0] = FAMILY_MODEL_STEPPING,
            (7, 0) => native[1] &= !(HLE | RTM),
            (0xd, 0) => native[0] = XFAM_SUPPORTED as u32 & 0x6_02e7,
            (0xd, 1) => native[2] = XFAM_SUPPORTED as u32 & 0xdb00,
            (0x15, _) => {
                native[0] = 1;
                native[1] = (config.tsc_frequency / CRYSTAL_HZ) as u32;
                native[2] = CRYSTAL_HZ as u32;
            }
            (0x8000_0008, _) => native[0] = config.max_pa | 57 << 8,
            _ => {}
        }
        core::array::from_fn(|word| {
            native[word] & !lookup.fixed0_or_dynamic[word] | lookup.fixed1[word]
        })
    })
}

/// Cycles per second of the crystal.
const CRYSTAL_HZ: u64 = 25_000_000;

/// What a TD's configuration depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TdConfig {
    /// ATTRIBUTES.PKS.
    pub pks: bool,
    /// ATTRIBUTES.PERFMON.
    pub perfmon: bool,
    /// ATTRIBUTES.MIGRATABLE.
    pub migratable: bool,
    /// XFAM.
    pub xfam: u64,
    /// Virtual TSC frequency in units of 25 MHz.
    pub tsc_frequency: u16,
}

/// CPUID-derived flags of a TD, in the order in which the TDCS keeps them.
pub(crate) type Flags = [bool; 10];

/// A configuration that the module refuses: the leaf that was wrong, if one was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Leaf in bits 31:0, subleaf in bits 63:32; `None` if the leaf is not told.
    pub leaf: Option<u64>,
}

/// What a TD sees of CPUID, from the platform's values and the host's configuration.
pub(crate) fn td_values(
    platform: &[Values; LOOKUP.len()],
    configured: &[Values; CONFIGURABLE_LEAVES],
    td: TdConfig,
    flags: &mut Flags,
) -> Result<[Values; LOOKUP.len()], Refused> {
    let mut values = *platform;
    for (number, lookup) in LOOKUP.iter().enumerate() {
        let value = &mut values[number];
        let told = Refused {
            leaf: Some(u64::from(lookup.leaf) | u64::from(lookup.subleaf_or_ones()) << 32),
        };
        if let Some(config) = lookup.config {
            let (wanted, legal) = (configured[config], &CONFIGURABLE[config]);
            for word in 0..4 {
                if wanted[word] & !(legal.direct[word] | legal.allow[word]) != 0 {
                    return Err(told);
                }
                let direct = legal.direct[word];
                value[word] = value[word] & !direct | wanted[word] & direct;
                value[word] &= wanted[word] | !legal.allow[word];
            }
        }
        adjust(lookup, value, td, flags, told)?;
    }
    Ok(values)
}

fn adjust(
    lookup: &CpuidLookup,
    value: &mut Values,
    td: TdConfig,
    flags: &mut Flags,
    told: Refused,
) -> Result<(), Refused> {
    use crate::structures::tdcs::flags as flag;
    let has = |bit: u32| td.xfam >> bit & 1 != 0;
    match (lookup.leaf, lookup.subleaf_or_ones()) {
        (1, _) => {
            if value[0] == 0 {
                value[0] = FAMILY_MODEL_STEPPING;
            }
            if !is_known_fms(value[0], td.migratable) {
                return Err(told);
            }
            clear_without(value, td.xfam, lookup);
            flags[flag::MONITOR_MWAIT] = value[2] & MONITOR != 0;
            flags[flag::DCA] = value[2] >> 18 & 1 != 0;
            flags[flag::TSC_DEADLINE] = value[2] >> 24 & 1 != 0;
        }
        (5, _) if !flags[flag::MONITOR_MWAIT] => *value = [0; 4],
        (7, 0) => {
            clear_without(value, td.xfam, lookup);
            if (value[1] & HLE == 0) != (value[1] & RTM == 0) {
                return Err(Refused { leaf: None });
            }
            flags[flag::TSX] = value[1] & HLE != 0;
            value[2] = value[2] & !(1 << 31 | 1 << 23) | u32::from(td.pks) << 31;
            flags[flag::WAITPKG] = value[2] >> 5 & 1 != 0;
            flags[flag::TME] = value[2] >> 13 & 1 != 0;
            flags[flag::LA57] = value[2] >> 16 & 1 != 0;
            flags[flag::MKTME] = value[3] >> 18 & 1 != 0;
        }
        (7, 1) => clear_without(value, td.xfam, lookup),
        (7, 2) => flags[flag::DDPD] = value[3] >> 3 & 1 != 0,
        (0xa, _) if !td.perfmon => *value = [0; 4],
        (0xd, 0) => clear_without(value, td.xfam, lookup),
        (0xd, 1) => {
            clear_without(value, td.xfam, lookup);
            flags[flag::XFD] = value[0] >> 4 & 1 != 0;
        }
        (0xd, component) if component <= 18 && !has(component) => *value = [0; 4],
        (0x14, _) if !has(8) => *value = [0; 4],
        (0x15, _) => value[1] = u32::from(td.tsc_frequency),
        (0x19, _) => *value = [0; 4],
        (0x1c, _) if !has(15) => *value = [0; 4],
        (0x1d, _) if !has(17) || !has(18) => *value = [0; 4],
        (0x8000_0008, _) => {
            let linear_bits = if flags[flag::LA57] { 57 } else { 48 };
            value[0] = value[0] & !0xff00 | linear_bits << 8;
        }
        _ => {}
    }
    Ok(())
}

/// Clears the bits that depend on parts of XFAM that the TD does not have.
fn clear_without(value: &mut Values, xfam: u64, lookup: &CpuidLookup) {
    let of_leaf = XFAM_MASKS
        .iter()
        .filter(|row| (row.leaf, row.subleaf) == (lookup.leaf, lookup.subleaf));
    for row in of_leaf.filter(|row| xfam >> row.xfam_bit & 1 == 0) {
        for (word, mask) in value.iter_mut().zip(row.mask) {
            *word &= !mask;
        }
    }
}

/// Whether a TD may have this family, model and stepping: the platform's, or if it is migratable a lower stepping.
const fn is_known_fms(fms: u32, migratable: bool) -> bool {
    const STEPPING: u32 = 0xf;
    if migratable {
        fms & !STEPPING == FAMILY_MODEL_STEPPING & !STEPPING
            && fms & STEPPING <= FAMILY_MODEL_STEPPING & STEPPING
    } else {
        fms == FAMILY_MODEL_STEPPING
    }
}

/// What the host may configure of configurable leaf number `number`.
pub(crate) fn configurable(number: usize) -> Option<&'static CpuidConfigurable> {
    CONFIGURABLE.get(number)
}
