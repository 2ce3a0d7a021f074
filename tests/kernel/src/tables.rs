//! A reader of EPT tables of its own, straight from physical memory, to look behind the MMU's back and to seed faults.
//!
//! Bit positions: Intel SDM volume 3, tables 29-1 to 29-7.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use crate::physical;

/// Read, write and execute permission.
pub(crate) const RWX: u64 = 7;
/// Read permission.
pub(crate) const READ: u64 = 1;
/// Write permission.
pub(crate) const WRITE: u64 = 2;
/// Execute permission.
pub(crate) const EXECUTE: u64 = 4;
/// Memory type write-back of a leaf.
pub(crate) const WRITE_BACK: u64 = 6 << 3;
/// The entry maps a page above level 0.
pub(crate) const LEAF: u64 = 1 << 7;
/// Address field of an entry.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// EPTP: 4 levels, write-back tables.
pub(crate) const EPTP: u64 = 3 << 3 | 6;
/// EPTP: the CPU sets accessed and dirty flags.
pub(crate) const EPTP_AD: u64 = 1 << 6;

/// Where the walk for a guest-physical address ended: an entry that is a leaf, or maps nothing.
pub(crate) struct Found {
    /// The entry.
    pub(crate) entry: &'static AtomicU64,
    /// Its level: 0 maps 4 KiB, 1 maps 2 MiB.
    pub(crate) level: u32,
}

impl Found {
    /// The entry's value.
    pub(crate) fn value(&self) -> u64 {
        self.entry.load(Ordering::SeqCst)
    }

    /// Physical address of the page, if the entry is a leaf; what it grants does not matter.
    pub(crate) fn page(&self) -> Option<u64> {
        let is_leaf = self.value() & LEAF != 0 || (self.level == 0 && self.value() & RWX != 0);
        is_leaf.then_some(self.value() & ADDRESS)
    }

    /// Physical address that the entry gives for `gpa`, if it is a leaf that grants anything.
    pub(crate) fn translate(&self, gpa: u64) -> Option<u64> {
        let offset = gpa & ((4096 << (9 * self.level)) - 1);
        let is_leaf = self.level == 0 || self.value() & LEAF != 0;
        (is_leaf && self.value() & RWX != 0)
            .then_some(((self.value() & ADDRESS) & !((4096 << (9 * self.level)) - 1)) + offset)
    }
}

/// Walks from the PML4 table at `root`; `None` if a table lies outside the frames that this kernel gives out.
pub(crate) fn walk(root: u64, gpa: u64) -> Option<Found> {
    let mut table = root;
    for level in (0..=3).rev() {
        let entry = &physical::frame(table)?[(gpa >> (12 + 9 * level) & 511) as usize];
        let value = entry.load(Ordering::SeqCst);
        if level == 0 || value & LEAF != 0 || value & RWX == 0 {
            return Some(Found { entry, level });
        }
        table = value & ADDRESS;
    }
    None
}

/// The entry of `level` on the way to `gpa`, if the walk comes that far.
pub(crate) fn entry(root: u64, gpa: u64, level: u32) -> Option<&'static AtomicU64> {
    let mut table = root;
    for at in (level..=3).rev() {
        let entry = &physical::frame(table)?[(gpa >> (12 + 9 * at) & 511) as usize];
        let value = entry.load(Ordering::SeqCst);
        if at == level {
            return Some(entry);
        }
        if value & LEAF != 0 || value & RWX == 0 {
            return None;
        }
        table = value & ADDRESS;
    }
    None
}
