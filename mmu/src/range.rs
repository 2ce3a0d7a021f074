use tdx_abi::Level;

/// A range of guest-physical addresses without SHARED bit, in bytes, page-aligned, not empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GpaRange {
    start: u64,
    end: u64,
}

impl GpaRange {
    /// [`start`, `start + bytes`); `None` if that is empty, overflows or is not page-aligned.
    pub const fn new(start: u64, bytes: u64) -> Option<Self> {
        match start.checked_add(bytes) {
            Some(end) if bytes > 0 && (start | bytes) & (Level::Pt.size() - 1) == 0 => {
                Some(Self { start, end })
            }
            _ => None,
        }
    }

    /// Everything below `end`, a power of two above the page size.
    pub(crate) const fn up_to(end: u64) -> Self {
        Self { start: 0, end }
    }

    /// First address.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// First address behind.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Number of bytes.
    pub const fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// Whether `address` lies in the range.
    pub const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// The largest naturally aligned block at `address` within the range, up to `largest`.
    pub(crate) const fn block_at(self, address: u64, largest: Level) -> Level {
        block_at(address, self.end, largest)
    }

    /// The edges of the range that an entry of `level` at `gpa` would stick out over.
    pub(crate) const fn cuts(self, start: u64, end: u64) -> bool {
        start < self.start || end > self.end
    }
}

impl core::fmt::Debug for GpaRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

/// The largest naturally aligned block at `address` that ends at or before `end`, up to `largest`.
#[inline]
pub(crate) const fn block_at(address: u64, end: u64, largest: Level) -> Level {
    let mut level = Level::Pt;
    while level as u8 != largest as u8 {
        match level.above() {
            Some(above) if address & (above.size() - 1) == 0 && end - address >= above.size() => {
                level = above
            }
            _ => break,
        }
    }
    level
}
