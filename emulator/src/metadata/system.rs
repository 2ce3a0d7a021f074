//! Fields of the module and the platform.

use crate::abi::Module;
use crate::abi::Status;
use crate::abi::StatusCode;
use crate::core::Core;
use crate::cpu;
use crate::cpuid;
use crate::dynamic_pamt::MAX_KEY_ID_SHIFT;
use crate::metadata::Access;
use crate::metadata::Context;
use crate::metadata::MAX_ELEMENTS;
use crate::metadata::fields::global;
use crate::metadata::id::Id;
use crate::rules::Rules;
use tdx_abi::field;
use tdx_abi::field::FieldId;
use tdx_abi::field::FieldRow;
use tdx_abi::module::Features;

/// TDX_FEATURES0 of the module 1.5.01.
const FEATURES: u64 = match Module::V1_5_01.features0() {
    Some(features) => features,
    None => 0,
};

/// What the code of `module` fixes a field of the table GLOBAL to; for constants alone, where a field
/// without such a value does not compile.
pub(crate) const fn limit(module: Module, id: FieldId) -> u64 {
    match field::fixed(module, id) {
        Some(value) => value,
        None => panic!("the manifest has no value for this field"),
    }
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
        .or_else(|| module_value(context.core.module(), row))
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
        global::XFAM_FIXED0 => {
            module_value(core.module(), row)? & (cpu::XCR0_SUPPORTED | cpu::XSS_SUPPORTED)
        }
        // A platform's own processor is the only model that it is known to stand for.
        global::NUM_ALLOWED_FMS => 1,
        global::ALLOWED_FMS if field == 0 => cpuid::FAMILY_MODEL_STEPPING.into(),
        global::ALLOWED_FMS => 0,
        global::MIN_DYNAMIC_PAMT_NUM_HKID_BITS => {
            config.max_pa.saturating_sub(MAX_KEY_ID_SHIFT).into()
        }
        _ => return None,
    })
}

/// TDX_FEATURES0 of a module, as far as the emulator has the features.
///
/// A module tells of LOCAL_ATTESTATION only where the CPU has SEAMVERIFYREPORT, as the emulated one has not
/// (`tdh_sys_init.c`, `metadata_sys.c`).
pub(crate) const fn features0(module: Module) -> u64 {
    let offered = FEATURES | Rules::of(module).added_features.into_bits();
    offered & !Features::LOCAL_ATTESTATION.into_bits()
}

fn cpuid_value(row: &FieldRow, field: usize, element: usize) -> Option<u64> {
    let leaf = cpuid::LOOKUP
        .iter()
        .find(|entry| entry.config == Some(field));
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Some(match Id::of(row.id) {
        global::NUM_CPUID_CONFIG => cpuid::CONFIGURABLE_LEAVES as u64,
        global::CPUID_CONFIG_LEAVES => {
            leaf.map_or(u64::MAX, |entry| pair(entry.leaf, entry.subleaf_or_ones()))
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

/// What `module` fixes a field to, as 1.5.01 does unless it is known to differ.
fn module_value(module: Module, row: &FieldRow) -> Option<u64> {
    let fixed = field::fixed(module, row.id).or_else(|| field::fixed(Module::V1_5_01, row.id));
    if fixed.is_some() {
        return fixed;
    }
    Some(match Id::of(row.id) {
        // Build data that differ from release to release, handoff data of an update that never
        // happened, limits that are 0, and what belongs to virtual MAXPA and TDX Connect, which are not
        // emulated; L1 has no attributes that a guest may set.
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
        | global::VCPU_L2_DEBUG_CTLS_FIXED1
        | global::MIN_VIRT_MAXPA
        | global::TDX_CONNECT_FEATURES
        | global::GUEST_GPA_ATTR_MASK => 0,
        _ => return None,
    })
}
