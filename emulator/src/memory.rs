//! Physical memory as the emulated platform sees it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use once_cell::race::OnceBox;

use crate::frame::FRAME_BYTES;
use crate::frame::Frame;

/// Physical memory in 4 KiB frames, addressed by frame number (address without KeyID bits, shifted right by 12).
///
/// The default is [`SparseMemory`]; a kernel that hosts the emulator may supply real memory instead.
/// A frame stays at its place for the life of the memory, and all accesses to it are atomic.
pub trait PhysicalMemory: Send + Sync {
    /// The frame with this number.
    fn frame(&self, number: u64) -> &Frame;

    /// The frame with this number, unless it is known to hold nothing but zeros.
    fn touched(&self, number: u64) -> Option<&Frame> {
        Some(self.frame(number))
    }
}

impl dyn PhysicalMemory + '_ {
    /// Reads bytes from physical address `address` on, across frames.
    pub fn read(&self, address: u64, to: &mut [u8]) {
        let mut address = address;
        let mut rest = to;
        while !rest.is_empty() {
            let offset = (address % FRAME_BYTES as u64) as usize;
            let (now, later) = rest.split_at_mut(rest.len().min(FRAME_BYTES - offset));
            match self.touched(address >> 12) {
                Some(frame) => frame.read(offset, now),
                None => now.fill(0),
            }
            address += now.len() as u64;
            rest = later;
        }
    }

    /// Writes bytes from physical address `address` on, across frames.
    pub fn write(&self, address: u64, from: &[u8]) {
        let mut address = address;
        let mut rest = from;
        while !rest.is_empty() {
            let offset = (address % FRAME_BYTES as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(FRAME_BYTES - offset));
            self.frame(address >> 12).write(offset, now);
            address += now.len() as u64;
            rest = later;
        }
    }

    /// Reads the quadword at `address`, which is a multiple of 8.
    pub fn read_u64(&self, address: u64) -> u64 {
        self.touched(address >> 12)
            .map_or(0, |frame| frame.load((address & 0xfff) as usize))
    }

    /// Writes the quadword at `address`, which is a multiple of 8.
    pub fn write_u64(&self, address: u64, value: u64) {
        self.frame(address >> 12)
            .store((address & 0xfff) as usize, value);
    }

    /// Fills the frame with `value` in every quadword.
    pub fn fill(&self, number: u64, value: u64) {
        if value != 0 || self.touched(number).is_some() {
            self.frame(number).fill(value);
        }
    }

    /// Copies frame `from` over frame `to`.
    pub fn copy(&self, from: u64, to: u64) {
        match self.touched(from) {
            Some(source) => self.frame(to).copy_from(source),
            None => self.fill(to, 0),
        }
    }
}

/// Memory that takes host memory for a frame only once somebody has written to it.
///
/// A frame number beyond the size wraps around.
pub struct SparseMemory {
    regions: Vec<OnceBox<Region>>,
}

/// Frames of 1 GiB, by 2 MiB.
struct Region([OnceBox<Group>; 512]);

/// Frames of 2 MiB.
struct Group([OnceBox<Frame>; 512]);

impl SparseMemory {
    /// Memory of 2^`address_bits` bytes, at least 1 GiB and at most 2^52 bytes.
    pub fn new(address_bits: u32) -> Self {
        let count = 1usize << address_bits.clamp(30, 52).saturating_sub(30);
        Self {
            regions: (0..count).map(|_| OnceBox::new()).collect(),
        }
    }

    /// Takes host memory for the frame.
    #[cold]
    #[inline(never)]
    fn touch(&self, number: u64) -> &Frame {
        let region = self
            .region(number)
            .get_or_init(|| Box::new(Region([const { OnceBox::new() }; 512])));
        let group = region.0[(number >> 9) as usize & 511]
            .get_or_init(|| Box::new(Group([const { OnceBox::new() }; 512])));
        group.0[number as usize & 511].get_or_init(|| Box::new(Frame::new()))
    }

    #[inline]
    fn region(&self, number: u64) -> &OnceBox<Region> {
        &self.regions[(number >> 18) as usize & (self.regions.len() - 1)]
    }
}

impl PhysicalMemory for SparseMemory {
    #[inline]
    fn frame(&self, number: u64) -> &Frame {
        match self.touched(number) {
            Some(frame) => frame,
            None => self.touch(number),
        }
    }

    #[inline]
    fn touched(&self, number: u64) -> Option<&Frame> {
        let region = self.region(number).get()?;
        let group = region.0[(number >> 9) as usize & 511].get()?;
        group.0[number as usize & 511].get()
    }
}

impl fmt::Debug for SparseMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SparseMemory")
            .field("gib", &self.regions.len())
            .finish()
    }
}
