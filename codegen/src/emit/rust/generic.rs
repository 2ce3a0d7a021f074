//! The generic types of which all words, enums and structures are instances.
//!
//! What these have in common is compiled once, and works for any of them.

use core::fmt;
use core::hash::Hash;
use core::hash::Hasher;
use core::marker::PhantomData;

/// How the bits of a word are laid out in the integer `B`.
pub trait WordLayout<B>: Sized {
    /// Name of the word, bits that have no freedom, and those of them that are 1.
    const LAYOUT: (&'static str, B, B);

    /// Adds the fields by name and value.
    fn fields(word: Word<Self, B>, to: &mut fmt::DebugStruct<'_, '_>);
}

/// A transparent word: it keeps every bit that it is given.
#[must_use]
#[repr(transparent)]
pub struct Word<L, B = u64>(B, PhantomData<L>);

impl<L, B: Copy> Word<L, B> {
    /// The value with these bits, reserved ones included.
    #[inline]
    pub const fn from_bits(bits: B) -> Self {
        Self(bits, PhantomData)
    }

    /// The bits, as they were given.
    #[inline]
    pub const fn into_bits(self) -> B {
        self.0
    }
}

macro_rules! words {
    ($($bits:ty)*) => {
        $(impl<L: WordLayout<$bits>> Word<L, $bits> {
            /// Bits that have no freedom.
            pub const RESERVED: $bits = L::LAYOUT.1;

            /// The value whose fields are all 0.
            pub const fn new() -> Self {
                Self(L::LAYOUT.2, PhantomData)
            }

            /// Whether every reserved bit is as it must be.
            pub const fn is_reserved_valid(self) -> bool {
                self.0 & L::LAYOUT.1 == L::LAYOUT.2
            }
        }

        impl<L> Word<L, $bits> {
            /// The bits of `mask` that stand from bit `low` on.
            #[inline(always)]
            pub const fn piece(self, low: u32, mask: $bits) -> $bits {
                self.0 >> low & mask
            }

            /// With `piece` replaced.
            #[inline(always)]
            pub const fn with_piece(self, low: u32, mask: $bits, value: $bits) -> Self {
                Self(self.0 & !(mask << low) | (value & mask) << low, PhantomData)
            }

            /// Whether bit `low` is 1.
            #[inline(always)]
            pub const fn bit(self, low: u32) -> bool {
                self.0 >> low & 1 != 0
            }

            /// With `bit` replaced.
            #[inline(always)]
            pub const fn with_bit(self, low: u32, value: bool) -> Self {
                self.with_piece(low, 1, value as $bits)
            }
        })*
    };
}

words! { u8 u16 u32 u64 }

impl<L, B: Copy> Clone for Word<L, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L, B: Copy> Copy for Word<L, B> {}

impl<L, B: PartialEq> PartialEq for Word<L, B> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<L, B: Eq> Eq for Word<L, B> {}

impl<L, B: Hash> Hash for Word<L, B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<L: WordLayout<B>, B> Default for Word<L, B> {
    fn default() -> Self {
        Self(L::LAYOUT.2, PhantomData)
    }
}

impl<L: WordLayout<B>, B: Copy> fmt::Debug for Word<L, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut to = f.debug_struct(L::LAYOUT.0);
        L::fields(*self, &mut to);
        to.finish()
    }
}

/// Which numbers of an enum have names.
pub trait Names<B: 'static> {
    /// Name of the enum, and numbers with their names.
    const NAMES: (&'static str, &'static [(B, &'static str)]);
}

/// An open enum: numbers without a name are kept.
///
/// Only what derives its equality can stand in a pattern, and deriving asks it of `K` too: so that is a `PhantomData`, which can
/// do all that is derived here whatever it is of.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Number<K, B>(B, PhantomData<K>);

impl<N, B: Copy> Number<PhantomData<N>, B> {
    /// The value with this number.
    pub const fn from_bits(bits: B) -> Self {
        Self(bits, PhantomData)
    }

    /// The number.
    pub const fn into_bits(self) -> B {
        self.0
    }
}

macro_rules! numbers {
    ($($bits:ty)*) => {
        $(impl<N: Names<$bits>> Number<PhantomData<N>, $bits> {
            /// The name, if the number has one.
            pub const fn name(self) -> Option<&'static str> {
                let mut names = N::NAMES.1;
                while let [(number, name), rest @ ..] = names {
                    if *number == self.0 {
                        return Some(name);
                    }
                    names = rest;
                }
                None
            }
        }

        impl<N: Names<$bits>> fmt::Debug for Number<PhantomData<N>, $bits> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({:#x})", N::NAMES.0, self.0),
                }
            }
        })*
    };
}

