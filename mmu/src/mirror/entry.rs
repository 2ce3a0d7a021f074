use core::fmt;

use tdx_abi::Hpa;
use tdx_abi::Level;

use crate::tree::Format;

// The CPU never walks a mirrored table, so this encoding is the crate's own. Like an EPT entry it keeps
// the address in bits 51:12. What walks and removals ask is one bit each: whether an entry maps, whether
// walks pass it, and whether it is a leaf, blocked or not. A blocked entry keeps its kind and address.
const MAPPED: u64 = 1 << 0;
const PASSABLE: u64 = 1 << 1;
const LEAF: u64 = 1 << 7;
const BLOCKED: u64 = 1 << 8;
const FROZEN: u64 = 1 << 9;
const POISONED: u64 = 1 << 10;
const WRITE_BLOCKED: u64 = 1 << 52;
const EXPORTED: u64 = 1 << 53;
const DIRTY: u64 = 1 << 54;
const EXPORT: u64 = WRITE_BLOCKED | EXPORTED | DIRTY;
const ACCEPTED: u64 = 1 << 55;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Entry of a mirrored table: what the Secure-EPT entry at the same place says, as far as the host must know.
///
/// Whether a leaf is pending or accepted is the guest's business and not part of what an entry says; a mark tells the
/// leaves that the host has seen the guest accept from those of which it does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct MirrorEntry(u64);

/// What a [`MirrorEntry`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing is mapped.
    Empty,
    /// Somebody is changing the entry, or its table has left the tree: look again.
    Frozen,
    /// A table; walks pass.
    Table(Hpa),
    /// A table after RANGE.BLOCK; walks stop.
    BlockedTable(Hpa),
    /// A page.
    Leaf(Hpa),
    /// A page after RANGE.BLOCK.
    BlockedLeaf(Hpa),
    /// A 4 KiB page that an export session has touched; the guest can at least read it.
    ExportLeaf(Hpa, ExportState),
    /// Mirror and Secure-EPT may differ here: the module answered what cannot be. The address is the
    /// last one known.
    Poisoned(Hpa),
}

/// What an export session has done with a 4 KiB page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportState {
    /// Blocked for writing, not exported yet (BLOCKEDW).
    WriteBlocked,
    /// Exported and blocked for writing since (EXPORTED_BLOCKEDW).
    Exported,
    /// Exported, and writable again since (EXPORTED_DIRTY).
    Dirty,
    /// Exported, writable in between, and blocked for writing again (EXPORTED_DIRTY_BLOCKEDW).
    DirtyWriteBlocked,
}

impl ExportState {
    /// Whether a write of the guest exits.
    pub const fn is_write_blocked(self) -> bool {
        !matches!(self, Self::Dirty)
    }

    /// Whether the destination has been sent this page, in whatever version.
    pub const fn is_exported(self) -> bool {
        !matches!(self, Self::WriteBlocked)
    }

    const fn bits(self) -> u64 {
        match self {
            Self::WriteBlocked => WRITE_BLOCKED,
            Self::Exported => EXPORTED | WRITE_BLOCKED,
            Self::Dirty => EXPORTED | DIRTY,
            Self::DirtyWriteBlocked => EXPORTED | DIRTY | WRITE_BLOCKED,
        }
    }

    const fn from_bits(bits: u64) -> Option<Self> {
        const EXPORTED_BLOCKED: u64 = EXPORTED | WRITE_BLOCKED;
        const DIRTIED: u64 = EXPORTED | DIRTY;
        match bits & EXPORT {
            WRITE_BLOCKED => Some(Self::WriteBlocked),
            EXPORTED_BLOCKED => Some(Self::Exported),
            DIRTIED => Some(Self::Dirty),
            EXPORT => Some(Self::DirtyWriteBlocked),
            _ => None,
        }
    }
}

impl MirrorEntry {
    /// Nothing mapped.
    pub const EMPTY: Self = Self(0);
    /// Being changed.
    pub const FROZEN: Self = Self(FROZEN);

    /// An entry that maps the page at `hpa`.
    #[inline(always)]
    pub const fn leaf(hpa: Hpa) -> Self {
        Self(hpa.bits() & ADDRESS | LEAF | MAPPED)
    }

