//! The control structures of TDs and vCPUs, kept in emulated pages at the offsets that the module itself uses.
//!
//! Offsets are those of `td_control_structures.h` and `tdx_tdvps.h`; the metadata tables of the ABI give the same for
//! the fields that metadata leaves reach, and a test compares the two.

pub(crate) mod tdcs;
#[expect(dead_code, reason = "the layout is complete")]
pub(crate) mod tdr;
#[expect(dead_code, reason = "the layout is complete")]
pub(crate) mod tdvps;
#[expect(dead_code, reason = "the layout is complete")]
pub(crate) mod vmcs;

pub(crate) use tdcs::Tdcs;
pub(crate) use tdr::Tdr;
pub(crate) use tdvps::Tdvps;
pub(crate) use vmcs::Vmcs;

use alloc::vec::Vec;

use crate::frame::Field;
use crate::frame::Frame;
use crate::frame::Word;
use crate::lock::LockWord;

/// A structure of one or several pages with fields in them.
pub(crate) trait Structure<'m>: Copy {
    /// The frame of page number `page`.
    fn page(self, page: usize) -> &'m Frame;

    /// Reads a field.
    fn get<W: Word>(self, field: Field<W>) -> W {
        self.page(field.offset() >> 12).load(field.offset() & 0xfff)
    }

    /// Writes a field.
    fn set<W: Word>(self, field: Field<W>, value: W) {
        self.page(field.offset() >> 12)
            .store(field.offset() & 0xfff, value);
    }

    /// Replaces a field by `next` of it, atomically, and returns the old value.
    fn update<W: Word>(self, field: Field<W>, next: impl FnMut(W) -> W) -> W {
        self.page(field.offset() >> 12)
            .update(field.offset() & 0xfff, next)
    }

    /// The lock word in a field.
    fn lock_word(self, field: Field<u16>) -> LockWord<'m> {
        let offset = field.offset();
        LockWord::new(
            self.page(offset >> 12).qword(offset & 0xfff),
            (offset as u32 & 7) * 8,
        )
    }

    /// Reads bytes from `offset` on.
    fn bytes(self, offset: usize, count: usize) -> Vec<u8> {
        (offset..offset + count)
            .map(|at| self.get(Field::<u8>::at(at as u32)))
            .collect()
    }

    /// Writes bytes from `offset` on.
    fn set_bytes(self, offset: usize, bytes: &[u8]) {
        for (at, &byte) in (offset..).zip(bytes) {
            self.set(Field::<u8>::at(at as u32), byte);
        }
    }
}

impl<'m> Structure<'m> for &'m Frame {
    fn page(self, _page: usize) -> &'m Frame {
        self
    }
}

#[cfg(test)]
mod tests {
    use tdx_abi::field;
    use tdx_abi::module::Module;

    use super::*;

    /// Offsets of the metadata tables for fields that have the same name here.
    macro_rules! same {
        ($table:expr, $module:ident: $($name:ident),*) => {$(
            let row = $table.of(Module::V1_5_01).iter().find(|row| row.name == stringify!($name));
            let offset = row.map(|row| row.offset as usize);
            assert_eq!(offset, Some($module::$name.offset()), stringify!($module::$name));
        )*};
    }

    #[test]
    fn fields_lie_where_the_metadata_tables_say() {
        same!(field::TDR_TDCS, tdr: FATAL, NUM_TDCX, CHLDCNT, LIFECYCLE_STATE, HKID, PKG_CONFIG_BITMAP, HANDOFF_VERSION, SEAMDB_INDEX);
        same!(field::TDR_TDCS, tdcs: NUM_VCPUS, NUM_ASSOC_VCPUS, OP_STATE, NUM_L2_VMS, ATTRIBUTES, XFAM, MAX_VCPUS, GPAW, EPTP, TSC_OFFSET, TSC_MULTIPLIER, XBUFF_SIZE, HP_LOCK_TIMEOUT);
        same!(field::TDVPS, tdvps: LAST_TD_EXIT, LAST_EPF_GPA_LIST, DR6, XCR0, CR2, IA32_SPEC_CTRL);
    }
}
