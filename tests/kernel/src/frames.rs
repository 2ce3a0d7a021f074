//! The frame allocator: 4 KiB frames and 2 MiB blocks of physical memory.

use crate::layout;
use crate::lock::Lock;

/// Bytes of a frame.
pub(crate) const FRAME: u64 = 4096;

/// Bytes of a block, which is also its alignment.
pub(crate) const BLOCK: u64 = 2 << 20;

const BLOCKS: usize = (layout::RAM / BLOCK) as usize;
const WORDS: usize = (BLOCK / FRAME / 64) as usize;

/// One bit a frame: 1 while somebody owns it.
struct Frames {
    used: [[u64; WORDS]; BLOCKS],
    first: usize,
    used_frames: u64,
}

static FRAMES: Lock<Frames> = Lock::new(Frames {
    used: [[0; WORDS]; BLOCKS],
    first: BLOCKS,
    used_frames: 0,
});

/// Opens the memory behind the heap to the allocator.
pub(crate) fn start() {
    FRAMES.lock().first = layout::frames_start().div_ceil(BLOCK) as usize;
}

/// Takes a 4 KiB frame, as its physical address; its content is whatever the last owner left.
pub(crate) fn allocate_frame() -> Option<u64> {
    let mut frames = FRAMES.lock();
    let first = frames.first;
    let partly_used = |block: &[u64; WORDS]| {
        block.iter().any(|word| *word != 0) && block.iter().any(|word| *word != u64::MAX)
    };
    let block = (first..BLOCKS)
        .find(|index| partly_used(&frames.used[*index]))
        .or_else(|| (first..BLOCKS).find(|index| frames.used[*index] == [0; WORDS]))?;
    let word = frames.used[block]
        .iter()
        .position(|word| *word != u64::MAX)?;
    let bit = frames.used[block][word].trailing_ones();
    frames.used[block][word] |= 1 << bit;
    frames.used_frames += 1;
    Some(block as u64 * BLOCK + (word as u64 * 64 + u64::from(bit)) * FRAME)
}

/// Takes a 2 MiB block, as its physical address.
pub(crate) fn allocate_block() -> Option<u64> {
    let mut frames = FRAMES.lock();
    let first = frames.first;
    let block = (first..BLOCKS)
        .rev()
        .find(|index| frames.used[*index] == [0; WORDS])?;
    frames.used[block] = [u64::MAX; WORDS];
    frames.used_frames += BLOCK / FRAME;
    Some(block as u64 * BLOCK)
}

/// Gives back `size` bytes at `address`: a frame, or a block whole or in frames.
///
/// A frame that nobody owns ends the kernel: it was freed twice.
pub(crate) fn free(address: u64, size: u64) {
    let mut frames = FRAMES.lock();
    for frame in (address..address + size).step_by(FRAME as usize) {
        let block = (frame / BLOCK) as usize;
        let index = (frame % BLOCK / FRAME) as usize;
        let mask = 1 << (index % 64);
        assert!(
            frames.used[block][index / 64] & mask != 0,
            "frame {frame:#x} was freed twice"
        );
        frames.used[block][index / 64] &= !mask;
        frames.used_frames -= 1;
    }
}

/// Frames that somebody owns at present.
pub(crate) fn used_frames() -> u64 {
    FRAMES.lock().used_frames
}