    /// An entry that leads to the mirrored table at `table`.
    #[inline(always)]
    pub const fn table(table: Hpa) -> Self {
        Self(table.bits() & ADDRESS | PASSABLE)
    }

    /// An entry that maps the page at `hpa`, which an export session has brought into `state`.
    pub const fn exporting(hpa: Hpa, state: ExportState) -> Self {
        Self(hpa.bits() & ADDRESS | LEAF | MAPPED | state.bits())
    }

    /// The leaf with the mark that it is accepted by all that the host has seen: it was added with its content, or is
    /// mapped because of the guest's own ACCEPT.
    pub(crate) const fn accepted(self) -> Self {
        Self(self.0 | ACCEPTED)
    }

    /// The leaf without that mark.
    pub(super) const fn unmarked(self) -> Self {
        Self(self.0 & !ACCEPTED)
    }

    /// Whether the leaf has that mark.
    pub(crate) const fn is_accepted(self) -> bool {
        self.0 & ACCEPTED != 0
    }

    /// An entry that maps the page at `hpa` instead, with the same mark.
    pub(super) const fn moved(self, hpa: Hpa) -> Self {
        Self(Self::leaf(hpa).0 | self.0 & ACCEPTED)
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

    /// The address in the entry, 0 where there is none.
    #[inline(always)]
    pub const fn address(self) -> Hpa {
        Hpa::new(self.0 & ADDRESS)
    }

    /// The entry after RANGE.BLOCK.
    pub const fn blocked(self) -> Self {
        Self(self.0 & !(MAPPED | PASSABLE | EXPORT) | BLOCKED)
    }

    /// The entry after RANGE.UNBLOCK.
    pub const fn unblocked(self) -> Self {
        let open = if self.is_leaf() { MAPPED } else { PASSABLE };
        Self(self.0 & !BLOCKED | open)
    }

    /// The entry marked as not to be trusted.
    pub const fn poisoned(self) -> Self {
        Self(self.0 & ADDRESS | POISONED)
    }

    /// Whether the entry maps a page, and is not blocked.
    #[inline(always)]
    pub const fn is_mapped(self) -> bool {
        self.0 & MAPPED != 0
    }

    /// Where `address` is mapped to by this entry of `level`, if it is mapped.
    #[inline(always)]
    pub(super) fn translate(self, address: u64, level: Level) -> Option<Hpa> {
        let offset = address & (level.size() - 1);
        self.is_mapped()
            .then(|| Hpa::new(self.address().bits() | offset))
    }

    /// Whether the entry is a leaf, blocked or not.
    #[inline(always)]
    pub const fn is_leaf(self) -> bool {
        self.0 & LEAF != 0
    }

    /// What the entry says.
    pub const fn kind(self) -> Kind {
        let hpa = self.address();
        if self.is_mapped() {
            match ExportState::from_bits(self.0) {
                None => Kind::Leaf(hpa),
                Some(state) => Kind::ExportLeaf(hpa, state),
            }
        } else if self.0 & PASSABLE != 0 {
            Kind::Table(hpa)
        } else if self.0 & BLOCKED != 0 {
            if self.is_leaf() {
                Kind::BlockedLeaf(hpa)
            } else {
                Kind::BlockedTable(hpa)
            }
        } else if self.0 & POISONED != 0 {
            Kind::Poisoned(hpa)
        } else if self.0 & FROZEN != 0 {
            Kind::Frozen
        } else {
            Kind::Empty
        }
    }
}

impl fmt::Debug for MirrorEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

/// [`Format`] of the mirrored tree.
#[derive(Debug)]
pub enum MirrorFormat {}

impl Format for MirrorFormat {
    const EMPTY: u64 = MirrorEntry::EMPTY.0;
    const FROZEN: u64 = MirrorEntry::FROZEN.0;

    #[inline(always)]
    fn is_table(entry: u64) -> bool {
        entry & PASSABLE != 0
    }

    #[inline(always)]
    fn table(entry: u64) -> Hpa {
        MirrorEntry(entry).address()
    }

    #[inline(always)]
    fn link(table: Hpa) -> u64 {
        MirrorEntry::table(table).0
    }
}
