//! What the MMU asks of whoever embeds it.

use std::sync::PoisonError;
use std::sync::RwLockReadGuard;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_emulator::Lp;
use tdx_mmu::embed::Clean;
use tdx_mmu::embed::Flush;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::Tables;
use tdx_mmu::embed::Vcpus;
use tdx_mmu::platform::Executor;
use tdx_mmu::platform::LpId;
use tdx_mmu::td::Laggards;

use super::Bell;
use super::Host;
use super::NO_LP;
use super::THIS_LP;
use super::frames::Use;

/// While it exists, no table that was reachable is freed.
#[derive(Debug)]
pub struct Reader<'h> {
    _guard: RwLockReadGuard<'h, ()>,
}

impl Tables for &Host {
    type Word = AtomicU64;

    fn entries(&self, table: Hpa) -> &[AtomicU64; 512] {
        self.platform.memory().frame(table.bits() >> 12).qwords()
    }

    fn link(&self, table: Hpa) -> &AtomicU64 {
        let (base, count) = self.frames.extent();
        let index = (table.bits().wrapping_sub(base) >> 12) as usize;
        // Every table is one of our frames.
        &self.links[index.min(count - 1)]
    }

    fn pamt_count(&self, hpa: Hpa) -> Option<&AtomicU64> {
        self.pamt_word(hpa)
    }
}

impl Frames for &Host {
    fn allocate_table(&self) -> Option<Page> {
        Page::assume_owned(self.frames.allocate(Level::Pt, Use::Tables)?, Level::Pt)
    }

    fn free_table(&self, table: Page) {
        self.frames.free(table.into_hpa(), Level::Pt, Use::Tables);
    }

    fn allocate_module_page(&self) -> Option<Page> {
        Page::assume_owned(self.frames.allocate(Level::Pt, Use::Module)?, Level::Pt)
    }

    fn free_module_page(&self, page: Page) {
        self.frames.free(page.into_hpa(), Level::Pt, Use::Module);
    }
}

impl Grace for &Host {
    type Guard<'g>
        = Reader<'g>
    where
        Self: 'g;

    fn enter(&self) -> Reader<'_> {
        Reader {
            _guard: self.readers.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn retire(&self, table: Page) {
        // Whoever reads now has ended once the lock is ours.
        drop(self.readers.write().unwrap_or_else(PoisonError::into_inner));
        self.free_table(table);
    }
}

impl Relax for &Host {
    fn pause(&self) {
        std::thread::yield_now();
    }
}

impl Flush for &Host {
    fn invept(&self) {
        self.platform.flush_shared();
    }
}

impl Vcpus for &Host {
    fn epochs(&self) -> &[AtomicU64] {
        &self.epochs
    }

    fn kick(&self, laggards: Laggards<'_, AtomicU64>) {
        if !self.kicks_allowed.load(Ordering::SeqCst) {
            return;
        }
        self.ring();
        self.platform.kick();
        // Whoever was on the way in when the kick came.
        while !laggards.is_empty() {
            self.ring();
            std::thread::yield_now();
        }
    }

    fn last_lp(&self, vcpu: usize) -> Option<LpId> {
        let lp = self.last_lps.get(vcpu)?.load(Ordering::Acquire);
        (lp != NO_LP).then_some(LpId(lp))
    }
}

impl Clean for &Host {
    fn scrub(&self, page: &Page) {
        Host::scrub(self, page.hpa(), page.level());
    }
}

impl<'h> Executor for &'h Host {
    type Lp = Lp<'h>;

    fn on_this_lp<T>(&self, work: impl FnOnce(LpId, &Lp<'h>) -> T) -> T {
        let number = THIS_LP.get();
        work(LpId(number), &self.lp(number))
    }

    fn on_lp<T: Send>(&self, lp: LpId, work: impl FnOnce(&Lp<'h>) -> T + Send) -> Option<T> {
        let handle = self.platform.lp(lp.0 as usize)?;
        Some(work(&handle))
    }

    fn on_each_lp<E: Send>(
        &self,
        work: impl Fn(LpId, &Lp<'h>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        (0..self.lp_count()).try_for_each(|number| work(LpId(number), &self.lp(number)))
    }

    fn on_each_package<E: Send>(
        &self,
        work: impl Fn(LpId, &Lp<'h>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let step = self.platform.config().lps_per_package as usize;
        (0..self.lp_count())
            .step_by(step)
            .try_for_each(|number| work(LpId(number), &self.lp(number)))
    }
}

impl Host {
    fn ring(&self) {
        if let Some(Bell(ring)) = self.bell.get() {
            ring();
        }
    }

    fn lp_count(&self) -> u32 {
        let config = self.platform.config();
        config.packages * config.lps_per_package
    }

    /// An LP that exists.
    fn lp(&self, number: u32) -> Lp<'_> {
        match self.platform.lp(number as usize) {
            Some(lp) => lp,
            None => unreachable!("LP {number} of {}", self.lp_count()),
        }
    }
}
