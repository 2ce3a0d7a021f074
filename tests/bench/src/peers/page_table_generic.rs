//! `page-table-generic` 0.9.1 with entries in the shape of an EPT.

use ::page_table_generic::FrameAllocator;
use ::page_table_generic::MapConfig;
use ::page_table_generic::PageTable;
use ::page_table_generic::PageTableEntry;
use ::page_table_generic::PhysAddr;
use ::page_table_generic::TableMeta;
use ::page_table_generic::UnmapConfig;
use ::page_table_generic::VirtAddr;

use crate::arena;
use crate::contender::Contender;

#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Entry(u64);

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const HUGE: u64 = 0x80;

impl PageTableEntry for Entry {
    type PteConfig = u64;

    fn new_page(frame: PhysAddr, config: u64, huge: bool) -> Self {
        Self(frame.as_usize() as u64 & ADDRESS | config | if huge { HUGE } else { 0 })
    }

    fn new_table(frame: PhysAddr) -> Self {
        Self(frame.as_usize() as u64 & ADDRESS | 7)
    }

    fn paddr(&self, _: bool) -> PhysAddr {
        ((self.0 & ADDRESS) as usize).into()
    }

    fn config(&self, _: bool) -> u64 {
        self.0 & !ADDRESS
    }

    fn present(&self) -> bool {
        self.0 & 1 != 0
    }

    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & HUGE != 0
    }

    fn unused(&self) -> bool {
        self.0 == 0
    }

    fn clear(&mut self) {
        self.0 = 0;
    }
}

#[derive(Clone, Copy)]
pub struct FourLevels;

impl TableMeta for FourLevels {
    type P = Entry;
    const PAGE_SIZE: usize = 4096;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;

    fn flush(_: Option<VirtAddr>) {}
}

#[derive(Clone)]
pub struct Frames;

impl FrameAllocator for Frames {
    fn alloc_frame(&self) -> Option<PhysAddr> {
        Some(arena::frame().into())
    }

    fn dealloc_frame(&self, _: PhysAddr) {}

    fn phys_to_virt(&self, address: PhysAddr) -> *mut u8 {
        address.as_usize() as *mut u8
    }
}

pub struct Peer(core::mem::ManuallyDrop<PageTable<FourLevels, Frames>>);

impl Peer {
    #[inline]
    fn map(&mut self, address: u64, frame: u64, bytes: u64, allow_huge: bool) {
        let config = MapConfig {
            vaddr: (address as usize).into(),
            paddr: (frame as usize).into(),
            size: bytes as usize,
            pte: 3,
            allow_huge,
            flush: false,
        };
        self.0.map(&config).expect("map");
    }

    #[inline]
    fn unmap(&mut self, address: u64, bytes: u64) {
        let config = UnmapConfig {
            start_vaddr: (address as usize).into(),
            size: bytes as usize,
            flush: false,
        };
        self.0.unmap_with_config(&config).expect("mapped");
    }
}

impl Contender for Peer {
    fn new() -> Self {
        Self(core::mem::ManuallyDrop::new(
            PageTable::new(Frames).expect("a root"),
        ))
    }

    #[inline(always)]
    fn map_4k(&mut self, address: u64, frame: u64) {
        self.map(address, frame, 4096, false);
    }

    #[inline(always)]
    fn map_2m(&mut self, address: u64, frame: u64) {
        self.map(address, frame, 2 << 20, true);
    }

    #[inline(always)]
    fn walk(&mut self, address: u64) -> u64 {
        self.0
            .translate_phys((address as usize).into())
            .expect("mapped")
            .as_usize() as u64
    }

    #[inline(always)]
    fn unmap_4k(&mut self, address: u64) {
        self.unmap(address, 4096);
    }

    fn map_range(&mut self, address: u64, frame: u64, bytes: u64) -> bool {
        self.map(address, frame, bytes, false);
        true
    }

    fn unmap_range(&mut self, address: u64, bytes: u64) -> bool {
        self.unmap(address, bytes);
        true
    }
}
