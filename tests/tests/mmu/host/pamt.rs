//! Dynamic PAMT: the pairs of pages that the host has given, held against what the module uses.

use std::sync::atomic::AtomicU64;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_mmu::pamt::PairCount;
use tdx_mmu::platform::MemoryRange;

use super::Host;
use super::MODULE_PAGES;
use super::TDMR_SIZE;

impl Host {
    /// Ranges that have a PAMT page pair.
    pub fn pamt_pairs(&self) -> usize {
        let present = |word: &&AtomicU64| PairCount::new(*word).pages().is_some();
        self.pamt.iter().flatten().filter(present).count()
    }

    /// Fails unless the counts say which 4 KiB pages the emulated module has.
    #[track_caller]
    pub fn check_pamt(&self) {
        let Some(counts) = &self.pamt else { return };
        let mut used = vec![0; counts.len()];
        self.platform.for_each_used_page(|hpa, level, _, _| {
            let range = (hpa.bits() - MODULE_PAGES) / Level::Pd.size();
            used[usize::try_from(range).unwrap()] += u64::from(level == Level::Pt);
        });
        for (range, (word, used)) in counts.iter().zip(used).enumerate() {
            let pages = PairCount::new(word).pages();
            assert_eq!(pages.unwrap_or(0), used, "pages in use of range {range}");
        }
    }

    /// Takes back the pairs that failed calls have left idle.
    pub fn collect_pamt(&self) {
        let tdmr = MemoryRange::with_size(Hpa::new(MODULE_PAGES), TDMR_SIZE).unwrap();
        tdx_mmu::pamt::collect(self, &self.config(), tdmr).unwrap();
    }

    /// Cleans the pages of pairs that could not be written back.
    pub fn clean_pamt(&self) {
        let kept = core::mem::take(&mut *self.quarantine.lock().unwrap());
        for (gpa, page) in kept {
            match gpa {
                None => tdx_mmu::pamt::clean(self, &self.config(), page).unwrap(),
                Some(_) => self.quarantine.lock().unwrap().push((gpa, page)),
            }
        }
    }

    /// Place of the first TDCX page in [`Host::allocated`]: behind the TDR, and the pair of its range.
    pub const fn first_tdcx(&self) -> usize {
        if self.pamt.is_some() { 3 } else { 1 }
    }
}
