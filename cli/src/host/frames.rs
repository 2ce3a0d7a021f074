//! The host's frame allocator.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_mmu::platform::MemoryRange;

const PAGE: u64 = Level::Pt.size();
const BLOCK: u64 = Level::Pd.size();
const WORDS: usize = (BLOCK / PAGE) as usize / 64;

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Pages that the module holds for itself: control structures and the Secure-EPT.
    Module,
    /// Tables that the host reads and writes: mirror and shared EPT.
    Tables,
    /// The guest's private memory.
    Private,
    /// The guest's shared memory.
    Shared,
    /// The module's page metadata; never given back.
    Pamt,
}

impl Use {
    /// All uses, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Private,
        Self::Shared,
        Self::Module,
        Self::Tables,
        Self::Pamt,
    ];

    /// The use in words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Module => "S-EPT and control pages",
            Self::Tables => "host tables",
            Self::Private => "private guest pages",
            Self::Shared => "shared guest pages",
            Self::Pamt => "PAMT",
        }
    }
}

/// 4 KiB and 2 MiB frames of the memory that the host may give to TDs.
///
/// Large frames are kept whole as long as a partly used one can serve; the lowest free frame is taken first,
/// so that freed frames are soon used again.
#[derive(Debug)]
pub struct FramePool {
    base: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// One bit for each 4 KiB frame of each 2 MiB block from `base` on: 1 is free.
    free: Vec<[u64; WORDS]>,
    /// Blocks with some frames free.
    partial: BTreeSet<usize>,
    /// Blocks with all frames free.
    whole: BTreeSet<usize>,
    /// Bytes in use, by [`Use`].
    used: [u64; Use::ALL.len()],
    /// Frames that came back although they were free, or that were never ours.
    misreturned: u64,
}

impl FramePool {
    /// A pool of `memory`, whose ranges are ascending.
    pub fn new(memory: &[MemoryRange]) -> Self {
        let base = memory
            .first()
            .map_or(0, |range| range.start().align_down(Level::Pd).bits());
        let end = memory.last().map_or(0, |range| range.end().bits());
        let blocks = usize::try_from(end.saturating_sub(base).div_ceil(BLOCK)).unwrap_or(0);
        let mut free = vec![[0; WORDS]; blocks];
        for range in memory {
            let first = range.start().bits().next_multiple_of(PAGE);
            for page in (first..range.end().align_down(Level::Pt).bits()).step_by(PAGE as usize) {
                let (block, word, bit) = place(base, page);
                free[block][word] |= bit;
            }
        }
        let blocks = |wanted: fn(&[u64; WORDS]) -> bool| {
            free.iter()
                .enumerate()
                .filter(|(_, bits)| wanted(bits))
                .map(|(index, _)| index)
                .collect()
        };
        let partial = blocks(|bits| *bits != [0; WORDS] && *bits != [u64::MAX; WORDS]);
        let whole = blocks(|bits| *bits == [u64::MAX; WORDS]);
        let state = State {
            free,
            partial,
            whole,
            used: [0; Use::ALL.len()],
            misreturned: 0,
        };
        Self {
            base,
            state: Mutex::new(state),
        }
    }

    /// First byte of the block-aligned range that holds all frames, and its number of 4 KiB frames.
    pub fn extent(&self) -> (u64, usize) {
        (self.base, self.state().free.len() * (BLOCK / PAGE) as usize)
    }

    /// `size` contiguous bytes from the highest place that has them, for the PAMT.
    pub fn take_run(&self, size: u64) -> Option<Hpa> {
        let mut state = self.state();
        let pages = state.free.len() as u64 * (BLOCK / PAGE);
        let wanted = size.div_ceil(PAGE);
        let mut run = 0;
        for page in (0..pages).rev() {
            let (block, word, bit) = place(0, page * PAGE);
            run = if state.free[block][word] & bit != 0 {
                run + 1
            } else {
                0
            };
            if run == wanted {
                for taken in page..page + wanted {
                    state.take(place(0, taken * PAGE));
                }
                state.used[Use::Pamt as usize] += wanted * PAGE;
                return Some(Hpa::new(self.base + page * PAGE));
            }
        }
        None
    }

    /// A free frame of 4 KiB or 2 MiB.
    pub fn allocate(&self, level: Level, purpose: Use) -> Option<Hpa> {
        let mut state = self.state();
        let start = match level {
            Level::Pt => state.take_small()?,
            Level::Pd => {
                let block = state.whole.pop_first()?;
                state.free[block] = [0; WORDS];
                block as u64 * BLOCK
            }
            Level::Pdpt | Level::Pml4 | Level::Pml5 => return None,
        };
        state.used[purpose as usize] += level.size();
        Some(Hpa::new(self.base + start))
    }

    /// Takes a frame back, as a whole or in pieces.
    pub fn free(&self, hpa: Hpa, level: Level, purpose: Use) {
        let (start, size) = (hpa.bits(), level.size());
        let mut state = self.state();
        for frame in (start..start + size).step_by(PAGE as usize) {
            let known =
                frame >= self.base && ((frame - self.base) / BLOCK) < state.free.len() as u64;
            if !known || !state.put_small(place(self.base, frame)) {
                state.misreturned += 1;
            }
        }
        let used = &mut state.used[purpose as usize];
        match used.checked_sub(size) {
            Some(rest) => *used = rest,
            None => state.misreturned += 1,
        }
    }

