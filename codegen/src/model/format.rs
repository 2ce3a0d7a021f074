use super::Cite;
use super::ModuleSet;
use crate::diagnostic::Place;

/// A small numbering.
#[derive(Clone, Debug, Default)]
pub struct Enum {
    /// Where it is declared.
    pub place: Place,
    /// Rust name.
    pub name: String,
    /// Bits.
    pub width: u32,
    /// What it is.
    pub doc: String,
    /// Sources.
    pub cite: Vec<Cite>,
    /// The values.
    pub values: Vec<EnumValue>,
}

/// A value of an [`Enum`].
#[derive(Clone, Debug, Default)]
pub struct EnumValue {
    /// Where it is declared.
    pub place: Place,
    /// Name.
    pub name: String,
    /// Number.
    pub value: u64,
    /// What it is.
    pub doc: Option<String>,
}

/// Bits `high` down to `low`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bits {
    /// Highest bit.
    pub high: u32,
    /// Lowest bit.
    pub low: u32,
}

impl Bits {
    /// Number of bits.
    pub const fn width(self) -> u32 {
        self.high - self.low + 1
    }

    /// The bits as a mask.
    pub const fn mask(self) -> u64 {
        let ones = if self.width() >= 64 {
            u64::MAX
        } else {
            (1 << self.width()) - 1
        };
        ones << self.low
    }
}

impl core::fmt::Display for Bits {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.high == self.low {
            write!(f, "{}", self.high)
        } else {
            write!(f, "{}:{}", self.high, self.low)
        }
    }
}

/// A register or memory word, bit by bit.
#[derive(Clone, Debug, Default)]
pub struct Format {
    /// Where it is declared.
    pub place: Place,
    /// Rust name.
    pub name: String,
    /// Bits: 8, 16, 32 or 64.
    pub width: u32,
    /// Modules that have it.
    pub modules: ModuleSet,
    /// The format that this is a variant of.
    pub variant_of: Option<super::At<String>>,
    /// What it is.
    pub doc: String,
    /// Sources.
    pub cite: Vec<Cite>,
    /// Every bit, from the top.
    pub items: Vec<BitItem>,
    /// Overlays.
    pub views: Vec<View>,
}

/// Bits of a format.
#[derive(Clone, Debug)]
pub enum BitItem {
    /// Bits with a name.
    Field(BitField),
    /// Bits that must be all 0 or all 1.
    Reserved {
        /// Where.
        place: Place,
        /// Which.
        bits: Vec<Bits>,
        /// All ones instead of zeros.
        ones: bool,
    },
    /// Bits that mean nothing.
    Ignored {
        /// Where.
        place: Place,
        /// Which.
        bits: Vec<Bits>,
    },
}

impl BitItem {
    /// Where it is declared.
    pub const fn place(&self) -> Place {
        match self {
            Self::Field(field) => field.place,
            Self::Reserved { place, .. } | Self::Ignored { place, .. } => *place,
        }
    }

    /// Its bits, high part of the value first.
    pub fn bits(&self) -> &[Bits] {
        match self {
            Self::Field(field) => &field.bits,
            Self::Reserved { bits, .. } | Self::Ignored { bits, .. } => bits,
        }
    }
}

/// A named field of a format.
#[derive(Clone, Debug, Default)]
pub struct BitField {
    /// Where it is declared.
    pub place: Place,
    /// Name.
    pub name: String,
    /// Its bits, high part of the value first.
    pub bits: Vec<Bits>,
    /// Declared type.
    pub ty: Option<super::At<String>>,
    /// The value is the bits shifted left by this.
    pub shift: u32,
    /// What it is.
    pub doc: Option<String>,
}

impl BitField {
    /// Number of bits.
    pub fn width(&self) -> u32 {
        self.bits.iter().map(|bits| bits.width()).sum()
    }

    /// Its bits, each with the place in the value of the lowest of them.
    pub fn pieces(&self) -> impl Iterator<Item = (Bits, u32)> {
        let mut at = self.width();
        self.bits.iter().map(move |bits| {
            at -= bits.width();
            (*bits, at)
        })
    }
}

/// A read-only overlay on the bits of a format.
pub type View = BitField;

/// A structure in memory, byte by byte.
#[derive(Clone, Debug, Default)]
pub struct Structure {
    /// Where it is declared.
    pub place: Place,
    /// Rust name.
    pub name: String,
    /// Bytes.
    pub size: u32,
    /// Alignment in bytes.
    pub align: u32,
    /// Modules that have it.
    pub modules: ModuleSet,
    /// The structure that this is a variant of.
    pub variant_of: Option<super::At<String>>,
    /// What it is.
    pub doc: String,
    /// Sources.
    pub cite: Vec<Cite>,
    /// Every byte, in order.
    pub items: Vec<StructureItem>,
}

/// Bytes of a structure.
#[derive(Clone, Debug)]
pub enum StructureItem {
    /// Bytes with a name.
    Field(StructureField),
    /// Bytes that must be 0 (or all ones).
    Reserved {
        /// Where.
        place: Place,
        /// First byte.
        offset: u32,
        /// Number of bytes.
        size: u32,
        /// All ones instead of zeros.
        ones: bool,
    },
}

/// A named field of a structure.
#[derive(Clone, Debug, Default)]
pub struct StructureField {
    /// Where it is declared.
    pub place: Place,
    /// First byte.
    pub offset: u32,
    /// Name.
    pub name: String,
    /// Declared type.
    pub ty: super::At<String>,
    /// Bytes of one element; of `bytes` fields the whole.
    pub size: u32,
    /// Number of elements, if an array.
    pub count: Option<u32>,
    /// What it is.
    pub doc: Option<String>,
}