numbers! { u8 u16 u32 u64 }

/// How the bytes of a structure are laid out; implemented by types without bytes that are aligned as the structure must be.
pub trait StructureLayout<const SIZE: usize>: Sized {
    /// Name of the structure, and reserved ranges: first byte, number of bytes, value of each.
    const LAYOUT: (&'static str, &'static [(usize, usize, u8)]);

    /// Adds the fields that are no arrays by name and value.
    fn fields(_: &Structure<Self, SIZE>, _: &mut fmt::DebugStruct<'_, '_>) {}
}

/// A structure in memory: aligned bytes, so that any content can be held and nothing is lost.
#[repr(C)]
pub struct Structure<L, const SIZE: usize> {
    layout: [L; 0],
    bytes: [u8; SIZE],
}

impl<L: StructureLayout<SIZE>, const SIZE: usize> Structure<L, SIZE> {
    /// Bytes.
    pub const SIZE: usize = SIZE;

    /// The structure whose fields are all 0.
    #[must_use]
    pub const fn new() -> Self {
        let mut bytes = [0; SIZE];
        let mut reserved = L::LAYOUT.1;
        while let [(at, size, byte), rest @ ..] = reserved {
            fill(&mut bytes, *at, *size, *byte);
            reserved = rest;
        }
        Self::from_bytes(bytes)
    }

    /// The structure with these bytes, reserved ones included.
    pub const fn from_bytes(bytes: [u8; SIZE]) -> Self {
        Self { layout: [], bytes }
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; SIZE] {
        &self.bytes
    }

    /// The bytes, to be written.
    pub const fn as_bytes_mut(&mut self) -> &mut [u8; SIZE] {
        &mut self.bytes
    }

    /// Whether every reserved byte is as it must be.
    pub const fn is_reserved_valid(&self) -> bool {
        all_are(&self.bytes, L::LAYOUT.1)
    }
}

impl<L: StructureLayout<SIZE>, const SIZE: usize> Clone for Structure<L, SIZE> {
    fn clone(&self) -> Self {
        Self::from_bytes(self.bytes)
    }
}

impl<L: StructureLayout<SIZE>, const SIZE: usize> PartialEq for Structure<L, SIZE> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<L: StructureLayout<SIZE>, const SIZE: usize> Eq for Structure<L, SIZE> {}

impl<L: StructureLayout<SIZE>, const SIZE: usize> Default for Structure<L, SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: StructureLayout<SIZE>, const SIZE: usize> fmt::Debug for Structure<L, SIZE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut to = f.debug_struct(L::LAYOUT.0);
        L::fields(self, &mut to);
        to.finish()
    }
}

/// Sets `size` bytes from `at` on to `byte`.
const fn fill(bytes: &mut [u8], at: usize, size: usize, byte: u8) {
    let mut i = 0;
    while i < size && at + i < bytes.len() {
        bytes[at + i] = byte;
        i += 1;
    }
}

/// Whether in each range (first byte, number of bytes, value) all bytes have the value.
const fn all_are(bytes: &[u8], ranges: &[(usize, usize, u8)]) -> bool {
    let mut r = 0;
    while r < ranges.len() {
        let (at, size, value) = ranges[r];
        let mut i = 0;
        while i < size && at + i < bytes.len() {
            if bytes[at + i] != value {
                return false;
            }
            i += 1;
        }
        r += 1;
    }
    true
}
