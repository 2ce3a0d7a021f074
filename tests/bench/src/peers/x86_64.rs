//! `x86_64` 0.15.5, `OffsetPageTable`. It has no call for a range.

use ::x86_64::PhysAddr;
use ::x86_64::VirtAddr;
use ::x86_64::structures::paging::FrameAllocator;
use ::x86_64::structures::paging::Mapper;
use ::x86_64::structures::paging::OffsetPageTable;
use ::x86_64::structures::paging::Page;
use ::x86_64::structures::paging::PageTable;
use ::x86_64::structures::paging::PageTableFlags;
use ::x86_64::structures::paging::PhysFrame;
use ::x86_64::structures::paging::Size2MiB;
use ::x86_64::structures::paging::Size4KiB;
use ::x86_64::structures::paging::Translate;

use crate::arena;
use crate::contender::Contender;
use crate::contender::Find;

struct Frames;

// SAFETY: the arena hands out each frame once between resets, and a table does not outlive a reset.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        Some(PhysFrame::containing_address(PhysAddr::new(
            arena::frame() as u64
        )))
    }
}

pub struct Peer(OffsetPageTable<'static>);

const FLAGS: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE);

impl Contender for Peer {
    fn new() -> Self {
        let root = arena::zeroed_frame() as *mut PageTable;
        // SAFETY: the root is a zeroed frame, and the arena is mapped at its own addresses.
        Self(unsafe { OffsetPageTable::new(&mut *root, VirtAddr::zero()) })
    }

    #[inline(always)]
    fn map_4k(&mut self, address: u64, frame: u64) {
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new(address));
        let frame = PhysFrame::containing_address(PhysAddr::new(frame));
        // SAFETY: no CPU uses this table.
        unsafe { self.0.map_to(page, frame, FLAGS, &mut Frames) }
            .expect("map")
            .ignore();
    }

    #[inline(always)]
    fn map_2m(&mut self, address: u64, frame: u64) {
        let page = Page::<Size2MiB>::containing_address(VirtAddr::new(address));
        let frame = PhysFrame::containing_address(PhysAddr::new(frame));
        // SAFETY: no CPU uses this table.
        unsafe { self.0.map_to(page, frame, FLAGS, &mut Frames) }
            .expect("map")
            .ignore();
    }

    #[inline(always)]
    fn walk(&mut self, address: u64) -> u64 {
        self.0
            .translate_addr(VirtAddr::new(address))
            .expect("mapped")
            .as_u64()
    }

    #[inline(always)]
    fn unmap_4k(&mut self, address: u64) {
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new(address));
        self.0.unmap(page).expect("mapped").1.ignore();
    }
}

impl Find for Peer {
    #[inline(always)]
    fn find(&self, address: u64) -> Option<u64> {
        let found = self.0.translate_addr(VirtAddr::new(address));
        found.map(PhysAddr::as_u64)
    }
}