    /// Bytes in use for `purpose`.
    pub fn used(&self, purpose: Use) -> u64 {
        self.state().used[purpose as usize]
    }

    /// Whether every frame is back, and none came back twice or for another use.
    pub fn is_balanced(&self) -> bool {
        let state = self.state();
        let returns = |purpose: &Use| *purpose != Use::Pamt;
        let is_back = |purpose: Use| state.used[purpose as usize] == 0;
        Use::ALL.into_iter().filter(returns).all(is_back) && state.misreturned == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_small(&mut self) -> Option<u64> {
        let block = match self.partial.first() {
            Some(block) => *block,
            None => {
                let block = self.whole.pop_first()?;
                self.partial.insert(block);
                block
            }
        };
        let bits = &mut self.free[block];
        let word = bits.iter().position(|word| *word != 0)?;
        let bit = bits[word].trailing_zeros();
        bits[word] &= bits[word] - 1;
        if *bits == [0; WORDS] {
            self.partial.remove(&block);
        }
        Some(block as u64 * BLOCK + (word as u64 * 64 + u64::from(bit)) * PAGE)
    }

    fn take(&mut self, (block, word, bit): (usize, usize, u64)) {
        self.whole.remove(&block);
        self.free[block][word] &= !bit;
        if self.free[block] == [0; WORDS] {
            self.partial.remove(&block);
        } else {
            self.partial.insert(block);
        }
    }

    /// Marks a frame as free; `false` if it was.
    fn put_small(&mut self, (block, word, bit): (usize, usize, u64)) -> bool {
        let bits = &mut self.free[block];
        if bits[word] & bit != 0 {
            return false;
        }
        bits[word] |= bit;
        if *bits == [u64::MAX; WORDS] {
            self.partial.remove(&block);
            self.whole.insert(block);
        } else {
            self.partial.insert(block);
        }
        true
    }
}

fn place(base: u64, frame: u64) -> (usize, usize, u64) {
    let offset = frame - base;
    let page = offset % BLOCK / PAGE;
    (
        (offset / BLOCK) as usize,
        page as usize / 64,
        1 << (page % 64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> MemoryRange {
        MemoryRange::new(Hpa::new(start), Hpa::new(end)).unwrap()
    }

    #[test]
    fn every_frame_is_given_out_once() {
        let pool = FramePool::new(&[range(0x3f_f000, 0x60_0000), range(0x60_1000, 0x80_0000)]);
        let large = pool.allocate(Level::Pd, Use::Private).unwrap();
        assert_eq!(large, Hpa::new(0x40_0000));
        assert_eq!(
            pool.allocate(Level::Pd, Use::Private),
            None,
            "the second block has a hole"
        );
        let mut small = BTreeSet::new();
        while let Some(page) = pool.allocate(Level::Pt, Use::Module) {
            assert!(small.insert(page));
        }
        assert_eq!(small.len(), 1 + 511);
        assert!(!small.contains(&Hpa::new(0x60_0000)));
        assert_eq!(
            (pool.used(Use::Private), pool.used(Use::Module)),
            (BLOCK, 512 * PAGE)
        );
        for hpa in small {
            pool.free(hpa, Level::Pt, Use::Module);
        }
        assert!(!pool.is_balanced());
        for page in 0..512 {
            let hpa = Hpa::new(0x40_0000 + page * PAGE);
            pool.free(hpa, Level::Pt, Use::Private);
        }
        assert!(pool.is_balanced(), "pieces make up for the whole");
        assert!(pool.allocate(Level::Pd, Use::Private).is_some());
    }

    #[test]
    fn pamts_lie_at_the_top() {
        let pool = FramePool::new(&[range(0x20_0000, 0x80_0000)]);
        assert_eq!(pool.take_run(0x20_1000), Some(Hpa::new(0x5f_f000)));
        assert_eq!(pool.take_run(0x40_0000), None);
        assert_eq!(pool.take_run(0x1000), Some(Hpa::new(0x5f_e000)));
        assert_eq!(pool.used(Use::Pamt), 0x20_2000);
        assert!(pool.is_balanced(), "PAMTs stay");
        assert_eq!(
            pool.allocate(Level::Pt, Use::Module),
            Some(Hpa::new(0x40_0000))
        );
        assert!(pool.allocate(Level::Pd, Use::Private).is_some());
        assert!(pool.allocate(Level::Pd, Use::Private).is_none());
    }

    #[test]
    fn what_comes_back_twice_is_noticed() {
        let pool = FramePool::new(&[range(0, 0x40_0000)]);
        let page = pool.allocate(Level::Pt, Use::Module).unwrap();
        pool.free(page, Level::Pt, Use::Module);
        assert!(pool.is_balanced());
        pool.free(page, Level::Pt, Use::Module);
        assert!(!pool.is_balanced());
    }
}
