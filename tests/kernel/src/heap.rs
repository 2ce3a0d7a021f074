//! The kernel's heap: blocks of power-of-two sizes, each size with its own list of free blocks.

use core::alloc::GlobalAlloc;
use core::alloc::Layout;
use core::ptr;

use crate::layout;
use crate::lock::Lock;

const SMALLEST_SHIFT: u32 = 4;
const CLASSES: usize = 24;

struct Classes {
    free: [*mut u8; CLASSES],
    next: u64,
    end: u64,
}

// SAFETY: the lists point to free memory that only the holder of the lock uses.
unsafe impl Send for Classes {}

struct Heap(Lock<Classes>);

#[global_allocator]
static HEAP: Heap = Heap(Lock::new(Classes {
    free: [ptr::null_mut(); CLASSES],
    next: 0,
    end: 0,
}));

/// Hands the heap's memory to the allocator; called once, before the first allocation.
pub(crate) fn start() {
    let mut classes = HEAP.0.lock();
    classes.next = layout::heap_start();
    classes.end = layout::heap_start() + layout::HEAP;
}

/// Bytes of the heap that were ever in use.
pub(crate) fn high_water() -> u64 {
    HEAP.0.lock().next - layout::heap_start()
}

fn class(layout: Layout) -> usize {
    let size = layout
        .size()
        .max(layout.align())
        .max(1 << SMALLEST_SHIFT)
        .next_power_of_two();
    (size.trailing_zeros() - SMALLEST_SHIFT) as usize
}

// SAFETY: 1. A block is as large as the power of two of its class and aligned to it, so it fits the layout. 2. A block
// is cut from unused heap memory once, and afterwards is either in one free list or with one owner.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let class = class(layout);
        let mut classes = self.0.lock();
        let Some(&head) = classes.free.get(class) else {
            return ptr::null_mut();
        };
        if !head.is_null() {
            // SAFETY: a free block of any class has room for a pointer, written by `dealloc`.
            classes.free[class] = unsafe { head.cast::<*mut u8>().read() };
            return head;
        }
        let size = 1u64 << (class as u32 + SMALLEST_SHIFT);
        let start = classes.next.next_multiple_of(size);
        if start + size > classes.end {
            return ptr::null_mut();
        }
        classes.next = start + size;
        start as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let class = class(layout);
        let mut classes = self.0.lock();
        // SAFETY: the owner gave the block up; it has room for a pointer and is aligned for one.
        unsafe { block.cast::<*mut u8>().write(classes.free[class]) };
        classes.free[class] = block;
    }
}
