//! Levels as types, so that a page of the wrong size does not compile.

use crate::Level;

/// A level known when compiling ([`Pt`], [`Pd`], ..), or only when running ([`Level`] itself).
pub trait LevelType: Copy + Eq + core::fmt::Debug + sealed::Sealed {
    /// The level.
    fn level(self) -> Level;
}

/// A level known when compiling.
#[diagnostic::on_unimplemented(
    message = "the level must be known when compiling",
    label = "`{Self}` is not one of Pt, Pd, Pdpt, Pml4, Pml5"
)]
pub trait Fixed: LevelType {
    /// The level.
    const LEVEL: Level;
    /// The type's only value.
    const VALUE: Self;
}

/// A level that a leaf accepts: those whose bit is set in `MASK`, bit 0 standing for [`Pt`].
///
/// [`Level`] is accepted everywhere: then the callee checks.
#[diagnostic::on_unimplemented(
    message = "this leaf does not act on entries of level `{Self}`",
    label = "wrong level"
)]
pub trait Within<const MASK: u8>: LevelType {}

impl<const MASK: u8> Within<MASK> for Level {}

impl LevelType for Level {
    fn level(self) -> Level {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Level {}
}

macro_rules! levels {
    ($($(#[$doc:meta])* $name:ident $level:ident [$($mask:literal)*])*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name;

        impl sealed::Sealed for $name {}

        impl LevelType for $name {
            #[inline(always)]
            fn level(self) -> Level {
                Level::$level
            }
        }

        impl Fixed for $name {
            const LEVEL: Level = Level::$level;
            const VALUE: Self = Self;
        }

        $(impl Within<$mask> for $name {})*)*
    };
}

// The masks are those that leaves have: 1, 2 and 4 alone, 4K and 2M, 2M and 1G, all leaves, all tables, all of them.
levels! {
    /// Entry of a page table, or a page of 4 KiB.
    Pt Pt [0b00001 0b00011 0b00111 0b01111 0b11111]
    /// Entry of a page directory, or a page of 2 MiB.
    Pd Pd [0b00010 0b00011 0b00110 0b00111 0b01110 0b01111 0b11110 0b11111]
    /// Entry of a page-directory-pointer table, or a page of 1 GiB.
    Pdpt Pdpt [0b00100 0b00110 0b00111 0b01110 0b01111 0b11110 0b11111]
    /// Entry of a PML4 table.
    Pml4 Pml4 [0b01000 0b01110 0b01111 0b11110 0b11111]
    /// Entry of a PML5 table.
    Pml5 Pml5 [0b10000 0b11110 0b11111]
}
