//! Values of the global fields in which 2.0.18 differs from 1.5.01.
//!
//! Source: `metadata_sys.c`, `migration.h`, `td_control_structures.h` and `global_constants.h` of the module 2.0.18.

use tdx_abi::field::FieldRow;

use crate::abi::Module;
use crate::core::Core;
use crate::dynamic_pamt::MAX_KEY_ID_SHIFT;
use crate::metadata::fields::global;
use crate::metadata::id::Id;
use crate::topology;

/// The value of the field that `row` describes, if it is one of them.
pub(crate) fn value(core: &Core, row: &FieldRow) -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    if core.module() != Module::V2_0_18 {
        return None;
    }
    Some(match Id::of(row.id) {
        global::MAJOR_VERSION => 2,
        global::MINOR_VERSION => 0,
        global::UPDATE_VERSION => 18,
        global::TDCS_BASE_SIZE => u64::from(core.layout().min_tdcs_pages()) * PAGE_BYTES,
        global::PAMT_PAGE_BITMAP_ENTRY_BITS => 1,
        global::MIN_DYNAMIC_PAMT_NUM_HKID_BITS => {
            core.config.max_pa.saturating_sub(MAX_KEY_ID_SHIFT).into()
        }
        global::MAX_VCPUS_PER_TD => topology::max_vcpus(core.module())?.into(),
        global::MAX_EVENT_FILTERS => 512,
        global::NUM_MEM_SCAN_CONTROL_PAGES => 2,
        global::MAX_MEM_SCAN_RANGES => 128,
        global::NUM_MEM_SCAN_CONTEXTS => 256,
        global::NUM_IMMUTABLE_STATE_PAGES => 6,
        global::NUM_TD_STATE_PAGES => 2,
        global::NUM_VP_STATE_PAGES => 9,
        // Neither virtual MAXPA nor TDX Connect is emulated; L1 has no attributes that a guest may set.
        global::MIN_VIRT_MAXPA | global::TDX_CONNECT_FEATURES | global::GUEST_GPA_ATTR_MASK => 0,
        _ => return None,
    })
}
