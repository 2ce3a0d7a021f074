//! An embedder over ordinary memory: tables in an arena, page numbers for everything else.
#![expect(unreachable_pub, reason = "a module of a test binary")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_mmu::embed::Flush;
use tdx_mmu::embed::Frames;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Relax;
use tdx_mmu::embed::Tables;

const TABLES: u64 = 0x10_0000;
const MODULE_PAGES: u64 = 0x8000_0000;

pub struct Arena {
    tables: Vec<(Box<[AtomicU64; 512]>, AtomicU64)>,
    free: Mutex<BTreeSet<u64>>,
    module_pages: Mutex<BTreeSet<u64>>,
    next_module_page: AtomicU64,
    /// Allocations that still succeed.
    pub budget: AtomicUsize,
    pub invepts: AtomicUsize,
    pub retired: AtomicUsize,
    readers: RwLock<()>,
}

impl Arena {
    pub fn new(capacity: usize) -> Self {
        let table = || {
            (
                Box::new([const { AtomicU64::new(0xdead) }; 512]),
                AtomicU64::new(0),
            )
        };
        Self {
            tables: (0..capacity).map(|_| table()).collect(),
            free: Mutex::new(
                (0..capacity as u64)
                    .map(|index| TABLES + index * 4096)
                    .collect(),
            ),
            module_pages: Mutex::default(),
            next_module_page: AtomicU64::new(MODULE_PAGES),
            budget: AtomicUsize::new(usize::MAX),
            invepts: AtomicUsize::new(0),
            retired: AtomicUsize::new(0),
            readers: RwLock::new(()),
        }
    }

    pub fn root(&self) -> Hpa {
        self.allocate_table().unwrap().into_hpa()
    }

    pub fn tables_in_use(&self) -> usize {
        self.tables.len() - self.free.lock().unwrap().len()
    }

    fn index(&self, table: Hpa) -> usize {
        usize::try_from((table.bits() - TABLES) / 4096).unwrap()
    }

    fn spend(&self) -> bool {
        self.budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }
}

impl Tables for Arena {
    type Word = AtomicU64;

    fn entries(&self, table: Hpa) -> &[AtomicU64; 512] {
        &self.tables[self.index(table)].0
    }

    fn link(&self, table: Hpa) -> &AtomicU64 {
        &self.tables[self.index(table)].1
    }
}

impl Frames for Arena {
    fn allocate_table(&self) -> Option<Page> {
        let hpa = self
            .spend()
            .then(|| self.free.lock().unwrap().pop_first())??;
        Page::assume_owned(Hpa::new(hpa), Level::Pt)
    }

    fn free_table(&self, table: Page) {
        let hpa = table.into_hpa();
        for entry in self.entries(hpa) {
            entry.store(0xdead, Ordering::Relaxed);
        }
        assert!(self.free.lock().unwrap().insert(hpa.bits()), "freed twice");
    }

    fn allocate_module_page(&self) -> Option<Page> {
        let hpa = self
            .spend()
            .then(|| self.next_module_page.fetch_add(4096, Ordering::Relaxed))?;
        self.module_pages.lock().unwrap().insert(hpa);
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

impl Relax for Arena {
    fn pause(&self) {
        std::thread::yield_now();
    }
}

impl Grace for Arena {
    type Guard<'g> = RwLockReadGuard<'g, ()>;

    fn enter(&self) -> Self::Guard<'_> {
        self.readers.read().unwrap()
    }

    fn retire(&self, table: Page) {
        drop(self.readers.write().unwrap());
        self.retired.fetch_add(1, Ordering::Relaxed);
        self.free_table(table);
    }
}

impl Flush for Arena {
    fn invept(&self) {
        self.invepts.fetch_add(1, Ordering::Relaxed);
    }
}
