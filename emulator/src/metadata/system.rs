//! Fields of the module and the platform.

use crate::abi::Module;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::cpu;
use crate::cpuid;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::MAX_ELEMENTS;
use crate::metadata::fields::global;
use crate::metadata::id::Id;
use tdx_abi::field::FieldRow;
use tdx_abi::module::Features;

/// Limits of the module 1.5.01. Source: the headers of the same names in its source.
mod limit {
    pub(super) const VENDOR_ID: u64 = 0x8086;
    pub(super) const MINOR_VERSION: u64 = 5;
    pub(super) const MAJOR_VERSION: u64 = 1;
    pub(super) const UPDATE_VERSION: u64 = 1;
    pub(super) const TDX_FEATURES: u64 = 1;
    /// TD_MIGRATION to NO_RBP_MOD and L2_TLB_INVD_OPT, as `metadata_sys.c` puts them together.
    pub(super) const FEATURES: u64 = 0xf0_fbf;
    pub(super) const ATTRIBUTES_FIXED0: u64 = 1 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 63;
    pub(super) const CONFIG_FLAGS_FIXED0: u64 = 7;
    pub(super) const XFAM_FIXED0: u64 = 0x6_dbe7;
    pub(super) const XFAM_FIXED1: u64 = 3;
    pub(super) const CMRS: u64 = 32;
    pub(super) const TDMRS: u64 = 64;
    pub(super) const RESERVED_AREAS: u64 = 16;
    pub(super) const PAMT_ENTRY_BYTES: u64 = 16;
    pub(super) const PAGE_BYTES: u64 = 4096;
    pub(super) const TDCS_PAGES: u64 = 6;
    pub(super) const TDVPS_PAGES: u64 = 6;
    pub(super) const TDCS_PAGES_PER_L2_VM: u64 = 1;
    pub(super) const TDVPS_PAGES_PER_L2_VM: u64 = 3;
    pub(super) const ARCH_CAPABILITIES_CONFIG_MASK: u64 = 1 << 4 | 1 << 19 | 1 << 20 | 1 << 24;
    pub(super) const MIGRATION_STREAMS: u64 = 512;
    pub(super) const IMMUTABLE_STATE_PAGES: u64 = 3;
    pub(super) const TD_STATE_PAGES: u64 = 2;
    pub(super) const VP_STATE_PAGES: u64 = 5;
    pub(super) const SERVICE_TDS: u64 = 1;
    pub(super) const SERVTD_ATTR_FIXED0: u64 = 0x7ff_0000_0001;
    pub(super) const L2_GPA_ATTR_MASK: u64 = 0x7f | 1 << 15;
    pub(super) const VM_CTLS: u64 = 1;
    pub(super) const L2_VCPU_CTLS: u64 = 3;
    pub(super) const L2_DEBUG_CTLS: u64 = 7;
}

/// Reads one element.
pub(crate) fn read_element(
    context: &Context<'_>,
    id: Id,
    row: &'static FieldRow,
    access: Access,
) -> Result<u64, Status> {
    let first = Id::of(row.id).field_code();
    let number = id.field_code() - first;
    let elements = u32::from(row.num_of_elem);
    value(context, row, access, number / elements, number % elements)
}

/// Reads all elements of a field.
pub(crate) fn read_field(
    context: &Context<'_>,
    id: Id,
    row: &'static FieldRow,
    access: Access,
    values: &mut [u64; MAX_ELEMENTS],
) -> Result<(), Status> {
    let first = Id::of(row.id).field_code();
    let field = (id.field_code() - first) / u32::from(row.num_of_elem);
    for (element, to) in (0u32..).zip(values.iter_mut().take(usize::from(row.num_of_elem))) {
        *to = value(context, row, access, field, element)?;
    }
    Ok(())
}

fn value(
    context: &Context<'_>,
    row: &FieldRow,
    access: Access,
    field: u32,
    element: u32,
) -> Result<u64, Status> {
    let mask = access.masks(row).read;
    if mask == 0 {
        return Err(Status::of(StatusCode::METADATA_FIELD_NOT_READABLE));
    }
    let value = platform_value(context.core, row, field as usize)
        .or_else(|| cpuid_value(row, field as usize, element as usize))
        .or_else(|| module_value(row))
        .ok_or(Status::of(StatusCode::METADATA_FIELD_ID_INCORRECT))?;
    Ok(value & mask)
}

fn platform_value(core: &Core, row: &FieldRow, field: usize) -> Option<u64> {
    let config = &core.config;
    Some(match Id::of(row.id) {
        global::NUM_PKGS => config.packages.into(),
        global::PKG_FMS if field < config.packages as usize => cpuid::FAMILY_MODEL_STEPPING.into(),
        global::PKG_FMS => 0,
        global::TDX_FEATURES0 => features0(core.module()),
        global::CMR_BASE => config.cmrs.get(field).map_or(0, |cmr| cmr.base),
        global::CMR_SIZE => config.cmrs.get(field).map_or(0, |cmr| cmr.size),
        global::ATTRIBUTES_FIXED0 => limit::ATTRIBUTES_FIXED0,
        global::CONFIG_FLAGS_FIXED0 => limit::CONFIG_FLAGS_FIXED0,
        global::XFAM_FIXED0 => limit::XFAM_FIXED0 & (cpu::XCR0_SUPPORTED | cpu::XSS_SUPPORTED),
        global::XFAM_FIXED1 => limit::XFAM_FIXED1,
        // A platform's own processor is the only model that it is known to stand for.
        global::NUM_ALLOWED_FMS => 1,
        global::ALLOWED_FMS if field == 0 => cpuid::FAMILY_MODEL_STEPPING.into(),
        global::ALLOWED_FMS => 0,
        _ => return None,
    })
}

