//! What operands name: control pages, structures, entries of the Secure-EPT.

use core::fmt;
use core::marker::PhantomData;

use crate::Gpa;
use crate::Hpa;
use crate::Level;
use crate::PrivateGpa;
use crate::format::GpaMapping;
use crate::level::Fixed;
use crate::level::LevelType;

macro_rules! control_pages {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])*
        ///
        /// A name, not the page itself: it can be copied, and using it after the page was reclaimed is an error that the
        /// module reports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(Hpa);

        impl $name {
            /// The control page at `hpa`, which the caller knows to be one.
            pub const fn assume(hpa: Hpa) -> Self {
                Self(hpa)
            }

            /// Where the page is.
            pub const fn hpa(self) -> Hpa {
                self.0
            }
        })*
    };
}

control_pages! {
    /// The root control page of a TD.
    Tdr
    /// The root control page of a virtual processor.
    Tdvpr
}

/// A KeyID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Hkid(u16);

impl Hkid {
    /// The KeyID of this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

macro_rules! typed_addresses {
    ($($(#[$doc:meta])* $name:ident $address:ident)*) => {
        $($(#[$doc])*
        #[repr(transparent)]
        pub struct $name<T> {
            address: $address,
            of: PhantomData<fn() -> T>,
        }

        impl<T> $name<T> {
            /// The structure at `address`; `None` if that is not aligned as the structure must be.
            pub const fn new(address: $address) -> Option<Self> {
                if address.bits() & (align_of::<T>() as u64 - 1) == 0 {
                    Some(Self { address, of: PhantomData })
                } else {
                    None
                }
            }

            /// Where the structure is.
            pub const fn address(self) -> $address {
                self.address
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl<T> PartialEq for $name<T> {
            fn eq(&self, other: &Self) -> bool {
                self.address == other.address
            }
        }

        impl<T> Eq for $name<T> {}

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.address.fmt(f)
            }
        })*
    };
}

typed_addresses! {
    /// Host-physical address of a `T`.
    HpaOf Hpa
    /// Guest-physical address of a `T`.
    GpaOf Gpa
}

/// An entry of the Secure-EPT, by the private GPA that it covers and its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<L = Level> {
    gpa: PrivateGpa,
    level: L,
}

impl<L: Fixed> Mapping<L> {
    /// The entry that covers `gpa`; `None` if `gpa` is not where the entry's range begins.
    pub const fn new(gpa: PrivateGpa) -> Option<Self> {
        if gpa.is_aligned(L::LEVEL) {
            Some(Self {
                gpa,
                level: L::VALUE,
            })
        } else {
            None
        }
    }

    /// The same entry with its level as a value.
    pub const fn any(self) -> Mapping {
        Mapping {
            gpa: self.gpa,
            level: L::LEVEL,
        }
    }
}

impl Mapping {
    /// The entry of `level` that covers `gpa`; `None` if `gpa` is not where the entry's range begins.
    pub const fn at(gpa: PrivateGpa, level: Level) -> Option<Self> {
        if gpa.is_aligned(level) {
            Some(Self { gpa, level })
        } else {
            None
        }
    }

    /// The same entry with its level in the type; `None` if it has another level.
    pub fn fixed<L: Fixed>(self) -> Option<Mapping<L>> {
        if self.level == L::LEVEL {
            Some(Mapping {
                gpa: self.gpa,
                level: L::VALUE,
            })
        } else {
            None
        }
    }
}

impl<L: LevelType> Mapping<L> {
    /// First address that the entry covers.
    pub const fn gpa(self) -> PrivateGpa {
        self.gpa
    }

    /// The level.
    #[inline(always)]
    pub fn level(self) -> Level {
        self.level.level()
    }

    #[inline(always)]
    pub(crate) fn level_type(self) -> L {
        self.level
    }

    /// The operand.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        GpaMapping::new()
            .with_gpa(self.gpa)
            .with_level(self.level())
            .into_bits()
    }
}
