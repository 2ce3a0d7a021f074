//! `aarch64-paging` 0.12.3, stage 2. It has one call for a page and a range.

use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use ::aarch64_paging::descriptor::Descriptor;
use ::aarch64_paging::descriptor::PhysicalAddress;
use ::aarch64_paging::descriptor::Stage2Attributes;
use ::aarch64_paging::paging::Constraints;
use ::aarch64_paging::paging::MemoryRegion;
use ::aarch64_paging::paging::PageTable;
use ::aarch64_paging::paging::RootTable;
use ::aarch64_paging::paging::Stage2;
use ::aarch64_paging::paging::Translation;

use crate::arena;
use crate::contender::Contender;

struct Frames;

impl Translation<Stage2Attributes> for Frames {
    fn allocate_table(&mut self) -> (NonNull<PageTable<Stage2Attributes>>, PhysicalAddress) {
        let frame = arena::zeroed_frame();
        (
            NonNull::new(frame as *mut _).expect("not null"),
            PhysicalAddress(frame),
        )
    }

    unsafe fn deallocate_table(&mut self, _: NonNull<PageTable<Stage2Attributes>>) {}

    fn physical_to_virtual(
        &self,
        address: PhysicalAddress,
    ) -> NonNull<PageTable<Stage2Attributes>> {
        NonNull::new(address.0 as *mut _).expect("not null")
    }
}

pub struct Peer(ManuallyDrop<RootTable<Stage2, Frames>>);

/// Accessed, readable and writable.
const MEMORY: usize = 0x4c0;

fn attributes() -> Stage2Attributes {
    Stage2Attributes::VALID | Stage2Attributes::from_bits_retain(MEMORY)
}

fn region(address: u64, bytes: u64) -> MemoryRegion {
    MemoryRegion::new(address as usize, (address + bytes) as usize)
}

impl Peer {
    fn map(
        &mut self,
        address: u64,
        frame: u64,
        bytes: u64,
        attributes: Stage2Attributes,
        constraints: Constraints,
    ) {
        let frame = PhysicalAddress(frame as usize);
        self.0
            .map_range(&region(address, bytes), frame, attributes, constraints)
            .expect("map");
    }
}

fn pages_only() -> Constraints {
    Constraints::NO_BLOCK_MAPPINGS | Constraints::NO_CONTIGUOUS_HINT
}

impl Contender for Peer {
    fn new() -> Self {
        Self(ManuallyDrop::new(RootTable::new(Frames, 0, Stage2)))
    }

    #[inline(always)]
    fn map_4k(&mut self, address: u64, frame: u64) {
        self.map(address, frame, 4096, attributes(), pages_only());
    }

    #[inline(always)]
    fn map_2m(&mut self, address: u64, frame: u64) {
        self.map(
            address,
            frame,
            2 << 20,
            attributes(),
            Constraints::NO_CONTIGUOUS_HINT,
        );
    }

    #[inline(always)]
    fn walk(&mut self, address: u64) -> u64 {
        let mut found = 0;
        let mut visit = |_: &MemoryRegion, descriptor: &Descriptor<Stage2Attributes>, _: usize| {
            found = descriptor.output_address().0 as u64;
            Ok(())
        };
        self.0
            .walk_range(&region(address, 4096), &mut visit)
            .expect("mapped");
        found
    }

    #[inline(always)]
    fn unmap_4k(&mut self, address: u64) {
        self.map(address, 0, 4096, Stage2Attributes::empty(), pages_only());
    }

    fn map_range(&mut self, address: u64, frame: u64, bytes: u64) -> bool {
        self.map(address, frame, bytes, attributes(), pages_only());
        true
    }

    fn unmap_range(&mut self, address: u64, bytes: u64) -> bool {
        self.map(address, 0, bytes, Stage2Attributes::empty(), pages_only());
        true
    }
}
