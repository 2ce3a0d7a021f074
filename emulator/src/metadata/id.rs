//! Field identifiers, taken apart.

use tdx_abi::field::FieldId;

use crate::abi::Status;
use crate::abi::StatusCode;

/// `MD_FIELD_ID` (TDX module ABI, "Metadata Field Identifier"), with the bits a caller set.
///
/// Bits 23:0 field code, 33:32 element size, 37:34 last element, 46:38 last field, 50 increment by
/// two, 51 write mask valid, 54:52 context, 61:56 class, 63 not architectural; the rest is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(u64);

const NOT_ARCHITECTURAL: u64 = 1 << 63;
const FIELD_CODE: u64 = 0xff_ffff;
const CONTEXT: u64 = 0x7 << 52;
const CLASS: u64 = 0x3f << 56;
const RESERVED: u64 = 0xff << 24 | 0x7 << 47 | 1 << 55 | 1 << 62;
const LAST_ELEMENT: u64 = 0xf << 34;
const LAST_FIELD: u64 = 0x1ff << 38;

impl Id {
    /// The identifier that stands for "none", and in a read for "the first".
    pub(crate) const NONE: Self = Self(u64::MAX);

    pub(crate) const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The identifier of a row, without bit 63, which says only that the field is not architectural.
    pub(crate) const fn of(id: FieldId) -> Self {
        Self(id.into_bits() & !NOT_ARCHITECTURAL)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all bits beside the context are 1.
    pub(crate) const fn is_none(self) -> bool {
        self.0 | CONTEXT == u64::MAX
    }

    pub(crate) const fn field_code(self) -> u32 {
        (self.0 & FIELD_CODE) as u32
    }

    pub(crate) const fn with_field_code(self, code: u32) -> Self {
        Self(self.0 & !FIELD_CODE | code as u64 & FIELD_CODE)
    }

    pub(crate) const fn class_code(self) -> u8 {
        (self.0 >> 56 & 0x3f) as u8
    }

    pub(crate) const fn with_class_code(self, class: u8) -> Self {
        Self(self.0 & !CLASS | (class as u64) << 56 & CLASS)
    }

    pub(crate) const fn context_code(self) -> u8 {
        (self.0 >> 52 & 7) as u8
    }

    pub(crate) const fn with_context_code(self, context: u8) -> Self {
        Self(self.0 & !CONTEXT | (context as u64) << 52 & CONTEXT)
    }

    /// Bytes of an element: 1, 2, 4 or 8.
    pub(crate) const fn element_size(self) -> u32 {
        1 << self.element_size_code()
    }

    /// Bits 33:32.
    pub(crate) const fn element_size_code(self) -> u8 {
        (self.0 >> 32 & 3) as u8
    }

    /// Ones in the bits that an element has.
    pub(crate) const fn element_mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.element_size())
    }

    /// Distance of the field codes of two neighbouring elements: 1, or 2 in a VMCS.
    pub(crate) const fn stride(self) -> u32 {
        1 + (self.0 >> 50 & 1) as u32
    }

    /// Refuses an identifier that does not name one element: reserved bits, LAST_ELEMENT and
    /// LAST_FIELD must be 0. All bits beside class and field code are otherwise ignored.
    pub(crate) fn check_single_element(self) -> Result<(), Status> {
        if self.0 & (RESERVED | LAST_ELEMENT | LAST_FIELD) == 0 {
            Ok(())
        } else {
            Err(Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT))
        }
    }

    /// The CPUID leaf that an identifier of the CPUID class names.
    pub(crate) const fn cpuid(self) -> CpuidCode {
        CpuidCode(self.field_code())
    }
}

/// Field code of the class of virtual CPUID values: bit 0 element (EAX and EBX, ECX and EDX), bits
/// 7:1 sub-leaf, bit 8 no sub-leaf, bits 15:9 leaf, bit 16 bit 31 of the leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuidCode(u32);

/// The sub-leaf of a CPUID leaf that has none.
pub(crate) const NO_SUBLEAF: u32 = u32::MAX;

impl CpuidCode {
    pub(crate) const fn new(leaf: u32, subleaf: u32, element: u32) -> Self {
        let subleaf_bits = if subleaf == NO_SUBLEAF {
            0xff
        } else {
            subleaf & 0x7f
        };
        Self(element & 1 | subleaf_bits << 1 | (leaf & 0x7f) << 9 | leaf >> 31 << 16)
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn element(self) -> u32 {
        self.0 & 1
    }

    pub(crate) const fn leaf(self) -> u32 {
        self.0 >> 9 & 0x7f | (self.0 >> 16 & 1) << 31
    }

    pub(crate) const fn subleaf(self) -> u32 {
        if self.0 >> 8 & 1 != 0 {
            NO_SUBLEAF
        } else {
            self.0 >> 1 & 0x7f
        }
    }

    /// Whether the bits that must be 0 are.
    pub(crate) const fn is_well_formed(self) -> bool {
        self.0 >> 17 == 0
    }
}
