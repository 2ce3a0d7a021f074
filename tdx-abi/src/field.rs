//! Metadata fields: their identifiers, and (feature `tables`) the tables that say who may read and write which bits.

pub mod global;
#[cfg(feature = "tables")]
mod table;
#[cfg(feature = "guest")]
pub mod td_l2_vmcs;
pub mod td_vmcs;
pub mod tdr_tdcs;
pub mod tdvps;

use core::fmt;

use crate::format;
use crate::module::Module;

#[cfg(feature = "tables")]
pub use table::*;

tdx_codegen_macros::fields!(area = core);

/// MD_FIELD_ID: names a metadata field, and an element of it.
///
/// Two ids are equal if they differ in bit 63 only: older modules call it NON_ARCH, newer ones ignore it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct FieldId(u64);

impl FieldId {
    /// The id with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The id as bits, bit 63 included.
    pub const fn into_bits(self) -> u64 {
        self.0
    }

    /// The id's bits by name.
    pub const fn bits(self) -> format::FieldId {
        format::FieldId::from_bits(self.0)
    }

    /// The element's number in its class.
    pub const fn field_code(self) -> u32 {
        self.bits().field_code()
    }

    /// log2 of the element's bytes.
    pub const fn element_size_code(self) -> u8 {
        self.bits().element_size_code()
    }

    /// Number of the last element in the field.
    pub const fn last_element(self) -> u8 {
        self.bits().last_element_in_field()
    }

    /// Number of the last field in a sequence.
    pub const fn last_field(self) -> u16 {
        self.bits().last_field_in_sequence()
    }

    /// Whether elements follow each other in steps of two codes.
    pub const fn inc_size(self) -> bool {
        self.bits().inc_size()
    }

    /// Whether a write mask goes with the value (1.5.01; reserved in newer modules).
    pub const fn write_mask_valid(self) -> bool {
        self.bits().write_mask_valid()
    }

    /// Platform, TD or virtual processor.
    pub const fn context_code(self) -> u8 {
        self.bits().context_code().into_bits()
    }

    /// Class within the context.
    pub const fn class_code(self) -> u8 {
        self.bits().class_code()
    }

    /// Bits that must be 0, in their places.
    pub const fn reserved(self) -> u64 {
        self.0 & format::FieldId::RESERVED
    }

    /// Bytes of an element: 1, 2, 4 or 8.
    pub const fn element_size(self) -> u32 {
        1 << self.element_size_code()
    }

    /// Whether the ids are equal, the bit NON_ARCH not regarded.
    pub const fn is_same(self, other: Self) -> bool {
        self.bits().with_non_arch(false).into_bits()
            == other.bits().with_non_arch(false).into_bits()
    }

    /// The id whose code is `elements` further on.
    #[must_use]
    pub const fn offset_by(self, elements: u32) -> Self {
        Self(
            self.bits()
                .with_field_code(self.field_code().wrapping_add(elements))
                .into_bits(),
        )
    }
}

impl PartialEq for FieldId {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(*other)
    }
}

impl Eq for FieldId {}

impl core::hash::Hash for FieldId {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.bits().with_non_arch(false).hash(state);
    }
}

impl fmt::Debug for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldId({:#018x})", self.0)
    }
}

/// What the code of `module` fixes a field of the table GLOBAL to, if it does and that is known.
pub const fn fixed(module: Module, id: FieldId) -> Option<u64> {
    let mut index = 0;
    while index < FIXED.len() {
        let (of, field, value) = FIXED[index];
        if of as usize == module as usize && field.is_same(id) {
            return Some(value);
        }
        index += 1;
    }
    None
}
