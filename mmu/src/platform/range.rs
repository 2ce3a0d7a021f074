use core::fmt;

use tdx_abi::Hpa;

/// Range of host-physical memory, from `start` up to but not including `end`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryRange {
    start: Hpa,
    end: Hpa,
}

impl MemoryRange {
    /// The range from `start` up to but not including `end`; `None` if `end` lies below `start`.
    pub const fn new(start: Hpa, end: Hpa) -> Option<Self> {
        if start.bits() <= end.bits() {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// The `size` bytes from `start` on; `None` if that overflows.
    pub const fn with_size(start: Hpa, size: u64) -> Option<Self> {
        match start.checked_add(size) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// First byte.
    pub const fn start(self) -> Hpa {
        self.start
    }

    /// First byte behind the range.
    pub const fn end(self) -> Hpa {
        self.end
    }

    /// Size in bytes.
    pub const fn size(self) -> u64 {
        self.end.bits() - self.start.bits()
    }

    /// Whether the range holds no byte.
    pub const fn is_empty(self) -> bool {
        self.size() == 0
    }

    /// Whether both ranges have a byte in common.
    pub const fn overlaps(self, other: Self) -> bool {
        self.start.bits() < other.end.bits()
            && other.start.bits() < self.end.bits()
            && !self.is_empty()
            && !other.is_empty()
    }

    /// Whether every byte of `other` is in this range.
    pub const fn contains(self, other: Self) -> bool {
        other.start.bits() >= self.start.bits() && other.end.bits() <= self.end.bits()
    }
}

impl fmt::Debug for MemoryRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}
