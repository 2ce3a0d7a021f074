//! Whether a migrated TD can run with the CPUID values that it saw on its source platform.
//!
//! Source: `check_cpuid_compatibility_and_set_flags`, `metadata_td.c` of the TDX module 1.5.01.

use super::CONFIGURABLE;
use super::Flags;
use super::HLE;
use super::LOOKUP;
use super::MONITOR;
use super::RTM;
use super::TdConfig;
use super::Values;
use super::clear_without;
use super::is_known_fms;
use crate::structures::tdcs::flags as flag;

const KEY_LOCKER: u32 = 1 << 23;
const PKS: u32 = 1 << 31;
/// The highest component of the extended state.
const LAST_COMPONENT: u32 = 18;

/// Checks the values of leaf number `number` of [`LOOKUP`], the platform's own being `native`, and sets the
/// flags that derive from them. `td` is the configuration imported so far.
pub(crate) fn is_importable(
    number: usize,
    value: &Values,
    native: &Values,
    td: TdConfig,
    flags: &mut Flags,
) -> bool {
    let lookup = &LOOKUP[number];
    let configurable = lookup.config.map(|config| &CONFIGURABLE[config]);
    let bits_are_legal = (0..4).all(|word| {
        value[word] & lookup.fixed0_or_dynamic[word] == 0
            && !value[word] & lookup.fixed1[word] == 0
            && configurable.is_none_or(|legal| value[word] & legal.allow[word] & !native[word] == 0)
    });
    if !bits_are_legal {
        return false;
    }
    let has = |component: u32| td.xfam >> component & 1 != 0;
    let fits_xfam = || {
        let mut cleared = *value;
        clear_without(&mut cleared, td.xfam, lookup);
        cleared == *value
    };
    let zero_unless = |condition: bool| condition || *value == [0; 4];
    match (lookup.leaf, lookup.subleaf_or_ones()) {
        (1, _) => {
            flags[flag::MONITOR_MWAIT] = value[2] & MONITOR != 0;
            flags[flag::DCA] = value[2] >> 18 & 1 != 0;
            flags[flag::TSC_DEADLINE] = value[2] >> 24 & 1 != 0;
            is_known_fms(value[0], true) && fits_xfam()
        }
        (5, _) if flags[flag::MONITOR_MWAIT] => {
            (0..4).all(|word| (value[word] ^ native[word]) & !lookup.fixed0_or_dynamic[word] == 0)
        }
        (5, _) => zero_unless(false),
        (7, 0) => {
            flags[flag::TSX] = value[1] & HLE != 0;
            flags[flag::WAITPKG] = value[2] >> 5 & 1 != 0;
            flags[flag::TME] = value[2] >> 13 & 1 != 0;
            flags[flag::LA57] = value[2] >> 16 & 1 != 0;
            flags[flag::MKTME] = value[3] >> 18 & 1 != 0;
            // The emulated CPU has no TSX to control.
            fits_xfam()
                && value[1] & (HLE | RTM) == 0
                && (value[2] & PKS != 0) == td.pks
                && value[2] & KEY_LOCKER == 0
        }
        (7, 1) => fits_xfam(),
        (7, 2) => {
            flags[flag::DDPD] = value[3] >> 3 & 1 != 0;
            true
        }
        (7, _) => false,
        (0xa, _) if td.perfmon => value == native,
        (0xa, _) => zero_unless(false),
        (0xd, 0) => fits_xfam() && value[2] == native[2],
        (0xd, 1) => {
            flags[flag::XFD] = value[0] >> 4 & 1 != 0;
            fits_xfam()
        }
        (0xd, component) if component <= LAST_COMPONENT => zero_unless(has(component)),
        (0x14, _) => zero_unless(has(8)),
        (0x15, _) => value[1] == u32::from(td.tsc_frequency),
        (0x19, _) => zero_unless(false),
        (0x1c, _) => zero_unless(has(15)),
        (0x1d, _) => zero_unless(has(17) && has(18)),
        _ => true,
    }
}
