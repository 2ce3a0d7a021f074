//! Tables of the host and pages for the module: an allocator that may run dry, and its grace periods.

use std::sync::RwLockReadGuard;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Tables;
use tdx_mmu::l2::MAX_L2_VMS;

use super::Host;
use super::L2_LINKS;
use super::LINKS;
use super::MODULE_PAGES;
use super::SPARE;
use super::TABLES;

impl Host {
    fn spend(&self) -> bool {
        self.budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    pub fn tables_in_use(&self) -> usize {
        self.tables.lock().unwrap().len()
    }

    pub fn module_pages_in_use(&self) -> usize {
        self.module_pages.lock().unwrap().len()
    }
}

impl Tables for Host {
    type Word = AtomicU64;

    fn entries(&self, table: Hpa) -> &[AtomicU64; 512] {
        debug_assert!(
            self.tables.lock().unwrap().contains(&table.bits()),
            "{table:?} is no table"
        );
        self.platform.memory().frame(table.bits() >> 12).qwords()
    }

    fn link(&self, table: Hpa) -> &AtomicU64 {
        let index = (table.bits() - TABLES) >> 12;
        &self
            .platform
            .memory()
            .frame((LINKS >> 12) + index / 512)
            .qwords()[usize::try_from(index % 512).unwrap()]
    }

    fn l2_links(&self, table: Hpa) -> Option<&[AtomicU64; MAX_L2_VMS]> {
        let index = (table.bits() - TABLES) >> 12;
        let frame = self.platform.memory().frame((L2_LINKS >> 12) + index / 128);
        let words = &frame.qwords()[4 * usize::try_from(index % 128).unwrap()..];
        (self.l2_vms > 0).then(|| words.first_chunk().unwrap())
    }

    fn pamt_count(&self, hpa: Hpa) -> Option<&AtomicU64> {
        let range = (hpa.bits() - MODULE_PAGES) / Level::Pd.size();
        Some(&self.pamt.as_ref()?[usize::try_from(range).unwrap()])
    }
}

impl Frames for Host {
    fn allocate_table(&self) -> Option<Page> {
        let hpa = self
            .spend()
            .then(|| self.next_table.fetch_add(4096, Ordering::Relaxed))?;
        self.tables.lock().unwrap().insert(hpa);
        Page::assume_owned(Hpa::new(hpa), Level::Pt)
    }

    fn free_table(&self, table: Page) {
        assert!(
            self.tables.lock().unwrap().remove(&table.into_hpa().bits()),
            "freed twice"
        );
    }

    fn allocate_module_page(&self) -> Option<Page> {
        let hpa = self
            .spend()
            .then(|| self.next_module_page.fetch_add(4096, Ordering::Relaxed))?;
        assert!(hpa < SPARE);
        self.module_pages.lock().unwrap().insert(hpa);
        self.allocated.lock().unwrap().push(hpa);
        Page::assume_owned(Hpa::new(hpa), Level::Pt)
    }

    fn free_module_page(&self, page: Page) {
        assert!(
            self.module_pages
                .lock()
                .unwrap()
                .remove(&page.into_hpa().bits()),
            "freed twice"
        );
    }
}

impl Grace for Host {
    type Guard<'g> = RwLockReadGuard<'g, ()>;

    fn enter(&self) -> Self::Guard<'_> {
        self.readers.read().unwrap()
    }

    fn retire(&self, table: Page) {
        drop(self.readers.write().unwrap());
        self.free_table(table);
    }
}
