//! Physical memory as the kernel sees it: mapped one to one, so an address is a pointer.
//!
//! A guest and the page walker use the same memory, so all access here is atomic: no reference to plain data is ever made.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;

use crate::layout;

/// Entries of a table, or 64-bit words of a frame.
pub(crate) const WORDS: usize = 512;

/// The frame at `address`, which must be 4 KiB aligned, in RAM and no part of the kernel, its heap or its stacks.
pub(crate) fn frame(address: u64) -> Option<&'static [AtomicU64; WORDS]> {
    let end = address.checked_add(4096)?;
    if !address.is_multiple_of(4096) || address < layout::frames_start() || end > layout::RAM {
        return None;
    }
    // SAFETY: 1. The address is RAM, identity-mapped, and aligned for u64. 2. The kernel's own objects all lie below
    // `frames_start`, so no Rust reference but atomic ones made here points into the frame. 3. Memory never goes away.
    Some(unsafe { &*(address as *const [AtomicU64; WORDS]) })
}

/// The 64-bit word at `address`, under the conditions of [`frame`].
pub(crate) fn word(address: u64) -> Option<&'static AtomicU64> {
    frame(address & !4095)?
        .get((address % 4096 / 8) as usize)
        .filter(|_| address.is_multiple_of(8))
}

/// Fills the frame at `address` with zeros; false if [`frame`] does not know it.
pub(crate) fn clear(address: u64) -> bool {
    frame(address)
        .map(|frame| {
            frame
                .iter()
                .for_each(|word| word.store(0, Ordering::Relaxed))
        })
        .is_some()
}
