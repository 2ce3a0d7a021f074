//! What backs the guest's memory, and every page of it that is not with the host.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::SharedGpa;
use tdx_mmu::embed::Backing;
use tdx_mmu::embed::Clean;
use tdx_mmu::embed::SharedBacking;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Permissions;

use super::Host;
use super::PAMT;
use super::PRIVATE_MEMORY;
use super::RAM;
use super::SHARED_MEMORY;
use super::SPARE;

/// Where contiguous shared memory of 1 GiB lies; nobody accesses it.
const LARGE_SHARED_MEMORY: u64 = 32 << 30;

impl Host {
    /// A page that nobody uses, for a relocation.
    pub fn spare(&self, index: u64) -> Page {
        let hpa = SPARE + index * 4096;
        self.private.lock().unwrap().insert((hpa, 4096));
        Page::assume_owned(Hpa::new(hpa), Level::Pt).unwrap()
    }

    /// Where the backing keeps `gpa`.
    pub const fn backing(gpa: u64) -> u64 {
        PRIVATE_MEMORY + gpa
    }

    /// Takes the page at `gpa` from the backing, as a fault would.
    pub fn take(&self, gpa: u64, level: Level) -> Page {
        let mut blocks = self.blocks.lock().unwrap();
        let mut private = self.private.lock().unwrap();
        let size = level.size();
        let free = |private: &BTreeSet<(u64, u64)>, hpa: u64| {
            private
                .range((hpa, 0)..)
                .next()
                .is_none_or(|(next, _)| *next >= hpa + size)
                && private
                    .range(..(hpa, 0))
                    .next_back()
                    .is_none_or(|(before, bytes)| before + bytes <= hpa)
        };
        let offset = gpa & (Level::Pd.size() - 1) & !(size - 1);
        let hpa = match blocks.as_mut() {
            None => Self::backing(gpa) & !(size - 1),
            Some(blocks) => {
                let region = gpa & !(Level::Pd.size() - 1);
                let block = blocks
                    .get(&region)
                    .copied()
                    .filter(|block| free(&private, block + offset));
                let block = block.unwrap_or_else(|| {
                    self.next_block
                        .fetch_add(Level::Pd.size(), Ordering::Relaxed)
                });
                assert!(block < PAMT, "no block left");
                blocks.insert(region, block);
                block + offset
            }
        };
        assert!(free(&private, hpa), "page {hpa:#x} given twice");
        private.insert((hpa, size));
        Page::assume_owned(Hpa::new(hpa), level).unwrap()
    }

    fn pass_time(&self) {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(work) = meanwhile {
            work();
        }
    }

    /// Bytes of private memory that are not with the host.
    pub fn private_in_use(&self) -> u64 {
        self.private
            .lock()
            .unwrap()
            .iter()
            .map(|(_, size)| size)
            .sum()
    }
}

impl Backing for Host {
    fn private_page(&self, gpa: PrivateGpa, largest: Level) -> Option<Page> {
        let level = largest.min(*self.largest.lock().unwrap());
        let page = (gpa.bits() < RAM).then(|| self.take(gpa.bits(), level));
        self.pass_time();
        page
    }

    fn take_back(&self, _: PrivateGpa, page: Page) {
        let key = (page.hpa().bits(), page.level().size());
        let mut private = self.private.lock().unwrap();
        if !private.remove(&key) {
            // Part of a page that was given as a whole, or a whole given in parts.
            let whole = private.range(..=(key.0, u64::MAX)).next_back().copied();
            match whole.filter(|(hpa, size)| *hpa <= key.0 && key.0 + key.1 <= hpa + size) {
                Some((hpa, size)) => {
                    private.remove(&(hpa, size));
                    let parts = (hpa..hpa + size)
                        .step_by(4096)
                        .filter(|part| *part != key.0);
                    private.extend(parts.map(|part| (part, 4096)));
                }
                None => {
                    for part in (key.0..key.0 + key.1).step_by(4096) {
                        assert!(private.remove(&(part, 4096)), "{part:#x} came back twice");
                    }
                }
            }
        }
        let _ = page.into_hpa();
    }

    fn promotes(&self, _: PrivateGpa) -> bool {
        self.promotes.load(Ordering::Relaxed)
    }

    fn promotes_before_removal(&self) -> bool {
        self.promotes_before_removal.load(Ordering::Relaxed)
    }

    fn mark_dirty(&self, gpa: SharedGpa, level: Level) {
        self.dirty.lock().unwrap().push((gpa.bits(), level));
    }

    fn shared_page(&self, gpa: SharedGpa) -> SharedBacking {
        self.pass_time();
        if gpa.bits() >= RAM {
            return SharedBacking::Mmio;
        }
        let run = *self.shared_run.lock().unwrap();
        let hpa = match run {
            Level::Pdpt => Hpa::new(LARGE_SHARED_MEMORY + gpa.bits()),
            _ => Hpa::new(SHARED_MEMORY + gpa.bits() % (1 << 28)),
        };
        SharedBacking::Memory {
            hpa: hpa.align_down(run),
            level: run,
            attributes: Attributes::new(Permissions::READ_WRITE),
        }
    }
}

impl Clean for Host {
    fn quarantine(&self, gpa: Option<PrivateGpa>, page: Page) {
        self.quarantine.lock().unwrap().push((gpa, page));
    }

    fn scrub(&self, page: &Page) {
        let memory = self.platform.host_memory();
        for offset in (0..page.level().size()).step_by(4096) {
            let hpa = Hpa::new(page.hpa().bits() + offset);
            memory.scrub(hpa);
            memory
                .read(hpa, &mut [0; 8])
                .expect("its cache lines have been written back");
        }
        self.scrubbed.fetch_add(1, Ordering::Relaxed);
    }
}
