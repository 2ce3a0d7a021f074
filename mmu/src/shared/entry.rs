use core::fmt;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::format::EptLeaf2M;
use tdx_abi::format::EptLeaf4K;
use tdx_abi::format::MemType;

use crate::tree::Format;

const NONE: EptLeaf4K = EptLeaf4K::from_bits(0);
const READ: u64 = NONE.with_r(true).into_bits();
const WRITE: u64 = NONE.with_w(true).into_bits();
const EXECUTE: u64 = NONE.with_x(true).into_bits();
const ACCESS: u64 = READ | WRITE | EXECUTE;
const WRITE_BACK: u64 = NONE.with_mem_type(MemType::WB).into_bits();
const IGNORE_PAT: u64 = NONE.with_ipat(true).into_bits();
/// What makes an entry above the lowest level a leaf.
const LEAF: u64 = EptLeaf2M::new().into_bits();
const ACCESSED: u64 = NONE.with_accessed(true).into_bits();
const DIRTY: u64 = NONE.with_dirty(true).into_bits();
const ADDRESS: u64 = NONE.with_hpa(Hpa::new(u64::MAX)).into_bits();
const SUPPRESS_VE: u64 = NONE.with_suppress_ve(true).into_bits();

// Bits that the CPU ignores, used by this crate: the access that a leaf has by right while it is
// withheld for dirty logging or ageing, and marks of entries that permit nothing.
const RIGHT_SHIFT: u32 = 52;
const RIGHT: u64 = ACCESS << RIGHT_SHIFT;
const MAPPED: u64 = 1 << 55;
const FROZEN: u64 = 1 << 56;
/// The mark of a table, so that a walk asks for one bit.
const PASSABLE: u64 = 1 << 11;

/// What the guest may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Reads.
    pub read: bool,
    /// Writes. Not without reads: the CPU calls that a misconfiguration.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Permissions {
    /// Reads, writes and fetches.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
    };
    /// Reads and writes.
    pub const READ_WRITE: Self = Self {
        read: true,
        write: true,
        execute: false,
    };
    /// Reads.
    pub const READ: Self = Self {
        read: true,
        write: false,
        execute: false,
    };

    const fn bits(self) -> u64 {
        // A write permission without the read permission is a misconfiguration.
        (self.read || self.write) as u64 | (self.write as u64) << 1 | (self.execute as u64) << 2
    }

    const fn from_bits(bits: u64) -> Self {
        Self {
            read: bits & READ != 0,
            write: bits & WRITE != 0,
            execute: bits & EXECUTE != 0,
        }
    }

    /// Whether everything that `other` permits is permitted.
    pub const fn contains(self, other: Self) -> bool {
        other.bits() & !self.bits() == 0
    }
}

/// How the CPU caches a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryType {
    /// Write-back, and the guest's PAT has its say.
    #[default]
    WriteBack,
    /// Write-back whatever the guest's PAT says.
    WriteBackIgnorePat,
    /// Uncacheable: device memory.
    Uncacheable,
}

/// What a leaf of the shared tree allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The access that the guest has by right.
    pub permissions: Permissions,
    /// How the CPU caches the page.
    pub memory_type: MemoryType,
    /// Whether writes are caught first, to log the page as dirty.
    pub catch_writes: bool,
}

impl Attributes {
    /// `permissions` on write-back memory, nothing caught.
    pub const fn new(permissions: Permissions) -> Self {
        Self {
            permissions,
            memory_type: MemoryType::WriteBack,
            catch_writes: false,
        }
    }
}

/// Entry of the shared EPT.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct EptEntry(u64);

/// What an [`EptEntry`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EptKind {
    /// Nothing is mapped; an access exits to the host.
    Empty,
    /// Nothing is mapped; an access raises #VE in the guest: emulated MMIO.
    VirtualizationException,
    /// Somebody is changing the entry, or its table has left the tree: look again.
    Frozen,
    /// A table.
    Table(Hpa),
    /// A page.
    Leaf {
        /// Where the page is.
        hpa: Hpa,
        /// The access that the guest has by right.
        right: Permissions,
        /// The access that the CPU grants now: less, while dirtying or use is being observed.
        granted: Permissions,
    },
}

impl EptEntry {
    /// Nothing mapped, #VE suppressed.
    pub const EMPTY: Self = Self(SUPPRESS_VE);
    /// Nothing mapped, #VE wanted.
    pub const VIRTUALIZATION_EXCEPTION: Self = Self(0);
    /// Being changed.
    pub const FROZEN: Self = Self(SUPPRESS_VE | FROZEN);

