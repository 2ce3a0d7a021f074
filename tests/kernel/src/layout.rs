//! Where things lie in physical memory, which is mapped one to one.

use core::ptr;

unsafe extern "C" {
    static __bss_end: u8;
}

/// Physical memory of the machine, in bytes; `bochsrc` says the same.
pub(crate) const RAM: u64 = 256 << 20;

/// Bytes of the kernel's heap.
pub(crate) const HEAP: u64 = 48 << 20;

/// First byte after the kernel's image and its zeroed memory, rounded up to 2 MiB: the heap begins here.
pub(crate) fn heap_start() -> u64 {
    (ptr::addr_of!(__bss_end) as u64).next_multiple_of(2 << 20)
}

/// First byte that the frame allocator may give out, up to [`RAM`].
pub(crate) fn frames_start() -> u64 {
    heap_start() + HEAP
}
