//! `page_table_multiarch` 0.6.2 with its x86-64 entries.

use ::page_table_multiarch::PageSize;
use ::page_table_multiarch::PageTable64;
use ::page_table_multiarch::PagingHandler;
use ::page_table_multiarch::PagingMetaData;
use memory_addr::PhysAddr;
use memory_addr::VirtAddr;
use page_table_entry::MappingFlags;
use page_table_entry::x86_64::X64PTE;

use crate::arena;
use crate::contender::Contender;
use crate::contender::Find;

struct FourLevels;

impl PagingMetaData for FourLevels {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 52;
    const VA_MAX_BITS: usize = 48;
    type VirtAddr = VirtAddr;

    fn flush_tlb(_: Option<VirtAddr>) {}
}

struct Frames;

impl PagingHandler for Frames {
    fn alloc_frames(_: usize, _: usize) -> Option<PhysAddr> {
        Some(arena::frame().into())
    }

    fn dealloc_frames(_: PhysAddr, _: usize) {}

    fn phys_to_virt(address: PhysAddr) -> VirtAddr {
        address.as_usize().into()
    }
}

pub struct Peer(core::mem::ManuallyDrop<PageTable64<FourLevels, X64PTE, Frames>>);

const FLAGS: MappingFlags = MappingFlags::READ
    .union(MappingFlags::WRITE)
    .union(MappingFlags::EXECUTE);

impl Contender for Peer {
    fn new() -> Self {
        Self(core::mem::ManuallyDrop::new(
            PageTable64::try_new().expect("a root"),
        ))
    }

    #[inline(always)]
    fn map_4k(&mut self, address: u64, frame: u64) {
        let (address, frame) = ((address as usize).into(), (frame as usize).into());
        self.0
            .cursor()
            .map(address, frame, PageSize::Size4K, FLAGS)
            .expect("map");
    }

    #[inline(always)]
    fn map_2m(&mut self, address: u64, frame: u64) {
        let (address, frame) = ((address as usize).into(), (frame as usize).into());
        self.0
            .cursor()
            .map(address, frame, PageSize::Size2M, FLAGS)
            .expect("map");
    }

    #[inline(always)]
    fn walk(&mut self, address: u64) -> u64 {
        self.0
            .query((address as usize).into())
            .expect("mapped")
            .0
            .as_usize() as u64
    }

    #[inline(always)]
    fn unmap_4k(&mut self, address: u64) {
        self.0
            .cursor()
            .unmap((address as usize).into())
            .expect("mapped");
    }

    fn map_range(&mut self, address: u64, frame: u64, bytes: u64) -> bool {
        let (address, frame) = (address as usize, frame as usize);
        let to = |at: VirtAddr| PhysAddr::from(at.as_usize() - address + frame);
        self.0
            .cursor()
            .map_region(address.into(), to, bytes as usize, FLAGS, false)
            .expect("map");
        true
    }

    fn unmap_range(&mut self, address: u64, bytes: u64) -> bool {
        self.0
            .cursor()
            .unmap_region((address as usize).into(), bytes as usize)
            .expect("mapped");
        true
    }
}

impl Find for Peer {
    #[inline(always)]
    fn find(&self, address: u64) -> Option<u64> {
        let found = self.0.query((address as usize).into()).ok()?;
        Some(found.0.as_usize() as u64)
    }
}
