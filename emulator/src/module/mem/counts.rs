//! What 2.0.18 counts of a TD's memory: pages, and pages that are blocked. The host reads it as metadata.
//!
//! Pages that come and go by an import are not counted here.

use tdx_abi::Level;

use crate::abi::Module;
use crate::core::Core;
use crate::metadata::Area;
use crate::sept::SeptEntry;
use crate::structures::Tdcs;

/// Offsets of the counters in TDCS of 2.0.18. Source: `tdcs_execution_control2_field_t` of `td_control_structures.h`.
const BLOCKED_COUNT: u32 = 0x1508;
const PENDING_BLOCKED_COUNT: u32 = 0x1510;
const MEM_COUNT: u32 = 0x1518;

impl Core {
    /// Counts the 4 KiB pages of a page of size `level` that the TD gets (`gets`) or gives up.
    pub(crate) fn count_memory(&self, tdcs: Tdcs<'_>, level: Level, gets: bool) {
        self.count(tdcs, MEM_COUNT, level, gets);
    }

    /// Counts what `entry` at `level` maps as blocked from now on.
    pub(crate) fn count_blocked(&self, tdcs: Tdcs<'_>, entry: SeptEntry, level: Level) {
        self.count(tdcs, counter(entry), level, true);
    }

    /// Counts what `entry` at `level` maps as blocked no more, if it was blocked.
    pub(crate) fn count_unblocked(&self, tdcs: Tdcs<'_>, entry: SeptEntry, level: Level) {
        if entry.state().any_blocked() {
            self.count(tdcs, counter(entry), level, false);
        }
    }

    fn count(&self, tdcs: Tdcs<'_>, offset: u32, level: Level, up: bool) {
        if self.module() != Module::V2_0_18 {
            return;
        }
        let pages = 1u64 << (9 * level as u32);
        let area = Area::Tdcs(tdcs);
        loop {
            let old = area.load(offset, 8);
            let new = if up {
                old.wrapping_add(pages)
            } else {
                old.wrapping_sub(pages)
            };
            if area.compare_exchange(offset, 8, old, new) {
                return;
            }
        }
    }
}

fn counter(entry: SeptEntry) -> u32 {
    if entry.state().any_pending() {
        PENDING_BLOCKED_COUNT
    } else {
        BLOCKED_COUNT
    }
}
