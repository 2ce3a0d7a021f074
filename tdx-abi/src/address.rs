//! Addresses and levels, each a type of its own.

use core::fmt;

/// Level of a page-table entry, numbered as Intel numbers it: an entry of [`Level::Pt`] maps 4 KiB.
///
/// Source: `ept_level_t` of the TDX module (`src/common/x86_defs/x86_defs.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Entry of a page table: 4 KiB.
    Pt = 0,
    /// Entry of a page directory: 2 MiB.
    Pd = 1,
    /// Entry of a page-directory-pointer table: 1 GiB.
    Pdpt = 2,
    /// Entry of a PML4 table: 512 GiB.
    Pml4 = 3,
    /// Entry of a PML5 table: 256 TiB.
    Pml5 = 4,
}

impl Level {
    /// All levels, from the lowest up.
    pub const ALL: [Self; 5] = [Self::Pt, Self::Pd, Self::Pdpt, Self::Pml4, Self::Pml5];

    /// The level with this number, if there is one.
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Pt),
            1 => Some(Self::Pd),
            2 => Some(Self::Pdpt),
            3 => Some(Self::Pml4),
            4 => Some(Self::Pml5),
            _ => None,
        }
    }

    /// The next lower level, if there is one.
    pub const fn below(self) -> Option<Self> {
        match self as u8 {
            0 => None,
            n => Self::new(n - 1),
        }
    }

    /// The next higher level, if there is one.
    pub const fn above(self) -> Option<Self> {
        Self::new(self as u8 + 1)
    }

    /// Lowest address bit that an index at this level covers: 12 for [`Level::Pt`].
    pub const fn shift(self) -> u32 {
        12 + 9 * (self as u32)
    }

    /// Bytes that one entry of this level covers.
    pub const fn size(self) -> u64 {
        1 << self.shift()
    }

    /// Index (0..=511) of `address` in a table whose entries have this level.
    pub const fn index(self, address: u64) -> usize {
        ((address >> self.shift()) & 511) as usize
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with these bits; nothing is checked.
            pub const fn new(bits: u64) -> Self {
                Self(bits)
            }

            /// The address as bits.
            pub const fn bits(self) -> u64 {
                self.0
            }

            /// Whether the address is a multiple of what an entry of `level` covers.
            pub const fn is_aligned(self, level: Level) -> bool {
                self.0 & (level.size() - 1) == 0
            }

            /// The address rounded down to a multiple of what an entry of `level` covers.
            pub const fn align_down(self, level: Level) -> Self {
                Self(self.0 & !(level.size() - 1))
            }

            /// The address `bytes` further on, unless that overflows.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// Guest-physical address as the CPU reports it, SHARED bit included.
    Gpa
);
address!(
    /// Host-physical address without KeyID bits.
    Hpa
);
address!(
    /// Guest-physical address whose SHARED bit is 0: translated by the Secure-EPT.
    PrivateGpa
);
address!(
    /// Guest-physical address without its SHARED bit, of a page translated by the shared EPT.
    SharedGpa
);

/// Position of the SHARED bit in a guest-physical address.
///
/// 47 with a guest-physical address width of 48, 51 with 52; other positions serve platforms with a
/// smaller physical address width, such as emulated ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedBit(u8);

/// A guest-physical address after looking at its SHARED bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// SHARED was 0.
    Private(PrivateGpa),
    /// SHARED was 1; the address is given without it.
    Shared(SharedGpa),
}

impl SharedBit {
    /// SHARED at `position`, which is at least 32 and at most 51.
    pub const fn new(position: u8) -> Option<Self> {
        if position >= 32 && position <= 51 {
            Some(Self(position))
        } else {
            None
        }
    }

    /// The bit's position.
    pub const fn position(self) -> u8 {
        self.0
    }

    /// The bit as a mask.
    pub const fn mask(self) -> u64 {
        1 << self.0
    }

    /// Splits `gpa` on the SHARED bit.
    pub const fn split(self, gpa: Gpa) -> Split {
        if gpa.bits() & self.mask() == 0 {
            Split::Private(PrivateGpa::new(gpa.bits()))
        } else {
            Split::Shared(SharedGpa::new(gpa.bits() & !self.mask()))
        }
    }

    /// The address that the guest uses for `gpa`: SHARED set.
    pub const fn join(self, gpa: SharedGpa) -> Gpa {
        Gpa::new(gpa.bits() | self.mask())
    }
}
