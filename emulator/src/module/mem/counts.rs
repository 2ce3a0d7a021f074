//! What newer modules count of a TD's memory: pages, and pages that are blocked. The host reads it as metadata.

use tdx_abi::Level;

use crate::core::Core;
use crate::metadata::Area;
use crate::rules::MemoryCounters;
use crate::sept::SeptEntry;
use crate::structures::Tdcs;

impl Core {
    /// Counts the 4 KiB pages of a page of size `level` that the TD gets (`gets`) or gives up.
    pub(crate) fn count_memory(&self, tdcs: Tdcs<'_>, level: Level, gets: bool) {
        self.count(tdcs, |places| places.pages, level, gets);
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

    fn count(&self, tdcs: Tdcs<'_>, counter: Counter, level: Level, up: bool) {
        let Some(places) = &self.rules().memory_counters else {
            return;
        };
        let offset = counter(places);
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

/// Which of the counters.
type Counter = fn(&MemoryCounters) -> u32;

fn counter(entry: SeptEntry) -> Counter {
    if entry.state().any_pending() {
        |places| places.pending_blocked
    } else {
        |places| places.blocked
    }
}
