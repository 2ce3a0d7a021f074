//! Large pages of the shared EPT that suggest themselves, up to 1 GiB: they are made when the shared EPT is flushed anyway.

use core::sync::atomic::Ordering;

use tdx_abi::Gpa;
use tdx_abi::Level;
use tdx_abi::SharedGpa;

use super::Td;
use super::candidates::Candidates;
use crate::GpaRange;
use crate::Word;
use crate::embed::Embedder;
use crate::shared::Gather;

/// The largest leaf of the shared EPT.
const LARGEST: Level = Level::Pdpt;

/// What faults have completed in the shared EPT, unless dirty logging page by page is on.
#[derive(Debug)]
pub(super) struct Merges<W> {
    completed: Candidates<W>,
    /// 1 while large pages would be in the way.
    by_page: W,
}

impl<W: Word> Merges<W> {
    pub(super) fn new() -> Self {
        Self {
            completed: Candidates::new(),
            by_page: W::new(0),
        }
    }

    /// Says whether pages are to stay small.
    pub(super) fn keep_small(&self, small: bool) {
        self.by_page.store(small.into(), Ordering::Relaxed);
    }
}

/// How the level of a large page is kept in the low bits of its address.
const LEVEL_SHIFT: u32 = 4;

impl<E: Embedder> Td<E> {
    /// Looks whether the leaf of `level` that was mapped at `address` completes a larger one, up to what is contiguous in
    /// the backing.
    pub(super) fn notice_shared(&self, address: Gpa, level: Level, contiguous: Level) {
        if let Some(above) = level.above().filter(|above| *above <= contiguous)
            && above <= LARGEST
            && self.merges.by_page.load(Ordering::Relaxed) == 0
            && self.ept.completed(&self.embedder, address, above)
        {
            let place = address.align_down(above).bits();
            let largest = contiguous.min(LARGEST) as u64;
            self.merges.completed.note(place | largest << LEVEL_SHIFT);
        }
    }

    /// Makes large pages of what is noted, where the caller is about to flush other entries.
    pub(super) fn merge_shared(&self, gather: &mut Gather) {
        if gather.is_empty() || self.merges.by_page.load(Ordering::Relaxed) != 0 {
            return;
        }
        self.merges.completed.take(|noted| {
            let address = Gpa::new(noted).align_down(Level::Pt);
            let mut section = self.ept.section(&self.embedder);
            for level in [Level::Pd, LARGEST] {
                let fits = noted >> LEVEL_SHIFT & 0xf >= level as u64;
                if fits && self.ept.completed(&self.embedder, address, level) {
                    // Somebody who changes it at this moment has a reason.
                    let _ = section.promote(address.align_down(level), level, gather);
                }
            }
        });
    }

    /// Makes one leaf of each shared table of `range` that maps contiguous, aligned memory with equal
    /// permissions, up to 1 GiB: the end of dirty logging. Returns how many.
    pub fn promote_shared(&self, range: GpaRange) -> u64 {
        self.merges.keep_small(false);
        let mut gather = Gather::new();
        let mut promoted = 0;
        let start = self.config.shared_bit.join(SharedGpa::new(range.start()));
        let (from, end) = (start.bits(), start.bits() + range.bytes());
        let mut section = self.ept.section(&self.embedder);
        for level in [Level::Pd, LARGEST] {
            let size = level.size();
            let mut address = from.next_multiple_of(size);
            while end.saturating_sub(address) >= size {
                let gpa = Gpa::new(address);
                promoted += u64::from(section.promote(gpa, level, &mut gather).is_ok());
                address += size;
            }
        }
        drop(section);
        let _ = gather.flush(&self.embedder);
        promoted
    }
}
