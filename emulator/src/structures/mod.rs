//! The control structures of TDs and vCPUs, kept in emulated pages at the offsets that the module itself uses.
//!
//! Offsets are those of `td_control_structures.h` and `tdx_tdvps.h`; the metadata tables of the ABI give the same for
//! the fields that metadata leaves reach, and a test compares all that both name alike.

pub(crate) mod layout;
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

    /// Where the module at hand keeps what 1.5.01 keeps at `offset`.
    #[inline]
    fn place(self, offset: usize) -> usize {
        offset
    }

    /// Reads a field.
    #[inline]
    fn get<W: Word>(self, field: Field<W>) -> W {
        let offset = self.place(field.offset());
        self.page(offset >> 12).load(offset & 0xfff)
    }

    /// Writes a field.
    #[inline]
    fn set<W: Word>(self, field: Field<W>, value: W) {
        let offset = self.place(field.offset());
        self.page(offset >> 12).store(offset & 0xfff, value);
    }

    /// Replaces a field by `next` of it, atomically, and returns the old value.
    #[inline]
    fn update<W: Word>(self, field: Field<W>, next: impl FnMut(W) -> W) -> W {
        let offset = self.place(field.offset());
        self.page(offset >> 12).update(offset & 0xfff, next)
    }

    /// The lock word in a field.
    #[inline]
    fn lock_word(self, field: Field<u16>) -> LockWord<'m> {
        let offset = self.place(field.offset());
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
            for (module, layout) in [(Module::V1_5_01, layout::Layout::V1_5), (Module::V1_5_34, layout::Layout::V1_5), (Module::V2_0_18, layout::Layout::V2_0)] {
                let row = $table.of(module).iter().find(|row| row.name == stringify!($name));
                let offset = row.map(|row| row.offset as usize);
                let place = layout.$module($module::$name.offset());
                assert_eq!(offset, Some(place), "{module:?} {}", stringify!($module::$name));
            }
        )*};
    }

    #[test]
    fn fields_lie_where_the_metadata_tables_say() {
        same!(field::TDR_TDCS, tdr: FATAL, NUM_TDCX, CHLDCNT, LIFECYCLE_STATE, HKID, PKG_CONFIG_BITMAP, HANDOFF_VERSION, SEAMDB_INDEX, TD_UUID, TDCX_PA);
        same!(field::TDR_TDCS, tdcs: NUM_VCPUS, NUM_ASSOC_VCPUS, OP_STATE, NUM_L2_VMS, ATTRIBUTES, XFAM, MAX_VCPUS, GPAW, EPTP, TSC_OFFSET, TSC_MULTIPLIER, XBUFF_SIZE, HP_LOCK_TIMEOUT);
        same!(field::TDR_TDCS, tdcs: XBUFF_OFFSETS, TD_EPOCH, REFCOUNT, MRTD, MRCONFIGID, MROWNER, MROWNERCONFIG, RTMR, MIG_DEC_KEY_SET, EXPORT_COUNT, IMPORT_COUNT, MIG_EPOCH, BW_EPOCH, TOTAL_MB_COUNT, MIG_DEC_KEY, MIG_DEC_WORKING_KEY, MIG_ENC_KEY, MIG_ENC_WORKING_KEY, MIG_VERSION, MIG_WORKING_VERSION, DIRTY_COUNT, MIG_COUNT, NUM_MIGS, NUM_MIGRATED_VCPUS, CPUID_VALUES, CPUID_VALID, SERVTD_HASH, SERVTD_NUM, VM_CTLS, CONFIG_FLAGS, TD_CTLS, TSC_FREQUENCY, NOTIFY_ENABLES);
        same!(field::TDVPS, tdvps: LAST_TD_EXIT, LAST_EPF_GPA_LIST, DR6, XCR0, CR2, IA32_SPEC_CTRL);
        same!(field::TDVPS, tdvps: VCPU_INDEX, NUM_TDVPS_PAGES, ASSOC_LPID, VCPU_EPOCH, CPUID_SUPERVISOR_VE, CPUID_USER_VE, LAST_EXIT_TSC, PEND_NMI, NMI_UNBLOCKING_DUE_TO_IRET, LAST_EPF_GPA_LIST_IDX, POSSIBLY_EPF_STEPPING, HP_LOCK_BUSY_START, HP_LOCK_BUSY, LAST_SEAMDB_INDEX, CURR_VM, VM_LAUNCHED, LP_DEPENDENT_HPA_UPDATED, L2_CTLS, L2_DEBUG_CTLS, TSC_DEADLINE, SHADOW_TSC_DEADLINE, BASE_L2_CR0_GUEST_HOST_MASK, BASE_L2_CR4_READ_SHADOW, SHADOW_CR4_READ_SHADOW, SHADOW_PID_HPA, SHADOW_PLE_GAP, SHADOW_SHARED_EPTP, L2_ENTER_GUEST_STATE_GPA, L2_VAPIC_GPA, L2_VAPIC_HPA, CPUID_CONTROL);
    }

    #[test]
    fn pages_of_a_tdcs_lie_where_the_metadata_tables_say() {
        for (module, layout) in [
            (Module::V1_5_01, layout::Layout::V1_5),
            (Module::V1_5_34, layout::Layout::V1_5),
            (Module::V2_0_18, layout::Layout::V2_0),
        ] {
            let page_of = |name| {
                let row = field::TDR_TDCS
                    .of(module)
                    .iter()
                    .find(|row| row.name == name);
                row.map(|row| row.offset as usize >> 12)
            };
            for (name, page) in [
                ("MSR_BITMAPS", tdcs::MSR_BITMAPS_PAGE),
                ("SEPT_ROOT", tdcs::SEPT_ROOT_PAGE),
                ("MIGSC_LINKS", tdcs::MIGSC_LINKS_PAGE),
                ("L2_SEPT_ROOT_1", tdcs::L2_SEPT_ROOT_PAGE),
                ("L2_SEPT_ROOT_3", tdcs::L2_SEPT_ROOT_PAGE + 2),
            ] {
                assert_eq!(
                    page_of(name),
                    Some(layout.tdcs_page(page)),
                    "{module:?} {name}"
                );
            }
        }
    }
}