/// TDX_FEATURES0 of a module.
pub(crate) const fn features0(module: Module) -> u64 {
    match module {
        Module::V1_5_01 => limit::FEATURES,
        Module::V1_5_34 | Module::V2_0_18 => limit::FEATURES | Features::DYNAMIC_PAMT.into_bits(),
    }
}

fn cpuid_value(row: &FieldRow, field: usize, element: usize) -> Option<u64> {
    let leaf = cpuid::LOOKUP
        .iter()
        .find(|entry| entry.config == Some(field));
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Some(match Id::of(row.id) {
        global::NUM_CPUID_CONFIG => cpuid::CONFIGURABLE_LEAVES as u64,
        global::CPUID_CONFIG_LEAVES => {
            leaf.map_or(u64::MAX, |entry| pair(entry.leaf, entry.subleaf))
        }
        global::CPUID_CONFIG_VALUES => cpuid::configurable(field).map_or(0, |configurable| {
            let [eax, ebx, ecx, edx] = configurable.direct;
            if element == 0 {
                pair(eax, ebx)
            } else {
                pair(ecx, edx)
            }
        }),
        _ => return None,
    })
}

fn module_value(row: &FieldRow) -> Option<u64> {
    Some(match Id::of(row.id) {
        global::VENDOR_ID => limit::VENDOR_ID,
        global::MINOR_VERSION => limit::MINOR_VERSION,
        global::MAJOR_VERSION => limit::MAJOR_VERSION,
        global::UPDATE_VERSION => limit::UPDATE_VERSION,
        global::NUM_TDX_FEATURES => limit::TDX_FEATURES,
        global::NUM_CMRS => limit::CMRS,
        global::MAX_TDMRS => limit::TDMRS,
        global::MAX_RESERVED_PER_TDMR => limit::RESERVED_AREAS,
        global::PAMT_4K_ENTRY_SIZE | global::PAMT_2M_ENTRY_SIZE | global::PAMT_1G_ENTRY_SIZE => {
            limit::PAMT_ENTRY_BYTES
        }
        global::TDR_BASE_SIZE => limit::PAGE_BYTES,
        global::TDCS_BASE_SIZE => limit::TDCS_PAGES * limit::PAGE_BYTES,
        global::TDVPS_BASE_SIZE => limit::TDVPS_PAGES * limit::PAGE_BYTES,
        global::TDCS_SIZE_PER_L2_VM => limit::TDCS_PAGES_PER_L2_VM * limit::PAGE_BYTES,
        global::TDVPS_SIZE_PER_L2_VM => limit::TDVPS_PAGES_PER_L2_VM * limit::PAGE_BYTES,
        global::IA32_ARCH_CAPABILITIES_CONFIG_MASK => limit::ARCH_CAPABILITIES_CONFIG_MASK,
        global::MAX_MIGS => limit::MIGRATION_STREAMS,
        global::NUM_IMMUTABLE_STATE_PAGES => limit::IMMUTABLE_STATE_PAGES,
        global::NUM_TD_STATE_PAGES => limit::TD_STATE_PAGES,
        global::NUM_VP_STATE_PAGES => limit::VP_STATE_PAGES,
        global::MAX_SERV_TDS => limit::SERVICE_TDS,
        global::SERVTD_ATTR_FIXED0 => limit::SERVTD_ATTR_FIXED0,
        global::GUEST_L2_GPA_ATTR_MASK => limit::L2_GPA_ATTR_MASK,
        global::VM_CTLS_FIXED0 => limit::VM_CTLS,
        global::VPCU_L2_CTLS_FIXED0 => limit::L2_VCPU_CTLS,
        global::VPCU_L2_DEBUG_CTLS_FIXED0 => limit::L2_DEBUG_CTLS,
        // Build data that differ from release to release, handoff data of an update that never
        // happened, and limits that are 0 in this module.
        global::BUILD_DATE
        | global::BUILD_NUM
        | global::INTERNAL_VERSION
        | global::SYS_ATTRIBUTES
        | global::ATTRIBUTES_FIXED1
        | global::CONFIG_FLAGS_FIXED1
        | global::NUM_DISALLOWED_FMS
        | global::DISALLOWED_FMS
        | global::MIG_ATTRIBUTES
        | global::MIN_EXPORT_VERSION
        | global::MAX_EXPORT_VERSION
        | global::MIN_IMPORT_VERSION
        | global::MAX_IMPORT_VERSION
        | global::SERVTD_ATTR_FIXED1
        | global::MODULE_HV
        | global::MIN_UPDATE_HV
        | global::NO_DOWNGRADE
        | global::NUM_HANDOFF_PAGES
        | global::HANDOFF_DATA_VALID
        | global::HANDOFF_DATA_HV
        | global::HANDOFF_DATA_SIZE
        | global::VM_CTLS_FIXED1
        | global::VCPU_L2_CTLS_FIXED1
        | global::VCPU_L2_DEBUG_CTLS_FIXED1 => 0,
        _ => return None,
    })
}
