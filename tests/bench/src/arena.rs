//! One pre-faulted block of memory from which every contender takes its tables, so that none pays for page faults.

use core::cell::Cell;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use std::alloc::Layout;

/// Bytes in the arena: the sparse case needs some 31,000 leaf tables and their parents.
pub const BYTES: usize = 320 << 20;

/// Parts from which threads take frames of their own; the first is the main thread's.
pub const PARTS: usize = 4;

/// The words beside the tables.
static LINKS: [AtomicU64; BYTES >> 12] = [const { AtomicU64::new(0) }; BYTES >> 12];

static BASE: AtomicUsize = AtomicUsize::new(0);
thread_local!(static NEXT: Cell<usize> = const { Cell::new(0) });

/// Allocates and touches the arena.
pub fn set_up() {
    let layout = Layout::from_size_align(BYTES, 1 << 21).expect("a constant layout is valid");
    // SAFETY: the layout has a non-zero size.
    let base = unsafe { std::alloc::alloc_zeroed(layout) };
    assert!(!base.is_null(), "no memory for the arena");
    for page in (0..BYTES).step_by(4096) {
        // SAFETY: `page` is below the size of the allocation.
        unsafe { base.add(page).write_volatile(0) };
    }
    BASE.store(base as usize, Relaxed);
}

/// Makes every frame available again.
pub fn reset() {
    NEXT.with(|next| next.set(0));
}

/// Lets this thread take its frames from one of the arena's [`PARTS`], so that others may take theirs meanwhile.
pub fn start_in_part(part: usize) {
    NEXT.with(|next| next.set(BYTES / PARTS * part));
}

/// The next 4 KiB frame, with whatever it contained.
#[inline]
pub fn frame() -> usize {
    NEXT.with(|next| {
        let offset = next.get();
        assert!(offset < BYTES, "the arena is used up");
        next.set(offset + 4096);
        BASE.load(Relaxed) + offset
    })
}

/// The next 4 KiB frame, zeroed.
#[inline]
pub fn zeroed_frame() -> usize {
    let frame = frame();
    // SAFETY: `frame` is the address of 4096 bytes of the arena that nobody else was given.
    unsafe { core::ptr::write_bytes(frame as *mut u8, 0, 4096) };
    frame
}

/// The arena as atomic words, for the physical limits.
pub fn words() -> &'static [AtomicU64] {
    // SAFETY: the arena lives as long as the process, is aligned, and is only used by one measurement at a time.
    unsafe { core::slice::from_raw_parts(BASE.load(Relaxed) as *const AtomicU64, BYTES / 8) }
}

/// The table at `address`, which came from [`frame`].
#[inline]
pub fn table(address: u64) -> &'static [AtomicU64; 512] {
    // SAFETY: frames are 4096 bytes of the arena, which lives as long as the process.
    unsafe { &*(address as *const [AtomicU64; 512]) }
}

/// The word beside the table at `address`.
pub fn link(address: u64) -> &'static AtomicU64 {
    &LINKS[(address as usize >> 12) % LINKS.len()]
}