    /// An entry of `level` that maps the page at `hpa`.
    #[inline(always)]
    pub const fn leaf(hpa: Hpa, level: Level, attributes: Attributes) -> Self {
        let right = attributes.permissions.bits();
        let granted = if attributes.catch_writes {
            right & !WRITE
        } else {
            right
        };
        let memory = match attributes.memory_type {
            MemoryType::WriteBack => WRITE_BACK,
            MemoryType::WriteBackIgnorePat => WRITE_BACK | IGNORE_PAT,
            MemoryType::Uncacheable => 0,
        };
        let large = if matches!(level, Level::Pt) { 0 } else { LEAF };
        Self(
            hpa.bits() & ADDRESS
                | SUPPRESS_VE
                | MAPPED
                | right << RIGHT_SHIFT
                | memory
                | large
                | granted,
        )
    }

    /// An entry that leads to the table at `table`.
    #[inline(always)]
    pub const fn table(table: Hpa) -> Self {
        Self(table.bits() & ADDRESS | PASSABLE | ACCESS)
    }

    /// The entry with these bits.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether the entry is a leaf, granted or withheld.
    #[inline(always)]
    pub const fn is_leaf(self) -> bool {
        self.0 & MAPPED != 0
    }

    /// Where `address` is mapped to by this entry of `level`, if it is.
    #[inline(always)]
    pub(super) fn translate(self, address: u64, level: Level) -> Option<Hpa> {
        let offset = address & (level.size() - 1);
        self.is_leaf()
            .then(|| Hpa::new(self.address().bits() | offset))
    }

    /// The address in the entry.
    #[inline(always)]
    pub const fn address(self) -> Hpa {
        Hpa::new(self.0 & ADDRESS)
    }

    /// What the entry says.
    pub const fn kind(self) -> EptKind {
        if self.is_leaf() {
            let right = Permissions::from_bits(self.0 >> RIGHT_SHIFT);
            EptKind::Leaf {
                hpa: self.address(),
                right,
                granted: Permissions::from_bits(self.0),
            }
        } else if self.0 & PASSABLE != 0 {
            EptKind::Table(self.address())
        } else if self.0 & FROZEN != 0 {
            EptKind::Frozen
        } else if self.0 & SUPPRESS_VE != 0 {
            EptKind::Empty
        } else {
            EptKind::VirtualizationException
        }
    }

    /// The leaf with writes withheld.
    pub const fn without_write(self) -> Self {
        Self(self.0 & !WRITE)
    }

    /// The leaf with all access withheld, so that the next use is noticed.
    pub const fn without_access(self) -> Self {
        Self(self.0 & !ACCESS)
    }

    /// The leaf with everything granted that `wanted` asks for and the page permits by right.
    ///
    /// Reads come back with any use; writes only when asked for.
    pub const fn granting(self, wanted: Permissions) -> Self {
        let right = self.0 >> RIGHT_SHIFT & ACCESS;
        Self(self.0 | right & (wanted.bits() | READ | EXECUTE))
    }

    /// The leaf with `permissions` by right, and no more granted than that.
    pub const fn with_right(self, permissions: Permissions) -> Self {
        let right = permissions.bits();
        Self(self.0 & !RIGHT & !(ACCESS & !right) | right << RIGHT_SHIFT)
    }

    /// The hardware's accessed bit, kept only under an EPTP with A/D enabled.
    pub const fn accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    /// The hardware's dirty bit, kept only under an EPTP with A/D enabled.
    pub const fn dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    /// The leaf with the hardware's accessed and dirty bits cleared.
    pub const fn clean(self) -> Self {
        Self(self.0 & !(ACCESSED | DIRTY))
    }

    /// The leaf of the level below for its part number `index`, the access as it is here.
    pub const fn part(self, index: u64, below: Level) -> Self {
        let large = if matches!(below, Level::Pt) { 0 } else { LEAF };
        Self((self.0 & !LEAF | large) + index * below.size())
    }

    /// The leaf of `level` whose first part is this leaf of the level below.
    pub const fn whole(self) -> Self {
        Self(self.0 | LEAF)
    }
}

impl fmt::Debug for EptEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

/// [`Format`] of the shared EPT.
#[derive(Debug)]
pub enum EptFormat {}

impl Format for EptFormat {
    const EMPTY: u64 = EptEntry::EMPTY.0;
    const FROZEN: u64 = EptEntry::FROZEN.0;

    #[inline(always)]
    fn is_table(entry: u64) -> bool {
        entry & PASSABLE != 0
    }

    #[inline(always)]
    fn table(entry: u64) -> Hpa {
        EptEntry(entry).address()
    }

    #[inline(always)]
    fn link(table: Hpa) -> u64 {
        EptEntry::table(table).0
    }
}
